# shellcheck shell=bash
# What the scripts beside this file share; sourced by them.

# Where what was fetched is kept.
CACHE=${CACHE:-$HOME/.cache/shunt/appliance}
export CACHE

# With a kernel that has zero-copy for igb, which came with Linux 6.14: the one of backports.
# shellcheck disable=SC2034 # the scripts use these
release=trixie
# shellcheck disable=SC2034
mirror=${MIRROR:-http://deb.debian.org/debian}
# shellcheck disable=SC2034
security=${MIRROR_SECURITY:-http://deb.debian.org/debian-security}

packages=(
    # Boots, by BIOS and by UEFI.
    "linux-image-amd64/$release-backports" initramfs-tools zstd e2fsprogs dosfstools fdisk mtools syslinux
    syslinux-common systemd-boot-efi
    # Runs.
    systemd systemd-sysv systemd-resolved systemd-timesyncd systemd-repart udev dbus kmod
    # What the programs are linked with.
    libelf1t64 zlib1g libgcc-s1 ca-certificates
    # For who logs in.
    openssh-server iproute2 ethtool iputils-ping iputils-arping tcpdump curl procps less nano
)
# More of them: EXTRA_PACKAGES="ipvsadm busybox-static".
read -ra extra <<<"${EXTRA_PACKAGES:-}"
packages+=("${extra[@]}")

# The root that these make, without Shunt: with what Debian had this month.
root_tar() {
    local made_of
    made_of=$({ echo "${packages[@]}" && cat root.sh; } | sha256sum | cut -c1-12)
    echo "$CACHE/root-$release-$(date +%Y-%m)-$made_of.tar"
}

# What make package made.
newest_package() {
    local built
    # shellcheck disable=SC2012 # cargo deb's names have no blanks
    built=$(ls -t "${CARGO_TARGET_DIR:-../../target}"/debian/shunt_*.deb 2>/dev/null | head -n 1)
    [ -n "$built" ] || { echo "$0: there is no Debian package; make package builds it" >&2; return 1; }
    realpath "$built"
}
