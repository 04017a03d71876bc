//! What is known of one neighbour, and what each word of the kernel about it changes. Pure.
//!
//! A MAC address that worked stays in use while the kernel looks for the neighbour again, until the kernel
//! says that the neighbour does not answer: a probe or a flushed table must not stop traffic.

use netlink_packet_route::neighbour::NeighbourState;
use shunt_api::mac::MacAddress;

/// How far the kernel is with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The kernel has no entry.
    Absent,
    /// Broadcast probes are out, or nobody has asked yet (INCOMPLETE, NONE).
    Resolving,
    /// Known to be right (REACHABLE) or said to be right (PERMANENT, NOARP).
    Confirmed,
    /// Right when it was last used (STALE, DELAY).
    Doubtful,
    /// Unicast probes are out (PROBE).
    Probing,
    /// The neighbour did not answer (FAILED).
    Failed,
}

/// What has to be asked of the kernel for a neighbour in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing. Asking about a PERMANENT entry would even strip it of being permanent.
    Nothing,
    /// Confirm that the MAC address is still right.
    Confirm,
    /// Find the MAC address.
    Resolve,
}

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// The address to send to, if any.
    pub mac: Option<MacAddress>,
    /// How far the kernel is.
    pub state: State,
}

impl Neighbour {
    /// A neighbour nothing is known about.
    pub const UNKNOWN: Self = Self { mac: None, state: State::Absent };

    /// The kernel reports `state` with `mac`.
    ///
    /// By itself the kernel gives a neighbour up only after probes (PROBE, INCOMPLETE → FAILED). FAILED
    /// straight from a valid state is how `ip neigh del` and `flush` look: the neighbour may well be there,
    /// so the address stays in use while it is looked up anew.
    pub fn heard(self, state: NeighbourState, mac: Option<MacAddress>) -> Self {
        let known = match state {
            NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => State::Confirmed,
            NeighbourState::Stale | NeighbourState::Delay => State::Doubtful,
            NeighbourState::Probe => State::Probing,
            NeighbourState::Failed => return self.failed(),
            _ => State::Resolving,
        };
        match mac {
            Some(_) if known != State::Resolving => Self { mac, state: known },
            _ => Self { mac: self.mac, state: State::Resolving },
        }
    }

    fn failed(self) -> Self {
        match self.state {
            State::Confirmed | State::Doubtful => self.removed(),
            _ => Self { mac: None, state: State::Failed },
        }
    }

    /// The kernel dropped its entry (garbage collection, a flush, the NIC's own MAC address changed).
    pub fn removed(self) -> Self {
        Self { mac: self.mac, state: State::Absent }
    }

    /// The NIC lost its link: an address that the kernel no longer vouches for is forgotten, since another
    /// host may be at the end of the cable when it comes back.
    pub fn unplugged(self) -> Self {
        match self.state {
            State::Absent | State::Resolving => Self { mac: None, state: self.state },
            _ => self,
        }
    }

    /// What to ask of the kernel as long as the neighbour is in use.
    pub fn need(self) -> Need {
        match self.state {
            State::Confirmed => Need::Nothing,
            State::Doubtful | State::Probing => Need::Confirm,
            State::Absent | State::Resolving | State::Failed => Need::Resolve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Option<MacAddress> = Some(MacAddress([2, 0, 0, 0, 0, 1]));
    const NEW: Option<MacAddress> = Some(MacAddress([2, 0, 0, 0, 0, 2]));

    #[test]
    fn every_report_from_every_state() {
        use NeighbourState as Said;
        let before = [State::Absent, State::Resolving, State::Confirmed, State::Doubtful, State::Probing];
        for state in before {
            let neighbour = Neighbour { mac: OLD, state };
            for (said, after) in [
                (Said::Reachable, State::Confirmed),
                (Said::Permanent, State::Confirmed),
                (Said::Noarp, State::Confirmed),
                (Said::Stale, State::Doubtful),
                (Said::Delay, State::Doubtful),
                (Said::Probe, State::Probing),
            ] {
                assert_eq!(
                    neighbour.heard(said, NEW),
                    Neighbour { mac: NEW, state: after },
                    "{state:?} {said}"
                );
                let without_address = Neighbour { mac: OLD, state: State::Resolving };
                assert_eq!(neighbour.heard(said, None), without_address, "{state:?} {said}");
            }
            for said in [Said::Incomplete, Said::None, Said::Other(0x300)] {
                let resolving = Neighbour { mac: OLD, state: State::Resolving };
                assert_eq!(neighbour.heard(said, None), resolving, "{state:?} {said}");
            }
            assert_eq!(neighbour.removed(), Neighbour { mac: OLD, state: State::Absent }, "{state:?}");
        }
    }

    #[test]
    fn failed_is_believed_after_probes_and_not_after_a_deletion() {
        for (state, mac_after, state_after, need) in [
            (State::Confirmed, OLD, State::Absent, Need::Resolve),
            (State::Doubtful, OLD, State::Absent, Need::Resolve),
            (State::Probing, None, State::Failed, Need::Resolve),
            (State::Resolving, None, State::Failed, Need::Resolve),
            (State::Absent, None, State::Failed, Need::Resolve),
        ] {
            let after = Neighbour { mac: OLD, state }.heard(NeighbourState::Failed, None);
            assert_eq!(after, Neighbour { mac: mac_after, state: state_after }, "{state:?}");
            assert_eq!(after.need(), need);
        }
    }

    #[test]
    fn a_lost_link_forgets_only_what_the_kernel_does_not_vouch_for() {
        for (state, mac_after) in [
            (State::Absent, None),
            (State::Resolving, None),
            (State::Confirmed, OLD),
            (State::Doubtful, OLD),
            (State::Probing, OLD),
        ] {
            assert_eq!(Neighbour { mac: OLD, state }.unplugged(), Neighbour { mac: mac_after, state });
        }
    }
}
