//! Interfaces as text for people: one block each, `-` for what is not reported.

use std::fmt::Write as _;

use crate::ethtool::{Quantity, Queues, Rings};
use crate::netdev::XdpSupport;
use crate::observe::Nic;

/// Blocks separated by blank lines, without a final newline.
pub fn text(nics: &[Nic]) -> String {
    let blocks: Vec<String> = nics.iter().map(block).collect();
    blocks.join("\n\n")
}

fn block(nic: &Nic) -> String {
    let lines = [
        ("driver", or_dash(nic.driver.clone())),
        ("bus", or_dash(nic.bus_address.clone())),
        ("NUMA node", or_dash(nic.numa_node)),
        ("link", link(nic)),
        ("MAC", or_dash(nic.mac.clone())),
        ("MTU", or_dash(nic.mtu)),
        ("queues", or_dash(nic.queues.and_then(queues))),
        ("rings", or_dash(nic.rings.and_then(rings))),
        ("XDP", or_dash(nic.xdp.as_ref().map(features))),
        ("zero-copy", or_dash(nic.xdp.as_ref().map(zero_copy))),
        ("XDP program", program(nic)),
    ];
    let mut text = nic.name.clone();
    for (name, value) in lines {
        let _ = write!(text, "\n  {name:<12} {value}");
    }
    text
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A link that is down has neither carrier nor speed, whatever the driver says.
fn link(nic: &Nic) -> String {
    if !nic.up {
        return "down".to_owned();
    }
    let carrier = nic.carrier.map(|carrier| if carrier { "carrier" } else { "no carrier" }.to_owned());
    let parts = [Some("up".to_owned()), carrier, nic.speed_mbps.map(speed)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn speed(mbps: u32) -> String {
    if mbps >= 1000 { format!("{} Gb/s", f64::from(mbps) / 1000.0) } else { format!("{mbps} Mb/s") }
}

fn queues(queues: Queues) -> Option<String> {
    listed(&[("combined", queues.combined), ("rx", queues.rx), ("tx", queues.tx)])
}

fn rings(rings: Rings) -> Option<String> {
    listed(&[("rx", rings.rx), ("tx", rings.tx)])
}

fn listed(kinds: &[(&str, Option<Quantity>)]) -> Option<String> {
    let told = kinds.iter().filter_map(|(kind, quantity)| {
        let Quantity { current, max } = (*quantity)?;
        Some(format!("{kind} {current} of {max}"))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn features(xdp: &XdpSupport) -> String {
    if xdp.features.is_empty() { "only generic".to_owned() } else { xdp.features.join(" ") }
}

fn zero_copy(xdp: &XdpSupport) -> String {
    if !xdp.features.iter().any(|feature| feature == "xsk-zerocopy") {
        return "no".to_owned();
    }
    match xdp.zero_copy_segments_max {
        Some(1) | None => "yes".to_owned(),
        Some(segments) => format!("yes, up to {segments} segments per frame"),
    }
}

fn program(nic: &Nic) -> String {
    let Some(program) = &nic.xdp_program else { return "none".to_owned() };
    match program.id {
        Some(id) => format!("{}, id {id}", program.mode),
        None => program.mode.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::XdpProgram;

    fn silent() -> Nic {
        Nic { name: "eth0".to_owned(), ifindex: 2, ..Nic::default() }
    }

    #[test]
    fn what_is_not_reported_is_a_dash() {
        let text = text(&[silent()]);
        assert_eq!(text.lines().next(), Some("eth0"));
        assert_eq!(text.lines().filter(|line| line.ends_with(" -")).count(), 9);
        assert!(
            text.contains("\n  link         down\n") && text.ends_with("\n  XDP program  none"),
            "{text}"
        );
    }

    #[test]
    fn what_is_reported_is_shown_in_words() {
        let both = |current, max| Some(Quantity { current, max });
        let nic = Nic {
            driver: Some("mlx5_core".to_owned()),
            bus_address: Some("0000:01:00.0".to_owned()),
            numa_node: Some(1),
            up: true,
            carrier: Some(true),
            speed_mbps: Some(25_000),
            queues: Some(Queues { combined: both(4, 63), rx: None, tx: None }),
            rings: Some(Rings { rx: both(1024, 8192), tx: both(512, 8192) }),
            xdp: Some(XdpSupport {
                features: vec!["basic".to_owned(), "xsk-zerocopy".to_owned()],
                zero_copy_segments_max: Some(1),
            }),
            xdp_program: Some(XdpProgram { mode: "native".to_owned(), id: Some(12) }),
            ..silent()
        };
        let text = text(&[nic]);
        for line in [
            "NUMA node    1",
            "link         up, carrier, 25 Gb/s",
            "queues       combined 4 of 63",
            "rings        rx 1024 of 8192, tx 512 of 8192",
            "XDP          basic xsk-zerocopy",
            "zero-copy    yes",
            "XDP program  native, id 12",
        ] {
            assert!(text.contains(&format!("\n  {line}")), "{line} is not in\n{text}");
        }
        assert_eq!(speed(2500), "2.5 Gb/s");
    }
}
