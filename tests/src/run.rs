//! One run: a directory, network namespaces, a bpffs and processes under one name, removed together.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, mount};

use crate::command;
use crate::error::{Result, While, ensure};
use crate::leftovers;
use crate::lifecycle;
use crate::namespace::Namespace;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Owner of everything a scenario creates; dropping it removes it all.
#[derive(Debug)]
pub struct Run {
    name: String,
    directory: PathBuf,
    kept: bool,
}

fn demand_root() -> Result<()> {
    ensure(rustix::process::geteuid().is_root(), || {
        "network namespaces and XDP need root; run this with sudo".to_owned()
    })
}

impl Run {
    /// An empty run with a name no other process uses.
    pub fn new() -> Result<Self> {
        demand_root()?;
        Self::create(false)
    }

    /// One whose programs can outlive this process: [`Run::release`] lets go of them, and until then an
    /// interrupt still removes it all.
    pub fn kept() -> Result<Self> {
        demand_root()?;
        Self::create(true)
    }

    /// One for files alone, which needs no root.
    pub fn of_files() -> Result<Self> {
        Self::create(false)
    }

    fn create(kept: bool) -> Result<Self> {
        let pid = std::process::id();
        let name = format!("sh{pid}x{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = leftovers::directory_of(&name);
        let mut gate = lifecycle::gate();
        gate.register(&name);
        let run = Self { name, directory, kept };
        // Never one that exists: somebody else may have put it there.
        fs::create_dir(&run.directory).to(|| format!("create {}", run.directory.display()))?;
        run.write(leftovers::OWNER_FILE, leftovers::start_time(pid).unwrap_or_default())?;
        Ok(run)
    }

    /// `sh<pid>x<n>`, the prefix of all its namespaces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For configuration, sockets and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether its programs can outlive this process.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Lets go of a kept run: from now on only `shunt-demo --clean` removes it.
    pub fn release(self) -> Result<()> {
        self.write(leftovers::OWNER_FILE, leftovers::KEPT)?;
        lifecycle::gate().forget(&self.name);
        std::mem::forget(self);
        Ok(())
    }

    /// Creates network namespaces named by their roles.
    pub fn namespaces<'r>(&self, roles: impl IntoIterator<Item = &'r str>) -> Result<Vec<Namespace>> {
        let namespaces: Vec<_> =
            roles.into_iter().map(|role| Namespace::named(format!("{}-{role}", self.name))).collect();
        let batch: String = namespaces.iter().map(|n| format!("netns add {}\n", n.name())).collect();
        let _gate = lifecycle::gate();
        command::feed(std::process::Command::new("ip").args(["-batch", "-"]), &batch)?;
        Ok(namespaces)
    }

    /// Writes a file of the run's directory and returns its path. Readers find the old content or the new,
    /// never a part.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!("{name}.new"));
        let written = fs::write(&new, content).and_then(|()| fs::rename(&new, &path));
        written.to(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Creates a directory below the run's.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).to(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Mounts a bpffs of its own below the run's directory.
    pub fn mount_bpf(&self, name: &str) -> Result<PathBuf> {
        let path = self.subdirectory(name)?;
        let _gate = lifecycle::gate();
        mount("bpf", &path, "bpf", MountFlags::empty(), None)
            .to(|| format!("mount a bpffs on {}", path.display()))?;
        Ok(path)
    }

    /// Copies the logs to where they outlive the run.
    pub fn save_logs(&self, target: &Path) -> Result<()> {
        fs::create_dir_all(target).to(|| format!("create {}", target.display()))?;
        let entries = fs::read_dir(&self.directory).to(|| format!("read {}", self.directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
            if let Some(name) = path.file_name() {
                fs::copy(&path, target.join(name)).to(|| format!("copy {}", path.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut gate = lifecycle::gate();
        if let Err(error) = leftovers::remove(&self.name) {
            eprintln!("{}: {error}; run `shunt-demo --clean`", self.name);
        }
        gate.forget(&self.name);
    }
}
