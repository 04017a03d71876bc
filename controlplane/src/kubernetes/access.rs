//! How a cluster is reached and as whom: a client that goes by the kubeconfig as it is now. A token that was renewed,
//! another certificate or another address of the API server is used from the next request on, without a restart.
//!
//! Each request looks whether the file is another one, which costs one system call. Watches end by themselves within
//! a minute, and then are requests again. A file that cannot be used changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A connection on which nothing was heard for so long is dead; a watch speaks more often ([`super::picture`]).
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A client for the cluster that a kubeconfig names.
pub async fn connect(kubeconfig: &Path) -> Result<Client, String> {
    let version = Version::of(kubeconfig);
    let client = built(kubeconfig).await?;
    let namespace = client.default_namespace().to_owned();
    let latest = Arc::new(Latest { path: kubeconfig.into(), current: Mutex::new((version, client)) });
    let send = move |request: http::Request<Body>| {
        let latest = Arc::clone(&latest);
        async move { latest.client().await.send(request).await }
    };
    Ok(Client::new(tower::service_fn(send), namespace))
}

async fn built(kubeconfig: &Path) -> Result<Client, String> {
    let read = Kubeconfig::read_from(kubeconfig).map_err(|error| error.to_string())?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| error.to_string())?;
    config.read_timeout = Some(SILENCE_MAX);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|error| error.to_string())
}

/// A file, and what was made of it.
struct Latest {
    path: PathBuf,
    current: Mutex<(Option<Version>, Client)>,
}

impl Latest {
    async fn client(&self) -> Client {
        let found = Version::of(&self.path);
        let (version, client) = self.current.lock().expect("nobody panics with it").clone();
        // A file that is gone for a moment, or for good, takes nothing away.
        if found.is_none() || found == version {
            return client;
        }
        let shown = self.path.display();
        let client = match built(&self.path).await {
            Ok(latest) => {
                tracing::info!("{shown} is another one, and used from now on");
                latest
            }
            Err(problem) => {
                tracing::warn!("{shown}: {problem}; what it said before stays in use until it changes again");
                client
            }
        };
        *self.current.lock().expect("nobody panics with it") = (found, client.clone());
        client
    }
}

/// What differs between a file and another one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size_bytes: u64,
    modified_ns: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> Option<Self> {
        let of = fs::metadata(path).ok()?;
        let modified_ns = (of.mtime(), of.mtime_nsec());
        Some(Self { inode: of.ino(), size_bytes: of.size(), modified_ns })
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;

    use super::*;

    /// An API server that knows one namespace, named as the caller's token.
    async fn server() -> String {
        let answer = async |headers: HeaderMap| {
            let token =
                headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
            let object =
                serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": token}});
            object.to_string()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/api/v1/namespaces/{name}", get(answer));
        tokio::spawn(async { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn kubeconfig(server: &str, token: &str) -> String {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "c", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        })
        .to_string()
    }

    #[tokio::test]
    async fn a_kubeconfig_that_was_replaced_is_used_from_the_next_request_on() {
        let path = std::env::temp_dir().join(format!("shunt-kubeconfig-{}", std::process::id()));
        let server = server().await;
        let _ = fs::remove_file(&path);
        let missing = connect(&path).await.map(drop).unwrap_err();
        assert!(missing.contains("No such file"), "{missing}");
        fs::write(&path, kubeconfig(&server, "first")).unwrap();
        let api: Api<Namespace> = Api::all(connect(&path).await.unwrap());
        let seen = async || api.get("any").await.unwrap().metadata.name.unwrap();
        assert_eq!(seen().await, "first");
        fs::write(&path, kubeconfig(&server, "the-second")).unwrap();
        assert_eq!(seen().await, "the-second");
        fs::write(&path, "garbage").unwrap();
        assert_eq!(seen().await, "the-second", "garbage changes nothing");
        fs::remove_file(&path).unwrap();
        assert_eq!(seen().await, "the-second", "nor does it that the file is gone");
        fs::write(&path, kubeconfig(&server, "third")).unwrap();
        assert_eq!(seen().await, "third");
        fs::remove_file(&path).unwrap();
    }
}
