# shellcheck shell=bash
# What an upgrade of the package costs while packets come; sourced by inside.sh, with compare.sh.
#
# shellcheck disable=SC2154 # compare.sh has pktgen

rate=1000 # packets/s

sent() { ip netns exec client sed -n 's/^ *pkts-sofar: *\([0-9]*\).*/\1/p' "$pktgen/eth1"; }
# Other packets come to that NIC, too.
sunk() { tc -n rack -s filter show dev eth2 ingress | awk '/Sent .* bytes/ { sum += $4 } END { print sum + 0 }'; }
is_upgraded() { [[ $(dpkg-query --show --showformat='${Version}' shunt) == *+again ]]; }

# The generator counts what it sent, the backends' NIC what came; a download goes on meanwhile.
upgrade() {
    local before lost began took download
    dd if=/dev/zero of=/srv/b1/large bs=1M count=8 status=none
    cp /srv/b1/large /srv/b2/large
    cp /srv/b1/large /srv/b3/large
    aim "$(mac eth0)" 10.0.1.100 $rate
    before=$(sunk)
    ip netns exec client curl --silent --show-error --limit-rate 200k --output /dev/null --write-out '%{size_download}' \
        http://10.0.1.100/large >/tmp/download 2>&1 &
    download=$!
    client_says pgctrl start &
    pause 3
    began=$(microseconds)
    check "dpkg --install of a later version" dpkg --install /opt/test/again.deb
    check "the new version is installed" is_upgraded
    check "lbctl status is healthy" wait_for lbctl status
    took=$((($(microseconds) - began) / 1000))
    pause 3
    client_says pgctrl stop
    wait $!
    pause 1
    lost=$(($(sent) - ($(sunk) - before)))
    wait $download
    check "a download that began before went on to its end" grep -qx $((8 << 20)) /tmp/download
    say "upgrade: dpkg took $took ms until healthy; $lost of $(sent) packets were lost at $rate packets/s: $((lost * 1000 / rate)) ms"
    check "packets came again after it" test "$lost" -lt $(($(sent) / 2))
}
