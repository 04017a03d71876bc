//! Boxes that elect a leader by an API that is slow, loses answers, is away and has the Lease deleted: never do two
//! lead, and what one began has time to end before the next begins.

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
    /// Reads the Lease and writes what follows.
    Round,
    /// Reads the Lease and sends what follows.
    Read,
    /// What it sent reaches the API; the answer is lost or not.
    Commit { answered: bool },
    /// It forgets all and starts again as who it was.
    Restart,
    /// It stops in good order: it knows nothing more, and lets another lead.
    Release,
    /// Somebody deletes the Lease.
    Delete,
    /// Its dataplane serves from now on, or does not.
    Take(Part),
}

struct Candidate {
    election: Election,
    part: Part,
    /// Version that was read, if there was one, what was sent, and when.
    sent: Option<(Option<u64>, Record, Instant)>,
    /// When it was last found to lead.
    led: Option<Instant>,
}

/// The Lease, and what the API counts its versions by.
#[derive(Default)]
struct Stored {
    lease: Option<(u64, Record)>,
    versions: u64,
}

impl Stored {
    /// Unless there is another version than was read. A late creation finds none, whatever was there in between.
    fn write(&mut self, read: Option<u64>, record: Record) -> bool {
        let matches = read == self.lease.as_ref().map(|(version, _)| *version);
        if matches {
            self.versions += 1;
            self.lease = Some((self.versions, record));
        }
        matches
    }
}

impl Candidate {
    fn read(&mut self, stored: &Stored, now: Instant, clock: Timestamp) {
        let (version, lease) = stored.lease.clone().unzip();
        self.sent = self.election.observe(lease, self.part, now, clock).map(|next| (version, next, now));
    }

    fn commit(&mut self, stored: &mut Stored, answered: bool) {
        let Some((read, next, asked)) = self.sent.take() else { return };
        if stored.write(read, next.clone()) && answered {
            self.election.wrote(next, asked);
        }
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    let what = prop_oneof![
        12 => Just(What::Round),
        2 => Just(What::Read),
        2 => any::<bool>().prop_map(|lost| What::Commit { answered: !lost }),
        1 => Just(What::Restart),
        1 => Just(What::Release),
        1 => Just(What::Delete),
        2 => prop_oneof![3 => Just(Part::Stands), 1 => Just(Part::Waits), 2 => Just(Part::Leaves)].prop_map(What::Take),
    ];
    (prop_oneof![0..200_u64, 0..3_000_u64, 0..20_000_u64], 0..3_usize, what)
        .prop_map(|(after_ms, who, what)| Happens { after_ms, who, what })
}

fn identity(who: usize) -> String {
    format!("box-{who}")
}

fn candidate(who: usize) -> Candidate {
    Candidate { election: Election::new(identity(who)), part: Part::Stands, sent: None, led: None }
}

proptest! {
    #[test]
    fn no_two_lead(history in proptest::collection::vec(happens(), 1..200)) {
        let start = Instant::now();
        let mut now = start;
        let mut candidates: Vec<Candidate> = (0..3).map(candidate).collect();
        let mut stored = Stored::default();
        for Happens { after_ms, who, what } in history {
            now += Duration::from_millis(after_ms);
            let candidate = &mut candidates[who];
            // Every box's clock is another.
            let clock = i64::try_from((now - start).as_millis()).unwrap() + 7_000_000 * i64::try_from(who).unwrap();
            let clock = Timestamp::from_millisecond(clock).unwrap();
            match what {
                What::Round => {
                    candidate.read(&stored, now, clock);
                    candidate.commit(&mut stored, true);
                }
                What::Read => candidate.read(&stored, now, clock),
                What::Commit { answered } => candidate.commit(&mut stored, answered),
                What::Restart => *candidate = self::candidate(who),
                What::Release => {
                    *candidate = self::candidate(who);
                    let (version, lease) = stored.lease.clone().unzip();
                    if let Some(released) = lease.and_then(|lease| candidate.election.released(&lease)) {
                        stored.write(version, released);
                    }
                }
                What::Delete => stored.lease = None,
                What::Take(part) => {
                    candidate.part = part;
                    if part == Part::Leaves {
                        candidate.election.pause_term(now);
                    }
                }
            }
            let leads = |candidate: &Candidate| candidate.election.standing(now).leads(now).is_some();
            let Some(leader) = candidates.iter().position(leads) else { continue };
            candidates[leader].led = Some(now);
            for (at, other) in candidates.iter().enumerate().filter(|(at, _)| *at != leader) {
                prop_assert!(!leads(other), "{leader} and {at} lead");
                prop_assert!(other.led.is_none_or(|led| now - led >= LEASE - DEADLINE), "{leader} soon after {at}");
            }
        }
    }

    #[test]
    fn somebody_leads_in_the_end(pauses in proptest::collection::vec(0..2_000_u64, 60..80), order in any::<u64>(), deleted in any::<bool>()) {
        let mut now = Instant::now();
        let mut candidates: Vec<Candidate> = (0..3).map(candidate).collect();
        let gone = Record { holder: Some("gone".into()), duration: LEASE, ..Record::default() };
        let mut lease = (!deleted).then_some(gone);
        let mut passed = Duration::ZERO;
        for (at, pause_ms) in pauses.into_iter().enumerate() {
            let pause = Duration::from_millis(500 + pause_ms);
            (now, passed) = (now + pause, passed + pause);
            let candidate = &mut candidates[usize::try_from(order >> (at % 60)).unwrap_or(0) % 3];
            if let Some(next) = candidate.election.observe(lease.clone(), Part::Stands, now, Timestamp::now()) {
                candidate.election.wrote(next.clone(), now);
                lease = Some(next);
            }
        }
        prop_assume!(passed > LEASE * 4);
        let holder = lease.unwrap().holder;
        prop_assert!(holder.as_ref().is_some_and(|holder| holder != "gone"), "{holder:?}");
    }
}
