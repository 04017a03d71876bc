use super::*;

const START: i64 = 1_700_000_000;

/// A box and the time that passed.
struct World {
    election: Election,
    start: Instant,
    at: Duration,
    part: Part,
}

impl World {
    fn new() -> Self {
        Self {
            election: Election::new("me".into()),
            start: Instant::now(),
            at: Duration::ZERO,
            part: Part::Stands,
        }
    }

    fn now(&self) -> Instant {
        self.start + self.at
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_second(START + i64::try_from(self.at.as_secs()).unwrap()).unwrap()
    }

    /// Reads the Lease and writes what is to be written: says what that was and how things stand then.
    fn round(&mut self, after_s: u64, lease: &mut Option<Record>) -> &'static str {
        self.at += Duration::from_secs(after_s);
        let before = lease.clone();
        let Some(next) = self.election.observe(lease.clone(), self.part, self.now(), self.clock()) else {
            return self.word("waits");
        };
        if before.is_none() {
            assert_eq!((&next.holder, next.duration, next.taken), (&None, LEASE, None));
            self.election.wrote(next.clone(), self.now());
            *lease = Some(next);
            return self.word("creates");
        }
        if next.holder.is_none() {
            assert_eq!((next.duration, self.part), (Duration::from_secs(1), Part::Leaves));
            self.election.wrote(next.clone(), self.now());
            *lease = Some(next);
            return self.word("releases");
        }
        assert_eq!(
            (next.holder.as_deref(), next.duration, next.renewed),
            (Some("me"), LEASE, Some(self.clock()))
        );
        self.election.wrote(next.clone(), self.now());
        let kept = before.is_some_and(|before| before.taken == next.taken);
        *lease = Some(next);
        self.word(if kept { "renews" } else { "takes" })
    }

    fn word(&self, did: &'static str) -> &'static str {
        match (did, self.election.standing(self.now())) {
            ("waits", Standing::Follows { leader }) if leader == "other" => "follows",
            ("waits", Standing::Unknown | Standing::Lapsed) => "waits",
            ("releases", Standing::Unknown) => "releases",
            ("creates", Standing::Unknown) => "creates",
            ("takes", Standing::Leads { .. }) => "takes",
            ("renews", Standing::Leads { .. }) => "renews",
            (did, standing) => panic!("{did}, {standing:?}"),
        }
    }

    fn standing(&mut self, after_s: u64) -> Standing {
        self.at += Duration::from_secs(after_s);
        self.election.standing(self.now())
    }
}

/// A box that leads, and what it wrote.
fn leader() -> (World, Option<Record>) {
    let mut world = World::new();
    let mut lease = others(0).map(|of| Record { holder: None, ..of });
    assert_eq!(world.round(0, &mut lease), "takes");
    (world, lease)
}

fn others(renewed_s: i64) -> Option<Record> {
    let at = |seconds| Timestamp::from_second(START + seconds).ok();
    let (holder, renewed, taken) = (Some("other".into()), at(renewed_s), at(-1));
    Some(Record { holder, duration: LEASE, renewed, taken, transitions: 4 })
}

#[test]
fn who_may_take_the_lease() {
    let holder = |holder: Option<&str>| others(0).map(|of| Record { holder: holder.map(Into::into), ..of });
    for (what, lease, expected, transitions) in [
        ("there is none", None, "creates", 0),
        ("nobody ever had it", Some(Record { duration: LEASE, ..Record::default() }), "waits", 0),
        ("it was released", holder(None), "takes", 5),
        ("this box had it before a restart", holder(Some("me")), "takes", 4),
        ("another has it", holder(Some("other")), "follows", 4),
    ] {
        let mut lease = lease;
        assert_eq!(World::new().round(0, &mut lease), expected, "{what}");
        assert_eq!(lease.unwrap().transitions, transitions, "{what}");
    }
}

