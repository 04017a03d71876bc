//! Decides how the program gets onto a NIC: in which mode, and whether the pinned link that a former process
//! left is taken over or replaced.
//!
//! Attaching a first program resets many NICs; replacing the program of a link is a pointer swap. So a link
//! that does what is wanted is always kept.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use libbpf_rs::{Link, Program, Xdp, XdpFlags};
use rustix::io::Errno;
use shunt_api::snapshot::XdpMode;

use super::error::{ProgramError, refused};
use super::link;
use super::pins::Directory;

/// `NETDEV_XDP_ACT_BASIC` of linux/netdev.h: the driver runs XDP programs as the NIC is set up now.
const DRIVER_RUNS_XDP: u64 = 1;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// How attaching went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where the program runs.
    pub mode: AttachedMode,
    /// The program replaced a former process's in place, without a gap or a NIC reset.
    pub took_over: bool,
}

/// A NIC, and the program it is to run.
pub(super) struct Target<'a> {
    pub nic: &'a str,
    pub ifindex: u32,
    pub program: &'a Program<'a>,
}

impl Target<'_> {
    /// Attaches the program and pins its link in `directory`.
    pub fn attach(&self, directory: &Directory, wanted: XdpMode) -> Result<Attached, ProgramError> {
        let pin = directory.link(self.nic);
        if pin.exists() {
            if let Some(mode) = self.take_over(&pin, wanted)? {
                return Ok(Attached { mode, took_over: true });
            }
            directory.detach(self.nic)?;
        }
        let mode = self.attach_anew(&pin, wanted)?;
        Ok(Attached { mode, took_over: false })
    }

    /// Puts the program into the pinned link, if that is on this NIC in a mode that serves.
    fn take_over(&self, pin: &Path, wanted: XdpMode) -> Result<Option<AttachedMode>, ProgramError> {
        let mut link = Link::open(pin).map_err(refused(format!("open {}", pin.display())))?;
        let held = link::held(link.as_fd()).map_err(refused(format!("read {}", pin.display())))?;
        if held.ifindex != self.ifindex {
            return Ok(None);
        }
        let state = self.state()?;
        let mode = match held.program {
            program if program == state.drv_prog_id => AttachedMode::Native,
            program if program == state.skb_prog_id => AttachedMode::Generic,
            // The same index in another network namespace.
            _ => return Ok(None),
        };
        if !serves(mode, wanted, state.feature_flags & DRIVER_RUNS_XDP != 0) {
            return Ok(None);
        }
        if (mode, wanted) == (AttachedMode::Generic, XdpMode::Auto) {
            warn_generic(self.nic, "as before");
        }
        link.update_prog(self.program)
            .map_err(refused(format!("replace the XDP program of {}", self.nic)))?;
        Ok(Some(mode))
    }

    fn attach_anew(&self, pin: &Path, wanted: XdpMode) -> Result<AttachedMode, ProgramError> {
        let native = || self.attach_as(AttachedMode::Native, pin);
        let generic = || self.attach_as(AttachedMode::Generic, pin);
        match wanted {
            XdpMode::Native => native(),
            XdpMode::Generic => generic(),
            XdpMode::Auto => match native() {
                Err(ProgramError::NoNativeMode { nic, cause }) => {
                    warn_generic(&nic, &cause.to_string());
                    generic()
                }
                other => other,
            },
        }
    }

    fn attach_as(&self, mode: AttachedMode, pin: &Path) -> Result<AttachedMode, ProgramError> {
        let flags = match mode {
            AttachedMode::Native => XdpFlags::DRV_MODE,
            AttachedMode::Generic => XdpFlags::SKB_MODE,
        };
        let link = link::create(self.program.as_fd(), self.ifindex, &flags)
            .map_err(|cause| self.not_attached(mode, cause))?;
        link::pin(link.as_fd(), pin).map_err(refused(format!("pin {}", pin.display())))?;
        Ok(mode)
    }

    fn not_attached(&self, mode: AttachedMode, cause: io::Error) -> ProgramError {
        let nic = self.nic.to_owned();
        match Errno::from_io_error(&cause) {
            Some(Errno::BUSY | Errno::EXIST) => self.busy(),
            // The kernel answers INVAL also when the NIC has just gone.
            Some(Errno::INVAL) if self.state().is_err() => ProgramError::NoSuchNic { nic },
            // What drivers answer when they have no XDP, or not with this MTU or number of queues.
            Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE | Errno::NOSPC)
                if mode == AttachedMode::Native =>
            {
                ProgramError::NoNativeMode { nic, cause }
            }
            _ => refused(format!("attach the XDP program to {nic} in {mode} mode"))(cause),
        }
    }

    /// Names the program in the way and the command that removes it.
    fn busy(&self) -> ProgramError {
        let nic = self.nic.to_owned();
        let state = match self.state() {
            Ok(state) => state,
            Err(error) => return error,
        };
        let generic = state.skb_prog_id != 0;
        let id = if generic { state.skb_prog_id } else { state.drv_prog_id.max(state.hw_prog_id) };
        let name = ProgInfoIter::default().find(|program| program.id == id).map(|program| program.name);
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let remedy = match link_of(id, self.ifindex) {
            Some(link) => format!("end the program that put it there, or `bpftool link detach id {link}`"),
            None if generic => format!("ip link set dev {nic} xdpgeneric off"),
            None => format!("ip link set dev {nic} xdp off"),
        };
        ProgramError::Busy { nic, program: format!("\"{name}\" (id {id})"), remedy }
    }

    /// What is attached to the NIC, and what its driver can do.
    fn state(&self) -> Result<libbpf_sys::bpf_xdp_query_opts, ProgramError> {
        let nic = i32::try_from(self.ifindex).expect("the kernel's own indices are positive ints");
        let query = Xdp::new(self.program.as_fd()).query(nic, XdpFlags::NONE);
        query.map_err(refused(format!("ask for the XDP programs of {}", self.nic)))
    }
}

