//! `spec.loadBalancerSourceRanges`. Objects of old may hold what the API refuses today (KEP-4858): leading zeros, host
//! bits, spaces. Such a value is read as kube-proxy reads it, and given on as it should have been written.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use shunt_api::config::SOURCE_RANGES_MAX;

use super::Problem;
use crate::kubernetes::facts::Family;

/// Stands for "nobody", because an empty list stands for "all": no packet comes from the limited broadcast address
/// (RFC 1122, section 3.2.1.3), and where there is a range, clients outside of all ranges are denied in both families.
pub const NOBODY: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32));

/// The ranges that clients may come from, each once, and what is wrong with those written. Those that cannot be read
/// allow nobody; if none can, nobody may come.
pub fn source_ranges(written: &[String]) -> (Vec<IpNet>, Vec<Problem>) {
    let mut ranges: Vec<IpNet> = Vec::new();
    let mut refused = Vec::new();
    for text in written {
        match lenient(text.trim()) {
            Some(range) if !ranges.contains(&range) => ranges.push(range),
            Some(_) => {}
            None => refused.push(format!("`{}`", text.escape_debug())),
        }
    }
    let mut problems = Vec::new();
    if !refused.is_empty() {
        let rest = if ranges.is_empty() { "until then nobody may come" } else { "the others hold" };
        let refused = refused.join(", ");
        let message = format!(
            "loadBalancerSourceRanges: {refused} is no prefix; write one such as 192.0.2.0/24 or 2001:db8::/32. {rest}"
        );
        problems.push(Problem::new("InvalidSourceRange", message));
    }
    if ranges.len() > SOURCE_RANGES_MAX {
        ranges.truncate(SOURCE_RANGES_MAX);
        let message =
            format!("loadBalancerSourceRanges: only the first {SOURCE_RANGES_MAX} prefixes hold; merge some");
        problems.push(Problem::new("TooManySourceRanges", message));
    }
    if ranges.is_empty() && !written.is_empty() {
        ranges.push(NOBODY);
    }
    (ranges, problems)
}

/// Whether no client of a family may come, though some may.
pub fn unreachable(ranges: &[IpNet], family: Family) -> Option<Problem> {
    let denied = !ranges.is_empty()
        && ranges != [NOBODY]
        && !ranges.iter().any(|range| Family::of(range.addr()) == family);
    let all = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    let message = format!(
        "loadBalancerSourceRanges: no {family} client may come; add a range, or {all} for all of them"
    );
    denied.then(|| Problem::new("NoSourceRangeOfFamily", message))
}

/// A prefix without host bits; an address alone is a prefix of its own. IPv4 in IPv6 is IPv4.
fn lenient(text: &str) -> Option<IpNet> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = match address.contains(':') {
        true => address.parse().ok()?,
        false => IpAddr::V4(lenient_v4(address)?),
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(whole), decimal)?;
    let prefix = IpNet::new(address, length).ok()?;
    match prefix {
        IpNet::V6(v6) if length >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(IpAddr::V4(v4), length - 96).ok().map(|prefix| prefix.trunc()),
            None => Some(prefix.trunc()),
        },
        _ => Some(prefix.trunc()),
    }
}

/// Leading zeros mean nothing, so `010` is ten.
fn lenient_v4(text: &str) -> Option<Ipv4Addr> {
    let octets: Option<Vec<u8>> = text.split('.').map(decimal).collect();
    Some(<[u8; 4]>::try_from(octets?).ok()?.into())
}

fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sloppy_values_of_old_are_read_as_they_were_meant() {
        for (text, expected) in [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.77/24", Some("192.0.2.0/24")),
            ("010.001.000.000/08", Some("10.0.0.0/8")),
            (" 10.0.0.0/8 ", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("198.51.100.7", Some("198.51.100.7/32")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("10.0.0.0/33", None),
            ("10.0.0/8", None),
            ("10.0.0.256/8", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("everyone", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse::<IpNet>().unwrap());
            assert_eq!(lenient(text.trim()), expected, "{text}");
        }
    }

    #[test]
    fn unreadable_ranges_allow_nobody() {
        for (written, expected, problems) in [
            (vec![], vec![], 0),
            (vec!["10.0.0.0/8", "10.9.0.0/8"], vec!["10.0.0.0/8"], 0),
            (vec!["10.0.0.0/8", "x"], vec!["10.0.0.0/8"], 1),
            (vec!["x", "y"], vec!["255.255.255.255/32"], 1),
        ] {
            let written: Vec<String> = written.into_iter().map(String::from).collect();
            let expected: Vec<IpNet> = expected.into_iter().map(|text: &str| text.parse().unwrap()).collect();
            let (ranges, found) = source_ranges(&written);
            assert_eq!((ranges, found.len()), (expected, problems), "{written:?}");
        }
    }

    #[test]
    fn names_every_unreadable_range() {
        let (_, problems) = source_ranges(&["x".into(), "10.0.0.0/8".into(), "y/3".into()]);
        assert!(problems[0].message.contains("`x`, `y/3`"), "{}", problems[0].message);
    }
}
