//! Kernel parameters that are files: under `/proc` and `/sys`, or under another root for tests of what a
//! machine does not have.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where `/proc` and `/sys` are.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// `/` but in tests.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A path below it, given from `/`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// What a file holds, without the final newline; `None` if there is none or it cannot be read.
    pub fn read(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.path(path)).ok()?.trim_end().to_owned())
    }

    /// The same as a whole number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// Writes a file that is there already.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(self.path(path))?;
        file.write_all(value.as_bytes())
    }

    /// Names in a directory, sorted; none if there is no such directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        names(&self.path(path))
    }
}

/// Names in a directory, sorted; none if there is no such directory.
pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// A list of CPUs as the kernel writes it, such as `0-2,5`.
pub fn cpus(list: &str) -> Vec<u32> {
    let range = |part: &str| -> Option<Vec<u32>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?..=last.trim().parse().ok()?).collect())
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The list as the kernel writes it.
pub fn cpu_list(cpus: &[u32]) -> String {
    let mut cpus = cpus.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[u32]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_and_written_as_the_kernel_does() {
        for (list, expected) in [("0-2,5", vec![0, 1, 2, 5]), ("", vec![]), ("7", vec![7])] {
            assert_eq!(cpus(list), expected);
            assert_eq!(cpu_list(&expected), list);
        }
        assert_eq!(cpu_list(&[3, 1, 1, 2]), "1-3");
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made() {
        let root = Root::at(&std::env::temp_dir().join(format!("nic-config-files-{}", std::process::id())));
        assert_eq!(root.write("/sys/none", "1").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((root.read("/sys/none"), root.names("/sys").len()), (None, 0));
    }
}
