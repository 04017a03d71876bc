#!/bin/bash
# lbctl.sh ARGUMENT...: lbctl, for the Shunt that shunt.sh started.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ -x "$RUN/lbctl" ] || fail "Shunt does not run in $P; run tests/cluster/shunt.sh"
exec "$RUN/lbctl" --socket "$RUN/controlplane.sock" --dataplane-socket "$RUN/dataplane.sock" "$@"
