//! The control word of a flow entry: everything about it but its key, in one atomic 64-bit word.
//!
//! ```text
//!  63           40 39          20 19    16 15              0
//! +---------------+--------------+--------+-----------------+
//! |  backend (24) | seconds (20) | state  |  version (16)   |
//! +---------------+--------------+--------+-----------------+
//! ```
//! `version` grows each time the entry is claimed for another flow, so that a compare-and-swap which expects
//! an old word does not hit a newer flow (no ABA short of 65,536 claims between two instructions). `seconds` is the
//! time of the last packet modulo 2^20 (12 days): timeouts are at most a day and the sweep passes far more often, so
//! differences are exact.

/// Identity of a backend in this process; see `table::Compiler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

impl BackendId {
    /// One more than the largest.
    pub const LIMIT: u32 = 1 << 24;
}

/// Seconds since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

const FRESH_SHIFT: u32 = 6;

/// Seconds for which a packet of an entry that is over after `limit_s` need not be noted.
pub fn fresh_s(limit_s: u32) -> u32 {
    limit_s >> FRESH_SHIFT
}

/// Seconds after which an entry is over, for a flow that shall be remembered for `idle_s` after its last packet: its
/// time may be behind by a 64th of that ([`Control::is_fresh`]).
pub fn kept_s(idle_s: u32) -> u32 {
    idle_s.saturating_add(idle_s / ((1 << FRESH_SHIFT) - 1))
}

const SECONDS_MASK: u32 = (1 << 20) - 1;

/// Where an entry is in its life.
///
/// ```text
/// Empty → Claimed → Tentative → Unconfirmed → Established → Closing → Reset     (TCP)
///                                           ↘ Confirmed                         (UDP)
/// ```
/// and back to Empty by the sweep, or to Claimed by another flow: from Unconfirmed at any time, from the
/// others only after their idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Free.
    Empty = 0,
    /// A worker is writing the key; nobody else reads it.
    Claimed = 1,
    /// The key is readable, but a duplicate may still win.
    Tentative = 2,
    /// Seen with one packet (TCP: with nothing but SYNs).
    Unconfirmed = 3,
    /// UDP with two packets or more.
    Confirmed = 4,
    /// TCP with traffic.
    Established = 5,
    /// TCP after the client's FIN.
    Closing = 6,
    /// TCP after the client's RST.
    Reset = 7,
    /// No flow: the backend that a client keeps over its connections.
    Affinity = 8,
}

impl State {
    /// How many there are: the length of a table by state.
    pub const COUNT: usize = 9;

    /// Values of the four bits of a control word.
    pub const BITS: usize = 16;

    /// By the four bits of a control word, of which the rest never occurs.
    const BY_BITS: [Self; Self::BITS] = [
        Self::Empty,
        Self::Claimed,
        Self::Tentative,
        Self::Unconfirmed,
        Self::Confirmed,
        Self::Established,
        Self::Closing,
        Self::Reset,
        Self::Affinity,
        Self::Empty,
        Self::Empty,
        Self::Empty,
        Self::Empty,
        Self::Empty,
        Self::Empty,
        Self::Empty,
    ];

    /// Whether a flow may be found in it.
    pub fn is_live(self) -> bool {
        self as u8 >= Self::Unconfirmed as u8
    }

    /// In tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Claimed => "claimed",
            Self::Tentative => "tentative",
            Self::Unconfirmed => "unconfirmed",
            Self::Confirmed => "confirmed",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::Affinity => "affinity",
        }
    }
}

/// The word itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Control(pub u64);

impl Control {
    /// Of a live or tentative entry.
    pub fn new(backend: BackendId, now: Seconds, state: State, version: u16) -> Self {
        debug_assert!(backend.0 < BackendId::LIMIT);
        let seconds = u64::from(now.0 & SECONDS_MASK);
        Self(u64::from(backend.0) << 40 | seconds << 20 | (state as u64) << 16 | u64::from(version))
    }

    /// The backend the flow goes to.
    #[inline(always)]
    pub fn backend(self) -> BackendId {
        BackendId((self.0 >> 40) as u32)
    }

    /// Where in its life.
    #[inline(always)]
    pub fn state(self) -> State {
        State::BY_BITS[self.state_bits()]
    }

