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
# The repository may belong to another user, and git then tells Go nothing.
export GOFLAGS := -buildvcs=false

##@ Build

# The first build of everything takes minutes: hack/step shows the package that it is at.
GO_BUILD = hack/step "build $@" go build -v

BUNDLED := bin/containerd bin/containerd-shim-runc-v2 bin/runc $(addprefix bin/cni/,bridge host-local loopback portmap)
IMAGES  := bin/images/pause.tar bin/images/hello.tar

.PHONY: build
build: bundled images bin/flyball bin/kubectl-flyball ## Build bin/flyball and everything it bundles

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
	@$(GO_BUILD) -ldflags "$(FLYBALL_LDFLAGS)" -o $@ ./cmd/flyball

bin/kubectl-flyball: # the same program as a plugin of kubectl: `kubectl flyball rollout status …`
	@mkdir -p $(@D) && ln -sf flyball $@

CONTAINERD_PACKAGE := github.com/containerd/containerd/v2
CONTAINERD_LDFLAGS := -s -w -X $(CONTAINERD_PACKAGE)/version.Version=$(CONTAINERD_VERSION)

bin/containerd bin/containerd-shim-runc-v2: bin/%: go.mod
	@$(GO_BUILD) -ldflags "$(CONTAINERD_LDFLAGS)" -o $@ $(CONTAINERD_PACKAGE)/cmd/$*
	@touch $@

# runc needs C: libseccomp, and the code that enters namespaces before Go's runtime starts.
bin/runc: go.mod | deps
	@CGO_ENABLED=1 $(GO_BUILD) -tags seccomp,netgo,osusergo -ldflags "-s -w -extldflags -static" -o $@ github.com/opencontainers/runc
	@touch $@

CNI_PACKAGE := github.com/containernetworking/plugins
CNI_LDFLAGS := -s -w -X $(CNI_PACKAGE)/pkg/utils/buildversion.BuildVersion=$(CNI_VERSION)

bin/cni/host-local: CNI_KIND := ipam
bin/cni/portmap: CNI_KIND := meta
bin/cni/%: CNI_KIND := main
bin/cni/%: go.mod
	@$(GO_BUILD) -ldflags "$(CNI_LDFLAGS)" -o $@ $(CNI_PACKAGE)/plugins/$(CNI_KIND)/$*
	@touch $@

IMAGE_SOURCES := $(shell find test/images -name '*.go' -not -name '*_test.go' 2>/dev/null)

bin/images/%.tar: go.mod $(IMAGE_SOURCES)
	@hack/step "build $@" go run ./test/images/build -dir bin/images $*

# The C parts of runc. Debian's release is the pin: within a release these packages get security fixes only. Elsewhere the
# compiler says what it misses.
DEPS := gcc libc6-dev libseccomp-dev pkg-config

# The tests of the service proxy look at its rules with nft.
test-deps: DEPS += nftables

