//! Values that mean something: addresses, prefixes, names, ports, durations. Each reader returns a valid
//! value or a problem that says what to write instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::document::{Key, Value};
use crate::snapshot::{Mode, PortMapping};
use crate::status::ConfigProblem;

/// Longest name of a pool, backend or service: fits one column of a terminal table.
const NAME_MAX: usize = 63;
/// Longest NIC name: the kernel's `IFNAMSIZ` less the closing zero.
const NIC_NAME_MAX: usize = 15;
/// Shortest and longest idle time, in seconds: the flow table counts whole seconds, and a flow that is idle
/// for more than a day is not worth its entry.
const TIMEOUT_S: RangeInclusive<u64> = 1..=86_400;

/// The name of a service or backend.
pub fn name(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let text = value.string("\"web1\"")?;
    checked_name(text).map_err(|reason| value.problem(reason))
}

/// The name of a pool, which is a key.
pub fn key_name(key: &Key<'_>) -> Result<String, ConfigProblem> {
    checked_name(key.name).map_err(|reason| key.problem(reason))
}

fn checked_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if text.is_empty() {
        return Err("the name is empty; write one such as \"web\"".into());
    }
    if text.len() > NAME_MAX {
        return Err(format!("the name has {} characters; write at most {NAME_MAX}", text.len()));
    }
    if !text.bytes().all(allowed) {
        return Err(format!(
            "`{}` is not a name; use letters, digits, `-`, `_` and `.` only",
            text.escape_debug()
        ));
    }
    Ok(text.into())
}

/// The kernel's name of a NIC.
pub fn nic_name(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let text = value.string("\"eth1\"")?;
    let refused = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b.is_ascii_control();
    if text.is_empty() || text == "." || text == ".." || text.bytes().any(refused) {
        let reason = format!("`{}` cannot be a NIC's name; `ip link` lists them", text.escape_debug());
        return Err(value.problem(reason));
    }
    if text.len() > NIC_NAME_MAX {
        let reason = format!(
            "`{text}` has {} bytes and a NIC's name at most {NIC_NAME_MAX}; `ip link` lists them",
            text.len()
        );
        return Err(value.problem(reason));
    }
    Ok(text.into())
}

/// A duration such as `"30s"`, in whole seconds.
pub fn timeout_s(value: &Value<'_>) -> Result<u32, ConfigProblem> {
    let text = value.string("\"30s\"")?;
    let duration = humantime::parse_duration(text).map_err(|_| value.problem(not_a_duration(text)))?;
    if duration.subsec_nanos() != 0 {
        return Err(value.problem(format!("`{text}` is not whole seconds; write one such as \"2s\"")));
    }
    if !TIMEOUT_S.contains(&duration.as_secs()) {
        return Err(value.problem(format!("`{text}` is out of range; write from \"1s\" to \"1day\"")));
    }
    Ok(u32::try_from(duration.as_secs()).expect("a day fits"))
}

/// A duration such as `"500ms"` in a range.
pub fn duration(value: &Value<'_>, range: RangeInclusive<Duration>) -> Result<Duration, ConfigProblem> {
    let text = value.string("\"2s\"")?;
    let duration = humantime::parse_duration(text).map_err(|_| value.problem(not_a_duration(text)))?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let [low, high] = [range.start(), range.end()].map(|end| humantime::format_duration(*end));
    Err(value.problem(format!("`{text}` is out of range; write from \"{low}\" to \"{high}\"")))
}

fn not_a_duration(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return format!("`{text}` has no unit; write \"{text}s\" if seconds are meant");
    }
    format!("`{}` is not a duration; write one such as \"30s\", \"15m\" or \"3h\"", text.escape_debug())
}

/// An address that a machine or a VIP can have.
pub fn address(value: &Value<'_>) -> Result<IpAddr, ConfigProblem> {
    let text = value.string("\"10.0.1.11\"")?;
    let address = text.parse().map_err(|_| value.problem(not_an_address(text)))?;
    if let Some(v4) = mapped(address) {
        return Err(value.problem(format!("{address} is an IPv4 address in IPv6 form; write \"{v4}\"")));
    }
    match unusable(address) {
        Some(kind) => {
            let advice = "write a unicast address that other machines can reach";
            Err(value.problem(format!("{address} is {kind}; {advice}")))
        }
        None => Ok(address),
    }
}

fn not_an_address(text: &str) -> String {
    let alone = |address: &str, rest: &str| {
        format!("`{text}` is more than an address; write \"{address}\" without `{rest}`")
    };
    if let Ok(net) = text.parse::<IpNet>() {
        return alone(&net.addr().to_string(), &format!("/{}", net.prefix_len()));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return alone(&socket.ip().to_string(), &format!(":{}", socket.port()));
    }
    if let Some((Ok(address), zone)) = text.split_once('%').map(|(ip, zone)| (ip.parse::<Ipv6Addr>(), zone)) {
        return format!("{address} needs the zone `{zone}`, which is not supported; write a global address");
    }
    let text = text.escape_debug();
    format!("`{text}` is not an IP address (names are not looked up); write one such as \"10.0.1.11\"")
}

fn mapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    }
}

