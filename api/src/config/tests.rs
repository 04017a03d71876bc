use super::*;
use crate::snapshot::{Protocol, Rings, XdpMode, ZeroCopy};

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
rings = "xsk-rs"
max_flows_v4 = 2_000_000
max_flows_v6 = 500_000
maglev_size = 131071
reply_rate = 0
[timeouts]
unconfirmed = "20s"
tcp_established = "30m"
tcp_fin = "1m"
tcp_reset = "5s"
udp = "1m 30s"
[tunnel]
source_v4 = "10.200.0.0/16"
source_v6 = "fd00:200::/64"
fragment = true
[nat]
sources = ["10.0.1.250", "fd00:1::250"]
max_flows_v4 = 500_000
max_flows_v6 = 1_000
[announce]
l2 = { interval = "30s", priority = 150, group = 7, advertise_interval = "300ms", preempt = false }
routes = { table = 100, protocol = 0x54, require_backend = false, withdraw_delay = "3s", on_stop = "keep" }
[pools.web]
check = { type = "https", port = 443, method = "POST", path = "/healthz", host = "a.example", verify = false, server_name = "b.example", status = [200, "300-302"], text = "ok", interval = "1s", timeout = "500ms", rise = 1, fall = 5 }
on_down = "keep"
slow_start = "30s"
backends = [
  { name = "web1", address = "10.0.1.11" },
  { name = "web2", address = "10.0.1.12", weight = 2 },
  { name = "web3", address = "10.9.0.13", mode = "ipip" },
]
[pools.dns]
mode = "ipip"
check = { type = "udp", port = 53, payload = "hex:00", answer = "a", via = "direct" }
backends = [
  { name = "dns1", address = "fd00:9::21" },
  { name = "dns2", address = "10.9.0.22", weight = 0 },
]
[pools.old]
mode = "nat"
backends = [{ name = "old1", address = "10.9.0.31" }]
[[service]]
name = "web"
vip = ["203.0.113.10", "2001:db8::10"]
ports = ["tcp/80", "tcp/443"]
pool = "web"
affinity = { client_ip = "1h" }
source_ranges = ["192.0.2.0/24", "198.51.100.7", "::/0"]
[[service]]
name = "dns"
vip = "203.0.113.53"
ports = "udp/53"
pool = "dns"
affinity = "client_ip"
source_ranges = "0.0.0.0/0"
[[service]]
name = "old"
vip = "203.0.113.54"
ports = ["tcp/80:30080", "udp/80:30080", "tcp/81"]
pool = "old"
unlisted_ports = "drop"
when_all_down = "refuse"
[[kubernetes]]
name = "berlin"
kubeconfig = "kubeconfig"
class = "internal-vip"
default_class = true
mode = "ipip"
nat_ip_mode = "VIP"
include_excluded_nodes = true
namespace = "kube-system"
pools = [{ name = "public", addresses = ["198.51.100.0/24", "2001:db8:1::1-2001:db8:1::9"], auto_assign = false, priority = 7, namespaces = "shop", namespace_selector = { stage = "live" }, service_selector = { team = "web" }, avoid_edges = false }]
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

fn tcp(port: u16) -> crate::snapshot::ServicePort {
    crate::snapshot::ServicePort { protocol: Protocol::Tcp, port }
}

fn backend(name: &str, address: &str, weight: u16, mode: Mode) -> Backend {
    Backend { name: name.into(), address: address.parse().unwrap(), weight, mode }
}

