//! Watches: lines of JSON as long as they last.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Api, Broken, Request};

/// One watch.
struct Watch {
    api: Api,
    kind: String,
    /// What it was told up to.
    version: u64,
    breaks: u64,
    number: u64,
    ends: Instant,
    ended: bool,
}

/// The body of an answer.
pub fn body(api: &Api, request: &Request) -> Body {
    let of = |name: &str| request.query.get(name).and_then(|text| text.parse::<u64>().ok());
    let mut state = api.state();
    state.begun += 1;
    let (number, breaks) = (state.begun, state.breaks);
    drop(state);
    let watch = Watch {
        api: api.clone(),
        kind: request.kind.clone(),
        version: of("resourceVersion").expect("watches start from a list"),
        breaks,
        number,
        ends: Instant::now() + Duration::from_secs(of("timeoutSeconds").expect("watches end")),
        ended: false,
    };
    Body::from_stream(stream::unfold(watch, |mut watch| async {
        let told = watch.next().await?;
        Some((told, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        while !self.ended {
            let api = self.api.clone();
            let mut changed = std::pin::pin!(api.inner.changed.notified());
            changed.as_mut().enable();
            if let Some(told) = self.told() {
                return Some(told);
            }
            let silent = self.is_silent();
            tokio::select! {
                () = changed => {}
                () = sleep_until(self.ends), if !silent => {
                    self.ended = true;
                    return Some(Ok(self.bookmark()));
                }
            }
        }
        None
    }

    /// What there is to tell now.
    fn told(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.is_silent() {
            return None;
        }
        let state = self.api.state();
        if state.breaks != self.breaks {
            self.ended = true;
            let cut = state.broken == Broken::MidLine;
            let torn = || Err(std::io::Error::other("connection reset"));
            return Some(if cut && self.version.is_multiple_of(2) {
                torn()
            } else {
                Ok(Bytes::from(if cut { "{\"type\":\"MOD" } else { "" }))
            });
        }
        if self.version < state.oldest {
            self.ended = true;
            return Some(Ok(line("ERROR", &super::respond::status(410, "Expired"))));
        }
        let next =
            state.history.iter().find(|(version, kind, ..)| *version > self.version && *kind == self.kind);
        let (version, _, event, object) = next?;
        self.version = *version;
        Some(Ok(line(event, object)))
    }

    fn is_silent(&self) -> bool {
        let state = self.api.state();
        state.silent || self.number <= state.dead
    }

    fn bookmark(&self) -> Bytes {
        let state = self.api.state();
        let (api_version, kind) = super::respond::type_of(&self.kind);
        let version = state.version.to_string();
        line(
            "BOOKMARK",
            &json!({ "apiVersion": api_version, "kind": kind, "metadata": { "resourceVersion": version } }),
        )
    }
}

fn line(event: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({ "type": event, "object": object })).into()
}
