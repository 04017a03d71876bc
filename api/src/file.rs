//! Files that are replaced as a whole.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a file or replaces it: nobody ever reads half of it, also after a crash, and only its owner may read it, from
/// the beginning. Its directory must be there. When it fails the file before stays, and nothing is left beside it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut unfinished = OsString::from(path);
    unfinished.push(".unfinished");
    // Left by a process that was killed. What is made anew is nobody else's file, nor a link to one.
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&unfinished, path));
    renamed.inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_its_owners_alone() {
        let directory = std::env::temp_dir().join(format!("shunt-replace-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (path, other) = (directory.join("file"), directory.join("other"));
        fs::write(&other, "other").unwrap();
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        // Left by a process that was killed, or laid out by somebody.
        symlink(&other, directory.join("file.unfinished")).unwrap();
        for content in ["first", "second"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert!(replace(&directory, b"").is_err(), "it is a directory");
        assert!(!directory.with_extension("unfinished").exists());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "nothing is left beside them");
        fs::remove_dir_all(&directory).unwrap();
    }
}
