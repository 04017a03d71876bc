//! How a Service's nodes are found to be up.
//!
//! kube-proxy says itself whether a node serves: for `Local` on the Service's `healthCheckNodePort`, whose answer is
//! 503 as soon as the node has no ready pod, and otherwise on port 10256, whose answer is 503 while its rules are stale
//! or the autoscaler is about to remove the node (KEP-3836). Both are asked at the node's own address, and what many
//! Services ask alike is asked once.

use std::net::IpAddr;
use std::time::Duration;

use shunt_api::config::{
    CHECK_COUNT, CHECK_INTERVAL, CHECK_TIMEOUT, Check, CheckKind, HttpCheck, OnDown, Via,
};
use shunt_api::snapshot::{Mode, Protocol};

use super::Problem;
use super::annotations::Annotations;
use crate::kubernetes::facts::{Family, Service};

/// What is asked: `auto`, `tcp` or `none`.
pub const HEALTH_CHECK: &str = "shunt.dev/health-check";
/// From probe to probe, such as `2s`.
pub const HEALTH_INTERVAL: &str = "shunt.dev/health-interval";
/// A probe without an answer for so long has failed.
pub const HEALTH_TIMEOUT: &str = "shunt.dev/health-timeout";
/// So many good answers bring a node up.
pub const HEALTH_RISE: &str = "shunt.dev/health-rise";
/// So many failures take it down.
pub const HEALTH_FALL: &str = "shunt.dev/health-fall";
/// What becomes of the flows of a node that goes down: `keep` or `rehash`.
pub const ON_DOWN: &str = "shunt.dev/on-down";

/// Where kube-proxy answers `/healthz`, unless `--healthz-bind-address` says otherwise.
const KUBE_PROXY_HEALTHZ: u16 = 10_256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Auto,
    Tcp,
    Nothing,
}

/// The check of a Service's pools, and what is wrong with its annotations.
pub fn check(service: &Service, mode: Mode) -> (Option<Check>, Vec<Problem>) {
    let mut annotations = Annotations::of(service);
    let words = [("auto", Asked::Auto), ("tcp", Asked::Tcp), ("none", Asked::Nothing)];
    let mut asked = annotations.one_of(HEALTH_CHECK, &words, Asked::Auto);
    if asked == Asked::Tcp && !has_tcp(service, mode) {
        annotations.refuse(HEALTH_CHECK, "`tcp` needs a TCP port that is served; write auto or none");
        asked = Asked::Auto;
    }
    let interval = annotations.duration(HEALTH_INTERVAL, CHECK_INTERVAL, Duration::from_secs(2));
    let usual = interval.min(Duration::from_secs(1));
    let timeout = annotations.duration(HEALTH_TIMEOUT, CHECK_TIMEOUT, usual);
    if timeout > interval {
        annotations.refuse(
            HEALTH_TIMEOUT,
            "it is longer than the interval, which holds instead; write a shorter one",
        );
    }
    let rise = annotations.count(HEALTH_RISE, CHECK_COUNT, 2);
    let fall = annotations.count(HEALTH_FALL, CHECK_COUNT, 3);
    let check = kind(service, asked).map(|(kind, via)| {
        // So that a check is the same however its way is written.
        let via = if mode == Mode::Nat { Via::Direct } else { via };
        Check { kind, interval, timeout: timeout.min(interval), rise, fall, via }
    });
    (check, annotations.problems)
}

/// What it finds is the node's, not the Service's.
pub fn asks_nodes(check: &Check) -> bool {
    check.via == Via::Direct && check.kind.port() == Some(KUBE_PROXY_HEALTHZ)
}

/// Nothing of it is set by annotations.
pub fn is_usual(check: &Check) -> bool {
    self::check(&Service::default(), Mode::Nat).0.as_ref() == Some(check)
}

