//! The routes that are announced by a routing daemon.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Routes to VIPs in a table of the kernel. All is 0 or empty while nothing is announced so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesStatus {
    /// Routing table they are in.
    pub table: u32,
    /// `rtm_protocol` they carry.
    pub protocol: u8,
    /// How many there are.
    pub present: usize,
    /// Each of them, a single host, in the order of addresses.
    pub prefixes: Vec<IpNet>,
    /// Why they are not as they should be, in words with a remedy; empty when all is well.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_travel_as_json() {
        let routes = RoutesStatus {
            table: 83,
            protocol: 83,
            present: 2,
            prefixes: vec!["203.0.113.10/32".parse().unwrap(), "2001:db8::10/128".parse().unwrap()],
            problems: vec![],
        };
        let json = serde_json::to_string(&routes).unwrap();
        let expected = r#"{"table":83,"protocol":83,"present":2,"prefixes":["203.0.113.10/32","2001:db8::10/128"],"problems":[]}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<RoutesStatus>(&json).unwrap(), routes);
    }
}
