#!/bin/bash
# Builds the Debian package, target/debian/shunt_VERSION_ARCHITECTURE.deb, and prints its path; beside it,
# shunt-dbgsym_*.ddeb, what debuggers need. What goes into it is said in deploy/debian/Cargo.toml. Its programs need the
# libraries of the Debian that this runs on, or newer.
set -euo pipefail
cd "$(dirname "$0")/.."

deb_version=3.8.0
programs=(shunt-dataplane shunt-controlplane lbctl nic-config)
target=${CARGO_TARGET_DIR:-target}
made=$target/release/package

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
grep -qF "shunt ($version)" deploy/debian/changelog || {
    echo "deploy/debian/changelog has no entry for $version; add one at its top" >&2
    exit 1
}
if ! command -v cargo-deb >/dev/null; then
    echo "installing cargo-deb $deb_version, once, about three minutes" >&2
    cargo install --quiet --locked "cargo-deb@$deb_version"
fi

# As `make build` does it, so that what is packed is what was tested.
cargo build --quiet --release --locked --workspace --exclude shunt-manual --bins
rm -rf "$made"
cargo run --quiet --locked --package shunt-manual -- "$made"
gzip -9n "$made"/man/*
# What the programs are made of, without what is ours.
cargo tree --locked "${programs[@]/#/--package=}" --edges normal --prefix none --format '{p} {l}' |
    grep -v "($PWD" | sed 's/ (\*)$//' | LC_ALL=C sort -u >"$made/crates.txt"
cargo deb --quiet --no-build --locked --dbgsym --package shunt-manual >/dev/null
echo "$target/debian/shunt_${version}_$(dpkg --print-architecture).deb"
