//! How VIPs become reachable, and what stands in the way.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::TimeMs;
use crate::mac::MacAddress;

/// Whether a box answers ARP and neighbour solicitations for VIPs. `backup` and `master` are the states of RFC 5798.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum L2Role {
    /// It does not: nobody asked it to, or it is not known yet what for.
    #[default]
    Off,
    /// It does not, because it could not forward what would come; see [`L2Status::problems`].
    Unable,
    /// It does, and no other box is expected to.
    Alone,
    /// It does not, because another box of its group does.
    Backup,
    /// It does, for its group.
    Master,
}

/// `announce.l2` as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Status {
    /// What this box does.
    pub role: L2Role,
    /// When it began to; `None` if it never did anything else than it does now.
    pub since_ms: Option<TimeMs>,
    /// What it is in the election with: 1 instead of the configured priority while a NIC is without link. `None`
    /// without an election.
    pub priority: Option<u8>,
    /// The virtual router's identifier; `None` without an election.
    pub group: Option<u8>,
    /// The box that answers, by the address it is elected with; `None` unless this one is its backup.
    pub master: Option<IpAddr>,
    /// How many addresses it answers for; 0 unless it answers.
    pub addresses: usize,
    /// Requests and solicitations answered since the start.
    pub answered: u64,
    /// Advertisements of the election that were refused: damaged, or of another group.
    pub advertisements_refused: u64,
    /// Stations that lately claimed an address of this box, in the order of addresses.
    pub conflicts: Vec<L2Conflict>,
    /// Claims that found no room among `conflicts`, since the start.
    pub conflicts_left_out: u64,
    /// What keeps it from its work; each says what to do.
    pub problems: Vec<String>,
}

/// A station that claims an address of this box. It is forgotten when it has been quiet for five minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Conflict {
    /// What both claim.
    pub address: IpAddr,
    /// The other's Ethernet address.
    pub mac: MacAddress,
    /// The NIC it was heard on.
    pub nic: String,
    /// When it was heard first.
    pub since_ms: TimeMs,
    /// When it was heard last.
    pub last_ms: TimeMs,
}

impl L2Role {
    /// Whether the box answers.
    pub fn answers(self) -> bool {
        matches!(self, Self::Alone | Self::Master)
    }
}

/// `off`, `unable`, `alone`, `backup` or `master`.
impl fmt::Display for L2Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Unable => "unable",
            Self::Alone => "alone",
            Self::Backup => "backup",
            Self::Master => "master",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_travels_as_json() {
        let status = L2Status {
            role: L2Role::Backup,
            priority: Some(100),
            group: Some(1),
            master: Some("192.0.2.2".parse().unwrap()),
            conflicts: vec![L2Conflict {
                address: "203.0.113.10".parse().unwrap(),
                mac: MacAddress([2, 0, 0, 0, 0, 9]),
                nic: "eth1".into(),
                since_ms: TimeMs(1),
                last_ms: TimeMs(2),
            }],
            ..L2Status::default()
        };
        let json = serde_json::to_string(&status).unwrap();
        assert!(json.starts_with(r#"{"role":"backup","since_ms":null,"priority":100"#), "{json}");
        assert_eq!(serde_json::from_str::<L2Status>(&json).unwrap(), status);
    }

    #[test]
    fn roles_are_written_alike_everywhere() {
        for role in [L2Role::Off, L2Role::Unable, L2Role::Alone, L2Role::Backup, L2Role::Master] {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
            assert_eq!(role.answers(), ["alone", "master"].contains(&role.to_string().as_str()));
        }
    }
}
