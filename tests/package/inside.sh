#!/bin/bash
# What test.sh does in namespaces of its own.
#
#   tests/package/inside.sh ROOT      a Debian, with the packages /tmp/shunt.deb and, of a higher version, /tmp/again.deb
#
# shellcheck disable=SC2317,SC2016 # functions are called by check and wait_for; dpkg-query's own variables
set -euo pipefail
cd "$(dirname "$0")"
root=$1
vip=10.0.1.100

fail() {
    echo "FAILED: $*"
    exit 1
}
check() { # WHAT COMMAND…
    local said
    said=$("${@:2}" 2>&1) || fail "$1: $said"
    echo "ok: $1"
}
not() { ! "$@" >/dev/null 2>&1; }

# Until a command succeeds, for half a minute at most.
wait_for() {
    local until=$((SECONDS + 30))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || { "$@"; return 1; }
        read -rt 0.05 <> <(:) || true
    done
}

# As dpkg would have it. Nobody is there to answer questions.
within() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@" </dev/null; }
# A SYN that is lost is not waited for.
fetch() {
    ip netns exec client curl --silent --show-error --connect-timeout 0.1 --max-time 2 "http://$vip/"
}

mounts() {
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /run # names of network namespaces
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t bpf bpf "$root/sys/fs/bpf"
    mount -t tmpfs tmpfs "$root/run"
    mount --rbind /dev "$root/dev"
}

# A segment with this box (eth1), a client and a backend for direct routing.
wire() {
    local name address
    ip link set lo up
    ip netns add switch
    ip -n switch link add bridge up type bridge
    for name in box client backend; do
        ip link add eth1 type veth peer name "$name" netns switch
        ip -n switch link set "$name" up master bridge
        case $name in
            box) address=10.0.1.1 ;;
            client) address=10.0.1.2 ;;
            backend) address=10.0.1.11 ;;
        esac
        if [ $name = box ]; then
            ip link set eth1 name nic1
            ip address add $address/24 dev nic1
            ip address add fd00:1::1/64 dev nic1 nodad # checks of the IPv6 VIP come from it
            ip link set nic1 up
            continue
        fi
        ip netns add $name
        ip link set eth1 netns $name
        ip -n $name link set lo up
        ip -n $name address add $address/24 dev eth1
        ip -n $name link set eth1 up
        ip netns exec $name ethtool -K eth1 tx off >/dev/null
    done
    ip -n client route add $vip via 10.0.1.1
    ip netns exec backend sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    ip -n backend address add $vip/32 dev lo
    mkdir -p /run/web
    echo "from the backend" >/run/web/index.html
    ip netns exec backend busybox httpd -p 80 -h /run/web
}

files() { (cd "$root" && find . -xdev ! -path './tmp/*' | sort); }

installs() {
    check "dpkg -i" within dpkg -i /tmp/shunt.deb
    check "it is installed" test "$(within dpkg-query -W -f '${db:Status-Status}' shunt)" = installed
    check "dpkg --verify finds all as packed" test -z "$(within dpkg --verify shunt)"
    check "all belongs to root" test -z "$(within dpkg -L shunt | sed "s,^,$root," | xargs -d '\n' stat -c '%U:%G %n' | grep -v '^root:root ')"
    check "both files of /etc/shunt are conffiles" test "$(within dpkg-query -W -f '${Conffiles}\n' shunt | grep -c /etc/shunt/)" = 2
    for name in shunt shunt-daemons shunt-dataplane shunt-controlplane; do
        check "group $name" within getent group $name
    done
    for name in shunt-dataplane shunt-controlplane; do
        check "user $name has no shell" grep -q '/nologin$' <(within getent passwd $name)
    done
    check "nothing is enabled" not within systemctl is-enabled shunt.target
    check "nic-config --help" within nic-config --help
    check "lbctl --version" grep -q '^lbctl [0-9]' <(within lbctl --version)
    check "the example configuration is valid" within lbctl validate /etc/shunt/shunt.toml
    check "nic.toml asks for nothing" within nic-config apply
}

reads_well() {
    local page said pages
    pages=("$root"/usr/share/man/man8/{lbctl,nic-config,shunt-}*)
    for page in "${pages[@]}"; do
        said=$(man --warnings --local-file --encoding=UTF-8 "$page" 2>&1 >/dev/null) || fail "$page: $said"
        [ -z "$said" ] || fail "$page: $said"
    done
    echo "ok: man understands all ${#pages[@]} pages"
    for page in lbctl nic-config shunt-controlplane shunt-dataplane; do
        check "bash understands the completion of $page" bash -n "$root/usr/share/bash-completion/completions/$page"
        check "$page has a page" test -e "$root/usr/share/man/man8/$page.8.gz"
    done
}

value() { sed -n "s/^$2=//p" "$root/usr/lib/systemd/system/$1.service"; } # UNIT KEY

