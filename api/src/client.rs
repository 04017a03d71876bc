//! HTTP/1.1 + JSON over the daemons' Unix sockets.
//!
//! One connection per request: the sockets are local and requests rare. Errors say which daemon did not
//! answer and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    daemon: &'static str,
    timeout: Duration,
}

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens on the socket.
    #[error("{daemon} is not running ({}); start it as root: `{}`", socket.display(), start_command(daemon))]
    NotRunning {
        /// Program name.
        daemon: &'static str,
        /// Path tried.
        socket: PathBuf,
    },
    /// The socket is there, but this user may not use it.
    #[error("no permission to talk to {daemon} ({}); use sudo or join the socket's group", socket.display())]
    Permission {
        /// Program name.
        daemon: &'static str,
        /// Path tried.
        socket: PathBuf,
    },
    /// The daemon understood and said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Body of the answer: JSON of the refusal's type, or plain text.
        message: String,
    },
    /// The daemon did not answer in time.
    #[error("{daemon} did not answer within {timeout:?}; its log may say why; end and start it if it hangs")]
    Timeout {
        /// Program name.
        daemon: &'static str,
        /// How long was waited.
        timeout: Duration,
    },
    /// The connection broke.
    #[error("the connection to {daemon} broke: {source}; if it ended, its log says why: start it again")]
    Broken {
        /// Program name.
        daemon: &'static str,
        /// Underlying error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not of the expected form.
    #[error("{daemon} answered in an unexpected form ({source}); are both programs of the same version?")]
    Malformed {
        /// Program name.
        daemon: &'static str,
        /// Underlying error.
        #[source]
        source: serde_json::Error,
    },
}

fn start_command(daemon: &str) -> &str {
    if daemon == DATAPLANE { "shunt-dataplane run" } else { daemon }
}

const DATAPLANE: &str = "shunt-dataplane";
const CONTROLPLANE: &str = "shunt-controlplane";

impl Client {
    /// A client of `shunt-dataplane` on this socket.
    pub fn dataplane(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned(), daemon: DATAPLANE, timeout: Duration::from_secs(10) }
    }

    /// A client of `shunt-controlplane` on this socket.
    pub fn controlplane(socket: impl AsRef<Path>) -> Self {
        Self { daemon: CONTROLPLANE, ..Self::dataplane(socket) }
    }

    /// The same client with another limit on a whole request.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// `GET path`, the answer parsed as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|source| self.malformed(source))?;
        self.request(Method::PUT, path, body.into()).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|source| self.malformed(source))?;
        self.request(Method::POST, path, body.into()).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let exchange = tokio::time::timeout(self.timeout, self.exchange(method, path, body));
        let (status, body) = exchange
            .await
            .map_err(|_| ClientError::Timeout { daemon: self.daemon, timeout: self.timeout })??;
        if !status.is_success() {
            let message = String::from_utf8_lossy(&body).into_owned();
            return Err(ClientError::Refused { status: status.as_u16(), message });
        }
        serde_json::from_slice(&body).map_err(|source| self.malformed(source))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.connect_error(error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.broken(error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        driver.abort();
        Ok((status, body))
    }

    fn connect_error(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { daemon: self.daemon, socket: self.socket.clone() }
            }
            io::ErrorKind::PermissionDenied => {
                ClientError::Permission { daemon: self.daemon, socket: self.socket.clone() }
            }
            _ => self.broken(error),
        }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Broken { daemon: self.daemon, source: source.into() }
    }

    fn malformed(&self, source: serde_json::Error) -> ClientError {
        ClientError::Malformed { daemon: self.daemon, source }
    }
}
