//! Uploads in packets of 9,000 bytes, each of which takes several buffers.

use std::net::IpAddr;

use shunt_api::counters::Counter;
use shunt_api::status::SocketCounters;
use shunt_tests::error::{Result, ensure};
use shunt_tests::settings::{Settings, like_v4, like_v6, vips};
use shunt_tests::shunt::Shunt;
use shunt_tests::topology::{Arms, Segment, Shape, Topology};

use crate::bulk::{conserved, start_echoes, upload};
use crate::stage::{dataplane_status, with_shunt_after};

const MTU: u32 = 9000;
/// Behind Shunt, with room for the header of a tunnel.
const TUNNEL_MTU: u32 = 9100;
/// Bytes of a frame on average; acknowledgements and the last segments are smaller.
const AVERAGE_MIN: u64 = 8000;
/// Name and last number of the VIPs of each service.
const SERVICES: [(&str, u8); 3] = [("dr", 10), ("ipip by v4", 20), ("ipip by v6", 30)];

pub fn run() -> Result<()> {
    let vips_all = SERVICES.into_iter().flat_map(|(_, number)| vips(number)).collect();
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 1, far: 1, vips: vips_all };
    with_shunt_after("jumbo", shape, prepare, |topology, shunt| {
        let _servers = start_echoes(topology)?;
        for (name, number) in SERVICES {
            for (vip, family) in vips(number).into_iter().zip(["v4", "v6"]) {
                upload_one(topology, shunt, &format!("{name} {family}"), vip)?;
            }
        }
        nothing_lost(shunt)
    })
}

fn prepare(topology: &Topology) -> Result<Settings> {
    topology.set_mtu(Segment::Front, MTU)?;
    topology.set_mtu(Segment::Back, TUNNEL_MTU)?;
    topology.set_mtu(Segment::Far, TUNNEL_MTU)?;
    fill_packets(topology)?;
    let mut settings = Settings::new(topology.lb_nics());
    let ports = &["tcp/7"];
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&vips(10), ports));
    settings.serve("far-by-v4", "ipip", &topology.far, like_v4(), (&vips(20), ports));
    settings.serve("far-by-v6", "ipip", &topology.far, like_v6(), (&vips(30), ports));
    Ok(settings)
}

/// A TCP sender sends packets that are not full when its buffer is, and at each half of the receiver's window: so
/// both are large. Still no more is under way than a ring has entries for, as a lost packet would be the test's fault.
fn fill_packets(topology: &Topology) -> Result<()> {
    topology.client.sysctl(&[("ipv4/tcp_wmem", "4096 50000000 50000000")])?;
    let window = [("ipv4/tcp_rmem", "4096 2000000 2000000")];
    topology.nodes().try_for_each(|node| node.namespace.sysctl(&window))
}

fn upload_one(topology: &Topology, shunt: &Shunt<'_>, label: &str, vip: IpAddr) -> Result<()> {
    let counters = [Counter::RxPackets, Counter::RxBytes, Counter::TxPackets, Counter::TxBytes];
    let before = conserved(shunt)?;
    let took = upload(topology, vip)?.as_secs_f64();
    let after = conserved(shunt)?;
    let [received, received_bytes, sent, sent_bytes] =
        counters.map(|counter| after.counter(counter) - before.counter(counter));
    let average = received_bytes / received;
    println!("   {label:<20} 10 MB in {took:.1} s: {received} packets of {average} bytes on average");
    ensure(average >= AVERAGE_MIN, || format!("{label}: the packets were not large"))?;
    ensure(sent == received && sent_bytes >= received_bytes, || {
        format!("{label}: {sent} packets of {sent_bytes} bytes left")
    })
}

fn nothing_lost(shunt: &Shunt<'_>) -> Result<()> {
    let total = conserved(shunt)?;
    ensure(total.dropped_total() == 0, || format!("dropped: {:?}", total.drops))?;
    let nics = dataplane_status(shunt)?.nics;
    ensure(nics.iter().all(|nic| nic.multi_buffer), || format!("no packets in several buffers: {nics:?}"))?;
    let lost = nics.iter().find(|nic| nic.sockets != SocketCounters::default());
    ensure(lost.is_none(), || format!("lost before or behind the workers: {lost:?}"))?;
    println!("   nothing lost, in the workers or on the way to and from them");
    Ok(())
}
