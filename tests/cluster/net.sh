#!/bin/bash
# Makes the network namespaces and their links; README.md draws them. With `box`, adds a second load balancer to a cluster
# that is up, unless it has one.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# add NAMESPACE...: replies take another way than requests here, so reverse-path filters are off; addresses are usable at
# once, so duplicate address detection is.
add() {
    local namespace
    for namespace; do
        ip netns add "$P-$namespace"
        echo "$P-$namespace" >>"$RUN/netns"
        ip -n "$P-$namespace" link set lo up
        inside "$namespace" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
            net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
            net.ipv6.conf.all.keep_addr_on_down=1
    done
}
forward() { inside "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; }
address() {
    case $3 in
        *:*) ip -n "$P-$1" addr add "$3" dev "$2" nodad ;;
        *) ip -n "$P-$1" addr add "$3" dev "$2" ;;
    esac
}
route() { ip -n "$P-$1" route add "${@:2}"; }
gateways() { route "$1" default via "$gateway4"; route "$1" default via "$gateway6"; }

# link NAMESPACE NIC BRIDGE ADDRESS...: a NIC whose other end is a port of the switch
link() {
    local namespace=$1 nic=$2 bridge=$3 each
    shift 3
    ip -n "$P-sw" link add "$namespace-$nic" type veth peer name "$nic" netns "$P-$namespace"
    ip -n "$P-sw" link set "$namespace-$nic" master "$bridge" up
    ip -n "$P-$namespace" link set "$nic" up
    for each; do address "$namespace" "$nic" "$each"; done
}

add_switch() {
    add sw
    local bridge
    for bridge in br0 br1; do
        ip -n "$P-sw" link add "$bridge" type bridge
        ip -n "$P-sw" link set "$bridge" up
    done
    # Absent unless the machine has br_netfilter.
    inside sw sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true
}

add_load_balancer() {
    add client lb
    link client mgmt br1 "$M4.2/24"
    link lb mgmt br1 "$M4.3/24"
    link lb nod0 br0 "$N4.1/24" "${N6}:1/64"
    serve_client lb eth0 $C4.1/24 ${C6}:1/64
    address client eth0 $C4.2/24
    address client eth0 ${C6}:2/64
    route client default via $C4.1
    route client default via ${C6}:1
}

# serve_client NAMESPACE NIC ADDRESS...: a load balancer's link, with these addresses, to a NIC of the client
serve_client() {
    ip -n "$P-$1" link add cli0 type veth peer name "$2" netns "$P-client"
    ip -n "$P-$1" link set cli0 up
    ip -n "$P-client" link set "$2" up
    forward "$1"
    local each
    for each in "${@:3}"; do address "$1" cli0 "$each"; done
    # The provider serves VIPs; what it doesn't, ends here instead of going round to the client.
    for each in $VIP4 $VIP6 $SNAT4 $SNAT6; do route "$1" unreachable "$each" metric 4000; done
}

# Which packets come to it is decided by the client's routes. The client has its one address on both NICs: of several ways
# the kernel prefers one whose NIC has the source that a packet is to have. Its own sources of mode nat are routed to it.
add_second_box() {
    add lb2
    link lb2 mgmt br1 "$M4.4/24"
    link lb2 nod0 br0 "$N4.2/24" "${N6}:2/64"
    serve_client lb2 eth1 $C4.3/24 ${C6}:3/64
    address client eth1 $C4.2/32
    address client eth1 ${C6}:2/128
    route client $C4.3 dev eth1
    route client ${C6}:3 dev eth1
    local i
    for i in $(seq "$NODES"); do
        route "n$i" "${SNAT4%.0/28}.2" via "$N4.2"
        route "n$i" "${SNAT6%/124}2" via "${N6}:2"
    done
}

# The client's second NIC, on the nodes' segment
add_return_way() {
    link client byp0 br0 "$N4.254/24" "${N6}:254/64"
    forward client
    if [ "$ARM" = one ]; then # with the address of its first NIC: Local would show nothing otherwise
        route client $VIP4 via "$N4.1" src $C4.2
        route client $VIP6 via "${N6}:1" src ${C6}:2
    fi
}

add_nodes() {
    local i j
    for i in $(seq "$NODES"); do
        add "n$i"
        link "n$i" eth0 br0 "$N4.1$i/24" "${N6}:1$i/64"
        gateways "n$i"
        route "n$i" $SNAT4 via "$N4.1"
        route "n$i" $SNAT6 via "${N6}:1"
        forward "n$i"
    done
    # The API server reaches pods, too. So does who routes for them: in mode nat they are clients of the load balancer.
    for i in cp $(if [ "$RETURN" = direct ]; then echo client; fi) $(seq -f 'n%g' "$NODES"); do
        for j in $(seq "$NODES"); do
            if [ "$i" = "n$j" ]; then continue; fi
            route "$i" "$POD4.$j.0/24" via "$N4.1$j"
            route "$i" "${POD6}0:$j::/64" via "${N6}:1$j"
        done
    done
}

# Without it a packet made on this machine reaches an AF_XDP socket with no checksum, or as one of 64 KB, for hardware to
# finish that there isn't. From a real NIC it never comes so.
finish_packets() { # finish_packets NAMESPACE...
    local namespace nic
    for namespace; do
        for nic in eth0 eth1 byp0 cli0 nod0; do
            ip -n "$P-$namespace" link show "$nic" >/dev/null 2>&1 || continue
            inside "$namespace" ethtool -K "$nic" tx off gso off gro off >/dev/null
        done
    done
}

gateway4=$N4.1 gateway6=${N6}:1
if [ "${1:-}" = box ]; then
    if ip -n "$P-lb2" link show cli0 >/dev/null 2>&1; then exit 0; fi
    add_second_box
    if [ "$OFFLOAD" = off ]; then finish_packets client lb2; fi
    exit 0
fi
add_switch
add cp
link cp eth0 br0 "$N4.5/24" "${N6}:5/64"
link cp mgmt br1 "$M4.1/24"
add_load_balancer
if [ "$RETURN" = direct ]; then
    add_return_way
    gateway4=$N4.254 gateway6=${N6}:254
fi
gateways cp
add_nodes
if [ "$OFFLOAD" = off ]; then finish_packets client lb cp $(seq -f 'n%g' "$NODES"); fi