    /// The bits of [`Self::state`], for tables of [`State::BITS`].
    #[inline(always)]
    pub fn state_bits(self) -> usize {
        (self.0 >> 16) as usize & (State::BITS - 1)
    }

    /// Nobody's.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.state_bits() == State::Empty as usize
    }

    /// Whether a flow may be found in it; see [`State::is_live`].
    #[inline(always)]
    pub fn is_live(self) -> bool {
        self.state_bits() >= State::Unconfirmed as usize
    }

    /// Which claim of the entry this is.
    #[inline(always)]
    pub fn version(self) -> u16 {
        self.0 as u16
    }

    /// Seconds since the last packet. A packet timed by another worker may be a second ahead of `now`.
    #[inline(always)]
    pub fn idle_s(self, now: Seconds) -> u32 {
        let then = (self.0 >> 20) as u32 & SECONDS_MASK;
        let age = now.0.wrapping_sub(then) & SECONDS_MASK;
        if age > SECONDS_MASK / 2 { 0 } else { age }
    }

    /// Whether the last packet is so recent that a newer one need not be noted: within a 64th of the idle time, which
    /// such times are longer by ([`kept_s`]).
    pub fn is_fresh(self, now: Seconds, limit_s: u32) -> bool {
        self.idle_s(now) <= fresh_s(limit_s)
    }

    /// The same entry in another state.
    pub fn with_state(self, state: State) -> Self {
        Self(self.0 & !(0xf << 16) | (state as u64) << 16)
    }

    /// The same entry, touched now.
    pub fn with_time(self, now: Seconds) -> Self {
        Self(self.0 & !(u64::from(SECONDS_MASK) << 20) | u64::from(now.0 & SECONDS_MASK) << 20)
    }

    /// Claimed for another flow.
    pub fn claimed(self) -> Self {
        Self::new(BackendId(0), Seconds(0), State::Claimed, self.version().wrapping_add(1))
    }

    /// Given back.
    pub fn emptied(self) -> Self {
        Self::new(BackendId(0), Seconds(0), State::Empty, self.version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let control = Control::new(BackendId(0xab_cdef), Seconds(123_456), State::Established, 0xfedc);
        assert_eq!(
            (control.backend(), control.state(), control.version()),
            (BackendId(0xab_cdef), State::Established, 0xfedc)
        );
        assert_eq!(control.idle_s(Seconds(123_460)), 4);
        let closing = control.with_state(State::Closing).with_time(Seconds(200_000));
        assert_eq!(closing, Control::new(BackendId(0xab_cdef), Seconds(200_000), State::Closing, 0xfedc));
        assert_eq!(Control::new(BackendId(1), Seconds(0), State::Empty, 0xffff).claimed().version(), 0);
    }

    #[test]
    fn idle_time_survives_the_wrap_and_a_clock_a_second_ahead() {
        let control = Control::new(BackendId(1), Seconds((1 << 20) - 5), State::Confirmed, 0);
        assert_eq!(control.idle_s(Seconds((1 << 20) + 5)), 10);
        assert_eq!(control.idle_s(Seconds((1 << 20) - 6)), 0);
    }

    #[test]
    fn a_fresh_flow_lives_as_long_as_it_should() {
        let some = if cfg!(miri) { 0..200 } else { 0..20_000 };
        for idle_s in some.chain([86_400, 604_800]) {
            let limit_s = kept_s(idle_s);
            let control = Control::new(BackendId(1), Seconds(7), State::Confirmed, 0);
            let unnoted_s =
                (0..=limit_s).take_while(|age| control.is_fresh(Seconds(7 + age), limit_s)).count() as u32
                    - 1;
            assert!(limit_s - unnoted_s >= idle_s, "{idle_s}");
            assert!(limit_s - idle_s <= idle_s / 63, "{idle_s}");
        }
    }

    #[test]
    fn every_state_reads_back() {
        for state in &State::BY_BITS[..State::COUNT] {
            let state = *state;
            assert_eq!(Control::new(BackendId(0), Seconds(0), state, 0).state(), state);
            assert_eq!(state.is_live(), !matches!(state, State::Empty | State::Claimed | State::Tentative));
        }
    }
}
