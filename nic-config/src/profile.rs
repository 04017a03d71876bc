//! What is known of drivers: `profiles.toml`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// What is known of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// As ethtool tells it.
    pub name: String,
    /// Receives without copying.
    pub zero_copy: bool,
    /// Takes frames in several pieces when it does.
    pub multi_buffer: bool,
    /// How both directions of a flow get the same hash.
    pub symmetric: Symmetry,
    /// Steers by destination address.
    pub steers: bool,
    /// Offloads that Shunt wants off.
    pub off: Vec<String>,
    /// What went wrong elsewhere.
    pub pitfalls: Vec<Pitfall>,
}

/// How both directions of a flow get the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Symmetry {
    /// The NIC mixes both addresses, and both ports, before it hashes.
    Transform,
    /// A key that repeats itself every 16 bits.
    Key,
}

/// What went wrong elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pitfall {
    /// What happens.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Who says so.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    driver: Vec<Profile>,
}

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let file: File = toml::from_str(include_str!("profiles.toml")).expect("a test reads the built-in file");
    file.driver
});

/// All profiles.
pub fn all() -> &'static [Profile] {
    &PROFILES
}

/// The profile of a driver, if there is one.
pub fn of(driver: Option<&str>) -> Option<&'static Profile> {
    all().iter().find(|profile| Some(profile.name.as_str()) == driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_can_be_read_and_each_pitfall_has_a_source() {
        let names: Vec<&str> = all().iter().map(|profile| profile.name.as_str()).collect();
        let expected = ["i40e", "ice", "ixgbe", "igb", "igc", "mlx5_core", "ena", "virtio_net", "veth"];
        assert_eq!(names, expected);
        for pitfall in all().iter().flat_map(|profile| &profile.pitfalls) {
            assert!(
                ["[K] ", "[I] ", "[D] ", "[M] "].iter().any(|kind| pitfall.source.starts_with(kind)),
                "{pitfall:?}"
            );
            assert!(!pitfall.what.is_empty() && !pitfall.remedy.is_empty(), "{pitfall:?}");
        }
    }

    #[test]
    fn a_driver_that_nobody_knows_has_no_profile() {
        assert_eq!(of(Some("veth")).unwrap().name, "veth");
        assert_eq!((of(Some("tun")), of(None)), (None, None));
    }
}
