//! Golden packets: `tests/golden/*.txt` says what goes into the packet path and, byte for byte, what comes out.
//! `BLESS=1 cargo test -p shunt-tests --test golden` renews what is expected; `tests/golden/README.md` explains.

mod case;
mod checksum;
mod language;
mod names;
mod network;
mod print;
mod report;
mod world;

use std::collections::BTreeSet;

use case::{Case, CaseFile, Step};
use report::Seen;
use shunt_api::counters::DropReason;

/// Bytes that the steering program may have put before a frame.
const HEADROOMS: [u8; 3] = [40, 20, 0];

/// Frames that are longer may fill their buffer, and then need the headroom.
const LONG: usize = 1600;

/// Longer frames are not cut off at every length.
const SHORT: usize = 120;

/// Reasons to drop a packet that no case provokes.
const UNREACHED: [(DropReason, &str); 1] =
    [(DropReason::NatExhausted, "needs a table full of flows; dataplane/src/nat/tests.rs fills one")];

/// Kinds of outcomes that cases must show: modes and answers of both families.
const KINDS: [&str; 20] = [
    "dr v4",
    "dr v6",
    "ipip 4in4",
    "ipip 6in4",
    "ipip 4in6",
    "ipip 6in6",
    "nat v4",
    "nat v6",
    "return v4",
    "return v6",
    "reply echo v4",
    "reply echo v6",
    "reply reset v4",
    "reply reset v6",
    "reply unreachable v4",
    "reply unreachable v6",
    "reply too_big v4",
    "reply too_big v6",
    "notice tunnel_too_big",
    "notice looped",
];

#[test]
fn every_packet_becomes_what_is_written() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = 0;
    for file in case::read_all(&world::directory()) {
        let mut actual = Vec::new();
        for case in &file.cases {
            let lines = world::run(case, HEADROOMS[0], &mut Seen::default());
            wrong += usize::from(!bless && differs(&file, case, &lines));
            actual.extend(lines);
        }
        if bless {
            file.renew(&file.blessed(&actual));
        }
    }
    assert_eq!(wrong, 0, "cases differ; BLESS=1 renews them if the new outcome is the right one");
}

/// Whether a case came out otherwise than written; if so, says how.
fn differs(file: &CaseFile, case: &Case, actual: &[Vec<String>]) -> bool {
    let mut differs = false;
    for (input, actual) in inputs(case).zip(actual).filter(|(input, actual)| input.expected != **actual) {
        if !differs {
            println!("\n{}: case {}\n  {}", file.path.display(), case.name, case.rule);
        }
        differs = true;
        println!("  > {}", input.frame);
        difference(&input.expected, actual).iter().for_each(|line| println!("  {line}"));
    }
    differs
}

fn inputs(case: &Case) -> impl Iterator<Item = &case::Input> {
    case.steps.iter().filter_map(|step| match step {
        Step::Input(input) => Some(input),
        Step::Scenario(_) => None,
    })
}

/// Lines that both have at start and end stay as they are, what lies between is shown as removed and added.
fn difference(expected: &[String], actual: &[String]) -> Vec<String> {
    let same = |(one, other): &(&String, &String)| one == other;
    let start = expected.iter().zip(actual).take_while(same).count();
    let tails = expected[start..].iter().rev().zip(actual[start..].iter().rev());
    let end = tails.take_while(same).count();
    let shown = |mark: char, lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| format!("{mark} {line}")).collect()
    };
    let [removed, added] = [expected, actual].map(|lines| &lines[start..lines.len() - end]);
    let rest = &expected[expected.len() - end..];
    [shown(' ', &expected[..start]), shown('-', removed), shown('+', added), shown(' ', rest)].concat()
}

#[test]
fn headroom_changes_nothing_that_leaves() {
    for file in case::read_all(&world::directory()) {
        for case in file.cases.iter().filter(|case| inputs(case).all(|input| length(&input.frame) <= LONG)) {
            let [most, others @ ..] =
                HEADROOMS.map(|headroom| world::run(case, headroom, &mut Seen::default()));
            others.iter().for_each(|other| assert_eq!(*other, most, "case {}", case.name));
        }
    }
}

#[test]
fn no_frame_is_lost_wherever_it_ends() {
    let files = case::read_all(&world::directory());
    let cut: usize = files.iter().flat_map(|file| &file.cases).map(|case| world::run_cut(case, SHORT)).sum();
    assert!(cut > 10_000, "only {cut} frames");
}

fn length(frame: &str) -> usize {
    language::frame(frame).map_or(0, |frame| frame.len())
}

#[test]
fn cases_are_many_and_show_every_outcome() {
    let (mut names, mut seen) = (BTreeSet::new(), Seen::default());
    for file in case::read_all(&world::directory()) {
        for case in &file.cases {
            assert!(names.insert(case.name.clone()), "there are two cases {}", case.name);
            assert!(case.rule.ends_with('.'), "case {} has no rule, which is a sentence", case.name);
            assert!(inputs(case).count() > 0, "nothing happens in case {}", case.name);
            world::run(case, HEADROOMS[0], &mut seen);
        }
    }
    println!("{} cases, {} kinds of outcomes", names.len(), seen.0.len());
    assert!(names.len() >= 150, "only {} cases", names.len());
    let drops = DropReason::ALL.iter().map(|reason| (format!("drop {}", reason.name()), *reason));
    for (kind, reason) in drops {
        let unreached = UNREACHED.iter().find(|(unreached, _)| *unreached == reason).map(|(_, why)| *why);
        match (seen.0.contains(&kind), unreached) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(why)) => panic!("a case shows {kind}, although it {why}"),
            (false, None) => panic!("no case shows {kind}"),
        }
    }
    let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !seen.0.contains(*kind)).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}
