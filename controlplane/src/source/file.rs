//! The configuration file: read at start, on SIGHUP, on request, and when it changes.
//!
//! Changes are found by reading the file four times a second and comparing the text. That survives editors
//! that rename over the file, mounts without notifications and clocks that jump; the file is small. A
//! change is taken once two looks agree, so a file in the middle of being written is left alone; when a
//! reload is asked for, what is there counts. The fleet key is looked at in the same way.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shunt_api::config::{Config, read_text};
use shunt_api::snapshot::FleetKey;
use shunt_api::status::ConfigProblem;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::{Desired, Reading};
use crate::control::{Control, Reload};
use crate::fleet_key::fleet_key;
use shunt_api::compile::compile;

/// Between two looks. A change is taken within two of them.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Asks for the file to be read again; the answer is what came of it.
pub type ReloadRequest = oneshot::Sender<Result<Reload, ConfigProblem>>;

/// The configuration file and what was seen of it.
pub struct ConfigFile {
    path: PathBuf,
    own_key: PathBuf,
    /// The text last parsed, so that an unchanged file is not parsed again.
    parsed: Option<Parsed>,
    last: Option<Look>,
    taken: Option<Look>,
}

/// A text and what it says.
type Parsed = (Arc<str>, Result<Arc<Config>, ConfigProblem>);

/// All that a configuration is made of, for comparison.
#[derive(Clone, PartialEq)]
struct Look {
    text: Result<Arc<str>, ConfigProblem>,
    /// `None` as long as the text says not which key to read.
    key: Option<Result<FleetKey, ConfigProblem>>,
}

impl ConfigFile {
    /// The file at `path`; `own_key` is where this box keeps a fleet key if the file names none.
    pub fn new(path: PathBuf, own_key: PathBuf) -> Self {
        Self { path, own_key, parsed: None, last: None, taken: None }
    }

    /// Reads the file as it is now.
    pub fn read(&mut self) -> Reading {
        let look = self.look();
        self.last = Some(look.clone());
        self.taken = Some(look.clone());
        self.reading(look)
    }

    /// What is new since the last reading, once two looks agree on it.
    fn poll(&mut self) -> Option<Reading> {
        let look = self.look();
        let settled = self.last.as_ref() == Some(&look);
        let new = self.taken.as_ref() != Some(&look);
        if settled && new {
            self.taken = Some(look.clone());
            return Some(self.reading(look));
        }
        self.last = Some(look);
        None
    }

    fn look(&mut self) -> Look {
        let text = match read_text(&self.path) {
            Ok(text) => Arc::from(text),
            Err(problem) => return Look { text: Err(problem), key: None },
        };
        let file = self.path.display().to_string();
        if self.parsed.as_ref().is_none_or(|(parsed, _)| *parsed != text) {
            self.parsed = Some((Arc::clone(&text), Config::parse(&text, &file).map(Arc::new)));
        }
        let config = self.parsed.as_ref().and_then(|(_, config)| config.as_ref().ok());
        let key = config.map(|config| fleet_key(config, &file, &self.own_key));
        Look { text: Ok(text), key }
    }

    fn reading(&self, look: Look) -> Reading {
        look.text?;
        let (_, config) = self.parsed.as_ref().expect("a text was read, so it was parsed");
        let config = config.as_ref().map_err(Clone::clone)?;
        let key = look.key.expect("a configuration that parses leads to a key or to a problem")?;
        Ok(Box::new(Desired { snapshot: compile(config, key), config: Arc::clone(config) }))
    }
}

/// Follows the file for ever. `hangup` is SIGHUP.
pub async fn follow(
    file: ConfigFile,
    control: &Control,
    mut hangup: Signal,
    mut requests: mpsc::Receiver<ReloadRequest>,
) {
    let file = Arc::new(Mutex::new(file));
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                if let Some(reading) = off_the_runtime(&file, ConfigFile::poll).await {
                    let _ = control.configure(reading);
                }
            }
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: reading the configuration again");
                let _ = control.configure(off_the_runtime(&file, ConfigFile::read).await);
            }
            Some(answer) = requests.recv() => {
                let reading = off_the_runtime(&file, ConfigFile::read).await;
                // Whoever asked may have gone; the file was read all the same.
                let _ = answer.send(control.configure(reading));
            }
        }
    }
}

/// A slow disk or a large file must not hold up the sockets.
async fn off_the_runtime<T: Send + 'static>(
    file: &Arc<Mutex<ConfigFile>>,
    read: fn(&mut ConfigFile) -> T,
) -> T {
    let file = Arc::clone(file);
    let reading = move || read(&mut file.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::spawn_blocking(reading).await.expect("reading a file does not panic")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shunt-config-file-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> ConfigFile {
            ConfigFile::new(self.0.join("shunt.toml"), self.0.join("own.key"))
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn maglev(reading: Option<Reading>) -> Option<u32> {
        reading.map(|reading| reading.unwrap().snapshot.maglev_size)
    }

    #[test]
    fn a_change_is_taken_once_and_only_when_two_looks_agree() {
        let directory = Directory::new("settled");
        let mut file = directory.file();
        directory.write("shunt.toml", "dataplane.maglev_size = 251");
        assert_eq!(file.read().unwrap().snapshot.maglev_size, 251);
        assert!(file.poll().is_none());

        directory.write("shunt.toml", "");
        assert!(file.poll().is_none(), "half written");
        directory.write("shunt.toml", "dataplane.maglev_size = 65537");
        assert!(file.poll().is_none(), "seen for the first time");
        assert_eq!(maglev(file.poll()), Some(65_537));
        assert!(file.poll().is_none());
    }

    #[test]
    fn a_file_renamed_over_the_old_one_is_seen_even_with_the_same_size() {
        let directory = Directory::new("rename");
        let mut file = directory.file();
        directory.write("shunt.toml", "dataplane.maglev_size = 251");
        file.read().unwrap();
        directory.write("new", "dataplane.maglev_size = 257");
        fs::rename(directory.0.join("new"), directory.0.join("shunt.toml")).unwrap();
        assert!(file.poll().is_none());
        assert_eq!(maglev(file.poll()), Some(257));
    }

    #[test]
    fn a_problem_is_told_once_and_ends_when_the_key_file_appears() {
        let directory = Directory::new("key");
        let mut file = directory.file();
        directory.write("shunt.toml", "fleet_key_file = \"fleet.key\"");
        let problem = file.read().unwrap_err();
        assert_eq!((problem.line, problem.column, problem.field.as_str()), (1, 18, "fleet_key_file"));
        assert!(file.poll().is_none());
        directory.write("fleet.key", "000102030405060708090a0b0c0d0e0f\n");
        assert!(file.poll().is_none());
        let desired = file.poll().unwrap().unwrap();
        assert_eq!(desired.snapshot.fleet_key.0[15], 15);
        assert!(!Path::exists(&directory.0.join("own.key")), "no key is made when one is named");
    }

    #[test]
    fn a_file_that_vanishes_is_a_problem_and_its_return_is_not_missed() {
        let directory = Directory::new("vanish");
        let mut file = directory.file();
        assert!(file.read().is_err());
        directory.write("shunt.toml", "dataplane.maglev_size = 251");
        assert!(file.poll().is_none());
        assert_eq!(maglev(file.poll()), Some(251));
        fs::remove_file(directory.0.join("shunt.toml")).unwrap();
        assert!(file.poll().is_none());
        assert_eq!(file.poll().unwrap().unwrap_err().line, 0);
        assert!(file.poll().is_none());
    }
}
