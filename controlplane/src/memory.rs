//! The file that keeps, over restarts of this program, who is down and whom operators drain.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::roster::Memory;

/// Reads the file at `path`, which need not be there. What cannot be read is forgotten, and the log says so.
pub fn read(path: &Path) -> Memory {
    let forgotten = |error: &dyn std::fmt::Display| {
        tracing::warn!("{}: {error}; drained backends are forgotten, drain them again", path.display());
        Memory::default()
    };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| forgotten(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
        Err(error) => forgotten(&error),
    }
}

/// Writes what comes to the file, for ever, on a thread of its own: a slow disk holds up nobody else. A failure is
/// logged once, and the next change is tried again.
pub async fn keep(path: PathBuf, mut memory: watch::Receiver<Memory>) {
    let mut told: Option<String> = None;
    // What the first configuration changed.
    memory.mark_changed();
    while memory.changed().await.is_ok() {
        let (path, latest) = (path.clone(), memory.borrow_and_update().clone());
        let written = tokio::task::spawn_blocking(move || save(&path, &latest)).await;
        let failure = written.expect("writing a file does not panic").err();
        if let Some(text) = failure.as_ref().filter(|text| told.as_ref() != Some(text)) {
            tracing::warn!("{text}");
        }
        told = failure;
    }
}

/// Written beside and renamed, so that a crash leaves no half a file.
pub fn save(path: &Path, memory: &Memory) -> Result<(), String> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let unfinished = path.with_extension("unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec_pretty(memory)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error: io::Error| {
        format!(
            "{}: {error}; a restart will not know who is down or drained; see --state-dir",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::roster::Member;

    fn memory() -> Memory {
        let member = Member { pool: "web".into(), backend: [10, 0, 0, 1].into() };
        Memory { drained: [member].into(), ..Memory::default() }
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_rubbish_is_forgotten() {
        let directory = std::env::temp_dir().join(format!("shunt-memory-{}", std::process::id()));
        let path = directory.join("state/backends.json");
        assert_eq!(read(&path), Memory::default());
        let (sender, receiver) = watch::channel(Memory::default());
        let kept = tokio::spawn(keep(path.clone(), receiver));
        sender.send(memory()).unwrap();
        let written = async {
            while read(&path) != memory() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), written).await.expect("it is written");
        drop(sender);
        kept.await.unwrap();
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), Memory::default());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_says_where_to_look() {
        let told = save(Path::new("/dev/null/backends.json"), &memory()).unwrap_err();
        assert!(told.ends_with("see --state-dir"), "{told}");
    }
}
