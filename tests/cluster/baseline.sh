#!/bin/bash
# baseline.sh [FLAG...]: starts the reference provider in the load balancer's namespace. With `stop`, ends it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
end provider
if [ "${1:-}" = stop ]; then
    inside lb nft delete table inet baseline 2>/dev/null || true
    exit 0
fi
if running shunt-dataplane; then fail "Shunt serves $P; run tests/cluster/shunt.sh stop first"; fi
# The kernel forwards for it, which Shunt does not want.
inside lb sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
setsid nsenter --net="/run/netns/$P-lb" -- "$bin/baseline" --kubeconfig "$RUN/kubeconfig.mgmt" \
    --vip4 $VIP4 --vip6 $VIP6 "$@" >"$RUN/provider.log" 2>&1 </dev/null &
record provider $!
