#!/bin/bash
# Brings the cluster up with Shunt, unless the reference provider runs there, and says what to do with it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
code=0
"$here/up.sh" || code=$?
if [ $code = 77 ]; then exit 0; fi # said already
[ $code = 0 ] || exit $code
if ! running provider; then "$here/shunt.sh"; fi
cat <<HINTS

Services of type LoadBalancer get addresses of $(by_family $VIP4 $VIP6), which a client outside of the cluster reaches.
Annotation shunt.dev/mode=dr|nat says how packets get to the nodes; for ipip, start it with MODE=ipip.

    tests/cluster/kubectl.sh get nodes,pods -A -o wide
    tests/cluster/kubectl.sh create deployment web --image=$(cat "$images/agnhost.name") --replicas=2 -- /agnhost netexec
    tests/cluster/kubectl.sh expose deployment web --type=LoadBalancer --port=80 --target-port=8080
    tests/cluster/kubectl.sh get service web
    nsenter --net=/run/netns/$P-client curl http://ADDRESS/hostname
    tests/cluster/lbctl.sh status        # and get services, get backends, events
    tests/cluster/run.sh 'finalizer'     # upstream's specs, or some of them
    tests/cluster/down.sh                # removes everything
HINTS
if [ "$P" != shunt ]; then echo "with P=$P in the environment of each."; fi
