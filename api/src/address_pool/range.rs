//! A range of addresses, as people write it: a prefix, two ends, or a single address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses of one family from a first to a last one, both included, all of which a VIP can be.
/// As text a prefix, a range such as `198.51.100.10-198.51.100.20`, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no range, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither form.
    #[error(
        "`{0}` is no range of addresses; write a prefix such as 198.51.100.0/24, \
         a range such as 198.51.100.10-198.51.100.20, or an address"
    )]
    Unknown(String),
    /// A prefix that names a machine in it.
    #[error("{0} has host bits; write \"{net}\", or \"{address}\" for that address alone", net = .0.trunc(), address = .0.addr())]
    HostBits(IpNet),
    /// The ends are of two families.
    #[error("{0} and {1} are of two families; write a range for each")]
    TwoFamilies(IpAddr, IpAddr),
    /// The end comes before the beginning.
    #[error("{0} comes after {1}; write \"{1}-{0}\"")]
    Backwards(IpAddr, IpAddr),
    /// Some of it no machine can have.
    #[error("{0} contains {1}; write unicast addresses that are routed to this box")]
    Unusable(AddressRange, &'static str),
}

/// Blocks that no VIP can come from, by first address and length of the prefix.
const UNUSABLE: [(IpAddr, u32, &str); 9] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8, "unspecified addresses"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, "loopback addresses"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4, "multicast addresses"),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32, "the broadcast address"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128, "the unspecified address"),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, "the loopback address"),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96, "IPv4 addresses in IPv6 form"),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10, "link-local addresses"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "multicast addresses"),
];

