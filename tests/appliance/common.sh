# shellcheck shell=bash
# What the scripts beside this file share; sourced by them.

# Where what was fetched is kept; deploy/image keeps its own there, too.
CACHE=${CACHE:-$HOME/.cache/shunt/appliance}
# What the guest has beyond the appliance: the web server of backends, and what Shunt is compared with.
EXTRA_PACKAGES="busybox-static ipvsadm"
export CACHE EXTRA_PACKAGES

# Prints each line with the seconds since a time, as it comes.
stamp() { # SINCE (EPOCHREALTIME)
    local line now
    while IFS= read -r line; do
        now=$((${EPOCHREALTIME/./} - ${1/./}))
        printf '%6d.%d %s\n' $((now / 1000000)) $((now / 100000 % 10)) "$line"
    done
}
