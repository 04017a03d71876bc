#!/bin/bash
# Whether the Helm chart gives what kustomize gives, for the default values and with both DaemonSets. Needs no cluster.
set -euo pipefail
. "$(dirname "$0")/env.sh"
helm_version=v3.19.0
helm=$cache/helm-$helm_version/helm
kustomize=$bin/kubectl
chart=$root/deploy/helm/shunt
command -v go >/dev/null || [ -x "$helm" ] || skip "needs Go 1.26, to build Helm"
[ -x "$kustomize" ] || "$here/build.sh" kubectl
if [ ! -x "$helm" ]; then
    say "building Helm $helm_version, once, a few minutes"
    GOBIN=${helm%/*} go install "helm.sh/helm/v3/cmd/helm@$helm_version" || skip "Helm $helm_version cannot be built here"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Objects in one order, without comments. 10000.0 is 10000.
canonical() {
    python3 -c '
import sys, yaml
objects = [o for o in yaml.safe_load_all(sys.stdin) if o]
def whole(o):
    if isinstance(o, dict): return {k: whole(v) for k, v in o.items()}
    if isinstance(o, list): return [whole(v) for v in o]
    return int(o) if isinstance(o, float) and o.is_integer() else o
key = lambda o: (o["kind"], o["metadata"]["name"])
unique = {key(o): whole(o) for o in objects}
yaml.safe_dump_all([unique[k] for k in sorted(unique)], sys.stdout, sort_keys=True)'
}
compare() { # compare WHAT "DIRECTORY..." HELM-ARGUMENT...
    local what=$1 directory
    for directory in $2; do
        "$kustomize" kustomize "$root/deploy/kubernetes/$directory"
        echo ---
    done | canonical >"$scratch/kustomize"
    "$helm" template shunt "$chart" --include-crds "${@:3}" 2>"$scratch/notes" | canonical >"$scratch/helm"
    diff -u "$scratch/kustomize" "$scratch/helm" || fail "$what: Helm (+) gives something else than kustomize (-)"
    say "$what: Helm gives the $(grep -c '^kind:' "$scratch/helm") objects that kustomize gives"
}

"$helm" lint --quiet "$chart" 2>"$scratch/notes" || fail "$(cat "$scratch/notes")"
compare "default values" .
compare "with both DaemonSets" ". node-ipip node-check" --set nodeIpip.enabled=true --set nodeCheck.enabled=true