#[test]
fn anothers_lease_runs_out_when_it_was_not_seen_to_change() {
    let mut world = World::new();
    // Its clock is an hour ahead, or behind: that says nothing.
    for skew_s in [-3_600, 3_600] {
        let mut lease = others(skew_s);
        assert_eq!(world.round(0, &mut lease), "follows");
        assert_eq!(world.round(14, &mut lease), "follows");
        let mut renewed = others(skew_s + 1);
        assert_eq!(world.round(1, &mut renewed), "follows");
        assert_eq!(world.round(14, &mut renewed), "follows");
    }
    let mut lease = others(3_601);
    assert_eq!(world.round(1, &mut lease), "takes");
    assert_eq!(lease.unwrap().transitions, 5);
}

#[test]
fn one_that_was_deleted_is_created_for_nobody_first() {
    // One that led, one that followed, and one that knows of nothing.
    let mut follower = World::new();
    follower.round(0, &mut others(0));
    for mut world in [leader().0, follower, World::new()] {
        let mut lease = None;
        assert_eq!(world.round(1, &mut lease), "creates");
        // Counted from when it was seen, for the request may have taken long.
        for _ in 0..15 {
            assert_eq!(world.round(1, &mut lease), "waits");
        }
        // Deleted again meanwhile: who created and took it may lead.
        assert_eq!(world.round(1, &mut None), "creates");
        assert_eq!(world.round(0, &mut lease), "waits");
        assert_eq!(world.round(14, &mut lease), "waits");
        assert_eq!(world.round(1, &mut lease), "takes");
        assert_eq!(lease.unwrap().transitions, 0);
    }
}

#[test]
fn a_lease_lasts_as_long_as_it_says() {
    let mut world = World::new();
    let mut lease = others(0).map(|lease| Record { duration: Duration::from_secs(60), ..lease });
    assert_eq!(world.round(0, &mut lease), "follows");
    assert_eq!(world.round(59, &mut lease), "follows");
    assert_eq!(world.round(1, &mut lease), "takes");
}

#[test]
fn a_term_lasts_while_it_is_renewed() {
    let (mut world, mut lease) = leader();
    let taken = lease.clone();
    assert_eq!(world.round(5, &mut lease), "renews");
    assert_eq!(world.round(5, &mut lease), "renews");
    assert_ne!(lease, taken);
    assert!(matches!(world.standing(9), Standing::Leads { term: 1, .. }));
    assert_eq!(world.standing(1), Standing::Lapsed);
    assert_eq!(world.standing(100), Standing::Lapsed, "nobody else is known to lead");
    assert_eq!(world.round(0, &mut lease), "renews");
    assert!(matches!(world.standing(0), Standing::Leads { term: 1, .. }), "nobody else can have led");
}

#[test]
fn a_term_ends_when_another_may_have_led() {
    let lost = [
        ("another has it", others(0)),
        ("another had it", others(0).map(|lease| Record { holder: None, ..lease })),
        ("it was deleted", None),
    ];
    for (what, lease) in lost {
        let (mut world, _) = leader();
        let mut lease = lease;
        while world.election.standing(world.now()).leads(world.now()) != Some(2) {
            world.round(5, &mut lease);
            assert!(world.at < Duration::from_secs(60), "{what}");
        }
    }
    // A write whose answer was lost counts for nothing, and a term that then begins is a new one.
    let mut world = World::new();
    let released = others(0).map(|of| Record { holder: None, ..of });
    let mut lease = world.election.observe(released, world.part, world.now(), world.clock());
    assert_eq!(world.election.standing(world.now()), Standing::Unknown);
    assert_eq!(world.round(1, &mut lease), "takes");
}

#[test]
fn only_its_own_lease_is_released() {
    let election = Election::new("me".into());
    let mine = others(0).map(|lease| Record { holder: Some("me".into()), ..lease }).unwrap();
    let released = election.released(&mine).unwrap();
    assert_eq!((released.holder.as_ref(), released.transitions), (None, 4));
    assert_eq!(election.released(&others(0).unwrap()), None);
    assert_eq!(election.released(&Record::default()), None);
    let mut other = World::new();
    assert_eq!(other.round(0, &mut Some(released)), "takes");
}

