//! Clients and backends on the load balancer's only NIC: frames leave by the queue they came from.

use shunt_tests::error::Result;
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::stage::{request, request_udp, start_servers, with_shunt};

const REQUESTS: u16 = 500;
/// Percentage points; 500 requests scatter more than 2,000.
const MARGIN: f64 = 8.0;

pub fn run() -> Result<()> {
    let vips_all = [10, 20, 30].into_iter().flat_map(vips).collect();
    let shape = Shape { arms: Arms::One, queues: 1, dr: 3, far: 3, vips: vips_all };
    with_shunt("one_arm", shape, settings, |topology, _| {
        let _servers = start_servers(topology)?;
        for (number, name) in [(10, "dr"), (20, "far-by-v4"), (30, "far-by-v6")] {
            let nodes = if number == 10 { &topology.dr } else { &topology.far };
            let weights = || nodes.iter().map(|node| (node.name.as_str(), 1));
            let first_port = 10_000 + u16::from(number) * 100;
            for (vip, family) in vips(number).into_iter().zip(["v4", "v6"]) {
                let label = format!("{name} {family}");
                request(topology, &label, vip, REQUESTS, first_port)?.follow(weights(), MARGIN)?;
                request_udp(topology, &format!("{label} udp"), vip, REQUESTS, first_port)?
                    .follow(weights(), MARGIN)?;
            }
        }
        Ok(())
    })
}

fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/80", "udp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far-by-v4", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings.serve("far-by-v6", "ipip", &topology.far, like_v6(), (&vips(30), ports));
    settings
}
