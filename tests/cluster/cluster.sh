#!/bin/bash
# Brings the cluster up with a provider, and says what to do with it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
"$here/up.sh"
# The reference provider, until Shunt is one.
if ! running provider && ! running shunt-dataplane; then "$here/baseline.sh"; fi
cat <<HINTS

Services of type LoadBalancer get addresses of $(by_family $VIP4 $VIP6), which a client outside of the cluster reaches.
They are served by the reference provider; Shunt is none yet.

    tests/cluster/kubectl.sh get nodes,pods -A -o wide
    tests/cluster/kubectl.sh create deployment web --image=$(cat "$images/agnhost.name") --replicas=2 -- /agnhost netexec
    tests/cluster/kubectl.sh expose deployment web --type=LoadBalancer --port=80 --target-port=8080
    tests/cluster/kubectl.sh get service web
    nsenter --net=/run/netns/$P-client curl http://ADDRESS/hostname
    tests/cluster/run.sh 'finalizer'     # upstream's specs, or some of them
    tests/cluster/down.sh                # removes everything
HINTS
if [ "$P" != shunt ]; then echo "with P=$P in the environment of each."; fi
