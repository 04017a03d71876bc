#!/bin/bash
# Makes a bootable disk image, for QEMU and for a USB stick: Debian with Shunt's package, by BIOS and by UEFI (without
# Secure Boot), console on the screen and on the first serial port. Run as root; needs no loop device. Tells how to
# configure it: docs/appliance.md.
#
#   deploy/image/build.sh FILE
#
# PACKAGE=FILE.deb      instead of the newest that make package made
# OVERLAY=DIRECTORY     copied over the root
# CONFIGURATION=DIRECTORY  copied to the boot partition, where the box takes its configuration from
# ARGUMENTS="net.ifnames=0"  more of the kernel's command line
# EXTRA_PACKAGES, CACHE, MIRROR: see common.sh
set -euo pipefail
out=$(realpath -m "$1")
package=${PACKAGE:+$(realpath "$PACKAGE")}
overlay=${OVERLAY:+$(realpath "$OVERLAY")}
configuration=${CONFIGURATION:+$(realpath "$CONFIGURATION")}
cd "$(dirname "$0")"
. ./common.sh
[ "$(id -u)" = 0 ] || { echo "$0: run this as root" >&2; exit 1; }
[ -n "$package" ] || package=$(newest_package)

boot_mb=256
root_mb=1280
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
uuid=$(cat /proc/sys/kernel/random/uuid)
boot_id=$(od -An -N4 -tx4 /dev/urandom | tr -d " " | tr a-f A-F)

# Says what it printed only if it failed.
quietly() {
    "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }
}
# In mounts of its own, which end with it. syslinux wants /proc.
inside() {
    # shellcheck disable=SC2016 # sh expands it
    quietly env -u TMPDIR DEBIAN_FRONTEND=noninteractive unshare --mount sh -c \
        'mount -t proc none "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"' "$root" "$@"
}

install_package() {
    cp "$package" "$root/shunt.deb"
    inside dpkg -i /shunt.deb
    rm "$root/shunt.deb"
}

configure() {
    cp -r --no-target-directory files "$root"
    mkdir -p "$root/boot/efi" "$root/var/log/journal" "$root/etc/systemd/system-generators"
    echo shunt >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 shunt\n' >"$root/etc/hosts"
    cat >"$root/etc/fstab" <<EOF
UUID=$uuid / ext4 noatime,x-systemd.growfs 0 1
UUID=${boot_id:0:4}-${boot_id:4:4} /boot/efi vfat umask=0077,nofail 0 2
EOF
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
    rm -f "$root/etc/.resolv.conf.systemd-resolved.bak"
    # Each box has its own.
    : >"$root/etc/machine-id"
    rm -f "$root"/etc/ssh/ssh_host_*
    systemctl --quiet --root="$root" enable shunt-configure systemd-networkd systemd-resolved \
        systemd-timesyncd 2>"$work/said" || { cat "$work/said" >&2; return 1; }
    # Nobody logs in by a virtual socket.
    ln -s /dev/null "$root/etc/systemd/system-generators/systemd-ssh-generator"
    # A NIC that leads nowhere is no reason to wait.
    systemctl --quiet --root="$root" mask systemd-networkd-wait-online
}

# Both boot loaders read the one FAT partition, which also carries the configuration.
make_boot() {
    local boot=$root/boot/efi arguments
    arguments="root=UUID=$uuid ro console=tty0 console=ttyS0,115200 loglevel=4 ${ARGUMENTS:-}"
    inside /usr/lib/shunt-appliance/boot-partition
    install -D "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$boot/EFI/BOOT/BOOTX64.EFI"
    mkdir -p "$boot/loader/entries" "$boot/shunt/network"
    echo "timeout 0" >"$boot/loader/loader.conf"
    printf '%s\n' "title Shunt" "linux /vmlinuz" "initrd /initrd" "options $arguments" >"$boot/loader/entries/shunt.conf"
    cp "$root/usr/lib/syslinux/modules/bios/ldlinux.c32" "$boot/"
    printf '%s\n' "SERIAL 0 115200" "DEFAULT shunt" "LABEL shunt" "LINUX /vmlinuz" "INITRD /initrd" "APPEND $arguments" \
        >"$boot/syslinux.cfg"
    cp README.txt "$boot/shunt/"
    cp ../config/shunt.toml "$boot/shunt/shunt.toml.example"
    [ -z "$configuration" ] || cp -r --no-target-directory "$configuration" "$boot/shunt"

    truncate -s ${boot_mb}M "$root/tmp/boot"
    inside mkfs.vfat -F 32 -n SHUNT -i "$boot_id" -h 2048 /tmp/boot
    inside sh -c 'mcopy -s -i /tmp/boot /boot/efi/* ::/'
    inside syslinux --install /tmp/boot
    mv "$root/tmp/boot" "$work/boot"
    find "$boot" -mindepth 1 -delete
}

# Sectors of 512 bytes; a MiB before the first partition and one after the last.
make_disk() {
    local disk=$root/tmp/disk
    truncate -s $((boot_mb + root_mb + 2))M "$disk"
    quietly chroot "$root" sfdisk --label gpt /tmp/disk <<EOF
start=2048, size=${boot_mb}MiB, type=uefi, name=boot, attrs=LegacyBIOSBootable
size=${root_mb}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root
EOF
    mv "$disk" "$work/disk"
    put "$root/usr/lib/syslinux/mbr/gptmbr.bin" 0
    put "$work/boot" 1
    truncate -s ${root_mb}M "$work/root.ext4"
    mke2fs -q -t ext4 -U "$uuid" -L shunt -d "$root" "$work/root.ext4"
    put "$work/root.ext4" $((1 + boot_mb))
}
put() { # FILE MIB
    dd if="$1" of="$work/disk" bs=1M seek="$2" conv=notrunc,sparse status=none
}

./root.sh
mkdir "$root"
tar -xf "$(root_tar)" -C "$root"
install_package
configure
[ -z "$overlay" ] || cp -r --no-target-directory "$overlay" "$root"
make_boot
make_disk
mv "$work/disk" "$out"
echo "made $out, $((boot_mb + root_mb + 2)) MiB"
