//! The table of states and events.

use super::*;

const OWN: &str = "192.0.2.5";
const RULES: Rules = Rules { priority: 100, interval_cs: 20, preempt: true };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn said(priority: u8) -> Advertisement {
    Advertisement { group: 1, priority, interval_cs: 20 }
}

/// A backup that has just joined, and a master that has just taken over.
fn backup(rules: Rules, now: Instant) -> Election {
    let mut election = Election::new(rules, now);
    assert_eq!(election.join(now).became, Some((State::Backup, Why::Joined)));
    election
}

fn master(rules: Rules, now: Instant) -> Election {
    let mut election = backup(rules, now - ms(2000));
    let outcome = election.tick(now);
    assert_eq!(outcome.became.map(|(state, _)| state), Some(State::Master));
    assert_eq!(outcome.advertise, Some(rules.priority));
    election
}

#[test]
fn silence_makes_a_backup_master_within_a_second() {
    let now = Instant::now();
    // Three intervals and (256 - priority) / 256 of one.
    for (priority, expected_us) in [(1, 799_218), (100, 721_875), (254, 601_562)] {
        let mut election = backup(Rules { priority, ..RULES }, now);
        let deadline = election.next_deadline().unwrap();
        assert_eq!((deadline - now).as_micros(), expected_us);
        assert_eq!(election.tick(deadline - ms(1)), Outcome::default());
        let silence = Why::Silence(deadline - now);
        assert_eq!(election.tick(deadline).became, Some((State::Master, silence)));
        assert_eq!(election.next_deadline(), Some(deadline + ms(200)));
    }
}

#[test]
fn a_master_advertises_every_interval() {
    let now = Instant::now();
    let mut election = master(RULES, now);
    assert_eq!(election.tick(now + ms(199)), Outcome::default());
    let outcome = election.tick(now + ms(200));
    assert_eq!(outcome, Outcome { advertise: Some(100), became: None, rival: false });
}

#[test]
fn a_backup_follows_whom_it_may_not_preempt() {
    let now = Instant::now();
    let later = now + ms(500);
    // Priority heard, whether it preempts, whether it follows.
    for (priority, preempt, follows) in
        [(100, true, true), (101, true, true), (255, true, true), (99, true, false), (99, false, true)]
    {
        let mut election = backup(Rules { preempt, ..RULES }, now);
        let before = election.next_deadline();
        assert_eq!(election.hear(said(priority), ip("192.0.2.1"), ip(OWN), later), Outcome::default());
        assert_eq!(election.state(), State::Backup);
        let expected = Peer { address: ip("192.0.2.1"), priority };
        assert_eq!(election.master(), follows.then_some(expected), "{priority} {preempt}");
        assert_eq!(election.next_deadline() != before, follows, "{priority} {preempt}");
    }
}

#[test]
fn a_backup_waits_by_the_masters_interval() {
    let now = Instant::now();
    let mut election = backup(RULES, now);
    let slow = Advertisement { interval_cs: 100, ..said(200) };
    election.hear(slow, ip("192.0.2.1"), ip(OWN), now);
    let expected = ms(3000) + ms(1000) * 156 / 256;
    assert_eq!(election.next_deadline(), Some(now + expected));
    // It says so by its own as soon as it is master itself.
    election.tick(now + expected);
    assert_eq!(election.next_deadline(), Some(now + expected + ms(200)));
}

#[test]
fn a_master_that_leaves_is_replaced_after_the_skew() {
    let now = Instant::now();
    let mut election = backup(RULES, now);
    let peer = ip("192.0.2.9");
    election.hear(said(200), peer, ip(OWN), now);
    election.hear(said(LEAVES), ip("192.0.2.8"), ip(OWN), now);
    assert_eq!(election.master().unwrap().address, peer, "another than the master left");
    election.hear(said(LEAVES), peer, ip(OWN), now);
    assert_eq!(election.master(), None);
    let skew = ms(200) * 156 / 256;
    assert_eq!(election.next_deadline(), Some(now + skew));
    assert_eq!(election.tick(now + skew).became, Some((State::Master, Why::MasterLeft(peer))));
}

#[test]
fn the_rank_decides_between_two_masters() {
    let now = Instant::now();
    let later = now + ms(100);
    // Priority heard, from where, whether this box yields.
    for (priority, from, yields) in [
        (101, "192.0.2.1", true),
        (100, "192.0.2.6", true),
        (100, "192.0.2.4", false),
        (99, "192.0.2.6", false),
        (100, "fe80::1", true),
    ] {
        let mut election = master(RULES, now);
        let outcome = election.hear(said(priority), ip(from), ip(OWN), later);
        if yields {
            let why = Why::Outranked { by: ip(from), priority };
            assert_eq!(outcome, Outcome { became: Some((State::Backup, why)), ..Outcome::default() });
            assert_eq!(election.master().map(|peer| peer.address), Some(ip(from)));
        } else {
            assert_eq!(outcome, Outcome { advertise: Some(100), became: None, rival: true });
            assert_eq!(election.state(), State::Master);
        }
    }
}

#[test]
fn a_master_is_not_hurried_by_a_flood() {
    let now = Instant::now();
    let mut election = master(RULES, now);
    let flood = (1..=1000).map(|number| now + number * Duration::from_micros(100));
    let answers = flood
        .filter(|at| election.hear(said(LEAVES), ip("192.0.2.1"), ip(OWN), *at).advertise.is_some())
        .count();
    assert_eq!(answers, 5, "one in 20 ms of 100 ms");
}

#[test]
fn who_resigns_says_so_if_it_was_master() {
    let now = Instant::now();
    let left = Some((State::Initialize, Why::Resigned));
    let outcome = |advertise| Outcome { advertise, became: left, rival: false };
    assert_eq!(master(RULES, now).resign(), outcome(Some(LEAVES)));
    let mut election = backup(RULES, now);
    assert_eq!(election.resign(), outcome(None));
    assert_eq!(election.resign(), Outcome::default());
    assert_eq!(election.next_deadline(), None);
    assert_eq!(election.hear(said(1), ip("192.0.2.1"), ip(OWN), now), Outcome::default());
    assert_eq!(election.tick(now + ms(5000)), Outcome::default());
}

#[test]
fn new_rules_take_effect_at_once() {
    let now = Instant::now();
    let mut election = master(RULES, now);
    election.set_rules(Rules { priority: 50, ..RULES }, now);
    assert_eq!(election.tick(now).advertise, Some(50));
    let mut election = backup(RULES, now);
    election.set_rules(Rules { priority: 254, interval_cs: 100, ..RULES }, now);
    assert_eq!(election.next_deadline(), Some(now + ms(3000) + ms(1000) * 2 / 256));
}
