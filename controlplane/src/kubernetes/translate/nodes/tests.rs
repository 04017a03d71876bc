use shunt_api::snapshot::Protocol;

use super::*;
use crate::kubernetes::facts::Port;

fn node(addresses: &[&str]) -> Node {
    Node { addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(), ..Node::default() }
}

/// Nodes a, b, …, with addresses of both families.
fn nodes(count: u8) -> BTreeMap<String, Node> {
    let named = |number: u8| {
        let name = char::from(b'a' + number).to_string();
        (name, node(&[&format!("10.0.0.{}", number + 1), &format!("2001:db8::{}", number + 1)]))
    };
    (0..count).map(named).collect()
}

/// `a+` is ready on a, `a-` is terminating and answers, `a!` is not ready, `a~` is terminating and does not answer.
fn endpoints(text: &str) -> Vec<Endpoint> {
    let endpoint = |word: &str| {
        let (node, state) = word.split_at(word.len() - 1);
        Endpoint {
            node: (!node.is_empty()).then(|| node.into()),
            ready: state == "+",
            serving: "+-".contains(state),
            terminating: "-~".contains(state),
        }
    };
    text.split_whitespace().map(endpoint).collect()
}

fn service(local: bool, protocol: Protocol) -> Service {
    let port = Port {
        name: String::new(),
        protocol: Some(protocol),
        protocol_name: protocol.to_string().to_uppercase(),
        port: 80,
        node_port: None,
    };
    Service { local, ports: vec![port], ..Service::default() }
}

/// Backends with their weights, such as `a=1 b=0`.
fn weights(nodes: &BTreeMap<String, Node>, local: bool, pods: &str) -> String {
    weights_of(nodes, &service(local, Protocol::Tcp), pods)
}

fn weights_of(nodes: &BTreeMap<String, Node>, service: &Service, pods: &str) -> String {
    let candidates = candidates(nodes, service, &endpoints(pods), false);
    let (backends, _) = backends(&candidates, Family::V4, Mode::Dr, &HashSet::new());
    let words: Vec<_> =
        backends.iter().map(|backend| format!("{}={}", backend.name, backend.weight)).collect();
    words.join(" ")
}

#[test]
fn local_follows_the_pods() {
    for (pods, expected) in [
        ("a+ b+", "a=1 b=1"),
        ("a+ a+ b+", "a=2 b=1"),
        ("a+ b-", "a=1 b=0"),
        ("a+ a- b- b-", "a=1 b=0"),
        // Nobody is ready.
        ("a- b- b-", "a=1 b=2"),
        ("a- b!", "a=1 b=0"),
        // Nobody answers; connections may be left.
        ("a! b~", "a=0 b=0"),
        ("a+ b!", "a=1 b=0"),
        ("", ""),
        // Of a node that nobody knows, or of none.
        ("a+ x+ +", "a=1"),
    ] {
        assert_eq!(weights(&nodes(3), true, pods), expected, "{pods}");
    }
}

#[test]
fn datagrams_do_not_wait_for_a_pod_that_does_not_answer() {
    for (pods, expected) in [("a+ b!", "a=1"), ("a! b~", ""), ("a+ b-", "a=1 b=0"), ("a- b!", "a=1")] {
        assert_eq!(weights_of(&nodes(3), &service(true, Protocol::Udp), pods), expected, "{pods}");
    }
}

#[test]
fn a_weight_is_limited() {
    let pods = "a+ ".repeat(1_500) + "b+";
    assert_eq!(weights(&nodes(2), true, &pods), "a=1000 b=1");
}

#[test]
fn otherwise_all_nodes_serve_whatever_the_pods() {
    for pods in ["", "a+", "a-", "a!", "+"] {
        assert_eq!(weights(&nodes(3), false, pods), "a=1 b=1 c=1", "{pods}");
    }
}

#[test]
fn the_exclude_label_is_a_bool() {
    for (value, expected) in [
        (None, "a=1 b=1"),
        (Some("false"), "a=1 b=1"),
        (Some("0"), "a=1 b=1"),
        (Some("F"), "a=1 b=1"),
        (Some("true"), "a=0 b=1"),
        (Some("1"), "a=0 b=1"),
        (Some(""), "a=0 b=1"),
        (Some("no"), "a=0 b=1"),
        (Some("fAlse"), "a=0 b=1"),
    ] {
        let mut nodes = nodes(2);
        nodes.get_mut("a").unwrap().exclude_label = value.map(String::from);
        for (local, pods) in [(false, ""), (true, "a+ b+")] {
            assert_eq!(weights(&nodes, local, pods), expected, "{value:?} {local}");
        }
        let service = Service::default();
        let included = candidates(&nodes, &service, &[], true);
        assert!(included.iter().all(|candidate| candidate.standing == Standing::Active), "{value:?}");
    }
}

