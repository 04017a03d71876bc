//! Carries frames between the sockets and the [`Station`], looks at the NICs, and keeps the time.

use std::time::{Duration, Instant, SystemTime};

use shunt_api::status::{L2Status, TimeMs};
use tokio::sync::watch;

use super::Settings;
use super::ports::{Plan, Ports};
use super::station::{Output, Station, Wish};
use crate::announce::Wanted;
use crate::journal::Journal;

/// How often the NICs are looked at: a link that comes or goes is noticed within it.
const LOOK: Duration = Duration::from_millis(500);
/// Until more groups are joined, when there were too many for once.
const JOIN_PAUSE: Duration = Duration::from_millis(20);

/// Does all of it until nobody can want anything any more.
pub async fn drive(
    mut wanted: watch::Receiver<Wanted<Settings>>,
    journal: &Journal,
    standing: &watch::Sender<L2Status>,
) {
    let mut station = Station::new(Instant::now());
    let mut ports = Ports::default();
    let mut plan = Plan::default();
    let mut look_at = Instant::now();
    let mut more = false;
    wanted.mark_changed();
    loop {
        let deadline = station.next_deadline().map_or(look_at, |deadline| deadline.min(look_at));
        let changed = tokio::select! {
            biased;
            () = ports.readable() => false,
            changed = wanted.changed() => match changed {
                Ok(()) => true,
                Err(_) => break,
            },
            () = tokio::task::yield_now(), if more => false,
            () = tokio::time::sleep_until(deadline.into()) => false,
        };
        // What was received is heard before timers are looked at, and timers are looked at as of before it was: a
        // box that was stopped for a while must not take over from a master whose advertisements wait to be read.
        let now = Instant::now();
        more = ports.drain(&mut station);
        station.set_wall(TimeMs::of(SystemTime::now()));
        if changed && let Some(wish) = wish(&wanted.borrow_and_update()) {
            plan = Plan::of(wish.as_ref());
            ports.follow(&plan);
            station.set_own(ports.own().clone());
            station.want(wish, ports.facts(), now);
        }
        let looked = now >= look_at;
        if looked {
            let done = ports.follow(&plan);
            station.set_own(ports.own().clone());
            station.set_nics(ports.facts(), now);
            look_at = now + if done { LOOK } else { JOIN_PAUSE };
        }
        station.tick(now);
        let told = carry(station.take_output(), &ports, journal);
        ports.close_leaving();
        if looked || changed || told {
            publish(standing, station.status(ports.problems()));
        }
    }
    station.close(Instant::now());
    carry(station.take_output(), &ports, journal);
    publish(standing, station.status(&[]));
}

/// What the wish comes to; `None` to go on as before.
fn wish(wanted: &Wanted<Settings>) -> Option<Option<Wish>> {
    match wanted {
        Wanted::Unknown => None,
        Wanted::Unused => Some(None),
        Wanted::These { settings, addresses } => Some(Some((settings.clone(), addresses.clone()))),
    }
}

/// Sends and tells; returns whether there was something to tell.
fn carry(output: Output, ports: &Ports, journal: &Journal) -> bool {
    output.frames.iter().for_each(|sent| ports.send(sent));
    let told = !output.happenings.is_empty();
    output.happenings.into_iter().for_each(|happening| journal.tell(happening));
    told
}

fn publish(standing: &watch::Sender<L2Status>, status: L2Status) {
    standing.send_if_modified(|before| {
        let differs = *before != status;
        *before = status;
        differs
    });
}
