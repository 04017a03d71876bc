#!/bin/bash
# Makes the appliance's image with a test in it: deploy/image, with more packages, the files of guest/ and those of the
# test laid over it, the names of NICs that the kernel gives, and the same package of a later version to upgrade to. Run
# as root.
#
#   tests/appliance/image.sh TEST FILE
set -euo pipefail
test=$1
image=$(realpath -m "$2")
PACKAGE=${PACKAGE:+$(realpath "$PACKAGE")}
cd "$(dirname "$0")"
. ./common.sh
# shellcheck source=../../deploy/image/common.sh
PACKAGE=${PACKAGE:-$(cd ../../deploy/image && . ./common.sh && newest_package)}
PACKAGE=$(cd ../../deploy/image && realpath "$PACKAGE")
export PACKAGE

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r guest/. "$work"
cp -r "$test/." "$work"
../package/again.sh "$PACKAGE" "$(dpkg-deb --field "$PACKAGE" Version)+again" "$work/root/opt/test/again.deb"
OVERLAY=$work/root CONFIGURATION=$work/configuration ARGUMENTS="net.ifnames=0 systemd.show_status=no" \
    ../../deploy/image/build.sh "$image"