/// Without a check.
fn pool(name: &str, backends: Vec<Backend>) -> Pool {
    Pool { name: name.into(), backends, check: None, on_down: OnDown::Rehash, slow_start: None }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
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
        rings: Rings::Own,
        max_flows_v4: 1_000_000,
        max_flows_v6: 250_000,
    };
    assert_eq!(config.dataplane, dataplane);
    assert_eq!(config.maglev_size, 65_537);
    let timeouts =
        Timeouts { unconfirmed_s: 30, tcp_established_s: 900, tcp_fin_s: 120, tcp_reset_s: 10, udp_s: 300 };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.tunnel, Tunnel::default());
    assert_eq!(config.nat, Nat { sources: vec![], max_flows_v4: 250_000, max_flows_v6: 100_000 });
    assert_eq!(config.reply_rate, 1_000);
    let backends = vec![backend("web1", "10.0.1.11", 1, Mode::Dr)];
    assert_eq!(config.pools, [pool("web", backends)]);
    assert_eq!(config.announce, Announce { l2: None, routes: None });
    let vips = vec!["203.0.113.10".parse().unwrap()];
    assert_eq!(
        config.services,
        [Service {
            name: "web".into(),
            vips,
            ports: vec![tcp(80).into()],
            pool: 0,
            source_ranges: vec![],
            client_ip_affinity_s: None,
            unlisted_ports: UnlistedPorts::Reject,
            when_all_down: WhenAllDown::UseAll,
        }]
    );
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
        rings: Rings::XskRs,
        max_flows_v4: 2_000_000,
        max_flows_v6: 500_000,
    };
    assert_eq!(config.dataplane, dataplane);
    assert_eq!(config.maglev_size, 131_071);
    let timeouts =
        Timeouts { unconfirmed_s: 20, tcp_established_s: 1800, tcp_fin_s: 60, tcp_reset_s: 5, udp_s: 90 };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.tunnel.source_v4.unwrap().to_string(), "10.200.0.0/16");
    assert_eq!(config.tunnel.source_v6.unwrap().to_string(), "fd00:200::/64");
    assert!(config.tunnel.fragment);
    let sources = ["10.0.1.250", "fd00:1::250"].map(|source| source.parse().unwrap()).to_vec();
    assert_eq!(config.nat, Nat { sources, max_flows_v4: 500_000, max_flows_v6: 1_000 });
    assert_eq!(config.reply_rate, 0);
    let web = vec![
        backend("web1", "10.0.1.11", 1, Mode::Dr),
        backend("web2", "10.0.1.12", 2, Mode::Dr),
        backend("web3", "10.9.0.13", 1, Mode::Ipip),
    ];
    let dns = vec![backend("dns1", "fd00:9::21", 1, Mode::Ipip), backend("dns2", "10.9.0.22", 0, Mode::Ipip)];
    let old = vec![backend("old1", "10.9.0.31", 1, Mode::Nat)];
    let pools = [("web", web), ("dns", dns), ("old", old)].map(|(name, backends)| pool(name, backends));
    let unchecked =
        |pool: &Pool| Pool { check: None, on_down: OnDown::Rehash, slow_start: None, ..pool.clone() };
    assert_eq!(config.pools.iter().map(unchecked).collect::<Vec<_>>(), pools);
    let [web, dns, old] = &config.services[..] else { panic!("three services") };
    assert_eq!(
        (web.name.as_str(), web.vips.len(), &web.ports[..], web.pool),
        ("web", 2, &[tcp(80).into(), tcp(443).into()][..], 0)
    );
    assert_eq!((dns.name.as_str(), dns.ports[0].to_string(), dns.pool), ("dns", "udp/53".into(), 1));
    assert_eq!(texts(&web.source_ranges), ["192.0.2.0/24", "198.51.100.7/32", "::/0"]);
    assert_eq!(texts(&dns.source_ranges), ["0.0.0.0/0"]);
    assert_eq!(texts(&old.ports), ["tcp/80:30080", "udp/80:30080", "tcp/81"]);
    let affinities = [web, dns, old].map(|service| service.client_ip_affinity_s);
    assert_eq!(affinities, [Some(3_600), Some(10_800), None]);
    let unlisted = [web, dns, old].map(|service| service.unlisted_ports);
    assert_eq!(unlisted, [UnlistedPorts::Reject, UnlistedPorts::Reject, UnlistedPorts::Drop]);
    let all_down = [web, dns, old].map(|service| service.when_all_down);
    assert_eq!(all_down, [WhenAllDown::UseAll, WhenAllDown::UseAll, WhenAllDown::Refuse]);
    assert_eq!(config.warnings, []);
}

#[test]
fn every_key_about_health_and_announcing_is_read_as_written() {
    let config = Config::parse(FULL, "shunt.toml").unwrap();
    let checks: Vec<String> =
        config.pools.iter().filter_map(|pool| pool.check.as_ref()).map(Check::to_string).collect();
    let expected = [
        "https POST /healthz port 443 every 1s, timeout 500ms, rise 1, fall 5, via service",
        "udp port 53 every 2s, timeout 1s, rise 2, fall 3, via direct",
    ];
    assert_eq!(checks, expected);
    let followed: Vec<_> = config.pools.iter().map(|pool| (pool.on_down, pool.slow_start)).collect();
    let half_a_minute = Some(Duration::from_secs(30));
    assert_eq!(followed, [(OnDown::Keep, half_a_minute), (OnDown::Rehash, None), (OnDown::Rehash, None)]);
    let l2 = config.announce.l2.unwrap();
    let Election { priority, group, advertise_interval, preempt } = l2.election.unwrap();
    assert_eq!((l2.interval.as_secs(), priority, group), (30, 150, 7));
    assert_eq!((advertise_interval.as_millis(), preempt), (300, false));
    let routes = config.announce.routes.unwrap();
    assert_eq!((routes.table, routes.protocol, routes.require_backend), (100, 0x54, false));
    assert_eq!((routes.withdraw_delay, routes.on_stop), (Duration::from_secs(3), OnStop::Keep));
}

