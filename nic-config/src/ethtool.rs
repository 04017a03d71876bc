//! What a driver tells and takes through `SIOCETHTOOL` (linux/ethtool.h): its name, queues, rings and link
//! speed; how it spreads packets over its queues, and its steering rules.
//!
//! The newer netlink form of ethtool does not tell the driver's name, knows no steering rules, and spreads
//! packets since Linux 6.17 only; and sysfs shows the network namespace it was mounted in rather than ours.
//! The ioctl has none of these faults. What netlink sets well is in `settings.rs`.
#![allow(unsafe_code)] // ioctl

pub mod rss;
pub mod rules;
mod words;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};
use serde::Serialize;

use self::rss::{Change, Rss};
use self::rules::Rule;
use self::words::{number, number_64, put, put_64};

/// Longest interface name, without the final zero byte.
const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;
/// What the kernel writes for a speed that the driver does not know.
const SPEED_UNKNOWN: u32 = u32::MAX;

/// What to ask for. Its size is the size of the structure that the kernel fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// `struct ethtool_drvinfo`.
    Driver,
    /// `struct ethtool_ringparam`.
    Rings,
    /// `struct ethtool_channels`.
    Channels,
    /// `struct ethtool_link_settings` with three bit masks of so many words.
    Link { mask_words: u8 },
}

impl Question {
    const fn command(self) -> u32 {
        match self {
            Self::Driver => 0x03,
            Self::Rings => 0x10,
            Self::Channels => 0x3c,
            Self::Link { .. } => 0x4c,
        }
    }

    const fn size_bytes(self) -> usize {
        match self {
            Self::Driver => 196,
            Self::Rings | Self::Channels => 36,
            Self::Link { mask_words } => 48 + 3 * 4 * mask_words as usize,
        }
    }

    /// The structure as the kernel wants to find it.
    fn request(self) -> Vec<u8> {
        let mut structure = vec![0; self.size_bytes()];
        structure[..4].copy_from_slice(&self.command().to_ne_bytes());
        if let Self::Link { mask_words } = self {
            structure[LINK_MASK_WORDS] = mask_words;
        }
        structure
    }
}

/// Where `link_mode_masks_nwords` lies in `struct ethtool_link_settings`.
const LINK_MASK_WORDS: usize = 15;

/// Who drives an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Of the driver.
    pub name: String,
    /// Where the device is plugged in, e.g. `0000:01:00.0`; `None` for software devices.
    pub bus_address: Option<String>,
}

/// How many there are and how many there could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity {
    /// Now.
    pub current: u32,
    /// At most.
    pub max: u32,
}

/// Queues by what they do; `None` where the driver has no such kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// Receive and transmit together.
    pub combined: Option<Quantity>,
    /// Receive only.
    pub rx: Option<Quantity>,
    /// Transmit only.
    pub tx: Option<Quantity>,
}

/// Descriptors per queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rings {
    /// Receive.
    pub rx: Option<Quantity>,
    /// Transmit.
    pub tx: Option<Quantity>,
}

