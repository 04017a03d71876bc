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
        let what = || "load the sink".to_owned();
        let object = ObjectBuilder::default().open_memory(&OBJECT.0).to(what)?.load().to(what)?;
        let link = bpf::attach_xdp(&network.backend.namespace, NODE_NIC, &object)?;
        let sink = Self { object, _link: link };
        sink.set_timing(false)?;
        Ok(sink)
    }

    /// From now on notes, or does not note, how long frames took.
    pub fn set_timing(&self, timing: bool) -> Result<()> {
        let (port, timing) = (UDP_PORT.to_be_bytes(), u16::from(timing).to_ne_bytes());
        let settings = [&VIP.octets()[..], &port, &timing].concat();
        let set = bpf::map(&self.object, "settings")?.update(&[0; 4], &settings, MapFlags::ANY);
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

/// The sums over all CPUs of the first entries of a map.
fn per_cpu(map: &MapImpl<'_>, entries: usize) -> Result<Vec<u64>> {
    let sum = |index: usize| {
        let values = map.lookup_percpu(&(index as u32).to_ne_bytes(), MapFlags::ANY);
        let values = values.to(|| "read what the sink counted".to_owned())?.unwrap_or_default();
        Ok(values.into_iter().map(bpf::number).sum())
    };
    (0..entries).map(sum).collect()
}
