//! Packets per second when more are sent than a subject can forward, and the time that packets take at half of that.

use std::time::{Duration, Instant};

use serde::Serialize;
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::wait;

use super::generator::Generator;
use super::histogram::percentile;
use super::network::Network;
use super::sink::Sink;
use super::subject::{FORWARDERS, Running, Subject};
use super::{PERCENTILES, ROUNDS, START_LIMIT, median, pause, turn};
use crate::results::rounded;

/// Bytes of the frames, without FCS.
pub const SIZES: [usize; 3] = [64, 512, 1500];
/// Time to enter all flows, and to confirm them.
const WARM_UP: Duration = Duration::from_millis(200);
/// Share of its own most that a subject is given when the time of packets is measured.
const LOAD: f64 = 0.5;

/// What a subject forwards at most.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Its name.
    pub subject: &'static str,
    /// Without FCS.
    pub frame_bytes: usize,
    /// Delivered to the backend.
    pub packets_per_second: f64,
    /// Median of the rounds' ratios.
    pub ratio_to_floor: f64,
}

/// How long packets take at half of what the subject forwards at most.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Its name.
    pub subject: &'static str,
    /// `packet`: 64 bytes, from generator to backend; `connection`: from the client's SYN to the end of the answer.
    pub of: &'static str,
    /// What was offered.
    pub per_second: f64,
    /// Microseconds that half of all take at most.
    pub p50_us: f64,
    /// 99 of a hundred.
    pub p99_us: f64,
    /// 999 of a thousand.
    pub p99_9_us: f64,
    /// Share of what was offered that did not arrive.
    pub lost: f64,
}

/// What both came to, with the subjects in the order of [`FORWARDERS`].
pub struct Packets {
    /// By subject, then by size.
    pub throughput: Vec<Throughput>,
    /// By subject.
    pub latency: Vec<Latency>,
}

/// A subject with load before it and a sink behind it.
struct Lane<'n> {
    subject: Subject,
    generator: Generator<'n>,
    sink: Sink,
    _running: Running<'n>,
}

/// What arrived in a while.
struct Delivered {
    per_second: f64,
    offered_per_second: f64,
    delays: Vec<u64>,
}

/// What a subject did in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    per_second: [f64; SIZES.len()],
    /// Microseconds.
    delays: [f64; PERCENTILES.len()],
    /// Share of the packets that were sent when these delays were taken.
    lost: f64,
}

/// Measures all forwarders, each for so long in each round.
pub fn measure(duration: Duration) -> Result<Packets> {
    let networks = FORWARDERS.map(|_| Network::build()).into_iter().collect::<Result<Vec<_>>>()?;
    let lanes = FORWARDERS.iter().zip(&networks).map(|(subject, network)| Lane::open(*subject, network));
    let lanes = lanes.collect::<Result<Vec<_>>>()?;
    let mut rounds = vec![Vec::with_capacity(ROUNDS); lanes.len()];
    for number in 0..ROUNDS {
        let mut round = vec![Round::default(); lanes.len()];
        for (size, bytes) in SIZES.into_iter().enumerate() {
            for index in turn(number, lanes.len()) {
                round[index].per_second[size] = lanes[index].most(bytes, duration)?;
            }
        }
        for index in turn(number, lanes.len()) {
            lanes[index].time(&mut round[index], duration)?;
        }
        rounds.iter_mut().zip(round).for_each(|(all, one)| all.push(one));
        eprint!(".");
    }
    Ok(summary(&rounds))
}

impl<'n> Lane<'n> {
    fn open(subject: Subject, network: &'n Network) -> Result<Self> {
        let sink = Sink::attach(network)?;
        let running = subject.start(network)?;
        Ok(Self { subject, generator: Generator::load(network)?, sink, _running: running })
    }

    /// Frames per second at most.
    fn most(&self, frame_bytes: usize, duration: Duration) -> Result<f64> {
        Ok(self.run(frame_bytes, None, duration)?.per_second)
    }

    /// Notes how long packets took at a share of the round's most.
    fn time(&self, round: &mut Round, duration: Duration) -> Result<()> {
        let interval = Duration::from_secs_f64(1.0 / (round.per_second[0] * LOAD));
        let delivered = self.run(SIZES[0], Some(interval), duration)?;
        for (share, delay) in PERCENTILES.into_iter().zip(&mut round.delays) {
            let delay_ns = percentile(&delivered.delays, share);
            *delay = delay_ns.ok_or_else(|| Error::Wrong("no frame had a time stamp".to_owned()))? / 1e3;
        }
        round.lost = (1.0 - delivered.per_second / delivered.offered_per_second).max(0.0);
        Ok(())
    }

