#!/bin/bash
# Fetches from Debian what a virtual machine with Shunt is made of, once, into $CACHE: a QEMU that has igb and a kernel
# whose igb has zero-copy, both newer than this Debian's and so only unpacked, and a small root with systemd. About
# 350 MB to fetch and two minutes.
#
#   tests/appliance/fetch.sh
#
# Leaves: $CACHE/qemu, $CACHE/kernel (both as their packages unpack), $CACHE/root.tar
set -euo pipefail
cd "$(dirname "$0")"
. ./common.sh

mirror=http://deb.debian.org/debian
keys=/usr/share/keyrings/debian-archive-keyring.gpg

# An apt of its own: it knows other suites, and nothing of what is installed here.
make_apt() {
    mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/cache/archives/partial" "$CACHE/apt/parts" "$CACHE/debs"
    : >"$CACHE/apt/status"
    for suite in bookworm-backports trixie-backports; do
        echo "deb [signed-by=$keys] $mirror $suite main"
    done >"$CACHE/apt/sources.list"
    cat >"$CACHE/apt/conf" <<EOF
Dir::State "$CACHE/apt";
Dir::State::lists "lists";
Dir::State::status "$CACHE/apt/status";
Dir::Cache "$CACHE/apt/cache";
Dir::Etc::sourcelist "$CACHE/apt/sources.list";
Dir::Etc::sourceparts "$CACHE/apt/parts";
Dir::Etc::preferencesparts "$CACHE/apt/parts";
APT::Sandbox::User "root";
Acquire::Languages "none";
EOF
    export APT_CONFIG=$CACHE/apt/conf
    apt-get -qq update
}

# Downloads packages and unpacks them into a directory.
unpack() {
    local directory=$1
    shift
    rm -rf "$CACHE/debs" "$directory.part"
    mkdir -p "$CACHE/debs" "$directory.part"
    (cd "$CACHE/debs" && apt-get -qq download "$@")
    for package in "$CACHE"/debs/*.deb; do
        dpkg -x "$package" "$directory.part"
    done
    rm -rf "$CACHE/debs"
    mv "$directory.part" "$directory"
}

fetch_qemu() {
    local version
    version=$(apt-cache madison qemu-system-x86 | awk '/bookworm-backports/ { print $3; exit }')
    unpack "$CACHE/qemu" qemu-system-x86="$version" qemu-system-common="$version" qemu-system-data="$version"
}

# The newest; its image and its modules are packages of their own.
fetch_kernel() {
    local version
    version=$(apt-cache depends -t trixie-backports linux-image-amd64 | sed -n 's/.*Depends: linux-image-\([0-9].*\)/\1/p')
    unpack "$CACHE/kernel" "linux-binary-unsigned-$version" "linux-modules-$version"
}

fetch_root() {
    mmdebstrap --quiet --variant=minbase --include="$ROOT_PACKAGES" bookworm "$CACHE/root.tar.part" $mirror
    mv "$CACHE/root.tar.part" "$CACHE/root.tar"
}

mkdir -p "$CACHE"
if [ ! -d "$CACHE/qemu" ] || [ ! -d "$CACHE/kernel" ]; then make_apt; fi
[ -d "$CACHE/qemu" ] || fetch_qemu
[ -d "$CACHE/kernel" ] || fetch_kernel
unset APT_CONFIG # the root is this Debian's
[ -e "$CACHE/root.tar" ] || fetch_root
