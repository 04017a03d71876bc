#!/bin/bash
# Makes a package that is the same but for its version.
#
#   tests/package/again.sh PACKAGE VERSION OUTPUT
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb --raw-extract "$1" "$work/package"
sed -i "s/^Version: .*/Version: $2/" "$work/package/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 --build "$work/package" "$3" >/dev/null
