//! The backend's end of a tunnel: loads `bpf/decap.bpf.c` on an interface and reads what it counted.

use std::iter::Sum;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};

use crate::bpf::{attach_xdp, map, number};
use crate::error::{Error, Result, While};
use crate::namespace::Namespace;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/decap.bpf.o"));

/// An attached program. It detaches when dropped, unless it was pinned.
pub struct Decapsulator {
    object: Object,
    link: Link,
}

/// Packets taken out of tunnels, by inner "in" outer family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decapsulated {
    /// IPv4 in IPv4.
    pub four_in_four: u64,
    /// IPv6 in IPv4.
    pub six_in_four: u64,
    /// IPv4 in IPv6.
    pub four_in_six: u64,
    /// IPv6 in IPv6.
    pub six_in_six: u64,
    /// Tunnel packets whose outer and inner lengths disagree; dropped.
    pub malformed: u64,
}

/// Header fields of a tunnel packet that its sender has to copy or to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// TOS or traffic class of the outer header.
    pub outer_tos: u8,
    /// TTL or hop limit of the outer header, after the routers on the way.
    pub outer_ttl: u8,
    /// TOS or traffic class of the inner header.
    pub inner_tos: u8,
    /// TTL or hop limit of the inner header.
    pub inner_ttl: u8,
}

impl Sum for Decapsulated {
    fn sum<I: Iterator<Item = Self>>(counted: I) -> Self {
        counted.fold(Self::default(), |sum, more| Self {
            four_in_four: sum.four_in_four + more.four_in_four,
            six_in_four: sum.six_in_four + more.six_in_four,
            four_in_six: sum.four_in_six + more.four_in_six,
            six_in_six: sum.six_in_six + more.six_in_six,
            malformed: sum.malformed + more.malformed,
        })
    }
}

impl Decapsulator {
    /// Loads the program and attaches it to an interface of the namespace.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        let object = load()?;
        let link = attach_xdp(namespace, interface, &object)?;
        Ok(Self { object, link })
    }

    /// Leaves it attached until `path`, on a bpffs, is removed.
    pub fn pin(&mut self, path: &Path) -> Result<()> {
        self.link.pin(path).to(|| format!("pin the decapsulating program to {}", path.display()))
    }

    /// From now on it takes nothing out of tunnels, like a node whose tunnel device is gone; or it does so again.
    pub fn set_closed(&self, closed: bool) -> Result<()> {
        let value = u32::from(closed).to_ne_bytes();
        let updated = map(&self.object, "closed")?.update(&0u32.to_ne_bytes(), &value, MapFlags::ANY);
        updated.to(|| "open or close a tunnel".to_owned())
    }

    /// Packets taken out of tunnels so far.
    pub fn decapsulated(&self) -> Result<Decapsulated> {
        counters(&self.object)
    }

    /// Outer source addresses seen and their packets.
    pub fn outer_sources(&self) -> Result<Vec<(IpAddr, u64)>> {
        let entries = entries::<16>(&self.object, "outer_sources")?;
        let address = |key: [u8; 16]| Ipv6Addr::from(key).to_canonical();
        Ok(entries.into_iter().map(|(key, packets)| (address(key), packets)).collect())
    }

    /// Combinations of header fields seen and their packets.
    pub fn marks(&self) -> Result<Vec<(Marks, u64)>> {
        let entries = entries::<4>(&self.object, "outer_marks")?;
        let marks = |[outer_tos, outer_ttl, inner_tos, inner_ttl]: [u8; 4]| Marks {
            outer_tos,
            outer_ttl,
            inner_tos,
            inner_ttl,
        };
        Ok(entries.into_iter().map(|(key, packets)| (marks(key), packets)).collect())
    }
}

fn load() -> Result<Object> {
    let what = || "load the decapsulating program".to_owned();
    ObjectBuilder::default().open_memory(OBJECT).to(what)?.load().to(what)
}

fn counters(object: &Object) -> Result<Decapsulated> {
    let map = map(object, "decapsulated")?;
    let value = |index: u32| {
        let value = map.lookup(&index.to_ne_bytes(), MapFlags::ANY).to(|| "read counters".to_owned())?;
        Ok::<_, Error>(value.map_or(0, number))
    };
    Ok(Decapsulated {
        four_in_four: value(0)?,
        six_in_four: value(1)?,
        four_in_six: value(2)?,
        six_in_six: value(3)?,
        malformed: value(4)?,
    })
}

