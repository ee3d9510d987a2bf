# Everything a contributor types. `make` alone lists the targets; .ci/run calls `make test`.
#
# Needed beforehand: cargo, python3, node with npm. What else is missing, `setup` installs: into the
# project (.tools, tests/*/.venv, tests/sdk/node_modules) where it can, by apt where it must.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps share two cores and one target directory: one after the other is both faster and readable.
.NOTPARALLEL:

CARGO_DENY_VERSION := 0.20.2

export PATH := $(CURDIR)/.tools/bin:$(HOME)/.cargo/bin:$(PATH)
# Absolute, because the SDK tests run from their own directory.
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export TIERWAY_BIN ?= $(TARGET_DIR)/debug/tierway

.PHONY: help run test setup check instructions rust sdk ops image-check ledger bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## build the release binary and serve the built-in demo: no account, no network
	cargo build --release --locked
	cargo run --release --locked --quiet -- serve

test: check rust sdk ops ## install what the tests need, then run every one of them

check: setup ## formatting, lints, documentation (private items too: this is a program), licences, instruction counts
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	cargo deny --locked check licenses bans sources
	python3 benches/instructions.py

instructions: setup ## instructions per request, frame and refusal, against benches/instructions.toml; UPDATE=1 writes it
	python3 benches/instructions.py $(if $(UPDATE),--update) $(ARGS)

rust: ## the Rust tests
	cargo test --locked

sdk: setup tests/sdk/.venv/installed tests/sdk/node_modules/installed ## the official OpenAI clients, Python and Node, against the binary
	cargo build --locked
	cd tests/sdk && .venv/bin/python -m pytest
	cd tests/sdk && .venv/bin/python gateway.py node --test --test-reporter=spec sdk.test.mjs

ops: setup tests/ops/.venv/installed ## image, alert rules, dashboard and service files, against the debug binary
	cargo build --locked
	cd tests/ops && .venv/bin/python -m pytest

image-check: ## build the image's stages with a release build, no container engine, and start the result
	python3 tests/ops/replay_dockerfile.py

ledger: ## fill a database with a million receipts and print its size, how soon it serves, how quickly it is read
	TIERWAY_LEDGER_ROWS=1000000 cargo test --release --locked --test store_sqlite large -- --nocapture

bench: ## compare with nginx and a bare proxy on an idle machine, and write docs/performance.md
	@command -v wrk >/dev/null && PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { $(call apt_install,wrk nginx-light); }
	python3 benches/compare.py $(ARGS)

# --- what the tests need -------------------------------------------------------------------

setup: ## install what the tests need and is missing
	@if ! command -v cc >/dev/null; then $(call apt_install,build-essential); fi
	@if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then $(call apt_install,python3-venv); fi
	@if ! cargo fmt --version >/dev/null 2>&1; then rustup component add rustfmt; fi
	@if ! cargo clippy --version >/dev/null 2>&1; then rustup component add clippy; fi
	@# Taken out of Debian's package, because installing it would start a service.
	@if ! command -v prometheus >/dev/null; then \
		$(apt_update) && mkdir -p .tools/bin && cd .tools && apt-get download -qq prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -C bin --strip-components=3 ./usr/bin && rm prometheus_*.deb; fi
	@if ! command -v valgrind >/dev/null; then $(call apt_install,valgrind); fi
	@# A debug build: sooner compiled, and it checks us in seconds all the same.
	@if ! cargo deny --version >/dev/null 2>&1; then \
		cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --debug --root .tools; fi

tests/%/.venv/installed: tests/%/requirements.txt
	python3 -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

tests/sdk/node_modules/installed: tests/sdk/package-lock.json
	cd tests/sdk && npm ci --no-audit --no-fund
	touch $@

# Root installs directly, anyone else through sudo.
define apt_update
	as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); $$as_root apt-get update -qq
endef
define apt_install
	$(apt_update) && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1)
endef
