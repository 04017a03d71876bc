//! Clients on the load balancer's segment find the VIPs by ARP and neighbour discovery, without a route to them; so do
//! backends the source addresses of mode `nat`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shunt_api::status::Event;
use shunt_tests::command;
use shunt_tests::curl::{self, Curl, Manner};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, NODE_NIC, Segment, Shape, Topology};
use shunt_tests::wait;

use crate::stage::{request, with_shunt};

/// Last numbers of VIPs, source addresses, an address that nobody has, and another station.
const DR: u8 = 210;
const NAT: u8 = 220;
const SOURCES: u8 = 230;
const NOBODY: u8 = 240;
const INTRUDER: u8 = 3;
const TABLES: &str = "[nat]\nsources = [\"10.77.2.230\", \"fd77:2::230\"]\n[announce]\nl2 = true\n";
const HTTP_TARGET: u16 = 30080;
const REQUESTS: u16 = 500;
/// Probes of `arping`, a second apart. `ndisc6` ends with the first answer.
const PROBES: usize = 3;
const LIMIT: Duration = Duration::from_secs(5);

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 3, far: 0, vips: on_segment(DR).to_vec() };
    with_shunt("segment", shape, settings, |topology, shunt| {
        forget_routes(topology)?;
        let _nginx = start_nginx(topology)?;
        for (vip, first_port) in on_segment(DR).into_iter().zip([10_000, 12_000]) {
            request(topology, &format!("dr {vip}"), vip, REQUESTS, first_port)?;
        }
        for (vip, first_port) in on_segment(NAT).into_iter().zip([14_000, 16_000]) {
            request_translated(topology, vip, first_port)?;
        }
        probe_all(topology)?;
        leave_and_come_back(topology, shunt)?;
        intrude(topology, shunt)
    })
}

/// Addresses of the clients' own segment, the IPv4 one first.
pub fn on_segment(number: u8) -> [IpAddr; 2] {
    [Segment::Front.v4(number).into(), Segment::Front.v6(number).into()]
}

/// The client knows of VIPs only that they are on its segment.
pub fn forget_routes(topology: &Topology) -> Result<()> {
    let forget = |vip: &IpAddr| format!("route del {vip}\n");
    topology.client.ip(&topology.shape.vips.iter().map(forget).collect::<String>())?;
    let known = topology.client.run("ip", &["route"])? + &topology.client.run("ip", &["-6", "route"])?;
    ensure(!known.contains("via"), || format!("the client still has routes by other hosts:\n{known}"))
}

/// Translation cannot change the family, so each has a service of its own.
fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&on_segment(DR), &["tcp/80"]));
    for (vip, name) in on_segment(NAT).into_iter().zip(["nat4", "nat6"]) {
        settings.serve(name, "nat", &topology.dr, vip, (&[vip], &["tcp/80:30080"]));
    }
    settings.tables = TABLES;
    settings
}

/// Where VIPs are the backends' own, and where translated packets come to.
fn start_nginx(topology: &Topology) -> Result<Vec<shunt_tests::process::Process>> {
    let start = |node: &shunt_tests::topology::Node| {
        node.finish_own_packets()?;
        let own = [node.v4.into(), node.v6.into()].map(|ip: IpAddr| SocketAddr::new(ip, HTTP_TARGET));
        let vips = on_segment(DR).map(|vip| SocketAddr::new(vip, 80));
        servers::start_nginx_at(&topology.run, node, &[vips, own].concat())
    };
    topology.dr.iter().map(start).collect()
}

/// Every request is answered, and the servers see the source address, which they find on their segment.
fn request_translated(topology: &Topology, vip: IpAddr, first_port: u16) -> Result<()> {
    let requests = curl::requests(topology, vip, REQUESTS, first_port);
    let curl = Curl::start(topology, &format!("curl-{first_port}"), &requests, &Manner::default())?;
    let source = Segment::Back.host_like(vip, SOURCES);
    let replies = curl.finish()?;
    let good = replies.iter().filter(|reply| {
        reply.exit == 0 && reply.status == 200 && reply.seen.is_some_and(|seen| seen.ip() == source)
    });
    let good = good.count();
    println!("   nat {vip:<16} {good} of {REQUESTS} answered, seen as {source}");
    ensure(good == usize::from(REQUESTS), || {
        let example = replies.iter().find(|reply| reply.exit != 0 || reply.status != 200);
        format!("{} requests failed, e.g. {example:?}", replies.len() - good)
    })
}

/// MAC address of a NIC.
pub fn mac_of(namespace: &Namespace, nic: &str) -> Result<String> {
    let shown = namespace.run("ip", &["-o", "link", "show", nic])?;
    let after = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    after.map(str::to_owned).ok_or_else(|| Error::Wrong(format!("{nic} has no MAC address: {shown}")))
}

