use std::hash::{Hash, Hasher};

use proptest::prelude::*;
use siphasher::sip::SipHasher13;

use super::*;

const INTERVAL: Duration = Duration::from_secs(2);
const COUNT: u64 = 5_000;

fn hash(id: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(7, 0);
    id.hash(&mut hasher);
    hasher.finish()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// 5,000 checks added at once.
fn many(start: Instant, first_within: Duration) -> Schedule {
    let mut schedule = Schedule::default();
    (0..COUNT).for_each(|id| schedule.add(Id(id), INTERVAL, hash(id), first_within, start));
    schedule
}

/// Asks whenever something is due, until `end`; every probe ends at once. Returns all starts.
fn play(schedule: &mut Schedule, end: Instant) -> Vec<Due> {
    let mut starts = Vec::new();
    while let Some(now) = schedule.next_deadline().filter(|at| *at < end) {
        let due = schedule.due(now);
        due.iter().for_each(|due| schedule.finished(due.id));
        starts.extend(due);
    }
    starts
}

/// Most starts within any 100 ms of 10 s, a 20th of the interval: 250 on average.
fn most_at_once(starts: &[Due], start: Instant) -> usize {
    let slot = |due: &Due| (due.deadline.duration_since(start).as_millis() / 100) as usize;
    let mut slots = [0; 100];
    starts.iter().for_each(|due| slots[slot(due)] += 1);
    slots.into_iter().max().unwrap()
}

#[test]
fn thousands_of_checks_spread_evenly_over_the_interval() {
    let start = Instant::now();
    let mut schedule = many(start, INTERVAL);
    let starts = play(&mut schedule, start + INTERVAL * 5);
    assert_eq!(starts.len() as u64, 5 * COUNT);
    let most = most_at_once(&starts, start);
    assert!(most < 325, "{most} of {COUNT} checks start within 100 ms");
    assert_eq!(schedule.left_out(), 0);
}

#[test]
fn a_short_first_round_is_as_even_and_leads_into_place() {
    let start = Instant::now();
    let mut schedule = many(start, ms(1_000));
    let starts = play(&mut schedule, start + INTERVAL * 5);
    let first = starts.iter().filter(|due| due.deadline < start + ms(1_000)).count() as u64;
    assert!((COUNT..COUNT + COUNT / 2).contains(&first), "{first}");
    let mut last: HashMap<Id, Instant> = HashMap::new();
    for due in &starts {
        if let Some(before) = last.insert(due.id, due.deadline) {
            let pause = due.deadline - before;
            assert!(pause >= INTERVAL / 2 && pause < INTERVAL * 3 / 2, "{pause:?}");
        }
    }
    assert_eq!(last.len() as u64, COUNT);
}

#[test]
fn whoever_asks_every_millisecond_starts_no_check_late() {
    let start = Instant::now();
    let mut schedule = many(start, INTERVAL);
    let (mut now, mut latest) = (start, Duration::ZERO);
    while now < start + INTERVAL * 3 {
        for due in schedule.due(now) {
            latest = latest.max(now - due.deadline);
            schedule.finished(due.id);
        }
        now += ms(1);
    }
    assert!(latest <= ms(1) && latest < INTERVAL / 20, "{latest:?}");
}

#[test]
fn a_probe_that_runs_on_stands_for_the_instants_it_covers() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.add(Id(1), ms(100), 0, Duration::ZERO, start);
    assert_eq!(schedule.due(start), [Due { id: Id(1), deadline: start }]);
    assert_eq!(schedule.due(start + ms(100)), []);
    assert_eq!(schedule.due(start + ms(200)), []);
    assert_eq!(schedule.left_out(), 2);
    schedule.finished(Id(1));
    assert_eq!(schedule.due(start + ms(300)), [Due { id: Id(1), deadline: start + ms(300) }]);
}

#[test]
fn after_a_pause_a_check_starts_once_and_is_in_its_place_again() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.add(Id(1), ms(100), 0, Duration::ZERO, start);
    assert_eq!(schedule.due(start + ms(950)), [Due { id: Id(1), deadline: start }]);
    assert_eq!(schedule.left_out(), 9);
    assert_eq!(schedule.next_deadline(), Some(start + ms(1_000)));
}

#[test]
fn what_is_removed_is_never_due() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.add(Id(1), ms(100), 0, Duration::ZERO, start);
    schedule.add(Id(2), ms(100), u64::MAX / 2, Duration::ZERO, start + ms(10));
    schedule.remove(Id(1));
    assert_eq!(schedule.next_deadline(), Some(start + ms(10)));
    assert_eq!(schedule.due(start + ms(50)), [Due { id: Id(2), deadline: start + ms(10) }]);
    schedule.finished(Id(1));
    schedule.remove(Id(2));
    assert_eq!((schedule.next_deadline(), schedule.due(start + INTERVAL)), (None, Vec::new()));
}

proptest! {
    #[test]
    fn instants_do_not_drift_however_late_they_are_asked_for(
        hash in any::<u64>(),
        first_within in 0u64..200,
        late in proptest::collection::vec(0u64..99, 10),
    ) {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.add(Id(1), ms(100), hash, ms(first_within), start);
        let mut deadlines = Vec::new();
        for late in late {
            let at = schedule.next_deadline().unwrap();
            deadlines.push(at);
            prop_assert_eq!(schedule.due(at + ms(late)).len(), 1);
            schedule.finished(Id(1));
        }
        prop_assert!(deadlines[0] <= start + ms(first_within).min(ms(100)));
        for pair in deadlines[1..].windows(2) {
            let steps = (pair[1] - pair[0]).as_nanos();
            prop_assert!(steps == ms(100).as_nanos(), "{steps}");
        }
    }
}
