use std::net::{IpAddr, SocketAddr};

use shunt_api::config::{Check, CheckKind, Via};
use shunt_api::snapshot::Mode;

use super::*;
use crate::health::probe::Way;

const LATENCY: Duration = Duration::from_millis(3);

fn watch(backend: u8, interval_ms: u64) -> Watch {
    let check = Check {
        kind: CheckKind::Tcp { port: None },
        interval: Duration::from_millis(interval_ms),
        timeout: Duration::from_millis(interval_ms),
        rise: 2,
        fall: 3,
        via: Via::Direct,
    };
    let backend = IpAddr::from([10, 0, 1, backend]);
    let subject = Subject {
        backend,
        mode: Mode::Dr,
        destination: SocketAddr::new(backend, 80),
        check: Arc::new(check),
    };
    Watch { subject, way: None }
}

fn refused() -> Result<Option<Duration>, Failure> {
    Err(Failure::backend("connection refused"))
}

/// Lets the next check that is due end with `result`, at once.
fn probe(book: &mut Book, result: &Result<Option<Duration>, Failure>) -> Outcome {
    let now = book.next_deadline().unwrap();
    let due = book.due(now);
    assert_eq!(due.len(), 1, "one at a time");
    book.record(&due[0], now, result, now)
}

#[test]
fn a_backend_comes_up_and_goes_down_with_an_event_each() {
    let mut book = Book::new(1);
    book.set(vec![watch(1, 100)], Instant::now());
    assert_eq!(book.statuses()[0].health, Health::Unknown);
    let up = probe(&mut book, &Ok(Some(LATENCY))).event.unwrap();
    assert_eq!((up.watch.subject.backend, up.transition.to), (IpAddr::from([10, 0, 1, 1]), Health::Up));
    assert!(probe(&mut book, &refused()).event.is_none());
    assert!(probe(&mut book, &refused()).event.is_none());
    let down = probe(&mut book, &refused()).event.unwrap().transition;
    assert_eq!(down.reason, "3 checks in a row failed: connection refused");
    let status = &book.statuses()[0];
    assert_eq!(status.health, Health::Down);
    assert_eq!((status.successes, status.failures, status.last_latency), (1, 3, Some(LATENCY)));
    assert_eq!(status.last_failure.as_deref(), Some("connection refused"));
}

#[test]
fn equal_subjects_are_one_check_and_keep_their_state() {
    let now = Instant::now();
    let mut book = Book::new(1);
    book.set(vec![watch(1, 100), watch(1, 100)], now);
    assert_eq!(book.figures().checks, 1);
    probe(&mut book, &Ok(Some(LATENCY)));
    let deadline = book.next_deadline();
    book.set(vec![watch(1, 100)], now);
    assert_eq!((book.statuses()[0].successes, book.next_deadline()), (1, deadline));
    book.set(vec![watch(2, 100)], now);
    let statuses = book.statuses();
    assert_eq!((statuses.len(), statuses[0].health), (1, Health::Unknown));
    assert_eq!(statuses[0].watch.subject.backend, IpAddr::from([10, 0, 1, 2]));
}

#[test]
fn results_for_what_is_gone_or_goes_another_way_are_ignored() {
    let now = Instant::now();
    let mut book = Book::new(1);
    book.set(vec![watch(1, 100)], now);
    let at = book.next_deadline().unwrap();
    let start = book.due(at).remove(0);
    let marked = Watch {
        way: Some(Way { mark: 5, backend: [10, 0, 1, 1].into(), room: None, nic: None }),
        ..watch(1, 100)
    };
    book.set(vec![marked.clone()], now);
    assert!(book.record(&start, at, &refused(), at).event.is_none());
    assert_eq!(book.statuses()[0].failures, 0);
    let at = book.next_deadline().unwrap();
    let start = book.due(at).remove(0);
    assert_eq!(*start.watch, marked);
    book.set(Vec::new(), now);
    assert!(book.record(&start, at, &refused(), at).event.is_none());
    assert_eq!(book.figures().checks, 0);
}

#[test]
fn what_this_box_lacks_is_told_once_and_counts_for_nothing() {
    let mut book = Book::new(1);
    book.set(vec![watch(1, 1_000)], Instant::now());
    let lacking = Err(Failure::own("too many open files"));
    let told = probe(&mut book, &lacking).notice.unwrap();
    assert!(told.ends_with("counts for nothing: too many open files"), "{told}");
    let again = (0..59).filter(|_| probe(&mut book, &lacking).notice.is_some()).count();
    assert_eq!(again, 0, "within a minute");
    let later = (0..3).filter(|_| probe(&mut book, &lacking).notice.is_some()).count();
    assert_eq!(later, 1, "after a minute");
    let status = &book.statuses()[0];
    assert_eq!((status.health, status.failures, status.own_faults), (Health::Unknown, 0, 63));
    assert_eq!(book.figures().own_faults, 63);
}

#[test]
fn few_checks_are_first_asked_at_once_and_many_within_an_interval() {
    let now = Instant::now();
    let last_first = |count: u8| {
        let mut book = Book::new(1);
        book.set((0..count).map(|backend| watch(backend, 2_000)).collect(), now);
        let within = Duration::from_millis(u64::from(count));
        assert_eq!(book.due(now + within).len(), usize::from(count), "within {within:?}");
    };
    last_first(1);
    last_first(10);
    last_first(250);
}

#[test]
fn lateness_is_a_share_of_the_interval() {
    let mut book = Book::new(1);
    book.set(vec![watch(1, 1_000)], Instant::now());
    for late_ms in [0, 10, 20, 5_000] {
        let now = book.next_deadline().unwrap();
        let start = book.due(now).remove(0);
        let started = now + Duration::from_millis(late_ms);
        book.record(&start, started, &Ok(Some(LATENCY)), started);
    }
    let figures = book.figures();
    let quantiles = [0.25, 0.5, 0.75, 1.0].map(|quantile| figures.lateness(quantile));
    assert_eq!(quantiles, [0.0, 0.01, 0.02, 1.0]);
    assert_eq!(Book::new(1).figures().lateness(0.99), 0.0);
}
