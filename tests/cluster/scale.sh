#!/bin/bash
# scale.sh [SERVICES [NODES [CHANGES]]]: how long Shunt takes with many Services. Puts them into the cluster P as API
# objects, every other one Local, with three endpoints each on nodes that are only addresses; starts Shunt as the
# provider; then changes endpoints one after the other. Prints a table, and ends with 1 if a limit is exceeded.
#
#     P=scale NODES=1 tests/cluster/up.sh
#     P=scale tests/cluster/scale.sh                # 2,000 Services, 50 nodes, 100 changes: about two minutes
#     P=scale tests/cluster/down.sh
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
services=${1:-2000} nodes=${2:-50} changes=${3:-100}
first=101 # the last byte of the first node's address

measure() { # measure COMMAND...: asks the API server from the client's namespace
    inside client python3 "$here/scale.py" --kubeconfig "$RUN/kubeconfig.mgmt" --log "$RUN/shunt-controlplane.log" \
        --services "$services" --nodes "$nodes" --subnet "$N4" --first "$first" "$@"
}

# The nodes: addresses of the control plane's namespace, where one small server answers all health checks.
answer_for_nodes() {
    local i
    for i in $(seq 0 $((nodes - 1))); do
        inside cp ip address replace "$N4.$((first + i))/32" dev eth0
    done
    inside cp nft -f - <<NFT
table ip scale
delete table ip scale
table ip scale {
    chain checks {
        type nat hook prerouting priority dstnat;
        ip daddr $N4.$first-$N4.$((first + nodes - 1)) tcp dport { 10256, 30000-32767 } redirect to :10256
    }
}
NFT
    running scale-answer || {
        setsid nsenter --net="/run/netns/$P-cp" -- python3 "$here/scale.py" answer >"$RUN/scale-answer.log" 2>&1 </dev/null &
        record scale-answer $!
    }
}

config() {
    cat <<TOML
[[nic]]
name = "cli0"

[[nic]]
name = "nod0"

[kubernetes]
kubeconfig = "$RUN/kubeconfig.mgmt"
pools = [{ name = "scale", addresses = ["198.18.0.0/15"] }]
TOML
}

rss() { # rss PROGRAM: resident memory in MiB
    running "$1" && awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status"
}

"$here/shunt.sh" stop
answer_for_nodes
measure objects
config >"$RUN/scale.toml"
start() { # start WHAT
    local began
    "$here/shunt.sh" stop
    began=$(date +%s.%N)
    "$here/shunt.sh" "$RUN/scale.toml"
    echo -n "$1: "
    measure start --since "$began"
}

start "start with new Services"
start "start with known Services"
echo "resident: control plane $(rss shunt-controlplane) MiB, dataplane $(rss shunt-dataplane) MiB"
measure changes --count "$changes"
echo "resident: control plane $(rss shunt-controlplane) MiB, dataplane $(rss shunt-dataplane) MiB"
