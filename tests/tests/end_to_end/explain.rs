//! What `lbctl explain` says of 1,000 packets is what becomes of them, through every mode and in both families.

use std::net::{IpAddr, SocketAddr};

use shunt_api::explain::{Explanation, Rule, Verdict};
use shunt_tests::client::{self, Answered};
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Node, Shape, Topology};

use crate::bulk::start_echoes;
use crate::stage::{ECHO_PORT, with_shunt_after};
use crate::through_nat;

/// Of each VIP, of which there are eight.
const QUESTIONS: u16 = 125;
const FIRST_PORT: u16 = 20_000;
const MTU: u32 = 1500;
const SERVICES: [(&str, u8); 4] = [("dr", 10), ("ipip by v4", 20), ("ipip by v6", 30), ("nat", 40)];

pub fn run() -> Result<()> {
    let vips_all = SERVICES.into_iter().flat_map(|(_, number)| vips(number)).collect();
    let shape = Shape { arms: Arms::Two, queues: 2, dr: 4, far: 4, vips: vips_all };
    with_shunt_after("explain", shape, prepare, |topology, shunt| {
        let _servers = (start_echoes(topology)?, through_nat::start_servers(topology)?);
        for (name, vip) in SERVICES.into_iter().flat_map(|(name, number)| vips(number).map(|vip| (name, vip)))
        {
            let same = agree(topology, shunt, vip)?;
            println!("   {name:<12} {vip:<16} {same} of {QUESTIONS} went where it was said");
        }
        suppose(topology, shunt, vips(10)[0])?;
        refused(topology, shunt, vips(10)[0])
    })
}

fn prepare(topology: &Topology) -> Result<Settings> {
    through_nat::prepare(topology, MTU)?;
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["udp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far-by-v4", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings.serve("far-by-v6", "ipip", &topology.far, like_v6(), (&vips(30), ports));
    through_nat::serve(&mut settings, topology, 40);
    Ok(settings)
}

/// Asks about every packet, sends it, and asks again.
fn agree(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<usize> {
    let service = SocketAddr::new(vip, ECHO_PORT);
    let sources = topology.client_addresses(vip);
    let ends = || (FIRST_PORT..).zip(sources.into_iter().cycle()).take(QUESTIONS.into());
    let said: Vec<Explanation> = ends()
        .map(|(port, source)| explain(shunt, (source, port).into(), service, &[]))
        .collect::<Result<_>>()?;
    let answered = client::run_inside(&topology.client, || async move {
        client::ask_udp_many(sources, service, QUESTIONS, FIRST_PORT).await
    })?;
    for answered in answered {
        let Answered { answer, local, .. } = answered.to(|| format!("get an answer of {service}"))?;
        let said = said.iter().find(|said| said.packet.source == local);
        let said = said.ok_or_else(|| Error::Wrong(format!("nobody asked about {local}")))?;
        let wanted = node_of(topology, said)?;
        // Servers of mode nat stand beside those of the others on the same node.
        ensure(answer.server == wanted || answer.server == format!("{wanted}-own"), || {
            format!("{} answered {local}, but it was said: {said:#?}", answer.server)
        })?;
    }
    for (said, (port, source)) in said.iter().zip(ends()).step_by(10) {
        let again = explain(shunt, (source, port).into(), service, &[])?;
        let followed = again.steps.iter().any(|step| step.rule == Rule::FlowTable && step.decides);
        ensure(followed && again.backend == said.backend, || format!("the flow is there, but: {again:#?}"))?;
    }
    Ok(said.len())
}

fn node_of<'t>(topology: &'t Topology, said: &Explanation) -> Result<&'t str> {
    let is_it = |node: &&Node| [node.v4.into(), node.v6.into()].map(Some).contains(&said.backend);
    let node = topology.nodes().find(is_it);
    node.map(|node| node.name.as_str())
        .ok_or_else(|| Error::Wrong(format!("no node has the address of the backend: {said:#?}")))
}

/// The same file changes nothing, and without its backend a new flow goes elsewhere.
fn suppose(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<()> {
    let service = SocketAddr::new(vip, ECHO_PORT);
    let source = SocketAddr::new(topology.client_addresses(vip)[0], 30_000);
    let in_force = explain(shunt, source, service, &[])?;
    let file = shunt.paths().config.display().to_string();
    let by_file = explain(shunt, source, service, &["--config", &file])?;
    ensure(by_file.supposed && by_file.backend == in_force.backend, || format!("{by_file:#?}"))?;
    let backend = in_force.backend.map_or_else(String::new, |backend| backend.to_string());
    let without = explain(shunt, source, service, &["--down", &backend])?;
    let elsewhere = without.verdict == Verdict::Forward && without.backend != in_force.backend;
    ensure(without.supposed && elsewhere, || format!("without {backend}: {without:#?}"))
}

fn refused(topology: &Topology, shunt: &Shunt<'_>, vip: IpAddr) -> Result<()> {
    let source = SocketAddr::new(topology.client_addresses(vip)[0], 30_000);
    let said = explain(shunt, source, (vip, 9).into(), &[])?;
    let wanted = (Verdict::Reply, Some("unreachable"));
    ensure((said.verdict, said.reason.as_deref()) == wanted, || format!("{said:#?}"))
}

fn explain(
    shunt: &Shunt<'_>,
    source: SocketAddr,
    destination: SocketAddr,
    more: &[&str],
) -> Result<Explanation> {
    let (source, destination) = (source.to_string(), destination.to_string());
    let mut arguments =
        vec!["explain", "--proto", "udp", "--src", &source, "--dst", &destination, "-o", "json"];
    arguments.extend(more);
    let output = shunt.lbctl(&arguments)?;
    let read = serde_json::from_slice(&output.stdout).map_err(std::io::Error::from);
    read.to(|| format!("read what lbctl says: {}", String::from_utf8_lossy(&output.stderr)))
}