/// A way to ask drivers of this network namespace.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    /// Any socket will do; it fixes the network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: socket(AddressFamily::INET, SocketType::DGRAM, None)? })
    }

    /// The driver; `None` if it does not tell.
    pub fn driver(&self, interface: &str) -> io::Result<Option<Driver>> {
        Ok(self.ask(interface, Question::Driver)?.and_then(|answer| driver(&answer)))
    }

    /// Queues; `None` if the driver does not tell.
    pub fn queues(&self, interface: &str) -> io::Result<Option<Queues>> {
        Ok(self.ask(interface, Question::Channels)?.map(|answer| queues(&answer)))
    }

    /// Rings; `None` if the driver does not tell.
    pub fn rings(&self, interface: &str) -> io::Result<Option<Rings>> {
        Ok(self.ask(interface, Question::Rings)?.map(|answer| rings(&answer)))
    }

    /// Megabits per second; `None` if the driver does not tell or the link is down.
    pub fn speed_mbps(&self, interface: &str) -> io::Result<Option<u32>> {
        // The kernel answers the first question with the length of its bit masks alone, negated.
        let first = Question::Link { mask_words: 0 }.request();
        let Some(first) = told(self.exchange(interface, first))? else { return Ok(None) };
        let mask_words = first[LINK_MASK_WORDS].cast_signed().unsigned_abs();
        let second = Question::Link { mask_words }.request();
        Ok(told(self.exchange(interface, second))?.and_then(|answer| speed_mbps(&answer)))
    }

    /// How it spreads packets; `None` if it does not tell or has one queue only.
    pub fn rss(&self, interface: &str) -> io::Result<Option<Rss>> {
        let first = told(self.exchange(interface, rss::request(RSS_GET, 0, 0)))?;
        let Some(first) = first else { return Ok(None) };
        let (slots, key_bytes) = rss::sizes(&first);
        if slots.max(key_bytes) > RSS_PARTS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let answer = self.exchange(interface, rss::request(RSS_GET, slots, key_bytes))?;
        Ok(answer.as_deref().and_then(rss::read).filter(|rss| !rss.table.is_empty()))
    }

    /// Changes how it spreads packets.
    pub fn set_rss(&self, interface: &str, change: Change<'_>) -> io::Result<()> {
        let now = self.rss(interface)?.ok_or(io::ErrorKind::Unsupported)?;
        self.command(interface, rss::change(RSS_SET, &now, change))
    }

    /// The fields that it hashes of packets of a `flow_type`; `None` if it does not tell.
    pub fn hash_fields(&self, interface: &str, flow_type: u32) -> io::Result<Option<u64>> {
        let answer = told(self.exchange(interface, hash_fields(HASH_FIELDS_GET, flow_type, 0)))?;
        Ok(answer.map(|answer| number_64(&answer, HASHED)))
    }

    /// Changes the fields that it hashes.
    pub fn set_hash_fields(&self, interface: &str, flow_type: u32, fields: u64) -> io::Result<()> {
        self.command(interface, hash_fields(HASH_FIELDS_SET, flow_type, fields))
    }

    /// Places of all steering rules, each with its rule if it is one that we understand, and how many fit;
    /// `None` if it has none.
    pub fn rules(&self, interface: &str) -> io::Result<Option<RuleTable>> {
        let count = told(self.exchange(interface, rules::request(RULES_COUNT, 0)))?;
        let Some(count) = count.as_deref().map(rules::count) else { return Ok(None) };
        if count > RULES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let listing = self.exchange(interface, rules::request(RULES_LIST, count))?;
        let Some(listing) = listing else { return Ok(None) };
        let mut table = RuleTable { capacity: rules::capacity(&listing), rules: Vec::new() };
        for place in rules::places(&listing) {
            let answer = told(self.exchange(interface, rules::about(RULE_GET, place)))?;
            table.rules.push((place, answer.as_deref().and_then(rules::rule)));
        }
        Ok(Some(table))
    }

    /// Puts a steering rule in a place, or empties it.
    pub fn set_rule(&self, interface: &str, place: u32, rule: Option<&Rule>) -> io::Result<()> {
        match rule {
            Some(rule) => self.command(interface, rules::insertion(RULE_INSERT, place, rule)),
            None => self.command(interface, rules::about(RULE_DELETE, place)),
        }
    }

    /// One question; `None` if the driver cannot answer it.
    fn ask(&self, interface: &str, question: Question) -> io::Result<Option<Vec<u8>>> {
        self.exchange(interface, question.request())
    }

    /// A change; an error if the driver cannot do it.
    fn command(&self, interface: &str, structure: Vec<u8>) -> io::Result<()> {
        let unsupported = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        self.exchange(interface, structure)?.map(drop).ok_or_else(unsupported)
    }

    /// Lets the kernel read and fill a structure; `None` if the driver does not know the command.
    fn exchange(&self, interface: &str, mut structure: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let name = interface.as_bytes();
        if name.len() > NAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: structure.as_mut_ptr().cast() },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        // SAFETY: `request` is a valid `struct ifreq` whose name ends with a zero byte, and `ifru_data`
        // points at `structure`, which outlives the call and is as large as the largest structure that the
        // kernel reads or writes for this command: `Question::request`, `rss::{request, change}`,
        // `rules::{request, about, insertion}` and `hash_fields`, which alone make structures, write into
        // them a command together with its size, and the lengths of the arrays that they have room for.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result >= 0 {
            return Ok(Some(structure));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(None) } else { Err(error) }
    }
}

/// An answer, or `None` if the driver says that it has none now: of a `flow_type` it does not know (EINVAL),
/// while it does not steer (EINVAL, mlx4), while the interface is down (ENETDOWN), or before it has found what
/// is behind its plug (ENODEV, phylib), of a rule that somebody took out (ENOENT). An interface that is gone is
/// not among the links when it is looked for again.
fn told(answer: io::Result<Option<Vec<u8>>>) -> io::Result<Option<Vec<u8>>> {
    let none = [libc::EINVAL, libc::ENETDOWN, libc::ENODEV, libc::ENOENT];
    match answer {
        Err(error) if error.raw_os_error().is_some_and(|errno| none.contains(&errno)) => Ok(None),
        answer => answer,
    }
}

/// Commands of which `rss` and `rules` make the structures.
const HASH_FIELDS_GET: u32 = 0x29;
const HASH_FIELDS_SET: u32 = 0x2a;
const RULES_COUNT: u32 = 0x2e;
const RULE_GET: u32 = 0x2f;
const RULES_LIST: u32 = 0x30;
const RULE_DELETE: u32 = 0x31;
const RULE_INSERT: u32 = 0x32;
const RSS_GET: u32 = 0x46;
const RSS_SET: u32 = 0x47;
/// More slots or bytes of key, or more rules, than any NIC has: a driver that says so is not believed.
const RSS_PARTS_MAX: u32 = 1 << 16;
const RULES_MAX: usize = 1 << 16;

/// Steering rules of a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTable {
    /// How many fit.
    pub capacity: u32,
    /// Place, and rule if it is one that we understand.
    pub rules: Vec<(u32, Option<Rule>)>,
}

const FLOW_TYPE: usize = 4;
const HASHED: usize = 8;

