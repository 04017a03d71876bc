#!/bin/bash
# kubectl.sh ARGUMENT...: kubectl, from the client's namespace.
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
kubectl "$@"
