#!/bin/bash
# Whether systemd understands the units and how little they leave open. Needs systemd-analyze, but neither root nor a
# running systemd, and takes about a second.
#
# That the programs work under these restrictions is what tests/appliance/units.sh shows, in a virtual machine.
set -euo pipefail
cd "$(dirname "$0")"

# Highest exposure of `systemd-analyze security`, in tenths.
declare -A most=([shunt-dataplane]=25 [shunt-controlplane]=20)
programs='shunt-dataplane|shunt-controlplane|nic-config|lbctl'

if ! command -v systemd-analyze >/dev/null; then
    echo "SKIPPED: systemd-analyze is not installed (apt-get install systemd)"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# `verify` wants the programs to be there.
for unit in *.service *.target; do
    sed -E "s,^(Exec[A-Za-z]+=[-+]*)/usr/bin/($programs)\b,\1/bin/true," "$unit" >"$work/$unit"
done
if ! said=$(systemd-analyze verify --man=no "$work"/*.service "$work"/*.target 2>&1) || [ -n "$said" ]; then
    echo "systemd-analyze verify: $said"
    exit 1
fi

# The units name what only these files make.
while read -r name; do
    grep -qE "^[ug] $name " sysusers.conf || {
        echo "sysusers.conf lacks $name, which a unit wants"
        exit 1
    }
done < <(sed -nE 's/^(User|Group|SupplementaryGroups)=//p' ./*.service | tr ' ' '\n')

failed=0
for unit in "${!most[@]}"; do
    score=$(systemd-analyze security --offline=true --no-pager "./$unit.service" | sed -n 's/.*level for [^:]*: //p')
    echo "$unit: exposure ${score% *}, of at most $((most[$unit] / 10)).$((most[$unit] % 10))"
    systemd-analyze security --offline=true --no-pager --threshold="${most[$unit]}" "./$unit.service" >/dev/null || {
        echo "$unit: more exposed than that; systemd-analyze security --offline=true deploy/systemd/$unit.service says by what"
        failed=1
    }
done
exit $failed
