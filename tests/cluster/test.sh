#!/bin/bash
# test.sh: what `make test-cluster` runs, in a cluster of its own that is taken down afterwards (KEEP=1 leaves it up):
# upstream's specs but for the two rolling updates, which take 15 minutes each, then Shunt's own scenarios, and those about
# two families in a second, smaller cluster.
set -euo pipefail
: "${P:=shunt-test}" "${NODES:=2}"
export P NODES
. "$(dirname "$0")/env.sh"
own_cluster
"$here/shunt.sh"
"$here/run.sh" LoadBalancers --ginkgo.skip='rolling update'
scenarios() { cargo test --quiet --locked -p shunt-tests --test cluster -- --run "$@"; }
scenarios
P=$P-dual RUN='' NODES=1 FAMILIES=46 scenarios families
