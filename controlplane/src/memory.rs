//! Files that keep something over restarts of this program.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shunt_api::file::replace;
use tokio::sync::watch;

use crate::control::Control;
use crate::kubernetes::wants::Remembered;
use crate::roster::Memory as Backends;

/// After a file was written, it is left alone for so many times as long as that took: one that is large, or on a slow
/// disk, is written less often.
const REST: u32 = 9;

/// The files of this program.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Who is down and whom operators drain.
    pub backends: MemoryFile<Backends>,
    /// What clusters want.
    pub clusters: MemoryFile<Remembered>,
}

/// A file that is read at the start, and written whenever what it keeps changes.
#[derive(Debug)]
pub struct MemoryFile<T> {
    path: PathBuf,
    /// What follows from a file that cannot be read.
    forgotten: &'static str,
    /// What a restart will not know if it cannot be written.
    at_stake: &'static str,
    /// Held by whoever writes.
    writing: Arc<Mutex<()>>,
    kept: PhantomData<fn() -> T>,
}

impl Memory {
    /// Those in this directory, which need not be there yet.
    pub fn in_directory(state_dir: &Path) -> Self {
        Self { backends: MemoryFile::of_backends(state_dir), clusters: MemoryFile::of_clusters(state_dir) }
    }

    /// Writes what changes from now on, for ever.
    pub fn keep(self, control: &Control) -> impl Future<Output = ()> + use<> {
        let (backends, clusters) = (control.memory(), control.cluster_memory());
        async {
            tokio::join!(self.backends.keep(backends), self.clusters.keep(clusters));
        }
    }

    /// Writes what there is. What cannot be written is logged.
    pub fn save(&self, control: &Control) {
        let backends = self.backends.save(&control.memory().borrow());
        let clusters = self.clusters.save(&control.cluster_memory().borrow());
        [backends, clusters]
            .into_iter()
            .filter_map(Result::err)
            .for_each(|problem| tracing::warn!("{problem}"));
    }
}

impl MemoryFile<Backends> {
    fn of_backends(state_dir: &Path) -> Self {
        let forgotten = "drained backends are forgotten, drain them again";
        Self::new(state_dir.join("backends.json"), forgotten, "who is down or drained")
    }
}

impl MemoryFile<Remembered> {
    fn of_clusters(state_dir: &Path) -> Self {
        let forgotten = "what clusters wanted is forgotten, and waited for";
        Self::new(state_dir.join("clusters.json"), forgotten, "what clusters want before they say so")
    }
}

impl<T> MemoryFile<T> {
    fn new(path: PathBuf, forgotten: &'static str, at_stake: &'static str) -> Self {
        Self { path, forgotten, at_stake, writing: Arc::default(), kept: PhantomData }
    }
}

impl<T> Clone for MemoryFile<T> {
    fn clone(&self) -> Self {
        let (path, writing) = (self.path.clone(), Arc::clone(&self.writing));
        Self { path, forgotten: self.forgotten, at_stake: self.at_stake, writing, kept: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + Default> MemoryFile<T> {
    /// Reads the file, which need not be there. What cannot be read is forgotten, and the log says so.
    pub fn read(&self) -> T {
        let forgotten = |error: &dyn std::fmt::Display| {
            tracing::warn!("{}: {error}; {}", self.path.display(), self.forgotten);
            T::default()
        };
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| forgotten(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => T::default(),
            Err(error) => forgotten(&error),
        }
    }

    /// A crash leaves no half a file.
    pub fn save(&self, memory: &T) -> Result<(), String> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(memory).map_err(|error| {
            let path = self.path.display();
            format!("{path}: {error}; a restart will not know {}; see --state-dir", self.at_stake)
        })
    }

    fn write(&self, memory: &T) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        replace(&self.path, &serde_json::to_vec(memory)?)
    }
}

impl<T: Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static> MemoryFile<T> {
    /// Writes what comes to the file, for ever, on a thread of its own: a slow disk holds up nobody else. A failure is
    /// logged once, and the next change is tried again.
    pub async fn keep(self, mut memory: watch::Receiver<T>) {
        let mut told: Option<String> = None;
        while memory.changed().await.is_ok() {
            let (file, latest) = (self.clone(), memory.borrow_and_update().clone());
            let began = Instant::now();
            let written = tokio::task::spawn_blocking(move || file.save(&latest)).await;
            let failure = written.expect("writing a file does not panic").err();
            if let Some(text) = failure.as_ref().filter(|text| told.as_ref() != Some(text)) {
                tracing::warn!("{text}");
            }
            told = failure;
            tokio::time::sleep(began.elapsed() * REST).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::roster::Member;

    fn memory() -> Backends {
        let member = Member { pool: "web".into(), backend: [10, 0, 0, 1].into() };
        Backends { drained: [member].into(), ..Backends::default() }
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_rubbish_is_forgotten() {
        let directory = std::env::temp_dir().join(format!("shunt-memory-{}", std::process::id()));
        let file = MemoryFile::of_backends(&directory.join("state"));
        assert_eq!(file.read(), Backends::default());
        let (sender, receiver) = watch::channel(Backends::default());
        let kept = tokio::spawn(file.clone().keep(receiver));
        sender.send(memory()).unwrap();
        let written = async {
            while file.read() != memory() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), written).await.expect("it is written");
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(sender);
        kept.await.unwrap();
        fs::write(&file.path, "{").unwrap();
        assert_eq!(file.read(), Backends::default());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_says_where_to_look() {
        let told = MemoryFile::of_backends(Path::new("/dev/null")).save(&memory()).unwrap_err();
        assert!(told.ends_with("see --state-dir"), "{told}");
    }
}
