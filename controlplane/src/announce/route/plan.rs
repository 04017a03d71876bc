//! What must change in the table. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::RouteType;

/// How routes of ours look: a packet that a lookup leads to one is dropped in silence. No rule leads there, unless an
/// operator makes one; and routing daemons export such a route as any other, with themselves as next hop.
pub const KIND: RouteType = RouteType::BlackHole;
/// What the kernel makes of priority 0 in IPv6 (`IP6_RT_PRIO_USER` of `net/ip6_route.h`).
const PRIORITY_V6: u32 = 1024;

/// Where the routes are, and by what they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Routing table.
    pub table: u32,
    /// `rtm_protocol`.
    pub protocol: u8,
}

/// A route that the kernel has at a place, as far as it must be told from others there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Destination.
    pub prefix: IpNet,
    /// Such as `blackhole`.
    pub kind: RouteType,
    /// Type of service, 0 for any.
    pub tos: u8,
    /// Also known as its metric.
    pub priority: u32,
}

/// What to do with what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Are wanted and there.
    pub right: BTreeSet<IpAddr>,
    /// Are there and not wanted, or not as we make them. They go first: some are in the way of others.
    pub remove: Vec<Found>,
    /// Are wanted and not there.
    pub add: Vec<IpAddr>,
}

/// Compares the routes of one place with what is wanted there.
pub fn differences(found: &[Found], wanted: &BTreeSet<IpAddr>) -> Plan {
    let mut plan = Plan::default();
    for route in found {
        let address = route.prefix.addr();
        if !is_ours(route) || !wanted.contains(&address) || !plan.right.insert(address) {
            plan.remove.push(*route);
        }
    }
    plan.add = wanted.difference(&plan.right).copied().collect();
    plan
}

/// Whether we would have made it so.
fn is_ours(route: &Found) -> bool {
    let priority = if route.prefix.addr().is_ipv4() { 0 } else { PRIORITY_V6 };
    let is_host = route.prefix.prefix_len() == route.prefix.max_prefix_len();
    is_host && (route.kind, route.tos, route.priority) == (KIND, 0, priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(prefix: &str) -> Found {
        let prefix: IpNet = prefix.parse().unwrap();
        let priority = if prefix.addr().is_ipv4() { 0 } else { 1024 };
        Found { prefix, kind: RouteType::BlackHole, tos: 0, priority }
    }

    fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn check(found: &[Found], wanted: &[&str], right: &[&str], remove: &[Found], add: &[&str]) {
        let expected = Plan {
            right: addresses(right),
            remove: remove.to_vec(),
            add: addresses(add).into_iter().collect(),
        };
        assert_eq!(differences(found, &addresses(wanted)), expected);
    }

    #[test]
    fn what_is_right_stays_and_the_rest_is_made_so() {
        let (a, b) = (ours("203.0.113.1/32"), ours("2001:db8::1/128"));
        check(&[], &[], &[], &[], &[]);
        check(&[a, b], &["203.0.113.1", "2001:db8::1"], &["203.0.113.1", "2001:db8::1"], &[], &[]);
        check(&[a, b], &["203.0.113.1", "203.0.113.2"], &["203.0.113.1"], &[b], &["203.0.113.2"]);
        check(&[a, b], &[], &[], &[a, b], &[]);
        check(&[], &["2001:db8::1"], &[], &[], &["2001:db8::1"]);
    }

    #[test]
    fn what_is_not_as_we_make_it_is_made_anew() {
        let right = ours("203.0.113.1/32");
        for wrong in [
            Found { kind: RouteType::Unicast, ..right },
            Found { tos: 0x10, ..right },
            Found { priority: 20, ..right },
            ours("203.0.113.1/24"),
        ] {
            check(&[wrong], &["203.0.113.1"], &[], &[wrong], &["203.0.113.1"]);
            check(&[right, wrong], &["203.0.113.1"], &["203.0.113.1"], &[wrong], &[]);
        }
        let v6 = Found { priority: 1, ..ours("2001:db8::1/128") };
        check(&[v6], &["2001:db8::1"], &[], &[v6], &["2001:db8::1"]);
        check(&[right, right], &["203.0.113.1"], &["203.0.113.1"], &[right], &[]);
    }
}
