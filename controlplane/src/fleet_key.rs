//! The fleet key: the one that the configuration names, or else one of this box's own, made at the first
//! start and kept in the state directory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use shunt_api::config::{Config, read_fleet_key};
use shunt_api::file::replace;
use shunt_api::snapshot::FleetKey;
use shunt_api::status::ConfigProblem;

/// The key that a configuration wants; `file` names the configuration in problems, `own` is where this box
/// keeps its own key.
pub fn fleet_key(config: &Config, file: &str, own: &Path) -> Result<FleetKey, ConfigProblem> {
    if let Some(key_file) = &config.fleet_key_file {
        return key_file.read();
    }
    own_key(own).map_err(|reason| ConfigProblem {
        file: file.into(),
        line: 1,
        column: 1,
        field: "fleet_key_file".into(),
        reason,
    })
}

/// Reads this box's own key, or makes it if there is none. The error is a sentence that says what to do.
fn own_key(path: &Path) -> Result<FleetKey, String> {
    if let Err(error) = make_if_missing(path) {
        return Err(format!(
            "no fleet key is named, and {} cannot be made: {error}; name a key here or start with a \
             --state-dir that can be written",
            path.display()
        ));
    }
    read_fleet_key(path)
}

fn make_if_missing(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut key = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    replace(path, format!("{}\n", String::from(FleetKey(key))).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_own_key_is_made_once_and_only_its_owner_may_read_it() {
        let directory = std::env::temp_dir().join(format!("shunt-fleet-key-{}", std::process::id()));
        let path = directory.join("state/fleet.key");
        let config = Config::parse("nic = []", "f").unwrap();
        let first = fleet_key(&config, "f", &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fleet_key(&config, "f", &path).unwrap(), first);
        assert_ne!(first, FleetKey([0; 16]));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "the unfinished file is gone");

        fs::write(&path, "garbage").unwrap();
        let problem = fleet_key(&config, "f", &path).unwrap_err();
        assert_eq!((problem.line, problem.field.as_str()), (1, "fleet_key_file"));
        assert!(problem.reason.contains("openssl rand -hex 16"), "{problem}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_is_a_problem_with_a_remedy() {
        let config = Config::parse("nic = []", "f").unwrap();
        let problem = fleet_key(&config, "f", Path::new("/dev/null/fleet.key")).unwrap_err();
        assert!(problem.reason.contains("--state-dir"), "{problem}");
    }
}
