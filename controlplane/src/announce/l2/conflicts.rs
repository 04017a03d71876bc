//! Who else claims our addresses. Pure, without a clock.
//!
//! A claim is told once, and kept for as long as it is repeated and at least [`QUIET`] longer. Whoever sends frames
//! on the segment can make up claims without end, so there is room for [`ROOM`], and [`TOLD`] are told in a
//! [`WINDOW`]: what goes beyond is counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use shunt_api::mac::MacAddress;
use shunt_api::status::{L2Conflict, TimeMs};

/// How long a claim is remembered after it was made last, at least.
const QUIET: Duration = Duration::from_secs(300);
/// And for so many intervals: a station that only answers is heard once in each, if nothing is lost.
const QUIET_INTERVALS: u32 = 3;
/// Most claims kept: more than a segment has by mistake.
const ROOM: usize = 256;
/// Most claims told within a window.
const TOLD: u32 = 20;
/// What they are counted over.
const WINDOW: Duration = Duration::from_secs(60);

/// The claims of others.
#[derive(Debug, Default)]
pub struct Conflicts {
    known: BTreeMap<(IpAddr, MacAddress), (L2Conflict, Instant)>,
    left_out: u64,
    window: Option<(Instant, u32)>,
}

/// What to say of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It is known, or there are too many.
    Nothing,
    /// It is new.
    This,
    /// It is new, and the last that is told for a while.
    ThisAndNoMore,
}

impl Conflicts {
    /// Takes in a claim. `wall` is now by the clock on the wall.
    pub fn observe(
        &mut self,
        address: IpAddr,
        mac: MacAddress,
        nic: &str,
        now: Instant,
        wall: TimeMs,
    ) -> Tell {
        if let Some((known, last)) = self.known.get_mut(&(address, mac)) {
            (known.last_ms, *last) = (wall, now);
            return Tell::Nothing;
        }
        if self.known.len() >= ROOM {
            self.left_out += 1;
            return Tell::Nothing;
        }
        let conflict = L2Conflict { address, mac, nic: nic.to_owned(), since_ms: wall, last_ms: wall };
        self.known.insert((address, mac), (conflict, now));
        self.tell(now)
    }

    /// Forgets what has been quiet, and says what that was. Every `interval` the segment is asked anew.
    pub fn expire(&mut self, interval: Duration, now: Instant) -> Vec<L2Conflict> {
        let patience = QUIET.max(interval * QUIET_INTERVALS);
        let quiet = |last: Instant| now.saturating_duration_since(last) >= patience;
        let expired = self.known.extract_if(.., |_, (_, last)| quiet(*last));
        expired.map(|(_, (conflict, _))| conflict).collect()
    }

    /// Forgets the claims of addresses that are ours no more.
    pub fn retain(&mut self, ours: impl Fn(&IpAddr) -> bool) {
        self.known.retain(|(address, _), _| ours(address));
    }

    /// Those that are known, in the order of addresses.
    pub fn list(&self) -> Vec<L2Conflict> {
        self.known.values().map(|(conflict, _)| conflict.clone()).collect()
    }

    /// Claims that found no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn tell(&mut self, now: Instant) -> Tell {
        let begun = |(since, _): &(Instant, u32)| now.saturating_duration_since(*since) < WINDOW;
        let (since, told) = self.window.filter(begun).unwrap_or((now, 0));
        self.window = Some((since, told + 1));
        match told + 1 {
            TOLD => Tell::ThisAndNoMore,
            told if told < TOLD => Tell::This,
            _ => Tell::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0xcb00_7100 + number))
    }

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_claim_is_told_once_and_forgotten_when_quiet() {
        let mut conflicts = Conflicts::default();
        let now = Instant::now();
        assert_eq!(conflicts.observe(address(1), MAC, "eth1", now, TimeMs(1)), Tell::This);
        let later = now + QUIET / 2;
        assert_eq!(conflicts.observe(address(1), MAC, "eth1", later, TimeMs(2)), Tell::Nothing);
        assert_eq!(conflicts.expire(Duration::ZERO, now + QUIET), []);
        let listed = conflicts.list();
        assert_eq!((listed[0].since_ms, listed[0].last_ms), (TimeMs(1), TimeMs(2)));
        assert_eq!(conflicts.expire(Duration::ZERO, later + QUIET), listed);
        assert_eq!(conflicts.list(), []);
        let again = later + QUIET;
        assert_eq!(conflicts.observe(address(1), MAC, "eth1", again, TimeMs(3)), Tell::This);
    }

    #[test]
    fn a_claim_outlasts_the_pause_between_two_questions() {
        let mut conflicts = Conflicts::default();
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        conflicts.observe(address(1), MAC, "eth1", now, TimeMs(1));
        assert_eq!(conflicts.expire(hour, now + 2 * hour), []);
        assert_eq!(conflicts.expire(hour, now + 3 * hour).len(), 1);
    }

    #[test]
    fn a_flood_fills_no_log_and_no_memory() {
        let mut conflicts = Conflicts::default();
        let now = Instant::now();
        let told = |tell: Tell| tell != Tell::Nothing;
        let count = (0..10_000)
            .filter(|number| {
                told(conflicts.observe(address(number % 200 + 1000 * number), MAC, "eth1", now, TimeMs(1)))
            })
            .count();
        assert_eq!(count, TOLD as usize);
        assert_eq!((conflicts.list().len(), conflicts.left_out()), (ROOM, 10_000 - ROOM as u64));
        // Once they are forgotten, the next is told again.
        let later = now + QUIET;
        assert_eq!(conflicts.expire(Duration::ZERO, later).len(), ROOM);
        assert_eq!(conflicts.observe(address(1), MAC, "eth1", later, TimeMs(2)), Tell::This);
    }

    #[test]
    fn what_is_not_ours_is_no_conflict() {
        let mut conflicts = Conflicts::default();
        let now = Instant::now();
        conflicts.observe(address(1), MAC, "eth1", now, TimeMs(1));
        conflicts.observe(address(2), MAC, "eth1", now, TimeMs(1));
        conflicts.retain(|ours| *ours == address(2));
        assert_eq!(conflicts.list().iter().map(|known| known.address).collect::<Vec<_>>(), [address(2)]);
    }
}
