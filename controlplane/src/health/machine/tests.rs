use proptest::prelude::*;

use super::*;

/// Feeds `+` and `-`, a result every `interval`, and writes down the state after each: `?`, `U` or `D`.
fn run(machine: &mut Machine, start: Instant, interval: Duration, results: &str) -> String {
    let mut now = start;
    let mut after = |result: char| {
        now += interval;
        machine.observe(if result == '+' { Ok(()) } else { Err("connection refused") }, now);
        match machine.health() {
            Health::Unknown => '?',
            Health::Up => 'U',
            Health::Down => 'D',
        }
    };
    results.chars().map(&mut after).collect()
}

fn check(rise: u32, fall: u32, results: &str, states: &str) {
    let start = Instant::now();
    let mut machine = Machine::new(rise, fall, start);
    assert_eq!(run(&mut machine, start, Duration::from_secs(2), results), states, "rise {rise}, fall {fall}");
}

#[test]
fn thresholds() {
    check(2, 3, "+++", "UUU");
    check(2, 3, "-++", "DDU");
    check(2, 3, "+---", "UUUD");
    check(2, 3, "+--+--+---", "UUUUUUUUUD");
    check(2, 3, "-+-+-++", "DDDDDDU");
    check(1, 1, "+-+", "UDU");
    check(0, 0, "-+-", "DUD");
}

#[test]
fn reasons_say_what_the_results_were() {
    let now = Instant::now();
    let mut machine = Machine::new(2, 3, now);
    let results =
        [Err("refused"), Ok(()), Ok(()), Err("no answer within 1 s"), Err("refused"), Err("refused")];
    let told: Vec<_> = results.into_iter().filter_map(|result| machine.observe(result, now)).collect();
    let reasons: Vec<&str> = told.iter().map(|transition| transition.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the first check failed: refused",
            "2 checks in a row succeeded",
            "3 checks in a row failed: refused"
        ]
    );
    assert_eq!((told[1].from, told[1].to, told[1].at), (Health::Down, Health::Up, now));
}

const SECOND: Duration = Duration::from_secs(1);

/// Successes, one a second, until it is up.
fn successes_until_up(machine: &mut Machine, now: &mut Instant) -> u32 {
    let succeed = |_: &u32| {
        *now += SECOND;
        machine.observe(Ok(()), *now).is_some()
    };
    (1..).find(succeed).unwrap()
}

#[test]
fn a_backend_that_flaps_waits_longer_each_time_up_to_a_limit() {
    let mut now = Instant::now();
    let mut machine = Machine::new(2, 1, now);
    machine.observe(Ok(()), now);
    let needed = [(); 8].map(|()| {
        now += SECOND;
        assert!(machine.observe(Err("refused"), now).is_some());
        successes_until_up(&mut machine, &mut now)
    });
    assert_eq!(needed, [2, 2, 6, 11, 21, 41, 61, 61]);
}

#[test]
fn a_backend_that_flaps_all_the_time_is_soon_left_down() {
    let mut now = Instant::now();
    let mut machine = Machine::new(2, 3, now);
    let mut told = Vec::new();
    // Half a second up, half a second down, for a minute, asked ten times a second.
    for tenth in 0..600 {
        now += Duration::from_millis(100);
        let result = if tenth % 10 < 5 { Ok(()) } else { Err("refused") };
        told.extend(machine.observe(result, now));
    }
    let states: Vec<Health> = told.iter().map(|transition| transition.to).collect();
    assert_eq!(states, [Health::Up, Health::Down].repeat(FLAPS));
}

#[test]
fn a_failure_in_between_begins_the_hold_anew() {
    let mut now = Instant::now();
    let mut machine = Machine::new(2, 1, now);
    machine.observe(Ok(()), now);
    for _ in 0..FLAPS {
        now += SECOND;
        machine.observe(Err("refused"), now);
        if machine.hold().is_zero() {
            successes_until_up(&mut machine, &mut now);
        }
    }
    for _ in 0..100 {
        now += SECOND * 4;
        assert!(machine.observe(Ok(()), now).is_none());
        assert!(machine.observe(Ok(()), now + SECOND * 3).is_none());
        assert!(machine.observe(Err("refused"), now + SECOND * 4).is_none());
    }
    assert_eq!((machine.health(), machine.hold()), (Health::Down, HOLD_MIN));
}

#[test]
fn the_reason_tells_of_damping() {
    let mut now = Instant::now();
    let mut machine = Machine::new(1, 1, now);
    machine.observe(Ok(()), now);
    let mut told = Vec::new();
    for _ in 0..FLAPS {
        now += Duration::from_secs(5);
        told.extend(machine.observe(Err("refused"), now));
        machine.observe(Ok(()), now);
    }
    assert_eq!(
        told.last().unwrap().reason,
        "a check failed: refused; it flaps, so that it must answer for 5 s now"
    );
    assert!(!told[1].reason.contains("flaps"), "{}", told[1].reason);
}

#[test]
fn rare_failures_are_not_flapping_and_a_window_up_forgives() {
    let mut now = Instant::now();
    let mut machine = Machine::new(1, 1, now);
    machine.observe(Ok(()), now);
    for pause_s in [31; 10] {
        now += Duration::from_secs(pause_s);
        machine.observe(Err("refused"), now);
        assert_eq!(machine.hold(), Duration::ZERO, "two in any window");
        machine.observe(Ok(()), now);
    }
    for _ in 0..3 {
        machine.observe(Err("refused"), now);
        successes_until_up(&mut machine, &mut now);
    }
    assert!(!machine.hold().is_zero());
    now += FLAP_WINDOW;
    machine.observe(Err("refused"), now);
    assert_eq!(machine.hold(), Duration::ZERO);
}

proptest! {
    #[test]
    fn changes_come_after_rise_or_fall_results_in_a_row_and_alternate(
        rise in 1u32..5,
        fall in 1u32..5,
        steps in proptest::collection::vec((any::<bool>(), 0u64..30), 1..200),
    ) {
        let mut now = Instant::now();
        let mut machine = Machine::new(rise, fall, now);
        let mut row = (false, 0u32, now);
        let mut before = Health::Unknown;
        for (index, (good, pause_s)) in steps.into_iter().enumerate() {
            now += Duration::from_secs(pause_s);
            row = if row.0 == good { (good, row.1 + 1, row.2) } else { (good, 1, now) };
            let transition = machine.observe(if good { Ok(()) } else { Err("refused") }, now);
            prop_assert_eq!(transition.is_some(), machine.health() != before);
            if let Some(transition) = transition {
                prop_assert_eq!((transition.from, transition.to), (before, machine.health()));
                prop_assert_eq!((transition.at, machine.since), (now, now));
                prop_assert_eq!(transition.to, if good { Health::Up } else { Health::Down });
                prop_assert!(transition.from != transition.to);
                let least = if good { rise } else { fall };
                prop_assert!(index == 0 || row.1 >= least, "too early");
            } else {
                prop_assert!(index > 0, "the first result decides");
                prop_assert!(machine.health() != Health::Up || good || row.1 < fall, "late to go down");
                let long_enough = row.1 >= rise && now - row.2 >= HOLD_MAX;
                prop_assert!(machine.health() != Health::Down || !good || !long_enough, "never comes up");
            }
            before = machine.health();
        }
    }
}
