#!/bin/bash
# Whether the appliance does what it is for: its image starts in a virtual machine with igb NICs and is configured by
# its boot partition; clients are served by direct routing and by tunnels with zero-copy; IPVS forwards the same load;
# and after a second start the box forwards by itself. Run as root. Each line has the seconds since the virtual machine
# was switched on.
#
#   tests/appliance/test.sh
#
# KEEP=DIRECTORY leaves the image and the consoles there.
set -euo pipefail
PACKAGE=${PACKAGE:+$(realpath "$PACKAGE")}
export PACKAGE
keep=${KEEP:+$(realpath -m "$KEEP")}
cd "$(dirname "$0")"
. ./common.sh

work=${keep:-$(mktemp -d)}
mkdir -p "$work"
[ -n "$keep" ] || trap 'rm -rf "$work"' EXIT

# Ends when the guest switches itself off.
start() { # CONSOLE
    local since=$EPOCHREALTIME
    timeout --foreground 500 ./boot.sh "$work/disk" 2>&1 | stamp "$since" | tee "$work/$1" | grep --line-buffered -a "test: " || true
    grep -qa " test: all passed" "$work/$1" || {
        echo "the guest did not pass; its console ended so:"
        tail -n 40 "$work/$1"
        return 1
    }
}

began=$SECONDS
./fetch.sh
./image.sh test "$work/disk"
truncate -s 3G "$work/disk" # as if it had been written to something larger
echo "image made in $((SECONDS - began)) s"
echo "first start"
start first
echo "second start: nobody does anything"
start second
for console in first second; do
    grep -a "first packet forwarded" "$work/$console" |
        sed -E "s/^ *([0-9.]+) test: .* ([0-9.]+) s after.*/$console start: first packet forwarded \1 s after power-on, \2 s after the kernel's start/"
done
echo "passed in $((SECONDS - began)) s"
