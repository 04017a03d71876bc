//! What a service in mode `nat` needs besides the other modes: a source for Shunt, the way back to it, and servers
//! at the backends' own addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use shunt_tests::client;
use shunt_tests::echo::Answer;
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::topology::{LB, Node, Segment, Topology};

use crate::stage::ECHO_PORT;

const TABLE: &str = "[nat]\nsources = [\"10.77.5.1\", \"fd77:5::1\"]\n";
/// The same.
const SOURCES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 5, 1)), IpAddr::V6(Ipv6Addr::new(0xfd77, 5, 0, 0, 0, 0, 0, 1))];
/// Where backends listen; the service's own port is [`ECHO_PORT`].
const TARGET: u16 = 30007;
const PORTS: [&str; 2] = ["tcp/7:30007", "udp/7:30007"];

/// Adds a service in mode `nat` for each family of the VIPs with this number, on the `dr` backends.
pub fn serve(settings: &mut Settings, topology: &Topology, number: u8) {
    settings.tables = TABLE;
    let [v4, v6] = vips(number);
    settings.serve("nat-v4", "nat", &topology.dr, like_v4(), (&[v4], &PORTS));
    settings.serve("nat-v6", "nat", &topology.dr, like_v6(), (&[v6], &PORTS));
}

/// Lets the `dr` backends answer Shunt's sources by way of Shunt.
pub fn prepare(topology: &Topology, mtu: u32) -> Result<()> {
    for node in &topology.dr {
        node.finish_own_packets()?;
        let ways = SOURCES.map(|source| {
            let via = Segment::Back.host_like(source, LB);
            format!("route add {source} via {via} mtu {mtu}\n")
        });
        node.namespace.ip(&ways.concat())?;
    }
    Ok(())
}

/// Starts `shunt-echo` at the own addresses of the `dr` backends.
pub fn start_servers(topology: &Topology) -> Result<Vec<Process>> {
    let start = |node: &Node| {
        let at = [like_v4(), like_v6()].map(|like| SocketAddr::new(node.address_like(like), TARGET));
        servers::start_echo_at(&topology.run, &node.namespace, &format!("{}-own", node.name), &at)
    };
    topology.dr.iter().map(start).collect()
}

/// Requests over TCP, each of which has to be answered by a backend that saw Shunt's source as the client.
pub fn request(topology: &Topology, vip: IpAddr, count: u16) -> Result<()> {
    let sources = topology.client_addresses(vip);
    let asked = client::run_inside(&topology.client, || async move {
        let mut answers = Vec::new();
        for source in sources.into_iter().cycle().take(count.into()) {
            answers.push(client::ask_tcp(source, (vip, ECHO_PORT).into()).await?.answer);
        }
        Ok(answers)
    })?;
    let asked: io::Result<Vec<Answer>> = asked;
    let answers = asked.to(|| format!("get an answer to each of {count} requests of {vip}"))?;
    let wrong = answers.iter().find(|answer| !SOURCES.contains(&answer.client));
    ensure(wrong.is_none(), || format!("a backend of {vip} saw another client: {wrong:?}"))
}
