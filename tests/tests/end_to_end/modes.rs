//! The same traffic through every way to attach to a NIC, through rings driven by xsk-rs, and through small ones.

use shunt_api::snapshot::Rings;
use shunt_api::status::{DataplaneStatus, NicStatus};
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::topology::{Arms, Shape, Topology};

use crate::stage::{dataplane_status, request, request_udp, start_servers, with_shunt};

const REQUESTS: u16 = 300;

/// Name, keys of `[[nic]]`, keys of `[dataplane]`, and how the NICs have to be attached.
const MODES: [(&str, &str, &str, &str); 5] = [
    ("generic", "xdp = \"generic\"", "", "generic"),
    ("copy", "xdp = \"native\"\nzero_copy = \"off\"", "", "native"),
    ("busy polling", "", "busy_poll = true\ncores = [0]", "native"),
    ("xsk-rs", "", "rings = \"xsk-rs\"", "native"),
    ("small rings", "queues = 1", "ring_size = 64\nbatch = 8\nmax_flows_v4 = 1000", "native"),
];

pub fn run() -> Result<()> {
    MODES.into_iter().try_for_each(|(name, nic_keys, dataplane_keys, attached)| {
        let shape = Shape {
            arms: Arms::Two,
            queues: 1,
            dr: 2,
            far: 2,
            vips: [10, 20, 30].into_iter().flat_map(vips).collect(),
        };
        let settings = |topology: &Topology| Settings { nic_keys, dataplane_keys, ..settings(topology) };
        with_shunt("modes", shape, settings, |topology, shunt| {
            let _servers = start_servers(topology)?;
            for (index, vip) in (0..).zip([10, 20, 30].into_iter().flat_map(vips)) {
                let first_port = 10_000 + index * 1_000;
                request(topology, &format!("{name} {vip}"), vip, REQUESTS, first_port)?;
                request_udp(topology, &format!("{name} {vip} udp"), vip, REQUESTS, first_port)?;
            }
            let DataplaneStatus { nics, .. } = dataplane_status(shunt)?;
            let rings = if dataplane_keys.contains("xsk-rs") { Rings::XskRs } else { Rings::Own };
            let is_as_set = |nic: &NicStatus| nic.xdp == attached && !nic.zero_copy && nic.rings == rings;
            ensure(nics.iter().all(is_as_set), || format!("{name}: {nics:?}"))
        })
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
