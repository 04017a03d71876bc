#!/bin/bash
# Runs the script of shunt-node-ipip in a network namespace, where a bridge stands for the tunnel device: it prepares,
# says so, and removes what it made. What only a kernel with ipip shows is not shown: that packets come out of it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
script=$root/deploy/kubernetes/node/node.sh
namespace=shunt-node-$$
scratch=$(mktemp -d)
export STATE=$scratch/state DEVICES=tunl0:bridge EVERY_S=1
trap 'ip netns del $namespace; rm -rf "$scratch"' EXIT
ip netns add $namespace
in_netns() { nsenter --net=/run/netns/$namespace -- "$@"; }
setting() { in_netns sysctl -n "net.ipv4.$1"; }
expect() { # expect WHAT EXPECTED FOUND
    [ "$2" = "$3" ] || fail "$1: expected \`$2\`, found \`$3\`"
}

# shellcheck source=/dev/null
passes() { (. "$script" source && passes "$@") && echo yes || echo no; }
# all, device, has an address, passes: as found with real nodes
while read -r all device with expected; do
    expect "rp_filter all=$all device=$device, address: $with" "$expected" "$(passes "$all" "$device" "$with")"
done <<'TABLE'
0 0 no yes
0 0 yes yes
1 0 yes no
0 1 yes no
1 1 no no
0 2 no no
0 2 yes yes
1 2 yes yes
2 0 yes yes
2 2 no no
TABLE

in_netns sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=1
expect "a bare node" "no device tunl0; the kernel has to have links of type bridge: modprobe ipip or ip6_tunnel
ip_forward is off; sysctl net.ipv4.ip_forward=1" "$(in_netns "$script" missing)"

in_netns ip link add tunl0 type bridge
in_netns sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.tunl0.rp_filter=0
expect "a device as the kernel makes it" "tunl0 is down; ip link set tunl0 up
rp_filter drops what comes out of tunl0; ip addr add 169.254.99.1/32 dev tunl0 and sysctl net.ipv4.conf.tunl0.rp_filter=2" \
    "$(in_netns "$script" missing)"

nsenter --net=/run/netns/$namespace -- "$script" prepare >"$scratch/log" 2>&1 &
prepared=$!
until_true 10 "the node is prepared" test -e "$STATE/ready"
expect "a prepared node" "" "$(in_netns "$script" missing)"
expect "rp_filter of a prepared node" 2 "$(setting conf.tunl0.rp_filter)"
kill -TERM $prepared
wait $prepared
expect "what it said" "this node is ready for mode ipip
what was made here is removed" "$(cat "$scratch/log")"
expect "rp_filter afterwards" 0 "$(setting conf.tunl0.rp_filter)"
expect "addresses afterwards" "" "$(in_netns ip -4 -o addr show dev tunl0)"
[ ! -e "$STATE/ready" ] || fail "it says that it is ready still"
if in_netns ip -o link show dev tunl0 | grep -q '[<,]UP[,>]'; then fail "tunl0 is up still"; fi
say "the script of the nodes prepares, says so, and undoes"
