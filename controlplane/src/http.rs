//! The control plane's Unix socket: who may use it is decided by the file's mode, and who changed something
//! is logged. The paths and their answers are listed at the head of [`shunt_api::status`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use shunt_api::client::Client;
use shunt_api::daemon::{self, Peer};
use shunt_api::explain::ExplainRequest;
use shunt_api::status::{BackendView, ControlStatus, DrainRequest, Event, Reloaded, ServiceView, Stats};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::announce::Standings;
use crate::control::{Control, Reload};
use crate::metrics::{self, Facts};
use crate::source::file::ReloadRequest;
use crate::view::{self, Now};

/// Longest a request waits for the dataplane's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest question: a supposed configuration file goes with it.
const MAX_QUESTION_BYTES: usize = 64 << 20;

/// What the handlers need.
#[derive(Clone)]
pub struct Context {
    /// State to look at.
    pub control: Arc<Control>,
    /// How announcing stands.
    pub announcing: Standings,
    /// Where to ask for the file to be read again.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Shown in the status.
    pub config_file: Arc<str>,
    /// Where to ask what becomes of packets.
    pub dataplane: Client,
    /// When the program started.
    pub started: Instant,
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, context: Context) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/backends", get(backends))
        .route("/v1/events", get(events))
        .route("/metrics", get(scrape))
        .route("/v1/drain", put(drain))
        .route("/v1/reload", post(reload))
        .route("/v1/explain", post(explain).layer(DefaultBodyLimit::max(MAX_QUESTION_BYTES)))
        .with_state(context);
    let paths = "GET /metrics, /v1/status, /v1/services, /v1/backends or /v1/events, PUT /v1/drain, POST /v1/reload or /v1/explain";
    daemon::serve(listener, router, paths).await
}

async fn status(State(context): State<Context>) -> Json<ControlStatus> {
    let uptime_s = context.started.elapsed().as_secs();
    let (figures, announced) = (context.control.runner().figures(), context.announcing.standing());
    let (control, file) = (&context.control, &context.config_file);
    Json(control.look(|model| view::status(model, &figures, &announced, file, uptime_s)))
}

/// With what the workers count, if the dataplane answers at once.
async fn scrape(State(context): State<Context>) -> Response {
    let stats = context.dataplane.clone().with_timeout(ANSWER_TIMEOUT).get::<Stats>("/v1/stats").await.ok();
    let (uptime_s, control) = (context.started.elapsed().as_secs(), &context.control);
    let (figures, announced) = (control.runner().figures(), context.announcing.standing());
    let file = &context.config_file;
    let status = control.look(|model| view::status(model, &figures, &announced, file, uptime_s));
    let (services, backends) = (control.look(view::services), all_backends(control));
    let facts = Facts { status: &status, stats: stats.as_ref(), services: &services, backends: &backends };
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], metrics::text(&facts)).into_response()
}

async fn services(State(context): State<Context>) -> Json<Vec<ServiceView>> {
    Json(context.control.look(view::services))
}

async fn backends(State(context): State<Context>) -> Json<Vec<BackendView>> {
    Json(all_backends(&context.control))
}

fn all_backends(control: &Control) -> Vec<BackendView> {
    let (now, statuses) = (Now::read(), control.runner().statuses());
    control.look(|model| view::backends(model, &statuses, now))
}

async fn events(State(context): State<Context>) -> Json<Vec<Event>> {
    Json(context.control.journal().kept())
}

/// Answers with the backends that were meant.
async fn drain(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(request): Json<DrainRequest>,
) -> Response {
    let DrainRequest { backend, drained, .. } = &request;
    tracing::info!(peer.uid, peer.pid, backend, drained, "drain requested");
    let control = &context.control;
    match control.set_drained(&request) {
        Ok(()) => {
            // New flows keep away once the dataplane has it.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, control.answered()).await;
            let (places, meant) = control.look(|model| (model.roster.places(), model.roster.find(&request)));
            let views = places.iter().zip(all_backends(control)).filter(|(place, _)| meant.contains(place));
            Json(views.map(|(_, backend)| backend).collect::<Vec<_>>()).into_response()
        }
        Err(reason) => (StatusCode::NOT_FOUND, reason).into_response(),
    }
}

async fn explain(State(context): State<Context>, Json(request): Json<ExplainRequest>) -> Response {
    match crate::explain::explain(request, &context.control, &context.dataplane).await {
        Ok(explanation) => Json(explanation).into_response(),
        Err(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason).into_response(),
    }
}

async fn reload(State(context): State<Context>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    tracing::info!(peer.uid, peer.pid, "reload requested");
    let (answer, answered) = oneshot::channel();
    // If nobody reads requests any more, the answer's other end is gone too, which is told below.
    let _ = context.reload.send(answer).await;
    match answered.await {
        Ok(Ok(reload)) => Json(outcome(&context.control, reload).await).into_response(),
        Ok(Err(problem)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response(),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping; try again once it runs\n")
                .into_response()
        }
    }
}

/// Waits for the dataplane, but not for long.
async fn outcome(control: &Control, reload: Reload) -> Reloaded {
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, control.answered()).await;
    let ack = control.look(|model| model.state.acknowledgement().cloned());
    let ack = ack.filter(|ack| ack.generation >= reload.generation);
    Reloaded {
        generation: reload.generation,
        changed: reload.changed,
        acknowledged: ack.as_ref().map(|ack| ack.generation),
        restart_needed: ack.map(|ack| ack.restart_needed).unwrap_or_default(),
    }
}
