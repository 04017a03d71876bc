//! Who this box is among those that elect a leader: the name of the host, and digits that no other has.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use shunt_api::file::replace;

/// Longest name of a host that is used.
const HOST_MAX: usize = 64;

/// The name of the host, and digits of its own that are kept in the state directory: a control plane that starts again
/// is the same box, and two with directories of their own are not, even on hosts of one name. Where they cannot be kept,
/// it is another at each start, and the log says so.
pub fn identity(state_dir: &Path) -> String {
    let path = state_dir.join("box.id");
    let digits = digits(&path).unwrap_or_else(|error| {
        tracing::warn!("{}: {error}; after a restart this box has to wait for its own lease", path.display());
        format!("{:08x}", std::process::id())
    });
    format!("{}-{digits}", host())
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(HOST_MAX).collect();
    if name.is_empty() { "shunt".into() } else { name }
}

fn digits(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if is_digits(text.trim()) => Ok(text.trim().to_owned()),
        Ok(_) => make(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

fn is_digits(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn make(path: &Path) -> io::Result<String> {
    let random = RandomState::new().hash_one(0) >> 32;
    let digits = format!("{random:08x}");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    replace(path, format!("{digits}\n").as_bytes())?;
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_box() {
        let directory = std::env::temp_dir().join(format!("shunt-identity-{}", std::process::id()));
        let (one, other) = (directory.join("one"), directory.join("other"));
        let first = identity(&one);
        assert_eq!(identity(&one), first);
        assert_ne!(identity(&other), first);
        assert!(first.starts_with(&host()) && is_digits(first.rsplit_once('-').unwrap().1), "{first}");
        fs::write(one.join("box.id"), "rubbish").unwrap();
        let renewed = identity(&one);
        assert!(is_digits(renewed.rsplit_once('-').unwrap().1) && identity(&one) == renewed, "{renewed}");
        fs::remove_dir_all(&directory).unwrap();
        assert!(identity(Path::new("/dev/null")).starts_with(&host()));
    }
}
