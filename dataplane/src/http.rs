//! The dataplane's Unix socket. Paths and answers stand at the head of [`shunt_api::status`]. The file's
//! mode decides who may use it; who sends a snapshot is logged.

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;
use shunt_api::daemon::{self, Peer};
use shunt_api::explain::Asked;
use shunt_api::snapshot::{Rejected, Snapshot};
use shunt_api::status::FlowFilter;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::control::{Command, FlowSource};
use crate::flows;
use crate::limits::MAX_SNAPSHOT_BYTES;

type Commands = mpsc::Sender<Command>;

/// Serves for ever.
pub async fn serve(listener: UnixListener, commands: Commands) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/v1/flows", get(list_flows))
        .route("/v1/flows/count", get(count_flows))
        .route("/v1/explain", post(explain))
        .route("/v1/snapshot", put(apply))
        .layer(DefaultBodyLimit::max(MAX_SNAPSHOT_BYTES))
        .with_state(commands);
    daemon::serve(
        listener,
        router,
        "GET /v1/status, /v1/stats, /v1/flows or /v1/flows/count, POST /v1/explain or PUT /v1/snapshot",
    )
    .await
}

async fn status(State(commands): State<Commands>) -> Response {
    answer(ask(&commands, Command::Status).await)
}

async fn stats(State(commands): State<Commands>) -> Response {
    answer(ask(&commands, Command::Stats).await)
}

async fn list_flows(State(commands): State<Commands>, Query(filter): Query<FlowFilter>) -> Response {
    of_flows(&commands, move |source| flows::list(source, &filter)).await
}

async fn count_flows(State(commands): State<Commands>, Query(filter): Query<FlowFilter>) -> Response {
    of_flows(&commands, move |source| flows::count(source, &filter)).await
}

/// Answers from the flow tables, which takes a thread of its own; without tables, that there is nothing.
async fn of_flows<T: Default + Serialize + Send + 'static>(
    commands: &Commands,
    read: impl FnOnce(&FlowSource) -> T + Send + 'static,
) -> Response {
    answer(match ask(commands, Command::Flows).await {
        Some(Some(source)) => tokio::task::spawn_blocking(move || read(&source)).await.ok(),
        Some(None) => Some(T::default()),
        None => None,
    })
}

async fn explain(State(commands): State<Commands>, Json(asked): Json<Asked>) -> Response {
    let refused = |why: String| (StatusCode::UNPROCESSABLE_ENTITY, why).into_response();
    let supposing = asked.snapshot.is_some();
    match ask(&commands, |answer| Command::Explain { supposing, answer }).await {
        Some(Some(source)) => match tokio::task::spawn_blocking(move || source.answer(&asked)).await {
            Ok(Ok(explanation)) => Json(explanation).into_response(),
            Ok(Err(why)) => refused(why),
            Err(_) => answer::<()>(None),
        },
        Some(None) => {
            refused("the dataplane has no configuration yet, or waits for a NIC; see lbctl status".to_owned())
        }
        None => answer::<()>(None),
    }
}

async fn apply(
    State(commands): State<Commands>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Response {
    let refused = |rejected: Rejected| (StatusCode::UNPROCESSABLE_ENTITY, Json(rejected)).into_response();
    let snapshot: Box<Snapshot> = match serde_json::from_slice(&body) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            return refused(Rejected {
                reason: format!("not a snapshot: {error}; are all programs of one version?"),
            });
        }
    };
    tracing::debug!(generation = snapshot.generation, peer.uid, peer.pid, "snapshot received");
    match ask(&commands, |answer| Command::Apply(snapshot, answer)).await {
        Some(Ok(ack)) => Json(ack).into_response(),
        Some(Err(rejected)) => refused(rejected),
        None => answer::<()>(None),
    }
}

/// Asks the control task; `None` once it has ended.
async fn ask<T>(commands: &Commands, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    commands.send(command(answer)).await.ok()?;
    answered.await.ok()
}

fn answer<T: Serialize>(value: Option<T>) -> Response {
    match value {
        Some(value) => Json(value).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the dataplane is stopping; try again once it runs\n")
            .into_response(),
    }
}
