# gantry: make help lists the targets.
SHELL   := /bin/bash
GO      ?= go
BIN     := bin/gantry
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
TOOL    := $(GO) tool -modfile=tools/go.mod
PKGS    := ./...
FUZZ ?= 500x
STATE   ?= /var/lib/gantry-controlplane
CLOUD   ?= /var/lib/gantry-cloud
# what an L2 of Neutron is to hold
NETWORKS = TestFunctional(NetworkOfAnInstance|Neighbours|PortBoundElsewhere)

export CGO_ENABLED ?= 0

.PHONY: help build run openstack stop test check fmt lint unit fuzz functional functional-ovs functional-ovn functional-releases tempest acceptance terraform validate crash criu debian load bench-boot bench-engine bench-cloud bench-guest bench-images bench-net install deb clean deps

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

build: ## build bin/gantry with gantry-host and gantry-runtime beside it, static binaries
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)-host ./cmd/gantry
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)-runtime ./cmd/gantry-runtime
	cp -f $(BIN)-runtime $(BIN)

deps: ## install the Debian packages that running and testing need (root)
	./functional/controlplane/deps

run: build ## start a small cloud with this host as its compute host; Ctrl-C ends it, instances run on (root)
	./tools/run-deps
	./$(BIN) cloud --state $(CLOUD)

openstack: build deps ## bring up a real OpenStack on the loopback, join it with gantry and boot an instance (root)
	STATE=$(STATE) ./functional/controlplane/run $(abspath $(BIN))

stop: ## stop what make openstack started and remove its state (root)
	STATE=$(STATE) ./functional/controlplane/run --stop $(abspath $(BIN))

test: deps unit fuzz validate functional ## all tests: unit and root tests, fuzz smoke, OCI validation, functional tests (root)

check: ## format, vet, lint, import rules, known vulnerabilities
	./tools/check

fmt: ## format the code
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

lint: ## run the linters
	$(TOOL) golangci-lint run $(PKGS)

unit: ## unit and root tests with the race detector (root)
	./tools/unit

fuzz: ## each fuzz target for $(FUZZ) inputs
	FUZZ=$(FUZZ) ./tools/fuzz

functional: build ## functional tests against a real OpenStack in namespaces of its own (root)
	./functional/controlplane/functional $(abspath $(BIN))

functional-ovs: build ## those about networks with Neutron's openvswitch agent and the datapath in user space; OVS_FIREWALL=iptables_hybrid: hybrid ports (root)
	L2=openvswitch PACKAGES=./functional RUN='$(or $(RUN),$(NETWORKS))' ./functional/controlplane/functional $(abspath $(BIN))

functional-ovn: build ## the same with OVN (root)
	L2=ovn PACKAGES=./functional RUN='$(or $(RUN),$(NETWORKS))' ./functional/controlplane/functional $(abspath $(BIN))

functional-releases: build ## functional tests against the newest two OpenStack releases of the Python package index; SERIES=2026.1 one of them (root)
	./functional/controlplane/releases/run $(abspath $(BIN)) $(SERIES)

tempest: build ## Tempest's tests of the compute and image API and of a server's basic operations; ONLY=REGEX those (root, network)
	./functional/tempest/run $(abspath $(BIN)) '$(ONLY)'

acceptance: build ## gophercloud's acceptance tests against gantry cloud, in namespaces of its own (root)
	./functional/acceptance/run $(abspath $(BIN))

terraform: build ## PROVIDER=FILE: Terraform and its OpenStack provider, which it does not install, against gantry cloud (root)
	./functional/terraform/run $(abspath $(BIN)) "$(PROVIDER)"

validate: ## the OCI validation suite against gantry runtime (root)
	./tools/validate

crash: build ## kill service, keeper and guard for 10 minutes among 100 containers (root)
	GANTRY_BINARY=$(abspath $(BIN)) GANTRY_CRASH_TIME=10m GANTRY_CRASH_CONTAINERS=100 \
	  $(GO) test -tags functional -count 1 -v -timeout 30m ./functional/crash/

debian: build ## real Debian images: trees, instances, and snapshots that boot under QEMU; SUITES="bookworm trixie" (root, network)
	./functional/debian/run $(abspath $(BIN)) $(SUITES)

load: build ## nginx, PostgreSQL, Redis and a JVM of Debian under load in instances with limits (root, network)
	./functional/load/run $(abspath $(BIN))

criu: build ## checkpoint and restore by a real criu, from PATH or a newer Debian suite (root, network)
	./tools/criu $(abspath $(BIN))

bench-boot: build deps ## boot and delete, beside a stock nova-compute on one control plane (root)
	./functional/controlplane/bench-boot $(abspath $(BIN))

bench-engine: build ## container starts and their like, beside crun, runc, docker and podman in one run (root)
	./functional/bench-engine $(abspath $(BIN))

bench-net: ## networks of the host: set-up, rules, TCP, beside docker's bridge in one run (root)
	./functional/bench-net

bench-cloud: build ## gantry cloud: start, boots, 100 servers at once, memory, a list of 1,000 (root)
	./functional/bench-cloud $(abspath $(BIN))

bench-images: build ## imports and commits of images, beside docker, podman, containerd and tar in one run (root)
	./functional/bench-images $(abspath $(BIN))

bench-guest: build ## a Debian with systemd from its start to running and to sshd, beside podman and lxc in one run (root)
	./functional/bench-guest $(abspath $(BIN))

install: build ## install the binaries and the service unit
	install -D -m 0755 -t $(DESTDIR)/usr/local/bin $(BIN)-host $(BIN)-runtime $(BIN)
	install -D -m 0644 docs/gantry-compute.service $(DESTDIR)/usr/local/lib/systemd/system/gantry-compute.service

DEBS ?= amd64 arm64
deb: build ## Debian packages in bin, for DEBS="amd64 arm64"
	@for arch in $(DEBS); do \
	  mkdir -p bin/$$arch && \
	  GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/$$arch/gantry-host ./cmd/gantry && \
	  GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/$$arch/gantry-runtime ./cmd/gantry-runtime && \
	  cp -f bin/$$arch/gantry-runtime bin/$$arch/gantry && \
	  ARCH=$$arch NATIVE=$(BIN)-host ./packaging/deb/build bin/$$arch bin || exit 1; \
	done

clean: ## remove what was built
	rm -rf bin
