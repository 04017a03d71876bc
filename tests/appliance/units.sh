#!/bin/bash
# Whether the programs work under what deploy/systemd leaves them: in a virtual machine with systemd, a recent kernel
# and igb NICs the units are started, reloaded, crashed, stopped. Run as root. About four minutes once what it needs has
# been fetched.
#
#   tests/appliance/units.sh
set -euo pipefail
PACKAGE=${PACKAGE:+$(realpath "$PACKAGE")}
export PACKAGE
cd "$(dirname "$0")"
. ./common.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./fetch.sh
./image.sh units "$work/disk"
timeout --foreground 600 ./boot.sh "$work/disk" | tee "$work/console" || true
grep -q "^test: all passed" "$work/console"
