#!/bin/bash
# eth1 becomes a client. Behind eth2 are three backends, by macvlan, since each needs a MAC address of its own: that is
# how direct routing tells them apart.
set -euo pipefail

# shellcheck source=guest/root/opt/test/common.sh
. /opt/test/common.sh

wait_for test -e /sys/class/net/eth1
wait_for test -e /sys/class/net/eth2
move client eth1
address client eth1 10.0.1.2/24 fd00:1::2/64
move rack eth2
ip -n rack link set eth2 addrgenmode none up

# What is in docs/backends.md, with the devices that the kernel has.
tunnels() { # NAMESPACE NUMBER
    local device
    # Left alone it takes IPv6 only.
    ip -n "$1" -6 tunnel change ip6tnl0 mode any
    ip -n "$1" address add "169.254.99.$2/32" dev tunl0
    for device in tunl0 sit0 ip6tnl0; do
        ip -n "$1" link set "$device" up
    done
    ip netns exec "$1" sysctl -qw net.ipv4.conf.tunl0.rp_filter=2 net.ipv4.conf.ip6tnl0.rp_filter=2
    ip -n "$1" address add "169.254.98.$2/32" dev ip6tnl0
}

modprobe -a ipip sit ip6_tunnel
for number in 1 2 3; do
    ip -n rack link add "m$number" link eth2 type macvlan mode bridge
    ip netns add "b$number"
    ip -n "b$number" link set lo up
    ip -n rack link set "m$number" netns "b$number"
    address "b$number" "m$number" "10.0.1.1$number/24" "fd00:1::1$number/64"
    backend "b$number" 10.0.1.100/32 10.0.1.101/32 fd00:1::100/128 fd00:1::101/128
    ip netns exec "b$number" busybox httpd -p 81 -h "/srv/b$number"
    tunnels "b$number" "$number"
done
