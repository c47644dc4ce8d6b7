# make demo    a push that goes live, on this machine, below ./var
# make test    every test; make lint, make build, make clean
# What is missing is installed (as root, by apt-get) or named.

SHELL := /bin/bash
GO    ?= go
BIN   := .build/bin
# Debian's own directories last: nginx lives in sbin, which users' PATHs lack.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin

.PHONY: build deps demo test test-short lint clean

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

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

clean:
	rm -rf .build
