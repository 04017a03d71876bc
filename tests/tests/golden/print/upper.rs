//! What IP carries: TCP, UDP, ICMP, another IP packet, or something else.

use super::ip::{self, Around, is_v6};
use super::{Layer, checksum, data, digits, long, short, unless};
use crate::checksum::{ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, of_field};
use crate::language::upper::{FLAGS, WINDOW};
use crate::names;

/// The layers of an IP payload, and whether they tell its protocol; behind `later` fragments' headers there is data.
pub fn upper(protocol: u8, bytes: &[u8], around: Around, later: bool) -> (Vec<Layer<'_>>, bool) {
    let known = match protocol {
        _ if later => None,
        TCP => tcp(bytes, around),
        UDP => udp(bytes, around),
        ICMP if !is_v6(around) => icmp(bytes, around),
        ICMPV6 if is_v6(around) => icmp(bytes, around),
        IPV4 => ip::length_v4(bytes).map(|_| ip::v4(bytes)),
        IPV6 => ip::length_v6(bytes).map(|_| ip::v6(bytes)),
        0 | 43 | 44 | 60 if is_v6(around) => ip::extension(protocol, bytes, around),
        _ => None,
    };
    let named = known.is_some();
    (known.unwrap_or_else(|| data(bytes)), named)
}

fn tcp(bytes: &[u8], around: Around) -> Option<Vec<Layer<'_>>> {
    let ports = |bytes: &[u8]| format!("tcp {} > {}", short(bytes, 0), short(bytes, 2));
    if bytes.len() == 8 {
        let text = format!("{}{} cut 8", ports(bytes), unless("seq", long(bytes, 4), 0));
        return Some(vec![Layer { text, bytes }]);
    }
    let offset = bytes.get(..20)?[12];
    if offset & 15 != 0 {
        return None;
    }
    let stated = usize::from(offset >> 4) * 4;
    let good = stated >= 20 && stated <= bytes.len();
    let (header, payload) = bytes.split_at(if good { stated } else { 20 });
    let flags: String = (0..8).filter(|bit| header[13] >> bit & 1 != 0).map(|bit| FLAGS[bit]).collect();
    let options = if header.len() > 20 { format!(" opt {}", digits(&header[20..])) } else { String::new() };
    let text = [
        format!("{} {}", ports(bytes), if flags.is_empty() { "-" } else { &flags }),
        unless("seq", long(header, 4), 0),
        unless("ack", long(header, 8), 0),
        unless("win", short(header, 14), WINDOW.into()),
        unless("urg", short(header, 18), 0),
        options,
        if good { String::new() } else { format!(" doff {}", stated / 4) },
        checksum(short(header, 16), right(around, TCP, bytes, 16)),
    ];
    Some(with_data(Layer { text: text.concat(), bytes: header }, payload))
}

fn udp(bytes: &[u8], around: Around) -> Option<Vec<Layer<'_>>> {
    let (header, payload) = bytes.split_at_checked(8)?;
    let stored = short(header, 6);
    let sum = match stored {
        0 if !is_v6(around) => " checksum 0".to_owned(),
        _ => checksum(stored, right(around, UDP, bytes, 6)),
    };
    let length = unless("length", short(header, 4), bytes.len() as u64);
    let text = format!("udp {} > {}{length}{sum}", short(header, 0), short(header, 2));
    Some(with_data(Layer { text, bytes: header }, payload))
}

fn icmp(bytes: &[u8], around: Around) -> Option<Vec<Layer<'_>>> {
    let (header, payload) = bytes.split_at_checked(8)?;
    let v6 = is_v6(around);
    let (kind, code) = (header[0], header[1]);
    let name = names::name(names::icmp_types(v6), kind).map_or_else(|| kind.to_string(), str::to_owned);
    let named = names::name(names::unreachable_codes(v6), code).filter(|_| name == "unreachable");
    let tells_mtu = name == "too-big" || named == Some("needs-fragments");
    let field = match name.as_str() {
        "echo" | "echo-reply" => unless("id", short(header, 4), 0) + &unless("seq", short(header, 6), 0),
        _ if tells_mtu => format!(" mtu {}", long(header, 4)),
        _ if long(header, 4) == 0 => String::new(),
        _ => format!(" rest {}", digits(&header[4..8])),
    };
    let code = named.map_or_else(|| unless("code", code, 0), |code| format!(" {code}"));
    let protocol = if v6 { ICMPV6 } else { ICMP };
    let ends = v6.then_some(around.ends);
    let sum = around.complete.then(|| of_field(ends, protocol, bytes, 2));
    let sum = checksum(short(header, 2), sum);
    let text = format!("{} {name}{code}{field}{sum}", if v6 { "icmp6" } else { "icmp" });
    let is_error = if v6 { kind < 128 } else { matches!(kind, 3..=5 | 11 | 12) };
    let quoted = match v6 {
        false => ip::length_v4(payload).map(|_| ip::v4(payload)),
        true => ip::length_v6(payload).map(|_| ip::v6(payload)),
    };
    let mut layers = vec![Layer { text, bytes: header }];
    layers.extend(quoted.filter(|_| is_error).unwrap_or_else(|| data(payload)));
    Some(layers)
}

fn with_data<'a>(header: Layer<'a>, payload: &'a [u8]) -> Vec<Layer<'a>> {
    let mut layers = vec![header];
    layers.extend(data(payload));
    layers
}

fn right(around: Around, protocol: u8, bytes: &[u8], at: usize) -> Option<u16> {
    around.complete.then(|| of_field(Some(around.ends), protocol, bytes, at))
}
