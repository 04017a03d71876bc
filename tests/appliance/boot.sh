#!/bin/bash
# Boots a disk image that deploy/image made, on an emulated CPU (no KVM needed), by the machine's firmware as a real one
# does, and prints its serial console. Three igb NICs (Intel 82576, eight queues) hang on one hub: eth0 is Shunt's, the
# others may be clients and backends in namespaces of their own. Ends when the guest powers off or reboots.
#
#   tests/appliance/boot.sh IMAGE
#
# MEMORY=2048 (MB), CPUS=2, NICE=0. FIRMWARE=uefi instead of a BIOS.
set -euo pipefail
image=$(realpath "$1")
cd "$(dirname "$0")"
. ./common.sh

nics=()
for number in 0 1 2; do
    # Its virtual functions need the places beside it, so each has a port of its own.
    nics+=(-device "pcie-root-port,id=port$number,chassis=$((number + 1))" -netdev "hubport,hubid=1,id=n$number")
    nics+=(-device "igb,bus=port$number,netdev=n$number,mac=52:54:00:00:00:1$number,romfile=")
done
# These packages were unpacked, so each is told where the others are.
files=$CACHE/qemu/usr
export LD_LIBRARY_PATH=$files/lib/x86_64-linux-gnu
firmware=()
[ "${FIRMWARE:-bios}" = bios ] || firmware=(-bios "$files/share/ovmf/OVMF.fd")

exec nice -n "${NICE:-0}" "$files/bin/qemu-system-x86_64" \
    -L "$files/share/qemu" -L "$files/share/seabios" "${firmware[@]}" \
    -accel tcg -M q35 -smp "${CPUS:-2}" -m "${MEMORY:-2048}" -cpu max \
    -nodefaults -no-user-config -nographic -vga none -serial stdio -monitor none -no-reboot \
    -drive "file=$image,format=raw,if=virtio,cache=unsafe" \
    "${nics[@]}" </dev/null
