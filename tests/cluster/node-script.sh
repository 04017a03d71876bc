#!/bin/bash
# Runs the script of shunt-node-ipip in a network namespace, where a bridge stands for the tunnel device: it prepares,
# says so, leaves it to the next pod, and that one removes what was made if it is told to. What only a kernel with ipip
# shows is not shown: that packets come out of it.
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

# run_pod SETTING...: one until it is ready; sets pod
run_pod() {
    nsenter --net=/run/netns/$namespace -- env "$@" "$script" prepare >"$scratch/log" 2>&1 &
    pod=$!
    until_true 10 "the node is prepared" test -e "$STATE/ready"
}
end_pod() { # end_pod SIGNAL
    kill "-$1" $pod
    wait $pod 2>/dev/null || true
}
addresses() { in_netns ip -4 -o addr show dev tunl0 | awk '{ print $4 }'; }
is_up() { in_netns ip -o link show dev tunl0 | grep -q '[<,]UP[,>]'; }
prepared() { # prepared WHEN
    expect "what is missing $1" "" "$(in_netns "$script" missing)"
    expect "rp_filter $1" 2 "$(setting conf.tunl0.rp_filter)"
    expect "addresses $1" 169.254.99.1/32 "$(addresses)"
}

code=0
said=$(in_netns env AT_END=no "$script" prepare 2>&1) || code=$?
expect "a wrong setting" "2 AT_END is no; write keep or undo" "$code $said"

run_pod AT_END=
prepared "once it is ready"
end_pod TERM
expect "what it said" "this node is ready for mode ipip
what was made here stays; AT_END=undo removes it" "$(cat "$scratch/log")"
prepared "between two pods"
[ ! -e "$STATE/ready" ] || fail "it says that it is ready still"

# One that cannot say a last word, after something else took the device down.
in_netns ip link set tunl0 down
run_pod AT_END=keep
prepared "with the second pod"
end_pod KILL
expect "what the second said" "this node is ready for mode ipip" "$(cat "$scratch/log")"
expect "notes of how to undo it" "$(sort -u "$STATE/undo")" "$(sort "$STATE/undo")"
prepared "after the second pod"

# The file of the one before says nothing of this one.
in_netns sysctl -qw net.ipv4.ip_forward=0
nsenter --net=/run/netns/$namespace -- env AT_END=undo "$script" prepare >"$scratch/log" 2>&1 &
pod=$!
until_true 10 "the third to look" grep -q 'ip_forward is off' "$scratch/log"
[ ! -e "$STATE/ready" ] || fail "the third says that it is ready"
in_netns sysctl -qw net.ipv4.ip_forward=1
until_true 10 "the third to be ready" test -e "$STATE/ready"
prepared "with the third pod"
end_pod TERM
expect "what the third said" "ip_forward is off; sysctl net.ipv4.ip_forward=1
this node is ready for mode ipip
what was made here is removed" "$(cat "$scratch/log")"
expect "rp_filter afterwards" 0 "$(setting conf.tunl0.rp_filter)"
expect "addresses afterwards" "" "$(addresses)"
[ ! -e "$STATE/ready" ] || fail "it says that it is ready still"
[ ! -e "$STATE/undo" ] || fail "it notes still how to undo it"
if is_up; then fail "tunl0 is up still"; fi
say "the script of the nodes prepares, says so, leaves it to the next pod, and undoes"
