//! Boxes of one group on a segment that loses and delays what they say.
//!
//! Two phases: at first anything may be lost and late. Then the segment is sound: nothing is lost, and nothing
//! takes longer than [`SOUND_DELAY_MS`]. In the second phase one master remains, it is the one it should be, and
//! when it vanishes the next takes over in time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const SOUND_DELAY_MS: u64 = 5;
/// What the bad phase lasts.
const BAD_MS: u64 = 3_000;
/// By then the sound phase has settled: the longest a backup waits, and its advertisement's way.
const SETTLED_MS: u64 = BAD_MS + 800 + 200 + 3 * SOUND_DELAY_MS;
const END_MS: u64 = SETTLED_MS + 3_000;

struct Segment {
    start: Instant,
    boxes: Vec<Option<Election>>,
    /// Arrival in microseconds, receiver, what was said, by whom.
    under_way: BinaryHeap<Reverse<(u64, usize, u8, usize)>>,
    /// Of a fixed sequence, for losses and delays.
    random: u64,
    loss_percent: u64,
    delay_ms: u64,
}

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(number).unwrap() + 1))
}

impl Segment {
    fn next_random(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    fn act(&mut self, sender: usize, outcome: Outcome, us: u64) {
        let Some(priority) = outcome.advertise else { return };
        let sound = us >= BAD_MS * 1_000;
        for receiver in (0..self.boxes.len()).filter(|receiver| *receiver != sender) {
            let lost = !sound && self.next_random(100) < self.loss_percent;
            let delay_ms = if sound { SOUND_DELAY_MS } else { self.delay_ms };
            let mut arrival = us + 1 + self.next_random(delay_ms * 1_000);
            if !sound {
                // What was late before is there when the segment is sound.
                arrival = arrival.min(BAD_MS * 1_000);
            }
            if !lost {
                self.under_way.push(Reverse((arrival, receiver, priority, sender)));
            }
        }
    }

    /// What happens next, in microseconds: an arrival, or a timer.
    fn next(&self) -> Option<u64> {
        let timers = self.boxes.iter().flatten().filter_map(Election::next_deadline);
        let timer = timers.min().map(|at| at.duration_since(self.start).as_nanos().div_ceil(1_000));
        let arrival = self.under_way.peek().map(|Reverse((at, ..))| *at);
        timer.map(|at| u64::try_from(at).unwrap()).into_iter().chain(arrival).min()
    }

    fn step(&mut self, us: u64) {
        let now = self.at(us);
        while let Some(&Reverse((at, receiver, priority, sender))) = self.under_way.peek() {
            if at > us {
                break;
            }
            self.under_way.pop();
            let said = Advertisement { group: 1, priority, interval_cs: 20 };
            if let Some(heard_by) = &mut self.boxes[receiver] {
                let outcome = heard_by.hear(said, address(sender), address(receiver), now);
                self.act(receiver, outcome, us);
            }
        }
        for number in 0..self.boxes.len() {
            if let Some(ticked) = &mut self.boxes[number] {
                let outcome = ticked.tick(now);
                self.act(number, outcome, us);
            }
        }
    }

    fn masters(&self) -> Vec<usize> {
        let is_master = |number: &usize| {
            self.boxes[*number].as_ref().is_some_and(|election| election.state() == State::Master)
        };
        (0..self.boxes.len()).filter(is_master).collect()
    }

    /// Runs until then; returns the last instant, in microseconds, at which there was not exactly one master.
    fn run(&mut self, from_us: u64, until_us: u64) -> u64 {
        let mut wrong_until = from_us;
        let mut right = self.masters().len() == 1;
        while let Some(us) = self.next().filter(|us| *us < until_us) {
            self.step(us);
            if !right {
                wrong_until = us;
            }
            right = self.masters().len() == 1;
        }
        if right { wrong_until } else { until_us }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_master_remains_and_is_replaced_in_time(
        priorities in proptest::collection::vec(1u8..=254, 2..=3),
        preempt in any::<bool>(),
        seed in any::<u64>(),
        loss_percent in 0u64..=100,
        delay_ms in 1u64..=400,
        starts in proptest::collection::vec(0u64..1_000, 3),
    ) {
        let start = Instant::now();
        let mut segment = Segment {
            start,
            boxes: Vec::new(),
            under_way: BinaryHeap::new(),
            random: seed,
            loss_percent,
            delay_ms,
        };
        for (priority, start_ms) in priorities.iter().zip(&starts) {
            let rules = Rules { priority: *priority, interval_cs: 20, preempt };
            let mut election = Election::new(rules, start);
            election.join(start + Duration::from_millis(*start_ms));
            segment.boxes.push(Some(election));
        }
        segment.run(0, BAD_MS * 1_000);

        // Two masters are one again as soon as the lower hears the higher: after an interval, and its way.
        let rivals = segment.masters().len() > 1;
        let wrong_until = segment.run(BAD_MS * 1_000, END_MS * 1_000);
        let bound_ms = if rivals && !preempt { BAD_MS + 200 + SOUND_DELAY_MS } else { SETTLED_MS };
        prop_assert!(wrong_until <= bound_ms * 1_000, "not one master until {wrong_until} us, {rivals}");

        let highest = (0..priorities.len()).max_by_key(|number| (priorities[*number], address(*number))).unwrap();
        let master = segment.masters()[0];
        if preempt {
            prop_assert_eq!(priorities[master], priorities[highest]);
        }

        // It vanishes. The next is there after three intervals and its skew, or a little less.
        segment.boxes[master] = None;
        segment.under_way.retain(|Reverse((_, receiver, ..))| *receiver != master);
        let next = (0..priorities.len()).filter(|number| *number != master).map(|n| priorities[n]).max().unwrap();
        let wrong_until = segment.run(END_MS * 1_000, (END_MS + 3_000) * 1_000);
        let skew_us = 200_000 * (256 - u64::from(next)) / 256;
        let bound = END_MS * 1_000 + 600_000 + skew_us + 2 * SOUND_DELAY_MS * 1_000 + 200_000 * u64::from(priorities.len() > 2);
        prop_assert!(wrong_until <= bound, "no single master until {} us after", wrong_until - END_MS * 1_000);
    }
}