/// The check of a pool with backends at some addresses. kube-proxy opens a `healthCheckNodePort` in the families of the
/// Service only, and port 10256 in both; so a node that is reached by another family is asked there.
pub fn reachable(check: Check, service: &Service, mut addresses: impl Iterator<Item = IpAddr>) -> Check {
    let node_port = service.health_check_node_port.filter(|_| service.local);
    let asks_node_port = node_port.is_some() && check.via == Via::Direct && check.kind.port() == node_port;
    if asks_node_port && addresses.any(|address| !service.families.contains(&Family::of(address))) {
        return Check { kind: CheckKind::Http(http(KUBE_PROXY_HEALTHZ, "/healthz")), ..check };
    }
    check
}

/// What becomes of the flows of a node that goes down, and what is wrong with the annotation.
///
/// A node whose pods are about to go, or that the autoscaler is about to remove, fails its check on purpose while its
/// connections live on, so these stay. Datagrams to a node that is dead would be lost for as long as their client sends
/// some, and lose little when they are moved.
pub fn on_down(service: &Service) -> (OnDown, Vec<Problem>) {
    let mut annotations = Annotations::of(service);
    let usual = if service.has_connections() { OnDown::Keep } else { OnDown::Rehash };
    let words = [("keep", OnDown::Keep), ("rehash", OnDown::Rehash)];
    let on_down = annotations.one_of(ON_DOWN, &words, usual);
    (on_down, annotations.problems)
}

fn has_tcp(service: &Service, mode: Mode) -> bool {
    let served = |node_port: Option<u16>| mode != Mode::Nat || node_port.is_some();
    service.ports.iter().any(|port| port.protocol == Some(Protocol::Tcp) && served(port.node_port))
}

/// What is asked, and which way. Without port, `tcp` goes to each port of the service: of mode `nat` to the node port,
/// else to the VIP.
fn kind(service: &Service, asked: Asked) -> Option<(CheckKind, Via)> {
    let local_port = service.health_check_node_port.filter(|_| service.local);
    match asked {
        Asked::Nothing => None,
        Asked::Tcp => Some((CheckKind::Tcp { port: None }, Via::Service)),
        Asked::Auto => {
            let (port, path) = local_port.map_or((KUBE_PROXY_HEALTHZ, "/healthz"), |port| (port, "/"));
            Some((CheckKind::Http(http(port, path)), Via::Direct))
        }
    }
}

