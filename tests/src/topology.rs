//! The network around the load balancer. Every box is a network namespace, every line a veth pair, every
//! link carries IPv4 and IPv6.
//!
//! Two arms:
//! ```text
//!               front 10.77.1.0/24                back 10.77.2.0/24                far 10.77.3.0/24
//!               fd77:1::/64, MTU 1500             fd77:2::/64, MTU 1600            fd77:3::/64, MTU 1600
//!
//!   client ─────────┬── front ── lb ── back ──────────┬───┬── dr1 .101
//!   .10 .11         │   .1             .1             │   ├── dr2 .102
//!                   │                                 │   └── …
//!                   │                                 │                       ┌── far1 .101
//!                   └────────── front ── router ── back        router ── far ─┼── far2 .102
//!                               .254               .254                  .254 └── …
//! ```
//! One arm: the client sits on `back` too, and there is no `front`.
//!
//! The lines are bridges in a namespace of their own, `switch`. The client reaches the VIPs by a static
//! route to the load balancer; no box but the backends owns a VIP, and these have it on `lo` and never
//! answer ARP or neighbour discovery for it. Replies go from the backends to the client directly or through
//! the router, never through the load balancer (direct server return). The `dr` backends are on the load
//! balancer's segment; the `far` ones behind the router take packets out of IP-in-IP tunnels. The back and
//! far segments carry 1600 bytes so that a client's 1500 fit into a tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decapsulator::Decapsulator;
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::run::Run;

mod wiring;

pub use wiring::NODE_NIC;

/// NICs of the load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Clients and backends on one.
    One,
    /// Clients on `front`, backends on `back`.
    Two,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Shape {
    /// NICs of the load balancer.
    pub arms: Arms,
    /// Receive and transmit queues of its NICs; the switch spreads flows over them.
    pub queues: u32,
    /// Backends on the load balancer's segment.
    pub dr: usize,
    /// Backends behind the router.
    pub far: usize,
    /// Addresses that every backend owns on `lo` and the client routes to the load balancer.
    pub vips: Vec<IpAddr>,
}

/// A network segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Between clients and load balancer.
    Front = 1,
    /// Between load balancer, its L2 neighbours and the router.
    Back = 2,
    /// Behind the router.
    Far = 3,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Node {
    /// `dr1`, `far1`, …
    pub name: String,
    /// Where its servers run.
    pub namespace: Namespace,
    /// Its own address.
    pub v4: Ipv4Addr,
    /// Its own address.
    pub v6: Ipv6Addr,
}

/// A built network; dropping it removes it.
pub struct Topology {
    /// Owner of all namespaces.
    pub run: Run,
    /// As asked for.
    pub shape: Shape,
    /// The clients' box.
    pub client: Namespace,
    /// The box under test.
    pub lb: Namespace,
    /// On the way to the far backends, and back from all backends to the client.
    pub router: Namespace,
    /// The bridges.
    pub switch: Namespace,
    /// Backends on the load balancer's segment.
    pub dr: Vec<Node>,
    /// Backends behind the router.
    pub far: Vec<Node>,
    /// Programs of the far backends, in their order.
    pub decapsulators: Vec<Decapsulator>,
}

impl Segment {
    /// As its bridge and the NICs of load balancer and router are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
            Self::Far => "far",
        }
    }

    /// IPv4 address of a host on it.
    pub fn v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self as u8, host)
    }

    /// IPv6 address of a host on it: the same number in decimal digits, so that `.254` is `::254`.
    pub fn v6(self, host: u8) -> Ipv6Addr {
        let digits = u16::from_str_radix(&host.to_string(), 16).unwrap_or_default();
        Ipv6Addr::new(0xfd77, self as u16, 0, 0, 0, 0, 0, digits)
    }

    /// Address of a host on it in the family of `like`.
    pub fn host_like(self, like: IpAddr, host: u8) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.v4(host).into(),
            IpAddr::V6(_) => self.v6(host).into(),
        }
    }
}

/// Host number of the load balancer.
pub const LB: u8 = 1;
/// Host numbers of the client.
pub const CLIENTS: [u8; 2] = [10, 11];
/// Host number of the router.
pub const ROUTER: u8 = 254;

impl Topology {
    /// Builds it and attaches the decapsulating program to the far backends.
    pub fn build(shape: Shape) -> Result<Self> {
        Self::build_in(Run::new()?, shape)
    }

