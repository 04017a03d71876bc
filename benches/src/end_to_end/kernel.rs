//! The kernel's own ways: NAT and layer-2 direct server return with nftables.
//!
//! An AF_XDP subject has a core to itself beside the generator's. So that the kernel has, too, the NIC towards the
//! client is polled by a kernel thread on that core ("threaded NAPI") instead of by the generator's core.

use shunt_tests::command;
use shunt_tests::error::{Result, ensure};
use shunt_tests::namespace::Namespace;

use super::network::{
    BACK, BACK_MAC, BACKEND_MAC, BACKENDS, FRONT, LB_BACK, Network, TCP_PORT, UDP_PORT, VIP, sh_inside,
};
use super::{SUBJECT_CORE, pinning};

/// Destination and source of every flow are translated, as by Shunt's mode `nat`.
pub fn start_nat(network: &Network) -> Result<()> {
    let targets = by_hash(BACKENDS.iter());
    network.lb.sysctl(&[("ipv4/ip_forward", "1")])?;
    apply(
        &network.lb,
        &format!(
            "table ip bench {{\n\
             chain in {{ type nat hook prerouting priority dstnat; policy accept;\n\
             ip daddr {VIP} udp dport {UDP_PORT} dnat to jhash ip saddr . udp sport mod 4 map {targets}\n\
             ip daddr {VIP} tcp dport {TCP_PORT} dnat to jhash ip saddr . tcp sport mod 4 map {targets}\n}}\n\
             chain out {{ type nat hook postrouting priority srcnat; policy accept;\n\
             oifname {BACK} snat to {LB_BACK}\n}}\n}}\n"
        ),
    )?;
    poll_on_own_core(network)
}

/// A new destination in the Ethernet header, before the kernel's network stack sees the packet. All backends of
/// this network have one NIC, so all entries of the map are the same; it is looked up nevertheless.
pub fn start_dsr(network: &Network) -> Result<()> {
    let targets = by_hash([BACKEND_MAC; BACKENDS.len()].iter());
    let rule = |protocol: &str, port: u16| {
        format!(
            "ip daddr {VIP} {protocol} dport {port} ether saddr set {BACK_MAC} ether daddr set \
             jhash ip saddr . {protocol} sport mod 4 map {targets} fwd to {BACK}\n"
        )
    };
    apply(
        &network.lb,
        &format!(
            "table netdev bench {{\n\
             chain in {{ type filter hook ingress device {FRONT} priority 0; policy accept;\n{}{}}}\n}}\n",
            rule("udp", UDP_PORT),
            rule("tcp", TCP_PORT)
        ),
    )?;
    poll_on_own_core(network)
}

fn by_hash(targets: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let entries: Vec<String> =
        targets.enumerate().map(|(index, target)| format!("{index} : {target}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

fn apply(namespace: &Namespace, rules: &str) -> Result<()> {
    command::feed(namespace.command("nft").args(["-f", "-"]), rules).map(drop)
}

fn poll_on_own_core(network: &Network) -> Result<()> {
    // Without either XDP or GRO a veth drops the frames that an XDP program redirects to its peer.
    network.lb.run("ethtool", &["-K", FRONT, "gro", "on"])?;
    let before = pinning::polling_threads(FRONT)?;
    sh_inside(&network.lb, &format!("echo 1 > /sys/class/net/{FRONT}/threaded"))?;
    let mut threads = pinning::polling_threads(FRONT)?;
    threads.retain(|thread| !before.contains(thread));
    ensure(!threads.is_empty(), || format!("the kernel started no polling thread for {FRONT}"))?;
    threads.into_iter().try_for_each(|thread| {
        pinning::pin(thread, SUBJECT_CORE)?;
        pinning::prioritise(thread)
    })
}
