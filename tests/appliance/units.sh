#!/bin/bash
# Whether the programs work under what deploy/systemd leaves them: in a virtual machine with systemd, a recent kernel
# and igb NICs the units are started, reloaded, crashed, stopped. Run as root. About three minutes once fetch.sh has run.
#
#   PROGRAMS=target/release tests/appliance/units.sh
set -euo pipefail
cd "$(dirname "$0")"
. ./common.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./fetch.sh
./image.sh "$work" units
timeout 600 ./boot.sh "$work" | tee "$work/console" || true
grep -q "^test: all passed" "$work/console"
