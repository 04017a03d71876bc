#!/bin/bash
# Fetches what a virtual machine runs on, once, into $CACHE: a QEMU that has igb, newer than this Debian's and so only
# unpacked, with whatever of its libraries this machine lacks, and a firmware for UEFI. 100 MB when unpacked. Run as root.
#
#   tests/appliance/fetch.sh
#
# Leaves $CACHE/qemu, as packages unpack.
set -euo pipefail
cd "$(dirname "$0")"
. ./common.sh

mirror=${MIRROR:-http://deb.debian.org/debian}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
suite=bookworm

# An apt of its own: it knows another suite, and of this machine only what is installed.
make_apt() {
    mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/cache/archives/partial" "$CACHE/apt/parts"
    for part in $suite $suite-backports; do
        echo "deb [signed-by=$keys] $mirror $part main"
    done >"$CACHE/apt/sources.list"
    cat >"$CACHE/apt/conf" <<EOF
Dir::State "$CACHE/apt";
Dir::State::lists "lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$CACHE/apt/cache";
Dir::Etc::sourcelist "$CACHE/apt/sources.list";
Dir::Etc::sourceparts "$CACHE/apt/parts";
Dir::Etc::preferencesparts "$CACHE/apt/parts";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
EOF
    export APT_CONFIG=$CACHE/apt/conf
    apt-get -qq update
}

# Installed ones are downloaded as well, or nothing would be where it is unpacked.
fetch_qemu() {
    local archives=$CACHE/apt/cache/archives package
    apt-get -qq -y --download-only --reinstall -t $suite-backports install \
        qemu-system-x86 qemu-system-common qemu-system-data seabios ovmf >/dev/null
    rm -rf "$CACHE/qemu.part"
    mkdir "$CACHE/qemu.part"
    for package in "$archives"/*.deb; do
        dpkg -x "$package" "$CACHE/qemu.part"
    done
    rm -f "$archives"/*.deb
    mv "$CACHE/qemu.part" "$CACHE/qemu"
}

[ ! -d "$CACHE/qemu" ] || exit 0
mkdir -p "$CACHE"
echo "fetching QEMU into $CACHE/qemu"
make_apt
fetch_qemu
