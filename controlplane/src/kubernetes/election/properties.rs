//! Boxes that elect a leader by an API that is slow, loses answers and is away: never do two lead.

use proptest::prelude::*;

use super::*;

/// One thing that happens, `after_ms` after what was before.
#[derive(Clone, Debug)]
struct Happens {
    after_ms: u64,
    who: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Reads the Lease and sends what follows.
    Read,
    /// What it sent reaches the API; the answer is lost or not.
    Commit { answered: bool },
    /// It forgets all and starts again as who it was.
    Restart,
    /// It stops in good order: it knows nothing more, and lets another lead.
    Release,
}

struct Candidate {
    election: Election,
    /// Version that was read, what was sent, and when.
    sent: Option<(u64, Record, Instant)>,
}

fn happens() -> impl Strategy<Value = Happens> {
    let what = prop_oneof![
        6 => Just(What::Read),
        6 => any::<bool>().prop_map(|lost| What::Commit { answered: !lost }),
        1 => Just(What::Restart),
        1 => Just(What::Release),
    ];
    (prop_oneof![0..200_u64, 0..6_000_u64, 0..20_000_u64], 0..3_usize, what)
        .prop_map(|(after_ms, who, what)| Happens { after_ms, who, what })
}

fn identity(who: usize) -> String {
    format!("box-{who}")
}

fn candidate(who: usize) -> Candidate {
    Candidate { election: Election::new(identity(who)), sent: None }
}

proptest! {
    #[test]
    fn no_two_lead(history in proptest::collection::vec(happens(), 1..200)) {
        let start = Instant::now();
        let mut now = start;
        let mut candidates: Vec<Candidate> = (0..3).map(candidate).collect();
        let mut lease: Option<Record> = None;
        let mut version = 0;
        for Happens { after_ms, who, what } in history {
            now += Duration::from_millis(after_ms);
            let candidate = &mut candidates[who];
            match what {
                What::Read => {
                    // Every box's clock is another.
                    let clock = i64::try_from((now - start).as_millis()).unwrap() + 7_000_000 * i64::try_from(who).unwrap();
                    let clock = Timestamp::from_millisecond(clock).unwrap();
                    candidate.sent = candidate.election.observe(lease.clone(), now, clock).map(|next| (version, next, now));
                }
                What::Commit { answered } => {
                    let Some((read, next, asked)) = candidate.sent.take() else { continue };
                    if read == version {
                        version += 1;
                        lease = Some(next.clone());
                        if answered {
                            candidate.election.wrote(next, asked);
                        }
                    }
                }
                What::Restart => *candidate = self::candidate(who),
                What::Release => {
                    *candidate = self::candidate(who);
                    if let Some(released) = lease.as_ref().and_then(|lease| candidate.election.released(lease)) {
                        version += 1;
                        lease = Some(released);
                    }
                }
            }
            let leads = |candidate: &&Candidate| candidate.election.standing(now).leads(now).is_some();
            prop_assert!(candidates.iter().filter(leads).count() <= 1);
        }
    }

    #[test]
    fn somebody_leads_in_the_end(pauses in proptest::collection::vec(0..2_000_u64, 60..80), order in any::<u64>()) {
        let mut now = Instant::now();
        let mut candidates: Vec<Candidate> = (0..3).map(candidate).collect();
        let mut lease = Some(Record { holder: Some("gone".into()), duration: LEASE, ..Record::default() });
        let mut passed = Duration::ZERO;
        for (at, pause_ms) in pauses.into_iter().enumerate() {
            let pause = Duration::from_millis(500 + pause_ms);
            (now, passed) = (now + pause, passed + pause);
            let candidate = &mut candidates[usize::try_from(order >> (at % 60)).unwrap_or(0) % 3];
            if let Some(next) = candidate.election.observe(lease.clone(), now, Timestamp::now()) {
                candidate.election.wrote(next.clone(), now);
                lease = Some(next);
            }
        }
        prop_assume!(passed > LEASE * 4);
        prop_assert_ne!(lease.unwrap().holder, Some("gone".into()));
    }
}
