#!/bin/bash
# Makes the two images that the specs need, without a registry: agnhost in a small Debian, and pause. Their names are
# those that upstream's specs ask for. Called by build.sh, which holds the lock.
set -euo pipefail
. "$(dirname "$0")/env.sh"
if [ -e "$images/complete" ]; then exit 0; fi
mkdir -p "$images"

if [ ! -s "$cache/rootfs.tar" ]; then
    mmdebstrap --quiet --variant=essential \
        --include=curl,wget,iproute2,iputils-ping,netcat-openbsd \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$cache/rootfs.new.tar" </dev/null
    mv "$cache/rootfs.new.tar" "$cache/rootfs.tar"
fi

layers=$(mktemp -d)
trap 'rm -rf "$layers"' EXIT
mkdir -p "$layers"/agnhost/{uploads,usr/local/bin} "$layers/pause"
# Specs rely on the ways of the upstream image's BusyBox: its wget tries once (GNU's tries 20 times, so that each
# "must not be reachable" takes four minutes) and takes bare IPv6 addresses. Debian's BusyBox crashes here.
cat >"$layers/agnhost/usr/local/bin/wget" <<'WGET'
#!/bin/sh
for a; do
    shift
    case $a in [0-9a-f]*:*:*) a="http://[$a]/" ;; esac
    set -- "$@" "$a"
done
exec /usr/bin/wget --tries=1 "$@"
WGET
chmod 755 "$layers/agnhost/usr/local/bin/wget"
cp "$bin/agnhost" "$layers/agnhost/agnhost"
ln -s agnhost "$layers/agnhost/agnhost-2"
cp "$bin/pause" "$layers/pause/pause"
for image in agnhost pause; do
    tar -C "$layers/$image" --owner=0 --group=0 --numeric-owner -cf "$layers/$image.tar" .
    "$bin/images" | awk -v image=$image '$1 == image { print $2 }' >"$images/$image.name"
done
python3 "$here/mkimage.py" "$images/agnhost.tar" "$(cat "$images/agnhost.name")" \
    '{"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}' "$cache/rootfs.tar" "$layers/agnhost.tar"
python3 "$here/mkimage.py" "$images/pause.tar" "$(cat "$images/pause.name")" \
    '{"Entrypoint": ["/pause"]}' "$layers/pause.tar"
touch "$images/complete"
