//! The file that holds the fleet key. It is apart from the configuration file so that the latter can be
//! shown around.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::snapshot::FleetKey;
use crate::status::ConfigProblem;

/// Most bytes read of a key file: a key has 32, and whoever points at `/dev/zero` should be told so.
const KEY_FILE_MAX: u64 = 256;

/// A fleet key file, and where the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Where the key is.
    pub path: PathBuf,
    /// The place in the configuration; its reason is not used.
    place: ConfigProblem,
}

impl KeyFile {
    /// A key file named at a place; the reason of `place` does not matter.
    pub(super) fn new(path: PathBuf, place: ConfigProblem) -> Self {
        Self { path, place }
    }

    /// Reads the key. The problem points at the line of the configuration that names the file.
    pub fn read(&self) -> Result<FleetKey, ConfigProblem> {
        read_fleet_key(&self.path).map_err(|reason| ConfigProblem { reason, ..self.place.clone() })
    }
}

/// Reads a key file; the error is a sentence that says what to do.
pub fn read_fleet_key(path: &Path) -> Result<FleetKey, String> {
    let shown = path.display();
    let make = format!("make one with `openssl rand -hex 16 > {shown}`");
    let text = read_text(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{shown} does not exist; {make}"),
        ErrorKind::InvalidData => format!("{shown} does not hold a fleet key; {make}"),
        _ => format!("{shown} cannot be read: {error}; make it readable for the user Shunt runs as"),
    })?;
    FleetKey::try_from(text)
        .map_err(|_| format!("{shown} does not hold a fleet key, which is 32 hexadecimal digits; {make}"))
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KEY_FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}
