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

.PHONY: help run test setup check instructions rust sdk ops admin quickstart image-check ledger bench failover slow fuzz fuzz-keep prove-money

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## build the release binary and serve the built-in demo: no account, no network
	cargo build --release --locked
	cargo run --release --locked --quiet -- serve

test: check rust sdk ops admin quickstart ## install what the tests need, then run every one of them

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

admin: setup tests/admin/.venv/installed ## the admin API by its own document, and every command of docs/admin-api.md
	@if ! command -v curl >/dev/null; then $(call apt_install,curl); fi
	cargo build --locked
	cd tests/admin && .venv/bin/python -m pytest

quickstart: ## every command of docs/quickstart.md, timed, against the debug binary
	@if ! command -v curl >/dev/null; then $(call apt_install,curl); fi
	cargo build --locked
	python3 tests/quickstart.py

image-check: ## build the image's stages with a release build, no container engine, and start the result
	python3 tests/ops/replay_dockerfile.py

ledger: ## fill a database with a million receipts and 100,000 keys; print its size, how soon it serves, how quickly it is read
	TIERWAY_LEDGER_ROWS=1000000 TIERWAY_STORED_KEYS=100000 \
		cargo test --release --locked --test store_sqlite --test register -- --nocapture large hundred_thousand

prove-money: ## prove that no budget is overspent: N=1000000 requests, KILLS=500, SEED=7; MUTANT=name must fail
	@if ! command -v cc >/dev/null; then $(call apt_install,build-essential); fi
	TIERWAY_PROOF_REQUESTS=$(N) TIERWAY_PROOF_KILLS=$(KILLS) TIERWAY_PROOF_SEED=$(SEED) TIERWAY_PROOF_MUTANT=$(MUTANT) \
		cargo test --release --locked --test money_proof -- --nocapture

bench: ## compare with nginx and a bare proxy, hold 10,000 streams, grow; write docs/performance.md
	@command -v wrk >/dev/null && PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { $(call apt_install,wrk nginx-light); }
	python3 benches/compare.py $(ARGS)

failover: ## lose one of three regions under load, five ways, and write docs/failover.md and its picture
	python3 benches/failover.py $(ARGS)

slow: ## thousands of slow clients beside honest ones, and write docs/slow-clients.md
	@command -v slowhttptest >/dev/null && command -v ss >/dev/null || { $(call apt_install,slowhttptest iproute2); }
	python3 benches/slow.py $(ARGS)

# What libFuzzer needs to see which way an input takes; stable Rust has it.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,\
	level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_DIR := $(TARGET_DIR)/fuzz
TARGET ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
SECONDS ?= 60

fuzz: ## look for inputs that break a property: SECONDS=60 for each TARGET="body sse"
	@if ! command -v c++ >/dev/null; then $(call apt_install,build-essential); fi
	@# Named although it is this machine: the flags are then kept from build scripts, which would not link.
	host=$$(rustc --print host-tuple); \
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --manifest-path fuzz/Cargo.toml --release \
		--target-dir $(FUZZ_DIR) --target $$host $(addprefix --bin ,$(TARGET)); \
	for target in $(TARGET); do \
		mkdir -p $(FUZZ_DIR)/found/$$target; \
		$(FUZZ_DIR)/$$host/release/$$target $(FUZZ_DIR)/found/$$target fuzz/corpus/$$target \
			-dict=fuzz/dictionaries/$$target -max_len=1024 -timeout=10 -max_total_time=$(SECONDS) \
			-artifact_prefix=$(FUZZ_DIR)/$$target- -print_final_stats=1; \
	done

fuzz-keep: ## add to the corpus what fuzzing found and nothing there does
	host=$$(rustc --print host-tuple); \
	for target in $(TARGET); do \
		$(FUZZ_DIR)/$$host/release/$$target -merge=1 -use_counters=0 fuzz/corpus/$$target $(FUZZ_DIR)/found/$$target; \
	done

# --- what the tests need -------------------------------------------------------------------

setup: ## install what the tests need and is missing
	@if ! command -v cc >/dev/null; then $(call apt_install,build-essential); fi
	@if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then $(call apt_install,python3-venv); fi
	@if ! command -v openssl >/dev/null; then $(call apt_install,openssl); fi
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
