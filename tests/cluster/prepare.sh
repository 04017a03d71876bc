#!/bin/bash
# prepare.sh [COMMAND...]: builds what the cluster and upstream's specs need, while COMMAND, which should measure no time,
# runs beside it. Nothing is built where Go is missing.
set -euo pipefail
. "$(dirname "$0")/env.sh"
everything() { "$root/deploy/bootstrap.sh" cluster && "$here/build.sh" && "$here/build.sh" e2e.test; }

log=$(mktemp)
set -m # so that it can be ended with what it started
everything >"$log" 2>&1 </dev/null &
set +m
building=$!
# shellcheck disable=SC2317 # a trap calls it
finish() {
    kill -TERM -- "-$building" 2>/dev/null || true
    rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT TERM
if [ $# -gt 0 ]; then "$@"; fi
code=0
wait $building || code=$?
cat "$log"
[ $code = 77 ] || exit $code
