#!/bin/bash
# test.sh: what `make test-cluster` runs: what is deployed to clusters, upstream's specs but for the two rolling updates,
# which take 15 minutes each, and beside them, in clusters of their own because specs mostly wait, Shunt's own scenarios.
# All clusters are taken down afterwards (KEEP=1 leaves them up).
set -euo pipefail
: "${P:=shunt-test}" "${NODES:=2}"
export P NODES
. "$(dirname "$0")/env.sh"

# In a cluster of its own, which it brings up and takes down.
scenarios() { # scenarios NAME [SETTING=VALUE...] -- [FILTER...]
    local settings=("P=$P-$1" RUN=)
    shift
    while [ "$1" != -- ]; do settings+=("$1"); shift; done
    env "${settings[@]}" cargo test --quiet --locked -p shunt-tests --test cluster -- --run "${@:2}"
}
# Takes everything down, what an interrupt leaves too.
# shellcheck disable=SC2317 # a trap calls it
finish() {
    local code=$? name
    kill -TERM -- "-$specs" 2>/dev/null || true
    for name in own dual; do
        if [ -z "${KEEP:-}" ]; then P=$P-$name RUN='' "$here/down.sh"; fi
    done
    end_own_cluster "$code"
}

"$here/node-script.sh"
own_cluster
"$here/helm.sh"
"$here/shunt.sh"
"$here/pools.sh"
"$here/build.sh" e2e.test
setsid "$here/run.sh" LoadBalancers --ginkgo.skip='rolling update' >"$RUN/specs.log" 2>&1 &
specs=$!
trap finish EXIT
code=0
scenarios own -- || code=$?
scenarios dual NODES=1 FAMILIES=46 -- families || code=$?
say "upstream's specs"
wait $specs || code=$?
cat "$RUN/specs.log"
exit $code
