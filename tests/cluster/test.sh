#!/bin/bash
# test.sh: what `make test-cluster` runs: what is deployed to clusters, upstream's specs but for the two rolling updates,
# which take 15 minutes each, and beside them, in clusters of their own because specs mostly wait, Shunt's own scenarios.
# All clusters are taken down afterwards (KEEP=1 leaves them up).
set -euo pipefail
: "${P:=shunt-test}" "${NODES:=2}"
export P NODES
. "$(dirname "$0")/env.sh"

program() { cargo test --quiet --locked --workspace --test cluster -- "$@"; }
# In a cluster of its own, which it brings up and takes down.
scenarios() { # scenarios NAME [SETTING=VALUE...] -- [FILTER...]
    local settings=("P=$P-$1" RUN=)
    shift
    while [ "$1" != -- ]; do settings+=("$1"); shift; done
    (export "${settings[@]}"; program --run "${@:2}")
}
# Those that mostly wait, for boxes and clusters that are away, do so beside the others.
waiting=(boxes clusters)
# Takes everything down, what an interrupt leaves too.
# shellcheck disable=SC2317 # a trap calls it
finish() {
    local code=$? name
    kill -TERM -- "-$specs" 2>/dev/null || true
    if [ -n "$pair" ]; then kill -TERM -- "-$pair" 2>/dev/null || true; wait "$pair" || true; fi
    for name in own dual pair; do
        if [ -z "${KEEP:-}" ]; then P=$P-$name RUN='' "$here/down.sh"; fi
    done
    end_own_cluster "$code"
}

"$here/node-script.sh"
own_cluster
"$here/shunt.sh"
"$here/pools.sh"
"$here/build.sh" e2e.test
setsid "$here/run.sh" LoadBalancers --ginkgo.skip='rolling update' >"$RUN/specs.log" 2>&1 &
specs=$!
pair=
trap finish EXIT
code=0
mapfile -t others < <(program --list | awk '{ print $1 }' | grep -vx "${waiting[@]/#/-e}")
set -m # so that it can be ended with what it started
scenarios pair -- "${waiting[@]}" >"$RUN/pair.log" 2>&1 </dev/null &
pair=$!
set +m
scenarios own -- "${others[@]}" || code=$?
scenarios dual NODES=1 FAMILIES=46 -- families || code=$?
wait $pair || code=$?
pair=
cat "$RUN/pair.log"
say "upstream's specs"
wait $specs || code=$?
cat "$RUN/specs.log"
exit $code
