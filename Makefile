# Flyball: `make help` lists what there is to do.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# mod MODULE: the version of a module in go.mod, which is the one place where versions are pinned.
mod = $(shell awk '$$1 == "$(1)" {print $$2; exit}' go.mod)

KUBERNETES_VERSION := $(call mod,k8s.io/kubernetes)
CONTAINERD_VERSION := $(call mod,github.com/containerd/containerd/v2)
CNI_VERSION        := $(call mod,github.com/containernetworking/plugins)

export CGO_ENABLED := 0

##@ Build

BUNDLED := bin/containerd bin/containerd-shim-runc-v2 bin/runc $(addprefix bin/cni/,bridge host-local loopback portmap)
IMAGES  := bin/images/pause.tar bin/images/hello.tar

.PHONY: build
build: bundled images bin/flyball ## Build bin/flyball and everything it bundles

.PHONY: bundled
bundled: $(BUNDLED) ## Build the bundled containerd, runc and CNI plugins

.PHONY: images
images: $(IMAGES) ## Build the preloaded images

# The date and the commit are those of the last commit, not of the build: the same source gives the same program, and a
# build in which nothing changed does not link again.
GIT_COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
GIT_STATE  := $(shell test -z "$$(git status --porcelain 2>/dev/null)" && echo clean || echo dirty)
BUILD_DATE := $(shell TZ=UTC0 git log -1 --date=iso-strict-local --format=%cd 2>/dev/null | sed 's/+00:00/Z/' | grep . || echo 1970-01-01T00:00:00Z)
KUBERNETES_MAJOR := $(word 1,$(subst ., ,$(KUBERNETES_VERSION:v%=%)))
KUBERNETES_MINOR := $(word 2,$(subst ., ,$(KUBERNETES_VERSION:v%=%)))

# Helm charts and the conformance suite read the API server's version; component-base serves it, client-go sends it in
# the User-Agent of every part.
FLYBALL_LDFLAGS := -s -w $(foreach package,k8s.io/component-base/version k8s.io/client-go/pkg/version, \
	-X $(package).gitVersion=$(KUBERNETES_VERSION)+flyball \
	-X $(package).gitMajor=$(KUBERNETES_MAJOR) -X $(package).gitMinor=$(KUBERNETES_MINOR) \
	-X $(package).gitCommit=$(GIT_COMMIT) -X $(package).gitTreeState=$(GIT_STATE) -X $(package).buildDate=$(BUILD_DATE))

.PHONY: FORCE
FORCE:

bin/flyball: FORCE # go build knows better than make what changed
	go build -buildvcs=false -ldflags "$(FLYBALL_LDFLAGS)" -o $@ ./cmd/flyball

CONTAINERD_PACKAGE := github.com/containerd/containerd/v2
CONTAINERD_LDFLAGS := -s -w -X $(CONTAINERD_PACKAGE)/version.Version=$(CONTAINERD_VERSION)

bin/containerd bin/containerd-shim-runc-v2: bin/%: go.mod
	go build -ldflags "$(CONTAINERD_LDFLAGS)" -o $@ $(CONTAINERD_PACKAGE)/cmd/$*
	@touch $@

# runc needs C: libseccomp, and the code that enters namespaces before Go's runtime starts.
bin/runc: go.mod | deps
	CGO_ENABLED=1 go build -tags seccomp,netgo,osusergo -ldflags "-s -w -extldflags -static" -o $@ github.com/opencontainers/runc
	@touch $@

CNI_PACKAGE := github.com/containernetworking/plugins
CNI_LDFLAGS := -s -w -X $(CNI_PACKAGE)/pkg/utils/buildversion.BuildVersion=$(CNI_VERSION)

bin/cni/host-local: CNI_KIND := ipam
bin/cni/portmap: CNI_KIND := meta
bin/cni/%: CNI_KIND := main
bin/cni/%: go.mod
	go build -ldflags "$(CNI_LDFLAGS)" -o $@ $(CNI_PACKAGE)/plugins/$(CNI_KIND)/$*
	@touch $@

IMAGE_SOURCES := $(shell find test/images -name '*.go' -not -name '*_test.go' 2>/dev/null)

bin/images/%.tar: go.mod $(IMAGE_SOURCES)
	go run ./test/images/build -dir bin/images $*

# The C parts of runc. Debian's release is the pin: within a release these packages get security fixes only.
DEPS := gcc libc6-dev libseccomp-dev pkg-config

.PHONY: deps
deps: ## Install the Debian packages that the build needs, when one is missing
	@missing=$$(for p in $(DEPS); do dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	test -z "$$missing" && exit 0; \
	echo "installing" $$missing; \
	test "$$(id -u)" = 0 || { echo "run as root, or install them yourself: apt-get install" $$missing >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get install -qq -y --no-install-recommends $$missing >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null; }

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin

##@ Help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z0-9-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
