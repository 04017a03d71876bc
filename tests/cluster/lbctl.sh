#!/bin/bash
# lbctl.sh ARGUMENT...: lbctl, for the Shunt that shunt.sh started (BOX=2: on the second box).
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ -x "$RUN/lbctl" ] || fail "Shunt does not run in $P; run tests/cluster/shunt.sh"
exec "$RUN/lbctl" --socket "$RUN/controlplane$BOX.sock" --dataplane-socket "$RUN/dataplane$BOX.sock" "$@"