fn http(port: u16, path: &str) -> HttpCheck {
    HttpCheck {
        port: Some(port),
        tls: None,
        method: "GET".into(),
        path: path.into(),
        host: None,
        status: vec![200..=200],
        text: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::facts::Port;

    fn service(local: bool, protocol: Protocol, annotations: &[(&str, &str)]) -> Service {
        Service {
            local,
            health_check_node_port: local.then_some(32_000),
            annotations: annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ports: vec![Port {
                name: String::new(),
                protocol: Some(protocol),
                protocol_name: protocol.to_string().to_uppercase(),
                port: 80,
                node_port: Some(30_080),
            }],
            ..Service::default()
        }
    }

    fn said(service: &Service, mode: Mode) -> (String, Vec<String>) {
        let (check, problems) = check(service, mode);
        let check = check.map_or_else(|| "none".to_owned(), |check| check.to_string());
        (check, problems.into_iter().map(|problem| problem.message).collect())
    }

    const HEALTHZ: &str = "http GET /healthz port 10256 every 2s, timeout 1s, rise 2, fall 3, via direct";

    #[test]
    fn asks_what_the_policy_and_the_annotations_say() {
        let local = "http GET / port 32000 every 2s, timeout 1s, rise 2, fall 3, via direct";
        let via_service = "tcp every 2s, timeout 1s, rise 2, fall 3, via service";
        let direct = "tcp every 2s, timeout 1s, rise 2, fall 3, via direct";
        for (is_local, value, mode, expected) in [
            (false, "auto", Mode::Dr, HEALTHZ),
            (true, "auto", Mode::Dr, local),
            (true, "auto", Mode::Nat, local),
            (false, "tcp", Mode::Dr, via_service),
            (true, "tcp", Mode::Ipip, via_service),
            (false, "tcp", Mode::Nat, direct),
            (true, "none", Mode::Dr, "none"),
        ] {
            let service = service(is_local, Protocol::Tcp, &[(HEALTH_CHECK, value)]);
            assert_eq!(said(&service, mode), (expected.into(), vec![]), "{is_local} {value} {mode}");
        }
        assert_eq!(said(&service(false, Protocol::Udp, &[]), Mode::Dr), (HEALTHZ.into(), vec![]));
    }

    #[test]
    fn a_node_of_another_family_is_asked_where_it_answers() {
        for (addresses, port) in [
            (&["2001:db8::1"][..], 32_000),
            (&["2001:db8::1", "10.0.0.1"], 10_256),
            (&["10.0.0.1"], 10_256),
            (&[], 32_000),
        ] {
            let service = Service { families: vec![Family::V6], ..service(true, Protocol::Tcp, &[]) };
            let check = check(&service, Mode::Dr).0.unwrap();
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            assert_eq!(reachable(check, &service, addresses).kind.port(), Some(port));
        }
    }

    #[test]
    fn takes_times_and_counts_from_annotations() {
        let service = service(
            false,
            Protocol::Tcp,
            &[(HEALTH_INTERVAL, "500ms"), (HEALTH_TIMEOUT, "200ms"), (HEALTH_RISE, "1"), (HEALTH_FALL, "5")],
        );
        let expected = "http GET /healthz port 10256 every 500ms, timeout 200ms, rise 1, fall 5, via direct";
        assert_eq!(said(&service, Mode::Dr), (expected.into(), vec![]));
    }

    #[test]
    fn wrong_annotations_are_named_and_the_usual_holds() {
        for (name, value, protocol) in [
            (HEALTH_CHECK, "http", Protocol::Tcp),
            (HEALTH_CHECK, "", Protocol::Tcp),
            (HEALTH_CHECK, "tcp", Protocol::Udp),
            (HEALTH_INTERVAL, "2", Protocol::Tcp),
            (HEALTH_INTERVAL, "2h", Protocol::Tcp),
            (HEALTH_TIMEOUT, "1ms", Protocol::Tcp),
            (HEALTH_RISE, "0", Protocol::Tcp),
            (HEALTH_FALL, "many", Protocol::Tcp),
        ] {
            let (check, problems) = said(&service(false, protocol, &[(name, value)]), Mode::Dr);
            assert_eq!(check, HEALTHZ, "{name} {value}");
            assert_eq!(problems.len(), 1, "{name} {value}: {problems:?}");
            assert!(problems[0].contains(name) && problems[0].contains("write"), "{problems:?}");
        }
    }

    #[test]
    fn connections_stay_on_a_node_that_goes_down() {
        for (protocol, value, expected) in [
            (Protocol::Tcp, None, OnDown::Keep),
            (Protocol::Udp, None, OnDown::Rehash),
            (Protocol::Tcp, Some("rehash"), OnDown::Rehash),
            (Protocol::Udp, Some("keep"), OnDown::Keep),
            (Protocol::Tcp, Some("drop"), OnDown::Keep),
        ] {
            let annotations: Vec<_> = value.map(|value| (ON_DOWN, value)).into_iter().collect();
            let (on_down, problems) = on_down(&service(false, protocol, &annotations));
            assert_eq!(
                (on_down, problems.len()),
                (expected, usize::from(value == Some("drop"))),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_timeout_is_never_longer_than_the_interval() {
        let service = service(false, Protocol::Tcp, &[(HEALTH_TIMEOUT, "3s")]);
        let (check, problems) = check(&service, Mode::Dr);
        assert_eq!(check.map(|check| check.timeout), Some(Duration::from_secs(2)));
        assert_eq!(problems.len(), 1);
    }
}
