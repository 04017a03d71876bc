//! The control plane's Unix socket: who may use it is decided by the file's mode, and who changed something
//! is logged. The paths and their answers are listed at the head of [`shunt_api::status`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use shunt_api::daemon::{self, Peer};
use shunt_api::status::{BackendView, ControlStatus, Reloaded, ServiceView};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::control::{Control, Reload};
use crate::source::file::ReloadRequest;
use crate::view;

/// Longest a reload waits for the dataplane's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the handlers need.
#[derive(Clone)]
pub struct Context {
    /// State to look at.
    pub control: Arc<Control>,
    /// Where to ask for the file to be read again.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Shown in the status.
    pub config_file: Arc<str>,
    /// When the program started.
    pub started: Instant,
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, context: Context) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/backends", get(backends))
        .route("/v1/reload", post(reload))
        .with_state(context);
    daemon::serve(listener, router, "GET /v1/status, GET /v1/services, GET /v1/backends or POST /v1/reload")
        .await
}

async fn status(State(context): State<Context>) -> Json<ControlStatus> {
    let uptime_s = context.started.elapsed().as_secs();
    Json(context.control.look(|state| view::status(state, &context.config_file, uptime_s)))
}

async fn services(State(context): State<Context>) -> Json<Vec<ServiceView>> {
    Json(context.control.look(view::services))
}

async fn backends(State(context): State<Context>) -> Json<Vec<BackendView>> {
    Json(context.control.look(view::backends))
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
    let ack = control.look(|state| state.acknowledgement().cloned());
    let ack = ack.filter(|ack| ack.generation >= reload.generation);
    Reloaded {
        generation: reload.generation,
        changed: reload.changed,
        acknowledged: ack.as_ref().map(|ack| ack.generation),
        restart_needed: ack.map(|ack| ack.restart_needed).unwrap_or_default(),
    }
}
