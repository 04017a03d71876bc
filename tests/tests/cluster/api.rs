//! The cluster's API, by way of a `kubectl proxy` that listens on a Unix socket: it has the credentials and the TLS, so
//! a request is as cheap as a file.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use shunt_tests::error::{Error, Result, While};

/// For one answer; longer than the API server is away in any scenario.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends requests to the API server.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
}

/// What the API server said.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// An object, or a `Status` that says why not.
    pub body: Value,
}

impl Answer {
    /// The object, or an error that says why there is none.
    fn object(self, what: &str) -> Result<Value> {
        match self.status {
            200..300 => Ok(self.body),
            status => Err(Error::Wrong(format!("{what}: {status}: {}", self.message()))),
        }
    }

    /// Why there is no object.
    pub fn message(&self) -> String {
        self.body["message"].as_str().map_or_else(|| self.body.to_string(), str::to_owned)
    }
}

impl Api {
    /// By the proxy that listens there.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// An object or a list.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, None)?.object(path)
    }

    /// An object, if it is there.
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.send("GET", path, None)? {
            Answer { status: 404, .. } => Ok(None),
            answer => answer.object(path).map(Some),
        }
    }

    /// Makes an object.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.try_create(path, object)?.object(&format!("POST {path}"))
    }

    /// Makes an object, if the API server lets it.
    pub fn try_create(&self, path: &str, object: &Value) -> Result<Answer> {
        self.send("POST", path, Some(("application/json", object)))
    }

    /// Changes an object (RFC 7386).
    pub fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        self.try_merge(path, change)?.object(&format!("PATCH {path}"))
    }

    /// Changes an object, if the API server lets it.
    pub fn try_merge(&self, path: &str, change: &Value) -> Result<Answer> {
        self.send("PATCH", path, Some(("application/merge-patch+json", change)))
    }

    /// Applies an object's fields as another manager would.
    pub fn apply(&self, path: &str, manager: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager={manager}&force=true");
        self.send("PATCH", &path, Some(("application/apply-patch+yaml", object)))?.object(&path)
    }

    /// Puts an object in the place of another.
    pub fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.send("PUT", path, Some(("application/json", object)))?.object(&format!("PUT {path}"))
    }

    /// Removes an object; that it is not there is fine.
    pub fn delete(&self, path: &str) -> Result<()> {
        match self.send("DELETE", path, None)? {
            Answer { status: 404, .. } => Ok(()),
            answer => answer.object(&format!("DELETE {path}")).map(drop),
        }
    }

    /// Of HTTP/1.0, so that the answer comes in one piece and ends with the connection.
    fn send(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Result<Answer> {
        let mut request =
            format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n");
        let text = body.map(|(_, value)| value.to_string()).unwrap_or_default();
        if let Some((kind, _)) = body {
            let _ = write!(request, "Content-Type: {kind}\r\nContent-Length: {}\r\n", text.len());
        }
        request.push_str("\r\n");
        request.push_str(&text);
        let what = || format!("{method} {path} at the API server");
        let mut received = String::new();
        let mut stream = UnixStream::connect(&self.socket).to(what)?;
        stream.set_read_timeout(Some(PATIENCE)).to(what)?;
        stream.write_all(request.as_bytes()).to(what)?;
        stream.read_to_string(&mut received).to(what)?;
        let malformed = || Error::Wrong(format!("{method} {path}: not an answer: {received}"));
        let (head, body) = received.split_once("\r\n\r\n").ok_or_else(malformed)?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(malformed)?;
        Ok(Answer { status, body: serde_json::from_str(body).unwrap_or_else(|_| body.into()) })
    }
}
