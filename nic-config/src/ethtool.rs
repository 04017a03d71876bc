//! What a driver tells through `SIOCETHTOOL` (linux/ethtool.h): its name, queues, rings and link speed.
//!
//! The newer netlink form of ethtool does not tell the driver's name, and sysfs shows the network namespace
//! it was mounted in rather than ours; the ioctl has neither fault.
#![allow(unsafe_code)] // ioctl

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};
use serde::Serialize;

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
        let Some(first) = self.ask(interface, Question::Link { mask_words: 0 })? else { return Ok(None) };
        let mask_words = first[LINK_MASK_WORDS].cast_signed().unsigned_abs();
        Ok(self.ask(interface, Question::Link { mask_words })?.and_then(|answer| speed_mbps(&answer)))
    }

    /// One question; `None` if the driver cannot answer it.
    fn ask(&self, interface: &str, question: Question) -> io::Result<Option<Vec<u8>>> {
        let name = interface.as_bytes();
        if name.len() > NAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut structure = question.request();
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: structure.as_mut_ptr().cast() },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        // SAFETY: `request` is a valid `struct ifreq` whose name ends with a zero byte, and `ifru_data`
        // points at `structure`, which outlives the call and is as large as the largest structure that the
        // kernel reads or writes for this command: both sizes come from the same `Question`.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result >= 0 {
            return Ok(Some(structure));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(None) } else { Err(error) }
    }
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
    let quantity = |max, current| quantity(number(answer, max), number(answer, current));
    Queues { combined: quantity(4, 8), rx: quantity(1, 5), tx: quantity(2, 6) }
}

/// `struct ethtool_ringparam`: command; most rx, rx mini, rx jumbo, tx; then the same now.
fn rings(answer: &[u8]) -> Rings {
    let quantity = |max, current| quantity(number(answer, max), number(answer, current));
    Rings { rx: quantity(1, 5), tx: quantity(4, 8) }
}

/// `struct ethtool_link_settings`: command, speed.
fn speed_mbps(answer: &[u8]) -> Option<u32> {
    Some(number(answer, 1)).filter(|&speed| speed != 0 && speed != SPEED_UNKNOWN)
}

/// A driver without queues of a kind says that it can have none.
fn quantity(max: u32, current: u32) -> Option<Quantity> {
    (max > 0).then_some(Quantity { current, max })
}

/// The 32-bit word at this place, in the machine's byte order.
fn number(answer: &[u8], word: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&answer[4 * word..4 * word + 4]);
    u32::from_ne_bytes(bytes)
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
    fn an_unknown_speed_is_none() {
        for (speed, expected) in [(25_000, Some(25_000)), (0, None), (SPEED_UNKNOWN, None)] {
            assert_eq!(speed_mbps(&words([0x4c, speed, 0, 0, 0, 0, 0, 0, 0])), expected);
        }
    }
}
