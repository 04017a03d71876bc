#!/bin/bash
# Has the API server judge the pools in pools/: it takes the good ones, and of the bad ones those alone that its rules
# cannot tell. `lbctl` judges the same files in its own tests. Nothing stays but the definition of the kind.
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kubectl apply --server-side --force-conflicts -f "$root/deploy/kubernetes/crds/shuntpools.yaml" >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd/shuntpools.shunt.dev >/dev/null
# Taken for good only once discovery has it, too.
until_true 30 "the API server knows ShuntPool" kubectl get shuntpools

# takes FILE: whether the API server does; what it says goes to $scratch/said
takes() { kubectl create --dry-run=server --validate=strict -f "$1" >"$scratch/said" 2>&1; }
wrong=0
bad() { # bad WHAT FILE
    wrong=$((wrong + 1))
    say "$1:"
    cat "$2" "$scratch/said"
}

csplit -sz -f "$scratch/good." "$here/pools/good.yaml" '/^---$/' '{*}'
csplit -sz -f "$scratch/bad." "$here/pools/bad.yaml" '/^---$/' '{*}'
good=0 refused=0 offline=0
for file in "$scratch"/good.*; do
    takes "$file" || bad "a good pool is refused" "$file"
    good=$((good + 1))
done
for file in "$scratch"/bad.*; do
    grep -q '^# refused: ' "$file" || continue # the head of the file
    if grep -q '^# only offline' "$file"; then
        takes "$file" || bad "the API server can tell this one, too" "$file"
        offline=$((offline + 1))
    else
        if takes "$file"; then bad "a bad pool is taken" "$file"; fi
        refused=$((refused + 1))
    fi
done
[ "$wrong" = 0 ] || fail "$wrong pools are judged otherwise than expected"
say "the API server takes $good good pools, refuses $refused bad ones, and leaves $offline to the control plane"
