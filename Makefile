# KeyVal. `make` prints what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

GO          ?= go
BIN         := bin
MODULE      := $(shell sed -n 's/^module //p' go.mod)
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SEEDS       ?= 300
CHAOS       ?= 3m
FRAMES      ?= 20000
CUTS        ?= 50
CATCHUP     ?= 1GB
FILES       ?= 10000
OVERWRITES  ?= 1000000
MEMBERS     ?= 1GB
FROM        ?= next
REPLACE     ?= 1GB
BACKUP      ?= 1GB
IMPORT      ?= 1000000
SIEGE       ?= 3m
ARCHS       ?= amd64 arm64
TOOLS       := $(CURDIR)/$(BIN)/tools
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROTOC      := 3.21.12
PROTOC_GEN_GO      := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## make bin/kvctl
	@$(GO) build -ldflags "-X $(MODULE)/cli.Version=$(VERSION)" -o $(BIN)/kvctl ./cli/kvctl

run: ## build, then run three nodes on this machine until Ctrl-C
	@echo "building $(BIN)/kvctl: the first time this takes a minute or two" >&2
	@$(MAKE) --no-print-directory build
	@$(BIN)/kvctl dev

test: ## all tests
	@$(GO) test -timeout 9m ./...

# API is what the Go Cluster API is made of.
API := cluster|cluster_health|facade_cluster|plan
coverage: ## how much of the rules, of membership and of the Cluster API tests of their own run: 95, 90, 85 % at least
	@mkdir -p $(BIN); share() { name="$$1" least="$$2" package="$$3" files="$$4"; \
	  $(GO) test -coverprofile=$(BIN)/coverage.out $$package >$(BIN)/coverage.log 2>&1 || { cat $(BIN)/coverage.log; exit 1; }; \
	  awk -F'[: ,]' -v name="$$name" -v least="$$least" -v files="/($$files)[.]go" \
	    '$$1 ~ files {all += $$(NF-1); if ($$NF > 0) run += $$(NF-1)} \
	     END {part = all ? 100 * run / all : 0; printf "%-18s %5.1f %%, at least %d\n", name, part, least; exit part < least}' $(BIN)/coverage.out; }; \
	share rules 95 ./membershipactor/rules '[a-z_]+' && share "the replace saga" 90 ./membershipactor/saga '[a-z_]+' && \
	share membership 90 ./membershipactor '[a-z_]+' && share "the Cluster API" 85 ./actors/client '$(API)'

race: ## the tests of what runs on many threads, under the race detector
	@$(GO) test -race -short -timeout 20m ./actors/... ./storeactor/... ./raftactor/... ./membershipactor/... ./messages/...

sim: build ## SEEDS (300) simulated clusters with faults
	@$(BIN)/kvctl sim run --seed 1 --seeds $(SEEDS)

chaos: ## CHAOS (3m) of killed, frozen and parted processes under a recorded workload
	@KEYVAL_CHAOS=$(CHAOS) $(GO) test ./cli/kvctl -run 'TestChaos$$' -v -count=1 -timeout 60m

hostile: ## FRAMES (20000) of hostile input against a node under load
	@KEYVAL_HOSTILE=$(FRAMES) $(GO) test ./cli/kvctl -run TestHostileStrangers -v -count=1 -timeout 60m

powercuts: ## CUTS (50) power cuts under load on real file systems (needs root, mkfs.ext4, loop devices)
	@KEYVAL_POWERCUTS=$(CUTS) $(GO) test ./storeactor/files -run TestPowerCuts -v -count=1 -timeout 60m
	@KEYVAL_POWERCUTS=$(CUTS) $(GO) test ./cli/kvctl -run 'TestPowerCuts$$' -v -count=1 -timeout 60m

exhaustion: ## nodes run out of files, room, descriptors and sound disks (needs root, mkfs.ext4, loop devices)
	@KEYVAL_EXHAUSTION=1 $(GO) test ./storeactor/files/badger -run TakeNothingAlong -v -count=1 -timeout 60m
	@KEYVAL_EXHAUSTION=1 $(GO) test ./storeactor/files/wal -run TestPagesOfAFailedSync -v -count=1
	@KEYVAL_EXHAUSTION=1 $(GO) test ./cli/kvctl -run 'TestExhaustion$$|TestFullDisk$$' -v -count=1 -timeout 60m

