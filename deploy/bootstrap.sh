#!/bin/bash
# Installs what a fresh Debian lacks to build, test and demonstrate Shunt. Run it as root, as often as you
# like: it says nothing when nothing is missing. It never starts a service: tests and benchmarks run nginx, haproxy and
# BIRD themselves.
#
#   deploy/bootstrap.sh            what everything but tests/cluster and tests/package needs
#   deploy/bootstrap.sh cluster    what tests/cluster needs besides
#   deploy/bootstrap.sh package    what tests/package needs besides
set -euo pipefail
cd "$(dirname "$0")/.."

build="build-essential clang llvm m4 pkg-config libelf-dev zlib1g-dev libclang-dev"
run="iproute2 ethtool curl nginx-light iperf3 iputils-arping iputils-ping ndisc6 procps shellcheck"
# Routing daemons that announce VIPs.
route="bird2 frr"
# promtool, which judges metrics and alert rules.
monitor="prometheus"
# What the benchmarks compare with, and what counts instructions.
compare="haproxy libnginx-mod-stream nftables valgrind"
# What nodes of a Kubernetes cluster run, and what makes the images of their containers.
cluster="containerd runc containernetworking-plugins conntrack iptables nftables mmdebstrap openssl python3 python3-yaml"
cluster+=" iproute2 ethtool curl procps"
# What looks at a Debian package, and what makes a Debian to install it in.
package="lintian mmdebstrap man-db busybox-static iproute2 ethtool curl"

fail() {
    echo "bootstrap: $*" >&2
    exit 1
}

installed() {
    case $1 in
        # Any build of nginx will do.
        nginx-light) [ -x /usr/sbin/nginx ] ;;
        # And one with its stream module built in needs no other.
        libnginx-mod-stream)
            [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || /usr/sbin/nginx -V 2>&1 | grep -qE -- '--with-stream( |$)'
            ;;
        *) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
    esac
}

# Debian starts a service as soon as its package is installed, unless policy-rc.d forbids it.
policy=/usr/sbin/policy-rc.d
saved=$policy.shunt-saved
none=$policy.shunt-none

forbid_service_start() {
    restore_policy # of a run that was killed
    if [ -e $policy ]; then mv $policy $saved; else touch $none; fi
    trap restore_policy EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
}

restore_policy() {
    if [ -e $saved ]; then mv -f $saved $policy; fi
    if [ -e $none ]; then rm -f $policy $none; fi
}

forget_service() {
    rm -f "/etc/systemd/system/multi-user.target.wants/$1.service" "/etc/systemd/system/sysinit.target.wants/$1.service"
}

install_packages() {
    local missing=() package
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "install the equivalent of these Debian packages: ${missing[*]}"
    [ "$(id -u)" = 0 ] || fail "run this as root to install: ${missing[*]}"
    echo "bootstrap: installing ${missing[*]}"
    forbid_service_start
    apt-get -qq update || true # some other repository's list may fail; installing tells whether it matters
    local log
    log=$(mktemp)
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null 2>"$log" ||
        { cat "$log" >&2; fail "apt-get could not install ${missing[*]}"; }
    # Nor should they start at the next boot and take ports or set rules. (systemctl may be missing.)
    for package in "${missing[@]}"; do
        case $package in
            nginx-light) forget_service nginx ;;
            bird2) forget_service bird ;;
            containerd | frr | haproxy | nftables | prometheus) forget_service "$package" ;;
        esac
    done
    rm -f "$log"
}

wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

rust_is_new_enough() {
    local have
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$have" ] && [ "$(printf '%s\n' "$wanted_rust" "$have" | sort -V | head -1)" = "$wanted_rust" ]
}

install_rust() {
    if rust_is_new_enough; then return 0; fi
    # A login shell has this in PATH; make may not.
    if [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH" rust_is_new_enough; then
        fail "Rust is in $HOME/.cargo/bin, which is not in PATH; run: . $HOME/.cargo/env"
    fi
    if ! command -v rustup >/dev/null && [ "$(id -u)" = 0 ] && apt-cache policy rustup | grep -q 'Candidate: [0-9]'; then
        echo "bootstrap: installing rustup"
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y install rustup >/dev/null
    fi
    if command -v rustup >/dev/null; then
        echo "bootstrap: installing the stable Rust toolchain"
        rustup --quiet toolchain install stable --profile minimal --component clippy,rustfmt || true
        rustup --quiet default stable || true
    fi
    rust_is_new_enough ||
        fail "Rust $wanted_rust or newer is needed; install it with rustup (see rust-lang.org/tools/install)"
}

# shellcheck disable=SC2086 # several words
case ${1:-} in
    "")
        install_packages $build $run $route $monitor $compare
        install_rust
        ;;
    cluster) install_packages $cluster ;;
    package) install_packages $package ;;
    *) fail "$1: give nothing, cluster or package" ;;
esac