fn entries<const KEY: usize>(object: &Object, name: &str) -> Result<Vec<([u8; KEY], u64)>> {
    let map = map(object, name)?;
    let mut entries = Vec::new();
    for key in map.keys() {
        let value = map.lookup(&key, MapFlags::ANY).to(|| format!("read {name}"))?;
        if let (Ok(key), Some(value)) = (key.try_into(), value) {
            entries.push((key, number(value)));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use etherparse::{IpNumber, PacketBuilder};
    use libbpf_rs::ProgramInput;

    use super::*;
    use crate::bpf::program;

    const PASS: u32 = 2;
    const DROP: u32 = 1;
    const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    const V6: ([u8; 16], [u8; 16]) = ([0xfd; 16], [0xfe; 16]);

    /// Runs the program on one frame without an interface.
    fn run(object: &Object, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 2048];
        let input = ProgramInput { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
        let output = program(object).unwrap().test_run(input).unwrap();
        let frame = output.data.unwrap_or_default().to_vec();
        (output.return_value, frame)
    }

    fn inner(six: bool) -> Vec<u8> {
        let mut packet = Vec::new();
        let built = if six {
            PacketBuilder::ipv6(V6.0, V6.1, 9).udp(1, 2).write(&mut packet, b"payload")
        } else {
            PacketBuilder::ipv4(V4.0, V4.1, 9).udp(1, 2).write(&mut packet, b"payload")
        };
        built.unwrap();
        packet
    }

    fn tunnel(outer_six: bool, inner_six: bool) -> Vec<u8> {
        let payload = inner(inner_six);
        let protocol = if inner_six { IpNumber::IPV6 } else { IpNumber::IPV4 };
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut frame = Vec::new();
        if outer_six {
            ethernet.ipv6(V6.0, V6.1, 64).write(&mut frame, protocol, &payload).unwrap();
        } else {
            ethernet.ipv4(V4.0, V4.1, 64).write(&mut frame, protocol, &payload).unwrap();
        }
        frame
    }

    /// False, said on stderr, when a program cannot be loaded. Unlike println!, this is not captured.
    fn root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            let _ = writeln!(std::io::stderr(), "SKIPPED: loading a BPF program needs root");
        }
        root
    }

    #[test]
    fn takes_one_header_off_in_all_four_combinations() {
        if !root() {
            return;
        }
        let object = load().unwrap();
        for (outer_six, inner_six) in [(false, false), (false, true), (true, false), (true, true)] {
            let frame = tunnel(outer_six, inner_six);
            let (verdict, out) = run(&object, &frame);
            assert_eq!(verdict, PASS);
            assert_eq!(out[..12], frame[..12], "addresses of the Ethernet header stay");
            assert_eq!(out[12..14], if inner_six { [0x86, 0xdd] } else { [0x08, 0x00] });
            assert_eq!(out[14..], inner(inner_six));
        }
        let seen = counters(&object).unwrap();
        let once =
            Decapsulated { four_in_four: 1, six_in_four: 1, four_in_six: 1, six_in_six: 1, malformed: 0 };
        assert_eq!(seen, once);
        let sources = entries::<16>(&object, "outer_sources").unwrap();
        assert_eq!(sources.len(), 2);
        let marks = entries::<4>(&object, "outer_marks").unwrap();
        assert_eq!(marks, [([0, 64, 0, 9], 4)]);
    }

    #[test]
    fn a_closed_tunnel_leaves_packets_to_the_stack() {
        if !root() {
            return;
        }
        let object = load().unwrap();
        let frame = tunnel(false, true);
        map(&object, "closed").unwrap().update(&[0; 4], &[1, 0, 0, 0], MapFlags::ANY).unwrap();
        assert_eq!(run(&object, &frame), (PASS, frame.clone()));
        assert_eq!(counters(&object).unwrap(), Decapsulated::default());
    }

    #[test]
    fn leaves_the_rest_alone_and_drops_wrong_lengths() {
        if !root() {
            return;
        }
        let object = load().unwrap();
        let mut plain = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(V4.0, V4.1, 64).udp(1, 2);
        builder.write(&mut plain, b"x").unwrap();
        assert_eq!(run(&object, &plain), (PASS, plain.clone()));

        // Two bytes of Ethernet padding carried into the tunnel: the outer length is 2 too large.
        let mut padded = tunnel(false, false);
        let length = u16::from_be_bytes([padded[16], padded[17]]) + 2;
        padded[16..18].copy_from_slice(&length.to_be_bytes());
        padded.extend([0, 0]);
        assert_eq!(run(&object, &padded).0, DROP);
        assert_eq!(counters(&object).unwrap(), Decapsulated { malformed: 1, ..Default::default() });
    }
}
