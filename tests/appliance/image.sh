#!/bin/bash
# Makes a disk image of a small Debian with the kernel's modules, Shunt's programs and its systemd units, and an
# initramfs that mounts it. Run as root, after fetch.sh.
#
#   tests/appliance/image.sh DIRECTORY [OVERLAY]
#
# Leaves DIRECTORY/disk.ext4, DIRECTORY/initrd and DIRECTORY/vmlinuz. OVERLAY is copied over the root.
set -euo pipefail
out=$(realpath -m "$1")
overlay=${2:+$(realpath "$2")}
cd "$(dirname "$0")"
. ./common.sh

units=../../deploy/systemd
version=$(kernel_version)
modules=$CACHE/kernel/usr/lib/modules/$version
mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

copy_modules() {
    local to=$root/usr/lib/modules/$version part
    mkdir -p "$to/kernel/drivers"
    for part in crypto fs lib net; do
        cp -r "$modules/kernel/$part" "$to/kernel/"
    done
    for part in net block i2c dca ptp pps virtio; do
        [ ! -d "$modules/kernel/drivers/$part" ] || cp -r "$modules/kernel/drivers/$part" "$to/kernel/drivers/"
    done
    # Neither its list of what is built in nor its order of modules is in these packages.
    depmod -b "$root" "$version" 2>/dev/null
}

# What a package would install.
install_shunt() {
    local program
    for program in shunt-dataplane shunt-controlplane nic-config lbctl; do
        strip -o "$work/$program" "$PROGRAMS/$program"
        install -D -m 0755 "$work/$program" "$root/usr/bin/$program"
    done
    install -D -m 0644 -t "$root/usr/lib/systemd/system" $units/*.service $units/*.target
    install -D -m 0644 $units/sysusers.conf "$root/usr/lib/sysusers.d/shunt.conf"
    install -D -m 0644 $units/tmpfiles.conf "$root/usr/lib/tmpfiles.d/shunt.conf"
    systemd-sysusers --root="$root" 2>"$work/said" || { cat "$work/said" >&2; return 1; }
    systemctl --quiet --root="$root" enable shunt.target 2>/dev/null
}

# Serial console, names of NICs as the kernel gives them, a log that survives the test's reboot.
configure() {
    echo shunt >"$root/etc/hostname"
    echo "/dev/vda / ext4 rw,noatime 0 1" >"$root/etc/fstab"
    : >"$root/etc/machine-id"
    passwd --quiet --root "$root" --delete root
    mkdir -p "$root/var/log/journal"
}

make_initrd() {
    local initrd=$work/initrd name path
    mkdir -p "$initrd/bin" "$initrd/modules" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/root"
    cp "$root/bin/busybox" "$initrd/bin/busybox"
    for name in virtio_blk ext4; do
        modprobe -d "$root" -S "$version" --show-depends "$name" | awk '$1 == "insmod" { print $2 }' |
            while read -r path; do
                xz -dc "$path" >"$initrd/modules/$(basename "$path" .xz)"
                basename "$path" .xz >>"$initrd/modules/order"
            done
    done
    cat >"$initrd/init" <<'EOF'
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t devtmpfs none /dev
for module in $($busybox cat /modules/order); do $busybox insmod /modules/$module; done
$busybox mount -t ext4 /dev/vda /root || exec $busybox sh
$busybox mount -o move /dev /root/dev
exec $busybox switch_root /root /sbin/init
EOF
    chmod +x "$initrd/init"
    (cd "$initrd" && find . | cpio --quiet -o -H newc) >"$out/initrd"
}

mkdir "$root"
tar -xf "$CACHE/root.tar" -C "$root"
copy_modules
configure
install_shunt
[ -z "$overlay" ] || cp -r --no-target-directory "$overlay" "$root"
make_initrd
cp "$modules/vmlinuz.unsigned" "$out/vmlinuz"
rm -f "$out/disk.ext4"
mke2fs -q -t ext4 -d "$root" "$out/disk.ext4" 1500M
