use super::*;
use crate::setting::{Coalescing, QueueKind};

fn problem(text: &str) -> String {
    parse(text, "nic.toml").unwrap_err().to_string()
}

fn one(body: &str) -> DesiredNic {
    parse(&format!("[[nic]]\nname = \"eth1\"\n{body}"), "nic.toml").unwrap().nics.remove(0)
}

#[test]
fn an_empty_file_wants_nothing() {
    assert_eq!(parse("", "nic.toml").unwrap(), Desired::default());
    let nic = one("");
    assert_eq!((nic.name.as_str(), nic.line, nic.wishes.len()), ("eth1", 2, 0));
}

#[test]
fn a_key_may_set_several_things() {
    let nic = one("adaptive = false\noptional = [\"adaptive\"]\n");
    let items: Vec<&Item> = nic.wishes.iter().map(|wish| &wish.setting.item).collect();
    assert_eq!(items, [&Item::Coalesce(Coalescing::AdaptiveRx), &Item::Coalesce(Coalescing::AdaptiveTx)]);
    let want = &nic.wishes[0].want;
    assert_eq!((want.key.as_str(), want.line, want.optional), ("nic[0].adaptive", 3, true));
    assert_eq!(want.value, Value::Switch(false));
}

#[test]
fn every_key_is_read_into_what_it_sets() {
    for key in &KEYS {
        let value = match &key.kind {
            Kind::Number(range) => range.start().to_string(),
            Kind::Switch => "true".to_owned(),
            Kind::HashFields => "\"sd\"".to_owned(),
        };
        let nic = one(&format!("{} = {value}\n", key.name));
        let items: Vec<Item> = nic.wishes.into_iter().map(|wish| wish.setting.item).collect();
        assert_eq!(items, (key.items)(), "{}", key.name);
    }
    let all: Vec<Item> = KEYS.iter().flat_map(|key| (key.items)()).collect();
    assert!(!all.contains(&Item::Queues(QueueKind::Combined)));
    assert!(all.iter().enumerate().all(|(index, item)| !all[..index].contains(item)), "one key each");
}

#[test]
fn steering_is_by_destination() {
    let nic = one(
        "steer = [{ to = \"192.0.2.10\", protocol = \"tcp\", port = 443, queue = 1 }, { to = \"2001:db8::1/64\", queue = 0 }]",
    );
    let rules: Vec<String> = nic.steer.iter().map(|want| want.value.to_string()).collect();
    assert_eq!(rules, ["192.0.2.10/32 tcp port 443 to queue 1", "2001:db8::/64 to queue 0"]);
    assert_eq!(nic.steer[1].key, "nic[0].steer[1]");
}

