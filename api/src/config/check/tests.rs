use super::super::Config;
use super::*;

/// A file whose pool `p` has these further keys, and backends of modes `dr` and `ipip`; its services take TCP and
/// UDP.
fn pool(keys: &str) -> Result<Config, String> {
    let text = format!(
        r#"nic = [{{ name = "eth1" }}]
tunnel.source_v4 = "10.200.0.0/16"
service = [
  {{ name = "s", vip = ["192.0.2.1", "2001:db8::1"], ports = ["tcp/80", "udp/53"], pool = "p" }},
  {{ name = "t", vip = "192.0.2.2", ports = ["tcp/80", "tcp/8080"], pool = "p" }},
]
[pools.p]
backends = [{{ name = "a", address = "10.0.0.1" }}, {{ name = "b", address = "10.0.0.2", mode = "ipip" }}]
{keys}
"#
    );
    parse(&text)
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "f").map_err(|problem| format!("{}: {}", problem.field, problem.reason))
}

/// The check that is written so.
fn read(written: &str) -> Check {
    let config = pool(&format!("check = {written}")).unwrap_or_else(|problem| panic!("{written}: {problem}"));
    assert_eq!(config.warnings(), [], "{written}");
    config.pools[0].check.clone().unwrap_or_else(|| panic!("{written}: no check"))
}

fn plain(kind: CheckKind) -> Check {
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    Check { kind, interval, timeout, rise: 2, fall: 3, via: Via::Service }
}

fn http() -> HttpCheck {
    HttpCheck {
        port: None,
        tls: None,
        method: "GET".into(),
        path: "/".into(),
        host: None,
        status: vec![200..=399],
        text: None,
    }
}

fn http_with(change: impl FnOnce(&mut HttpCheck)) -> CheckKind {
    let mut check = http();
    change(&mut check);
    CheckKind::Http(check)
}

fn https(verify: bool, server_name: &str, host: Option<&str>) -> CheckKind {
    http_with(|check| {
        check.tls = Some(Tls { verify, server_name: Some(server_name.into()) });
        check.host = host.map(str::to_owned);
    })
}

fn udp(port: Option<u16>, payload: &[u8], answer: Option<&[u8]>) -> CheckKind {
    CheckKind::Udp { port, payload: payload.into(), answer: answer.map(<[u8]>::to_vec) }
}

