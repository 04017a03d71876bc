//! What a measured worker serves: a case and its snapshot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use shunt_api::snapshot::{
    Backend, DataplaneSettings, FleetKey, Mode, Nat, Pool, PortMapping, Protocol, Service, ServicePort,
    Snapshot, Timeouts, Tunnel, UnlistedPorts,
};

use super::load::{self, Family};

/// Services, their backends and the flows to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Case {
    /// How packets get to the backends.
    #[arg(value_parser = mode)]
    pub mode: Mode,
    /// Of packets and tunnels' insides.
    pub family: Family,
    /// Flows in the table.
    pub flows: u32,
    /// Each with an address of its own, all on the same pool.
    #[arg(long, default_value_t = 1)]
    pub services: u32,
    /// Of the pool.
    #[arg(long, default_value_t = BACKENDS)]
    pub backends: u32,
    /// Prefixes that each service lets in; 0 lets all in.
    #[arg(long, default_value_t = 0)]
    pub ranges: u32,
}

const BACKENDS: u32 = 100;
/// Addresses that translated flows come from: enough for ten million flows to one backend each.
const SOURCES: u16 = 200;

impl Case {
    /// One service with 100 backends.
    pub fn new(mode: Mode, family: Family, flows: u32) -> Self {
        Self { mode, family, flows, services: 1, backends: BACKENDS, ranges: 0 }
    }

    /// On the command line of this program.
    pub fn arguments(&self) -> Vec<String> {
        let Self { mode, family, flows, services, backends, ranges } = self;
        let family = if *family == Family::V4 { "v4" } else { "v6" };
        let text =
            format!("{mode} {family} {flows} --services={services} --backends={backends} --ranges={ranges}");
        text.split(' ').map(str::to_owned).collect()
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    let known = [Mode::Dr, Mode::Ipip, Mode::Nat].into_iter().find(|mode| mode.to_string() == text);
    known.ok_or_else(|| "write dr, ipip or nat".to_owned())
}

/// The address of a backend; all have the first six groups or two bytes in common.
pub fn backend_v4(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0000 + u32::from(number))
}

/// Likewise.
pub fn backend_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, number)
}

/// The address that a translated flow comes from; likewise.
pub fn source_v4(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a02_0000 + u32::from(number))
}

/// Likewise.
pub fn source_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, number)
}

/// Of a case, in both families.
pub fn snapshot_of(case: &Case) -> Snapshot {
    let Case { mode, flows, backends, .. } = *case;
    let pool = |name: &str, address: fn(u16) -> IpAddr| Pool {
        name: name.to_owned(),
        backends: (1..=backends as u16)
            .map(|i| Backend { name: format!("b{i}"), address: address(i), weight: 1, mode })
            .collect(),
    };
    // Translation keeps the family; tunnels go to IPv4 whatever is inside.
    let v6: fn(u16) -> IpAddr =
        if mode == Mode::Nat { |i| backend_v6(i).into() } else { |i| backend_v4(i).into() };
    let sources = (1..=SOURCES).flat_map(|i| [source_v4(i).into(), source_v6(i).into()]);
    let services = (0..case.services).flat_map(|i| {
        let vips = [(Family::V4, load::vip_v4(i).into()), (Family::V6, load::vip_v6(i).into())];
        vips.map(|(family, vip)| service(case, family, i, vip))
    });
    Snapshot {
        generation: 1,
        fleet_key: FleetKey([7; 16]),
        maglev_size: 65537,
        nics: vec![],
        dataplane: DataplaneSettings::default(),
        timeouts: Timeouts::default(),
        tunnel: Tunnel { source_v4: "10.200.0.0/16".parse().ok(), ..Tunnel::default() },
        nat: Nat {
            sources: if mode == Mode::Nat { sources.collect() } else { vec![] },
            max_flows_v4: if case.family == Family::V4 { flows } else { 1 },
            max_flows_v6: if case.family == Family::V6 { flows } else { 1 },
        },
        reply_rate: 1000,
        pools: vec![pool("v4", |i| backend_v4(i).into()), pool("v6", v6)],
        services: services.collect(),
        probes: Vec::new(),
    }
}

fn service(case: &Case, family: Family, number: u32, vip: IpAddr) -> Service {
    Service {
        name: format!("{family:?}-{number}"),
        vips: vec![vip],
        ports: vec![PortMapping {
            port: ServicePort { protocol: Protocol::Tcp, port: load::PORT },
            target: None,
        }],
        pool: u32::from(family == Family::V6),
        source_ranges: (0..case.ranges).map(|i| range(family, i, case.ranges)).collect(),
        client_ip_affinity_s: None,
        unlisted_ports: UnlistedPorts::Reject,
    }
}

/// One of so many prefixes of 256 addresses, no two of which can be merged. The first clients of `load` are in the one
/// in the middle.
fn range(family: Family, number: u32, count: u32) -> IpNet {
    let steps = 512 * (i64::from(number) - i64::from(count / 2));
    match family {
        Family::V4 => {
            let network = load::CLIENTS_V4.to_bits().wrapping_add_signed(steps as i32);
            IpNet::new_assert(Ipv4Addr::from_bits(network).into(), 24)
        }
        Family::V6 => {
            let network = load::CLIENTS_V6.to_bits().wrapping_add_signed(steps.into());
            IpNet::new_assert(Ipv6Addr::from_bits(network).into(), 120)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        case: Case,
    }

    #[test]
    fn a_case_comes_back_from_its_arguments() {
        for (mode, family) in [(Mode::Dr, Family::V4), (Mode::Ipip, Family::V6), (Mode::Nat, Family::V4)] {
            let case = Case { services: 10, ranges: 3, ..Case::new(mode, family, 1000) };
            let line = std::iter::once("program".to_owned()).chain(case.arguments());
            assert_eq!(Line::try_parse_from(line).map_err(|error| error.to_string()).unwrap().case, case);
        }
        assert!(mode("tunnel").is_err());
    }

    #[test]
    fn ranges_let_the_clients_in_and_are_as_many_as_asked_for() {
        let families: [(Family, IpAddr); 2] =
            [(Family::V4, load::CLIENTS_V4.into()), (Family::V6, load::CLIENTS_V6.into())];
        for (family, client) in families {
            for count in [1, 2, 100, 10_000] {
                let ranges: Vec<IpNet> = (0..count).map(|i| range(family, i, count)).collect();
                assert_eq!(ranges.iter().filter(|range| range.contains(&client)).count(), 1, "{count}");
                assert_eq!(IpNet::aggregate(&ranges).len(), count as usize);
            }
        }
    }
}
