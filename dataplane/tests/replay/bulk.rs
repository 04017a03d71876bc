//! Many packets: nothing is lost, the same capture gives the same bytes, and how fast that goes.

use std::time::Duration;

use shunt_api::counters::Counter;
use shunt_dataplane::replay::account::Verdict;
use shunt_dataplane::replay::capture::{Precision, Writer};
use shunt_dataplane::replay::report::{Report, Summary};
use shunt_dataplane::replay::{Replay, Settings};

use super::frames::*;

const PACKETS: usize = 100_000;
const FLOWS: u16 = 5000;

/// A seventh each tunnelled, translated, answered, passed and cut off; the others are routed directly.
fn frame(number: usize) -> Vec<u8> {
    let flow = (number as u16).wrapping_mul(31) % FLOWS;
    let flags = if number < usize::from(FLOWS) { SYN } else { ACK };
    match number % 7 {
        0 => tcp(flow, VIP, 81, flags),
        1 => udp((CLIENT, flow), (VIP, 53)),
        2 => echo(),
        3 => arp(),
        4 => tcp(flow, VIP, 80, flags)[..number % 59].to_vec(),
        _ => tcp(flow, VIP, 80, flags),
    }
}

/// Output, report and totals of a replay.
fn replayed(frames: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, Summary, Replay) {
    let mut replay = Replay::new(&snapshot(), &Settings::default()).unwrap();
    let (mut out, mut report, mut summary) = (Vec::new(), Vec::new(), Summary::default());
    let mut writer = Writer::new(&mut out, Precision::Nano).unwrap();
    let mut lines = Report::new(&mut report).unwrap();
    for (number, frame) in frames.iter().enumerate() {
        let time = Duration::from_micros(number as u64 * 100);
        let account = replay.play(time, frame, |bytes| writer.record(time, bytes).unwrap());
        let sent = summary.add(&account);
        lines.packet(summary.packets, time, &account, sent).unwrap();
    }
    writer.finish().unwrap();
    lines.finish(&summary, &replay.counters()).unwrap();
    (out, report, summary, replay)
}

#[test]
fn two_runs_are_the_same_to_the_byte_and_nothing_is_lost() {
    let frames: Vec<_> = (0..PACKETS).map(frame).collect();
    let (out, report, summary, replay) = replayed(&frames);
    let (again, reported_again, ..) = replayed(&frames);
    assert!(out == again && report == reported_again, "two runs differ");

    let goes_on = [Verdict::Forward, Verdict::Translate, Verdict::Return, Verdict::Reply];
    let sent: u64 = goes_on.iter().map(|verdict| summary.count(*verdict)).sum();
    let (passed, dropped) = (summary.count(Verdict::Pass), summary.count(Verdict::Drop));
    assert_eq!(summary.packets, PACKETS as u64);
    assert_eq!(summary.packets, sent + passed + dropped, "{summary}");
    let counted = replay.counters();
    assert_eq!(counted.counter(Counter::RxPackets), summary.packets - passed);
    assert_eq!((counted.counter(Counter::TxPackets), counted.dropped_total()), (sent, dropped));
    assert!(goes_on.iter().all(|verdict| *verdict == Verdict::Return || summary.count(*verdict) > 1000));
    assert!(passed > 1000 && dropped > 1000, "{summary}");

    let per_s = counted.counter(Counter::RxPackets) as f64 / replay.in_worker().as_secs_f64();
    println!("{summary}{per_s:.0} packets a second in the worker, one at a time");
}