damage: ## each file of a node is damaged in each way: what the node does, as a table of docs/OPERATIONS.md
	@KEYVAL_DAMAGE=1 $(GO) test ./cli/kvctl -run 'TestDamage$$' -v -count=1 -timeout 60m -rewrite

crowd: ## FILES (10000) that a node may open, full of idle clients, while members come and go
	@KEYVAL_CROWD_FILES=$(FILES) $(GO) test ./cli/kvctl -run 'TestCrowdedNode$$' -v -count=1 -timeout 10m

catchup: ## a node that lags in a cluster of CATCHUP (1GB) of data, with figures
	@KEYVAL_CATCHUP=$(CATCHUP) $(GO) test ./cli/kvctl -run 'TestCatchUp$$' -v -count=1 -timeout 60m

members: ## members come, go and are killed in each step, in a cluster of MEMBERS (1GB) of data
	@KEYVAL_MEMBERS=$(MEMBERS) $(GO) test ./cli/kvctl -run 'TestGrowAndShrink$$|TestEveryFounderIsReplaced$$|TestKilledInEachStep$$' -v -count=1 -timeout 60m

backups: ## times of backup, verify, increment and restore of BACKUP (1GB); IMPORT (1000000) keys while leaders are killed
	@KEYVAL_BACKUP=$(BACKUP) KEYVAL_IMPORT=$(IMPORT) $(GO) test ./cli/kvctl -run 'TestIncrementalBackup$$|TestImportUnderKills$$' -v -count=1 -timeout 60m

overwrites: ## OVERWRITES (1000000) of a thousand keys: what the disk takes, and a restart
	@KEYVAL_OVERWRITES=$(OVERWRITES) $(GO) test ./cli/kvctl -run 'TestOverwrites$$' -v -count=1 -timeout 60m

replace: ## a replace under every fault in every phase, and what becomes of it
	@KEYVAL_REPLACE=1 $(GO) test ./cli/kvctl -run 'TestReplaceUnderFaults$$' -v -count=1 -timeout 20m

session: build ## docs/SESSION.txt anew, from a real run of examples/tour.sh on ports 7001 to 7004
	@KVCTL=$(BIN)/kvctl examples/tour.sh > $(BIN)/session.txt && cp $(BIN)/session.txt docs/SESSION.txt

exchange: ## REPLACE (1GB) of data under load, kill -9 of a node, and kvctl cluster replace: time of each phase, longest gap
	@KEYVAL_EXCHANGE=$(REPLACE) $(GO) test ./cli/kvctl -run 'TestExchange$$' -v -count=1 -timeout 60m

upgrade: ## two versions of different levels side by side, node by node, under load; FROM=REVISION for a real one
	@KEYVAL_UPGRADE=$(FROM) $(GO) test ./examples -run 'TestMixedVersions$$' -v -count=1 -timeout 20m

pairs: ## a replace in the simulator under all pairs of two faults, each at any of its moments
	@KEYVAL_PAIRS=1 $(GO) test ./sim -run 'TestPairsOfFaults$$' -v -count=1 -timeout 180m

mutants: ## faults built in on purpose: the simulator and the properties must find every one
	@$(GO) test -tags mutant ./membershipactor/saga ./raftactor -run Mutants -v -count=1
	@$(GO) test -tags mutant ./sim -run Mutants -v -count=1 -timeout 60m

bench: build ## KeyVal beside etcd under the same load on this machine; TLS=1: both under mutual TLS
	@cd bench && $(GO) run . --kvctl ../$(BIN)/kvctl $(if $(TLS),--tls)

siege: build ## KeyVal and then etcd for SIEGE (3m) under 256 clients and four busy loops on two cores
	@cd bench && $(GO) run . --kvctl ../$(BIN)/kvctl --busy 4 --clients 256 --duration $(SIEGE) --rounds 1

