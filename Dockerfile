# syntax=docker/dockerfile:1

FROM docker.io/library/golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# docker build --build-arg VERSION="$(git describe --tags --always)" --build-arg REVISION="$(git rev-parse HEAD)" .
ARG VERSION=unknown
ARG REVISION=unknown
ARG BRANCH=unknown
ARG BUILD_DATE=unknown
RUN CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w \
      -X github.com/prometheus/common/version.Version=${VERSION} \
      -X github.com/prometheus/common/version.Revision=${REVISION} \
      -X github.com/prometheus/common/version.Branch=${BRANCH} \
      -X github.com/prometheus/common/version.BuildDate=${BUILD_DATE}" \
    -o /out/edges_exporter . \
 && mkdir /out/data

# It has CA certificates, a user without rights, and no shell.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/edges_exporter /edges_exporter
# A volume takes over the owner of the folder that it covers.
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /data
USER 65532:65532
# The default of --storage.path is the folder "data" in here: /data. Given as a
# flag or a variable, it would be the demo's too, which has a throw-away one.
WORKDIR /
VOLUME /data
EXPOSE 10253
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s CMD ["/edges_exporter", "healthcheck"]
ENTRYPOINT ["/edges_exporter"]
