//! The network around one subject: three boxes, each a network namespace, and three lines, each a veth pair.
//! Every subject has one of its own, so that all of them stand ready while one is measured.
//!
//! ```text
//!            10.78.1.0/24                    10.78.2.0/24
//!   client ─ eth0 ──── front ─ lb ─ back ──── eth0 ─ backend
//!     .10                .1         .1        .101 … .104
//!     └──────── direct ──────── 10.78.4.0/24 ──────── direct
//!      .1                                             .2
//! ```
//! The backend stands for several, by its addresses. It owns the VIP on `lo`. Its replies to the client go by
//! `direct`, and those to the source of translated flows by the load balancer.

use std::net::Ipv4Addr;
use std::process::Command;

use shunt_api::mac::MacAddress;
use shunt_tests::command;
use shunt_tests::error::{Error, Result};
use shunt_tests::lifecycle;
use shunt_tests::namespace::Namespace;
use shunt_tests::run::Run;
use shunt_tests::topology::{NODE_NIC, Node};

/// What the clients ask.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// UDP port of the service.
pub const UDP_PORT: u16 = 9000;
/// TCP port of the service.
pub const TCP_PORT: u16 = 80;
/// The client's address, also for generated packets.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 10);
/// The load balancer's address that backends see.
pub const LB_BACK: Ipv4Addr = Ipv4Addr::new(10, 78, 2, 1);
/// Where Shunt's translated flows come from.
pub const NAT_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 78, 3, 1);
/// The backend without a load balancer in between.
pub const DIRECT: Ipv4Addr = Ipv4Addr::new(10, 78, 4, 2);
/// The backends' own addresses.
pub const BACKENDS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 78, 2, 101),
    Ipv4Addr::new(10, 78, 2, 102),
    Ipv4Addr::new(10, 78, 2, 103),
    Ipv4Addr::new(10, 78, 2, 104),
];

/// NIC of the load balancer to the client.
pub const FRONT: &str = "front";
/// NIC of the load balancer to the backends.
pub const BACK: &str = "back";

/// Ethernet addresses of the NICs of this name.
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0x53, 0, 0, 1, 10]);
/// See [`FRONT`].
pub const FRONT_MAC: MacAddress = MacAddress([2, 0x53, 0, 0, 1, 1]);
/// See [`BACK`].
pub const BACK_MAC: MacAddress = MacAddress([2, 0x53, 0, 0, 2, 1]);
/// The backend's NIC to the load balancer.
pub const BACKEND_MAC: MacAddress = MacAddress([2, 0x53, 0, 0, 2, 101]);

/// Asymmetric paths are the point here, so reverse-path filters are off; IPv6 would only chatter. Clients use
/// many ports one after the other.
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_local_port_range", "1024 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
];

/// A built network; dropping it removes it.
pub struct Network {
    /// Owner of it all.
    pub run: Run,
    /// Where load comes from.
    pub client: Node,
    /// The box under test.
    pub lb: Namespace,
    /// Where load goes to.
    pub backend: Node,
}

impl Network {
    /// Builds it.
    pub fn build() -> Result<Self> {
        let run = Run::new()?;
        let namespaces = run.namespaces(["client", "lb", "backend"])?;
        let Ok([client, lb, backend]) = <[Namespace; 3]>::try_from(namespaces) else {
            return Err(Error::Wrong("fewer namespaces than asked for".to_owned()));
        };
        let (client, backend) = (node("client", client, CLIENT), node("backend", backend, BACKENDS[0]));
        let network = Self { run, client, lb, backend };
        network.namespaces().try_for_each(|namespace| namespace.sysctl(EVERYWHERE))?;
        network.create_links()?;
        network.configure()?;
        Ok(network)
    }

    /// Lets the backend take in what comes by `direct` on this core, as it does what a load balancer on this core
    /// sends.
    pub fn take_direct_packets_in_on(&self, core: usize) -> Result<()> {
        let set = format!("echo {:x} > /sys/class/net/direct/queues/rx-0/rps_cpus", 1 << core);
        sh_inside(&self.backend.namespace, &set)
    }

    fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        [&self.client.namespace, &self.lb, &self.backend.namespace].into_iter()
    }

    fn create_links(&self) -> Result<()> {
        let (client, lb, backend) =
            (self.client.namespace.name(), self.lb.name(), self.backend.namespace.name());
        let batch = format!(
            "link add {NODE_NIC} netns {client} address {CLIENT_MAC} type veth \
                 peer name {FRONT} netns {lb} address {FRONT_MAC}\n\
             link add {BACK} mtu 1600 netns {lb} address {BACK_MAC} type veth \
                 peer name {NODE_NIC} mtu 1600 netns {backend} address {BACKEND_MAC}\n\
             link add direct netns {client} type veth peer name direct netns {backend}\n"
        );
        let _gate = lifecycle::gate();
        command::feed(Command::new("ip").args(["-batch", "-"]), &batch).map(drop)
    }

    fn configure(&self) -> Result<()> {
        let up = |nics: &[&str]| nics.iter().map(|nic| format!("link set {nic} up\n")).collect::<String>();
        self.lb.ip(&format!(
            "{}addr add 10.78.1.1/24 dev {FRONT}\naddr add {LB_BACK}/24 dev {BACK}\n",
            up(&["lo", FRONT, BACK])
        ))?;
        self.client.namespace.ip(&format!(
            "{}addr add {CLIENT}/24 dev {NODE_NIC}\naddr add 10.78.4.1/24 dev direct\n\
             route add {VIP} via 10.78.1.1\n",
            up(&["lo", NODE_NIC, "direct"])
        ))?;
        let own: String = BACKENDS.iter().map(|own| format!("addr add {own}/24 dev {NODE_NIC}\n")).collect();
        self.backend.namespace.ip(&format!(
            "{}{own}addr add {VIP}/32 dev lo\naddr add {DIRECT}/24 dev direct\n\
             route add 10.78.1.0/24 via 10.78.4.1\nroute add {NAT_SOURCE} via {LB_BACK}\n",
            up(&["lo", NODE_NIC, "direct"])
        ))?;
        // An AF_XDP socket gets packets as they left the sender, so these finish their own.
        self.client.finish_own_packets()?;
        self.backend.finish_own_packets()
    }
}

/// Runs a line of shell that sees the /sys of the namespace.
pub fn sh_inside(namespace: &Namespace, line: &str) -> Result<()> {
    command::run(Command::new("ip").args(["netns", "exec", namespace.name(), "sh", "-c", line])).map(drop)
}

fn node(name: &str, namespace: Namespace, v4: Ipv4Addr) -> Node {
    Node { name: name.to_owned(), namespace, v4, v6: v4.to_ipv6_mapped() }
}
