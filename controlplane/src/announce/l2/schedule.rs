//! When each address is announced unasked. Pure, without a clock.
//!
//! An address that comes up is announced at once and [`REPEATS`] times more, a second apart: an announcement is
//! never acknowledged, and a switch that has just seen a link come up may not forward yet. (keepalived sends ten
//! within five seconds, MetalLB five.) Then it is announced every interval. Thousands that came up together are
//! spread over the second half of the first interval, and keep their distance from then on; the first burst is
//! spread by [`BATCH`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Announcements that follow the first one of a burst.
const REPEATS: u8 = 2;
/// From one of a burst to the next.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Most addresses announced at once: three frames each, of which one asks who else has it, fill no queue of a NIC.
pub const BATCH: usize = 100;
/// From one batch to the next: 10,000 addresses are announced within a second.
pub const PAUSE: Duration = Duration::from_millis(10);
/// Least time between announcements that defend an address against another's claim (`DEFEND_INTERVAL` of RFC 5227).
const DEFEND_AFTER: Duration = Duration::from_secs(10);

/// The addresses and their instants.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    queue: BTreeSet<(Instant, IpAddr)>,
    addresses: BTreeMap<IpAddr, Entry>,
    /// No batch before.
    not_before: Instant,
}

#[derive(Debug)]
struct Entry {
    next: Instant,
    repeats: u8,
    /// The burst is over and the place in the interval taken.
    placed: bool,
    defended: Option<Instant>,
}

