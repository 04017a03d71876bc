#!/bin/bash
# Takes the cluster down: ends the processes whose numbers were recorded and no others, then removes the namespaces,
# cgroups, mounts and files that up.sh and shunt.sh made. So, too, with the neighbour that a scenario brought up beside it.
set -euo pipefail
. "$(dirname "$0")/env.sh"

kill_node() { # its pid namespace goes with it
    if running "$1"; then kill -KILL "$pid"; fi
    until_true 20 "$1 ended" node_gone "$1"
    rm -f "$RUN/pid/$1"
}
# The last process of a killed pid namespace leaves its cgroups some time later.
node_gone() {
    ! running "$1" || return 1
    local group
    for group in $(cgroups); do
        [ -d "$group/$P-$1" ] || continue
        [ -z "$(find "$group/$P-$1" -name cgroup.procs -exec cat {} +)" ] || return 1
    done
}
remove_cgroups() {
    local group
    for group in $(cgroups); do
        for i in {1..9}; do
            if [ -d "$group/$P-n$i" ]; then find "$group/$P-n$i" -depth -type d -exec rmdir {} +; fi
        done
    done
}
remove_namespaces() {
    [ -e "$RUN/netns" ] || return 0
    local name
    while read -r name; do ip netns del "$name" 2>/dev/null || true; done <"$RUN/netns"
}
restore_sysctls() {
    [ -e "$machine/sysctls" ] || return 0
    exec 8>"$machine.lock"
    flock 8
    rm -f "$machine/users/$P"
    if [ -z "$(ls "$machine/users")" ]; then
        sysctl -q -p "$machine/sysctls"
        rm -rf "$machine"
    fi
    exec 8>&-
}

rm -f "$RUN/up"
for name in shunt-controlplane{,2} shunt-dataplane{,2} provider scale-answer; do end "$name"; done
for i in {1..9}; do
    if [ -e "$RUN/pid/n$i" ]; then kill_node "n$i"; fi
done
for name in coredns scheduler controllers apiserver etcd; do end "cp-$name"; done
remove_namespaces
remove_cgroups
restore_sysctls
for directory in "$RUN"/bpf{,2}; do
    if mountpoint -q "$directory"; then umount "$directory"; fi
done
rm -rf "$RUN"
if [ -e "/var/tmp/shunt-cluster/$P-b" ]; then P=$P-b RUN='' "$here/down.sh"; fi
