use super::super::Config;
use super::*;

fn announce(keys: &str) -> Result<Announce, String> {
    let config = Config::parse(&format!("[announce]\n{keys}\n"), "f");
    config.map(|config| config.announce).map_err(|problem| format!("{}: {}", problem.field, problem.reason))
}

fn elected(priority: u8) -> Election {
    Election { priority, group: 1, advertise_interval: Duration::from_millis(200), preempt: true }
}

#[test]
fn what_is_announced_is_read_as_written() {
    let l2 = |interval, election| Announce {
        l2: Some(AnnounceL2 { interval: Duration::from_secs(interval), election }),
        routes: None,
    };
    let routes = |routes: AnnounceRoutes| Announce { l2: None, routes: Some(routes) };
    let usual = AnnounceRoutes {
        table: 83,
        protocol: 83,
        require_backend: true,
        withdraw_delay: Duration::from_secs(1),
        on_stop: OnStop::Withdraw,
    };
    let other = AnnounceRoutes {
        table: 100,
        protocol: 84,
        require_backend: false,
        withdraw_delay: Duration::ZERO,
        on_stop: OnStop::Keep,
    };
    let every =
        Election { priority: 254, group: 255, advertise_interval: Duration::from_millis(10), preempt: false };
    let cases = [
        ("", Announce::default()),
        ("l2 = false\nroutes = false", Announce::default()),
        ("l2 = true", l2(60, None)),
        ("l2 = {}", l2(60, None)),
        (r#"l2 = { interval = "5m" }"#, l2(300, None)),
        ("l2 = { priority = 100 }", l2(60, Some(elected(100)))),
        (
            r#"l2 = { interval = "1s", priority = 254, group = 255, advertise_interval = "10ms", preempt = false }"#,
            l2(1, Some(every)),
        ),
        ("routes = true", routes(usual)),
        ("routes = { on_stop = \"withdraw\" }", routes(usual)),
        (
            r#"routes = { table = 100, protocol = 0x54, require_backend = false, withdraw_delay = "0s", on_stop = "keep" }"#,
            routes(other),
        ),
    ];
    for (keys, expected) in cases {
        assert_eq!(announce(keys), Ok(expected), "{keys}");
    }
    let both = announce("l2 = true\nroutes = true").unwrap();
    assert!(both.l2.is_some() && both.routes.is_some());
    assert_eq!(Config::parse("[nat]", "f").unwrap().announce, Announce::default());
}

#[test]
fn what_cannot_be_is_refused_with_what_to_write_instead() {
    let cases = [
        ("bgp = true", "bgp: unknown key `bgp`; known here: `l2`, `routes`"),
        (
            "l2 = \"on\"",
            "l2: this is text; write true, or { priority = 100 } if another box stands in for this one",
        ),
        ("l2 = { prio = 100 }", "l2.prio: unknown key `prio`; did you mean `priority`?"),
        (
            "l2 = { interval = \"100ms\" }",
            "l2.interval: `100ms` is out of range; write from \"1s\" to \"1h\"",
        ),
        ("l2 = { priority = 255 }", "l2.priority: 255 is out of range; write a number from 1 to 254"),
        ("l2 = { priority = 1, group = 0 }", "l2.group: 0 is out of range; write a number from 1 to 255"),
        (
            "l2 = { group = 2 }",
            "l2.group: `group` is for two boxes that stand in for one another; add priority = 100, \
            or remove it",
        ),
        (
            "l2 = { priority = 1, advertise_interval = \"15ms\" }",
            "l2.advertise_interval: VRRP counts hundredths of a \
            second; write one such as \"200ms\"",
        ),
        (
            "l2 = { priority = 1, advertise_interval = \"41s\" }",
            "l2.advertise_interval: `41s` is out of range; write \
            from \"10ms\" to \"40s 950ms\"",
        ),
        (
            "l2 = { priority = 1, preempt = \"no\" }",
            "l2.preempt: this is text; write true or false, without quotes",
        ),
        ("routes = 83", "routes: this is a whole number; write true, or a table such as { table = 83 }"),
        ("routes = { table = 0 }", "routes.table: 0 is out of range; write a number from 1 to 4294967295"),
        (
            "routes = { table = 254 }",
            "routes.table: 254 is the table `main`, by which this box routes its own packets; \
            write another, such as 83",
        ),
        (
            "routes = { protocol = 12 }",
            "routes.protocol: 12 marks the routes of BIRD; write a number of Shunt's own, \
            such as 83",
        ),
        ("routes = { protocol = 256 }", "routes.protocol: 256 is out of range; write a number from 1 to 255"),
        (
            "routes = { require_backends = true }",
            "routes.require_backends: unknown key `require_backends`; did you \
            mean `require_backend`?",
        ),
        (
            "routes = { withdraw_delay = \"2m\" }",
            "routes.withdraw_delay: `2m` is out of range; write from \"0s\" to \
            \"1m\"",
        ),
        (
            "routes = { on_stop = \"leave\" }",
            "routes.on_stop: `leave` is not known here; write one of \"withdraw\", \"keep\"",
        ),
    ];
    for (keys, expected) in cases {
        assert_eq!(announce(keys), Err(format!("announce.{expected}")), "{keys}");
    }
}
