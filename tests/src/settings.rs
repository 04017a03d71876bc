//! The configuration file of a scenario, as a value that is easy to change and to write again.

use std::fmt;
use std::net::IpAddr;

use crate::topology::{Node, Segment};

/// A whole configuration file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// NICs to serve.
    pub nics: Vec<String>,
    /// Further keys of every `[[nic]]`, in TOML.
    pub nic_keys: &'static str,
    /// Keys of `[dataplane]`, in TOML.
    pub dataplane_keys: &'static str,
    /// Whether tunnels get outer source addresses with entropy; otherwise the box's own.
    pub tunnel_entropy: bool,
    /// Sets of backends.
    pub pools: Vec<Pool>,
    /// What clients can reach.
    pub services: Vec<Service>,
    /// Further tables, in TOML.
    pub tables: &'static str,
}

/// A named set of backends.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// `dr`, `ipip` or `nat`.
    pub mode: &'static str,
    /// In any order.
    pub backends: Vec<Backend>,
    /// Further keys, in TOML.
    pub keys: &'static str,
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// As the topology calls it.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// Share of new flows.
    pub weight: u16,
}

/// What clients can reach.
#[derive(Clone, Debug)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Addresses.
    pub vips: Vec<IpAddr>,
    /// As in `tcp/80`.
    pub ports: Vec<&'static str>,
    /// Name of its pool.
    pub pool: String,
    /// Further keys, in TOML.
    pub keys: &'static str,
}

/// Outer sources of tunnels; no box of the topology has an address in them.
const TUNNEL_SOURCES: &str = "[tunnel]\nsource_v4 = \"10.77.128.0/17\"\nsource_v6 = \"fd77:80::/64\"\n";

/// The same on every run, so that the same connections choose the same backends.
pub const FLEET_KEY: &str = "000102030405060708090a0b0c0d0e0f";

/// Outer sources that [`Settings::tunnel_entropy`] configures.
pub fn is_tunnel_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..2] == [10, 77] && v4.octets()[2] >= 128,
        IpAddr::V6(v6) => v6.segments()[..4] == [0xfd77, 0x80, 0, 0],
    }
}

impl Settings {
    /// No pools and services yet.
    pub fn new<'n>(nics: impl IntoIterator<Item = &'n str>) -> Self {
        Self {
            nics: nics.into_iter().map(str::to_owned).collect(),
            nic_keys: "",
            dataplane_keys: "",
            tunnel_entropy: true,
            pools: Vec::new(),
            services: Vec::new(),
            tables: "",
        }
    }

    /// Adds a pool of these nodes, reached in the family of `like`, and a service on it of the same name.
    pub fn serve<'n>(
        &mut self,
        name: &str,
        mode: &'static str,
        nodes: impl IntoIterator<Item = &'n Node>,
        like: IpAddr,
        service: (&[IpAddr], &[&'static str]),
    ) {
        let backends = nodes.into_iter().map(|node| Backend::of(node, like)).collect();
        self.pools.push(Pool { name: name.to_owned(), mode, backends, keys: "" });
        let (vips, ports) = (service.0.to_vec(), service.1.to_vec());
        let (name, pool) = (name.to_owned(), name.to_owned());
        self.services.push(Service { name, vips, ports, pool, keys: "" });
    }

    /// Gives every service these further keys.
    #[must_use]
    pub fn with_service_keys(mut self, keys: &'static str) -> Self {
        self.services.iter_mut().for_each(|service| service.keys = keys);
        self
    }
}

impl Backend {
    /// A node by its address in the family of `like`, with weight 1.
    pub fn of(node: &Node, like: IpAddr) -> Self {
        Self { name: node.name.clone(), address: node.address_like(like), weight: 1 }
    }
}

/// VIPs with this last number, the IPv4 one first.
pub fn vips(number: u8) -> [IpAddr; 2] {
    let v4 = IpAddr::from([203, 0, 113, number]);
    let digits = u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    [v4, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, digits])]
}

/// Any address of a family, for the `like` arguments.
pub fn like_v4() -> IpAddr {
    Segment::Back.v4(0).into()
}

/// Any address of a family, for the `like` arguments.
pub fn like_v6() -> IpAddr {
    Segment::Back.v6(0).into()
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "fleet_key_file = \"fleet.key\"\n")?;
        for nic in &self.nics {
            writeln!(f, "[[nic]]\nname = \"{nic}\"\n{}\n", self.nic_keys)?;
        }
        writeln!(f, "[dataplane]\n{}\n", self.dataplane_keys)?;
        if self.tunnel_entropy {
            writeln!(f, "{TUNNEL_SOURCES}")?;
        }
        for pool in &self.pools {
            writeln!(f, "[pools.{}]\nmode = \"{}\"\nbackends = [", pool.name, pool.mode)?;
            for Backend { name, address, weight } in &pool.backends {
                writeln!(f, "  {{ name = \"{name}\", address = \"{address}\", weight = {weight} }},")?;
            }
            writeln!(f, "]\n{}\n", pool.keys)?;
        }
        for service in &self.services {
            let vips: Vec<_> = service.vips.iter().map(IpAddr::to_string).collect();
            writeln!(f, "[[service]]\nname = \"{}\"\nvip = {vips:?}", service.name)?;
            writeln!(f, "ports = {:?}\npool = \"{}\"\n{}\n", service.ports, service.pool, service.keys)?;
        }
        writeln!(f, "{}", self.tables)
    }
}

#[cfg(test)]
mod tests {
    use shunt_api::config::Config;

    use super::*;

    #[test]
    fn what_is_written_is_a_valid_configuration() {
        let mut settings = Settings::new(["front", "back"]);
        let backend =
            |n: u8| Backend { name: format!("dr{n}"), address: Segment::Back.v4(n).into(), weight: 5 };
        settings.pools.push(Pool {
            name: "web".into(),
            mode: "ipip",
            backends: vec![backend(1), backend(2)],
            keys: "on_down = \"keep\"\ncheck = \"icmp\"",
        });
        settings.services.push(Service {
            name: "web".into(),
            vips: vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ports: vec!["tcp/80", "udp/53"],
            pool: "web".into(),
            keys: "unlisted_ports = \"drop\"",
        });
        settings.tables = "[timeouts]\nudp = \"1m\"\n";
        let config = Config::parse(&settings.to_string(), "/etc/shunt/shunt.toml").unwrap();
        assert_eq!(config.nics.len(), 2);
        assert_eq!(config.pools[0].backends[1].weight, 5);
        assert_eq!(config.services[0].vips, settings.services[0].vips);
        assert_eq!(config.services[0].unlisted_ports, shunt_api::snapshot::UnlistedPorts::Drop);
        assert_eq!(config.timeouts.udp_s, 60);
        let inside: std::net::Ipv4Addr = "10.77.200.1".parse().unwrap();
        assert!(
            is_tunnel_source(inside.into()) && !is_tunnel_source(like_v4()) && !is_tunnel_source(like_v6())
        );
        assert!(config.tunnel.source_v4.unwrap().contains(&inside));
    }
}