    fn run(&self, frame_bytes: usize, interval: Option<Duration>, duration: Duration) -> Result<Delivered> {
        self.try_run(frame_bytes, interval, duration)
            .map_err(|error| Error::Wrong(format!("{}, {frame_bytes} bytes: {error}", self.subject.name())))
    }

    fn try_run(
        &self,
        frame_bytes: usize,
        interval: Option<Duration>,
        duration: Duration,
    ) -> Result<Delivered> {
        let kind = self.subject.delivers();
        let (before, delays) = (self.sink.arrived(kind)?, self.sink.delays()?);
        let mut process = self.generator.start(frame_bytes, interval)?;
        wait::until("the first packet to arrive", START_LIMIT, || {
            ensure(process.is_running(), || format!("the generator ended:\n{}", process.log()))?;
            Ok((self.sink.arrived(kind)? > before).then_some(()))
        })?;
        pause(WARM_UP);
        let (start, arrived, sent) = (Instant::now(), self.sink.arrived(kind)?, self.generator.sent()?);
        self.sink.set_timing(true)?;
        pause(duration);
        let (seconds, arrived) = (start.elapsed().as_secs_f64(), self.sink.arrived(kind)? - arrived);
        let sent = self.generator.sent()? - sent;
        self.sink.set_timing(false)?;
        drop(process);
        self.settle()?;
        // Read only now: a thousand system calls would be in the way of what is measured.
        let delays =
            self.sink.delays()?.into_iter().zip(delays).map(|(after, before)| after - before).collect();
        let checked = self.sink.check_samples(kind)?;
        ensure(checked > 0, || "no frame was looked at".to_owned())?;
        Ok(Delivered {
            per_second: arrived as f64 / seconds,
            offered_per_second: sent as f64 / seconds,
            delays,
        })
    }

    /// Waits until nothing is under way any more.
    fn settle(&self) -> Result<()> {
        let mut before = None;
        let settled = wait::until("the last packet to arrive", START_LIMIT, || {
            let arrived = Some(self.sink.arrived(self.subject.delivers())?);
            Ok((std::mem::replace(&mut before, arrived) == arrived).then_some(()))
        });
        settled.map(drop)
    }
}

fn summary(rounds: &[Vec<Round>]) -> Packets {
    let floor = &rounds[0];
    let mut packets = Packets { throughput: Vec::new(), latency: Vec::new() };
    for (subject, rounds) in FORWARDERS.iter().zip(rounds) {
        for (size, frame_bytes) in SIZES.into_iter().enumerate() {
            let ratios =
                rounds.iter().zip(floor).map(|(own, floor)| own.per_second[size] / floor.per_second[size]);
            packets.throughput.push(Throughput {
                subject: subject.name(),
                frame_bytes,
                packets_per_second: rounded(median(rounds.iter().map(|round| round.per_second[size])), 0),
                ratio_to_floor: rounded(median(ratios), 3),
            });
        }
        let delay = |index: usize| rounded(median(rounds.iter().map(|round| round.delays[index])), 1);
        packets.latency.push(Latency {
            subject: subject.name(),
            of: "packet",
            per_second: rounded(median(rounds.iter().map(|round| round.per_second[0] * LOAD)), 0),
            p50_us: delay(0),
            p99_us: delay(1),
            p99_9_us: delay(2),
            lost: rounded(median(rounds.iter().map(|round| round.lost)), 4),
        });
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rounds_and_not_of_medians() {
        let round =
            |per_second: f64| Round { per_second: [per_second; 3], delays: [1.0, 2.0, 3.0], lost: 0.0 };
        // The machine was half as fast in the second round, for all.
        let floor = vec![round(100.0), round(50.0), round(104.0)];
        let other: Vec<_> = floor.iter().map(|floor| round(floor.per_second[0] * 0.9)).collect();
        let packets = summary(&[floor, other]);
        let [.., last] = &packets.throughput[..] else { panic!("no points") };
        assert_eq!((last.subject, last.frame_bytes), ("shunt-dr", 1500));
        assert_eq!((last.packets_per_second, last.ratio_to_floor), (90.0, 0.9));
        assert_eq!(packets.latency[1].per_second, 45.0);
        assert_eq!(packets.latency[0].p99_9_us, 3.0);
    }
}