/// The keys that the example shows behind a `#` are real ones, and their values the defaults.
#[test]
fn the_example_tells_the_truth() {
    let as_is = Config::parse(EXAMPLE, "shunt.toml").unwrap();
    let shown = |line: &str| {
        let key_or_table = |rest: &&str| rest.starts_with(|c: char| c.is_alphabetic() || c == '[');
        line.strip_prefix('#').filter(key_or_table).map(str::to_owned)
    };
    let uncommented: Vec<String> =
        EXAMPLE.lines().map(|line| shown(line).unwrap_or_else(|| line.into())).collect();
    let all = Config::parse(&uncommented.join("\n"), "shunt.toml").unwrap();
    assert_eq!(DataplaneSettings { cores: vec![], ..all.dataplane }, as_is.dataplane);
    assert_eq!(all.timeouts, as_is.timeouts);
    assert_eq!((all.maglev_size, all.reply_rate), (as_is.maglev_size, as_is.reply_rate));
    assert_eq!(all.tunnel.fragment, as_is.tunnel.fragment);
    assert_eq!(Nat { sources: vec![], ..all.nat }, as_is.nat);
    let usual = Config::parse("pools.p.check = \"tcp\"", "f").unwrap().pools.remove(0).check;
    assert!(usual.is_some() && all.pools[0].check == usual);
    let unchecked = Pool { check: None, slow_start: None, ..all.pools[0].clone() };
    assert_eq!([unchecked], as_is.pools[..]);
    let l2 = Config::parse("announce.l2 = true\nannounce.routes = true", "f").unwrap().announce;
    assert_eq!((all.announce, as_is.announce), (l2, Announce::default()));
    let (service, kept) = (&all.services[0], &as_is.services[0]);
    assert_eq!(
        (texts(&service.source_ranges), service.client_ip_affinity_s),
        (vec!["0.0.0.0/0".into(), "::/0".into()], Some(10_800))
    );
    let without = Service { source_ranges: vec![], client_ip_affinity_s: None, ..service.clone() };
    assert_eq!(&without, kept);
    assert_eq!(Nic { queues: None, ..all.nics[0].clone() }, as_is.nics[0]);
    assert!(all.fleet_key_file.is_some() && all.tunnel.source_v4.is_some() && all.tunnel.source_v6.is_some());
    let least = "kubernetes = { name = \"berlin\", kubeconfig = \"/etc/shunt/kubeconfig\" }";
    let [least] = Config::parse(least, "f").unwrap().kubernetes.try_into().unwrap();
    let without = Kubernetes { pools: vec![], ..all.kubernetes[0].clone() };
    assert_eq!((without, all.kubernetes[0].pools.len(), as_is.kubernetes), (least, 1, vec![]));
    assert_eq!((as_is.warnings, all.warnings), (vec![], vec![]));
}

/// Lines of comment that show a key in another form are right too, and together with the keys they name every
/// one there is.
#[test]
fn the_forms_that_the_example_tells_of_are_valid() {
    let forms = |key: &str| -> Vec<&str> {
        let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
        lines.map(str::trim).filter(|line| line.starts_with(key)).collect()
    };
    let check = |form: &str| Config::parse(&format!("[pools.p]\n{form}"), "f").unwrap().pools.remove(0).check;
    let [tcp, http, https, udp, icmp, _] =
        forms("check = ").try_into().expect("one for each type, and the key");
    assert_eq!(check(tcp), check("check = \"tcp\""));
    assert_eq!(check(http), check("check = { type = \"http\", host = \"www.example.net\", text = \"ok\" }"));
    assert_eq!(
        check(https),
        check("check = { type = \"https\", port = 443, server_name = \"www.example.net\" }")
    );
    assert_eq!(check(udp).map(|check| check.kind.word()), Some("udp"));
    assert_eq!(check(icmp), check("check = \"icmp\""));

    let announce = |form: &str| Config::parse(&format!("[announce]\n{form}"), "f").unwrap().announce;
    let [interval, election, key] = forms("l2 = ").try_into().expect("two more beside the key");
    assert_eq!(announce(interval), announce(key));
    assert_eq!(announce(election), announce("l2 = { priority = 100 }"));

    let pool = |form: &str| {
        let text = format!("[kubernetes]\nkubeconfig = \"k\"\n{form}");
        Config::parse(&text, "f").unwrap().kubernetes[0].pools[0].clone()
    };
    let [with_defaults, forms @ .., key] = &forms("pools = ")[..] else { panic!("several, and the key") };
    assert_eq!(pool(with_defaults), pool(key));
    assert!(forms.len() == 3 && forms.iter().all(|form| pool(form).is_restricted()));
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
    let expected = [
        "f:2:1: pools.empty: pool `empty` has no backend: its services drop every packet",
        "f:2:1: pools.empty: no service uses pool `empty`",
        "f:5:12: pools.drained.backends: every weight of pool `drained` is 0: its services take no new flow",
        "f:5:12: pools.drained.backends: no service uses pool `drained`",
        "f:5:37: pools.drained.backends[0].address: without [tunnel] source_v4 all tunnels to a backend look \
         alike, and its NIC handles them on one queue",
    ];
    assert_eq!(texts(config.warnings()), expected);
}

