//! Keeps all objects of one kind: one loop for all kinds.
//!
//! A kind may be one that the cluster need not know. It has none of them then, and is asked again now and then. If it
//! ceases to know a kind of which it had some, that is told as any other failure, and they stay as they were known last:
//! whoever deletes a kind deletes its objects first, and the watch says so of each, so an answer that the kind is unknown
//! says nothing about them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use http::Request;
use kube::client::Body;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::store::Writer};
use kube::{Api, Client, Error, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use super::Contact;

/// How long a watch lasts; a connection that died without a word is noticed a few seconds after that.
const WATCH_TIMEOUT_S: u32 = 45;
/// Until a cluster that does not know a kind is asked again, added to the pause after any failure.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);
/// What the API answers about a kind that it does not know.
const NOT_FOUND: u16 = 404;
/// The API cannot tell what has changed since then.
const GONE: u16 = 410;
/// Longest pause after a failure. Clusters have many clients, but few boxes.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether a cluster has to know a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Nothing is complete without it.
    Yes,
    /// One that does not know it has none.
    No,
}

/// What is done with what the API says.
struct Keeper<K: Resource<DynamicType = ()> + Clone + 'static> {
    kind: &'static str,
    needed: Needed,
    store: Store<K>,
    writer: Writer<K>,
    changed: Arc<Notify>,
    contact: Arc<watch::Sender<Contact>>,
    /// It is known what there is.
    is_known: bool,
}

/// All objects of a kind, and what keeps them up to date for ever. `changed` is notified of every change, and `contact`
/// told what is wrong. The store is ready once it is known what there is, be it nothing.
pub fn kept<K>(
    client: &Client,
    kind: &'static str,
    needed: Needed,
    changed: &Arc<Notify>,
    contact: &Arc<watch::Sender<Contact>>,
) -> (Store<K>, impl Future<Output = ()> + Send + 'static + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    // Lists are the most recent there are: an older one may lack the status that says who has an address.
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_S);
    let begun = {
        let contact = Arc::clone(contact);
        move || say(&contact, kind, None)
    };
    let api = Api::<K>::all(telling(client, begun));
    let events = begun_again(api, config).backoff(Pauses::default());
    // They are most of an object, and of no use here.
    let events = events.modify(|object| object.managed_fields_mut().clear());
    let (changed, contact) = (Arc::clone(changed), Arc::clone(contact));
    let mut keeper = Keeper { kind, needed, store: store.clone(), writer, changed, contact, is_known: false };
    let work = async move {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => keeper.take(&event),
                Err(error) if keeper.is_unknown(&error) => {
                    keeper.take_none();
                    tokio::time::sleep(UNKNOWN_PAUSE).await;
                }
                // The API answers, and the list that follows tells all.
                Err(error) if is_too_old(&error) => {}
                Err(error) => keeper.tell(Some(error.to_string())),
            }
        }
    };
    (store, work)
}

/// Those of the library, which grow to half a minute, but none longer than [`PAUSE_MAX`]: after an outage people wait for
/// what they changed meanwhile.
#[derive(Default)]
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(PAUSE_MAX))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Keeper<K> {
    fn take(&mut self, event: &Event<K>) {
        self.writer.apply_watcher_event(event);
        // Said before the API is asked, and shown only once the list is complete.
        if matches!(event, Event::Init | Event::InitApply(_)) {
            return;
        }
        self.is_known = true;
        self.tell(None);
        self.changed.notify_one();
    }

    /// The cluster does not know the kind, and none was known that would be lost by that.
    fn is_unknown(&self, error: &watcher::Error) -> bool {
        self.needed == Needed::No && code(error) == Some(NOT_FOUND) && self.store.is_empty()
    }

    fn take_none(&mut self) {
        if !self.is_known {
            self.take(&Event::Init);
            self.take(&Event::InitDone);
        }
        self.tell(None);
    }

    fn tell(&self, problem: Option<String>) {
        say(&self.contact, self.kind, problem);
    }
}

fn say(contact: &watch::Sender<Contact>, kind: &'static str, problem: Option<String>) {
    let problem = problem.map(|problem| format!("{kind}: {problem}"));
    contact.send_if_modified(|contact| contact.tell(kind, problem));
}

/// A watcher that is begun anew, with a list, when the API refuses to watch from where it was. (It does so by itself when
/// it is told so in a watch, but not when it is the answer to one.)
fn begun_again<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((begin(), begin), |(mut events, begin)| async {
        let event = events.next().await?;
        let refused = event.as_ref().err().and_then(code);
        if refused.is_some_and(|code| [NOT_FOUND, GONE].contains(&code)) {
            events = begin();
        }
        Some((event, (events, begin)))
    })
}

/// A client that says when a watch has begun. The watcher does not, and after an outage in which nothing changed there may
/// be no event for days.
fn telling(client: &Client, begun: impl Fn() + Clone + Send + 'static) -> Client {
    let namespace = client.default_namespace().to_owned();
    let client = client.clone();
    let send = move |request: Request<Body>| {
        let (client, begun) = (client.clone(), begun.clone());
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        async move {
            let answer = client.send(request).await;
            if is_watch && answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                begun();
            }
            answer
        }
    };
    Client::new(tower::service_fn(send), namespace)
}

/// What was seen last is too old to watch from, by an event or by the answer.
fn is_too_old(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == GONE,
        watcher::Error::WatchStartFailed(_) => code(error) == Some(GONE),
        _ => false,
    }
}

/// Of the answer to a list or to the beginning of a watch.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status)) => Some(status.code),
        _ => None,
    }
}
