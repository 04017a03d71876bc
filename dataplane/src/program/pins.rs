//! The directory of pins on the BPF file system: who may use it, what things in it are called, and how it is
//! emptied. Never creates a map or a link.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use libbpf_rs::Link;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::{ProgramError, refused};
use super::maps::{SHARED, SharedMap};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Before the name of the NIC.
const LINK: &str = "link_";

/// The locked directory. The lock ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Locks the directory, after creating it for this user alone if it is not there.
    pub fn create(path: &Path) -> Result<Self, ProgramError> {
        require_bpffs(nearest(path), path)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(refused(format!("create {}", path.display())))?;
        Self::lock(path)
    }

    /// Locks the directory; `None` if there is none, where there could be one.
    pub fn existing(path: &Path) -> Result<Option<Self>, ProgramError> {
        match path.try_exists().map_err(refused(format!("look for {}", path.display())))? {
            true => Self::lock(path).map(Some),
            false => require_bpffs(nearest(path), path).map(|()| None),
        }
    }

    fn lock(path: &Path) -> Result<Self, ProgramError> {
        require_bpffs(path, path)?;
        let lock = File::open(path).map_err(refused(format!("open {}", path.display())))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(ProgramError::InUse { directory: path.to_owned() }),
            Err(errno) => Err(refused(format!("lock {}", path.display()))(errno)),
        }
    }

    /// Pin of this version's layout of a map.
    pub fn map(&self, map: &SharedMap) -> PathBuf {
        self.path.join(format!("{}{}", any_layout(map), map.layout))
    }

    /// Pin of the link that attaches the program to a NIC.
    pub fn link(&self, nic: &str) -> PathBuf {
        self.path.join(format!("{LINK}{}", escaped(nic)))
    }

    /// NICs with a pinned link.
    pub fn linked_nics(&self) -> Result<Vec<String>, ProgramError> {
        Ok(self.names()?.iter().filter_map(|name| name.strip_prefix(LINK)).map(unescaped).collect())
    }

    /// Detaches a NIC's program and removes its pin.
    pub fn detach(&self, nic: &str) -> Result<(), ProgramError> {
        let pin = self.link(nic);
        let link = Link::open(&pin).map_err(refused(format!("open {}", pin.display())))?;
        link.detach().map_err(refused(format!("detach the XDP program of {nic}")))?;
        remove(&pin)
    }

    /// Detaches all programs, then removes the maps and, if nothing else is in it, the directory. Says what
    /// was removed.
    pub fn clear(self) -> Result<Vec<String>, ProgramError> {
        let mut removed = Vec::new();
        for nic in self.linked_nics()? {
            self.detach(&nic)?;
            removed.push(format!("XDP program of {nic}"));
        }
        let names = self.names()?;
        for map in &SHARED {
            for name in names.iter().filter(|name| name.starts_with(&any_layout(map))) {
                remove(&self.path.join(name))?;
                removed.push(format!("map of {} {name}", map.holds));
            }
        }
        // Not ours to remove when it is a mount point or holds the pins of others.
        let _ = fs::remove_dir(&self.path);
        Ok(removed)
    }

    fn names(&self) -> Result<Vec<String>, ProgramError> {
        let read = || -> io::Result<Vec<String>> {
            let entries: Vec<_> = fs::read_dir(&self.path)?.collect::<Result<_, _>>()?;
            Ok(entries.iter().filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect())
        };
        read().map_err(refused(format!("list {}", self.path.display())))
    }
}

/// The directory itself, or where it would have to be made.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."))
}

/// How the names of a map's pins begin, whatever its layout.
fn any_layout(map: &SharedMap) -> String {
    format!("{}_v", map.name)
}

fn require_bpffs(path: &Path, directory: &Path) -> Result<(), ProgramError> {
    let found = rustix::fs::statfs(path).map_err(refused(format!("examine {}", path.display())))?;
    match u64::try_from(found.f_type) {
        Ok(BPF_FS_MAGIC) => Ok(()),
        _ => Err(ProgramError::NotBpffs { directory: directory.to_owned() }),
    }
}

fn remove(pin: &Path) -> Result<(), ProgramError> {
    fs::remove_file(pin).map_err(refused(format!("remove {}", pin.display())))
}

/// A BPF file system takes no dots in names; the names of VLAN interfaces have them.
fn escaped(nic: &str) -> String {
    nic.replace('%', "%25").replace('.', "%2e")
}

fn unescaped(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nics_survive_escaping() {
        for (nic, name) in [("eth0", "eth0"), ("eth0.100", "eth0%2e100"), ("odd%2e", "odd%252e")] {
            assert_eq!(escaped(nic), name);
            assert_eq!(unescaped(name), nic);
        }
    }

    #[test]
    fn a_directory_elsewhere_is_refused_with_the_remedy() {
        let directory = std::env::temp_dir().join("shunt-pins-of-no-bpffs/below");
        let error = Directory::create(&directory).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
        assert!(!directory.exists());
    }

    #[test]
    fn nothing_is_left_only_where_something_could_be() {
        let directory = std::env::temp_dir().join("shunt-pins-never-made");
        let error = Directory::existing(&directory).expect_err("no BPF file system").to_string();
        assert!(error.contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    }
}
