#!/bin/sh
# Prepares a node for mode ipip, and undoes it; or checks only.
#
#   node.sh prepare   makes what is missing, then checks until it is told to end. What it made stays, because packets need
#                     it while the next pod starts; with AT_END=undo it is removed, by whichever pod it was made
#   node.sh check     checks for ever; says what is missing whenever that is something else
#   node.sh missing   checks once
#
# Packets come in an outer IP header to the node's address. A tunnel device takes that off, and what is inside, with the
# VIP as destination, goes on to kube-proxy as any other packet. The devices are the kernel's fallback ones, which take
# packets from everywhere: let a firewall in front of the nodes, or on them, have protocols 4 and 41 from the boxes alone.
set -u

# Fallback devices, each with its kind of link: tunl0:ipip for IPv4, ip6tnl0:ip6tnl for IPv6.
devices=${DEVICES:-tunl0:ipip}
# Where settings of the network are; /proc/sys of a container cannot be written to.
net=${NET:-/proc/sys/net}
# Link-local: the device needs an address, or rp_filter drops what comes out of it.
address=${ADDRESS:-169.254.99.1/32}
# On the node, so that the next pod knows what is to be undone; gone after a restart, as what was made is.
state=${STATE:-/run/shunt-node}
ready=$state/ready
every_s=${EVERY_S:-10}
# What becomes of what was made: keep or undo
at_end=${AT_END:-keep}

exists() { ip link show dev "$1" >/dev/null 2>&1; }
is_up() { ip link show dev "$1" 2>/dev/null | grep -q '[<,]UP[,>]'; }
has_address() { ip -4 addr show dev "$1" 2>/dev/null | grep -q 'inet '; }
rp_filter() { cat "$net/ipv4/conf/$1/rp_filter" 2>/dev/null || echo 0; }
forwards() { [ "$(cat "$net/ipv4/ip_forward" 2>/dev/null)" = 1 ]; }

# passes ALL DEVICE ADDRESS(yes|no): whether packets out of a tunnel device pass rp_filter. The higher of the two settings
# counts: 0 is off, 1 strict, 2 loose, and loose drops everything if the device has no address.
passes() {
    effective=$1
    if [ "$2" -gt "$1" ]; then effective=$2; fi
    case $effective in
        0) return 0 ;;
        2) [ "$3" = yes ] ;;
        *) return 1 ;;
    esac
}

# missing: one line for each thing that is
missing() {
    for each in $devices; do
        device=${each%%:*}
        if ! exists "$device"; then
            echo "no device $device; the kernel has to have links of type ${each##*:}: modprobe ipip or ip6_tunnel"
            continue
        fi
        is_up "$device" || echo "$device is down; ip link set $device up"
        case $device in tunl0) ;; *) continue ;; esac
        if has_address "$device"; then with=yes; else with=no; fi
        passes "$(rp_filter all)" "$(rp_filter "$device")" $with ||
            echo "rp_filter drops what comes out of $device; ip addr add $address dev $device and" \
                "sysctl net.ipv4.conf.$device.rp_filter=2"
    done
    forwards || echo "ip_forward is off; sysctl net.ipv4.ip_forward=1"
}

# Each step notes how to undo it, once, the last first.
note() {
    if grep -qxF "$*" "$state/undo" 2>/dev/null; then return; fi
    { echo "$*"; cat "$state/undo" 2>/dev/null || true; } >"$state/undo.new" && mv "$state/undo.new" "$state/undo"
}
prepare() {
    for each in $devices; do
        device=${each%%:*}
        # The kernel loads the module for whoever wants such a link, and with it comes the fallback device.
        if ! exists "$device" && ip link add shunt-load type "${each##*:}" 2>/dev/null; then
            ip link del shunt-load
        fi
        exists "$device" || continue
        if ! is_up "$device"; then
            ip link set "$device" up && note "ip link set $device down"
        fi
        case $device in tunl0) ;; *) continue ;; esac
        if ! has_address "$device"; then
            ip addr add "$address" dev "$device" && note "ip addr del $address dev $device"
        fi
        before=$(rp_filter "$device")
        if ! passes "$(rp_filter all)" "$before" yes; then
            echo 2 >"$net/ipv4/conf/$device/rp_filter" &&
                note "echo $before >$net/ipv4/conf/$device/rp_filter"
        fi
    done
}
undo() {
    if [ -e "$state/undo" ]; then sh "$state/undo"; fi
    rm -f "$state/undo"
    echo "what was made here is removed"
}
finish() {
    rm -f "$ready"
    case $1-$at_end in
        prepare-undo) undo ;;
        prepare-keep) echo "what was made here stays; AT_END=undo removes it" ;;
    esac
    exit 0
}

# look: says what is missing if that is news; the readiness probe looks for the file
look() {
    now=$(missing)
    if [ -z "$now" ]; then touch "$ready"; else rm -f "$ready"; fi
    if [ "$now" != "${said-none}" ]; then
        if [ -z "$now" ]; then echo "this node is ready for mode ipip"; else echo "$now"; fi
        said=$now
    fi
}

main() {
    mkdir -p "$state"
    rm -f "$ready" # of a pod that was killed
    # shellcheck disable=SC2064 # the command, as it is now
    trap "finish $1" TERM INT
    while true; do
        if [ "$1" = prepare ]; then prepare; fi
        look
        sleep "$every_s" &
        wait $!
    done
}

case $at_end in keep | undo) ;; *) echo "AT_END is $at_end; write keep or undo" >&2; exit 2 ;; esac
case ${1:-} in
    prepare | check) main "$1" ;;
    missing) missing ;;
    source) ;; # for tests
    *) echo "write prepare or check" >&2; exit 2 ;;
esac
