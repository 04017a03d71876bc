//! iperf3 through direct routing and a tunnel: large packets and full windows. The figures say something
//! about this machine and veth, not about NICs; they are printed, and only have to be above zero.

use std::net::IpAddr;

use serde_json::Value;
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::servers;
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::topology::{Arms, Node, Shape, Topology};

use crate::stage::with_shunt;

const SECONDS: &str = "1";

pub fn run() -> Result<()> {
    let vips_all = [10, 20, 30].into_iter().flat_map(vips).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 1, far: 1, vips: vips_all };
    with_shunt("throughput", shape, settings, |topology, _| {
        let (dr, far) = (&topology.dr[0], &topology.far[0]);
        for (name, number, node) in [("dr", 10, dr), ("ipip over IPv4", 20, far), ("ipip over IPv6", 30, far)]
        {
            for vip in vips(number) {
                measure(topology, name, vip, node)?;
            }
        }
        Ok(())
    })
}

/// iperf3 opens several connections that have to meet at one server, so each pool has one backend.
fn settings(topology: &Topology) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/5201"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far-by-v4", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings.serve("far-by-v6", "ipip", &topology.far, like_v6(), (&vips(30), ports));
    settings
}

fn measure(topology: &Topology, name: &str, vip: IpAddr, node: &Node) -> Result<()> {
    let target = vip.to_string();
    let mut rates = Vec::new();
    // Without -R the client's data passes the load balancer, with it only its acknowledgements do.
    for direction in [&[][..], &["-R"]] {
        let _server = servers::start_iperf3(topology, node, vip)?;
        let arguments = [&["-c", &target, "-t", SECONDS, "-J"], direction].concat();
        let report = topology.client.run("iperf3", &arguments)?;
        let report: Value = serde_json::from_str(&report)
            .map_err(std::io::Error::from)
            .to(|| "read iperf3's report".into())?;
        let rate = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
        let rate = rate.ok_or_else(|| Error::Wrong(format!("iperf3 reports no rate: {report}")))?;
        ensure(rate > 0.0, || format!("nothing came through: {report}"))?;
        rates.push(rate / 1e6);
    }
    println!(
        "   {name} {vip}: {:.0} Mbit/s through the load balancer, {:.0} Mbit/s back",
        rates[0], rates[1]
    );
    Ok(())
}
