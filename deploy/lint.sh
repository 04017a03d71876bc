#!/bin/bash
# What every change must satisfy before it is tested: format, lints, dependency rules, file sizes.
set -euo pipefail
cd "$(dirname "$0")/.."

most_lines=500
deny_version=0.20.2

step() { echo "── $*"; }

step "cargo fmt --check"
cargo fmt --all --check

step "cargo clippy"
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

step "no file over $most_lines lines"
long=$(find . \( -path ./target -o -path ./.git \) -prune -o \
    -type f \( -name '*.rs' -o -name '*.c' -o -name '*.sh' \) -exec wc -l {} \; |
    awk -v most=$most_lines '$1 > most { print $2 " has " $1 " lines; split it by subject" }')
if [ -n "$long" ]; then
    echo "$long"
    exit 1
fi

step "shellcheck"
if command -v shellcheck >/dev/null; then
    shellcheck deploy/*.sh deploy/debian/scripts/* deploy/kubernetes/node/*.sh tests/package/*.sh .ci/run
    shellcheck -x --source-path=tests/cluster tests/cluster/*.sh
    shellcheck -x --source-path=tests/appliance tests/appliance/*.sh tests/appliance/*/root/opt/test/*.sh deploy/systemd/*.sh
    shellcheck -x --source-path=deploy/image deploy/image/*.sh deploy/image/files/usr/lib/shunt-appliance/*
else
    echo "SKIPPED: shellcheck is not installed (apt-get install shellcheck)"
fi

step "systemd units"
deploy/systemd/test.sh

step "alert rules"
(cd deploy/monitoring && promtool check rules alerts.yml && promtool test rules alerts-test.yml) >/dev/null

step "cargo deny"
if ! command -v cargo-deny >/dev/null; then
    echo "installing cargo-deny $deny_version, once, about two minutes"
    cargo install --quiet --locked "cargo-deny@$deny_version"
fi
# Errors only: the warnings are about two versions of a crate, which nobody can mend from here.
cargo deny --log-level error check licenses bans sources
if why=$(cargo deny --log-level error fetch db 2>&1); then
    cargo deny --log-level error check --disable-fetch advisories
else
    echo "SKIPPED: advisory database: $(grep -m1 fatal <<<"$why" || tail -n1 <<<"$why")"
fi

# Stands outside the workspace.
step "fuzz"
deploy/fuzz.sh --lint
