# make demo    a push that goes live, on this machine, below ./var
# make test    every test; make lint, make build, make clean
# make test-system  scotch on real systemd, in containers of Debian 12 and 13; as root
# make deb     a Debian package, in .build
# make soak    the random tests, those under load and the floods, longer; SOAK=10 for ten times as long
# make test-git  git's own tests of pushes, with our receiver; fetches and builds git's source in ~/.cache
# make fuzz    each fuzz target for FUZZ=30s
# make bench   measures, against floors and peers, into docs/bench; BENCH='redeploy|rollback' for some
#              (only printed), BENCH_SIZE=3 for longer
# What is missing is installed (as root, by apt-get) or named.

SHELL := /bin/bash
GO    ?= go
BIN   := .build/bin
# Debian's own directories last: nginx lives in sbin, which users' PATHs lack.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin

.PHONY: build man deps deb demo bench test test-git test-system test-short soak lint clean

build: $(BIN)/scotch

$(BIN)/scotch: FORCE
	@mkdir -p $(BIN)
	$(GO) build -o $@ ./cmd/scotch
.PHONY: FORCE

# Manual pages, from the command tree.
man: build
	$(BIN)/scotch man .build/man

deps:
	@examples/install-deps $(CURDIR)/.build

demo: deps build
	@examples/demo

# Most tests wait for processes: two at a time leave cores idle.
test: deps lint
	$(GO) test -race -parallel 4 -timeout 25m ./...

# SYSTEM='-run TestServe/trixie -v' for less. In the folder itself, so that go test
# shows what it says when it has to leave the tests out.
SYSTEM ?=
test-system: deps
	@test "$$(id -u)" != 0 || { command -v debootstrap && command -v systemd-nspawn; } >/dev/null || apt-get install -y -q --no-install-recommends debootstrap systemd-container
	cd system && SCOTCH_TEST_SYSTEM=1 $(GO) test -count=1 -timeout 40m $(SYSTEM)

# TESTS='t5516' for some.
test-git:
	gitserver/testdata/git-suite/run $(TESTS)

test-short:
	$(GO) test -short ./...

# Minutes each. What a test did and its seed are printed: SCOTCH_SEED=N does it again.
SOAK ?= 1
soak: deps
	SCOTCH_STEPS=$$((250 * $(SOAK))) SCOTCH_SWITCHES=$$((40 * $(SOAK))) SCOTCH_ROUNDS=$$((20 * $(SOAK))) $(GO) test -race -count=1 -v -timeout $$((30 * $(SOAK)))m \
		-run '^(TestModel|TestSwitchesUnderLoad|TestTwentyPushesAtOnce|TestPushesToOneAppAtOnce|TestServeRestartedMidRequest)$$' ./cmd/scotch
	SCOTCH_SOAK=1 $(GO) test -count=1 -v -timeout $$((60 * $(SOAK)))m -run '^(TestCrash|TestKilled|TestFull)' ./cmd/scotch
	SCOTCH_SOAK=1 $(GO) test -race -count=1 -v -timeout $$((10 * $(SOAK)))m -run '^TestFloodOf' ./gitserver ./deployer/git
	SCOTCH_EDITS=$$((20 * $(SOAK))) $(GO) test -count=1 -v -timeout $$((30 * $(SOAK)))m -run '^(TestAnyEditGivesWhatAFreshInstallGives|TestInstallLocks)$$' ./deployer/python

# Some minutes on a quiet machine. A choice of measurements leaves docs/bench as it is.
BENCH      ?=
BENCH_SIZE ?= 1
BENCH_OUT  ?= $(if $(BENCH),,docs/bench)
bench: deps build
	$(GO) build -o .build/bench ./bench
	.build/bench -run '$(BENCH)' -size $(BENCH_SIZE) -out '$(BENCH_OUT)'

# What it finds is a file below testdata/fuzz: commit it with the mend.
FUZZ ?= 30s
fuzz:
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
	for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$$file"); do \
	$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ) "$$(dirname "$$file")" </dev/null; done; done

# Without libc it runs on any release. VERSION= and MAINTAINER= go into the package.
deb:
	@mkdir -p .build/deb
	CGO_ENABLED=0 $(GO) build -trimpath -o .build/deb/scotch ./cmd/scotch
	packaging/debian/build .build/deb/scotch .build

# GOVULNDB=URL is another place of the vulnerability database, file:///… too (https://go.dev/doc/security/vuln/database).
GOVULNDB ?=
GOVULNCHECK = $(GO) tool govulncheck$(if $(GOVULNDB), -db $(GOVULNDB))
lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@echo '$(GOVULNCHECK) ./...'; out=$$($(GOVULNCHECK) ./... 2>&1) || case $$out in \
	*"govulncheck: fetching vulnerabilities:"*) echo "govulncheck is skipped: its database can't be reached";; \
	*) echo "$$out"; exit 1;; esac

clean:
	rm -rf .build
