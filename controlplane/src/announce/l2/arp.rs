//! ARP over Ethernet for IPv4 (RFC 826), and announcements by it (RFC 5227). Pure.

use std::net::Ipv4Addr;

use shunt_api::mac::MacAddress;

use super::frame::{self, BROADCAST, Ethernet};

/// Ethernet, IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of a message.
pub const LENGTH: usize = 28;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has its address.
    Reply,
}

/// A message. The sender says of itself that it has `sender`; 0.0.0.0 says nothing (a probe of RFC 5227).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Never a group.
    pub sender_mac: MacAddress,
    /// What the sender has.
    pub sender: Ipv4Addr,
    /// Of no meaning in a request.
    pub target_mac: MacAddress,
    /// What is asked for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// `None` for anything but a request or reply of this kind, by a station.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let message = message.first_chunk::<LENGTH>()?;
        if message[..6] != KIND {
            return None;
        }
        let operation = match frame::u16_at(message, 6)? {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let sender_mac = frame::mac_at(message, 8).filter(|mac| frame::is_station(*mac))?;
        Some(Self {
            operation,
            sender_mac,
            sender: frame::ipv4_at(message, 14)?,
            target_mac: frame::mac_at(message, 18)?,
            target: frame::ipv4_at(message, 24)?,
        })
    }

    /// Says to whoever asked that `own` has what it asked for.
    pub fn answer(&self, own: MacAddress) -> Vec<u8> {
        let answer = Self {
            operation: Operation::Reply,
            sender_mac: own,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        };
        answer.frame(self.sender_mac)
    }

    /// A frame from the sender.
    pub fn frame(&self, destination: MacAddress) -> Vec<u8> {
        let operation = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut message = Vec::with_capacity(LENGTH);
        message.extend(KIND);
        message.extend([0, operation]);
        message.extend(self.sender_mac.0);
        message.extend(self.sender.octets());
        message.extend(self.target_mac.0);
        message.extend(self.target.octets());
        Ethernet { destination, source: self.sender_mac, ethertype: frame::ARP, payload: &message }.bytes()
    }
}

/// Tells all stations that `own` has the address: as a request, which RFC 5227 §3 recommends and Linux heeds, and
/// as a reply, because some machines heed nothing else. In the reply both Ethernet addresses are the same, or
/// Linux does not take it for an announcement.
pub fn announcements(address: Ipv4Addr, own: MacAddress) -> [Vec<u8>; 2] {
    let request = Arp {
        operation: Operation::Request,
        sender_mac: own,
        sender: address,
        target_mac: MacAddress::default(),
        target: address,
    };
    let reply = Arp { operation: Operation::Reply, target_mac: own, ..request };
    [request.frame(BROADCAST), reply.frame(BROADCAST)]
}

/// Asks whether another station has the address (the probe of RFC 5227 §2.1.1). That nobody is named as its sender
/// keeps it out of every cache, and is what makes Linux answer: a request by the address itself it would drop.
pub fn probe(address: Ipv4Addr, own: MacAddress) -> Vec<u8> {
    let probe = Arp {
        operation: Operation::Request,
        sender_mac: own,
        sender: Ipv4Addr::UNSPECIFIED,
        target_mac: MacAddress::default(),
        target: address,
    };
    probe.frame(BROADCAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn request() -> Arp {
        Arp {
            operation: Operation::Request,
            sender_mac: PEER,
            sender: Ipv4Addr::new(192, 0, 2, 9),
            target_mac: MacAddress::default(),
            target: Ipv4Addr::new(192, 0, 2, 10),
        }
    }

    fn message(frame: &[u8]) -> Arp {
        Arp::parse(Ethernet::parse(frame).unwrap().payload).unwrap()
    }

    #[test]
    fn a_request_is_answered_to_who_asked() {
        let frame = request().answer(OWN);
        let ethernet = Ethernet::parse(&frame).unwrap();
        assert_eq!((ethernet.destination, ethernet.source, ethernet.ethertype), (PEER, OWN, frame::ARP));
        let answer = message(&frame);
        assert_eq!((answer.operation, answer.sender_mac), (Operation::Reply, OWN));
        assert_eq!((answer.sender, answer.target), (request().target, request().sender));
        assert_eq!(answer.target_mac, PEER);
    }

    #[test]
    fn a_probe_is_answered_to_its_ethernet_address() {
        let answer = message(&Arp { sender: Ipv4Addr::UNSPECIFIED, ..request() }.answer(OWN));
        assert_eq!((answer.sender, answer.target), (request().target, Ipv4Addr::UNSPECIFIED));
        assert_eq!(answer.target_mac, PEER);
    }

    #[test]
    fn an_announcement_names_the_address_twice() {
        let frames = announcements(request().target, OWN);
        let forms = frames.each_ref().map(|frame| {
            assert_eq!(Ethernet::parse(frame).unwrap().destination, BROADCAST);
            let said = message(frame);
            assert_eq!(
                (said.sender_mac, said.sender, said.target),
                (OWN, request().target, request().target)
            );
            said.operation
        });
        assert_eq!(forms, [Operation::Request, Operation::Reply]);
        assert_eq!(message(&frames[1]).target_mac, OWN);
    }

    #[test]
    fn a_probe_asks_all_and_says_nothing_of_who_has_the_address() {
        let frame = probe(request().target, OWN);
        let ethernet = Ethernet::parse(&frame).unwrap();
        assert_eq!((ethernet.destination, ethernet.source), (BROADCAST, OWN));
        let expected = Arp { sender: Ipv4Addr::UNSPECIFIED, sender_mac: OWN, ..request() };
        assert_eq!(message(&frame), expected);
    }

    #[test]
    fn other_messages_are_refused() {
        let whole = request().frame(BROADCAST)[frame::HEADER..].to_vec();
        assert_eq!(Arp::parse(&whole), Some(request()));
        assert_eq!(Arp::parse(&whole[..LENGTH - 1]), None);
        // Hardware, protocol, lengths, operation, and a sender that is a group.
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (7, 0), (8, 1)] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(Arp::parse(&bytes), None, "byte {at} is {value}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(arp) = Arp::parse(&bytes) {
                prop_assert_eq!(Arp::parse(&arp.frame(BROADCAST)[frame::HEADER..]), Some(arp));
            }
        }
    }
}