#[test]
fn an_excluded_node_without_pods_is_no_backend_of_local() {
    let mut nodes = nodes(2);
    nodes.get_mut("a").unwrap().exclude_label = Some("true".into());
    assert_eq!(weights(&nodes, true, "b+"), "b=1");
}

#[test]
fn a_leaving_node_drains_while_another_serves() {
    let mut nodes = nodes(2);
    nodes.get_mut("a").unwrap().leaving = true;
    assert_eq!(weights(&nodes, false, ""), "a=0 b=1");
    assert_eq!(weights(&nodes, true, "a+ a+ b+"), "a=0 b=1");
    assert_eq!(weights(&nodes, true, "a+ a+ b-"), "a=2 b=0", "a ready pod beats one about to go");
    nodes.get_mut("b").unwrap().leaving = true;
    assert_eq!(weights(&nodes, false, ""), "a=1 b=1");
    nodes.get_mut("b").unwrap().deleting = true;
    assert_eq!(weights(&nodes, false, ""), "a=1 b=0");
}

#[test]
fn addresses_are_of_the_family_that_the_mode_needs() {
    let (v4, v6) = (Family::V4, Family::V6);
    let both = &["2001:db8::1", "10.0.0.1"][..];
    for (addresses, family, mode, expected) in [
        (both, v4, Mode::Dr, Some("10.0.0.1")),
        (both, v6, Mode::Ipip, Some("2001:db8::1")),
        (both, v4, Mode::Nat, Some("10.0.0.1")),
        (&["10.0.0.1"], v6, Mode::Dr, Some("10.0.0.1")),
        (&["10.0.0.1"], v6, Mode::Ipip, Some("10.0.0.1")),
        (&["2001:db8::1"], v4, Mode::Dr, Some("2001:db8::1")),
        (&["10.0.0.1"], v6, Mode::Nat, None),
        (&["10.0.0.1", "10.0.0.2"], v4, Mode::Nat, Some("10.0.0.1")),
        (&[], v4, Mode::Dr, None),
    ] {
        let expected = expected.map(|address: &str| address.parse().unwrap());
        assert_eq!(address(&node(addresses), family, mode), expected, "{addresses:?} {family:?} {mode}");
    }
}

#[test]
fn no_address_is_a_backend_twice_or_a_vip() {
    let mut nodes = nodes(3);
    nodes.get_mut("b").unwrap().addresses = vec!["10.0.0.1".parse().unwrap()];
    let vips = HashSet::from(["10.0.0.3".parse().unwrap()]);
    let candidates = candidates(&nodes, &Service::default(), &[], false);
    let (backends, problems) = backends(&candidates, Family::V4, Mode::Dr, &vips);
    let names: Vec<_> = backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.message.contains("10.0.0.1 of node b, 10.0.0.3 of node c"), "{}", problem.message);
}

#[test]
fn says_why_there_is_no_node() {
    let excluded = Node { exclude_label: Some("true".into()), ..node(&["10.0.0.1"]) };
    let deleting = Node { deleting: true, ..node(&["10.0.0.2"]) };
    let leaving = Node { leaving: true, ..node(&["10.0.0.3"]) };
    for (nodes, include, expected) in [
        (vec![], false, Some("no node")),
        (vec![&excluded, &excluded, &excluded], false, Some("3 of 3 nodes carry the label")),
        (vec![&excluded], false, Some("include_excluded_nodes = true")),
        (vec![&excluded], true, None),
        (vec![&excluded, &deleting], false, Some("1 of 2 nodes")),
        (vec![&deleting], true, Some("being deleted")),
        (vec![&excluded, &leaving], false, None),
    ] {
        let nodes = nodes.into_iter().enumerate().map(|(at, node)| (at.to_string(), node.clone())).collect();
        let problem = unavailable(&nodes, include);
        assert_eq!(problem.is_some(), expected.is_some(), "{nodes:?}");
        for (problem, expected) in problem.iter().zip(expected) {
            assert_eq!(problem.reason, "UnAvailableLoadBalancer");
            assert!(problem.message.contains(expected), "{}", problem.message);
        }
    }
}

#[test]
fn nat_says_that_no_node_is_of_the_family() {
    let nodes = BTreeMap::from([("a".to_owned(), node(&["10.0.0.1"]))]);
    let candidates = candidates(&nodes, &Service::default(), &[], false);
    let (backends, problems) = backends(&candidates, Family::V6, Mode::Nat, &HashSet::new());
    assert_eq!(backends, []);
    assert_eq!(problems[0].reason, UNAVAILABLE);
    assert!(problems[0].message.contains("IPv6"), "{}", problems[0].message);
}
