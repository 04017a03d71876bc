//! Loads the program that delivers probes (`bpf/probe.bpf.c`), attaches it where packets leave by the probe device,
//! and fills its map.
//!
//! By clsact and not by a link, which only kernels since 6.6 have for this. So the program stays on the device after a
//! crash, with the ways it had, until the next process replaces it or the device is removed.

use std::os::fd::AsFd;

use libbpf_rs::{MapHandle, Object, ObjectBuilder, Program, TC_EGRESS, TcHook, TcHookBuilder};
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
    /// Its place. It has the number of a descriptor of `_object`.
    hook: TcHook,
    /// Of the program in the kernel.
    id: u32,
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
        let id = Program::id_from_fd(program.as_fd()).map_err(refused(load))?;
        let mut hook = TcHookBuilder::new(program.as_fd())
            .ifindex(ifindex)
            .replace(true)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(TC_EGRESS);
        place(&mut hook)?;
        Ok(Self { ways, counts, content: maps::Content::new(), hook, id, _object: object })
    }

    /// Puts the program back if it is no longer in its place. Returns whether that was so. What is right is only asked
    /// for, so no packet notices.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stay(&mut self) -> Result<bool, ProgramError> {
        // Why it cannot be told is of no interest: placing it then fails likewise, or mends it.
        if self.hook.query().is_ok_and(|present| present == self.id) {
            return Ok(false);
        }
        place(&mut self.hook).map(|()| true)
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

/// Attaches the hook's program, in the place of another that is there. Packets meet one or the other.
fn place(hook: &mut TcHook) -> Result<(), ProgramError> {
    let action = "attach the program that delivers health checks (it needs sch_clsact and cls_bpf)";
    hook.create().and_then(|mut hook| hook.attach()).map(drop).map_err(refused(action))
}
