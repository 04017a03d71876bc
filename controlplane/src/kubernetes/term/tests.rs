use std::time::{Duration, Instant};

use super::*;

fn leads(term: u64, for_s: u64) -> Seat {
    Seat { standing: Standing::Leads { term, until: now() + Duration::from_secs(for_s) }, trouble: None }
}

fn stands(standing: Standing) -> Seat {
    Seat { standing, trouble: None }
}

#[tokio::test(flavor = "current_thread")]
async fn a_term_begins_when_what_is_known_is_current() {
    let (seat, seated) = watch::channel(Seat::default());
    let mut terms = Terms::new(seated);
    let gate = terms.gate();
    assert_eq!((terms.role(), gate.is_open()), (Role::Follower, false));
    terms.prepare(|| async { panic!("nothing was won") });

    seat.send_replace(leads(1, 60));
    assert!(matches!(terms.turn().await, Turn::Seat(_)));
    assert_eq!(terms.role(), Role::Nobody, "it may not know all addresses");
    let (current, is_current) = tokio::sync::oneshot::channel::<()>();
    terms.prepare(|| async { drop(is_current.await) });
    terms.prepare(|| async { panic!("it is being prepared") });
    assert_eq!(terms.role(), Role::Nobody);
    drop(current);
    assert_eq!(terms.turn().await, Turn::Begun);
    assert_eq!((terms.role(), gate.is_open()), (Role::Leader, true));
    terms.prepare(|| async { panic!("it has begun") });

    seat.send_replace(stands(Standing::Lapsed));
    assert_eq!((terms.role(), gate.is_open()), (Role::Nobody, false));
    seat.send_replace(leads(1, 60));
    assert_eq!((terms.role(), gate.is_open()), (Role::Leader, true), "the same term goes on");
    seat.send_replace(stands(Standing::Follows { leader: "b".into() }));
    assert_eq!((terms.role(), gate.is_open()), (Role::Follower, false));
    seat.send_replace(leads(2, 60));
    assert_eq!(terms.role(), Role::Nobody, "another may have given addresses");
}

#[tokio::test]
async fn a_lease_that_ran_out_shuts_the_gate_before_anybody_says_so() {
    let past = Standing::Leads { term: 1, until: Instant::now() };
    let (_seat, seated) = watch::channel(stands(past));
    let terms = Terms { begun: Some(1), ..Terms::new(seated) };
    assert_eq!((terms.role(), terms.gate().is_open()), (Role::Nobody, false));
}

#[test]
fn what_is_listed_must_be_known_as_new() {
    let pairs = |all: &[(&str, &str)]| -> Vec<(Text, Text)> {
        all.iter().map(|(uid, version)| (Some((*uid).into()), Some((*version).into()))).collect()
    };
    for (listed, known, expected) in [
        (&[][..], &[][..], true),
        (&[], &[("a", "5")], true),
        (&[("a", "5")], &[("a", "5"), ("b", "1")], true),
        (&[("a", "5")], &[("a", "10")], true),
        (&[("a", "10")], &[("a", "5")], false),
        (&[("a", "5"), ("b", "6")], &[("a", "5")], false),
        (&[("a", "x")], &[("a", "x")], true),
        (&[("a", "x")], &[("a", "y")], false),
    ] {
        let current = is_current(pairs(listed).into_iter(), &pairs(known).into_iter().collect());
        assert_eq!(current, expected, "{listed:?} {known:?}");
    }
}