#[test]
fn warnings_come_in_the_order_of_the_file() {
    let text = r#"
nic = [{ name = "eth1" }]
nat.sources = "10.0.1.250"
service = [
  { name = "v4", vip = ["203.0.113.10", "2001:db8::10"], ports = "tcp/80", pool = "p", source_ranges = "192.0.2.1" },
  { name = "v6", vip = "203.0.113.11", ports = "tcp/80", pool = "p", source_ranges = ["::/0"] },
  { name = "any", vip = "203.0.113.12", ports = "tcp/80", pool = "p", source_ranges = ["0.0.0.0/0", "::/0"] },
]
[pools.p]
"#;
    let expected = [
        "f:3:15: nat.sources: nothing uses these addresses, because no backend is of mode nat",
        "f:5:104: service[0].source_ranges: no IPv6 client can reach 2001:db8::10, because no range is IPv6; \
         add one, or \"::/0\" for all",
        "f:6:86: service[1].source_ranges: no IPv4 client can reach 203.0.113.11, because no range is IPv4; \
         add one, or \"0.0.0.0/0\" for all",
        "f:9:1: pools.p: pool `p` has no backend: its services drop every packet",
    ];
    assert_eq!(texts(Config::parse(text, "f").unwrap().warnings()), expected);
}

/// What one service must not do is for another to do: translated ports beside others, and a pool per family.
#[test]
fn pools_and_services_of_either_mode_and_family_stand_side_by_side() {
    let text = r#"
nic = [{ name = "eth1" }]
nat.sources = ["10.0.1.250", "fd00:1::250"]
service = [
  { name = "v4", vip = "203.0.113.10", ports = ["tcp/80:30080", "udp/80"], pool = "v4", unlisted_ports = "drop" },
  { name = "v6", vip = "2001:db8::10", ports = "tcp/80:80", pool = "v6" },
  { name = "dr", vip = ["203.0.113.10", "2001:db8::11"], ports = "tcp/81", pool = "dr", unlisted_ports = "drop" },
  { name = "mixed", vip = "203.0.113.11", ports = "tcp/80", pool = "mixed" },
]
[pools]
v4 = { mode = "nat", backends = [{ name = "a", address = "10.0.0.1" }] }
v6 = { mode = "nat", backends = [{ name = "a", address = "fd00::1" }] }
dr = { backends = [{ name = "a", address = "10.0.0.1" }] }
mixed = { backends = [{ name = "a", address = "10.0.0.1", mode = "nat" }, { name = "b", address = "fd00::2" }] }
"#;
    let config = Config::parse(text, "f").unwrap();
    assert_eq!(texts(config.warnings()), [""; 0]);
    let ports: Vec<String> = config.services.iter().flat_map(|service| texts(&service.ports)).collect();
    assert_eq!(ports, ["tcp/80:30080", "udp/80", "tcp/80:80", "tcp/81", "tcp/80"]);
    let modes: Vec<Mode> = config.pools[3].backends.iter().map(|backend| backend.mode).collect();
    assert_eq!(modes, [Mode::Nat, Mode::Dr]);
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

    let addresses = |count: usize| {
        let one = |n: usize| format!("\"10.0.{}.{}\"", n >> 8, n & 255);
        (1..=count).map(one).collect::<Vec<_>>().join(",")
    };
    let sources = |count| Config::parse(&format!("nat.sources = [{}]", addresses(count)), "f");
    assert_eq!(sources(NAT_SOURCES_MAX).unwrap().nat.sources.len(), NAT_SOURCES_MAX);
    let problem = sources(NAT_SOURCES_MAX + 1).unwrap_err();
    assert_eq!(problem.to_string(), "f:1:15: nat.sources: these are 257 addresses; keep at most 256");

    let ranges = |count| Config::parse(&format!("{MINIMAL}source_ranges = [{}]", addresses(count)), "f");
    assert_eq!(ranges(SOURCE_RANGES_MAX).unwrap().services[0].source_ranges.len(), SOURCE_RANGES_MAX);
    let expected = "f:11:17: service[0].source_ranges: these are 10001 prefixes; keep at most 10000";
    assert_eq!(ranges(SOURCE_RANGES_MAX + 1).unwrap_err().to_string(), expected);
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
