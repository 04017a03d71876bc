//! Watches the pools of a cluster. That it does not know the kind is no problem: it has none then, and is asked again
//! now and then.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Error};
use tokio::sync::{Notify, watch};

use crate::kubernetes::shunt_pool::ShuntPool;

/// What the cluster answers to a question about a kind that it does not know.
const NOT_FOUND: u16 = 404;
/// The rest of a watch was thrown away.
const GONE: u16 = 410;

/// The pools of a cluster.
pub struct Watched {
    store: Store<ShuntPool>,
    /// The cluster does not know the kind.
    is_unknown: watch::Receiver<bool>,
}

impl Watched {
    /// Returns once it is known which pools there are, be it none.
    pub async fn complete(&self) {
        let mut is_unknown = self.is_unknown.clone();
        // Either fails only if the watch has ended, and then nobody waits.
        tokio::select! {
            _ = self.store.wait_until_ready() => {}
            _ = is_unknown.wait_for(|is_unknown| *is_unknown) => {}
        }
    }

    /// As of now.
    pub fn pools(&self) -> Vec<Arc<ShuntPool>> {
        self.store.state()
    }
}

/// The pools, and what keeps them up to date for ever. `changed` is notified of every change, and `tell` called with
/// what is wrong after each answer.
pub fn watched(
    client: &Client,
    timeout_s: u32,
    changed: &Arc<Notify>,
    tell: impl Fn(Option<String>) + Send + 'static,
) -> (Watched, impl Future<Output = ()> + Send + 'static) {
    let (store, writer) = reflector::store();
    let (unknown, is_unknown) = watch::channel(false);
    let config = watcher::Config::default().timeout(timeout_s);
    let (api, changed) = (Api::<ShuntPool>::all(client.clone()), Arc::clone(changed));
    let begin = move || watcher(api.clone(), config.clone());
    let work = async move {
        let mut writer = writer;
        loop {
            let mut events = pin!(begin().default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    // Said before the API is asked, and shown only once the list is complete.
                    Ok(event @ (watcher::Event::Init | watcher::Event::InitApply(_))) => {
                        writer.apply_watcher_event(&event);
                    }
                    Ok(event) => {
                        writer.apply_watcher_event(&event);
                        unknown.send_replace(false);
                        tell(None);
                        changed.notify_one();
                    }
                    Err(error) if code(&error) == Some(NOT_FOUND) => {
                        unknown.send_replace(true);
                        tell(None);
                        changed.notify_one();
                    }
                    Err(error) => {
                        tell(Some(format!("shuntpools: {error}")));
                        if code(&error) == Some(GONE) {
                            break;
                        }
                    }
                }
            }
        }
    };
    (Watched { store, is_unknown }, work)
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status)) => Some(status.code),
        _ => None,
    }
}
