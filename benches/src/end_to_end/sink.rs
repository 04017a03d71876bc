//! The backend's end, `bpf/sink.bpf.c`: what arrived, in which form, after how long.

use libbpf_rs::{Link, MapCore, MapFlags, MapImpl, Object, ObjectBuilder};
use shunt_tests::bpf;
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::topology::NODE_NIC;

use super::Aligned;
use super::frame::{Kind, check};
use super::histogram::BUCKETS;
use super::network::{Network, UDP_PORT, VIP};

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sink.bpf.o")));

/// Kinds in the order of `enum kind`.
const KINDS: [Kind; 3] = [Kind::AsSent, Kind::Tunnelled, Kind::Translated];

/// The attached program. It detaches when dropped.
pub struct Sink {
    object: Object,
    _link: Link,
}

impl Sink {
    /// Attaches it to the backend's NIC.
    pub fn attach(network: &Network) -> Result<Self> {
        let object = load()?;
        let link = bpf::attach_xdp(&network.backend.namespace, NODE_NIC, &object)?;
        let sink = Self { object, _link: link };
        sink.set_timing(false)?;
        Ok(sink)
    }

    /// From now on notes, or does not note, how long frames took.
    pub fn set_timing(&self, timing: bool) -> Result<()> {
        let map = bpf::map(&self.object, "settings")?;
        let set = map.update(&[0; 4], &settings(timing), MapFlags::ANY);
        set.to(|| "set the sink".to_owned())
    }

    /// Frames that arrived so far as they should. One that came otherwise is an error.
    pub fn arrived(&self, expected: Kind) -> Result<u64> {
        let counts = per_cpu(&bpf::map(&self.object, "counts")?, KINDS.len())?;
        for (kind, count) in KINDS.iter().zip(&counts) {
            ensure(*kind == expected || *count == 0, || {
                format!("{count} frames arrived {kind:?}, not {expected:?}")
            })?;
        }
        Ok(KINDS
            .iter()
            .zip(counts)
            .find_map(|(kind, count)| (*kind == expected).then_some(count))
            .unwrap_or(0))
    }

    /// Frames by bucket of the time in nanoseconds since they were sent.
    pub fn delays(&self) -> Result<Vec<u64>> {
        per_cpu(&bpf::map(&self.object, "delays")?, BUCKETS)
    }

    /// Looks at every byte of the frames kept, and says how many there were.
    pub fn check_samples(&self, kind: Kind) -> Result<usize> {
        let map = bpf::map(&self.object, "samples")?;
        let mut checked = 0;
        for index in 0..map.max_entries() {
            let sample = map.lookup(&index.to_ne_bytes(), MapFlags::ANY).to(|| "read samples".to_owned())?;
            let sample = sample.unwrap_or_default();
            let Some((length, bytes)) = sample.split_first_chunk::<4>() else { continue };
            let length = u32::from_ne_bytes(*length) as usize;
            if length > 0 {
                check(kind, &bytes[..length]).map_err(|wrong| {
                    Error::Wrong(format!("a frame of {length} bytes arrived wrong: {wrong}"))
                })?;
                checked += 1;
            }
        }
        Ok(checked)
    }
}

fn load() -> Result<Object> {
    let what = || "load the sink".to_owned();
    ObjectBuilder::default().open_memory(&OBJECT.0).to(what)?.load().to(what)
}

/// `struct settings` of the program.
fn settings(timing: bool) -> Vec<u8> {
    let (port, timing) = (UDP_PORT.to_be_bytes(), u16::from(timing).to_ne_bytes());
    [&VIP.octets()[..], &port, &timing].concat()
}

/// The sums over all CPUs of the first entries of a map.
fn per_cpu(map: &MapImpl<'_>, entries: usize) -> Result<Vec<u64>> {
    let sum = |index: usize| {
        let values = map.lookup_percpu(&(index as u32).to_ne_bytes(), MapFlags::ANY);
        let values = values.to(|| "read what the sink counted".to_owned())?.unwrap_or_default();
        Ok(values.into_iter().map(bpf::number).sum())
    };
    (0..entries).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use etherparse::{IpNumber, PacketBuilder};
    use libbpf_rs::ProgramInput;

    use super::*;
    use crate::end_to_end::network::{BACKENDS, CLIENT};
    use crate::end_to_end::tests::is_root;

    const DROP: u32 = 1;
    const PASS: u32 = 2;

    /// An IPv4 packet to the service, or to another port, with a time stamp of long ago.
    fn packet(to: Ipv4Addr, port: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(CLIENT.octets(), to.octets(), 64).udp(7, port);
        builder.write(&mut packet, &1u64.to_ne_bytes()).unwrap();
        packet
    }

    fn frame(packet: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &[8, 0], packet].concat()
    }

    fn tunnel(inner: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.write(&mut packet, IpNumber::IPV4, inner).unwrap();
        packet
    }

    #[test]
    fn frames_are_counted_by_their_form_and_the_rest_passes() {
        if !is_root() {
            return;
        }
        let object = load().unwrap();
        let count = |name, entries| per_cpu(&bpf::map(&object, name).unwrap(), entries).unwrap();
        let run = |packet: &[u8]| {
            let mut out = vec![0; 2048];
            let frame = frame(packet);
            let input =
                ProgramInput { data_in: Some(&frame), data_out: Some(&mut out), ..Default::default() };
            bpf::program(&object).unwrap().test_run(input).unwrap().return_value
        };
        for (timing, timed) in [(false, 0), (true, 4)] {
            let map = bpf::map(&object, "settings").unwrap();
            map.update(&[0; 4], &settings(timing), MapFlags::ANY).unwrap();
            let as_sent = packet(VIP, UDP_PORT);
            assert_eq!(run(&as_sent), DROP);
            assert_eq!(run(&tunnel(&as_sent)), DROP);
            assert_eq!(run(&packet(BACKENDS[0], UDP_PORT)), DROP);
            assert_eq!(run(&packet(BACKENDS[1], UDP_PORT)), DROP);
            assert_eq!(run(&packet(VIP, UDP_PORT + 1)), PASS);
            assert_eq!(run(&tunnel(&packet(VIP, UDP_PORT + 1))), PASS);
            assert_eq!(count("delays", BUCKETS).iter().sum::<u64>(), timed);
        }
        assert_eq!(count("counts", KINDS.len()), [2, 2, 4]);
    }
}
