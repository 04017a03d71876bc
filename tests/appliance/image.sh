#!/bin/bash
# Makes the appliance's image with a test in it: deploy/image, with more packages, the files of guest/ and those of the
# test laid over it, and the names of NICs that the kernel gives. Run as root.
#
#   tests/appliance/image.sh TEST FILE
set -euo pipefail
test=$1
image=$(realpath -m "$2")
PACKAGE=${PACKAGE:+$(realpath "$PACKAGE")}
export PACKAGE
cd "$(dirname "$0")"
. ./common.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r guest/. "$work"
cp -r "$test/." "$work"
OVERLAY=$work/root CONFIGURATION=$work/configuration ARGUMENTS="net.ifnames=0 systemd.show_status=no" \
    ../../deploy/image/build.sh "$image"
