#!/bin/bash
# node.sh I: starts worker node I: namespaces of its own for processes, mounts and its name, joined to network namespace
# $P-nI, with containerd, kubelet and kube-proxy. Its one recorded process, when killed, takes all of it along.
set -euo pipefail
. "$(dirname "$0")/env.sh"
i=$1 node=$P-n$1 directory=$RUN/n$1
# Some paths of kubelet, containerd and CNI can't be chosen, so every node has its own in their place.
own="var/lib/kubelet var/lib/containerd var/lib/cni var/log/pods var/log/containers run/containerd run/netns etc/cni/net.d"

# keep NAME COMMAND...: starts it again when it ends, as an init system would
keep() {
    local log=$directory/log/$1.log
    shift
    while :; do
        "$@" >>"$log" 2>&1 || true
        echo "--- ended; again in 1 s" >>"$log"
        sleep 1
    done
}

# As process 1 of the node
run_node() {
    local path image
    mount --make-rprivate /
    hostname "n$i"
    for path in $own; do
        mkdir -p "/$path"
        mount --bind "$directory/$path" "/$path"
    done
    mount --bind "$directory/etc/resolv.conf" /etc/resolv.conf
    mount --make-rshared /
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    keep containerd containerd --config "$directory/containerd.toml" &
    while [ ! -S /run/containerd/containerd.sock ]; do sleep 0.1; done
    for image in "$images"/*.tar; do
        ctr -n k8s.io images import --snapshotter overlayfs "$image" >>"$directory/log/import.log" 2>&1
    done
    keep kubelet "$bin/kubelet" --config="$directory/kubelet.yaml" --kubeconfig="$RUN/kubeconfig.node" \
        --hostname-override="n$i" --node-ip="$(by_family "$N4.1$i" "${N6}:1$i")" --root-dir=/var/lib/kubelet --v=2 &
    keep kube-proxy "$bin/kube-proxy" --kubeconfig="$RUN/kubeconfig.node" --proxy-mode="$PROXY_MODE" \
        --hostname-override="n$i" --cluster-cidr="$pod_cidrs" --conntrack-max-per-core=0 --v=2 &
    while :; do wait -n || true; sleep 0.2; done # reaps
}

# restrict_oom_score_adj and oomScoreAdj: runc dies where CAP_SYS_RESOURCE is missing and a score is to be lowered.
write_files() {
    local path
    mkdir -p "$directory/log"
    for path in $own; do mkdir -p "$directory/$path"; done
    : >"$directory/etc/resolv.conf"
    cat >"$directory/containerd.toml" <<CONTAINERD
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$(cat "$images/pause.name")"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
CONTAINERD
    cat >"$directory/etc/cni/net.d/10-bridge.conflist" <<CNI
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1500,
   "ipam": {"type": "host-local",
            "ranges": [$(by_family "[{\"subnet\": \"$POD4.$i.0/24\"}]" "[{\"subnet\": \"${POD6}0:$i::/64\"}]")],
            "routes": [$(by_family '{"dst": "0.0.0.0/0"}' '{"dst": "::/0"}')]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CNI
    cat >"$directory/kubelet.yaml" <<KUBELET
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
oomScoreAdj: 0
cgroupRoot: /$node
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
resolvConf: /etc/resolv.conf
clusterDNS: ["$(first "$(by_family "$N4.5" "${N6}:5")")"]
clusterDomain: cluster.local
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 5s
serializeImagePulls: false
registerNode: true
makeIPTablesUtilChains: false
KUBELET
}

make_cgroups() {
    local group
    for group in $(cgroups); do
        # v2: processes stay out of the group that kubelet divides.
        mkdir -p "$group/$node$(if [ -e "$group/cgroup.controllers" ]; then echo /init; fi)"
        if [ -e "$group/cpuset.cpus" ] && [ -e "$group/$node/cpuset.cpus" ]; then # v1: empty at first
            cat "$group/cpuset.cpus" >"$group/$node/cpuset.cpus"
            cat "$group/cpuset.mems" >"$group/$node/cpuset.mems"
        fi
    done
}

enter_cgroups() {
    local group
    for group in $(cgroups); do
        if [ -d "$group/$node/init" ]; then group=$group/$node/init; else group=$group/$node; fi
        echo "$BASHPID" >"$group/cgroup.procs" || true
    done
}

if [ "${2:-}" = inside ]; then
    run_node
fi
write_files
make_cgroups
(
    enter_cgroups
    exec setsid nsenter --net="/run/netns/$node" -- unshare --mount --uts --pid --fork --kill-child --mount-proc \
        bash "$here/node.sh" "$i" inside >"$directory/log/init.log" 2>&1 </dev/null
) &
record "n$i" $!