# What systemd would do, so far as it matters to whether the programs work: user, groups, capabilities, directories.
start() {
    local unit=$1 capabilities program
    capabilities=$(value "$unit" AmbientCapabilities | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
    # Not every container may raise that limit.
    if [ -n "$(value "$unit" LimitMEMLOCK)" ]; then capabilities+=,+ipc_lock; fi
    within systemd-tmpfiles --create shunt.conf
    install -d -m 0700 -o "$(within id -u shunt-controlplane)" "$root/var/lib/shunt"
    mountpoint -q "$root/run/shunt/bpf" || mount --bind "$root/sys/fs/bpf/shunt" "$root/run/shunt/bpf"
    read -ra program < <(value "$unit" ExecStart)
    chroot "$root" setpriv \
        --reuid="$(value "$unit" User)" --regid="$(value "$unit" Group)" \
        --groups="$(value "$unit" Group),$(value "$unit" SupplementaryGroups | tr ' ' ,)" \
        --inh-caps="-all,$capabilities" --ambient-caps="-all,$capabilities" --bounding-set="-all,$capabilities" \
        --no-new-privs "${program[@]}" </dev/null >>"$root/tmp/$unit.log" 2>&1 &
    pids[$unit]=$!
}
end() { # UNIT SIGNAL
    kill "-$2" "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
}

works() {
    cp shunt.toml nic.toml "$root/etc/shunt/"
    check "nic-config apply" within nic-config apply
    check "it has set what the file says" test "$(sysctl -n net.core.somaxconn)" = 777
    start shunt-dataplane
    start shunt-controlplane
    check "lbctl status is healthy" wait_for within lbctl status
    within lbctl status
    check "a request is answered" wait_for fetch
    check "lbctl reload" within lbctl reload
    check "systemctl enable" within systemctl enable shunt.target
}

# The daemons start afresh in the order that postinst asks systemd for.
upgrades() {
    local from to
    check "dpkg -i of a higher version" within dpkg -i /tmp/again.deb
    check "it is installed" grep -q '+again$' <(within dpkg-query -W -f '${Version}\n' shunt)
    check "edited files are kept" diff -r . "$root/etc/shunt" --exclude='*.sh' --exclude='*.md'
    check "what was enabled is" within systemctl is-enabled shunt.target
    check "it serves on" fetch
    end shunt-controlplane TERM
    from=${EPOCHREALTIME/./}
    end shunt-dataplane TERM
    start shunt-dataplane
    start shunt-controlplane
    wait_for fetch
    to=${EPOCHREALTIME/./}
    check "lbctl status is healthy" wait_for within lbctl status
    echo "from the stop of the old dataplane to the first request answered by the new one: $(((to - from) / 1000)) ms"
}

links() { ip -details link show nic1; }
routes() {
    ip route show table 83 2>/dev/null || true
    ip -6 route show table 83 2>/dev/null || true
}
# XDP programs, pins, rules and probe device, routes.
traces() {
    links | grep prog/xdp || true
    find "$root/sys/fs/bpf" -mindepth 1 ! -name '*.debug' # these two are the kernel's
    (ip link; ip rule; ip -6 rule) | grep shunt || true
    routes
}
has_none() { [ -z "$(traces)" ] || { traces; return 1; }; }

removes() {
    end shunt-controlplane TERM
    end shunt-dataplane KILL
    umount "$root/run/shunt/bpf"
    check "an XDP program is left" grep -q prog/xdp <(links)
    check "pins are left" test -n "$(ls "$root/sys/fs/bpf/shunt")"
    check "a rule and the probe device are left" test "$( (ip link; ip rule) | grep -c shunt-probe)" -ge 2
    check "a route of each family is left" test "$(routes | grep -c blackhole)" = 2
    # Somebody else's, which is to stay.
    ip route add blackhole 192.0.2.1 table 83 protocol 90
    check "dpkg -r" within dpkg -r shunt
    check "what is another's is left" ip route delete blackhole 192.0.2.1 table 83 protocol 90
    check "nothing else is left" has_none
    check "NICs and sysctls are as before" test "$(sysctl -n net.core.somaxconn)" != 777
    check "/run/shunt is gone" test ! -e "$root/run/shunt"
    check "the configuration is kept" test -e "$root/etc/shunt/shunt.toml"
}

# Users stay, as do what dpkg, ld.so and systemd-sysusers write down.
purges() {
    check "dpkg -P" within dpkg -P shunt
    local known='/var/(lib/dpkg|log|cache/ldconfig)/|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$'
    local more
    more=$(comm -13 /run/before <(files) | grep -vE "$known" || true)
    [ -z "$more" ] || fail "left after purge: $more"
    echo "ok: no file is left"
}
installs_enables_and_purges() {
    check "dpkg -i" within dpkg -i /tmp/shunt.deb
    check "systemctl enable" within systemctl enable shunt.target
    purges
}

show_logs() { # unless all is well
    local status=$?
    [ $status = 0 ] || tail -n 30 "$root"/tmp/*.log
    exit $status
}

declare -A pids
mounts
wire
files >/run/before
trap show_logs EXIT
echo "── install"
installs
reads_well
echo "── start"
works
echo "── upgrade"
upgrades
echo "── remove"
removes
echo "── purge"
purges
installs_enables_and_purges
