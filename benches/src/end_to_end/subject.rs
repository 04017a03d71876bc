//! What is measured side by side.

use shunt_tests::error::Result;
use shunt_tests::process::Process;
use shunt_tests::settings::{Backend, Pool, Service, Settings};
use shunt_tests::shunt::Shunt;

use super::frame::Kind;
use super::network::{BACK, BACKENDS, DIRECT, FRONT, Network, VIP};
use super::{SUBJECT_CORE, floor, kernel, proxies};
use crate::chart::Colour;

/// One way from the client to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// See [`floor`].
    L2fwd,
    /// Shunt, mode `dr`.
    ShuntDr,
    /// Shunt, mode `ipip`.
    ShuntIpip,
    /// Shunt, mode `nat`.
    ShuntNat,
    /// See [`kernel::start_dsr`].
    NftDsr,
    /// See [`kernel::start_nat`].
    NftNat,
    /// See [`proxies`].
    Haproxy,
    /// See [`proxies`].
    NginxStream,
    /// No load balancer.
    Direct,
}

/// Those that forward packets. The floor is the first.
pub const FORWARDERS: [Subject; 6] = [
    Subject::L2fwd,
    Subject::ShuntDr,
    Subject::ShuntIpip,
    Subject::ShuntNat,
    Subject::NftDsr,
    Subject::NftNat,
];

/// Those that a client can connect through. What the others are compared with is the first.
pub const CONNECTED: [Subject; 9] = [
    Subject::Direct,
    Subject::L2fwd,
    Subject::ShuntDr,
    Subject::ShuntIpip,
    Subject::ShuntNat,
    Subject::NftDsr,
    Subject::NftNat,
    Subject::Haproxy,
    Subject::NginxStream,
];

/// A subject at work; dropping it ends it.
pub enum Running<'n> {
    /// Its daemons.
    Shunt(#[expect(dead_code, reason = "held until it is dropped")] Box<Shunt<'n>>),
    /// Its process.
    Process(#[expect(dead_code, reason = "held until it is dropped")] Process),
    /// Nothing but rules, which end with the network.
    Kernel,
}

impl Subject {
    /// In results.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2fwd => "l2fwd",
            Self::ShuntDr => "shunt-dr",
            Self::ShuntIpip => "shunt-ipip",
            Self::ShuntNat => "shunt-nat",
            Self::NftDsr => "nft-dsr",
            Self::NftNat => "nft-nat",
            Self::Haproxy => "haproxy-tcp",
            Self::NginxStream => "nginx-stream",
            Self::Direct => "direct",
        }
    }

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::L2fwd => "bare AF_XDP l2fwd",
            Self::ShuntDr => "Shunt, direct routing",
            Self::ShuntIpip => "Shunt, IP-in-IP",
            Self::ShuntNat => "Shunt, NAT",
            Self::NftDsr => "nftables, layer-2 DSR",
            Self::NftNat => "nftables, NAT",
            Self::Haproxy => "HAProxy, TCP mode",
            Self::NginxStream => "nginx, stream",
            Self::Direct => "no load balancer",
        }
    }

    /// In charts.
    pub fn colour(self) -> Colour {
        match self {
            Self::L2fwd | Self::Direct => Colour::Floor,
            Self::ShuntDr | Self::ShuntIpip | Self::ShuntNat => Colour::Shunt,
            Self::NftDsr | Self::NftNat | Self::Haproxy | Self::NginxStream => Colour::Other,
        }
    }

    /// How packets come to the backend.
    pub fn delivers(self) -> Kind {
        match self {
            Self::L2fwd | Self::ShuntDr | Self::NftDsr | Self::Direct => Kind::AsSent,
            Self::ShuntIpip => Kind::Tunnelled,
            Self::ShuntNat | Self::NftNat | Self::Haproxy | Self::NginxStream => Kind::Translated,
        }
    }

    /// Address that a client connects to.
    pub fn asked(self) -> std::net::Ipv4Addr {
        if self == Self::Direct { DIRECT } else { VIP }
    }

    /// Starts it on the load balancer and waits until it serves.
    pub fn start(self, network: &Network) -> Result<Running<'_>> {
        match self {
            Self::L2fwd => floor::start(network).map(Running::Process),
            Self::ShuntDr => shunt(network, "dr"),
            Self::ShuntIpip => shunt(network, "ipip"),
            Self::ShuntNat => shunt(network, "nat"),
            Self::NftDsr => kernel::start_dsr(network).map(|()| Running::Kernel),
            Self::NftNat => kernel::start_nat(network).map(|()| Running::Kernel),
            Self::Haproxy => proxies::start_haproxy(network).map(Running::Process),
            Self::NginxStream => proxies::start_nginx(network).map(Running::Process),
            Self::Direct => network.take_direct_packets_in_on(SUBJECT_CORE).map(|()| Running::Kernel),
        }
    }
}

fn shunt<'n>(network: &'n Network, mode: &'static str) -> Result<Running<'n>> {
    let shunt = Shunt::start_at(&network.run, &network.lb, &settings(mode))?;
    Ok(Running::Shunt(Box::new(shunt)))
}

/// A configuration file for this network.
pub fn settings(mode: &'static str) -> Settings {
    let backend = |(address, n): (&std::net::Ipv4Addr, usize)| Backend {
        name: format!("backend{n}"),
        address: (*address).into(),
        weight: 1,
    };
    let mut settings = Settings::new([FRONT, BACK]);
    settings.dataplane_keys = "cores = [1]";
    if mode == "nat" {
        settings.tables = "[nat]\nsources = [\"10.78.3.1\"]\n";
    }
    settings.pools = vec![Pool {
        keys: "",
        name: "pool".to_owned(),
        mode,
        backends: BACKENDS.iter().zip(1..).map(backend).collect(),
    }];
    settings.services = vec![Service {
        name: "service".to_owned(),
        vips: vec![VIP.into()],
        ports: vec!["udp/9000", "tcp/80"],
        pool: "pool".to_owned(),
        keys: "",
    }];
    settings
}

#[cfg(test)]
mod tests {
    use shunt_api::config::Config;

    use super::*;
    use crate::end_to_end::network::{NAT_SOURCE, TCP_PORT, UDP_PORT};

    #[test]
    fn settings_say_what_the_network_is_made_for() {
        for mode in ["dr", "ipip", "nat"] {
            let text = settings(mode).to_string();
            let config = Config::parse(&text, "/etc/shunt/shunt.toml").unwrap();
            assert_eq!(config.dataplane.cores, [SUBJECT_CORE as u32]);
            assert_eq!(text.contains(&NAT_SOURCE.to_string()), mode == "nat");
            assert!(text.contains(&format!("udp/{UDP_PORT}")) && text.contains(&format!("tcp/{TCP_PORT}")));
        }
    }
}
