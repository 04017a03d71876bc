# shellcheck shell=bash
# What the tests in the virtual machine share; sourced by them. Every line of their own begins with "test:".
#
# shellcheck disable=SC2317 # functions are called by check and wait_for

failures=0
say() { echo "test: $*"; }
fail() {
    say "FAILED: $*"
    failures=$((failures + 1))
}
check() { # WHAT COMMAND…
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then say "ok: $what"; else fail "$what: $said"; fi
}
refused() { ! "$@" >/dev/null 2>&1; }
says() { # WHAT COMMAND…: its output, marked
    say "$1:"
    "${@:2}" 2>&1 | sed 's/^/test:   /'
}

# Waits without a process of its own.
pause() { read -rt "$1" <> <(:) || true; }

# Until a command succeeds, for a minute at most.
wait_for() {
    local until=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || { "$@"; return 1; }
        pause 0.3
    done
}
main_pid() { systemctl show --property=MainPID --value "$1"; }

# Moves a NIC into a namespace of its own, which is made.
move() { # NAMESPACE NIC
    ip netns add "$1"
    ip -n "$1" link set lo up
    ip link set "$2" netns "$1"
}
# Gives a NIC in a namespace its addresses.
address() { # NAMESPACE NIC ADDRESS…
    local address
    ip netns exec "$1" sysctl -qw "net.ipv6.conf.$2.accept_dad=0"
    for address in "${@:3}"; do
        ip -n "$1" address add "$address" dev "$2"
    done
    ip -n "$1" link set "$2" up
}

# A backend for direct routing: VIPs on lo that it claims nowhere, and a web server that says its name.
backend() { # NAMESPACE VIP…
    local vip
    for vip in "${@:2}"; do
        ip -n "$1" address add "$vip" dev lo
    done
    ip netns exec "$1" sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    mkdir -p "/srv/$1"
    echo "$1" >"/srv/$1/index.html"
    ip netns exec "$1" busybox httpd -p 80 -h "/srv/$1"
}

# Ends the test.
finish() {
    if [ $failures = 0 ]; then say "all passed"; else say "$failures failed"; fi
    exit $failures
}