#[test]
fn the_host_has_parameters_and_pages() {
    let text = "[host]\ngovernor = \"performance\"\nhuge_pages = 64\nisolated_cores = [2, 3]\noptional = [\"net.core.x\"]\n\
                [host.sysctl]\n\"net.core.x\" = 600\n\"net.ipv4.tcp_rmem\" = \"4096\\t131072 6291456\"\n";
    let host = parse(text, "nic.toml").unwrap().host;
    let wishes: Vec<(String, String, bool)> = host
        .wishes
        .iter()
        .map(|wish| (wish.setting.to_string(), wish.want.value.to_string(), wish.want.optional))
        .collect();
    let expected = [
        ("sysctl.net.core.x", "600", true),
        ("sysctl.net.ipv4.tcp_rmem", "4096 131072 6291456", false),
        ("huge-pages.2048kB", "64", false),
    ];
    assert_eq!(wishes, expected.map(|(name, value, optional)| (name.to_owned(), value.to_owned(), optional)));
    assert_eq!(host.governor.unwrap().value, "performance");
    assert_eq!(host.isolated_cores.unwrap().value, [2, 3]);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_to_write() {
    let nic = |body: &str| problem(&format!("[[nic]]\nname = \"eth1\"\n{body}"));
    for (told, expected) in [
        (nic("quees = 4"), "nic.toml:3:1: nic[0].quees: unknown key `quees`; did you mean `queues`?"),
        (
            nic("queues = \"4\""),
            "nic.toml:3:10: nic[0].queues: this is text; write a whole number from 1 to 1024, without quotes",
        ),
        (nic("queues = 0"), "nic.toml:3:10: nic[0].queues: 0 is out of range; write a number from 1 to 1024"),
        (
            nic("queues = 2\nspread = 3"),
            "nic.toml:4:10: nic[0].spread: there are to be 2 queues; write a number up to 2",
        ),
        (
            nic("gro = 1"),
            "nic.toml:3:7: nic[0].gro: this is a whole number; write true or false, without quotes",
        ),
        (
            nic("hash_udp4 = \"sx\""),
            "nic.toml:3:13: nic[0].hash_udp4: `sx` has letters that stand for no field; known: s (source), d (destination), f and n (ports), m (MAC), v (VLAN), t (protocol)",
        ),
        (
            nic("optional = [\"mtu\"]"),
            "nic.toml:3:13: nic[0].optional[0]: `mtu` is not set in this table; known here: `name`, `optional`",
        ),
        (
            nic("irq_cpus = []"),
            "nic.toml:3:12: nic[0].irq_cpus: the array is empty; write at least one CPU's number, such as [2]",
        ),
        (
            nic("steer = [{ to = \"192.0.2.1\", port = 80, queue = 0 }]"),
            "nic.toml:3:37: nic[0].steer[0].port: a port needs a protocol; add protocol = \"tcp\"",
        ),
        (
            nic("queues = 2\nsteer = [{ to = \"192.0.2.1\", queue = 2 }]"),
            "nic.toml:4:10: nic[0].steer[0]: queue 2 is none of the 2 that there are to be; they count from 0",
        ),
        (
            nic("[[nic]]\nname = \"eth1\""),
            "nic.toml:3:1: nic[1]: `eth1` has a [[nic]] already; keep one of them",
        ),
        (problem("[[nic]]\nqueues = 1"), "nic.toml:1:1: nic[0].name: `name` is missing; add name = \"eth1\""),
        (
            problem("[[nic]]\nname = \"a/b\""),
            "nic.toml:2:8: nic[0].name: this is no interface's name; `nic-config show` lists those there are",
        ),
        (
            problem("[nic]\nname = \"eth1\""),
            "nic.toml:1:1: nic: this is a table; write [[nic]] with two brackets, and name = \"eth1\" below",
        ),
        (
            problem("[host.sysctl]\n\"fs.file-max\" = 1"),
            "nic.toml:2:17: host.sysctl.\"fs.file-max\": `fs.file-max` is none of kernel.*, net.*, vm.*; write names in quotes, such as \"net.core.netdev_budget\" = 600",
        ),
        (
            problem("[host]\nhuge_page_kb = 1048576"),
            "nic.toml:2:16: host.huge_page_kb: how many pages of this size? add huge_pages = 64",
        ),
        (problem("[[service]]"), "nic.toml:1:3: service: unknown key `service`; known here: `nic`, `host`"),
    ] {
        assert_eq!(told, expected);
    }
    assert_eq!(problem("a = b"), "nic.toml:1:5: text needs quotes; write \"b\"");
}

#[test]
fn a_parameters_name_does_not_leave_its_directory() {
    for name in ["net...x", "net./../../etc/passwd", "net.", "net.//x"] {
        assert!(parse(&format!("[host.sysctl]\n\"{name}\" = 1"), "nic.toml").is_err(), "{name}");
    }
}

#[test]
fn the_documentation_has_all_keys_and_its_files_are_right() {
    let page = include_str!("../../../docs/nic-config.md");
    let names = KEYS.iter().map(|key| key.name).chain(NIC_KEYS).chain(HOST_KEYS);
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
    let files: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        parse(file, "nic.toml").unwrap();
    }
}
