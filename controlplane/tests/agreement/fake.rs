//! A dataplane that only talks: it takes snapshots, remembers them, and says what it is told to say.
//!
//! A fake, because these tests are about who tells whom what and when, with restarts and refusals at will and
//! without root. The real dataplane under the real control plane is exercised end to end in `tests/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use shunt_api::snapshot::{Ack, Rejected, Snapshot};
use shunt_api::status::DataplaneStatus;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// One life of the dataplane's process; dropping it is its death.
pub struct FakeDataplane {
    socket: PathBuf,
    memory: Arc<Mutex<Memory>>,
    server: JoinHandle<()>,
}

struct Memory {
    instance: u64,
    generation: Option<u64>,
    snapshots: Vec<Snapshot>,
    refusal: Option<String>,
}

type Shared = State<Arc<Mutex<Memory>>>;

impl FakeDataplane {
    /// Starts on a socket; `instance` is what the real one chooses at random.
    pub fn start(socket: &Path, instance: u64) -> Self {
        let memory = Memory { instance, generation: None, snapshots: vec![], refusal: None };
        let memory = Arc::new(Mutex::new(memory));
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/snapshot", put(snapshot))
            .with_state(Arc::clone(&memory));
        let listener = UnixListener::bind(socket).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { socket: socket.to_owned(), memory, server }
    }

    /// All snapshots taken or refused so far.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.memory.lock().unwrap().snapshots.clone()
    }

    /// The newest snapshot.
    pub fn last(&self) -> Option<Snapshot> {
        self.snapshots().pop()
    }

    /// Claims to serve this generation.
    pub fn claim(&self, generation: u64) {
        self.memory.lock().unwrap().generation = Some(generation);
    }

    /// Refuses snapshots from now on, or takes them again.
    pub fn refuse(&self, reason: Option<&str>) {
        self.memory.lock().unwrap().refusal = reason.map(str::to_owned);
    }
}

impl Drop for FakeDataplane {
    fn drop(&mut self) {
        self.server.abort();
        let _ = fs::remove_file(&self.socket);
    }
}

async fn status(State(memory): Shared) -> Json<DataplaneStatus> {
    let memory = memory.lock().unwrap();
    Json(DataplaneStatus {
        version: "fake".into(),
        instance: memory.instance,
        generation: memory.generation,
        generation_age_s: memory.generation.map(|_| 0),
        ..DataplaneStatus::default()
    })
}

async fn snapshot(State(memory): Shared, Json(snapshot): Json<Snapshot>) -> Response {
    let mut memory = memory.lock().unwrap();
    let generation = snapshot.generation;
    memory.snapshots.push(snapshot);
    if let Some(reason) = memory.refusal.clone() {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(Rejected { reason })).into_response();
    }
    memory.generation = Some(generation);
    Json(Ack { generation, restart_needed: vec!["ring_size".into()] }).into_response()
}
