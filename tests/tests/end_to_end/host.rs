//! Traffic to and from the box itself goes through its own stack while Shunt runs on its NICs.

use std::net::{IpAddr, SocketAddr};

use shunt_tests::client;
use shunt_tests::error::{Result, While, ensure};
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::stage::{request, start_servers, with_shunt};

const PINGS: &str = "50";
const CONNECTIONS: u16 = 200;
/// The service's own port on the box's own address, and one that is like ssh's.
const PORTS: [u16; 2] = [80, 22];

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 2, far: 0, vips: vips(10).to_vec() };
    let settings = |topology: &Topology| {
        let mut settings = Settings::new(topology.lb_nics());
        settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), &["tcp/80"]));
        settings
    };
    with_shunt("host", shape, settings, |topology, _| {
        let _servers = start_servers(topology)?;
        let own = [like_v4(), like_v6()].map(|like| topology.lb_address(like));
        let listeners: Vec<_> =
            own.iter().flat_map(|address| PORTS.map(|port| SocketAddr::new(*address, port))).collect();
        let _own_server = servers::start_echo_at(&topology.run, &topology.lb, "lb", &listeners)?;
        for address in own {
            ping(topology, address)?;
        }
        for listener in listeners {
            connect(topology, listener)?;
        }
        let outward = topology.dr[0].v4.to_string();
        topology.lb.run("ping", &["-q", "-c", "5", "-i", "0.02", "-W", "1", &outward])?;
        println!("   5 of 5 pings from the box to {outward} answered");
        for vip in vips(10) {
            request(topology, &vip.to_string(), vip, CONNECTIONS, 10_000)?;
        }
        Ok(())
    })
}

fn ping(topology: &Topology, address: IpAddr) -> Result<()> {
    let address = address.to_string();
    let said = topology.client.run("ping", &["-q", "-c", PINGS, "-i", "0.01", "-W", "1", &address])?;
    ensure(said.contains(" 0% packet loss"), || format!("pings of {address} were lost: {said}"))?;
    println!("   {PINGS} of {PINGS} pings of {address} answered");
    Ok(())
}

/// TCP connections and UDP requests to the box's own address.
fn connect(topology: &Topology, listener: SocketAddr) -> Result<()> {
    let sources = topology.client_addresses(listener.ip());
    let asked = client::run_inside(&topology.client, || async move {
        for source in sources.into_iter().cycle().take(CONNECTIONS.into()) {
            let answers = [
                client::ask_tcp(source, listener).await?,
                client::ask_udp((source, 0).into(), listener).await?,
            ];
            if let Some(wrong) = answers.iter().find(|a| !a.is_faithful() || a.answer.server != "lb") {
                return Err(std::io::Error::other(format!("{wrong:?} is not the box's own answer")));
            }
        }
        Ok(())
    })?;
    asked.to(|| format!("talk to the box's own {listener}"))?;
    println!("   {CONNECTIONS} of {CONNECTIONS} TCP and UDP requests to the box's own {listener} answered");
    Ok(())
}
