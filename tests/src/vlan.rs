//! The front segment as a VLAN: its stations reach each other by tagged frames, as over a switch's trunk port.
//! Loads `bpf/vlan.bpf.c`, which stands in for VLAN devices where the kernel has none.
//!
//! ```text
//!   client ── push, pop ──┬── to_box, from_box ── push, pop ── lb
//!                         └── push, pop ── router
//! ```
//! On the load balancer the program serves the kernel alone: its XDP program and AF_XDP sockets come before and
//! behind it, so that Shunt gets and has to send tagged frames.

use std::os::fd::AsFd;

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramMut, TC_EGRESS, TC_INGRESS, TcHookBuilder};
use rustix::net::netdevice::name_to_index;

use crate::bpf::{map, number};
use crate::error::{Error, Result, While};
use crate::namespace::Namespace;
use crate::topology::{NODE_NIC, Segment, Topology};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vlan.bpf.o"));

/// The attached programs. They go with the NICs that they are attached to.
pub struct Vlan {
    object: Object,
}

/// Frames between the switch and the load balancer's NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// To the load balancer, with the tag.
    pub to_box_tagged: u64,
    /// To the load balancer, without the tag.
    pub to_box_other: u64,
    /// From the load balancer, with the tag.
    pub from_box_tagged: u64,
    /// From the load balancer, without the tag.
    pub from_box_other: u64,
}

impl Vlan {
    /// Turns the front segment into a VLAN, before any packet passes.
    pub fn of_front(topology: &Topology) -> Result<Self> {
        let object = load()?;
        let front = Segment::Front.name();
        // The switch's own stack would announce itself, without a tag.
        topology.switch.sysctl(&[("ipv6/conf/all/disable_ipv6", "1")])?;
        let stations = [
            (&topology.client, "client", NODE_NIC),
            (&topology.router, "router", front),
            (&topology.lb, "lb", front),
        ];
        for (namespace, role, nic) in stations {
            keep_tag_in_frame(namespace, nic)?;
            keep_tag_in_frame(&topology.switch, &format!("{front}-{role}"))?;
            attach(&object, namespace, nic, ["push", "pop"])?;
        }
        attach(&object, &topology.switch, &format!("{front}-lb"), ["to_box", "from_box"])?;
        Ok(Self { object })
    }

    /// Frames so far.
    pub fn seen(&self) -> Result<Seen> {
        let map = map(&self.object, "seen")?;
        let value = |index: u32| {
            let value = map.lookup(&index.to_ne_bytes(), MapFlags::ANY).to(|| "read counters".to_owned())?;
            Ok::<_, Error>(value.map_or(0, number))
        };
        Ok(Seen {
            to_box_tagged: value(0)?,
            to_box_other: value(1)?,
            from_box_tagged: value(2)?,
            from_box_other: value(3)?,
        })
    }
}

fn load() -> Result<Object> {
    let what = || "load the VLAN programs".to_owned();
    ObjectBuilder::default().open_memory(OBJECT).to(what)?.load().to(what)
}

/// Otherwise the tag travels beside the frame, where XDP does not see it.
fn keep_tag_in_frame(namespace: &Namespace, nic: &str) -> Result<()> {
    namespace.run("ethtool", &["-K", nic, "txvlan", "off", "rxvlan", "off"]).map(drop)
}

/// Attaches one program to what the NIC sends and one to what it receives.
fn attach(object: &Object, namespace: &Namespace, nic: &str, [egress, ingress]: [&str; 2]) -> Result<()> {
    let what = || format!("attach the VLAN programs to {nic} of {}", namespace.name());
    // An interface index means what it means in the namespace of the thread that attaches.
    namespace.inside(|| {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
                .to(what)?;
        let index = name_to_index(&socket, nic).to(what)?;
        for (name, point) in [(egress, TC_EGRESS), (ingress, TC_INGRESS)] {
            let program = program(object, name)?;
            let mut hook = TcHookBuilder::new(program.as_fd()).ifindex(index.cast_signed()).hook(point);
            if name == egress {
                // One queueing discipline has the hooks of both directions.
                hook.create().to(what)?;
            }
            hook.attach().to(what)?;
        }
        Ok(())
    })?
}

fn program<'o>(object: &'o Object, name: &str) -> Result<ProgramMut<'o>> {
    let found = object.progs_mut().find(|program| program.name() == name);
    found.ok_or_else(|| Error::Wrong(format!("vlan.bpf.o holds no program {name}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use etherparse::PacketBuilder;
    use libbpf_rs::ProgramInput;

    use super::*;

    const OK: u32 = 0;
    const SHOT: u32 = 2;

    /// Tagged frames are in the scenario `vlan` alone: a program that runs without an interface gets no tag.
    #[test]
    fn a_frame_without_a_tag_is_not_of_the_vlan() {
        if !rustix::process::geteuid().is_root() {
            // Unlike println!, this is not captured.
            let _ = writeln!(std::io::stderr(), "SKIPPED: loading a BPF program needs root");
            return;
        }
        let object = load().unwrap();
        let mut frame = Vec::new();
        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(1, 2);
        builder.write(&mut frame, b"payload").unwrap();
        for (name, verdict) in [("push", OK), ("pop", SHOT), ("to_box", OK), ("from_box", OK)] {
            let input = ProgramInput { data_in: Some(&frame), ..Default::default() };
            let output = program(&object, name).unwrap().test_run(input).unwrap();
            assert_eq!(output.return_value, verdict, "{name}");
        }
        let seen = Vlan { object }.seen().unwrap();
        assert_eq!(seen, Seen { to_box_other: 1, from_box_other: 1, ..Seen::default() });
    }
}
