use std::path::Path;

use super::super::Config;
use super::*;
use crate::address_pool::Selector;

fn clusters(text: &str) -> Result<Vec<Kubernetes>, String> {
    Config::parse(text, "/etc/shunt/f").map(|config| config.kubernetes).map_err(|problem| problem.to_string())
}

/// The problem of a cluster with these keys, without the file's name.
fn problem(keys: &str) -> String {
    let problem = clusters(&format!("[kubernetes]\nkubeconfig = \"k\"\n{keys}\n")).unwrap_err();
    problem.strip_prefix("/etc/shunt/f:").expect("names the file").into()
}

fn ranges(pool: &AddressPool) -> Vec<String> {
    pool.ranges.iter().map(ToString::to_string).collect()
}

fn labels(pairs: &[(&str, &str)]) -> Selector {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[test]
fn all_but_the_kubeconfig_has_a_default() {
    assert_eq!(clusters("[nat]").unwrap(), []);
    let expected = Kubernetes {
        name: None,
        kubeconfig: "/etc/shunt/kubeconfig".into(),
        class: "shunt.dev/l4".into(),
        default_class: false,
        mode: Mode::Dr,
        nat_ip_mode: IpMode::Proxy,
        include_excluded_nodes: false,
        lease: Lease { namespace: "shunt-system".into(), name: "shunt.dev-l4".into() },
        pools: vec![],
    };
    assert_eq!(clusters("[kubernetes]\nkubeconfig = \"kubeconfig\"").unwrap(), vec![expected.clone()]);
    assert_eq!(clusters("[[kubernetes]]\nkubeconfig = \"/etc/shunt/kubeconfig\"").unwrap(), [expected]);
    assert_eq!([IpMode::Proxy.word(), IpMode::Vip.word()], ["Proxy", "VIP"]);
}

#[test]
fn clusters_are_read_as_written() {
    let text = r#"
nat.sources = "10.0.1.250"
[[kubernetes]]
name = "berlin"
kubeconfig = "berlin"
class = "internal-vip"
default_class = true
mode = "nat"
nat_ip_mode = "VIP"
include_excluded_nodes = true
namespace = "kube-system"
pools = [
  { name = "public", addresses = ["198.51.100.0/24", "203.0.113.10-203.0.113.20"] },
  { name = "spare", addresses = "198.51.101.7", auto_assign = false, priority = 7, namespaces = ["a", "b-1"], service_selector = { "example.net/team" = "web" }, namespace_selector = { stage = "" }, avoid_edges = false },
]
[[kubernetes]]
name = "bonn"
kubeconfig = "/root/bonn"
pools = [{ name = "public", addresses = ["2001:db8:1::/64"] }]
"#;
    let [berlin, bonn] = clusters(text).unwrap().try_into().unwrap();
    assert_eq!((berlin.name.as_deref(), bonn.name.as_deref()), (Some("berlin"), Some("bonn")));
    let paths = [berlin.kubeconfig.as_path(), bonn.kubeconfig.as_path()];
    assert_eq!(paths, [Path::new("/etc/shunt/berlin"), Path::new("/root/bonn")]);
    assert_eq!((berlin.class.as_str(), berlin.default_class, berlin.mode), ("internal-vip", true, Mode::Nat));
    assert_eq!((berlin.nat_ip_mode, berlin.include_excluded_nodes), (IpMode::Vip, true));
    assert_eq!(berlin.lease, Lease { namespace: "kube-system".into(), name: "internal-vip".into() });
    let [public, spare] = &berlin.pools[..] else { panic!("two pools") };
    assert_eq!(ranges(public), ["198.51.100.0/24", "203.0.113.10-203.0.113.20"]);
    assert_eq!(*public, AddressPool::new("public", public.ranges.clone()));
    let expected = AddressPool {
        name: "spare".into(),
        ranges: vec!["198.51.101.7".parse().unwrap()],
        auto_assign: false,
        priority: 7,
        namespaces: vec!["a".into(), "b-1".into()],
        namespace_selector: labels(&[("stage", "")]),
        service_selector: labels(&[("example.net/team", "web")]),
        avoid_edges: false,
    };
    assert_eq!(*spare, expected);
    assert_eq!(ranges(&bonn.pools[0]), ["2001:db8:1::/64"]);
}

#[test]
fn what_is_wrong_with_a_cluster_is_said_with_what_to_write() {
    let cases = [
        (
            "name = \"Berlin\"",
            "3:8: kubernetes.name: `Berlin` is no DNS label; write small letters, digits and `-` inside, at most 63, such as \"berlin\"",
        ),
        (
            "class = \"a b\"",
            "3:9: kubernetes.class: `a b` is not a class that a Service can have; write one such as \"shunt.dev/l4\"",
        ),
        (
            "class = \"/l4\"",
            "3:9: kubernetes.class: `/l4` is not a class that a Service can have; write one such as \"shunt.dev/l4\"",
        ),
        (
            "default_class = 1",
            "3:17: kubernetes.default_class: this is a whole number; write true or false, without quotes",
        ),
        (
            "mode = \"dsr\"",
            "3:8: kubernetes.mode: `dsr` is not known here; write one of \"dr\", \"ipip\", \"nat\"",
        ),
        (
            "nat_ip_mode = \"vip\"",
            "3:15: kubernetes.nat_ip_mode: `vip` is not known here; write one of \"Proxy\", \"VIP\"",
        ),
        (
            "namespace = \"shunt.dev\"",
            "3:13: kubernetes.namespace: `shunt.dev` is no DNS label; write small letters, digits and `-` inside, at most 63, such as \"shunt-system\"",
        ),
        ("pool = []", "3:1: kubernetes.pool: unknown key `pool`; did you mean `pools`?"),
    ];
    for (keys, expected) in cases {
        assert_eq!(problem(keys), expected, "{keys}");
    }
}

#[test]
fn what_is_wrong_with_a_pool_is_said_with_what_to_write() {
    let cases = [
        (
            "pools = [{ addresses = \"198.51.100.7\" }]",
            "3:10: kubernetes.pools[0].name: `name` is missing; add name = \"public\"",
        ),
        (
            "pools = [{ name = \"p\" }]",
            "3:10: kubernetes.pools[0].addresses: `addresses` is missing; add addresses = [\"198.51.100.0/24\"]",
        ),
        (
            "pools = [{ name = \"p\", addresses = [] }]",
            "3:36: kubernetes.pools[0].addresses: the array is empty; write at least one, such as [\"198.51.100.0/24\"]",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7/24\" }]",
            "3:36: kubernetes.pools[0].addresses: 198.51.100.7/24 has host bits; write \"198.51.100.0/24\", or \"198.51.100.7\" for that address alone",
        ),
        (
            "pools = [{ name = \"p\", addresses = [\"198.51.100.255\"] }]",
            "3:36: kubernetes.pools[0].addresses: every address of the pool ends in .0 or .255, which are not given; add avoid_edges = false, or others",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7\", priority = -1 }]",
            "3:63: kubernetes.pools[0].priority: -1 is out of range; write a number from 0 to 10000",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7\", namespaces = [] }]",
            "3:65: kubernetes.pools[0].namespaces: the array is empty; write at least one, such as [\"default\"], or remove the key to serve all",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7\", service_selector = {} }]",
            "3:71: kubernetes.pools[0].service_selector: the selector is empty; write one such as { team = \"web\" }, or remove it",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7\", service_selector = { \"a b\" = \"c\" } }]",
            "3:73: kubernetes.pools[0].service_selector.\"a b\": `a b` is not the key of a label; write one such as `team` or \"example.net/team\"",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7\", service_selector = { a = \"-\" } }]",
            "3:77: kubernetes.pools[0].service_selector.a: `-` is not the value of a label; write letters, digits, and `-`, `_` and `.` inside, at most 63",
        ),
        (
            "pools = [{ name = \"p\", addresses = \"198.51.100.7\" }, { name = \"p\", addresses = \"198.51.100.8\" }]",
            "3:63: kubernetes.pools[1].name: `p` is already a pool of this cluster (line 3); remove one or write another",
        ),
        (
            "mode = \"nat\"\npools = [{ name = \"p\", addresses = \"2001:db8::/64\" }]",
            "3:8: kubernetes.mode: flows of mode nat need an IPv6 address to come from; add one that is routed to this box to sources in [nat]",
        ),
    ];
    for (keys, expected) in cases {
        assert_eq!(problem(keys), expected, "{keys}");
    }
}

#[test]
fn several_clusters_are_told_apart() {
    let cases = [
        (
            "[[kubernetes]]\nkubeconfig = \"a\"\n[[kubernetes]]\nname = \"b\"\nkubeconfig = \"b\"",
            "1:1: kubernetes[0].name: `name` is missing; add name = \"berlin\"",
        ),
        (
            "[[kubernetes]]\nname = \"a\"\nkubeconfig = \"a\"\n[[kubernetes]]\nname = \"a\"\nkubeconfig = \"b\"",
            "5:8: kubernetes[1].name: `a` is already a cluster (line 2); remove one or write another",
        ),
        (
            "[[kubernetes]]\nname = \"a\"\nkubeconfig = \"a\"\n[[kubernetes]]\nname = \"b\"\nkubeconfig = \"/etc/shunt/a\"",
            "6:14: kubernetes[1].kubeconfig: another [[kubernetes]] has this kubeconfig; write that of another cluster, or remove one of the two",
        ),
        (
            "[kubernetes]",
            "1:1: kubernetes.kubeconfig: `kubeconfig` is missing; add kubeconfig = \"/etc/shunt/kubeconfig\"",
        ),
        (
            "kubernetes = 1",
            "1:14: kubernetes: this is a whole number; write [kubernetes] with kubeconfig = \"/etc/shunt/kubeconfig\"",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(clusters(text).unwrap_err(), format!("/etc/shunt/f:{expected}"), "{text}");
    }
}

#[test]
fn an_address_has_one_owner() {
    let file = |first: &str, second: &str| {
        let pool = |addresses: &str| format!("pools = [{{ name = \"p\", addresses = [{addresses}] }}]");
        format!(
            "nic = [{{ name = \"eth1\" }}]\nnat.sources = \"10.0.1.250\"\npools.web.backends = [{{ name = \"web1\", \
             address = \"10.0.1.11\" }}]\n[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nports = \"tcp/80\"\n\
             pool = \"web\"\n[[kubernetes]]\nname = \"a\"\nkubeconfig = \"a\"\n{}\n[[kubernetes]]\nname = \"b\"\n\
             kubeconfig = \"b\"\n{}\n",
            pool(first),
            pool(second)
        )
    };
    let free = "\"203.0.113.0-203.0.113.9\", \"203.0.113.11-203.0.113.255\", \"2001:db8::/64\"";
    assert_eq!(clusters(&file(free, "\"10.0.1.12-10.0.1.249\"")).unwrap().len(), 2);
    let advice = "leave it out, as in a range before and one behind it";
    let other = "write addresses that no other pool has";
    let cases = [
        (
            "\"203.0.113.0/24\"",
            "\"10.9.0.0/24\"",
            format!(
                "12:37: kubernetes[0].pools[0].addresses[0]: 203.0.113.0/24 of pool `p` of cluster `a` contains 203.0.113.10, which is a VIP of service `web`; {advice}"
            ),
        ),
        (
            "\"10.9.0.0/24\"",
            "\"10.0.1.0-10.0.1.20\"",
            format!(
                "16:37: kubernetes[1].pools[0].addresses[0]: 10.0.1.0-10.0.1.20 of pool `p` of cluster `b` contains 10.0.1.11, which is backend `web1` of pool `web`; {advice}"
            ),
        ),
        (
            "\"10.0.1.250\"",
            "\"10.9.0.0/24\"",
            format!(
                "12:37: kubernetes[0].pools[0].addresses[0]: 10.0.1.250 of pool `p` of cluster `a` contains 10.0.1.250, which is in sources of [nat]; {advice}"
            ),
        ),
        (
            "\"10.9.0.0/24\"",
            "\"10.8.0.0-10.9.0.1\"",
            format!(
                "16:37: kubernetes[1].pools[0].addresses[0]: 10.8.0.0-10.9.0.1 overlaps 10.9.0.0/24 of pool `p` of cluster `a` (line 12); {other}"
            ),
        ),
        (
            "\"10.9.0.0/24\", \"10.9.0.7\"",
            "\"10.8.0.0/24\"",
            format!(
                "12:52: kubernetes[0].pools[0].addresses[1]: 10.9.0.7 overlaps 10.9.0.0/24 of pool `p` of cluster `a` (line 12); {other}"
            ),
        ),
    ];
    for (first, second, expected) in cases {
        assert_eq!(clusters(&file(first, second)).unwrap_err(), format!("/etc/shunt/f:{expected}"));
    }
}

/// A Service of a cluster may ask for mode nat, whatever the backends of the file do.
#[test]
fn sources_are_of_use_to_a_cluster() {
    let warnings = |text: &str| Config::parse(text, "f").unwrap().warnings().len();
    assert_eq!(warnings("nat.sources = \"10.0.1.250\""), 1);
    assert_eq!(warnings("nat.sources = \"10.0.1.250\"\nkubernetes.kubeconfig = \"k\""), 0);
}

#[test]
fn a_class_names_its_lease() {
    for (class, expected) in [
        ("shunt.dev/l4", "shunt.dev-l4"),
        ("internal-vip", "internal-vip"),
        ("Internal_VIP.2", "internal-vip-2"),
        ("shunt.dev/a..b", "shunt.dev-a--b"),
    ] {
        assert_eq!(lease_name(class), expected);
    }
}
