#!/bin/bash
# Fetches the Debian that the image is made of, once, into $CACHE, where it takes 340 MB. About two minutes. Run as root.
#
#   deploy/image/root.sh
set -euo pipefail
cd "$(dirname "$0")"
. ./common.sh

keys=/usr/share/keyrings/debian-archive-keyring.gpg
tar=$(root_tar)
[ ! -e "$tar" ] || exit 0
command -v mmdebstrap >/dev/null || { echo "$0: apt-get install mmdebstrap" >&2; exit 1; }

source_line() { echo "deb [signed-by=$keys] $1 $2 main"; }
include=$(IFS=, && echo "${packages[*]}")

echo "fetching Debian $release into $tar"
mkdir -p "$CACHE"
mmdebstrap --quiet --variant=minbase --include="$include" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-include=/usr/share/doc/shunt/*' \
    --format=tar "$release" "$tar.part" \
    "$(source_line "$mirror" $release)" \
    "$(source_line "$security" $release-security)" \
    "$(source_line "$mirror" $release-backports)"
mv "$tar.part" "$tar"
