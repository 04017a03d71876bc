//! A daemon's Unix socket: it takes the place of a dead process's, never of a living one's, and goes away
//! with its owner.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// Owner and group may use the socket.
const MODE: u32 = 0o660;
/// A living process takes a connection into its backlog at once, unless that is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Removes the socket when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody is left to tell: the next start replaces a socket that stays behind.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why nothing can listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Someone already does.
    #[error("another {daemon} listens on {}; stop that one or choose another --socket", path.display())]
    InUse {
        /// Program name.
        daemon: &'static str,
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is not a socket; remove it or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel said no.
    #[error("cannot listen on {}: {source}; run as root or choose another --socket", path.display())]
    Failed {
        /// The socket's path.
        path: PathBuf,
        /// In the kernel's words.
        #[source]
        source: io::Error,
    },
}

/// Listens on a path for the program `daemon`; makes the path's directory.
pub async fn listen(path: &Path, daemon: &'static str) -> Result<(UnixListener, SocketFile), ListenError> {
    clear_the_way(path, daemon).await?;
    let failed = |source| ListenError::Failed { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok((listener, file))
}

/// Removes the socket of a process that has died.
async fn clear_the_way(path: &Path, daemon: &'static str) -> Result<(), ListenError> {
    let failed = |source| ListenError::Failed { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok(_)) | Err(_) => Err(ListenError::InUse { daemon, path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let directory = std::env::temp_dir().join(format!("shunt-socket-{}", std::process::id()));
        let path = directory.join("run/control.sock");
        let (listener, file) = listen(&path, "shunt-test").await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(matches!(listen(&path, "shunt-test").await, Err(ListenError::InUse { .. })));
        // As after kill -9: nobody listens, the file is still there.
        drop(listener);
        std::mem::forget(file);
        let (_listener, file) = listen(&path, "shunt-test").await.unwrap();
        drop(file);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path, "shunt-test").await, Err(ListenError::NotASocket(_))));
        fs::remove_dir_all(&directory).unwrap();
    }
}
