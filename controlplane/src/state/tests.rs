use shunt_api::config::Config;
use shunt_api::snapshot::FleetKey;

use super::*;
use shunt_api::compile::compile;

fn desired(maglev_size: u32) -> Event {
    let config = Config::parse(&format!("dataplane.maglev_size = {maglev_size}"), "f").unwrap();
    Event::ConfigLoaded { snapshot: Box::new(compile(&config, FleetKey([0; 16]))), warnings: vec![] }
}

fn problem(line: usize) -> Event {
    let (file, field, reason) = ("f".to_owned(), "nic".to_owned(), "wrong".to_owned());
    Event::ConfigRefused(ConfigProblem { file, line, column: 1, field, reason })
}

fn status(instance: u64, generation: Option<u64>) -> Event {
    Event::DataplaneStatus(Box::new(DataplaneStatus {
        version: "1".into(),
        instance,
        generation,
        generation_age_s: generation.map(|_| 0),
        ..DataplaneStatus::default()
    }))
}

fn ack(generation: u64) -> Event {
    let snapshot = compile(&Config::parse("nic = []", "f").unwrap(), FleetKey([0; 16]));
    let snapshot = Arc::new(Snapshot { generation, ..snapshot });
    Event::Acknowledged(Ack { generation, restart_needed: vec![] }, snapshot)
}

fn rejected(generation: u64) -> Event {
    Event::Rejected { generation, reason: "no such NIC".into() }
}

fn disconnected() -> Event {
    Event::Disconnected("not running".into())
}

/// The name of the state in the table below.
fn name(state: &State) -> &'static str {
    match (state.wanted.is_some(), state.dataplane().is_some(), &state.exchange) {
        (false, false, _) => "nothing",
        (false, true, _) => "unconfigured",
        (true, false, _) => "alone",
        (true, true, Exchange::Sent) => "sent",
        (true, true, Exchange::Rejected { .. }) => "refused",
        (true, true, Exchange::Idle) if state.in_agreement() => "agreed",
        (true, true, Exchange::Idle) => "acknowledged",
    }
}

/// A state by its name, reached by events.
fn reach(target: &str, now: Instant) -> State {
    let mut state = State::default();
    let events = match target {
        "nothing" => vec![],
        "unconfigured" => vec![status(1, None)],
        "alone" => vec![desired(251)],
        "sent" => vec![desired(251), status(1, None)],
        "acknowledged" => vec![desired(251), status(1, None), ack(1)],
        "agreed" => vec![desired(251), status(1, None), ack(1), status(1, Some(1))],
        "refused" => vec![desired(251), status(1, None), rejected(1)],
        _ => unreachable!("{target}"),
    };
    events.into_iter().for_each(|event| drop(state.apply(event, now)));
    assert_eq!(name(&state), target);
    state
}

