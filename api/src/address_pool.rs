//! Pools of addresses that Services of a cluster get theirs from: one type, whether a pool is written in the
//! configuration file or in the cluster. What is free in them is known to whoever gives addresses.

mod range;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use range::{AddressRange, RangeError};

/// Labels that something must have, all of them; none: anything will do.
pub type Selector = BTreeMap<String, String>;

/// A named set of addresses, and for whom they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// Unique among the pools of a cluster.
    pub name: String,
    /// Of either family; no two overlap.
    pub ranges: Vec<AddressRange>,
    /// Whether Services that name neither this pool nor an address get one from it.
    pub auto_assign: bool,
    /// Of pools that would do, the one with the highest is used.
    pub priority: u32,
    /// For Services of these namespaces, and of those that `namespace_selector` selects. Both empty: of all.
    pub namespaces: Vec<String>,
    /// Labels that a namespace has; empty selects none beside `namespaces`.
    pub namespace_selector: Selector,
    /// Labels that a Service must have.
    pub service_selector: Selector,
    /// Leaves out IPv4 addresses that end in .0 and .255.
    pub avoid_edges: bool,
}

impl AddressPool {
    /// A pool for everyone, with every default.
    pub fn new(name: impl Into<String>, ranges: Vec<AddressRange>) -> Self {
        Self {
            name: name.into(),
            ranges,
            auto_assign: true,
            priority: 0,
            namespaces: Vec::new(),
            namespace_selector: Selector::new(),
            service_selector: Selector::new(),
            avoid_edges: true,
        }
    }

    /// Whether an address lies in it, given or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether it may be given when free, for an address that lies in it.
    pub fn gives(&self, address: IpAddr) -> bool {
        !(self.avoid_edges && is_edge(address))
    }

    /// How many addresses of a family it has to give.
    pub fn count(&self, v4: bool) -> u128 {
        let count = |range: &AddressRange| range.count() - if self.avoid_edges { range.edges() } else { 0 };
        self.ranges.iter().filter(|range| range.is_v4() == v4).map(count).fold(0, u128::saturating_add)
    }

    /// Ranges of this pool and of another that have an address in common.
    pub fn overlap(&self, other: &Self) -> Option<(AddressRange, AddressRange)> {
        let pairs = self.ranges.iter().flat_map(|own| other.ranges.iter().map(move |range| (own, range)));
        pairs.map(|(own, range)| (*own, *range)).find(|(own, range)| own.overlaps(range))
    }

    /// Whether it is for some Services alone.
    pub fn is_restricted(&self) -> bool {
        !(self.namespaces.is_empty()
            && self.namespace_selector.is_empty()
            && self.service_selector.is_empty())
    }

    /// Whether it is for a Service of a namespace: the labels of the namespace, then those of the Service.
    pub fn serves(&self, namespace: &str, namespace_labels: &Selector, service_labels: &Selector) -> bool {
        let anywhere = self.namespaces.is_empty() && self.namespace_selector.is_empty();
        let named = || self.namespaces.iter().any(|name| name == namespace);
        let selected =
            || !self.namespace_selector.is_empty() && selects(&self.namespace_selector, namespace_labels);
        (anywhere || named() || selected()) && selects(&self.service_selector, service_labels)
    }
}

fn selects(selector: &Selector, labels: &Selector) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// An IPv4 address that equipment of old takes for a network's own or its broadcast address.
fn is_edge(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ranges: &[&str]) -> AddressPool {
        AddressPool::new("p", ranges.iter().map(|range| range.parse().unwrap()).collect())
    }

    fn labels(pairs: &[(&str, &str)]) -> Selector {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn edges_are_in_a_pool_but_neither_given_nor_counted() {
        let mut pool = pool(&["198.51.100.0/24", "2001:db8::/120"]);
        let edges = ["198.51.100.0", "198.51.100.255"].map(|text| text.parse().unwrap());
        for edge in edges {
            assert!(pool.contains(edge) && !pool.gives(edge), "{edge}");
        }
        assert!(pool.gives("198.51.100.1".parse().unwrap()) && pool.gives("2001:db8::".parse().unwrap()));
        assert_eq!((pool.count(true), pool.count(false)), (254, 256));
        pool.avoid_edges = false;
        assert!(edges.iter().all(|edge| pool.gives(*edge)));
        assert_eq!(pool.count(true), 256);
        assert!(!pool.contains("198.51.101.0".parse().unwrap()));
    }

    #[test]
    fn a_common_address_is_an_overlap() {
        let first = pool(&["198.51.100.0/24", "2001:db8::/64"]);
        let second = pool(&["198.51.99.0/24", "2001:db8:0:0:1::-2001:db8:0:0:2::"]);
        let (own, other) = first.overlap(&second).unwrap();
        assert_eq!(
            (own.to_string().as_str(), other.to_string().as_str()),
            ("2001:db8::/64", "2001:db8:0:0:1::-2001:db8:0:0:2::")
        );
        assert_eq!(first.overlap(&pool(&["198.51.101.0/24"])), None);
    }

    #[test]
    fn a_pool_serves_those_it_is_restricted_to() {
        let none = labels(&[]);
        let web = labels(&[("tier", "web"), ("x", "y")]);
        let everyone = pool(&[]);
        let by_name = AddressPool { namespaces: vec!["a".into()], ..pool(&[]) };
        let by_label = AddressPool { namespace_selector: labels(&[("tier", "web")]), ..pool(&[]) };
        let either = AddressPool { namespaces: vec!["a".into()], ..by_label.clone() };
        let both = AddressPool { service_selector: labels(&[("tier", "web")]), ..by_name.clone() };
        let cases = [
            (&everyone, "z", &none, &none, true),
            (&by_name, "a", &none, &none, true),
            (&by_name, "b", &web, &web, false),
            (&by_label, "b", &web, &none, true),
            (&by_label, "b", &none, &web, false),
            (&either, "a", &none, &none, true),
            (&either, "b", &web, &none, true),
            (&either, "b", &none, &none, false),
            (&both, "a", &none, &web, true),
            (&both, "a", &none, &none, false),
            (&both, "b", &none, &web, false),
        ];
        for (pool, namespace, namespace_labels, service_labels, expected) in cases {
            assert_eq!(pool.serves(namespace, namespace_labels, service_labels), expected, "{pool:?}");
        }
        assert!(
            !everyone.is_restricted() && [by_name, by_label, both].iter().all(AddressPool::is_restricted)
        );
    }
}
