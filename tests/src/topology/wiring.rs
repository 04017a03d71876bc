//! Links, addresses, routes and kernel parameters of a [`Topology`].

use std::fmt::Write;
use std::net::IpAddr;
use std::process::Command;

use super::{Arms, CLIENTS, LB, ROUTER, Segment, Topology};
use crate::command;
use crate::error::Result;
use crate::lifecycle;
use crate::namespace::Namespace;

/// NIC of the client and of every backend.
pub const NODE_NIC: &str = "eth0";

/// What `ethtool` is told so that a box leaves nothing of its packets to hardware.
pub const FINISHED: &[&str] = &["-K", NODE_NIC, "tx", "off", "gso", "off", "gro", "off"];

const CLIENT_MTU: u32 = 1500;
const TUNNEL_MTU: u32 = 1600;

/// Asymmetric paths are the point here, so reverse-path filters are off; addresses are usable at once, so
/// duplicate address detection is off. Scenarios choose ports below 61000, so the kernel chooses above.
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv4/ip_local_port_range", "61000 65535"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];
const ROUTING: &[(&str, &str)] = &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
/// The load balancer forwards by Shunt or not at all.
const NOT_ROUTING: &[(&str, &str)] = &[("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")];
/// A backend owns the VIP but keeps quiet about it on the wire.
const QUIET: &[(&str, &str)] = &[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")];

/// One host's connection to a segment.
struct Attachment<'t> {
    namespace: &'t Namespace,
    role: &'t str,
    nic: &'static str,
    segment: Segment,
    hosts: Vec<u8>,
    mtu: u32,
    queues: u32,
}

/// Connects all namespaces of the topology.
pub fn wire(topology: &Topology) -> Result<()> {
    let attachments = attachments(topology);
    set_parameters(topology)?;
    create_bridges(topology)?;
    plug(topology, &attachments)?;
    set_routes(topology)?;
    // A locally made packet may leave without its checksum or as one packet of 64 KB, for hardware to
    // finish; an AF_XDP socket gets it as it is, unlike from a real NIC. So the client finishes its own.
    topology.client.run("ethtool", FINISHED).map(drop)
}

/// Makes the load balancer's NIC on a segment anew, as it was.
pub fn plug_lb(topology: &Topology, segment: Segment) -> Result<()> {
    let mut attachments = attachments(topology);
    attachments.retain(|attachment| attachment.role == "lb" && attachment.segment == segment);
    plug(topology, &attachments)?;
    if segment == Segment::Back { topology.lb.ip(&lb_routes()) } else { Ok(()) }
}

/// Connects a box as the load balancer is connected.
pub fn plug_box(topology: &Topology, namespace: &Namespace, role: &str, host: u8) -> Result<()> {
    namespace.sysctl(EVERYWHERE)?;
    namespace.sysctl(NOT_ROUTING)?;
    plug(topology, &box_attachments(topology, namespace, role, host))?;
    namespace.ip(&lb_routes())
}

/// Makes all NICs of a segment and the switch's ends of their links carry IP packets of so many bytes.
pub fn set_mtu(topology: &Topology, segment: Segment, mtu: u32) -> Result<()> {
    let attachments = attachments(topology).into_iter().filter(|attachment| attachment.segment == segment);
    attachments.into_iter().try_for_each(|attachment| {
        topology.switch.ip(&format!("link set {} mtu {mtu}\n", port(&attachment)))?;
        attachment.namespace.ip(&format!("link set {} mtu {mtu}\n", attachment.nic))
    })
}

fn plug(topology: &Topology, attachments: &[Attachment<'_>]) -> Result<()> {
    create_links(topology, attachments)?;
    connect_switch(topology, attachments)?;
    attachments.iter().try_for_each(|attachment| attachment.namespace.ip(&addresses(attachment)))
}

fn attachments(topology: &Topology) -> Vec<Attachment<'_>> {
    let mut all = vec![Attachment {
        namespace: &topology.client,
        role: "client",
        nic: NODE_NIC,
        segment: topology.client_segment(),
        hosts: CLIENTS.to_vec(),
        mtu: CLIENT_MTU,
        // A packet that left by queue 1 would be taken for one received on queue 0 by the switch, which then
        // sends it on by queue 0. From a single queue it chooses by the flow's hash, as a NIC does.
        queues: 1,
    }];
    let router = |segment: Segment, mtu| Attachment {
        namespace: &topology.router,
        role: "router",
        nic: segment.name(),
        segment,
        hosts: vec![ROUTER],
        mtu,
        queues: 1,
    };
    all.extend(box_attachments(topology, &topology.lb, "lb", LB));
    if topology.shape.arms == Arms::Two {
        all.push(router(Segment::Front, CLIENT_MTU));
    }
    all.extend([Segment::Back, Segment::Far].map(|segment| router(segment, TUNNEL_MTU)));
    let nodes = [(&topology.dr, Segment::Back), (&topology.far, Segment::Far)];
    for (node, segment) in
        nodes.into_iter().flat_map(|(nodes, segment)| nodes.iter().map(move |n| (n, segment)))
    {
        all.push(Attachment {
            namespace: &node.namespace,
            role: &node.name,
            nic: NODE_NIC,
            segment,
            hosts: vec![node.v4.octets()[3]],
            mtu: TUNNEL_MTU,
            queues: 1,
        });
    }
    all
}

