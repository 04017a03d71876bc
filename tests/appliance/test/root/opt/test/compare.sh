# shellcheck shell=bash
# The same load by way of Shunt and of IPVS, one after the other, on the same NICs; sourced by inside.sh.
#
# The kernel's packet generator sends UDP from random ports; what reaches the backends' NIC is counted and dropped there.
# All of it runs on the same emulated CPUs. So what is busy without a load is taken off, and what generator and sink take
# is measured too, with nothing between.

slow=1500       # packets/s at which CPU is measured
seconds=6
pktgen=/proc/net/pktgen

client_says() { # FILE LINE…
    local line
    for line in "${@:2}"; do printf 'echo "%s" >%s\n' "$line" "$pktgen/$1"; done | ip netns exec client bash
}
mac() { cat "/sys/class/net/$1/address"; }

# Aims the generator; without a rate, as fast as it can.
aim() { # MAC ADDRESS RATE
    client_says kpktgend_1 rem_device_all "add_device eth1"
    client_says eth1 "count 0" "pkt_size 60" "dst_mac $1" "dst $2" "src_min 10.0.1.2" "src_max 10.0.1.2" \
        "udp_dst_min 9" "udp_dst_max 9" "udp_src_min 1024" "udp_src_max 65535" "flag UDPSRC_RND" ${3:+"ratep $3"}
}

arrived() { ip netns exec rack cat /sys/class/net/eth2/statistics/rx_packets; }
# In hundredths of a second, of all CPUs: user, nice, system, interrupts, soft interrupts.
busy() { awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }
microseconds() { echo "${EPOCHREALTIME/./}"; }

# Sets `packets` (per second) and `ticks` (hundredths of a second of CPU) of some seconds.
watch() {
    local time
    packets=$(arrived) ticks=$(busy) time=$(microseconds)
    pause $seconds
    time=$(($(microseconds) - time)) ticks=$(($(busy) - ticks)) packets=$(($(arrived) - packets))
    packets=$((packets * 1000000 / time))
}
# The same once what was aimed is in full swing.
run() {
    client_says pgctrl start &
    pause 2
    watch
    client_says pgctrl stop
    wait $!
}

declare -A fastest cost
measure() { # WHAT MAC ADDRESS
    local packets ticks idle
    watch
    idle=$ticks
    aim "$2" "$3" ""
    run
    fastest[$1]=$packets
    aim "$2" "$3" $slow
    run
    cost[$1]=$((packets ? (ticks - idle) * 10000 / (packets * seconds) : 0))
    say "$1: $((idle / seconds)) % of a CPU without load; at most ${fastest[$1]} packets/s; at $packets packets/s $((ticks / seconds)) % of a CPU"
    [ "$packets" -ge $((slow * 8 / 10)) ] || fail "$1: $packets of $slow packets/s arrived"
}

# What makes the load. What the backends' NIC gets of it is counted and dropped: plain UDP, and UDP inside IPv4.
load() {
    modprobe -a pktgen ip_vs ip_vs_mh ipip || { fail "a module is missing"; return 1; }
    tc -n rack qdisc add dev eth2 clsact
    tc -n rack filter add dev eth2 ingress protocol ip u32 match u8 17 0xff at 9 action drop
    tc -n rack filter add dev eth2 ingress protocol ip u32 match u8 4 0xff at 9 match u8 17 0xff at 29 action drop
}

# Maglev hashing over addresses and ports, as Shunt does.
ipvs() { # VIP WAY
    ip address add "$1/32" dev eth0
    ipvsadm --add-service --udp-service "$1:9" --scheduler mh --sched-flags mh-port
    for number in 1 2 3; do
        ipvsadm --add-server --udp-service "$1:9" --real-server "10.0.1.1$number:9" "$2"
    done
}

compare() {
    local what direct
    measure "Shunt, DR" "$(mac eth0)" 10.0.1.100
    measure "Shunt, ipip" "$(mac eth0)" 10.0.1.101
    check "shunt.target stops" systemctl stop shunt.target
    check "both daemons are gone" wait_for refused pgrep shunt-
    direct=$(ip netns exec b1 cat /sys/class/net/m1/address)
    measure "nothing between" "$direct" 10.0.1.100
    ipvs 10.0.1.100 --gatewaying
    ipvs 10.0.1.101 --ipip
    measure "IPVS, DR" "$(mac eth0)" 10.0.1.100
    measure "IPVS, TUN" "$(mac eth0)" 10.0.1.101
    says "IPVS" ipvsadm --list --numeric --stats
    for what in "nothing between" "Shunt, DR" "IPVS, DR" "Shunt, ipip" "IPVS, TUN"; do
        say "$(printf '%-16s %6d packets/s at most, %4d µs of CPU for each packet beyond generator and sink' \
            "$what" "${fastest[$what]}" $((cost[$what] - cost["nothing between"])))"
    done
    say "(The CPU is emulated and its clock is not a real one's: both work, and these numbers say little about which is faster.)"
}
