//! Answers to requests.

use std::io;

use axum::body::Body;
use axum::extract::Query;
use axum::http;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Api, Fault, Request, patch, watch};

type Answer = Result<http::Response<Body>, io::Error>;

impl Api {
    /// Answers a request.
    pub(super) async fn serve(
        self,
        from: &'static str,
        request: http::Request<kube::client::Body>,
    ) -> Answer {
        let request = Request { from, ..read(request).await };
        let writes = !["list", "watch", "get"].contains(&request.verb);
        if writes {
            let writing = &mut self.state().writing;
            writing.1 += 1;
            writing.0 = writing.0.max(writing.1);
        }
        let answer = self.meet(&request).await;
        if writes {
            self.state().writing.1 -= 1;
            let code = answer.as_ref().map_or(0, |(code, _)| *code);
            if request.kind != "leases" {
                self.state().writes.push((from, patch::in_words(&request, code)));
            }
        }
        let (code, body) = answer?;
        let answer = http::Response::builder().status(code).header("content-type", "application/json");
        Ok(answer.body(body).expect("it is well-formed"))
    }

    async fn meet(&self, request: &Request) -> Result<(u16, Body), io::Error> {
        let rules = self.state().rules.clone();
        match rules.iter().rev().find_map(|rule| rule(request)) {
            Some(Fault::Refused) => return Err(io::ErrorKind::ConnectionRefused.into()),
            Some(Fault::Status(code)) => return Ok((code, status(code, "InternalError").to_string().into())),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Late(by)) => tokio::time::sleep(by).await,
            None => {}
        }
        if request.verb == "watch" {
            let state = self.state();
            let from: u64 = request.query["resourceVersion"].parse().expect("a version");
            let gone = from < state.oldest && !state.gone_as_event;
            drop(state);
            return Ok(if gone {
                (410, status(410, "Expired").to_string().into())
            } else {
                (200, watch::body(self, request))
            });
        }
        let (code, answer) = self.answer(request);
        Ok((code, answer.to_string().into()))
    }

    fn answer(&self, request: &Request) -> (u16, Value) {
        let Request { verb, kind, key, .. } = request;
        let object = self.object(kind, key);
        let written = match (*verb, object) {
            ("list", _) => return (200, self.list(request)),
            ("create", Some(_)) => Err((409, status(409, "AlreadyExists"))),
            ("create", None) => Ok(request.body.clone()),
            (_, None) => Err((404, status(404, "NotFound"))),
            ("get", Some(object)) => return (200, object),
            ("patch", Some(object)) => patch::patched(object, request),
            ("update", Some(object)) => patch::updated(&object, request),
            (verb, _) => panic!("the double knows no {verb}"),
        };
        match written {
            Err(refused) => refused,
            Ok(object) => {
                self.put(kind, object.clone());
                (200, self.object(kind, key).unwrap_or(object))
            }
        }
    }

    fn list(&self, request: &Request) -> Value {
        // One that names a version may be answered with what is older than what was seen before.
        assert!(!request.query.contains_key("resourceVersion"), "what is listed has to be the most recent");
        let state = self.state();
        let of = |name: &str| request.query.get(name).and_then(|text| text.parse::<usize>().ok());
        let (from, limit) = (of("continue").unwrap_or(0), of("limit").unwrap_or(usize::MAX));
        let all: Vec<&Value> = state
            .objects
            .iter()
            .filter(|((kind, _), _)| *kind == request.kind)
            .map(|(_, object)| object)
            .collect();
        let items: Vec<_> = all.iter().skip(from).take(limit).collect();
        let next = from + items.len();
        let (api_version, kind) = type_of(&request.kind);
        let token = if next < all.len() { next.to_string() } else { String::new() };
        json!({
            "apiVersion": api_version,
            "kind": format!("{kind}List"),
            "metadata": { "resourceVersion": state.version.to_string(), "continue": token },
            "items": items,
        })
    }
}

/// As the API says what is wrong.
pub fn status(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": format!("{reason}, says the double"),
    })
}

/// `apiVersion` and `kind` of what paths call `kind`.
pub fn type_of(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "services" => ("v1", "Service"),
        "nodes" => ("v1", "Node"),
        "namespaces" => ("v1", "Namespace"),
        "endpointslices" => ("discovery.k8s.io/v1", "EndpointSlice"),
        "events" => ("events.k8s.io/v1", "Event"),
        "leases" => ("coordination.k8s.io/v1", "Lease"),
        "shuntpools" => ("shunt.dev/v1alpha1", "ShuntPool"),
        other => panic!("the double knows no {other}"),
    }
}

async fn read(request: http::Request<kube::client::Body>) -> Request {
    let (head, body) = request.into_parts();
    let query = Query::try_from_uri(&head.uri).expect("a query").0;
    let body = body.collect().await.expect("a body").to_bytes();
    let content_type =
        head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut read = Request {
        body: serde_json::from_slice(&body).unwrap_or_default(),
        patch: content_type.rsplit('/').next().unwrap_or_default().into(),
        query,
        ..Request::default()
    };
    let namespace = read.name(head.uri.path());
    let one = !read.key.is_empty();
    read.verb = match head.method.as_str() {
        "GET" if read.query.contains_key("watch") => "watch",
        "GET" if one => "get",
        "GET" => "list",
        "POST" => "create",
        "PATCH" => "patch",
        "PUT" => "update",
        _ => "delete",
    };
    if read.verb == "create" {
        if let Some(namespace) = namespace {
            read.body["metadata"]["namespace"] = namespace.into();
        }
        read.key = super::key_of(&read.body);
    }
    read
}

impl Request {
    /// What a path names: `/api/v1` or `/apis/GROUP/VERSION`, then `namespaces/NAMESPACE` if it is in one,
    /// which is given back.
    fn name(&mut self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let parts = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, parts),
        };
        self.kind = parts[0].to_owned();
        self.subresource = parts.get(2).map(|&part| part.to_owned());
        if let Some(&name) = parts.get(1) {
            self.key = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        }
        namespace.map(str::to_owned)
    }
}
