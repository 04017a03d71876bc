//! The file that keeps, over restarts of this program, who is down and whom operators drain.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::roster::Memory;

/// The file, and what is in it.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    saved: Memory,
    /// What was last said about writing it, so that it is said once.
    told: Option<String>,
}

impl MemoryFile {
    /// Reads the file at `path`, which need not be there. What cannot be read is forgotten, and the log says so.
    pub fn read(path: PathBuf) -> Self {
        let saved = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(
                    "{}: {error}; drained backends are forgotten, drain them again",
                    path.display()
                );
                Memory::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => {
                tracing::warn!(
                    "{}: {error}; drained backends are forgotten, drain them again",
                    path.display()
                );
                Memory::default()
            }
        };
        Self { path, saved, told: None }
    }

    /// A file that cannot be written, said to hold this.
    #[cfg(test)]
    pub fn holding(saved: Memory) -> Self {
        Self { path: "/dev/null/backends.json".into(), saved, told: None }
    }

    /// What it holds.
    pub fn memory(&self) -> &Memory {
        &self.saved
    }

    /// Writes it if it differs. A failure is logged, and tried again with the next change.
    pub fn save(&mut self, memory: Memory) {
        if memory == self.saved {
            return;
        }
        let result = self.write(&memory);
        let failure = result.err().map(|error| {
            format!(
                "{}: {error}; a restart will not know who is down or drained; see --state-dir",
                self.path.display()
            )
        });
        if let Some(text) = failure.as_ref().filter(|text| self.told.as_ref() != Some(text)) {
            tracing::warn!("{text}");
        }
        self.told = failure;
        self.saved = memory;
    }

    /// Written beside and renamed, so that a crash leaves no half a file.
    fn write(&self, memory: &Memory) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let unfinished = self.path.with_extension("unfinished");
        fs::write(&unfinished, serde_json::to_vec_pretty(memory)?)?;
        fs::rename(&unfinished, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Member;

    #[test]
    fn what_is_saved_is_read_again_and_rubbish_is_forgotten() {
        let directory = std::env::temp_dir().join(format!("shunt-memory-{}", std::process::id()));
        let path = directory.join("state/backends.json");
        let mut file = MemoryFile::read(path.clone());
        assert_eq!(file.memory(), &Memory::default());
        let member = Member { pool: "web".into(), backend: "a".into() };
        let memory = Memory { drained: [member].into(), ..Memory::default() };
        file.save(memory.clone());
        assert_eq!(MemoryFile::read(path.clone()).memory(), &memory);
        fs::write(&path, "{").unwrap();
        assert_eq!(MemoryFile::read(path).memory(), &Memory::default());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_once() {
        let mut file = MemoryFile::read("/dev/null/backends.json".into());
        let member = |pool: &str| Member { pool: pool.into(), backend: "a".into() };
        file.save(Memory { down: [member("web")].into(), ..Memory::default() });
        let told = file.told.clone().expect("a reason");
        assert!(told.ends_with("see --state-dir"), "{told}");
        file.save(Memory { down: [member("dns")].into(), ..Memory::default() });
        assert_eq!(file.told, Some(told));
    }
}