verify: protoc $(TOOLS)/$(STATICCHECK)/ready ## generated code is fresh, sources are formatted, vet and staticcheck agree
	@unformatted="$$(gofmt -l $$(git ls-files '*.go' ':!third_party'))"; \
	if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	@$(GO) mod tidy -diff >/dev/null || { echo "go.mod or go.sum is stale: go mod tidy"; exit 1; }
	@$(GO) vet ./...
	@$(TOOLS)/$(STATICCHECK)/staticcheck ./...
	@$(MAKE) --no-print-directory generate OUT=$(BIN)/generated
	@for f in messages/*.pb.go; do \
	  cmp -s $$f $(BIN)/generated/$$f || { echo "$$f is stale: make generate"; exit 1; }; done
	@rm -rf $(BIN)/generated

# A tool is installed once, in a directory of its version.
$(TOOLS)/%/ready:
	@echo "installing $*" >&2
	@GOBIN=$(@D) $(GO) install $* && touch $@

.PHONY: protoc
protoc: # before work that would be in vain without it
	@command -v protoc >/dev/null || { echo "protoc is missing: install protoc $(PROTOC) (Debian's protobuf-compiler; else github.com/protocolbuffers/protobuf/releases/tag/v$(PROTOC:3.%=%))"; exit 1; }
	@protoc --version | grep -qF " $(PROTOC)" || { echo "protoc $(PROTOC) is needed, found: $$(protoc --version)"; exit 1; }

# GO_PACKAGES says in which package the code of a .proto is, so that none of them has the module's path.
GO_PACKAGES := raft.proto=go.etcd.io/raft/v3/raftpb $(patsubst messages/%,%=$(MODULE)/messages,$(wildcard messages/*.proto))
# OUT is where generated code goes; verify compares a copy.
OUT ?= .
generate: protoc $(TOOLS)/$(PROTOC_GEN_GO)/ready $(TOOLS)/$(PROTOC_GEN_GO_GRPC)/ready ## remake the generated code of messages/
	@mkdir -p $(OUT)
	@PATH="$(TOOLS)/$(PROTOC_GEN_GO):$(TOOLS)/$(PROTOC_GEN_GO_GRPC):$$PATH" protoc -I messages -I "$$($(GO) list -m -f '{{.Dir}}' go.etcd.io/raft/v3)/raftpb" \
	  --go_out=$(OUT) --go_opt=module=$(MODULE) $(foreach m,$(GO_PACKAGES),--go_opt=M$m) \
	  --go-grpc_out=$(OUT) --go-grpc_opt=module=$(MODULE) $(foreach m,$(GO_PACKAGES),--go-grpc_opt=M$m) \
	  messages/*.proto

docs: ## write what docs/ARCHITECTURE.md, docs/SECURITY.md and docs/METRICS.md show of the code
	@$(GO) test . -run TestDocsAreFresh -count=1 -rewrite
	@$(GO) test ./messages -run TestArchitectureHasTheMessages -count=1 -rewrite
	@$(GO) test ./actors/transport/grpc -run TestSecurityHasTheMatrix -count=1 -rewrite
	@$(GO) test ./cli/kvctl -run TestMetricsOfARealNode -count=1 -rewrite

monitoring: ## write monitoring/'s dashboard and alerts, and check them (needs promtool, Debian's prometheus)
	@cd monitoring && $(GO) run . && promtool check rules alerts.yaml && promtool test rules alerts_test.yaml

alerts: ## each alert's fault is made on real processes, and each fires and clears: a table of docs/OPERATIONS.md (14 minutes; needs root, mkfs.ext4, strace, Debian's prometheus)
	@KEYVAL_ALERTS=1 $(GO) test ./cli/kvctl -run 'TestAlerts$$' -v -count=1 -timeout 40m -rewrite

watched: ## what metrics and tracing cost of the nodes' CPU, in 60 short rounds that take turns (10 minutes)
	@KEYVAL_WATCHED=60 $(GO) test ./cli/kvctl -run 'TestCostOfBeingWatched$$|TestCostOfARead$$' -v -count=1 -timeout 60m

incident: build ## kill a leader under load, and draw what Prometheus saw of it (4 minutes; needs Debian's prometheus)
	@cd monitoring && $(GO) run ./incident

dist: ## what is released, into dist/: static binaries, archives, Debian packages, sums
	@GO="$(GO)" VERSION="$(VERSION)" ARCHS="$(ARCHS)" cli/packaging/dist.sh

# PATH is the path of the module here, and the search path of programs is that of make's own environment.
module: ## give the module the path PATH, such as example.com/kv
	@while IFS= read -r -d '' variable; do case $$variable in PATH=*) export "$$variable";; esac; done </proc/$$PPID/environ; \
	cli/packaging/module.sh '$(if $(filter command,$(origin PATH)),$(PATH))'

clean: ## remove what make made
	@rm -rf $(BIN) dist

.PHONY: $(shell awk -F: '/^[a-z]+:.*\#\# / {print $$1}' $(firstword $(MAKEFILE_LIST)))