#[test]
fn a_check_is_read_as_written() {
    let tcp = CheckKind::Tcp { port: None };
    let unverified = Some(Tls { verify: false, server_name: None });
    let cases = [
        (r#""tcp""#, tcp.clone()),
        (r#"{ type = "tcp" }"#, tcp),
        (r#"{ type = "tcp", port = 65535 }"#, CheckKind::Tcp { port: Some(65_535) }),
        (r#""icmp""#, CheckKind::Icmp),
        (r#""udp""#, udp(None, b"", None)),
        (
            r#"{ type = "udp", port = 53, payload = "hex:0a 1B", answer = "" }"#,
            udp(Some(53), b"\x0a\x1b", Some(b"")),
        ),
        (r#"{ type = "udp", payload = "ping\n", answer = "hex:" }"#, udp(None, b"ping\n", Some(b""))),
        (r#""http""#, CheckKind::Http(http())),
        (r#"{ type = "http", status = 204 }"#, http_with(|check| check.status = vec![204..=204])),
        (r#"{ type = "http", status = "200-299" }"#, http_with(|check| check.status = vec![200..=299])),
        (
            r#"{ type = "http", status = [200, "300-302", "404"] }"#,
            http_with(|check| check.status = vec![200..=200, 300..=302, 404..=404]),
        ),
        (
            r#"{ type = "http", port = 81, method = "HEAD", path = "/a?b=%20", host = "[2001:db8::1]:81" }"#,
            http_with(|check| {
                check.port = Some(81);
                check.method = "HEAD".into();
                check.path = "/a?b=%20".into();
                check.host = Some("[2001:db8::1]:81".into());
            }),
        ),
        (r#"{ type = "http", text = "ok" }"#, http_with(|check| check.text = Some("ok".into()))),
        (
            r#"{ type = "https", port = 443, verify = false }"#,
            http_with(|check| (check.port, check.tls) = (Some(443), unverified)),
        ),
    ];
    for (written, kind) in cases {
        assert_eq!(read(written), plain(kind), "{written}");
    }
}

#[test]
fn a_certificate_is_verified_for_the_server_name_or_else_the_host() {
    let cases = [
        (r#"host = "a.example:8443""#, https(true, "a.example", Some("a.example:8443"))),
        (r#"server_name = "b.example""#, https(true, "b.example", None)),
        (r#"host = "a.example", server_name = "2001:db8::1""#, https(true, "2001:db8::1", Some("a.example"))),
        (r#"host = "a.example", verify = false"#, https(false, "a.example", Some("a.example"))),
    ];
    for (keys, kind) in cases {
        let written = format!("{{ type = \"https\", port = 443, {keys} }}");
        let CheckKind::Http(mut expected) = kind else { unreachable!("https") };
        expected.port = Some(443);
        assert_eq!(read(&written).kind, CheckKind::Http(expected), "{written}");
    }
}

#[test]
fn numbers_of_a_check_are_read_as_written() {
    let written =
        r#"{ type = "tcp", interval = "1m 500ms", timeout = "1m", rise = 100, fall = 1, via = "direct" }"#;
    let expected = Check {
        interval: Duration::from_millis(60_500),
        timeout: Duration::from_secs(60),
        rise: 100,
        fall: 1,
        via: Via::Direct,
        ..plain(CheckKind::Tcp { port: None })
    };
    assert_eq!(read(written), expected);
    let quick = read(r#"{ type = "icmp", interval = "100ms" }"#);
    assert_eq!(quick.timeout, Duration::from_millis(100), "the usual timeout would outlast the interval");
}

#[test]
fn what_follows_from_a_check_is_read_as_written() {
    let written = "check = \"tcp\"\non_down = \"keep\"\nslow_start = \"30s\"";
    let config = pool(written).unwrap();
    let followed = (config.pools[0].on_down, config.pools[0].slow_start);
    assert_eq!(followed, (OnDown::Keep, Some(Duration::from_secs(30))));
    let config = pool("check = \"none\"\non_down = \"rehash\"").unwrap();
    assert_eq!((config.pools[0].check.clone(), config.pools[0].on_down), (None, OnDown::Rehash));
    assert_eq!(pool("check = { type = \"none\" }").unwrap().pools[0].check, None);
    assert_eq!(config.services[0].when_all_down, WhenAllDown::UseAll);
    let service = "nic = [{ name = \"eth1\" }]\npools.p = {}\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\n\
                   ports = \"tcp/80\"\npool = \"p\"\nwhen_all_down = \"refuse\"";
    assert_eq!(parse(service).unwrap().services[0].when_all_down, WhenAllDown::Refuse);
    let problem = parse(&service.replace("refuse", "drop")).unwrap_err();
    let expected = "service[0].when_all_down: `drop` is not known here; write one of \"use-all\", \"refuse\"";
    assert_eq!(problem, expected);
}

const REFUSED: &[(&str, &str)] = &[
    (
        "check = true",
        "check: this is the word true without quotes; write \"tcp\", or a table such as { type = \
        \"http\", path = \"/healthz\" }",
    ),
    (
        r#"check = "htp""#,
        "check: `htp` is not known here; write one of \"tcp\", \"http\", \"https\", \"udp\", \
        \"icmp\", \"none\"",
    ),
    (r#"check = { path = "/" }"#, "check.type: `type` is missing; add type = \"tcp\""),
    (
        r#"check = { type = "tcp", path = "/" }"#,
        "check.path: a check of type tcp has no `path`; remove it, or \
        write type = \"http\"",
    ),
    (
        r#"check = { type = "http", verify = false }"#,
        "check.verify: a check of type http has no `verify`; remove \
        it, or write type = \"https\"",
    ),
    (
        r#"check = { type = "icmp", port = 80 }"#,
        "check.port: a check of type icmp has no `port`; remove it, or \
        write type = \"tcp\"",
    ),
    (
        r#"check = { type = "tcp", intervall = "2s" }"#,
        "check.intervall: unknown key `intervall`; did you mean \
        `interval`?",
    ),
    (
        r#"check = { type = "none", interval = "2s" }"#,
        "check.interval: unknown key `interval`; known here: `type`",
    ),
    (
        r#"check = { type = "tcp", port = 0 }"#,
        "check.port: 0 is out of range; write a number from 1 to 65535",
    ),
    (
        r#"check = { type = "tcp", port = "tcp/80" }"#,
        "check.port: this is text; write a whole number from 1 to \
        65535, without quotes",
    ),
    (
        r#"check = { type = "tcp", interval = "0s" }"#,
        "check.interval: `0s` is out of range; write from \"100ms\" \
        to \"1h\"",
    ),
    (
        r#"check = { type = "tcp", interval = 2 }"#,
        "check.interval: this is a whole number; write text in quotes, \
        such as \"2s\"",
    ),
    (
        r#"check = { type = "tcp", interval = "2" }"#,
        "check.interval: `2` has no unit; write \"2s\" if seconds are \
        meant",
    ),
    (
        r#"check = { type = "tcp", timeout = "1ms" }"#,
        "check.timeout: `1ms` is out of range; write from \"10ms\" to \
        \"1m\"",
    ),
    (
        r#"check = { type = "tcp", timeout = "3s" }"#,
        "check.timeout: 3s is longer than the interval, and a probe \
        must end before the next one; write at most \"2s\", or a longer interval",
    ),
    (r#"check = { type = "tcp", rise = 0 }"#, "check.rise: 0 is out of range; write a number from 1 to 100"),
    (
        r#"check = { type = "tcp", fall = 101 }"#,
        "check.fall: 101 is out of range; write a number from 1 to 100",
    ),
    (
        r#"check = { type = "tcp", via = "vip" }"#,
        "check.via: `vip` is not known here; write one of \"service\", \
        \"direct\"",
    ),
    (r#"on_down = "drop""#, "on_down: `drop` is not known here; write one of \"rehash\", \"keep\""),
    (r#"slow_start = "0s""#, "slow_start: `0s` is out of range; write from \"1s\" to \"1h\""),
];

#[test]
fn what_cannot_be_is_refused_with_what_to_write_instead() {
    refused(REFUSED);
}

const NOT_ASKED: &[(&str, &str)] = &[
    (
        r#"check = { type = "http", method = "get" }"#,
        "check.method: `get` is not known here; write one of \"GET\", \
        \"HEAD\", \"OPTIONS\", \"POST\"",
    ),
    (
        r#"check = { type = "http", method = "HEAD", text = "ok" }"#,
        "check.text: an answer to HEAD has no text; \
        write method = \"GET\", or remove `text`",
    ),
    (
        r#"check = { type = "http", path = "healthz" }"#,
        "check.path: `healthz` does not begin with `/`; write one \
        such as \"/healthz\"",
    ),
    (
        r#"check = { type = "http", path = "/a b" }"#,
        "check.path: `/a b` is not a path; write other characters as % \
        and two digits",
    ),
    (
        r#"check = { type = "http", path = "/\r\nHost: x" }"#,
        "check.path: `/\\r\\nHost: x` is not a path; write \
        other characters as % and two digits",
    ),
    (
        r#"check = { type = "http", host = "http://a" }"#,
        "check.host: `http://a` is not a host name; write one such \
        as \"www.example.net\"",
    ),
    (
        r#"check = { type = "http", host = "2001:db8::1" }"#,
        "check.host: an IPv6 address needs brackets here; write \"[2001:db8::1]\"",
    ),
    (
        r#"check = { type = "https", port = 443, server_name = "a:443" }"#,
        "check.server_name: `a:443` is not a host \
        name; write one such as \"www.example.net\"",
    ),
    (
        r#"check = "https""#,
        "check: a certificate is verified for a name; add host = \"www.example.net\" or \
        server_name = \"www.example.net\", or verify = false to take any certificate",
    ),
    (
        r#"check = { type = "http", status = 99 }"#,
        "check.status: 99 is out of range; write a number from 100 to \
        599",
    ),
    (
        r#"check = { type = "http", status = "399-200" }"#,
        "check.status: the range ends before it begins; write \
        \"200-399\"",
    ),
    (
        r#"check = { type = "http", status = [200, "2xx"] }"#,
        "check.status[1]: `2xx` is no status; write numbers \
        from 100 to 599, such as 200, \"200-399\" or [200, 204]",
    ),
    (
        r#"check = { type = "http", status = [] }"#,
        "check.status: the array is empty; write at least one, such as \
        [200, \"300-399\"]",
    ),
    (
        r#"check = { type = "http", text = "" }"#,
        "check.text: every answer contains nothing; write what it must \
        contain, or remove the key",
    ),
    (
        r#"check = { type = "udp", payload = "hex:abc" }"#,
        "check.payload: after `hex:` there must be pairs of \
        hexadecimal digits; write one such as \"hex:0a1b\"",
    ),
    (
        r#"check = { type = "udp", answer = 1 }"#,
        "check.answer: this is a whole number; write text in quotes, such \
        as \"ping\" or \"hex:0a1b\"",
    ),
];

#[test]
fn what_no_server_can_be_asked_is_refused_with_what_to_write_instead() {
    refused(NOT_ASKED);
    let long =
        |count: usize| format!("check = {{ type = \"udp\", payload = \"hex:{}\" }}", "00".repeat(count));
    assert!(pool(&long(1_400)).is_ok());
    refused(&[(&long(1_401), "check.payload: these are 1401 bytes; write at most 1400, which fit a packet")]);
    let long = |count: usize| format!("check = {{ type = \"http\", path = \"/{}\" }}", "a".repeat(count));
    assert!(pool(&long(999)).is_ok());
    refused(&[(&long(1_000), "check.path: the path has 1001 characters; write at most 1000")]);
    let long = |count: usize| format!("check = {{ type = \"http\", text = \"{}\" }}", "a".repeat(count));
    assert!(pool(&long(1_000)).is_ok());
    refused(&[(&long(1_001), "check.text: the text has 1001 bytes; write at most 1000")]);
}

fn refused(cases: &[(&str, &str)]) {
    for (keys, expected) in cases {
        let problem = pool(keys).err();
        assert_eq!(problem, Some(format!("pools.p.{expected}")), "{keys}");
    }
}

/// A pool whose backends are of these modes, with one service on this port.
fn modes(modes: [&str; 2], port: &str, check: &str) -> Result<Config, String> {
    let [first, second] = modes;
    parse(&format!(
        r#"nic = [{{ name = "eth1" }}]
nat.sources = "10.0.1.250"
tunnel.source_v4 = "10.200.0.0/16"
service = [{{ name = "s", vip = ["192.0.2.1", "192.0.2.2"], ports = "{port}", pool = "p" }}]
[pools.p]
mode = "{first}"
check = {check}
backends = [{{ name = "a", address = "10.0.0.1" }}, {{ name = "b", address = "10.0.0.2", mode = "{second}" }}]
"#
    ))
}

#[test]
fn the_way_of_probes_follows_from_the_modes() {
    let cases = [
        (["dr", "ipip"], [Via::Service, Via::Service]),
        (["nat", "nat"], [Via::Direct, Via::Direct]),
        (["nat", "dr"], [Via::Direct, Via::Service]),
        (["ipip", "nat"], [Via::Service, Via::Direct]),
    ];
    for (written, expected) in cases {
        let pool = &modes(written, "tcp/80", "\"tcp\"").unwrap().pools[0];
        let check = pool.check.as_ref().unwrap();
        assert_eq!([0, 1].map(|index| check.via_of(pool.backends[index].mode)), expected, "{written:?}");
        assert!(modes(written, "tcp/80", "{ type = \"tcp\", via = \"direct\" }").is_ok());
    }
    let empty = |mode: &str| {
        parse(&format!("[pools.p]\nmode = \"{mode}\"\ncheck = \"tcp\"")).unwrap().pools[0].clone()
    };
    assert_eq!(
        ["dr", "ipip", "nat"].map(|mode| empty(mode).check.unwrap().via),
        [Via::Service, Via::Service, Via::Direct]
    );
    let problem = modes(["dr", "nat"], "tcp/80", "{ type = \"tcp\", via = \"service\" }").unwrap_err();
    let expected = "pools.p.check.via: backend `b` is of mode nat and knows no VIP to probe; write \"direct\", or \
                    leave `via` out to probe only such backends directly";
    assert_eq!(problem, expected);
}

#[test]
fn a_check_needs_a_port_of_its_protocol() {
    let problem = modes(["dr", "dr"], "tcp/80", "\"udp\"").unwrap_err();
    let expected = "pools.p.check: a check of type udp goes to the udp ports of the services that use pool `p`, and \
                    service `s` has none; add `port`, or check another way";
    assert_eq!(problem, expected);
    assert!(modes(["dr", "dr"], "udp/53", "\"http\"").unwrap_err().contains("goes to the tcp ports"));
    assert!(modes(["dr", "dr"], "udp/53", "{ type = \"http\", port = 80 }").is_ok());
    assert!(modes(["dr", "dr"], "udp/53", "\"icmp\"").is_ok());
    assert!(parse("pools.p.check = \"udp\"").is_ok(), "without a service there is nothing to fit");
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    let warnings = |config: Config| -> Vec<String> {
        let of_pool = config.warnings().iter().filter(|warning| warning.field.starts_with("pools."));
        of_pool.map(ToString::to_string).collect()
    };
    let no_effect = "this has no effect, because nothing finds out which backends are up; add `check`";
    let expected = [
        format!("f:9:11: pools.p.on_down: {no_effect}"),
        format!("f:10:14: pools.p.slow_start: {no_effect}"),
    ];
    assert_eq!(warnings(pool("on_down = \"keep\"\nslow_start = \"30s\"").unwrap()), expected);
    let other = |port: &str, check: &str| warnings(modes(["dr", "dr"], port, check).unwrap());
    let expected = "f:7:9: pools.p.check: without `port` this http check goes to port 443 of the services, where \
                    servers speak HTTPS; add the port that answers it";
    assert_eq!(other("tcp/443", "\"http\""), [expected]);
    assert_eq!(other("tcp/80", "{ type = \"https\", verify = false }").len(), 1);
    assert_eq!(other("tcp/443", "{ type = \"http\", port = 80 }"), [""; 0]);
    assert_eq!(other("tcp/443", "\"tcp\""), [""; 0]);
}

#[test]
fn a_check_says_in_words_what_it_is() {
    let words = |written| read(written).to_string();
    assert_eq!(words("\"tcp\""), "tcp every 2s, timeout 1s, rise 2, fall 3, via service");
    let http = r#"{ type = "http", path = "/healthz", port = 81, interval = "500ms", via = "direct" }"#;
    assert_eq!(
        words(http),
        "http GET /healthz port 81 every 500ms, timeout 500ms, rise 2, fall 3, via direct"
    );
    let https = r#"{ type = "https", verify = false, port = 443, method = "HEAD" }"#;
    assert!(words(https).starts_with("https HEAD / port 443 every"), "{}", words(https));
    assert!(words(r#"{ type = "udp", port = 53 }"#).starts_with("udp port 53 every"));
    assert!(words("\"icmp\"").starts_with("icmp every"));
}
