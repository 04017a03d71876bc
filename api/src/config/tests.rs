use super::*;
use crate::snapshot::Protocol;

const EXAMPLE: &str = include_str!("../../../deploy/config/shunt.toml");

const FULL: &str = r#"
fleet_key_file = "/etc/shunt/fleet.key"
[[nic]]
name = "eth1"
queues = 2
xdp = "native"
zero_copy = "off"
[dataplane]
cores = [1, 2]
busy_poll = true
batch = 32
ring_size = 4096
max_flows_v4 = 2_000_000
max_flows_v6 = 500_000
maglev_size = 131071
[timeouts]
unconfirmed = "20s"
tcp_established = "30m"
tcp_fin = "1m"
tcp_reset = "5s"
udp = "1m 30s"
[tunnel]
source_v4 = "10.200.0.0/16"
source_v6 = "fd00:200::/64"
[pools.web]
backends = [
  { name = "web1", address = "10.0.1.11" },
  { name = "web2", address = "10.0.1.12", weight = 2 },
  { name = "web3", address = "10.9.0.13", mode = "ipip" },
]
[pools.dns]
mode = "ipip"
backends = [
  { name = "dns1", address = "fd00:9::21" },
  { name = "dns2", address = "10.9.0.22", weight = 0 },
]
[[service]]
name = "web"
vip = ["203.0.113.10", "2001:db8::10"]
ports = ["tcp/80", "tcp/443"]
pool = "web"
[[service]]
name = "dns"
vip = "203.0.113.53"
ports = "udp/53"
pool = "dns"
"#;

const MINIMAL: &str = r#"
[[nic]]
name = "eth1"
[pools.web]
backends = [{ name = "web1", address = "10.0.1.11" }]
[[service]]
name = "web"
vip = "203.0.113.10"
ports = "tcp/80"
pool = "web"
"#;

fn tcp(port: u16) -> ServicePort {
    ServicePort { protocol: Protocol::Tcp, port }
}

fn backend(name: &str, address: &str, weight: u16, mode: Mode) -> Backend {
    Backend { name: name.into(), address: address.parse().unwrap(), weight, mode }
}

#[test]
fn every_key_but_the_necessary_ones_has_a_default() {
    let config = Config::parse(MINIMAL, "shunt.toml").unwrap();
    assert_eq!(config.fleet_key_file, None);
    let nic = Nic { name: "eth1".into(), queues: None, xdp: XdpMode::Auto, zero_copy: ZeroCopy::Auto };
    assert_eq!(config.nics, [nic]);
    let dataplane = DataplaneSettings {
        cores: vec![],
        busy_poll: false,
        batch: 64,
        ring_size: 2048,
        max_flows_v4: 1_000_000,
        max_flows_v6: 250_000,
    };
    assert_eq!(config.dataplane, dataplane);
    assert_eq!(config.maglev_size, 65_537);
    let timeouts =
        Timeouts { unconfirmed_s: 30, tcp_established_s: 900, tcp_fin_s: 120, tcp_reset_s: 10, udp_s: 300 };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.tunnel, TunnelSource::default());
    let backends = vec![backend("web1", "10.0.1.11", 1, Mode::Dr)];
    assert_eq!(config.pools, [Pool { name: "web".into(), backends }]);
    let vips = vec!["203.0.113.10".parse().unwrap()];
    assert_eq!(config.services, [Service { name: "web".into(), vips, ports: vec![tcp(80)], pool: 0 }]);
    assert_eq!(config.warnings(), []);
}

#[test]
fn a_file_with_every_key_is_read_as_written() {
    let config = Config::parse(FULL, "/etc/shunt/shunt.toml").unwrap();
    assert_eq!(config.fleet_key_file.unwrap().path, Path::new("/etc/shunt/fleet.key"));
    let nic = Nic { name: "eth1".into(), queues: Some(2), xdp: XdpMode::Native, zero_copy: ZeroCopy::Off };
    assert_eq!(config.nics, [nic]);
    let dataplane = DataplaneSettings {
        cores: vec![1, 2],
        busy_poll: true,
        batch: 32,
        ring_size: 4096,
        max_flows_v4: 2_000_000,
        max_flows_v6: 500_000,
    };
    assert_eq!(config.dataplane, dataplane);
    assert_eq!(config.maglev_size, 131_071);
    let timeouts =
        Timeouts { unconfirmed_s: 20, tcp_established_s: 1800, tcp_fin_s: 60, tcp_reset_s: 5, udp_s: 90 };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.tunnel.v4.unwrap().to_string(), "10.200.0.0/16");
    assert_eq!(config.tunnel.v6.unwrap().to_string(), "fd00:200::/64");
    let web = vec![
        backend("web1", "10.0.1.11", 1, Mode::Dr),
        backend("web2", "10.0.1.12", 2, Mode::Dr),
        backend("web3", "10.9.0.13", 1, Mode::Ipip),
    ];
    let dns = vec![backend("dns1", "fd00:9::21", 1, Mode::Ipip), backend("dns2", "10.9.0.22", 0, Mode::Ipip)];
    let pools = [Pool { name: "web".into(), backends: web }, Pool { name: "dns".into(), backends: dns }];
    assert_eq!(config.pools, pools);
    let [web, dns] = &config.services[..] else { panic!("two services") };
    assert_eq!(
        (web.name.as_str(), web.vips.len(), &web.ports[..], web.pool),
        ("web", 2, &[tcp(80), tcp(443)][..], 0)
    );
    assert_eq!((dns.name.as_str(), dns.ports[0].to_string(), dns.pool), ("dns", "udp/53".into(), 1));
    assert_eq!(config.warnings, []);
}

