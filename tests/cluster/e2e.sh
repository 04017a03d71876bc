#!/bin/bash
# e2e.sh baseline|shunt [FOCUS [FLAG...]]: upstream's specs against a provider in a cluster of its own, which is taken
# down afterwards (KEEP=1 leaves it up). Where Go is missing it says SKIPPED.
set -euo pipefail
: "${P:=shunt-e2e}"
export P
. "$(dirname "$0")/env.sh"
provider=${1:?which provider: baseline or shunt}
[ -x "$here/$provider.sh" ] || fail "no provider $provider"
code=0
"$here/up.sh" || code=$?
if [ $code = 77 ]; then exit 0; fi # said already
finish() {
    code=$?
    if [ -z "${KEEP:-}" ]; then "$here/down.sh"; fi
    exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM
[ $code = 0 ] || exit $code
"$here/$provider.sh"
"$here/run.sh" "${@:2}"
