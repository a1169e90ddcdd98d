# The commands of this repository. `make` alone lists them.

PYTHON ?= python3
STAGE := scripts/stage
PYTHON_WORKS = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null
DEBUG_BIN = $(or $(CARGO_TARGET_DIR),target)/debug/aisix
RELEASE_DIR = $(or $(CARGO_TARGET_DIR),target)/release

.DEFAULT_GOAL := help
.PHONY: help demo demo-check build fmt test bench prepare

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the gateway in front of a real small language model, until Ctrl-C
	@if $(PYTHON_WORKS); then exec $(PYTHON) demo/demo.py; else exec sh demo/echo.sh; fi

demo-check: ## the same, then exit: 0 only if the answers came from the model
	@if $(PYTHON_WORKS); then exec $(PYTHON) demo/demo.py --check; else exec sh demo/echo.sh --check; fi

build: ## the release binary
	cargo build --release -p aisix

fmt: ## format the Rust sources
	cargo fmt --all

test: prepare ## everything: style, unit, black box, official clients, demo-check
	@$(STAGE) "formatting" cargo fmt --all --check
	@$(STAGE) "repository rules" cargo xtask tidy
	@$(STAGE) "clippy" cargo clippy --workspace --all-targets -- -D warnings
	@$(STAGE) "debug build" cargo build --workspace --all-targets
	@$(STAGE) "Rust tests" cargo test --workspace --quiet
	@$(STAGE) "unit tests of the demo" $(PYTHON) -m unittest discover -s demo
	@$(STAGE) "official clients" $(PYTHON) tests/clients/run.py --bin $(DEBUG_BIN)
	@$(STAGE) "admin API against its description" $(PYTHON) tests/api/run.py --bin $(DEBUG_BIN)
	@$(STAGE) "demo without a model" env GATEWAY_BIN=$(DEBUG_BIN) $(PYTHON) demo/demo.py --check --allow-echo --no-model
	@$(STAGE) "demo without Python" env GATEWAY_BIN=$(DEBUG_BIN) DEMO_PORTS="13000 13001 19090" sh demo/echo.sh --check --allow-echo
	@$(STAGE) "demo-check" $(MAKE) --no-print-directory demo-check
	@printf '\nmake test: passed\n'

bench: ## measure against nginx (Debian: apt-get install nginx-light); see bench/README.md
	@command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || { echo "nginx is missing; on Debian: apt-get install nginx-light"; exit 1; }
	cargo build --release -p aisix -p aisix-bench
	$(RELEASE_DIR)/aisix-bench run

prepare:
	@scripts/prepare
