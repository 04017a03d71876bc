//! Loads the program that delivers probes (`bpf/probe.bpf.c`), attaches it where packets leave by the probe device,
//! and fills its map.
//!
//! By clsact and not by a link, which only kernels since 6.6 have for this. So the program stays on the device after a
//! crash, with the ways it had, until the next process replaces it or the device is removed.

use std::os::fd::AsFd;

use libbpf_rs::{MapHandle, Object, ObjectBuilder, TC_EGRESS, TcHookBuilder};
use shunt_api::status::ProbeCounters;

use super::error::{ProgramError, refused};
use super::{Aligned, maps};

/// The compiled program.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/probe.bpf.o")));

/// Name of the filter on the device: there is one, and it is ours.
const HANDLE: u32 = 1;
/// The first to see a packet.
const PRIORITY: u32 = 1;

/// The program on the probe device.
#[derive(Debug)]
pub struct Deliverer {
    ways: MapHandle,
    counts: MapHandle,
    /// What the map holds: nobody else writes to it.
    content: maps::Content,
    /// Keeps the program while no device does.
    _object: Object,
}

impl Deliverer {
    /// Puts the program, without any way, on a device of this network namespace, in the place of a former process's.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach(ifindex: u32) -> Result<Self, ProgramError> {
        let load = "load the program that delivers health checks";
        let open = ObjectBuilder::default().open_memory(&OBJECT.0).map_err(refused(load))?;
        let object = open.load().map_err(refused(load))?;
        let (ways, counts) = (maps::map(&object, "ways")?, maps::map(&object, "counts")?);
        let ifindex = i32::try_from(ifindex).expect("the kernel's own indices are positive ints");
        let program = object.progs().next().expect("probe.bpf.c defines one program");
        let mut hook = TcHookBuilder::new(program.as_fd())
            .ifindex(ifindex)
            .replace(true)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(TC_EGRESS);
        let action = "attach the program that delivers health checks (it needs sch_clsact and cls_bpf)";
        hook.create().and_then(|mut hook| hook.attach()).map_err(refused(action))?;
        Ok(Self { ways, counts, content: maps::Content::new(), _object: object })
    }

    /// Makes `wanted` the ways that there are. Adds and changes before it removes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fill(&mut self, wanted: &maps::Content) -> Result<(), ProgramError> {
        maps::change("ways of health checks", &self.ways, &self.content, wanted)?;
        self.content.clone_from(wanted);
        Ok(())
    }

    /// What the program has counted since it was attached.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self) -> Result<ProbeCounters, ProgramError> {
        let count = |index| maps::count(&self.counts, index);
        Ok(ProbeCounters {
            ways: self.content.len() as u64 / 2,
            delivered: count(0)?,
            dropped_no_probe: count(1)?,
            dropped_no_way: count(2)?,
            dropped_too_big: count(3)?,
        })
    }
}
