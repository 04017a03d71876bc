#!/bin/bash
# Whether the Debian package can be installed, used, upgraded, removed and purged: in a fresh root of the Debian that
# this runs on, in namespaces of its own. Nothing of this machine is touched but the cache of that root. Run as root.
#
# No systemd runs there, so the daemons are started as their units say, but by hand; that `systemctl` starts, restarts
# and stops them is what the virtual machine of tests/appliance shows.
#
#   tests/package/test.sh [PACKAGE]       without PACKAGE one is built
set -euo pipefail
package=${1:+$(realpath "$1")}
cd "$(dirname "$0")"

cache=${CACHE:-$HOME/.cache/shunt/package}
suite=$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)

../../deploy/bootstrap.sh package
if [ -z "$package" ]; then
    package=$(../../deploy/package.sh)
    [ "${package:0:1}" = / ] || package=../../$package
fi
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

echo "── lintian"
lintian --allow-root --fail-on error,warning "$package"

# With what the package depends on, so that dpkg installs it without asking anybody.
echo "── a fresh $suite"
needs=$(dpkg-deb --field "$package" Depends | sed 's/ *([^)]*)//g; s/ //g')
root=$cache/$suite-$(sha256sum <<<"$needs" | cut -c1-12).tar
if [ ! -e "$root" ]; then
    mkdir -p "$cache"
    mmdebstrap --quiet --format=tar --variant=minbase --include="$needs" "$suite" "$root.part"
    mv "$root.part" "$root"
fi
mkdir "$work/root"
tar -xf "$root" -C "$work/root"
cp "$package" "$work/root/tmp/shunt.deb"
./again.sh "$package" "$(dpkg-deb --field "$package" Version)+again" "$work/root/tmp/again.deb"

# When the first process of these namespaces ends, so do all others, and what they mounted and made is gone.
unshare --mount --net --ipc --uts --pid --fork --kill-child ./inside.sh "$work/root"
