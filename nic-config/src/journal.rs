//! What everything was before the first change, on disk, so that it can be put back also by another process
//! and after a crash. Each inverse is written, and has reached the disk, before its change is made.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::setting::{Setting, Value};

/// One inverse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Of which setting.
    pub setting: Setting,
    /// Of the interface; another interface of the same name is not the one that was changed.
    pub ifindex: Option<u32>,
    /// What it was.
    pub before: Value,
}

/// Where entries hold: a start of the kernel and a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Inode of the network namespace.
    pub namespace: u64,
}

/// Why inverses cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody else is at it.
    #[error("another nic-config is at work (it holds {0}); try again when it has ended")]
    Busy(PathBuf),
    /// The disk.
    #[error(
        "cannot keep what is to be put back in {path} ({source}); run as root, or name another directory with --state"
    )]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not what this program writes.
    #[error(
        "{path} is not what nic-config writes ({source}); move it away, and put back by hand what it says"
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Entries are about interfaces elsewhere.
    #[error(
        "{0} is about another network namespace; run nic-config there, or name another directory with --state"
    )]
    Namespace(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(flatten)]
    epoch: Epoch,
    entries: Vec<Entry>,
}

/// Inverses on disk, held by one process at a time.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    epoch: Epoch,
    entries: Vec<Entry>,
    /// There was one of an earlier start of the kernel, which has forgotten those changes.
    stale: bool,
    _lock: File,
}

impl Journal {
    /// Opens the journal of a directory, which is made if need be, and keeps others out until it is dropped.
    pub fn open(directory: &Path, epoch: Epoch) -> Result<Self, JournalError> {
        fs::create_dir_all(directory).map_err(|source| io_error(directory, source))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let lock = lock.map_err(|source| io_error(&path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::Busy(path)),
            Err(errno) => return Err(io_error(&path, errno.into())),
        }
        let mut journal =
            Self { directory: directory.to_owned(), epoch, entries: Vec::new(), stale: false, _lock: lock };
        journal.load()?;
        Ok(journal)
    }

    fn load(&mut self) -> Result<(), JournalError> {
        let path = self.file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(io_error(&path, source)),
        };
        let document: Document = serde_json::from_str(&text)
            .map_err(|source| JournalError::Form { path: path.clone(), source })?;
        if document.epoch.boot_id != self.epoch.boot_id {
            self.stale = true;
            return Ok(());
        }
        if document.epoch.namespace != self.epoch.namespace && !document.entries.is_empty() {
            return Err(JournalError::Namespace(path));
        }
        self.entries = document.entries;
        Ok(())
    }

    /// Oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Names interfaces as they are called now: one that was renamed since is still the one that was changed.
    pub fn follow(&mut self, names: &BTreeMap<u32, String>) {
        for entry in &mut self.entries {
            if let Some(name) = entry.ifindex.and_then(|ifindex| names.get(&ifindex)) {
                entry.setting.nic = Some(name.clone());
            }
        }
    }

    /// There was a journal of an earlier start of the kernel.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Adds inverses of settings that have none yet: what counts is how it was before the first change. An
    /// inverse that is of another interface of the same name gives way. Returns when all is on disk.
    pub fn remember(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut all = self.entries.clone();
        for entry in entries {
            let is_of_same = |known: &&Entry| known.setting == entry.setting;
            if all.iter().filter(is_of_same).any(|known| known.ifindex == entry.ifindex) {
                continue;
            }
            all.retain(|known| !is_of_same(&known));
            all.push(entry.clone());
        }
        if all == self.entries { Ok(()) } else { self.replace(all) }
    }

    /// Puts other entries in place of all.
    pub fn replace(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        let path = self.file();
        self.write(&path, &entries).map_err(|source| io_error(&path, source))?;
        self.entries = entries;
        Ok(())
    }

    /// A reader sees the old file or the new one, whole.
    fn write(&self, path: &Path, entries: &[Entry]) -> io::Result<()> {
        let directory = File::open(&self.directory)?;
        if entries.is_empty() {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => return directory.sync_all(),
            }
        }
        let document = Document { epoch: self.epoch.clone(), entries: entries.to_vec() };
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&document)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        directory.sync_all()
    }

    fn file(&self) -> PathBuf {
        self.directory.join("before.json")
    }
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Item;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("nic-config-journal-{}-{name}", std::process::id())))
        }

        fn open(&self, boot_id: &str, namespace: u64) -> Result<Journal, JournalError> {
            Journal::open(&self.0, Epoch { boot_id: boot_id.to_owned(), namespace })
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mtu(ifindex: u32, before: u64) -> Entry {
        Entry {
            setting: Setting::of("eth1", Item::Mtu),
            ifindex: Some(ifindex),
            before: Value::Number(before),
        }
    }

    #[test]
    fn the_first_inverse_stays_also_for_the_next_process() {
        let directory = Directory::new("first");
        let mut journal = directory.open("boot", 1).unwrap();
        journal.remember(&[mtu(3, 1500)]).unwrap();
        journal.remember(&[mtu(3, 9000)]).unwrap();
        drop(journal);
        let mut journal = directory.open("boot", 1).unwrap();
        assert_eq!(journal.entries(), [mtu(3, 1500)]);
        journal.remember(&[mtu(4, 1400)]).unwrap();
        assert_eq!(journal.entries(), [mtu(4, 1400)], "another interface of the same name");
        journal.replace(Vec::new()).unwrap();
        drop(journal);
        assert_eq!(directory.open("boot", 2).unwrap().entries(), []);
    }

    #[test]
    fn an_interface_that_was_renamed_keeps_its_inverse() {
        let directory = Directory::new("renamed");
        let mut journal = directory.open("boot", 1).unwrap();
        journal.remember(&[mtu(3, 1500)]).unwrap();
        journal.follow(&[(3, "lan".to_owned()), (4, "eth1".to_owned())].into());
        let renamed = |entry: Entry| Entry { setting: Setting::of("lan", Item::Mtu), ..entry };
        journal.remember(&[renamed(mtu(3, 9000)), mtu(4, 1400)]).unwrap();
        assert_eq!(journal.entries(), [renamed(mtu(3, 1500)), mtu(4, 1400)]);
        journal.follow(&[(3, "eth1".to_owned())].into());
        journal.remember(&[mtu(3, 9000)]).unwrap();
        assert_eq!(journal.entries(), [mtu(3, 1500), mtu(4, 1400)], "4 is gone, and its name with 3");
    }

    #[test]
    fn one_process_at_a_time() {
        let directory = Directory::new("lock");
        let held = directory.open("boot", 1).unwrap();
        assert!(matches!(directory.open("boot", 1), Err(JournalError::Busy(_))));
        drop(held);
        assert!(directory.open("boot", 1).is_ok());
    }

    #[test]
    fn what_was_before_the_kernel_started_is_void() {
        let directory = Directory::new("boot");
        directory.open("one", 1).unwrap().remember(&[mtu(3, 1500)]).unwrap();
        let journal = directory.open("two", 2).unwrap();
        assert_eq!((journal.entries(), journal.is_stale()), (&[][..], true));
    }

    #[test]
    fn another_namespace_or_form_is_refused() {
        let directory = Directory::new("form");
        directory.open("boot", 1).unwrap().remember(&[mtu(3, 1500)]).unwrap();
        assert!(matches!(directory.open("boot", 2), Err(JournalError::Namespace(_))));
        fs::write(directory.0.join("before.json"), "{}").unwrap();
        assert!(matches!(directory.open("boot", 1), Err(JournalError::Form { .. })));
    }
}