/// Why no machine can be reached under this address; `None` if one can.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an unspecified address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local and would need a zone"),
        _ if mapped(address).is_some() => Some("an IPv4 address in IPv6 form"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// An IPv4 prefix whose addresses may be sources.
pub fn prefix_v4(value: &Value<'_>) -> Result<Ipv4Net, ConfigProblem> {
    match prefix(value, "\"10.200.0.0/16\"")? {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(net) => Err(value.problem(format!("{net} is IPv6; write it as source_v6"))),
    }
}

/// An IPv6 prefix whose addresses may be sources.
pub fn prefix_v6(value: &Value<'_>) -> Result<Ipv6Net, ConfigProblem> {
    match prefix(value, "\"fd00:200::/64\"")? {
        IpNet::V6(net) => Ok(net),
        IpNet::V4(net) => Err(value.problem(format!("{net} is IPv4; write it as source_v4"))),
    }
}

/// A prefix that clients come from; an address alone is that address only.
pub fn source_range(value: &Value<'_>) -> Result<IpNet, ConfigProblem> {
    let example = "\"192.0.2.0/24\"";
    let net = match value.string(example)?.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => network(value, example)?,
    };
    match mapped(net.network()) {
        Some(v4) => {
            // Without host bits it fixes at least the 96 bits that say so.
            let written = Ipv4Net::new_assert(v4, net.prefix_len() - 96);
            Err(value.problem(format!("{net} is an IPv4 prefix in IPv6 form; write \"{written}\"")))
        }
        None => Ok(net),
    }
}

/// A prefix without host bits.
fn network(value: &Value<'_>, example: &str) -> Result<IpNet, ConfigProblem> {
    let text = value.string(example)?;
    let net: IpNet = text.parse().map_err(|_| {
        value.problem(format!("`{}` is not a prefix; write one such as {example}", text.escape_debug()))
    })?;
    if net != net.trunc() {
        return Err(value.problem(format!("{net} has host bits; write \"{}\"", net.trunc())));
    }
    Ok(net)
}

fn prefix(value: &Value<'_>, example: &str) -> Result<IpNet, ConfigProblem> {
    let net = network(value, example)?;
    match unusable(net.network()).or_else(|| unusable(net.broadcast())) {
        Some(kind) => Err(value.problem(format!(
            "{net} contains {kind}; write a prefix of unicast addresses that routes back to this box"
        ))),
        None => Ok(net),
    }
}

/// A protocol and port such as `"tcp/80"`, or with the port of `nat` backends as in `"tcp/80:30080"`.
pub fn port_mapping(value: &Value<'_>) -> Result<PortMapping, ConfigProblem> {
    let text = value.string("\"tcp/80\"")?;
    PortMapping::try_from(text.to_owned()).map_err(|error| value.problem(error.to_string()))
}

/// A forwarding mode.
pub fn mode(value: &Value<'_>) -> Result<Mode, ConfigProblem> {
    value.one_of(&[("dr", Mode::Dr), ("ipip", Mode::Ipip), ("nat", Mode::Nat)])
}

/// A power of two in a range that begins and ends with one.
pub fn power_of_two(value: &Value<'_>, range: RangeInclusive<u32>) -> Result<u32, ConfigProblem> {
    let number = value.integer(range)?;
    if number.is_power_of_two() {
        return Ok(number);
    }
    let above = number.next_power_of_two();
    Err(value.problem(format!("{number} is not a power of two; write {} or {above}", above / 2)))
}

/// A prime in a range that begins and ends with one.
pub fn prime(value: &Value<'_>, range: RangeInclusive<u32>) -> Result<u32, ConfigProblem> {
    let number = value.integer(range.clone())?;
    if is_prime(number) {
        return Ok(number);
    }
    let above = (number..=*range.end()).find(|n| is_prime(*n)).expect("the range ends with a prime");
    Err(value.problem(format!("{number} is not a prime; the next one is {above}")))
}

/// Whether a number has no divisor but 1 and itself.
pub fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// A path; a relative one starts at the directory of the configuration file.
pub fn path(value: &Value<'_>, file: &str, example: &str) -> Result<PathBuf, ConfigProblem> {
    let text = value.string(example)?;
    if text.is_empty() {
        return Err(value.problem(format!("the path is empty; write one such as {example}")));
    }
    Ok(Path::new(file).parent().unwrap_or(Path::new("")).join(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_composites() {
        let primes: Vec<u32> = (0..30).filter(|n| is_prime(*n)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(251) && is_prime(65_537) && is_prime(655_373) && !is_prime(65_536));
    }

    #[test]
    fn addresses_no_machine_can_have_are_told_apart() {
        let usable = ["10.0.0.1", "169.254.1.1", "203.0.113.255", "2001:db8::1", "fd00::1"];
        let refused = ["0.0.0.0", "0.1.2.3", "127.0.0.2", "224.0.0.1", "255.255.255.255"];
        let refused_v6 = ["::", "::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1"];
        for text in usable {
            assert_eq!(unusable(text.parse().unwrap()), None, "{text}");
        }
        for text in refused.iter().chain(&refused_v6) {
            assert!(unusable(text.parse().unwrap()).is_some(), "{text}");
        }
    }
}
