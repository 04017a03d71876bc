//! Who has which addresses: what a pool that a cluster defines itself has to leave alone.

use std::net::IpAddr;

use super::Config;
use crate::address_pool::AddressRange;

/// Addresses that the file gives to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub range: AddressRange,
    /// Whom, in words.
    pub by: String,
}

impl Config {
    /// What is taken by all but the pools of one cluster, which is named if there are several.
    pub fn taken_beside(&self, cluster: Option<&str>) -> Vec<Taken> {
        let vips = self.services.iter().flat_map(|service| {
            service.vips.iter().map(|vip| (*vip, format!("a VIP of service `{}`", service.name)))
        });
        let backends = self.pools.iter().flat_map(|pool| {
            let by = |name: &str| format!("backend `{name}` of pool `{}`", pool.name);
            pool.backends.iter().map(move |backend| (backend.address, by(&backend.name)))
        });
        let sources = self.nat.sources.iter().map(|source| (*source, "in sources of [nat]".to_owned()));
        let others = self.kubernetes.iter().filter(|other| other.name.as_deref() != cluster);
        let pools = others.flat_map(|other| {
            let name = other.name.as_deref().unwrap_or_default();
            let by = move |pool: &str| format!("in pool `{pool}` of cluster `{name}`");
            other.pools.iter().flat_map(move |pool| {
                pool.ranges.iter().map(move |range| Taken { range: *range, by: by(&pool.name) })
            })
        });
        vips.chain(backends)
            .chain(sources)
            .filter_map(|(address, by)| one(address, by))
            .chain(pools)
            .collect()
    }
}

/// Nothing if it is an address that no pool can have.
fn one(address: IpAddr, by: String) -> Option<Taken> {
    Some(Taken { range: AddressRange::new(address, address).ok()?, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_own_pools_is_taken() {
        let text = r#"
            nic = [{ name = "eth1" }]
            nat.sources = "10.0.9.250"
            pools.web = { backends = [{ name = "b", address = "10.0.0.1" }] }
            service = [{ name = "s", vip = "203.0.113.1", ports = ["tcp/80"], pool = "web" }]
            [[kubernetes]]
            name = "berlin"
            kubeconfig = "b"
            pools = [{ name = "public", addresses = ["198.51.100.0/28", "198.51.100.64/28"] }]
            [[kubernetes]]
            name = "jena"
            kubeconfig = "j"
            pools = [{ name = "public", addresses = "192.0.2.0/28" }]
        "#;
        let config = Config::parse(text, "f").unwrap();
        let files = [
            ("203.0.113.1", "a VIP of service `s`"),
            ("10.0.0.1", "backend `b` of pool `web`"),
            ("10.0.9.250", "in sources of [nat]"),
        ];
        let berlin = [
            ("198.51.100.0/28", "in pool `public` of cluster `berlin`"),
            ("198.51.100.64/28", "in pool `public` of cluster `berlin`"),
        ];
        let jena = [("192.0.2.0/28", "in pool `public` of cluster `jena`")];
        let cases: [(&str, &[(&str, &str)]); 2] = [("berlin", &jena), ("jena", &berlin)];
        for (cluster, others) in cases {
            let expected: Vec<(String, &str)> =
                files.iter().chain(others).map(|(range, by)| ((*range).to_owned(), *by)).collect();
            let taken = config.taken_beside(Some(cluster));
            let found: Vec<(String, &str)> =
                taken.iter().map(|taken| (taken.range.to_string(), taken.by.as_str())).collect();
            assert_eq!(found, expected, "beside {cluster}");
        }
    }
}