fn warn_generic(nic: &str, cause: &str) {
    tracing::warn!(
        "{nic}: its driver does not run XDP programs as the NIC is set up ({cause}); using generic mode, which \
         is several times slower. Often a large MTU or too few receive queues are in the way. To accept this, \
         set xdp = \"generic\" for {nic}."
    );
}

/// Whether a link in mode `existing` can be kept. Automatic mode leaves a generic link only if the driver has
/// meanwhile become able to do better.
fn serves(existing: AttachedMode, wanted: XdpMode, driver_runs_xdp: bool) -> bool {
    match (existing, wanted) {
        (AttachedMode::Native, XdpMode::Native | XdpMode::Auto) => true,
        (AttachedMode::Generic, XdpMode::Generic) => true,
        (AttachedMode::Generic, XdpMode::Auto) => !driver_runs_xdp,
        (AttachedMode::Native, XdpMode::Generic) | (AttachedMode::Generic, XdpMode::Native) => false,
    }
}

/// Kernel id of the link that holds a program on a NIC; programs attached by `ip link` have none.
fn link_of(program: u32, nic: u32) -> Option<u32> {
    LinkInfoIter::default()
        .find(|link| {
            link.prog_id == program && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == nic)
        })
        .map(|link| link.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_kept_when_its_mode_serves() {
        use AttachedMode::{Generic, Native};
        for (existing, wanted, driver_runs_xdp, kept) in [
            (Native, XdpMode::Native, true, true),
            (Native, XdpMode::Auto, true, true),
            (Native, XdpMode::Auto, false, true),
            (Native, XdpMode::Generic, true, false),
            (Generic, XdpMode::Generic, true, true),
            (Generic, XdpMode::Native, true, false),
            (Generic, XdpMode::Auto, false, true),
            (Generic, XdpMode::Auto, true, false),
        ] {
            let answer = serves(existing, wanted, driver_runs_xdp);
            assert_eq!(answer, kept, "{existing} when {wanted:?} is wanted, driver {driver_runs_xdp}");
        }
    }
}
