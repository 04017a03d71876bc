# The everyday commands. Everything that runs packets needs root; `make help` lists the targets.
# Ctrl-C reaches the running program itself, which removes its namespaces before it ends: recipes are
# single commands, so that no shell in between ends first.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench gate fuzz lint clean bootstrap build measure end-to-end loom miri test-cluster e2e
.PHONY: cluster e2e-baseline unit beside package test-package image test-appliance

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bootstrap build ## watch real connections go through Shunt, in network namespaces of its own (KEEP=1 leaves it running)
	@target/release/shunt-demo $(if $(KEEP),--keep)

# Programs are built in the release profile, because that is what end-to-end tests must drive; tests are
# built in the dev profile, for its overflow checks and assertions. Building the tests in the release
# profile too would take longer, not less long: it has `panic = "abort"`, under which no test can be built,
# so cargo would compile every dependency a second time, optimised.
test: bootstrap lint build beside measure end-to-end test-cluster ## everything that must hold before a change lands
	@echo "make test: passed"

check: ## the quick loop: format, lints, unit tests
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@cargo test --quiet --workspace --lib --bins

bench: bootstrap build ## the benchmarks, in less than 15 minutes; results go to benches/results and docs/performance.md
	@target/release/shunt-benches
	@target/release/shunt-benches tables --write docs/performance.md

gate: bootstrap build ## whether packets take over 5 % more instructions than benches/baseline.json says (BLESS=1 renews it)
	@target/release/shunt-benches gate $(if $(BLESS),--bless)

fuzz: bootstrap ## inputs that nobody thought of, 20 s for each target (FUZZ_SECONDS=1800 looks longer)
	@deploy/fuzz.sh

lint: ## format, lints, dependency rules, file sizes
	@deploy/lint.sh

test-cluster: build ## against a real Kubernetes: upstream's LoadBalancer specs but for the two long ones, and Shunt's own scenarios
	@tests/cluster/test.sh

e2e: build ## the Helm chart against kustomize, then all of upstream's LoadBalancer specs against Shunt, about 40 minutes
	@tests/cluster/e2e.sh shunt

cluster: build ## a real Kubernetes with Shunt in namespaces of its own, for you to try (NODES=3 FAMILIES=46; see tests/cluster/README.md)
	@tests/cluster/cluster.sh

package: bootstrap ## the Debian package, into target/debian
	@deploy/package.sh

test-package: bootstrap ## the Debian package in a fresh Debian: install, start, upgrade, remove, purge; lintian
	@tests/package/test.sh

e2e-baseline: ## upstream's LoadBalancer specs with the reference provider, to compare with; about 40 minutes
	@tests/cluster/e2e.sh baseline

image: package ## a bootable image with Shunt, for QEMU and USB sticks, into target/image (docs/appliance.md)
	@deploy/bootstrap.sh package
	@deploy/image/build.sh target/image/shunt.raw

test-appliance: package ## the image in a virtual machine: zero-copy on igb, real tunnels, beside IPVS, back after a restart
	@deploy/bootstrap.sh package
	@tests/appliance/test.sh

clean: ## remove what was built and what an interrupted run left behind
	@if [ -x target/release/shunt-demo ]; then target/release/shunt-demo --clean; fi
	@for name in shunt-e2e shunt-test shunt-test-own shunt-test-dual shunt-test-pair; do P=$$name tests/cluster/down.sh; done
	@cargo clean

bootstrap:
	@deploy/bootstrap.sh

# But for the one that writes manual pages, whose linking would take longest.
build: bootstrap ## the programs, into target/release
	@cargo build --release --locked --workspace --exclude shunt-manual --bins

# What must hold while floods come and configurations change, at the sizes it is promised for.
measure: build
	@target/release/shunt-benches floods --check
	@target/release/shunt-benches change --check

# `cargo test` runs one test program after the other.
unit: export SHUNT_BIN_DIR = $(CURDIR)/target/release
unit:
	@cargo test --locked --workspace

# What measures no time and leaves cores idle now and then, beside the building of Kubernetes, which takes minutes, once.
beside:
	@tests/cluster/prepare.sh $(MAKE) --no-print-directory unit gate loom miri fuzz

# The scenarios run in order: what they measure shares two cores. (With --workspace, since cargo would compile much of it
# again for one package of it, with other features.) Cargo is told to ignore Ctrl-C so that it waits for the
# scenarios' own cleaning up.
end-to-end: export SHUNT_BIN_DIR = $(CURDIR)/target/release
end-to-end:
	@trap "" INT; exec cargo test --locked --workspace --test end_to_end -- --run

# Every interleaving of the flow table's protocol, within loom's bounds.
loom:
	@cargo test --locked -p shunt-dataplane --lib --features loom loom_

miri:
	@deploy/miri.sh
