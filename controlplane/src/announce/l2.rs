//! Answers for VIPs and SNAT addresses on the segments of the NICs, so that clients and routers there find them:
//! ARP for IPv4, neighbour discovery for IPv6, announcements unasked, and an alarm if another station claims one
//! of the addresses or answers when it is asked for it. Of several boxes, an election decides which answers.
//!
//! ```text
//!                     frames ──→ ┌───────────────────────────────────────────┐ ──→ frames
//!  driver: sockets,   NICs   ──→ │ Station: Election, Schedule, Conflicts    │ ──→ happenings
//!  NICs, time         wishes ──→ │          (pure)   arp, ndp, vrrp: bytes   │ ──→ L2Status
//!                     time   ──→ └───────────────────────────────────────────┘ ──→ next deadline
//! ```
//!
//! It never touches the kernel's own addresses and neighbours, and decides nothing about which addresses there are.
//!
//! **A thread of its own.** A master must advertise every 200 ms, and a backup must hear it, whatever else the
//! control plane is busy with: compiling a large configuration alone takes longer. So [`run`] does all of this on
//! a thread with a runtime of its own.
//!
//! **An election of our own, and not keepalived's.** Who answers must be able to forward. Here that is one value,
//! [`Settings::able`], and a box whose dataplane stops resigns with its next breath; with keepalived it would be a
//! script that is polled. Nor is there a second list of the VIPs to keep in agreement, a second process that can
//! live on when the first has died, or a kernel that has the VIPs as its own and answers for them when it should
//! not. The protocol is the same, VRRPv3 (RFC 5798), for its states are proven and every sniffer reads it.
//!
//! **No virtual MAC address.** A box answers with the NIC's own, and not with 00-00-5e-00-01-XX (RFC 5798 §7.3): the
//! NIC's filter then needs no second address and no promiscuous mode, which drivers with XDP handle unevenly, and
//! switches see no address move. The price is that a takeover must be announced, by gratuitous ARP and
//! unsolicited advertisements, which keepalived without `use_vmac` does too. For the same reason no box has
//! priority 255: none owns the addresses.
//!
//! **One election for the box, on all its NICs.** The box forwards for all addresses or for none, so that one
//! mastership goes for both families and all segments; over IPv4 where the NIC has an address, else over IPv6
//! link-local. It is held on every NIC: two boxes that still hear each other on one segment never both answer.
//! A box without link on one of its NICs resigns and is elected with priority 1 from then on, so that any box with
//! all its links is preferred. Boxes of equal priority should be numbered in the same order on all segments.

mod arp;
mod conflicts;
mod driver;
mod election;
mod frame;
mod groups;
mod link;
mod ndp;
mod ports;
mod schedule;
mod socket;
mod station;
mod vrrp;

use std::{io, thread};

use shunt_api::config::AnnounceL2;
use shunt_api::status::L2Status;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tracing::Level;

use super::Wanted;
use crate::journal::{Happening, Journal};

/// How to announce on the segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The names of the NICs that Shunt serves.
    pub nics: Vec<String>,
    /// What the operator asks for.
    pub l2: AnnounceL2,
    /// Whether the dataplane forwards: a box that cannot answers nothing, and resigns from the election.
    pub able: bool,
}

/// Announces what is wanted, on a thread of its own. Returns once the sender of `wanted` is gone, the box has
/// resigned and everything is closed.
pub async fn run(
    wanted: watch::Receiver<Wanted<Settings>>,
    journal: Journal,
    standing: watch::Sender<L2Status>,
) {
    let (ended, end) = oneshot::channel::<()>();
    let told = journal.clone();
    let work = move || {
        if let Err(error) = on_this_thread(wanted, &journal, &standing) {
            tell_failure(&journal, &error);
        }
        drop(ended);
    };
    match thread::Builder::new().name("announce-l2".into()).spawn(work) {
        // Nothing is ever sent: that the sender is dropped is the end.
        Ok(_) => drop(end.await),
        Err(error) => tell_failure(&told, &error),
    }
}

fn on_this_thread(
    wanted: watch::Receiver<Wanted<Settings>>,
    journal: &Journal,
    standing: &watch::Sender<L2Status>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(driver::drive(wanted, journal, standing));
    Ok(())
}

fn tell_failure(journal: &Journal, error: &io::Error) {
    journal.tell(Happening {
        level: Level::ERROR,
        subject: "announce.l2".into(),
        text: "answers for no address".into(),
        reason: Some(format!(
            "its thread cannot start: {error}; free memory or raise TasksMax, and start again"
        )),
    });
}

#[cfg(test)]
mod tests;