impl AddressRange {
    /// The range from one address to another.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(RangeError::TwoFamilies(first, last));
        }
        if first > last {
            return Err(RangeError::Backwards(first, last));
        }
        let range = Self { first, last };
        match UNUSABLE.iter().find(|(block, length, _)| range.overlaps(&Self::block(*block, *length))) {
            Some((_, _, kind)) => Err(RangeError::Unusable(range, kind)),
            None => Ok(range),
        }
    }

    fn block(first: IpAddr, length: u32) -> Self {
        let host_bits = width(first) - length;
        let ones = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
        Self { first, last: at(first.is_ipv4(), number(first) | ones) }
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether its addresses are IPv4.
    pub fn is_v4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        // An IPv4 address comes before every IPv6 address, so the family needs no look of its own.
        (self.first..=self.last).contains(&address)
    }

    /// Whether it has an address in common with another.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many addresses there are.
    pub fn count(&self) -> u128 {
        // Never all of IPv6, which has unusable addresses.
        number(self.last) - number(self.first) + 1
    }

    /// The address so far behind the first; `None` behind the last.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset < self.count()).then(|| at(self.is_v4(), number(self.first) + offset))
    }

    /// How many IPv4 addresses in it end in .0 or .255.
    pub(super) fn edges(&self) -> u128 {
        if !self.is_v4() {
            return 0;
        }
        // Of each 256 addresses two are edges: those up to and with an address, less those before the range.
        let up_to = |end: u128| 2 * (end / 256) + u128::from(!end.is_multiple_of(256));
        up_to(number(self.last) + 1) - up_to(number(self.first))
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn at(v4: bool, number: u128) -> IpAddr {
    if v4 {
        Ipv4Addr::from_bits(u32::try_from(number).expect("an address of the range's family")).into()
    } else {
        Ipv6Addr::from_bits(number).into()
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let unknown = || RangeError::Unknown(text.escape_debug().to_string());
        if let Some((first, last)) = text.split_once('-') {
            let end = |end: &str| end.trim().parse().map_err(|_| unknown());
            return Self::new(end(first)?, end(last)?);
        }
        if let Ok(address) = text.parse() {
            return Self::new(address, address);
        }
        let net: IpNet = text.parse().map_err(|_| unknown())?;
        if net != net.trunc() {
            return Err(RangeError::HostBits(net));
        }
        Self::new(net.network(), net.broadcast())
    }
}

/// The shortest form: an address, a prefix if it is one, or both ends.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            return write!(f, "{first}");
        }
        let differing = number(*first) ^ number(*last);
        let host_bits = 128 - differing.leading_zeros();
        let is_prefix = differing.count_ones() == host_bits && number(*first) & differing == 0;
        if is_prefix {
            return write!(f, "{first}/{}", width(*first) - host_bits);
        }
        write!(f, "{first}-{last}")
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read_and_the_shortest_written() {
        let cases = [
            ("198.51.100.0/24", "198.51.100.0/24", 256),
            ("198.51.100.0-198.51.100.255", "198.51.100.0/24", 256),
            ("198.51.100.10 - 198.51.100.20", "198.51.100.10-198.51.100.20", 11),
            ("198.51.100.1-198.51.100.2", "198.51.100.1-198.51.100.2", 2),
            ("198.51.100.0-198.51.100.2", "198.51.100.0-198.51.100.2", 3),
            ("198.51.100.2-198.51.100.3", "198.51.100.2/31", 2),
            ("198.51.100.7", "198.51.100.7", 1),
            ("198.51.100.7/32", "198.51.100.7", 1),
            ("2001:db8:1::/64", "2001:db8:1::/64", 1 << 64),
            ("2001:DB8::1-2001:db8:0::1", "2001:db8::1", 1),
            ("2000::/3", "2000::/3", 1 << 125),
        ];
        for (written, shown, count) in cases {
            let range = range(written);
            assert_eq!((range.to_string().as_str(), range.count()), (shown, count), "{written}");
            assert_eq!(shown.parse(), Ok(range));
            assert_eq!((range.nth(0), range.nth(count - 1)), (Some(range.first()), Some(range.last())));
            assert_eq!(range.nth(count), None);
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_write() {
        let unknown = |text: &str| {
            format!(
                "`{text}` is no range of addresses; write a prefix such as 198.51.100.0/24, a range such as \
                 198.51.100.10-198.51.100.20, or an address"
            )
        };
        let routed = "write unicast addresses that are routed to this box";
        let cases = [
            ("", unknown("")),
            ("web", unknown("web")),
            ("198.51.100.1-20", unknown("198.51.100.1-20")),
            ("198.51.100.0/33", unknown("198.51.100.0/33")),
            (
                "198.51.100.7/24",
                "198.51.100.7/24 has host bits; write \"198.51.100.0/24\", or \"198.51.100.7\" for that address \
                 alone"
                    .into(),
            ),
            (
                "198.51.100.1-2001:db8::1",
                "198.51.100.1 and 2001:db8::1 are of two families; write a range for each".into(),
            ),
            (
                "198.51.100.9-198.51.100.8",
                "198.51.100.9 comes after 198.51.100.8; write \"198.51.100.8-198.51.100.9\"".into(),
            ),
            ("0.0.0.0/0", format!("0.0.0.0/0 contains unspecified addresses; {routed}")),
            ("100.0.0.0-200.0.0.0", format!("100.0.0.0-200.0.0.0 contains loopback addresses; {routed}")),
            ("255.255.255.255", format!("255.255.255.255 contains the broadcast address; {routed}")),
            ("::/0", format!("::/0 contains the unspecified address; {routed}")),
            ("::1", format!("::1 contains the loopback address; {routed}")),
            ("::ffff:10.0.0.1", format!("::ffff:10.0.0.1 contains IPv4 addresses in IPv6 form; {routed}")),
            ("fe80::/64", format!("fe80::/64 contains link-local addresses; {routed}")),
            ("ff02::1", format!("ff02::1 contains multicast addresses; {routed}")),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<AddressRange>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn edges_are_counted_as_by_looking_at_each() {
        for text in
            ["198.51.100.0", "198.51.100.255", "198.51.100.1-198.51.103.254", "10.0.0.0/16", "10.0.0.7"]
        {
            let range = range(text);
            let edges = (0..range.count())
                .filter(|offset| [0, 255].contains(&((number(range.first) + offset) % 256)));
            assert_eq!(range.edges(), edges.count() as u128, "{text}");
        }
        assert_eq!(range("2001:db8::/64").edges(), 0);
    }

    #[test]
    fn ranges_of_two_families_have_nothing_in_common() {
        let (v4, v6) = (range("198.51.100.0/24"), range("2001:db8::/64"));
        assert!(!v4.overlaps(&v6) && !v6.overlaps(&v4) && !v6.contains(v4.first()) && v4.overlaps(&v4));
        assert!(v4.contains(v4.last()) && !v4.contains("198.51.101.0".parse().unwrap()));
    }

    #[test]
    fn its_form_in_json_is_text() {
        let range = range("198.51.100.0/24");
        assert_eq!(serde_json::to_string(&range).unwrap(), "\"198.51.100.0/24\"");
        assert_eq!(serde_json::from_str::<AddressRange>("\"198.51.100.0/24\"").unwrap(), range);
        assert!(serde_json::from_str::<AddressRange>("\"198.51.100.1/24\"").is_err());
    }
}
