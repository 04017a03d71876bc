#!/bin/bash
# Runs the tests of the dataplane's own unsafe code (memory and AF_XDP rings, flow table, hints about memory) under Miri,
# which finds undefined behaviour and data races that a test run on the hardware cannot show.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED: miri is not installed for the nightly toolchain (rustup component add --toolchain nightly miri)"
    exit 0
fi
# Isolation would hide the clock and the environment that the test harness reads.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
# Properties are searched for exceptions elsewhere; here one case of each does, because Miri takes its time.
export PROPTEST_CASES=${PROPTEST_CASES:-1}
# A directory of its own, so that the other toolchain's build stays fresh.
exec cargo +nightly miri test --locked --target-dir target/miri -p shunt-dataplane --lib -- port:: conntrack:: memory::
