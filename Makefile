# make demo    a push that goes live, on this machine, below ./var
# make test    every test; make lint, make build, make clean
# make soak    the random tests and those under load, longer; SOAK=10 for ten times as long
# What is missing is installed (as root, by apt-get) or named.

SHELL := /bin/bash
GO    ?= go
BIN   := .build/bin
# Debian's own directories last: nginx lives in sbin, which users' PATHs lack.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin

.PHONY: build deps demo test test-short soak lint clean

build: $(BIN)/scotch

$(BIN)/scotch: FORCE
	@mkdir -p $(BIN)
	$(GO) build -o $@ ./cmd/scotch
.PHONY: FORCE

deps:
	@examples/install-deps $(CURDIR)/.build

demo: deps build
	@examples/demo

test: deps lint
	$(GO) test -race -timeout 15m ./...

test-short:
	$(GO) test -short ./...

# Minutes each. What a test did and its seed are printed: SCOTCH_SEED=N does it again.
SOAK ?= 1
soak: deps
	SCOTCH_STEPS=$$((250 * $(SOAK))) SCOTCH_SWITCHES=$$((40 * $(SOAK))) SCOTCH_ROUNDS=$$((20 * $(SOAK))) $(GO) test -race -count=1 -v -timeout $$((30 * $(SOAK)))m \
		-run '^(TestModel|TestSwitchesUnderLoad|TestTwentyPushesAtOnce|TestPushesToOneAppAtOnce|TestServeRestartedMidRequest)$$' ./cmd/scotch

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

clean:
	rm -rf .build
