//! The loop that carries facts and questions between the kernel and [`World`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::facts::{Answer, Event, Inquiry, Requests};
use super::message;
use super::socket::{Events, Questions, Read, Reply};
use super::world::World;
use super::{HopMap, LinkMap, NeighborError};

/// Keeps `hops` up to date with one entry for each `wanted` address, and `links` with every interface, until
/// an error ends it. A hop leads through one of the `served` interfaces (ifindexes), tagged where the kernel
/// has a VLAN device on it, or is not usable.
///
/// Runs on a single-threaded tokio runtime with I/O and time enabled, in the network namespace of the calling
/// thread. Nothing is published before the kernel was read completely once, so that a follower that is
/// started again leaves the maps of its predecessor in place until it knows better. Both maps are replaced
/// only when they differ. To start it again after an error, keep clones of the two senders.
///
/// # Errors
/// Whatever ends the following; see [`NeighborError`]. It never returns otherwise.
pub async fn follow(
    mut served: watch::Receiver<BTreeSet<u32>>,
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
    hops: watch::Sender<Arc<HopMap>>,
    links: watch::Sender<Arc<LinkMap>>,
) -> Result<Infallible, NeighborError> {
    let mut events = Events::open()?;
    let mut questions = Questions::open()?;
    let mut world = World::new(Instant::now());
    world.serve(&served.borrow_and_update());
    world.want(&wanted.borrow_and_update(), Instant::now());
    loop {
        let requests = world.requests(Instant::now());
        if requests != Requests::default() {
            carry_out(&requests, &mut questions, &mut world).await?;
            continue;
        }
        if let Some((new_links, new_hops)) = world.news() {
            replace(&links, new_links);
            replace(&hops, new_hops);
        }
        tokio::select! {
            biased;
            changed = served.changed() => {
                changed.map_err(|_| NeighborError::Closed)?;
                world.serve(&served.borrow_and_update());
            }
            changed = wanted.changed() => {
                changed.map_err(|_| NeighborError::Closed)?;
                world.want(&wanted.borrow_and_update(), Instant::now());
            }
            ready = events.wait() => {
                ready?;
                note_events(&mut events, &mut world)?;
            }
            () = sleep_until(world.next_deadline().into()) => {}
        }
    }
}

fn replace<T: PartialEq>(published: &watch::Sender<Arc<T>>, new: T) {
    published.send_if_modified(|current| {
        let differs = **current != new;
        if differs {
            *current = Arc::new(new);
        }
        differs
    });
}

fn note_events(events: &mut Events, world: &mut World) -> Result<(), NeighborError> {
    let now = Instant::now();
    let read = events.read(|message| {
        if let Some(event) = message::event(message) {
            world.apply(event, now);
        }
    });
    if read? == Read::Overrun {
        warn!(
            "the kernel dropped changes of routes or neighbours before they were read; reading everything again"
        );
        world.overrun(now);
    }
    Ok(())
}

async fn carry_out(
    requests: &Requests,
    questions: &mut Questions,
    world: &mut World,
) -> Result<(), NeighborError> {
    if requests.resync {
        resync(questions, world).await?;
    }
    ask_routes(&requests.routes, questions, world).await?;
    ask_neighbours(&requests.neighbours, questions, world).await
}

async fn resync(questions: &mut Questions, world: &mut World) -> Result<(), NeighborError> {
    let mut found: Vec<Event> = Vec::new();
    questions.dump(message::ask_links, |message| found.extend(message::event(message))).await?;
    questions.dump(message::ask_neighbours, |message| found.extend(message::event(message))).await?;
    world.resync(found, Instant::now());
    Ok(())
}

/// The kernel says "no route" in several errors, and EINVAL for a black hole. Only a want of memory says
/// nothing about the route.
async fn ask_routes(
    addresses: &[IpAddr],
    questions: &mut Questions,
    world: &mut World,
) -> Result<(), NeighborError> {
    let note = |address, reply: Reply| {
        let now = Instant::now();
        match reply {
            Reply::Message(answer) => world.answer(address, message::route_answer(answer.payload), now),
            Reply::Refused(Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN) => world.ask_again(address, now),
            Reply::Refused(_) | Reply::Done => world.answer(address, Answer::NoRoute, now),
        }
    };
    questions.ask(addresses, message::ask_route, note).await
}

async fn ask_neighbours(
    inquiries: &[Inquiry],
    questions: &mut Questions,
    world: &mut World,
) -> Result<(), NeighborError> {
    let mut outcome = Ok(());
    let mut table_full = None;
    let note = |Inquiry { key, .. }: Inquiry, reply: Reply| match reply {
        // It came into being meanwhile; its events tell the rest.
        Reply::Message(_) | Reply::Done | Reply::Refused(Errno::EXIST) => {}
        Reply::Refused(Errno::PERM) => outcome = Err(NeighborError::NotPermitted),
        Reply::Refused(errno) => {
            debug!(ifindex = key.0, address = %key.1, %errno, "the kernel did not look for a neighbour");
            if errno == Errno::NOBUFS {
                table_full = Some(key.1);
            }
            world.apply(Event::NeighbourGone { key }, Instant::now());
        }
    };
    questions.ask(inquiries, message::ask_neighbour, note).await?;
    if let Some(address) = table_full {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        warn!(%address, "the kernel's neighbour table is full; raise net.{family}.neigh.default.gc_thresh3");
    }
    outcome
}
