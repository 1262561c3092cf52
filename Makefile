# The one command is "make test": it checks and proves everything, and needs
# nothing but Go, make, git and a C compiler (for the race detector). The tools
# that it uses are built into .tools/bin, the first time only.
#
# The tests of the modules below wait for real programs most of the time: they
# do so while the rest is checked. A machine with two cores is enough.

GO       ?= go
SHELL    := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .tools/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

FUZZTIME  ?= 5s
BENCHTIME ?= 1s

# Modules of their own below this one, with what only tests or generators need.
NESTED = $(sort $(patsubst ./%/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path './.*')))

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BRANCH   ?= $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
DATE     ?= $(shell date -u +%Y-%m-%dT%H:%M:%SZ)
COMMON   := github.com/prometheus/common/version
LDFLAGS   = -s -w -X $(COMMON).Version=$(VERSION) -X $(COMMON).Revision=$(REVISION) -X $(COMMON).Branch=$(BRANCH) -X $(COMMON).BuildDate=$(DATE)

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: test
test: format vet ## Check and prove everything
	@$(MAKE) --jobs=2 --output-sync=target nested proofs

# One after the other, beside the modules below, which wait more than they
# work: what they need comes first.
.PHONY: proofs
proofs:
	@nice $(MAKE) tidy
	nice $(MAKE) lint
	nice $(MAKE) fuzz
	nice $(MAKE) race

.PHONY: format
format: ## Check that gofmt has nothing to say
	@echo '--- gofmt'
	unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go'))
	if [ -n "$$unformatted" ]; then
		echo "not formatted:" $$unformatted
		exit 1
	fi

.PHONY: vet
vet: ## Run go vet
	@echo '--- go vet'
	$(GO) vet ./...

.PHONY: tidy
tidy: ## Check that go.mod and go.sum are tidy
	@echo '--- go mod tidy'
	$(GO) mod tidy -diff

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run golangci-lint
	@echo '--- golangci-lint'
	$(GOLANGCI_LINT) run ./...
	for module in $(NESTED); do
		echo "--- golangci-lint in $$module"
		(cd "$$module" && $(CURDIR)/$(GOLANGCI_LINT) run ./...)
	done

$(GOLANGCI_LINT):
	@echo '--- golangci-lint $(GOLANGCI_LINT_VERSION) is built, once'
	GOFLAGS= GOBIN=$(CURDIR)/.tools/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .tools/bin/golangci-lint $@

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME
	@echo '--- fuzz targets, $(FUZZTIME) each'
	for file in $$(git ls-files --cached --others --exclude-standard '*_test.go'); do
		# Nested modules try their seeds in their own tests.
		for nested in $(NESTED); do
			if [[ $$file == $$nested/* ]]; then continue 2; fi
		done
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do
			echo "$$target in $$file"
			$(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "./$$(dirname "$$file")"
		done
	done

.PHONY: nested
nested: ## Check and test the modules below: alerts/tests, dashboards
	@for module in $(NESTED); do
		echo "--- module $$module"
		# Tests that drive real programs say in tools.sh which, and how to get them.
		if [ -e "$$module/tools.sh" ]; then sh "$$module/tools.sh"; fi
		(cd "$$module" && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) test -timeout=20m ./...)
	done

.PHONY: race
race: ## Run the tests of this module, with the race detector
	@echo '--- tests'
	# The stores of hundreds of tests need no disk: in memory they are quicker.
	if [ -d /dev/shm ] && [ -w /dev/shm ]; then export GOTMPDIR=$${TMPDIR:-/tmp} TMPDIR=/dev/shm; fi
	$(GO) test -race -timeout=20m ./...

.PHONY: build
build: ## Build the program, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o edges_exporter .

.PHONY: demo
demo: ## Start a simulated workspace and an exporter that follows it
	$(GO) run . demo

.PHONY: bench
bench: ## Run every benchmark for BENCHTIME
	$(GO) test -run='^$$' -bench=. -benchmem -benchtime=$(BENCHTIME) ./...

.PHONY: clean
clean: ## Remove what was built, the tools too
	rm -rf edges_exporter .tools
