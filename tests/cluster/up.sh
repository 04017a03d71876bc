#!/bin/bash
# Brings the cluster up from a bare machine: packages, programs, images, network, control plane, nodes. If it is up
# already, that is all; if it is half up, it is taken down first.
set -euo pipefail
given=$(for name in NODES FAMILIES RETURN ARM OFFLOAD PROXY_MODE SEGMENT; do echo "$name=${!name:-}"; done)
. "$(dirname "$0")/env.sh"
[ "$(id -u)" = 0 ] || fail "network namespaces need root"

settings() {
    for name in NODES FAMILIES RETURN ARM OFFLOAD PROXY_MODE SEGMENT; do echo ": \"\${$name:=${!name}}\""; done
    printf 'bin=%q images=%q\n' "$bin" "$images"
}

# ends when it is up as asked for
leave_if_up() {
    [ -e "$RUN/up" ] || return 0
    local file
    for file in "$RUN"/pid/{cp-*,n?}; do running "$(basename "$file")" || return 0; done
    [ "$(settings)" = "$(cat "$RUN/settings")" ] ||
        fail "$P is up with other settings than ${given//$'\n'/ }; run tests/cluster/down.sh first"
    say "$P is up"
    exit 0
}

# Settings of the whole machine that kubelets change. The first cluster notes them, the last one's end sets them back.
note_sysctls() {
    exec 8>"$machine.lock"
    flock 8
    mkdir -p "$machine/users"
    if [ ! -e "$machine/sysctls" ]; then
        local key
        for key in vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops \
            kernel.keys.root_maxkeys kernel.keys.root_maxbytes fs.inotify.max_user_instances; do
            echo "$key=$(sysctl -n $key)"
        done >"$machine/sysctls"
        sysctl -qw fs.inotify.max_user_instances=1024
    fi
    touch "$machine/users/$P"
    exec 8>&-
}

give_pod_cidrs() { # give_pod_cidrs NODE-NUMBER
    local cidrs
    cidrs=$(by_family "$POD4.$1.0/24" "${POD6}0:$1::/64")
    kubectl patch node "n$1" -p "{\"spec\": {\"podCIDR\": \"$(first "$cidrs")\", \"podCIDRs\": [\"${cidrs/,/\",\"}\"]}}"
}

leave_if_up
need_go
"$root/deploy/bootstrap.sh" cluster
"$here/build.sh"
if [ -e "$RUN" ]; then "$here/down.sh"; fi
began=$SECONDS
mkdir -p "$RUN/pid"
settings >"$RUN/settings"
note_sysctls
"$here/net.sh"
"$here/control-plane.sh"
for i in $(seq "$NODES"); do "$here/node.sh" "$i"; done
for i in $(seq "$NODES"); do
    until_true 300 "node n$i registers (see $RUN/n$i/log)" kubectl get node "n$i"
    give_pod_cidrs "$i" >/dev/null
done
kubectl wait --for=condition=Ready --timeout=180s node --all >/dev/null
for file in "$RUN"/pid/*; do
    running "$(basename "$file")" || fail "$(basename "$file") ended; its log is in $RUN"
done
touch "$RUN/up"
say "$P is up after $((SECONDS - began)) s"