/// Every state against every event: what is published (generation), and the state after. An acknowledgement
/// is followed by a status within the same round, so `acknowledged` lasts for one event only.
#[test]
fn transitions() {
    type Row = (&'static str, fn() -> Event, [(&'static str, Option<u64>, &'static str); 7]);
    #[rustfmt::skip]
    let table: [Row; 10] = [
        ("the same file", || desired(251), [("nothing", None, "alone"), ("unconfigured", Some(1), "sent"),
            ("alone", None, "alone"), ("sent", None, "sent"), ("acknowledged", None, "acknowledged"),
            ("agreed", None, "agreed"), ("refused", Some(1), "sent")]),
        ("another file", || desired(257), [("nothing", None, "alone"), ("unconfigured", Some(1), "sent"),
            ("alone", None, "alone"), ("sent", Some(2), "sent"), ("acknowledged", Some(2), "sent"),
            ("agreed", Some(2), "sent"), ("refused", Some(2), "sent")]),
        ("a bad file", || problem(3), [("nothing", None, "nothing"), ("unconfigured", None, "unconfigured"),
            ("alone", None, "alone"), ("sent", None, "sent"), ("acknowledged", None, "acknowledged"),
            ("agreed", None, "agreed"), ("refused", None, "refused")]),
        ("status without generation", || status(1, None), [("nothing", None, "unconfigured"),
            ("unconfigured", None, "unconfigured"), ("alone", Some(1), "sent"), ("sent", None, "sent"),
            ("acknowledged", Some(1), "sent"), ("agreed", Some(1), "sent"), ("refused", None, "refused")]),
        ("status with our generation", || status(1, Some(1)), [("nothing", None, "unconfigured"),
            ("unconfigured", None, "unconfigured"), ("alone", Some(2), "sent"), ("sent", None, "sent"),
            ("acknowledged", None, "agreed"), ("agreed", None, "agreed"), ("refused", None, "refused")]),
        ("status with a foreign generation", || status(1, Some(9)), [("nothing", None, "unconfigured"),
            ("unconfigured", None, "unconfigured"), ("alone", Some(10), "sent"), ("sent", None, "sent"),
            ("acknowledged", Some(10), "sent"), ("agreed", Some(10), "sent"), ("refused", None, "refused")]),
        ("status of a new instance", || status(2, None), [("nothing", None, "unconfigured"),
            ("unconfigured", None, "unconfigured"), ("alone", Some(1), "sent"), ("sent", Some(1), "sent"),
            ("acknowledged", Some(1), "sent"), ("agreed", Some(1), "sent"), ("refused", Some(1), "sent")]),
        ("acknowledged", || ack(1), [("nothing", None, "nothing"), ("unconfigured", None, "unconfigured"),
            ("alone", None, "alone"), ("sent", None, "acknowledged"), ("acknowledged", None, "acknowledged"),
            ("agreed", None, "agreed"), ("refused", None, "acknowledged")]),
        ("rejected", || rejected(1), [("nothing", None, "nothing"), ("unconfigured", None, "unconfigured"),
            ("alone", None, "alone"), ("sent", None, "refused"), ("acknowledged", None, "refused"),
            ("agreed", None, "refused"), ("refused", None, "refused")]),
        ("disconnected", disconnected, [("nothing", None, "nothing"), ("unconfigured", None, "nothing"),
            ("alone", None, "alone"), ("sent", None, "alone"), ("acknowledged", None, "alone"),
            ("agreed", None, "alone"), ("refused", None, "alone")]),
    ];
    let now = Instant::now();
    for (what, event, cells) in table {
        for (before, published, after) in cells {
            let mut state = reach(before, now);
            let effects = state.apply(event(), now);
            let generation = effects.publish.map(|snapshot| snapshot.generation);
            assert_eq!((generation, name(&state)), (published, after), "{before} + {what}");
        }
    }
}

#[test]
fn a_refused_snapshot_is_tried_again_later_and_told_once() {
    let start = Instant::now();
    let mut state = reach("refused", start);
    assert_eq!(
        state.dataplane_problem().unwrap(),
        "generation 1 was refused, and until it is mended no change takes effect, of health neither: no such NIC"
    );
    let soon = state.apply(status(1, None), start + RETRY_REJECTED / 2);
    assert!(soon.publish.is_none());
    let later = state.apply(status(1, None), start + RETRY_REJECTED);
    assert_eq!(later.publish.unwrap().generation, 1);
    assert_eq!(later.notices, []);
    assert_eq!(state.apply(rejected(1), start + RETRY_REJECTED).notices, []);
}

#[test]
fn an_answer_to_an_older_snapshot_does_not_count_for_the_newer() {
    let now = Instant::now();
    let mut state = reach("sent", now);
    state.apply(desired(257), now);
    state.apply(ack(1), now);
    assert!(state.awaits_answer());
    assert_eq!(state.acknowledgement().unwrap().generation, 1);
    assert!(state.apply(rejected(1), now).notices.is_empty());
    state.apply(ack(2), now);
    assert!(!state.awaits_answer());
}

#[test]
fn a_dataplane_that_was_silent_for_a_moment_is_not_configured_again() {
    let now = Instant::now();
    let mut state = reach("agreed", now);
    state.apply(disconnected(), now);
    assert_eq!(state.acknowledgement(), None, "unknown as long as nobody answers");
    assert!(state.apply(status(1, Some(1)), now).publish.is_none());
    assert_eq!(name(&state), "agreed");
}

#[test]
fn a_new_control_plane_numbers_above_what_is_served() {
    let now = Instant::now();
    let mut state = State::default();
    state.apply(status(1, Some(41)), now);
    assert_eq!(state.generation(), 0);
    assert_eq!(state.apply(desired(251), now).publish.unwrap().generation, 42);
}

#[test]
fn transitions_are_told_once() {
    let now = Instant::now();
    let mut state = State::default();
    let mut told =
        |event| state.apply(event, now).notices.iter().map(|notice| notice.text.clone()).collect::<Vec<_>>();
    assert_eq!(told(disconnected()), ["not running"]);
    assert_eq!(told(disconnected()), [""; 0]);
    assert_eq!(
        told(problem(3)),
        ["configuration refused, nothing is configured until it is mended: f:3:1: nic: wrong"]
    );
    assert_eq!(told(problem(3)), [""; 0]);
    assert_eq!(told(desired(251)), ["configuration taken as generation 1 (services: 0, pools: 0)"]);
    assert_eq!(told(status(1, None)), ["the dataplane answers: version 1, serves nothing yet"]);
    assert_eq!(told(ack(1)), ["the dataplane forwards by generation 1"]);
    assert_eq!(told(status(1, Some(1))), [""; 0]);
    assert_eq!(told(problem(4)), ["configuration refused, generation 1 stays: f:4:1: nic: wrong"]);
    assert_eq!(told(desired(251)), ["the configuration is good again, and what is served already"]);
    assert_eq!(told(status(2, None)), ["the dataplane restarted: version 1, serves nothing yet"]);
    assert_eq!(told(disconnected()), ["not running"]);
}

#[test]
fn warnings_are_told_with_the_configuration_they_belong_to() {
    let config = Config::parse("[pools.web]", "f").unwrap();
    let snapshot = Box::new(compile(&config, FleetKey([0; 16])));
    let event = Event::ConfigLoaded { snapshot, warnings: config.warnings().to_vec() };
    let effects = State::default().apply(event, Instant::now());
    let warnings = effects.notices.iter().filter(|notice| notice.level == Level::WARN);
    assert_eq!(warnings.count(), 2, "empty and unused");
}

#[test]
fn the_dataplane_problem_says_what_is_in_the_way() {
    let now = Instant::now();
    assert_eq!(State::default().dataplane_problem().unwrap(), "shunt-dataplane was not asked yet");
    assert_eq!(reach("unconfigured", now).dataplane_problem(), None);
    let sent = reach("sent", now).dataplane_problem();
    assert_eq!(sent.unwrap(), "generation 1 is sent but not acknowledged yet");
    assert_eq!(reach("agreed", now).dataplane_problem(), None);
    let mut gone = reach("agreed", now);
    gone.apply(disconnected(), now);
    assert_eq!(gone.dataplane_problem().unwrap(), "not running");
}

#[test]
fn another_control_plane_is_a_problem_until_it_is_gone() {
    let now = Instant::now();
    let mut state = reach("agreed", now);
    state.apply(status(1, Some(9)), now);
    state.apply(ack(10), now);
    state.apply(status(1, Some(10)), now);
    assert!(state.dataplane_problem().unwrap().contains("second shunt-controlplane"));
    state.apply(status(1, Some(10)), now + SUSPICION);
    assert_eq!(state.dataplane_problem(), None);
}

#[test]
fn the_dataplane_is_relied_on_while_it_acknowledges() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let owed = |seconds| Agreement::Owed { since: at(seconds) };
    let mut state = State::default();
    let history = [
        (status(1, Some(7)), Agreement::Nothing, "it serves what another told it"),
        (desired(251), Agreement::Nothing, "nothing was acknowledged yet"),
        (ack(8), Agreement::Held, ""),
        (status(1, Some(8)), Agreement::Held, ""),
        (desired(257), owed(4), "this is not acknowledged yet"),
        (desired(263), owed(4), "nor is this"),
        (ack(9), owed(6), "but the first is: it does answer"),
        (rejected(10), Agreement::Held, "it says no, and serves on"),
        (disconnected(), owed(8), ""),
        (status(1, Some(9)), owed(8), "what it refused is sent again"),
        (disconnected(), owed(8), "it hangs: that it answers otherwise counts for nothing"),
        (status(1, Some(9)), owed(8), ""),
        (status(2, None), owed(8), "it has restarted"),
        (ack(10), Agreement::Held, ""),
    ];
    for (seconds, (event, expected, why)) in (0..).zip(history) {
        let what = format!("{seconds}: {event:?} {why}");
        state.apply(event, at(seconds));
        assert_eq!(state.agreement(), expected, "{what}");
    }
}
