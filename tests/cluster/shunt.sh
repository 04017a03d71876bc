#!/bin/bash
# shunt.sh [CONFIG]: starts Shunt's dataplane and control plane in the load balancer's namespace, on its NICs cli0 and
# nod0, and waits until they are healthy. With `stop`, ends them. If they run, they take CONFIG over. With `kubeconfig`,
# only makes the kubeconfig that the configuration below names. With BOX=2, all of it is for the box that `net.sh box` added.
#
# Without CONFIG, Shunt is the cluster's provider, as who deploy/kubernetes says and with what that allows. MODE is how
# packets get to the nodes unless a Service says otherwise: dr, ipip or nat. With ipip, nodes take packets out of tunnels.
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
programs=${SHUNT_BIN_DIR:-${CARGO_TARGET_DIR:-$root/target}/release}
config=$RUN/shunt$BOX.toml

provider_config() {
    cat <<TOML
fleet_key_file = "$RUN/fleet.key"

[[nic]]
name = "cli0"

[[nic]]
name = "nod0"

[nat]
sources = ["${SNAT4%.0/28}.${BOX:-1}", "${SNAT6%/124}${BOX:-1}"]

[kubernetes]
kubeconfig = "${SHUNT_KUBECONFIG:-$RUN/kubeconfig.shunt}"
# Upstream's specs name no class.
default_class = true
mode = "${MODE:-dr}"
pools = [{ name = "default", addresses = ["$VIP4", "$VIP6"] }]
TOML
}

# What an operator does, so that nothing is allowed here that is not allowed there.
make_kubeconfig() {
    "$bin/kubectl" kustomize "$root/deploy/kubernetes" >"$RUN/deploy.yaml"
    kubectl apply --server-side --force-conflicts -f "$RUN/deploy.yaml" >/dev/null
    inside client "$programs/lbctl" kubeconfig --admin-kubeconfig "$RUN/kubeconfig.mgmt" --file "$RUN/kubeconfig.shunt" \
        >"$RUN/kubeconfig.log" 2>&1 || fail "$(cat "$RUN/kubeconfig.log")"
}

start() { # start PROGRAM ARGUMENT...
    local program=$1
    shift
    setsid nsenter --net="/run/netns/$P-lb$BOX" -- "$programs/$program" "$@" >"$RUN/$program$BOX.log" 2>&1 </dev/null &
    record "$program$BOX" $!
}
mount_bpf() {
    mkdir -p "$RUN/bpf$BOX"
    mountpoint -q "$RUN/bpf$BOX" || mount -t bpf bpf "$RUN/bpf$BOX"
}
start_daemons() {
    mkdir -p "$RUN/state$BOX"
    start shunt-dataplane run --socket "$RUN/dataplane$BOX.sock" --bpf-dir "$RUN/bpf$BOX"
    start shunt-controlplane --config "$config" --socket "$RUN/controlplane$BOX.sock" \
        --dataplane-socket "$RUN/dataplane$BOX.sock" --state-dir "$RUN/state$BOX"
}
# Kernels need not have the tunnel devices.
decapsulate() {
    local i
    for i in $(seq "$NODES"); do
        [ -e "$RUN/bpf/decapsulate-n$i" ] ||
            "$programs/shunt-decapsulate" "$P-n$i" eth0 --pin "$RUN/bpf/decapsulate-n$i" || fail "n$i takes nothing out of tunnels"
    done
}
healthy() {
    local name
    for name in shunt-dataplane shunt-controlplane; do
        running "$name$BOX" || fail "$name ended; see $RUN/$name$BOX.log"
    done
    "$here/lbctl.sh" status >"$RUN/status$BOX" 2>&1
}

if [ "${1:-}" = stop ]; then
    end "shunt-controlplane$BOX"
    end "shunt-dataplane$BOX"
    exit 0
fi
for program in shunt-dataplane shunt-controlplane lbctl; do
    [ -x "$programs/$program" ] || fail "no $programs/$program; run make build, or name its folder by SHUNT_BIN_DIR"
done
if running provider; then fail "the reference provider serves $P; run tests/cluster/baseline.sh stop first"; fi
ln -sfn "$programs/lbctl" "$RUN/lbctl"
if [ "${1:-}" = kubeconfig ]; then
    make_kubeconfig
    exit 0
fi
[ -e "$RUN/fleet.key" ] || (umask 077; openssl rand -hex 16 >"$RUN/fleet.key")
# Otherwise packets that Shunt leaves to the host could reach nodes all the same, and a test would not notice.
if [ "$RETURN" = direct ]; then inside "lb$BOX" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0; fi
if [ $# -gt 0 ]; then
    cp "$1" "$config"
else
    [ -n "${SHUNT_KUBECONFIG:-}$BOX" ] || make_kubeconfig
    provider_config >"$config"
fi
"$programs/lbctl" validate "$config" >"$RUN/validate$BOX" 2>&1 || fail "$(cat "$RUN/validate$BOX")"
mount_bpf
if [ "${MODE:-dr}" = ipip ]; then decapsulate; fi
if running "shunt-dataplane$BOX" && running "shunt-controlplane$BOX"; then
    "$here/lbctl.sh" reload >/dev/null
else
    start_daemons
fi
for _ in {1..300}; do
    if healthy; then exit 0; fi
    sleep 0.1
done
cat "$RUN/status$BOX" >&2
fail "Shunt is not healthy after 30 s; its logs are in $RUN"