/// `struct ethtool_rxnfc` about hash fields: command, `flow_type`, then the fields as 64 bits.
fn hash_fields(command: u32, flow_type: u32, fields: u64) -> Vec<u8> {
    let mut structure = rules::request(command, 0);
    put(&mut structure, FLOW_TYPE, flow_type);
    put_64(&mut structure, HASHED, fields);
    structure
}

/// `struct ethtool_drvinfo`: command, then five fields of 32 characters, of which the first is the driver
/// and the fourth the bus address.
fn driver(answer: &[u8]) -> Option<Driver> {
    let name = text(&answer[4..36]).filter(|name| !name.is_empty())?;
    let bus_address = text(&answer[100..132]).filter(|address| !address.is_empty() && address != "N/A");
    Some(Driver { name, bus_address })
}

/// `struct ethtool_channels`: command; most rx, tx, other, combined; then the same now.
fn queues(answer: &[u8]) -> Queues {
    let quantity =
        |max: usize, current: usize| quantity(number(answer, 4 * max), number(answer, 4 * current));
    Queues { combined: quantity(4, 8), rx: quantity(1, 5), tx: quantity(2, 6) }
}

/// `struct ethtool_ringparam`: command; most rx, rx mini, rx jumbo, tx; then the same now.
fn rings(answer: &[u8]) -> Rings {
    let quantity =
        |max: usize, current: usize| quantity(number(answer, 4 * max), number(answer, 4 * current));
    Rings { rx: quantity(1, 5), tx: quantity(4, 8) }
}

/// `struct ethtool_link_settings`: command, speed.
fn speed_mbps(answer: &[u8]) -> Option<u32> {
    Some(number(answer, 4)).filter(|&speed| speed != 0 && speed != SPEED_UNKNOWN)
}

/// A driver without queues of a kind says that it can have none.
fn quantity(max: u32, current: u32) -> Option<Quantity> {
    (max > 0).then_some(Quantity { current, max })
}

/// Characters up to the first zero byte.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8(field[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: [u32; 9]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_request_is_the_kernels_structure_in_size() {
        assert_eq!(Question::Driver.request().len(), 4 + 5 * 32 + 12 + 5 * 4);
        let link = Question::Link { mask_words: 4 }.request();
        assert_eq!((link.len(), link[LINK_MASK_WORDS]), (96, 4));
        assert_eq!(number(&link, 0), 0x4c);
    }

    #[test]
    fn a_driver_has_a_name_and_perhaps_a_bus_address() {
        let mut answer = Question::Driver.request();
        assert_eq!(driver(&answer), None);
        answer[4..8].copy_from_slice(b"veth");
        assert_eq!(driver(&answer), Some(Driver { name: "veth".to_owned(), bus_address: None }));
        answer[100..112].copy_from_slice(b"0000:01:00.0");
        assert_eq!(driver(&answer).unwrap().bus_address.as_deref(), Some("0000:01:00.0"));
        answer[4..36].fill(b'x');
        assert_eq!(driver(&answer).unwrap().name.len(), 32);
    }

    #[test]
    fn queues_and_rings_keep_their_kinds_apart() {
        let channels = words([0x3c, 5, 6, 1, 8, 2, 3, 1, 4]);
        let expected = Queues {
            combined: Some(Quantity { current: 4, max: 8 }),
            rx: Some(Quantity { current: 2, max: 5 }),
            tx: Some(Quantity { current: 3, max: 6 }),
        };
        assert_eq!(queues(&channels), expected);
        let only_combined = queues(&words([0x3c, 0, 0, 1, 8, 0, 0, 1, 4]));
        assert_eq!((only_combined.rx, only_combined.tx), (None, None));

        let ringparam = words([0x10, 4096, 0, 0, 2048, 512, 0, 0, 256]);
        let expected = Rings {
            rx: Some(Quantity { current: 512, max: 4096 }),
            tx: Some(Quantity { current: 256, max: 2048 }),
        };
        assert_eq!(rings(&ringparam), expected);
    }

    #[test]
    fn hash_fields_stand_behind_the_flow_type() {
        let structure = hash_fields(HASH_FIELDS_SET, 2, 0xf0);
        assert_eq!(
            (structure.len(), number(&structure, FLOW_TYPE), number_64(&structure, HASHED)),
            (192, 2, 0xf0)
        );
    }

    #[test]
    fn what_a_driver_does_not_have_now_is_no_error() {
        let failed = |errno| told(Err(io::Error::from_raw_os_error(errno)));
        assert!(
            [libc::EINVAL, libc::ENETDOWN, libc::ENODEV].map(failed).iter().all(|it| matches!(it, Ok(None)))
        );
        assert!(failed(libc::EPERM).is_err() && matches!(told(Ok(Some(vec![1]))), Ok(Some(_))));
    }

    #[test]
    fn an_unknown_speed_is_none() {
        for (speed, expected) in [(25_000, Some(25_000)), (0, None), (SPEED_UNKNOWN, None)] {
            assert_eq!(speed_mbps(&words([0x4c, speed, 0, 0, 0, 0, 0, 0, 0])), expected);
        }
    }
}
