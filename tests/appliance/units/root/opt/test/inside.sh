#!/bin/bash
# Runs in the virtual machine: does everything that an operator does with the units, and looks whether their
# restrictions let the programs work.
#
# shellcheck disable=SC2317 # functions are called by check and wait_for
set -uo pipefail

# shellcheck source=guest/root/opt/test/common.sh
. /opt/test/common.sh

another_pid() { # UNIT PID: runs again
    local pid
    pid=$(main_pid "$1")
    [ "$pid" != 0 ] && [ "$pid" != "$2" ] && systemctl --quiet is-active "$1"
}
fetch() { ip netns exec client curl --silent --show-error --max-time 10 http://10.0.1.100/; }

# eth1 becomes a client, eth2 a backend for direct routing.
wire() {
    move client eth1
    address client eth1 10.0.1.2/24
    move backend eth2
    address backend eth2 10.0.1.11/24
    backend backend 10.0.1.100/32
}

starts() {
    check "shunt.target starts" systemctl start shunt.target
    for unit in nic-config shunt-dataplane shunt-controlplane; do
        check "$unit is active" systemctl --quiet is-active $unit
    done
    check "lbctl status is healthy" wait_for lbctl status
    [ $failures = 0 ] || report
    says "status" lbctl status
    says "NICs" lbctl get nics
    says "services" lbctl get services
    says "backends" lbctl get backends
    check "a request is answered" wait_for fetch
    check "the VIP has its route" grep -q 10.0.1.100 <(ip route show table 83)
}

restrictions() {
    local unit pid
    for unit in shunt-dataplane shunt-controlplane; do
        pid=$(main_pid $unit)
        say "$unit: user $(ps -o user= -p "$pid"), $(grep -hE '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status" | tr -s '\t\n' ' ')"
    done
    check "the dataplane has four capabilities" grep -q $'^CapEff:\t000000c000003000$' "/proc/$(main_pid shunt-dataplane)/status"
    check "the control plane has two" grep -q $'^CapEff:\t0000000000003000$' "/proc/$(main_pid shunt-controlplane)/status"
    says "cores of threads" bash -c "for t in /proc/$(main_pid shunt-dataplane)/task/*; do echo \$(cat \$t/comm) \$(grep -h Cpus_allowed_list \$t/status); done"
    says "sockets" ls -ld /run/shunt /run/shunt/dataplane.sock /run/shunt/controlplane.sock /run/shunt/nic-config /var/lib/shunt /sys/fs/bpf /sys/fs/bpf/shunt
    check "others may not use lbctl" refused setpriv --reuid=nobody --regid=nogroup --clear-groups lbctl status
    check "members of shunt may" setpriv --reuid=nobody --regid=nogroup --groups="$(getent group shunt | cut -d: -f3)" lbctl status
    check "members of shunt may not make sockets" refused setpriv --reuid=nobody --regid=nogroup --groups="$(getent group shunt | cut -d: -f3)" touch /run/shunt/there
}

reloads() {
    check "systemctl reload" systemctl reload shunt-controlplane
    check "systemctl reload of the target" systemctl reload shunt.target
    echo "wrong = true" >>/etc/shunt/shunt.toml
    check "a wrong configuration fails the reload" refused systemctl reload shunt-controlplane
    sed -i '$d' /etc/shunt/shunt.toml
    check "a right one does not" systemctl reload shunt-controlplane
    install -m 0600 /dev/null /etc/shunt/kubeconfig
    check "systemctl reload with a new kubeconfig" systemctl reload shunt-controlplane
    check "the new kubeconfig is its to read" test "$(stat -c '%U %G %a' /etc/shunt/kubeconfig)" = "root shunt-controlplane 640"
    check "a request is answered" fetch
}

# libxdp asks the kernel for other things than Shunt's own rings do.
other_rings() {
    sed -i '1i [dataplane]\nrings = "xsk-rs"' /etc/shunt/shunt.toml
    check "a reload takes other rings" systemctl reload shunt-controlplane
    check "the dataplane starts again" systemctl restart shunt-dataplane
    check "lbctl status is healthy" wait_for lbctl status
    says "status" lbctl status
    check "a request is answered" wait_for fetch
    sed -i 1,2d /etc/shunt/shunt.toml
    check "a reload takes them back" systemctl reload shunt-controlplane
}

crashes() {
    local pid unit
    for unit in shunt-dataplane shunt-controlplane; do
        pid=$(main_pid $unit)
        kill -KILL "$pid"
        check "$unit runs again after kill -9" wait_for another_pid $unit "$pid"
        check "lbctl status is healthy" wait_for lbctl status
        check "a request is answered" wait_for fetch
    done
    for unit in shunt-dataplane shunt-controlplane; do
        mkdir -p /run/systemd/system/$unit.service.d
        # On an emulated CPU the dataplane's tables alone take eight seconds.
        printf '[Service]\nWatchdogSec=20s\n' >/run/systemd/system/$unit.service.d/test.conf
    done
    systemctl daemon-reload
    systemctl restart shunt-dataplane shunt-controlplane
    check "lbctl status is healthy" wait_for lbctl status
    for unit in shunt-dataplane shunt-controlplane; do
        pid=$(main_pid $unit)
        kill -STOP "$pid"
        check "$unit hangs, and systemd starts it afresh" wait_for another_pid $unit "$pid"
    done
    check "lbctl status is healthy" wait_for lbctl status
    check "no other watchdog barked" test "$(journalctl -b --grep 'Watchdog timeout' --quiet | wc -l)" = 2
}

stops() {
    check "shunt.target stops" systemctl stop shunt.target
    # The target is first to stop, and systemctl waits for it alone.
    check "both daemons are gone" wait_for refused pgrep shunt-
    check "no XDP program is left" refused grep -q prog/xdp <(ip -details link show eth0)
    check "no route is left" test -z "$(ip route show table 83)"
    check "no rule and no probe device is left" refused grep -qE 'shunt' <(ip link; ip rule)
    check "no pin is left" test -z "$(ls /sys/fs/bpf/shunt)"
    check "no socket is left" test -z "$(ls /run/shunt/*.sock 2>/dev/null)"
    check "nic-config puts back" nic-config revert
}

report() {
    says "failed units" systemctl --failed --no-legend
    says "log, from warnings up" journalctl -b -p warning --no-pager -o short-monotonic
    says "log of the units" journalctl -b --no-pager -o short-monotonic -u nic-config -u shunt-dataplane -u shunt-controlplane
    finish
}

says "kernel" uname -r
wire
starts
restrictions
reloads
other_rings
crashes
stops
check "and starts again" systemctl start shunt.target
check "lbctl status is healthy" wait_for lbctl status
report
