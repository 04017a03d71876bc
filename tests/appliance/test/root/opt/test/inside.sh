#!/bin/bash
# Runs in the virtual machine at each of its two starts. At the first: whether the appliance serves as the files on its
# boot partition say, and how it compares with IPVS. At the second: whether it is back with no hand on it.
#
# shellcheck disable=SC2317 # functions are called by check and wait_for
set -uo pipefail

# shellcheck source=guest/root/opt/test/common.sh
. /opt/test/common.sh
# shellcheck source=test/root/opt/test/compare.sh
. /opt/test/compare.sh
# shellcheck source=test/root/opt/test/upgrade.sh
. /opt/test/upgrade.sh

been_here=/var/lib/shunt-test

nics() {
    check "the files of the boot partition were taken" cmp /boot/efi/shunt/shunt.toml /etc/shunt/shunt.toml
    check "lbctl status is healthy" wait_for lbctl status
    says "status" lbctl status
    says "NICs" lbctl get nics
    says "doctor" nic-config doctor eth0
    check "the sockets got zero-copy on two queues" grep -qE 'eth0 +up +native zero-copy +2 ' <(lbctl get nics)
    check "nic-config has nothing left to do" grep -q "nothing to change" <(nic-config apply --dry-run)
    says "RSS" ethtool -n eth0 rx-flow-hash udp4
}

# Each request is a connection of its own.
fetch() { # URL COUNT
    ip netns exec client curl --silent --show-error --fail-early --max-time 5 --header "Connection: close" "$1?[1-$2]"
}
serves() { # WHAT URL COUNT
    local answers right
    answers=$(fetch "$2" "$3" 2>&1)
    right=$(grep -cxE 'b[123]' <<<"$answers")
    if [ "$right" = "$3" ]; then say "ok: $1: $right of $3 requests answered, $(sort <<<"$answers" | uniq -c | xargs)"
    else fail "$1: $right of $3 requests answered: $(sort <<<"$answers" | uniq -c | sort -rn | head -5)"; fi
}
serves_all() { # REQUESTS-BY-DR REQUESTS-BY-TUNNEL
    serves "DR, IPv4" http://10.0.1.100/ "$1"
    serves "DR, IPv6" "http://[fd00:1::100]/" "$1"
    serves "IPv4 in IPv4 (ipip)" http://10.0.1.101/ "$2"
    serves "IPv6 in IPv4 (sit)" "http://[fd00:1::101]/" "$2"
    serves "IPv6 in IPv6 (ip6tnl)" "http://[fd00:1::101]:81/" "$2"
    serves "IPv4 in IPv6 (ip6tnl)" http://10.0.1.101:81/ "$2"
}

both_queues() {
    local workers
    says "packets of each worker" lbctl stats --per-worker
    says "packets of each queue" bash -c "ethtool -S eth0 | grep -E 'rx_queue_[01]_(packets|drops)'"
    read -ra workers < <(lbctl stats --per-worker | sed -n 's/^rx_packets *//p')
    check "worker 0 carries a fifth at least (${workers[*]:0:2})" test "${workers[0]}" -ge $(((workers[0] + workers[1]) / 5))
    check "worker 1 does" test "${workers[1]}" -ge $(((workers[0] + workers[1]) / 5))
}

# What the log may say as an error:
#   - QEMU without acceleration keeps time badly, and the kernel notices when it calibrates its clock
#   - igb tells as an error what hash_udp4 in nic.toml asks for
known='^tsc: |^APIC calibration|^igb .*: enabling UDP RSS'
errors() {
    journalctl -b -p err --quiet --no-pager -o cat | grep -vE "$known"
    # What the daemons say has no priority of its own.
    journalctl -b --quiet --no-pager -o cat -u 'shunt-*' -u nic-config | grep ' ERROR '
}
green() {
    local unit
    check "the root file system has the whole disk" test "$(df --output=size -BM / | tr -dc 0-9)" -gt 2000
    check "systemctl is-system-running" wait_for systemctl is-system-running
    says "failed units" systemctl --failed --no-legend
    for unit in shunt-configure nic-config shunt-dataplane shunt-controlplane; do
        check "$unit is active" systemctl --quiet is-active $unit
    done
    says "status of the units" systemctl status --no-pager --lines=0 nic-config shunt-dataplane shunt-controlplane
    says "log, from warnings up" journalctl -b -p warning --no-pager -o short-monotonic
    says "errors" errors
    check "no error in the log" test -z "$(errors)"
}

report() {
    says "log, from warnings up" journalctl -b -p warning --no-pager -o short-monotonic
    says "log of the units" journalctl -b --no-pager -o short-monotonic -u "shunt-*" -u nic-config
    says "backends" lbctl get backends
    says "backend b1" bash -c "ip -n b1 address; ip -n b1 route; ip -n b1 -6 neigh"
    says "ways to backends" ip neigh
    finish
}

says "kernel" uname -r
[ -e $been_here ] || says "the boot partition" journalctl -b --no-pager -o cat -u shunt-configure
nics
if [ -e $been_here ]; then
    serves_all 10 10
    green
else
    # 500 by direct routing and 500 by tunnels.
    serves_all 250 125
    both_queues
    green
    if load; then
        upgrade
        compare
    fi
    touch $been_here
fi
[ $failures = 0 ] || report
finish
