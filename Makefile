# make run     build the server and start it on ./data
# make test    the whole test suite, on the real Kafka, OpenSearch and S3 too
# make check   formatting and lints
# make ledger  a large fleet on a bad network while the server is killed: is all of it there, once?
# make soak    work without end for an hour, or MINUTES=N: does the server keep its size?
# make bench   what the parts cost on this machine
# make packs DIR=FOLDER [AGENT=PATH]   load and compile every artifact of a folder, print and read back
#              its VQL; have a stock agent run twenty of them
# make fuzz    each parser that hostile bytes reach, ten minutes each; SECONDS_EACH=N, SEED=N
# make outages  every outage in its whole length, 20 minutes
# make uploads   a file of 5 GB, sparse ones, a thousand small ones, while the server is killed; 11 GB of disk
# make agent-test AGENT=PATH[:PATH…]   stock agents' lives, over every scheme, on real services,
#              behind nginx, HAProxy and Envoy, and taken over from stock servers
#
# On Debian they install what is missing when root, else they say what to install. Rust comes
# from rustup. What is fetched for the tests is kept in $NUBLAR_CACHE or ~/.cache/nublar.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.PHONY: run test check ledger soak bench packs agent-test packages packages-test outages fuzz uploads

DATA ?= ./data
TARGET := $(or $(CARGO_TARGET_DIR),target)

# libssl-dev and pkg-config for the Kafka client, mold to link in half the time.
packages:
	@deploy/packages cc:build-essential c++:build-essential mold:mold pkg-config:pkg-config libssl-dev ca-certificates
	command -v cargo >/dev/null || { echo "cargo not found: install Rust" >&2; exit 1; }

# The real services: a JDK and Maven for Kafka and OpenSearch, Go for the S3 server. And the load
# balancers.
packages-test: packages
	@deploy/packages curl:curl javac:default-jdk-headless mvn:maven go:golang-go \
	    nginx libnginx-mod-stream haproxy pip3:python3-pip

run: packages
	@cargo build -p nublar
	echo "the program is $(TARGET)/debug/nublar; the commands below call it nublar"
	exec "$(TARGET)/debug/nublar" run --data "$(DATA)" $(ARGS)

# Everything is built with --workspace: features differ between a part and the whole, and each choice
# of them would build all dependencies anew.

# Starts the services in a folder of their own; they end with the recipe, however that ends.
define with_services
tests/services/services fetch
dir=$$(mktemp -d)
trap 'tests/services/services stop "$$dir" || true; rm -rf "$$dir"' EXIT
trap 'exit 130' INT TERM HUP
tests/services/services start "$$dir"
export NUBLAR_TEST_SERVICES=$$dir/services.env
endef

# Not for every processor: without it its tests say that they did not run.
define with_envoy
envoy=$$(tests/services/envoy) && export PATH=$$PATH:$${envoy%/*} || echo "without envoy" >&2
endef

test: packages-test
	@cargo build --workspace --bins --tests
	$(with_services)
	$(with_envoy)
	cargo test --workspace --no-fail-fast $(ARGS)

check: packages
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# 10,000 flows each on one machine and on real services, in some 10 minutes each; NUBLAR_SEED=N makes
# the network another one.
ledger: packages-test
	@cargo build --workspace --bins --tests
	$(with_services)
	export NUBLAR_LONG=1
	cargo test --workspace --test ledger -- --nocapture --test-threads 1

MINUTES ?= 60
soak: packages
	@cargo build --workspace --bins --tests
	export NUBLAR_SOAK_MINUTES=$(MINUTES)
	cargo test --workspace --test ledger -- --nocapture one_process_keeps_its_size

# Ratios carry over to other machines, numbers do not. Kafka gets both compilers of its JVM here.
bench: packages-test
	@cargo build --release --workspace --bins --examples
	export NUBLAR_SERVICES_JVM=
	$(with_services)
	. "$$NUBLAR_TEST_SERVICES"
	for name in figures cost fold_bench; do echo "== $$name"; "$(TARGET)/release/examples/$$name"; done
	for name in log_bench index_bench; do echo "== $$name"; "$(TARGET)/release/examples/$$name" "$$dir"; done
	echo "== kafka_bench"; "$(TARGET)/release/examples/kafka_bench" "$$KAFKA"
	echo "== fleet"; "$(TARGET)/release/examples/fleet"

packs: packages
	@[[ -n "$(DIR)" ]] || { echo "usage: make packs DIR=FOLDER [AGENT=PATH]" >&2; exit 1; }
	cargo run -q --release -p nublar-core --example artifact_check -- "$(DIR)"
	[[ -z "$(AGENT)" ]] || NUBLAR_AGENT="$$(realpath "$(AGENT)")" NUBLAR_ARTIFACTS="$$(realpath "$(DIR)")" \
	    cargo test --workspace --test stock_agent -- --nocapture artifacts_give_rows

# The log and the objects each hold everything; NUBLAR_SEED=N chooses other moments to kill and cut.
uploads: packages
	@cargo build --workspace --bins --tests
	export NUBLAR_LONG=1
	cargo test --workspace --test uploads -- --nocapture --test-threads 1

# The agents are stock ones, not ours: build or fetch them from their makers.
agent-test: packages-test
	@agents=()
	for agent in $(subst :, ,$(AGENT)); do [[ ! -x $$agent ]] || agents+=("$$(realpath "$$agent")"); done
	[[ $${#agents[@]} -eq $(words $(subst :, ,$(AGENT))) && -n "$(AGENT)" ]] ||
	    { echo "usage: make agent-test AGENT=PATH[:PATH…], executables" >&2; exit 1; }
	cargo build --workspace --bins --tests
	$(with_services)
	$(with_envoy)
	export NUBLAR_AGENT=$$(IFS=:; echo "$${agents[*]}")
	cargo test --workspace --test stock_agent -- --nocapture --test-threads 1

outages: packages-test
	@cargo build --workspace --bins --tests
	$(with_services)
	export NUBLAR_LONG=1
	cargo test --workspace --test outages -- --nocapture --test-threads 1

# A finding prints its seed and the file that its input is in.
fuzz: packages
	@export NUBLAR_FUZZ_SECONDS=$(or $(SECONDS_EACH),600) NUBLAR_SEED=$(or $(SEED),1)
	cargo test --workspace --test targets -- --nocapture $(ARGS)
