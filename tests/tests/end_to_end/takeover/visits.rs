//! New connections all the time, to see for how long nobody could make one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shunt_tests::client;
use shunt_tests::error::{Error, Result};
use shunt_tests::namespace::Namespace;
use tokio::task::JoinSet;

use super::End;

/// From one connection to the next; each is to another VIP, by turns.
const PERIOD: Duration = Duration::from_millis(10);

/// One connection that was tried.
#[derive(Clone, Copy, Debug)]
struct Visit {
    vip: IpAddr,
    begun: Instant,
    answered: Option<Instant>,
}

type Made = Arc<Mutex<Vec<Visit>>>;

/// Visitors on their way.
pub struct Visits {
    vips: Vec<IpAddr>,
    end: End,
    made: Made,
    thread: JoinHandle<Result<()>>,
}

impl Visits {
    /// Asks nginx over TCP from inside a namespace until [`Self::finish`].
    pub fn start(namespace: &Namespace, vips: &[IpAddr]) -> Self {
        let (end, made) = (End::default(), Made::default());
        let (namespace, all) = (namespace.clone(), vips.to_vec());
        let (end_there, made_there) = (Arc::clone(&end.0), Arc::clone(&made));
        let thread = std::thread::spawn(move || {
            client::run_inside(&namespace, || visit_all(all, end_there, made_there))
        });
        Self { vips: vips.to_vec(), end, made, thread }
    }

    /// When the first connection begun after `since` was answered, for the VIP for which that took longest; `None`
    /// until there is one for each.
    pub fn answered(&self, since: Instant) -> Option<Instant> {
        let made = self.made();
        let first = |vip: &IpAddr| {
            let of_vip = made.iter().filter(|visit| visit.vip == *vip && visit.begun >= since);
            of_vip.filter_map(|visit| visit.answered).min()
        };
        self.vips.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The longest time within which no connection to some VIP was answered, between two instants.
    pub fn silence(&self, from: Instant, to: Instant) -> Duration {
        let made = self.made();
        let of_vip = |vip: &IpAddr| {
            let answered = made.iter().filter(|visit| visit.vip == *vip).filter_map(|visit| visit.answered);
            let mut at: Vec<_> = answered.filter(|at| (from..=to).contains(at)).collect();
            at.extend([from, to]);
            at.sort_unstable();
            at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        self.vips.iter().map(of_vip).max().unwrap_or_default()
    }

    /// Connections begun between two instants that are not answered yet, and all of them.
    pub fn unanswered(&self, from: Instant, to: Instant) -> (usize, usize) {
        let made = self.made();
        let within: Vec<_> = made.iter().filter(|visit| (from..=to).contains(&visit.begun)).collect();
        (within.iter().filter(|visit| visit.answered.is_none()).count(), within.len())
    }

    /// Ends it.
    pub fn finish(self) -> Result<()> {
        drop(self.end);
        self.thread.join().unwrap_or_else(|_| Err(Error::Wrong("the visitors panicked".into())))
    }

    fn made(&self) -> Vec<Visit> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn visit_all(vips: Vec<IpAddr>, end: Arc<AtomicBool>, made: Made) {
    let mut visitors = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for vip in vips.into_iter().cycle() {
        ticks.tick().await;
        if end.load(Ordering::Relaxed) {
            break;
        }
        let number = {
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            made.push(Visit { vip, begun: Instant::now(), answered: None });
            made.len() - 1
        };
        let made = Arc::clone(&made);
        visitors.spawn(async move {
            let any: IpAddr =
                if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            if client::who((any, 0).into(), SocketAddr::new(vip, 80)).await.is_ok() {
                let answered = Some(Instant::now());
                made.lock().unwrap_or_else(PoisonError::into_inner)[number].answered = answered;
            }
        });
        while visitors.try_join_next().is_some() {}
    }
}