/// Of a box that Shunt runs on.
fn box_attachments<'t>(
    topology: &Topology,
    namespace: &'t Namespace,
    role: &'t str,
    host: u8,
) -> Vec<Attachment<'t>> {
    let to = |(segment, mtu): (Segment, u32)| {
        let (nic, queues) = (segment.name(), topology.shape.queues);
        Attachment { namespace, role, nic, segment, hosts: vec![host], mtu, queues }
    };
    let back = (Segment::Back, TUNNEL_MTU);
    match topology.shape.arms {
        Arms::One => vec![to(back)],
        Arms::Two => vec![to((Segment::Front, CLIENT_MTU)), to(back)],
    }
}

fn set_parameters(topology: &Topology) -> Result<()> {
    let fixed = [&topology.client, &topology.lb, &topology.router, &topology.switch];
    let nodes = topology.nodes().map(|node| &node.namespace);
    fixed.into_iter().chain(nodes).try_for_each(|namespace| namespace.sysctl(EVERYWHERE))?;
    topology.router.sysctl(ROUTING)?;
    topology.lb.sysctl(NOT_ROUTING)?;
    topology.nodes().try_for_each(|node| node.namespace.sysctl(QUIET))
}

fn create_links(topology: &Topology, attachments: &[Attachment<'_>]) -> Result<()> {
    let mut batch = String::new();
    let switch = topology.switch.name();
    for attachment in attachments {
        let Attachment { namespace, nic, queues, .. } = attachment;
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        let _ = writeln!(
            batch,
            "link add {nic} netns {} {queues} type veth peer name {} netns {switch} {queues}",
            namespace.name(),
            port(attachment),
        );
    }
    let _gate = lifecycle::gate();
    command::feed(Command::new("ip").args(["-batch", "-"]), &batch).map(drop)
}

/// Name of the switch's end of a link.
fn port(attachment: &Attachment<'_>) -> String {
    format!("{}-{}", attachment.segment.name(), attachment.role)
}

fn create_bridges(topology: &Topology) -> Result<()> {
    let mut batch = String::new();
    for segment in [Segment::Front, Segment::Back, Segment::Far].map(Segment::name) {
        let _ = writeln!(batch, "link add {segment} type bridge mcast_snooping 0");
        let _ = writeln!(batch, "link set {segment} up");
    }
    topology.switch.ip(&batch)
}

fn connect_switch(topology: &Topology, attachments: &[Attachment<'_>]) -> Result<()> {
    let mut batch = String::new();
    for attachment in attachments {
        let (port, segment) = (port(attachment), attachment.segment.name());
        let _ = writeln!(batch, "link set {port} mtu {} master {segment} up", attachment.mtu);
    }
    topology.switch.ip(&batch)
}

fn addresses(attachment: &Attachment<'_>) -> String {
    let Attachment { nic, mtu, segment, .. } = attachment;
    let mut batch = format!("link set lo up\nlink set {nic} mtu {mtu} up\n");
    for &host in &attachment.hosts {
        let _ = writeln!(batch, "addr add {}/24 dev {nic}", segment.v4(host));
        let _ = writeln!(batch, "addr add {}/64 dev {nic} nodad", segment.v6(host));
    }
    batch
}

/// To the far segment.
fn lb_routes() -> String {
    let (v4, v6) = (Segment::Back.v4(ROUTER), Segment::Back.v6(ROUTER));
    format!("route add 10.77.3.0/24 via {v4}\nroute add fd77:3::/64 via {v6}\n")
}

fn set_routes(topology: &Topology) -> Result<()> {
    let mut batch = String::new();
    for vip in &topology.shape.vips {
        let _ = writeln!(batch, "route add {vip} via {}", topology.lb_address(*vip));
    }
    topology.client.ip(&batch)?;

    topology.lb.ip(&lb_routes())?;

    let nodes = [(&topology.dr, Segment::Back), (&topology.far, Segment::Far)];
    for (node, segment) in
        nodes.into_iter().flat_map(|(nodes, segment)| nodes.iter().map(move |n| (n, segment)))
    {
        let (v4, v6) = (segment.v4(ROUTER), segment.v6(ROUTER));
        let mut batch = format!("route add default via {v4}\nroute add default via {v6}\n");
        for vip in &topology.shape.vips {
            let (bits, flag) = match vip {
                IpAddr::V4(_) => (32, ""),
                IpAddr::V6(_) => (128, "nodad"),
            };
            let _ = writeln!(batch, "addr add {vip}/{bits} dev lo {flag}");
        }
        node.namespace.ip(&batch)?;
    }
    Ok(())
}
