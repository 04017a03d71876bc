#!/bin/bash
# run.sh [FOCUS [FLAG...]]: runs upstream's LoadBalancer specs from the client's namespace against whichever provider
# is there, and prints a table. FOCUS is a regular expression of spec names; flags go to e2e.test.
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
"$here/build.sh" e2e.test
focus=${1:-LoadBalancers}
report=${REPORT:-$root/target/cluster-report/$P-$(date +%H%M%S)}
mkdir -p "$report"
cd "$report"
code=0
inside client "$bin/e2e.test" --provider=skeleton --kubeconfig="$RUN/kubeconfig.mgmt" --kubectl-path="$bin/kubectl" \
    --ginkgo.focus="$focus" --ginkgo.no-color --ginkgo.timeout=3h --ginkgo.v --disable-log-dump \
    --report-dir="$report" "${@:2}" >"$report/e2e.log" 2>&1 || code=$?
# shellcheck disable=SC2012 # names of its own
ls "$report"/junit*.xml >/dev/null 2>&1 || { tail -n 20 "$report/e2e.log"; fail "no spec ran; see $report/e2e.log"; }
python3 "$here/table.py" "$report"/junit*.xml | tee "$report/table.md"
say "e2e.test ended with $code; log and JUnit are in $report"
exit $code