impl Schedule {
    /// Nothing to announce.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, queue: BTreeSet::new(), addresses: BTreeMap::new(), not_before: now }
    }

    /// Exactly these, every interval; those that are new begin with a burst.
    pub fn set(&mut self, addresses: &BTreeSet<IpAddr>, interval: Duration, now: Instant) {
        self.interval = interval;
        let gone: Vec<IpAddr> =
            self.addresses.keys().filter(|address| !addresses.contains(address)).copied().collect();
        for address in gone {
            if let Some(entry) = self.addresses.remove(&address) {
                self.queue.remove(&(entry.next, address));
            }
        }
        for address in addresses {
            match self.addresses.get(address).map(|entry| entry.next) {
                Some(next) if next <= now + interval => {}
                Some(_) => self.move_to(*address, now + self.offset(*address)),
                None => self.start(*address, now),
            }
        }
    }

    /// All begin anew with a burst: the segment may know them wrong.
    pub fn restart(&mut self, now: Instant) {
        let all: Vec<IpAddr> = self.addresses.keys().copied().collect();
        all.into_iter().for_each(|address| self.start(address, now));
    }

    /// Another claimed it: announced once more, unless that was done just now.
    pub fn defend(&mut self, address: IpAddr, now: Instant) {
        let Some(entry) = self.addresses.get_mut(&address) else { return };
        let waits = entry.defended.is_some_and(|at| now.saturating_duration_since(at) < DEFEND_AFTER);
        if waits {
            return;
        }
        entry.defended = Some(now);
        self.move_to(address, now);
    }

    /// What to announce now, at most [`BATCH`]; each is then due again later.
    pub fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        if now < self.not_before {
            return Vec::new();
        }
        let due: Vec<IpAddr> = self
            .queue
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(BATCH)
            .map(|(_, address)| *address)
            .collect();
        for address in &due {
            let next = self.after(*address, now);
            self.move_to(*address, next);
        }
        if !due.is_empty() {
            self.not_before = now + PAUSE;
        }
        due
    }

    /// When [`Self::due`] has something.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| (*at).max(self.not_before))
    }

    /// How many addresses there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    fn start(&mut self, address: IpAddr, now: Instant) {
        let defended = self.addresses.get(&address).and_then(|entry| entry.defended);
        let before =
            self.addresses.insert(address, Entry { next: now, repeats: REPEATS, placed: false, defended });
        if let Some(before) = before {
            self.queue.remove(&(before.next, address));
        }
        self.queue.insert((now, address));
    }

    fn move_to(&mut self, address: IpAddr, next: Instant) {
        let Some(entry) = self.addresses.get_mut(&address) else { return };
        self.queue.remove(&(entry.next, address));
        entry.next = next;
        self.queue.insert((next, address));
    }

    /// The instant after an announcement at `now`.
    fn after(&mut self, address: IpAddr, now: Instant) -> Instant {
        let (interval, offset) = (self.interval, self.offset(address));
        let Some(entry) = self.addresses.get_mut(&address) else { return now + interval };
        if entry.repeats > 0 {
            entry.repeats -= 1;
            return now + REPEAT_AFTER;
        }
        let placed = std::mem::replace(&mut entry.placed, true);
        if placed { now + interval } else { now + offset }
    }

    /// Between half an interval and a whole one, as the address's bytes scatter it.
    fn offset(&self, address: IpAddr) -> Duration {
        let low = match address {
            IpAddr::V4(address) => u32::from(address),
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                u32::from_be_bytes([a, b, c, d])
            }
        };
        // Neighbours in number are far from each other (Knuth's multiplicative hash).
        let scattered = low.wrapping_mul(2_654_435_769);
        self.interval / 2 + (self.interval / 2).mul_f64(f64::from(scattered) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
    }

    fn addresses(count: u32) -> BTreeSet<IpAddr> {
        (0..count).map(address).collect()
    }

    /// Every announcement until then, in order.
    fn run(schedule: &mut Schedule, until: Instant) -> Vec<(Instant, IpAddr)> {
        let mut said = Vec::new();
        while let Some(at) = schedule.next_deadline().filter(|at| *at <= until) {
            said.extend(schedule.due(at).into_iter().map(|address| (at, address)));
        }
        said
    }

    #[test]
    fn an_address_is_announced_thrice_and_then_every_interval() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE, now);
        schedule.set(&addresses(1), MINUTE, now);
        let times: Vec<Duration> =
            run(&mut schedule, now + 4 * MINUTE).into_iter().map(|(at, _)| at - now).collect();
        assert_eq!(times[..3], [0, 1, 2].map(Duration::from_secs));
        assert!(times[3] - times[2] >= MINUTE / 2 && times[3] - times[2] <= MINUTE, "{times:?}");
        assert!(times[3..].windows(2).all(|pair| pair[1] - pair[0] == MINUTE), "{times:?}");
        assert!(times.len() >= 6);
    }

    #[test]
    fn thousands_are_spread() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE, now);
        schedule.set(&addresses(5_000), MINUTE, now);
        let first = run(&mut schedule, now + Duration::from_millis(990));
        assert_eq!(first.len(), 5_000);
        let took = first[4_999].0 - now;
        assert!(took <= Duration::from_millis(500), "{took:?}");
        run(&mut schedule, now + MINUTE / 3);
        let periodic = run(&mut schedule, now + 3 * MINUTE);
        // Over half a minute of each: no second has more than three times its share.
        let mut seconds = BTreeMap::<u64, u32>::new();
        periodic.iter().for_each(|(at, _)| *seconds.entry((*at - now).as_secs()).or_default() += 1);
        let most = *seconds.values().max().unwrap();
        assert!(most <= 3 * 5_000 / 30, "{most} in one second");
    }

    #[test]
    fn what_is_gone_is_silent_and_what_stays_keeps_its_place() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE, now);
        schedule.set(&addresses(2), MINUTE, now);
        run(&mut schedule, now + MINUTE / 2);
        let next = schedule.addresses[&address(0)].next;
        let later = now + MINUTE / 2;
        schedule.set(&[address(0), address(7)].into(), MINUTE, later);
        assert_eq!((schedule.len(), schedule.addresses[&address(0)].next), (2, next));
        assert_eq!(schedule.due(later), [address(7)]);
        let said = run(&mut schedule, now + 3 * MINUTE);
        assert!(said.iter().all(|(_, said)| *said != address(1)));
        schedule.set(&BTreeSet::new(), MINUTE, later);
        assert_eq!((schedule.next_deadline(), schedule.len()), (None, 0));
    }

    #[test]
    fn a_shorter_interval_takes_effect() {
        let now = Instant::now();
        let mut schedule = Schedule::new(60 * MINUTE, now);
        schedule.set(&addresses(1), 60 * MINUTE, now);
        run(&mut schedule, now + MINUTE);
        schedule.set(&addresses(1), MINUTE, now + MINUTE);
        assert!(schedule.next_deadline().unwrap() <= now + 2 * MINUTE);
    }

    #[test]
    fn a_claim_is_answered_once_in_ten_seconds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE, now);
        schedule.set(&addresses(1), MINUTE, now);
        let quiet = now + Duration::from_secs(5);
        run(&mut schedule, quiet);
        let claims = (0..1_000).map(|number| quiet + Duration::from_millis(10 * number));
        let said: usize = claims
            .map(|at| {
                schedule.defend(address(0), at);
                schedule.due(at).len()
            })
            .sum();
        assert_eq!(said, 1);
        schedule.defend(address(9), quiet);
        assert_eq!(schedule.len(), 1, "not one of ours");
    }

    #[test]
    fn a_restart_is_a_burst_of_all() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE, now);
        schedule.set(&addresses(3), MINUTE, now);
        run(&mut schedule, now + MINUTE / 3);
        let later = now + MINUTE / 3;
        schedule.restart(later);
        assert_eq!(run(&mut schedule, later + Duration::from_secs(3)).len(), 9);
    }
}
