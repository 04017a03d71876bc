//! One time of leading: it begins only when what is known of the cluster is as new as the Lease, and while it lasts its
//! gate is open.
//!
//! A leader that has just been elected may know less than the one before: addresses that it would take for free, or pools
//! without which it would take their addresses away.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use kube::api::ListParams;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Error, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::election::{Seat, Standing};
use crate::until::now;

/// Until what is known is compared again.
const PAUSE: Duration = Duration::from_millis(200);
/// What the API answers about a kind that it does not know.
const NOT_FOUND: u16 = 404;

/// Open while this box leads, by its own clock.
#[derive(Clone, Debug)]
pub struct Gate(watch::Receiver<Seat>);

/// By what right addresses are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This box gives them.
    Leader,
    /// Nobody is known to: what was decided stays.
    Nobody,
    /// Another does, and the status of the Services shows it.
    Follower,
}

/// The terms of this box.
pub struct Terms {
    seat: watch::Receiver<Seat>,
    /// The last that began.
    begun: Option<u64>,
    next: Option<Prepared>,
}

/// A term that is about to begin, and what it waits for.
type Prepared = (u64, Pin<Box<dyn Future<Output = ()> + Send>>);

/// What may happen to a box that takes part in the election.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stands otherwise.
    Seat(Seat),
    /// A term that was prepared has begun: what was known of the one before counts no more.
    Begun,
}

impl Gate {
    /// Of a box that stands so.
    pub fn new(seat: watch::Receiver<Seat>) -> Self {
        Self(seat)
    }

    /// Whether something may be written now.
    pub fn is_open(&self) -> bool {
        self.0.borrow().standing.leads(now()).is_some()
    }
}

impl Terms {
    /// None has begun.
    pub fn new(seat: watch::Receiver<Seat>) -> Self {
        Self { seat, begun: None, next: None }
    }

    /// Open in any term.
    pub fn gate(&self) -> Gate {
        Gate::new(self.seat.clone())
    }

    /// Returns at the next turn.
    pub async fn turn(&mut self) -> Turn {
        tokio::select! {
            // Fails only if the election has ended, and this with it.
            Ok(()) = self.seat.changed() => Turn::Seat(self.seat.borrow_and_update().clone()),
            term = prepared(&mut self.next) => {
                self.begun = Some(term);
                self.next = None;
                Turn::Begun
            }
            else => std::future::pending().await,
        }
    }

    /// A term that is new begins when `current` is done, which is called for no other.
    pub fn prepare<F: Future<Output = ()> + Send + 'static>(&mut self, current: impl FnOnce() -> F) {
        let term = self.seat.borrow().standing.leads(now());
        let Some(term) = term.filter(|term| self.begun != Some(*term)) else { return };
        if self.next.as_ref().is_none_or(|(next, _)| *next != term) {
            self.next = Some((term, Box::pin(current())));
        }
    }

    /// As of now.
    pub fn role(&self) -> Role {
        let seat = self.seat.borrow();
        match (&seat.standing, seat.standing.leads(now())) {
            (_, Some(term)) if self.begun == Some(term) => Role::Leader,
            // Nobody could have led while this box did.
            (Standing::Leads { .. } | Standing::Lapsed, _) => Role::Nobody,
            (Standing::Unknown | Standing::Follows { .. }, _) => Role::Follower,
        }
    }
}

async fn prepared(next: &mut Option<Prepared>) -> u64 {
    let Some((term, current)) = next else { return std::future::pending().await };
    current.await;
    *term
}

/// Returns once the objects of a kind that are known are as new as those that the API lists; it has none of a kind that it
/// does not know.
pub async fn caught_up<K>(client: Client, known: Store<K>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + 'static,
{
    loop {
        // By no version: the newest there are.
        let current = match Api::<K>::all(client.clone()).list_metadata(&ListParams::default()).await {
            Ok(listed) => {
                let versions = listed.items.iter().map(|object| (object.uid(), object.resource_version()));
                let known = known.state().into_iter().map(|object| (object.uid(), object.resource_version()));
                is_current(versions, &known.collect())
            }
            Err(Error::Api(status)) => status.code == NOT_FOUND,
            Err(_) => false,
        };
        if current {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

type Text = Option<String>;

/// Whether everything that is listed is known in that version or a later one.
fn is_current(mut listed: impl Iterator<Item = (Text, Text)>, known: &HashMap<Text, Text>) -> bool {
    listed.all(|(uid, version)| known.get(&uid).is_some_and(|known| !is_older(known, &version)))
}

/// Versions are numbers that grow (KEP-5504).
fn is_older(known: &Text, listed: &Text) -> bool {
    let number = |version: &Text| version.as_ref().and_then(|version| version.parse::<u128>().ok());
    match (number(known), number(listed)) {
        (Some(known), Some(listed)) => known < listed,
        _ => known != listed,
    }
}

#[cfg(test)]
mod tests;
