# shellcheck shell=bash
# What the scripts beside this file share; sourced by them.

# Where what was fetched is kept.
CACHE=${CACHE:-$HOME/.cache/shunt/appliance}
# Where the programs are.
PROGRAMS=${PROGRAMS:-$PWD/../../target/release}
export CACHE PROGRAMS

# busybox-static has the web server of backends and the tools of the initramfs.
ROOT_PACKAGES=systemd,systemd-sysv,udev,kmod,iproute2,ethtool,curl,ca-certificates,dbus,procps,arping
ROOT_PACKAGES+=,busybox-static,python3-minimal
export ROOT_PACKAGES

kernel_version() {
    ls "$CACHE/kernel/usr/lib/modules"
}