/// The MAC addresses of all answers to `arping` or `ndisc6`, asked from a host's only NIC.
fn probe(host: &Namespace, address: IpAddr, probes: usize) -> Result<Vec<String>> {
    let (address, probes) = (address.to_string(), probes.to_string());
    let arguments = if address.contains(':') {
        vec!["ndisc6", "-1", "-n", "-q", "-r", &probes, &address, NODE_NIC]
    } else {
        vec!["arping", "-b", "-c", &probes, "-w", &probes, "-I", NODE_NIC, &address]
    };
    let mut command = host.command(arguments[0]);
    // That nobody answers is for the caller to judge.
    let output = command::output(command.args(&arguments[1..]))?;
    let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let words = said.split(|c: char| c.is_whitespace() || c == '[' || c == ']');
    Ok(words.filter(|word| is_mac(word)).map(str::to_owned).collect())
}

fn is_mac(word: &str) -> bool {
    word.split(':').count() == 6 && word.split(':').all(|byte| u8::from_str_radix(byte, 16).is_ok())
}

/// Other programs get the MAC address of Shunt's NIC, and that only; for what Shunt does not serve, nothing.
fn probe_all(topology: &Topology) -> Result<()> {
    let [front, back] = [Segment::Front, Segment::Back].map(|segment| mac_of(&topology.lb, segment.name()));
    let (front, back) = (front?, back?);
    let backend = &topology.dr[0].namespace;
    for number in [DR, NAT] {
        on_segment(number).into_iter().try_for_each(|vip| answered_by(&topology.client, vip, &front))?;
    }
    for source in [Segment::Back.v4(SOURCES).into(), Segment::Back.v6(SOURCES).into()] {
        answered_by(backend, source, &back)?;
    }
    on_segment(NOBODY).into_iter().try_for_each(|address| silent(&topology.client, address))
}

fn answered_by(host: &Namespace, address: IpAddr, mac: &str) -> Result<()> {
    let answers = probe(host, address, PROBES)?;
    let wanted = if address.is_ipv4() { PROBES } else { 1 };
    let program = if address.is_ipv4() { "arping" } else { "ndisc6" };
    println!("   {program} {address}: {} answers of {wanted}, all by {mac}", answers.len());
    ensure(answers.len() == wanted && answers.iter().all(|answer| answer == mac), || {
        format!("{address} should be answered for by {mac} alone, {wanted} times: {answers:?}")
    })
}

fn silent(host: &Namespace, address: IpAddr) -> Result<()> {
    let answers = probe(host, address, 1)?;
    ensure(answers.is_empty(), || format!("nobody should answer for {address}: {answers:?}"))
}

/// A VIP that leaves the configuration is answered for no more, and again when it is back.
fn leave_and_come_back(topology: &Topology, shunt: &mut Shunt<'_>) -> Result<()> {
    let (with, mut without) = (settings(topology), settings(topology));
    without.services.retain(|service| service.name == "dr");
    shunt.apply(&without)?;
    on_segment(NAT).into_iter().try_for_each(|vip| silent(&topology.client, vip))?;
    shunt.apply(&with)?;
    let front = mac_of(&topology.lb, Segment::Front.name())?;
    on_segment(NAT).into_iter().try_for_each(|vip| answered_by(&topology.client, vip, &front))
}

/// Another station that takes a VIP for its own is told of, with its MAC address, and clients stay with Shunt.
fn intrude(topology: &Topology, shunt: &Shunt<'_>) -> Result<()> {
    let Some(intruder) = topology.run.namespaces(["intruder"])?.pop() else {
        unreachable!("one was asked for")
    };
    topology.plug_box(&intruder, "intruder", INTRUDER)?;
    let (nic, [vip, _]) = (Segment::Front.name(), on_segment(DR));
    intruder.ip(&format!("addr add {vip}/32 dev {nic}\n"))?;
    intruder.run("arping", &["-A", "-c", "1", "-I", nic, &vip.to_string()])?;
    let mac = mac_of(&intruder, nic)?;
    let subject = format!("address {vip}");
    let ((), took) = wait::until("an event about the other station", LIMIT, || {
        let events: Vec<Event> = shunt.lbctl_json(&["events"])?;
        let alarm = events.iter().find(|event| event.subject == subject && event.text.contains(&mac));
        Ok(alarm.map(|alarm| println!("   alarm: {alarm}")))
    })?;
    println!("   told of within {:.0} ms", took.as_secs_f64() * 1e3);
    let status = shunt.lbctl(&["status"])?;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure(status.status.code() == Some(1) && said.contains(&mac), || {
        format!("`lbctl status` should tell of {mac}: {said}")
    })?;
    intruder.ip(&format!("addr del {vip}/32 dev {nic}\nlink set {nic} down\n"))?;
    let front = mac_of(&topology.lb, nic)?;
    let known = || {
        let neighbours = topology.client.run("ip", &["neigh", "show", "to", &vip.to_string()])?;
        Ok(neighbours.contains(&front).then_some(()))
    };
    wait::until("the client to know the VIP's right MAC address again", LIMIT, known)?;
    request(topology, "after the intrusion", vip, REQUESTS, 18_000).map(drop)
}