.PHONY: deps test-deps
deps: ## Install the Debian packages that the build needs, when one is missing
test-deps: ## Install those that the tests need, too
deps test-deps:
	@command -v dpkg-query >/dev/null || exit 0; \
	missing=$$(for p in $(DEPS); do dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	test -z "$$missing" && exit 0; \
	echo "installing" $$missing; \
	test "$$(id -u)" = 0 || { echo "run as root, or install them yourself: apt-get install" $$missing >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get install -qq -y --no-install-recommends $$missing >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null; }

# The loops' image, for clusters that are not Flyball's. PUSH=1 sends it to the registry in IMAGE.
IMAGE     := flyball.dev/flyball:latest
PLATFORMS := linux/amd64 linux/arm64

.PHONY: image
image: $(PLATFORMS:%=bin/platforms/%/flyball) ## Build the image of the loops for all PLATFORMS into bin/flyball-image.tar
	go run ./hack/image -ref $(IMAGE) -out bin/flyball-image.tar $(if $(filter 1,$(PUSH)),-push) $(foreach p,$(PLATFORMS),$(p)=bin/platforms/$(p)/flyball)

bin/platforms/%/flyball: FORCE
	@GOOS=$(*D) GOARCH=$(*F) $(GO_BUILD) -ldflags "$(FLYBALL_LDFLAGS)" -o $@ ./cmd/flyball

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin

##@ Use

FLYBALL := bin/flyball

.PHONY: up
up: build ## Start the cluster in the background, and the sample Pods in it
	@$(FLYBALL) up --detach
	@hack/step "apply config/samples" $(FLYBALL) kubectl apply -k config/samples
	@hack/step "sample Pods are Ready" $(FLYBALL) kubectl wait --timeout=120s --for=condition=Available \
		deployment.apps/hello deployment.apps.flyball.dev/hello-flyball
	@hack/step "their Service has endpoints" $(FLYBALL) kubectl wait --timeout=60s \
		--for=jsonpath='{.endpoints[2].conditions.ready}'=true endpointslice -l kubernetes.io/service-name=hello
	@echo; $(FLYBALL) kubectl get pods -o wide
	@echo; echo "The Service hello answers:"
	@$(FLYBALL) kubectl get --raw /api/v1/namespaces/default/services/hello:http/proxy/ | sed 's/^/  /'
	@echo; echo "Try next:"
	@echo "  bin/flyball kubectl get all --all-namespaces"
	@echo "  bin/flyball kubectl scale deployment/hello --replicas=5"
	@echo "  bin/flyball status"

.PHONY: down
down: ## Stop the cluster and everything of it; PURGE=1 removes its data too
	@test -x $(FLYBALL) || $(MAKE) --no-print-directory $(FLYBALL)
	@$(FLYBALL) down $(if $(filter 1,$(PURGE)),--purge)

.PHONY: run
run: bin/flyball ## Run the loops for apps.flyball.dev from here against the cluster of KUBECONFIG
	@$(FLYBALL) kubectl apply --server-side -k config/crd
	$(FLYBALL) controllers --health-address=127.0.0.1:8081

# The directory of upstream.sh, which starts the processes that we are compared with.
YARDSTICK ?= ../shared/yardstick

# Upstream's programs from the same modules, which envtest starts otherwise.
UPSTREAM := $(addprefix bin/upstream/,kube-apiserver etcd kubectl)

bin/upstream/%: PACKAGE = k8s.io/kubernetes/cmd/$*
bin/upstream/etcd: PACKAGE = go.etcd.io/etcd/server/v3
bin/upstream/%: go.mod
	@$(GO_BUILD) -ldflags "-s -w" -o $@ $(PACKAGE)
	@touch $@

.PHONY: bench
bench: build $(UPSTREAM) ## Measure speed and memory, beside upstream's own processes where YARDSTICK has them
	go run ./test/bench/rollouts -bin bin
	go run ./test/bench/envtest -bin bin -upstream bin/upstream
	go run ./test/bench -bin bin $(if $(wildcard $(YARDSTICK)/upstream.sh),-yardstick $(YARDSTICK))

##@ Develop

TOOLS := bin/tools/golangci-lint bin/tools/controller-gen bin/tools/helm

$(TOOLS): tools/go.mod
	cd tools && go build -ldflags "-s -w" -o ../bin/tools/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint sigs.k8s.io/controller-tools/cmd/controller-gen helm.sh/helm/v4/cmd/helm
	@touch $(TOOLS)

.PHONY: generate
generate: bin/tools/controller-gen ## Generate deep copies, CRDs, RBAC and pictures in docs/ from the Go code
	@$(call generate,.)

# The module that has the CRDs of snapshots, finished by hand upstream: generating them from its types would lose that.
SNAPSHOT_CLIENT := github.com/kubernetes-csi/external-snapshotter/client/v8

# The sample operator, which is generated as kubebuilder's Makefile does it.
SAMPLE := test/envtest/sample

# generate DIR: writes everything that is generated below DIR.
define generate
bin/tools/controller-gen object:headerFile=/dev/null paths=./apis/... $(if $(filter-out .,$(1)),output:object:dir=$(1)/apis/apps/v1alpha1); \
bin/tools/controller-gen crd:generateEmbeddedObjectMeta=true paths=./apis/... output:crd:dir=$(1)/config/crd/bases; \
bin/tools/controller-gen rbac:roleName=flyball-controllers paths=./controllers/... output:rbac:dir=$(1)/config/rbac; \
go run ./hack/crdschema $(1)/config/crd/bases/*.yaml; \
install -m 644 -D -t $(1)/config/crd/snapshots $$(go list -m -f '{{.Dir}}' $(SNAPSHOT_CLIENT))/config/crd/snapshot.storage.k8s.io_*.yaml; \
go run ./hack/chart $(1)/config $(1)/config; \
go run ./hack/loops > $(1)/docs/loops.md; \
go run ./hack/house docs/architecture.md $(1)/docs/architecture.md; \
bin/tools/controller-gen object:headerFile=/dev/null paths=./$(SAMPLE)/api/... $(if $(filter-out .,$(1)),output:object:dir=$(1)/$(SAMPLE)/api/v1); \
bin/tools/controller-gen crd rbac:roleName=manager-role paths=./$(SAMPLE)/... output:crd:dir=$(1)/$(SAMPLE)/config/crd/bases output:rbac:dir=$(1)/$(SAMPLE)/config/rbac
endef

GENERATED := apis/apps/v1alpha1/zz_generated.deepcopy.go config/crd/bases config/crd/snapshots config/rbac/role.yaml config/rbac/role_installed.yaml config/helm/flyball/files \
	docs/loops.md docs/architecture.md \
	$(addprefix $(SAMPLE)/,api/v1/zz_generated.deepcopy.go config/crd/bases config/rbac)

.PHONY: verify
verify: bin/tools/controller-gen ## Check that generated code and manifests are current
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	mkdir -p $$dir/docs $$dir/apis/apps/v1alpha1 $$dir/config/crd/bases $$dir/config/rbac $$dir/$(SAMPLE)/{api/v1,config/crd/bases,config/rbac}; \
	$(call generate,$$dir); \
	for f in $(GENERATED); do diff -r "$$dir/$$f" "$$f" || { echo "$$f is stale: run make generate" >&2; exit 1; }; done

.PHONY: lint
lint: bin/tools/golangci-lint verify ## Check imports, style and what is generated
	go vet ./...
	bin/tools/golangci-lint run
	$(IN_CONFORMANCE) go vet ./... && $(IN_CONFORMANCE) ../../bin/tools/golangci-lint run

# The tests of operators run on these, too: envtest's programs, and package flyballtest with its own tests. The first build
# for a platform takes about as long as the first one for this one, and the next ones what changed.
CROSS := darwin/arm64 windows/amd64

.PHONY: cross
cross: $(foreach p,$(CROSS),$(addprefix bin/platforms/$(p)/,flyball flyballtest.test)) ## Build what the tests of operators need for macOS and Windows

bin/platforms/%/flyballtest.test: FORCE
	@GOOS=$(*D) GOARCH=$(*F) hack/step "build $@" go test -c -ldflags "-s -w" -o $@ ./flyballtest

# What controller-runtime's envtest looks for: flyball does what its name says.
ENVTEST := $(addprefix bin/envtest/,kube-apiserver etcd kubectl)

$(ENVTEST):
	@mkdir -p $(@D) && ln -sf ../flyball $@

# Makes a second machine out of namespaces, for the end-to-end tests and the suite.
bin/machine: FORCE
	@go build -o $@ ./test/machine

# The conformance suite is a module of its own.
IN_CONFORMANCE := cd $(CURDIR)/test/conformance && GOWORK=off

UNIT_TIMEOUT := 15m
E2E_TIMEOUT  := 20m

.PHONY: envtest-compat
envtest-compat: bin/flyball $(UPSTREAM) ## Run controller-runtime's own tests with upstream's programs and with Flyball's, and compare
	go run ./test/envtest/compat -upstream bin/upstream -flyball "$$($(FLYBALL) envtest)"

# The end-to-end tests come last and one after the other: each has this machine for itself.
.PHONY: test
test: test-deps build cross $(ENVTEST) bin/machine bin/tools/helm ## Run all tests; the end-to-end tests need root
	KUBEBUILDER_ASSETS=$(CURDIR)/bin/envtest go test -p 2 -timeout $(UNIT_TIMEOUT) $$(go list ./... | grep -v /test/e2e)
	KUBEBUILDER_ASSETS=$(CURDIR)/bin/envtest FLYBALL_ENVTEST=controllers,nodes=1 go test -timeout $(UNIT_TIMEOUT) ./test/envtest/sample/...
	$(IN_CONFORMANCE) go test -p 2 ./...
	go test -p 1 -count=1 -v -timeout $(E2E_TIMEOUT) ./test/e2e/...
	$(MAKE) --no-print-directory conformance SUITE=subset FRESH=1

.PHONY: e2e
e2e: build bin/machine bin/tools/helm ## Run the end-to-end tests alone; STORY=pods runs one of them
	go test -p 1 -count=1 -v -timeout $(E2E_TIMEOUT) ./test/e2e/$(if $(STORY),$(STORY)/)...

# A database of Debian's packages on a claim, whose Pod is deleted and whose flyball is killed twenty times each, twice.
.PHONY: postgres
postgres: build ## Run a real database on a claim, and end its Pod and flyball time and again; needs root
	$(IN_CONFORMANCE) go run . -image postgres -to ../../bin/images/postgres.tar
	FLYBALL_POSTGRES=$(CURDIR)/bin/images/postgres.tar go test -count=1 -v -timeout 1h ./test/e2e/postgres

# FOCUS and SKIP are regular expressions; SUITE is conformance, kind (what upstream's kind job runs), storage-external and
# storage-mock (upstream's tests of CSI drivers, with Flyball's and with a mock), subset or all;
# KUBECONFIG names another cluster to test; FRESH=1 starts over where an interrupted run would go on.
# test/conformance/README.md says more.
SUITE ?= conformance
CONFORMANCE_FLAGS = -bin $(CURDIR)/bin -out $(CURDIR)/bin/conformance -suite '$(SUITE)' -focus '$(FOCUS)' -skip '$(SKIP)' \
	$(if $(CONFORMANCE_KUBECONFIG),-kubeconfig '$(CONFORMANCE_KUBECONFIG)') $(if $(WORKERS),-workers $(WORKERS)) \
	$(if $(filter 1,$(FRESH)),-fresh) $(if $(filter 1,$(REFERENCE)),-reference)

# Only `make conformance KUBECONFIG=...` means another cluster: who has KUBECONFIG in the environment did not ask for it.
CONFORMANCE_KUBECONFIG = $(if $(filter command line,$(origin KUBECONFIG)),$(abspath $(KUBECONFIG)))

.PHONY: conformance
conformance: $(if $(CONFORMANCE_KUBECONFIG),,build bin/machine) ## Run Kubernetes' conformance suite; FOCUS='Deployment' runs a part of it
	@$(IN_CONFORMANCE) go build -o ../../bin/conformance/conformance . && exec ../../bin/conformance/conformance $(CONFORMANCE_FLAGS)

##@ Help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z0-9-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
