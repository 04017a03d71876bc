#!/bin/bash
# e2e.sh baseline|shunt [FOCUS [FLAG...]]: upstream's specs against a provider in a cluster of its own, which is taken
# down afterwards (KEEP=1 leaves it up). With all of them and Shunt, the Helm chart is compared first. Where Go is missing it
# says SKIPPED.
set -euo pipefail
: "${P:=shunt-e2e}"
export P
. "$(dirname "$0")/env.sh"
provider=${1:?which provider: baseline or shunt}
[ -x "$here/$provider.sh" ] || fail "no provider $provider"
# Where Helm cannot be built, the specs say something all the same.
if [ "$provider" = shunt ] && [ $# = 1 ]; then "$here/helm.sh" || [ $? = 77 ]; fi
own_cluster
"$here/$provider.sh"
"$here/run.sh" "${@:2}"
