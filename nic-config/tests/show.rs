//! The real binary in a network namespace of its own, with a veth pair of four queues.

#[path = "support/namespace.rs"]
mod namespace;

use serde_json::{Value, json};

use self::namespace::{Namespace, ip, json_of};

#[test]
fn a_veth_shows_its_driver_queues_and_xdp_features() {
    let Some(namespace) = Namespace::new("veth") else { return };
    let shown = json_of(&namespace.nic_config(&["show", "one", "-o", "json"]));
    let one = &shown.as_array().unwrap()[0];
    assert_eq!(one["name"], "one");
    assert_eq!(one["driver"], "veth");
    assert_eq!(one["mtu"], 1400);
    assert_eq!((&one["up"], &one["carrier"]), (&json!(true), &json!(true)));
    let four = json!({ "current": 4, "max": 4 });
    assert_eq!(one["queues"], json!({ "combined": null, "rx": four, "tx": four }));
    assert_eq!(one["xdp"]["features"], json!(["basic", "redirect", "rx-sg"]));
    for absent in ["bus_address", "numa_node", "rings", "xdp_program"] {
        assert_eq!(one[absent], Value::Null, "a veth has no {absent}");
    }
}

#[test]
fn features_are_those_of_this_moment() {
    let Some(namespace) = Namespace::new("gro") else { return };
    // A veth takes redirected frames only while its peer polls its queues, which GRO makes it do.
    ip(&["netns", "exec", &namespace.name, "ethtool", "-K", "two", "gro", "on"]);
    let shown = json_of(&namespace.nic_config(&["show", "one", "-o", "json"]));
    let features = &shown[0]["xdp"]["features"];
    assert_eq!(*features, json!(["basic", "redirect", "ndo-xmit", "rx-sg", "ndo-xmit-sg"]));
}

#[test]
fn without_names_all_but_loopback_are_shown() {
    let Some(namespace) = Namespace::new("all") else { return };
    let shown = json_of(&namespace.nic_config(&["show", "-o", "json"]));
    let mut names: Vec<&str> =
        shown.as_array().unwrap().iter().map(|nic| nic["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert!(!names.contains(&"lo"), "{names:?}");
    assert!(names.contains(&"one") && names.contains(&"two"), "{names:?}");

    let table = namespace.nic_config(&["show", "two", "one"]);
    let table = String::from_utf8(table.stdout).unwrap();
    let blocks: Vec<&str> = table.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).collect();
    assert_eq!(blocks, ["two", "one"]);
    assert!(table.contains("\n  queues       rx 4 of 4, tx 4 of 4\n"), "{table}");
}

#[test]
fn an_interface_that_does_not_exist_is_one_line() {
    let Some(namespace) = Namespace::new("none") else { return };
    let output = namespace.nic_config(&["show", "onne"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = "there is no interface `onne` in this network namespace; the nearest is `one`";
    assert_eq!(stderr, format!("nic-config: {expected}\n"));
    assert_eq!(namespace.nic_config(&["show", "-o", "yaml"]).status.code(), Some(2));
}
