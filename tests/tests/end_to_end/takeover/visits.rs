//! New connections all the time, to see for how long nobody could make one.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shunt_tests::client;
use shunt_tests::error::{Error, Result};
use shunt_tests::namespace::Namespace;
use tokio::task::JoinSet;

/// From one connection to the next; each is to another VIP, by turns.
const PERIOD: Duration = Duration::from_millis(10);

/// One connection that was tried.
#[derive(Clone, Copy, Debug)]
struct Visit {
    vip: IpAddr,
    begun: Instant,
    ended: Instant,
    answered: bool,
}

type Made = Arc<Mutex<Vec<Visit>>>;

/// Visitors on their way.
pub struct Visits {
    vips: Vec<IpAddr>,
    end: Arc<AtomicBool>,
    made: Made,
    thread: JoinHandle<Result<()>>,
}

impl Visits {
    /// Asks nginx over TCP from inside a namespace until [`Self::finish`].
    pub fn start(namespace: &Namespace, vips: &[IpAddr]) -> Self {
        let (end, made) = (Arc::new(AtomicBool::new(false)), Made::default());
        let (namespace, all) = (namespace.clone(), vips.to_vec());
        let (end_there, made_there) = (Arc::clone(&end), Arc::clone(&made));
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
            let good =
                made.iter().filter(|visit| visit.vip == *vip && visit.answered && visit.begun >= since);
            good.map(|visit| visit.ended).min()
        };
        self.vips.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The longest time within which no connection to some VIP was answered, between two instants.
    pub fn silence(&self, from: Instant, to: Instant) -> Duration {
        let made = self.made();
        let of_vip = |vip: &IpAddr| {
            let good = made.iter().filter(|visit| visit.vip == *vip && visit.answered);
            let mut at: Vec<_> =
                good.map(|visit| visit.ended).filter(|at| (from..=to).contains(at)).collect();
            at.extend([from, to]);
            at.sort_unstable();
            at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        self.vips.iter().map(of_vip).max().unwrap_or_default()
    }

    /// Connections begun between two instants that were not answered, and all of them.
    pub fn failed(&self, from: Instant, to: Instant) -> (usize, usize) {
        let made = self.made();
        let within: Vec<_> = made.iter().filter(|visit| (from..=to).contains(&visit.begun)).collect();
        (within.iter().filter(|visit| !visit.answered).count(), within.len())
    }

    /// Ends it.
    pub fn finish(self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
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
        let made = Arc::clone(&made);
        visitors.spawn(async move {
            let begun = Instant::now();
            let any: IpAddr = if vip.is_ipv4() {
                std::net::Ipv4Addr::UNSPECIFIED.into()
            } else {
                std::net::Ipv6Addr::UNSPECIFIED.into()
            };
            let answered = client::who((any, 0).into(), SocketAddr::new(vip, 80)).await.is_ok();
            let visit = Visit { vip, begun, ended: Instant::now(), answered };
            made.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
        });
        while visitors.try_join_next().is_some() {}
    }
}