/// The keys that the example shows behind a `#` are real ones, and their values the defaults.
#[test]
fn the_example_tells_the_truth() {
    let as_is = Config::parse(EXAMPLE, "shunt.toml").unwrap();
    let shown = |line: &str| {
        line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic)).map(str::to_owned)
    };
    let uncommented: Vec<String> =
        EXAMPLE.lines().map(|line| shown(line).unwrap_or_else(|| line.into())).collect();
    let all = Config::parse(&uncommented.join("\n"), "shunt.toml").unwrap();
    assert_eq!(DataplaneSettings { cores: vec![], ..all.dataplane }, as_is.dataplane);
    assert_eq!(all.timeouts, as_is.timeouts);
    assert_eq!(all.maglev_size, as_is.maglev_size);
    assert_eq!(all.pools, as_is.pools);
    assert_eq!(Nic { queues: None, ..all.nics[0].clone() }, as_is.nics[0]);
    assert!(all.fleet_key_file.is_some() && all.tunnel.v4.is_some() && all.tunnel.v6.is_some());
    assert_eq!(as_is.warnings, []);
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    let text = r#"
[pools.empty]
[pools.drained]
mode = "ipip"
backends = [{ name = "a", address = "10.0.0.1", weight = 0 }, { name = "b", address = "fd00::1", weight = 0 }]
"#;
    let config = Config::parse(text, "f").unwrap();
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    let expected = [
        "f:2:1: pools.empty: pool `empty` has no backend: its services drop every packet",
        "f:2:1: pools.empty: no service uses pool `empty`",
        "f:5:12: pools.drained.backends: every weight of pool `drained` is 0: its services take no new flow",
        "f:5:12: pools.drained.backends: no service uses pool `drained`",
        "f:5:37: pools.drained.backends[0].address: without [tunnel] source_v4 all tunnels to a backend look \
         alike, and its NIC handles them on one queue",
    ];
    assert_eq!(warnings, expected);
}

/// As when an editor is in the middle of writing it, or a key slipped.
#[test]
fn a_file_cut_off_or_damaged_anywhere_is_read_or_refused_at_a_place_in_it() {
    let check = |text: &str| {
        if let Err(problem) = Config::parse(text, "f") {
            let line = text.split('\n').nth(problem.line - 1);
            assert!(line.is_some_and(|line| problem.column <= line.chars().count() + 1), "{problem}\n{text}");
            assert!(!problem.reason.contains('\n'), "{problem}");
        }
    };
    for at in 0..FULL.len() {
        check(&FULL[..at]);
        for damage in ["\"", "[", "=", "-9", "é", "\n", "_"] {
            check(&format!("{}{damage}{}", &FULL[..at], &FULL[at + 1..]));
        }
    }
}

#[test]
fn limits_on_numbers_of_things_hold() {
    let backends = |count: usize| {
        let one = |n: usize| {
            format!("{{ name = \"b{n}\", address = \"10.{}.{}.{}\" }}", n >> 16, n >> 8 & 255, n & 255)
        };
        let list: Vec<String> = (1..=count).map(one).collect();
        Config::parse(&format!("pools.web.backends = [{}]", list.join(",")), "f")
    };
    assert_eq!(backends(BACKENDS_MAX).unwrap().pools[0].backends.len(), BACKENDS_MAX);
    let problem = backends(BACKENDS_MAX + 1).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "f:1:22: pools.web.backends: these are 65001 backends; keep at most 65000"
    );

    let pools: String = (0..=POOLS_MAX).map(|n| format!("[pools.p{n}]\n")).collect();
    let problem = Config::parse(&pools, "f").unwrap_err();
    assert_eq!(problem.to_string(), "f:4097:8: pools.p4096: this is one pool too many; keep at most 4096");

    let service = |n: usize| {
        let vip = format!("10.0.{}.{}", n >> 8, n & 255);
        format!("[[service]]\nname = \"s{n}\"\nvip = \"{vip}\"\nports = \"tcp/80\"\npool = \"p\"\n")
    };
    let services: String = (1..=SERVICES_MAX + 1).map(service).collect();
    let problem = Config::parse(&format!("{services}[pools.p]\n"), "f").unwrap_err();
    assert_eq!(problem.to_string(), "f:1:1: service: these are 10001 services; keep at most 10000");
}

#[test]
fn a_file_that_cannot_be_read_has_no_line() {
    let problem = Config::load(Path::new("/nonexistent/shunt.toml")).unwrap_err();
    let expected = "/nonexistent/shunt.toml: the file does not exist; create it or name another one";
    assert_eq!(problem.to_string(), expected);
    let problem = Config::load(Path::new("/")).unwrap_err();
    assert_eq!(problem.reason, "this is a directory; name a file in it");
}

#[test]
fn a_relative_key_file_starts_beside_the_configuration() {
    let config = Config::parse("fleet_key_file = \"fleet.key\"", "/nonexistent/shunt.toml").unwrap();
    let key_file = config.fleet_key_file.unwrap();
    assert_eq!(key_file.path, Path::new("/nonexistent/fleet.key"));
    let expected = "/nonexistent/shunt.toml:1:18: fleet_key_file: /nonexistent/fleet.key does not exist; \
                    make one with `openssl rand -hex 16 > /nonexistent/fleet.key`";
    assert_eq!(key_file.read().unwrap_err().to_string(), expected);
}
