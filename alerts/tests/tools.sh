#!/bin/sh
# Builds the real Prometheus and Alertmanager programs that the tests drive,
# through the Go toolchain, into .tools/bin of the repository, and only those
# that are missing. The versions are pinned here; Go's checksum database vouches
# for the sources.
#
#   alerts/tests/tools.sh            builds what is missing, prints the folder
#
# Prometheus is built without its service discoveries (tag remove_all_sd):
# static and file targets are enough here, and it saves hundreds of modules.
set -eu

prometheus=v0.316.0
alertmanager=v0.31.1

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$root/.tools/bin
mkdir -p "$bin"
# The folder ignores itself: it is nobody's to commit.
echo '*' >"$root/.tools/.gitignore"

# build VERSION MODULE TAGS NAME...: installs the commands of one module, each
# kept under its version too so that a changed pin is built anew.
build() {
	version=$1 module=$2 tags=$3
	shift 3
	for name; do
		if [ -x "$bin/$name" ] && [ "$(cat "$bin/.$name.version" 2>/dev/null)" = "$version" ]; then
			continue
		fi
		echo "building $name $version" >&2
		# GOFLAGS is cleared: -mod=mod or -race meant for the project
		# must not reach another module's build.
		(cd "$root/.tools" && GOFLAGS= GOBIN=$bin go install -tags "$tags" "$module/cmd/$name@$version")
		echo "$version" >"$bin/.$name.version"
	done
}

build "$prometheus" github.com/prometheus/prometheus remove_all_sd promtool prometheus
build "$alertmanager" github.com/prometheus/alertmanager "" alertmanager amtool

echo "$bin"
