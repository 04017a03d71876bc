#!/bin/bash
# A datagram to a VIP every fifth of a second, until one has come to a backend.
set -euo pipefail

# shellcheck source=guest/root/opt/test/common.sh
. /opt/test/common.sh

watching=()
for number in 1 2 3; do
    ip netns exec "b$number" tcpdump -c 1 -n -i "m$number" udp port 9 >/dev/null 2>&1 &
    watching+=($!)
done
ip netns exec client bash -c '. /opt/test/common.sh; while :; do echo >/dev/udp/10.0.1.100/9; pause 0.2; done' 2>/dev/null &
sending=$!
wait -n "${watching[@]}"
read -r uptime _ </proc/uptime
say "first packet forwarded $uptime s after the kernel's start"
kill "$sending" "${watching[@]}" 2>/dev/null || true
