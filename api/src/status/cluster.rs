//! The clusters whose Services are served.

use serde::{Deserialize, Serialize};

use super::TimeMs;

/// How a cluster and this box stand to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its name, if there are several.
    pub name: Option<String>,
    /// Where what is served for it is from.
    pub source: ClusterSource,
    /// Its API server does not answer; `None` if it does, or was not asked yet.
    pub away: Option<ClusterAway>,
    /// Whether this box writes to it.
    pub role: ClusterRole,
    /// The box that does, if one is known.
    pub leader: Option<String>,
    /// Why this box cannot lead, in words with a remedy.
    pub lease_problem: Option<String>,
    /// Its Services of type `LoadBalancer` that are this box's to serve; `None` until it says what it wants.
    pub services: Option<ClusterServices>,
}

/// Where what is served for a cluster is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterSource {
    /// It is not known yet what the cluster wants; what the dataplane has stays.
    #[default]
    Unknown,
    /// It is what the cluster wanted before this control plane was started.
    Memory,
    /// It is what the cluster said last.
    Live,
}

/// An API server that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAway {
    /// Since when that is known.
    pub since_ms: TimeMs,
    /// What happens instead.
    pub reason: String,
}

/// What part a box has among those that serve a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterRole {
    /// It is not known who leads.
    #[default]
    Unknown,
    /// It gives addresses and writes.
    Leader,
    /// It forwards what another decided.
    Follower,
}

/// How many Services there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterServices {
    /// The dataplane serves them.
    pub served: usize,
    /// They are on their way.
    pub waiting: usize,
    /// They cannot be served as they are; `kubectl describe` says why.
    pub refused: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_travel_as_json() {
        let cluster = ClusterStatus {
            name: Some("berlin".into()),
            source: ClusterSource::Memory,
            away: Some(ClusterAway { since_ms: TimeMs(7), reason: "refused".into() }),
            role: ClusterRole::Follower,
            leader: Some("edge2".into()),
            lease_problem: None,
            services: Some(ClusterServices { served: 1, waiting: 2, refused: 3 }),
        };
        let json = serde_json::to_string(&cluster).unwrap();
        let expected = r#"{"name":"berlin","source":"memory","away":{"since_ms":7,"reason":"refused"},"role":"follower","leader":"edge2","lease_problem":null,"services":{"served":1,"waiting":2,"refused":3}}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<ClusterStatus>(&json).unwrap(), cluster);
    }
}