#[test]
fn who_leaves_the_lead_releases_it_when_what_it_began_has_ended() {
    let (mut world, mut lease) = leader();
    world.part = Part::Leaves;
    assert!(world.election.pause_term(world.now()) && !world.election.pause_term(world.now()));
    assert_eq!(world.standing(0), Standing::Lapsed);
    assert_eq!(world.round(4, &mut lease), "waits");
    assert_eq!(world.round(1, &mut lease), "releases");
    assert_eq!(world.round(1, &mut lease), "waits");
    assert_eq!(world.round(100, &mut None), "waits", "it creates none");
    let mut other = others(0);
    assert_eq!(world.round(0, &mut other), "follows");
    assert_eq!(world.round(100, &mut other), "follows");
    world.part = Part::Stands;
    assert_eq!(world.round(0, &mut other), "takes");
    assert!(matches!(world.standing(0), Standing::Leads { term: 2, .. }));

    let (mut world, mut lease) = leader();
    world.election.pause_term(world.now());
    assert_eq!(world.round(4, &mut lease), "renews", "its dataplane serves again");
    assert!(matches!(world.standing(0), Standing::Leads { term: 1, .. }));
}

#[test]
fn one_that_waits_leaves_the_lease_as_it_is() {
    let mine = others(0).map(|of| Record { holder: Some("me".into()), ..of });
    let released = others(0).map(|of| Record { holder: None, ..of });
    for lease in [None, mine.clone(), released] {
        let mut world = World { part: Part::Waits, ..World::new() };
        let before = lease.clone();
        let mut lease = lease;
        assert_eq!([0, 100].map(|after_s| world.round(after_s, &mut lease)), ["waits"; 2]);
        assert_eq!(lease, before);
    }
    // Of the process before, and the dataplane never served.
    let mut world = World { part: Part::Leaves, ..World::new() };
    let mut lease = mine;
    assert_eq!(world.round(0, &mut lease), "releases");
}

#[test]
fn leaders_renew_and_others_look_often() {
    assert_eq!(World::new().election.pause(true, Instant::now()), RETRY);
    let (mut world, _) = leader();
    let now = world.now();
    assert_eq!([true, false].map(|succeeded| world.election.pause(succeeded, now)), [RENEW_EVERY, RETRY]);
    world.election.pause_term(now);
    assert_eq!(world.election.pause(true, now), RETRY);
}

#[test]
fn transitions_alone_are_news() {
    let now = Instant::now();
    let leads = |term, until| Seat { standing: Standing::Leads { term, until }, trouble: None };
    let follows =
        |leader: &str| Seat { standing: Standing::Follows { leader: leader.into() }, trouble: None };
    let troubled = |trouble| Seat { standing: Standing::Unknown, trouble: Some(trouble) };
    let (away, refused) =
        (|text: &str| Trouble::Away(text.into()), |text: &str| Trouble::Refused(text.into()));
    let dataplane = || Trouble::Dataplane("away".into());
    for (before, after, news) in [
        (Seat::default(), Seat::default(), false),
        (Seat::default(), leads(1, now), true),
        (leads(1, now), leads(1, now + LEASE), false),
        (leads(1, now), leads(2, now + LEASE), true),
        (follows("a"), follows("a"), false),
        (follows("a"), follows("b"), true),
        (Seat::default(), troubled(away("reset")), true),
        (troubled(away("reset")), troubled(away("timeout")), false),
        (troubled(away("reset")), troubled(refused("forbidden")), true),
        (troubled(refused("forbidden")), troubled(refused("no namespace")), true),
        (troubled(refused("forbidden")), Seat::default(), true),
        (Seat::default(), troubled(dataplane()), true),
        (troubled(dataplane()), troubled(dataplane()), false),
        (troubled(dataplane()), troubled(away("reset")), true),
    ] {
        let mut seat = before.clone();
        assert_eq!(seat.replace(after.clone()), news, "{before:?} {after:?}");
        assert_eq!(seat, after);
    }
    assert_eq!(troubled(refused("run this")).words().2.as_deref(), Some("run this"));
    assert_eq!(follows("a").words().1, "a leads; this box forwards and writes nothing");
}
