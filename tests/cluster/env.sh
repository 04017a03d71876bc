# shellcheck shell=bash disable=SC2034 # the scripts that read this use what it sets
# Settings, addresses and helpers of the cluster; read by every script here. Each setting can be given in the
# environment of up.sh; the others take what the cluster was brought up with.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# By the hash of what decides what comes out, outside of the work tree: a fresh clone does not build it again.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shunt/cluster
hash() { cat "$@" | sha256sum | cut -c 1-16; }
bin=$cache/$(hash "$here"/go/go.{mod,sum} "$here"/go-dns/go.{mod,sum} "$here"/go{,-dns,/*}/*.go "$here/build.sh")
images=$bin/archives-$(hash "$here/images.sh" "$here/mkimage.py")

P=${P:-shunt}                             # prefix of every network namespace; another one is another cluster
RUN=${RUN:-/var/tmp/shunt-cluster/$P}     # pids, logs, sockets, file systems of the nodes
BOX=${BOX:-}                              # of which box shunt.sh and lbctl.sh speak: 2 is the one that `net.sh box` adds
# A cluster that is up goes on with the programs that it was brought up with.
# shellcheck source=/dev/null
if [ -e "$RUN/up" ]; then . "$RUN/settings"; fi
: "${NODES:=3}"                           # worker nodes, 1 to 9
: "${FAMILIES:=4}"                        # IP families, the primary one first: 4, 6, 46 or 64
: "${RETURN:=direct}"                     # way of the nodes' replies: direct, past the load balancer; lb, through it
: "${ARM:=two}"                           # two: packets to VIPs reach the load balancer by cli0; one: by nod0
: "${OFFLOAD:=off}"                       # off: what AF_XDP sees is finished; on: checksums are left to "hardware"
: "${PROXY_MODE:=nftables}"               # of kube-proxy
: "${SEGMENT:=76}"                        # third number of the networks below: one box reaches clusters that differ in it
if [ "$ARM" = one ]; then RETURN=direct; fi
case $FAMILIES in 4 | 6 | 46 | 64) ;; *) echo "FAMILIES is $FAMILIES; give 4, 6, 46 or 64" >&2; exit 2 ;; esac

# What is shared by all clusters of the machine. Gone after a restart, as what it tells of is.
machine=/run/shunt-cluster

# N: node segment. C: client segment. M: from client and load balancer to the API server, past the NICs under test.
N4=192.168.$SEGMENT N6=fd00:$SEGMENT:
C4=203.0.113 C6=2001:db8:c:
M4=172.31.$SEGMENT
VIP4=198.51.100.0/24 VIP6=2001:db8:1::/64
# Where flows of mode nat come from; nodes reach them by nod0.
SNAT4=192.168.$((SEGMENT + 1)).0/28 SNAT6=fd00:$((SEGMENT + 1))::/124
POD4=10.244 POD6=fd00:244: # node i: 10.244.i.0/24, fd00:244:0:i::/64
api_mgmt=https://$M4.1:6443
api_node=https://$N4.5:6443 # over IPv4 in every cluster

# by_family V4 V6: those of the cluster's families, the primary one first, joined by a comma
by_family() {
    case $FAMILIES in 4) echo "$1" ;; 6) echo "$2" ;; 46) echo "$1,$2" ;; 64) echo "$2,$1" ;; esac
}
first() { echo "${1%%,*}"; }
pod_cidrs=$(by_family 10.244.0.0/16 fd00:244::/56)
service_cidrs=$(by_family 10.96.0.0/16 fd00:96::/112)

# inside NAMESPACE COMMAND...: `ip netns exec` would mount a /sys over the cgroups and the bpffs.
inside() {
    local namespace=$1
    shift
    nsenter --net="/run/netns/$P-$namespace" -- "$@"
}

# In clock ticks since boot; nothing of a process that ended and that nobody waits for. Its name, before that, may hold
# anything.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }
# record NAME PID: down.sh ends it. A number alone may be another process's by then, so its start time goes with it.
record() { echo "$2 $(start_time "$2")" >"$RUN/pid/$1"; }
# running NAME: whether that very process lives; sets pid
running() {
    local started
    [ -e "$RUN/pid/$1" ] && read -r pid started <"$RUN/pid/$1" && [ "$(start_time "$pid")" = "${started:-none}" ]
}
# end NAME: TERM, then KILL after 10 s
end() {
    if running "$1"; then
        kill -TERM "$pid"
        for _ in {1..100}; do running "$1" || break; sleep 0.1; done
        if running "$1"; then kill -KILL "$pid"; fi
    fi
    rm -f "$RUN/pid/$1"
}

# Every hierarchy of cgroup v1, or the one of v2
cgroups() {
    local directory
    for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
        if [ -e "$directory/cgroup.procs" ]; then echo "$directory"; fi
        if [ -e /sys/fs/cgroup/cgroup.controllers ]; then return; fi
    done
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ]; then fail "$what: not so in time"; fi
        sleep 0.1
    done
}

say() { echo "cluster: $*"; }
fail() { echo "cluster: $*" >&2; exit 1; }
# Exit code 77 says that nothing was tested; in continuous integration that is a failure.
skip() {
    echo "SKIPPED: $*"
    if [ -n "${CI:-}" ]; then exit 1; fi
    exit 77
}
# An older Go fetches the one that go.mod names, if it may.
need_go() {
    { [ -e "$images/complete" ] && [ -x "$bin/e2e.test" ]; } || go -C "$here/go" env GOVERSION >/dev/null 2>&1 || skip "needs Go 1.26"
}
# own_cluster: brings a cluster up that is taken down when the script ends (KEEP=1 leaves it up). Where Go is missing, which
# up.sh says, the script ends here.
own_cluster() {
    local code=0
    "$here/up.sh" || code=$?
    if [ $code = 77 ]; then exit 0; fi
    trap end_own_cluster EXIT
    trap 'exit 130' INT TERM
    [ $code = 0 ] || exit $code
}
end_own_cluster() {
    local code=${1:-$?}
    if [ -z "${KEEP:-}" ]; then "$here/down.sh"; fi
    exit "$code"
}
is_up() { [ -e "$RUN/up" ] || fail "$P is not up; run tests/cluster/up.sh"; }
kubectl() { inside client "$bin/kubectl" --kubeconfig "$RUN/kubeconfig.mgmt" "$@"; }
export P RUN NODES FAMILIES RETURN ARM OFFLOAD PROXY_MODE SEGMENT BOX
