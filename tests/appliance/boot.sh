#!/bin/bash
# Boots what image.sh made, on an emulated CPU (no KVM needed), and prints its serial console. Three igb NICs (Intel
# 82576, eight queues) hang on one hub: eth0 is Shunt's, the others may be clients and backends in namespaces of their
# own. Ends when the guest powers off.
#
#   tests/appliance/boot.sh DIRECTORY [KERNEL-ARGUMENT…]
#
# MEMORY=2048 (MB), CPUS=2, NICE=0.
set -euo pipefail
out=$(realpath "$1")
shift
cd "$(dirname "$0")"
. ./common.sh

nics=()
for number in 0 1 2; do
    # Its virtual functions need the places beside it, so each has a port of its own.
    nics+=(-device "pcie-root-port,id=port$number,chassis=$((number + 1))" -netdev "hubport,hubid=1,id=n$number")
    nics+=(-device "igb,bus=port$number,netdev=n$number,mac=52:54:00:00:00:1$number,romfile=")
done

# The QEMU was unpacked, so it is told where its files are; firmware that its packages lack is this Debian's.
exec nice -n "${NICE:-0}" "$CACHE/qemu/usr/bin/qemu-system-x86_64" \
    -L "$CACHE/qemu/usr/share/qemu" -L /usr/share/seabios -L /usr/share/qemu \
    -accel tcg -M q35 -smp "${CPUS:-2}" -m "${MEMORY:-2048}" -cpu max \
    -nodefaults -no-user-config -nographic -vga none -serial stdio -monitor none -no-reboot \
    -kernel "$out/vmlinuz" -initrd "$out/initrd" \
    -drive "file=$out/disk.ext4,format=raw,if=virtio,cache=unsafe" \
    "${nics[@]}" \
    -append "console=ttyS0 net.ifnames=0 loglevel=4 systemd.show_status=no $*" </dev/null
