//! A daemon that gives canned answers over HTTP on a Unix socket.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

/// Status and body by method and path (with its query).
#[derive(Clone, Default)]
pub struct Answers(HashMap<(Method, String), (StatusCode, String)>);

impl Answers {
    /// Answers `GET path` with a value.
    pub fn ok(self, path: &str, value: &impl Serialize) -> Self {
        self.answer(Method::GET, path, StatusCode::OK, serde_json::to_string(value).unwrap())
    }

    /// Answers `PUT path`, whatever is sent.
    pub fn put(self, path: &str, status: StatusCode, body: String) -> Self {
        self.answer(Method::PUT, path, status, body)
    }

    /// Answers `POST path`.
    pub fn post(self, path: &str, status: StatusCode, body: String) -> Self {
        self.answer(Method::POST, path, status, body)
    }

    fn answer(mut self, method: Method, path: &str, status: StatusCode, body: String) -> Self {
        self.0.insert((method, path.to_owned()), (status, body));
        self
    }
}

/// Serves until dropped.
pub struct FakeDaemon {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    /// Listens on the socket before it returns.
    pub fn start(socket: PathBuf, answers: Answers) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async { UnixListener::bind(socket) }).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || runtime.block_on(serve(listener, answers, stopped)));
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

async fn serve(listener: UnixListener, answers: Answers, stopped: oneshot::Receiver<()>) {
    let answers = Arc::new(answers.0);
    let router = Router::new().fallback(move |request: Request| {
        let asked = (request.method().clone(), request.uri().to_string());
        let answer = answers.get(&asked).cloned();
        async move {
            answer.unwrap_or((StatusCode::NOT_FOUND, format!("the test has no {} {}", asked.0, asked.1)))
        }
    });
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served.unwrap(),
        _ = stopped => {}
    }
}
