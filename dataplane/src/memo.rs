//! What a flow's entry says besides its backend, in one word: enough to send a packet of an established flow on
//! without another look at its service, for as long as that does not change.
//!
//! ```text
//!  63         44 43  42 41          28 27         16 15           0
//! +-------------+------+--------------+-------------+--------------+
//! | version (20)|mode 2| station (14) | source (12) |   port (16)  |
//! +-------------+------+--------------+-------------+--------------+
//! ```
//! `version` is the listener's when the flow was let in ([`crate::table::Listener::version`]; 0: never), `mode` how its
//! packets get to the backend. `source` and `port` are what a translated flow leaves by, `station` tells the sender of
//! its packets from most others, because replies go back there.

use shunt_api::snapshot::Mode;

use crate::nat::{Binding, LastHop};

/// One more than the largest version.
pub const VERSIONS: u32 = 1 << 20;

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memo(pub u64);

const STATION_BITS: u32 = 14;

impl Memo {
    /// Of a flow of which nothing may be concluded.
    pub const NONE: Self = Self(0);

    /// Of a flow that is not translated.
    pub fn new(version: u32, mode: Mode) -> Self {
        Self(u64::from(version) << 44 | (mode as u64) << 42)
    }

    /// Of a translated flow whose packets come from here.
    pub fn translated(version: u32, last_hop: LastHop, binding: Binding) -> Self {
        let station = u64::from(station(last_hop, binding)) << 28;
        Self(Self::new(version, Mode::Nat).0 | station | u64::from(binding.0))
    }

    /// The listener's version that the flow was let in under.
    #[inline(always)]
    pub fn version(self) -> u32 {
        (self.0 >> 44) as u32
    }

    /// How packets get to the backend: the number of the [`Mode`], or 3.
    #[inline(always)]
    pub fn mode_bits(self) -> usize {
        (self.0 >> 42) as usize & 3
    }

    /// Whether a packet may come from where the flow's packets do; a wrong one passes once in 16,384.
    #[inline(always)]
    pub fn may_come_by(self, last_hop: LastHop) -> bool {
        (self.0 >> 28) as u16 & ((1 << STATION_BITS) - 1) == station(last_hop, self.binding())
    }

    /// What a translated flow leaves by.
    #[inline(always)]
    pub fn binding(self) -> Binding {
        Binding(self.0 as u32 & ((1 << 28) - 1))
    }
}

/// Mixed with the binding, so that two stations that look alike do so for few flows.
#[inline(always)]
fn station(LastHop(word): LastHop, binding: Binding) -> u16 {
    ((word ^ u64::from(binding.0) << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - STATION_BITS)) as u16
}

#[cfg(test)]
mod tests {
    use shunt_api::mac::MacAddress;

    use super::*;
    use crate::packet::ethernet::Tags;
    use crate::port::NicIndex;

    #[test]
    fn fields_do_not_touch_each_other() {
        let hop = |nic| LastHop::new(NicIndex(nic), MacAddress([0xfe; 6]), Tags::None).unwrap();
        for mode in [Mode::Dr, Mode::Ipip, Mode::Nat] {
            let memo = Memo::new(VERSIONS - 1, mode);
            assert_eq!(
                (memo.version(), memo.mode_bits(), memo.binding()),
                (VERSIONS - 1, mode as usize, Binding::NONE)
            );
        }
        let binding = Binding((1 << 28) - 1);
        let memo = Memo::translated(1, hop(1), binding);
        assert_eq!((memo.version(), memo.mode_bits(), memo.binding()), (1, Mode::Nat as usize, binding));
        assert!(memo.may_come_by(hop(1)) && !memo.may_come_by(hop(2)));
    }
}