    /// Builds it in a run made before.
    pub fn build_in(run: Run, shape: Shape) -> Result<Self> {
        let dr_names: Vec<_> = (1..=shape.dr).map(|n| format!("dr{n}")).collect();
        let far_names: Vec<_> = (1..=shape.far).map(|n| format!("far{n}")).collect();
        let fixed = ["client", "lb", "router", "switch"];
        let nodes = dr_names.iter().chain(&far_names).map(String::as_str);
        let mut namespaces = run.namespaces(fixed.into_iter().chain(nodes))?.into_iter();
        let mut next = || {
            let namespace = namespaces.next();
            namespace.ok_or_else(|| Error::Wrong("fewer namespaces than asked for".to_owned()))
        };
        let (client, lb, router, switch) = (next()?, next()?, next()?, next()?);
        let mut backends = |names: Vec<String>, segment: Segment| -> Result<Vec<Node>> {
            let numbered = names.into_iter().zip(101u8..);
            let node = |(name, host)| {
                Ok(Node { name, namespace: next()?, v4: segment.v4(host), v6: segment.v6(host) })
            };
            numbered.map(node).collect()
        };
        let dr = backends(dr_names, Segment::Back)?;
        let far = backends(far_names, Segment::Far)?;
        let mut built = Self { run, shape, client, lb, router, switch, dr, far, decapsulators: Vec::new() };
        wiring::wire(&built)?;
        let attached = built.far.iter().map(|node| Decapsulator::attach(&node.namespace, wiring::NODE_NIC));
        built.decapsulators = attached.collect::<Result<_>>()?;
        Ok(built)
    }

    /// Segment the client is on.
    pub fn client_segment(&self) -> Segment {
        match self.shape.arms {
            Arms::One => Segment::Back,
            Arms::Two => Segment::Front,
        }
    }

    /// NICs of the load balancer that Shunt serves.
    pub fn lb_nics(&self) -> Vec<&'static str> {
        match self.shape.arms {
            Arms::One => vec![Segment::Back.name()],
            Arms::Two => vec![Segment::Front.name(), Segment::Back.name()],
        }
    }

    /// The load balancer's own address that the client sees, in the family of `like`.
    pub fn lb_address(&self, like: IpAddr) -> IpAddr {
        self.client_segment().host_like(like, LB)
    }

    /// The client's addresses in the family of `like`.
    pub fn client_addresses(&self, like: IpAddr) -> [IpAddr; 2] {
        CLIENTS.map(|host| self.client_segment().host_like(like, host))
    }

    /// Removes the load balancer's NIC on a segment, as if somebody pulled the card.
    pub fn unplug_lb(&self, segment: Segment) -> Result<()> {
        self.lb.ip(&format!("link del {}\n", segment.name()))
    }

    /// Makes the switch lose what it sends to a node in packets of more than so many bytes, without a word.
    pub fn lose_large_packets(&self, node: &Node, limit: u32) -> Result<()> {
        let segment =
            if self.dr.iter().any(|dr| dr.name == node.name) { Segment::Back } else { Segment::Far };
        self.switch.ip(&format!("link set {}-{} mtu {limit}\n", segment.name(), node.name))
    }

    /// Puts it back: a new NIC of the old name, with the old addresses and routes.
    pub fn plug_lb(&self, segment: Segment) -> Result<()> {
        wiring::plug_lb(self, segment)
    }

    /// Connects another box as the load balancer is: to the same segments, by NICs of the same names.
    pub fn plug_box(&self, namespace: &Namespace, role: &str, host: u8) -> Result<()> {
        wiring::plug_box(self, namespace, role, host)
    }

    /// Makes all NICs and the switch of a segment carry IP packets of so many bytes.
    pub fn set_mtu(&self, segment: Segment, mtu: u32) -> Result<()> {
        wiring::set_mtu(self, segment, mtu)
    }

    /// All backends.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.dr.iter().chain(&self.far)
    }

    /// What the decapsulating programs of all far backends counted, summed.
    pub fn decapsulated(&self) -> Result<crate::decapsulator::Decapsulated> {
        let counted = self.decapsulators.iter().map(Decapsulator::decapsulated);
        counted.sum::<Result<_>>()
    }
}

impl Node {
    /// Its own address in the family of `like`.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }

    /// Lets it send packets as they are on a real wire: with their checksums, none larger than the MTU. Needed
    /// where they come to an AF_XDP socket, which gets them as they left the sender, or to a router that looks
    /// at their size.
    pub fn finish_own_packets(&self) -> Result<()> {
        self.namespace.run("ethtool", wiring::FINISHED).map(drop)
    }
}
