//! Packet sockets, one for each thing that is listened for on a NIC.
//!
//! Each is bound to one EtherType and filters in the kernel, so that this process is woken for what it reads and
//! nothing else, and the traffic that the box sends costs nothing. They are apart so that a flood of ARP requests
//! crowds out no advertisement. They see what the NIC's XDP program passes to the kernel, which ARP, neighbour
//! discovery and multicast always are, and they see it before any packet filter of the kernel could drop it.
//!
//! Only frames without a tag and for this station are read: a VLAN is a NIC of its own.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use nix::sys::socket::{LinkAddr, bind};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::frame;

/// What is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All ARP.
    Arp,
    /// Neighbour solicitations and advertisements.
    Ndp,
    /// Advertisements of an election over IPv4.
    VrrpV4,
    /// Advertisements of an election over IPv6.
    VrrpV6,
}

impl Kind {
    fn ethertype(self) -> u16 {
        match self {
            Self::Arp => frame::ARP,
            Self::VrrpV4 => frame::IPV4,
            Self::Ndp | Self::VrrpV6 => frame::IPV6,
        }
    }

    /// Byte of the frame and what it may be.
    fn conditions(self) -> &'static [(u32, &'static [u32])] {
        match self {
            Self::Arp => &[],
            // Next header, type.
            Self::Ndp => &[(20, &[58]), (54, &[135, 136])],
            // Protocol, last of the destination.
            Self::VrrpV4 => &[(23, &[112]), (33, &[18])],
            // Next header, last of the destination.
            Self::VrrpV6 => &[(20, &[112]), (53, &[0x12])],
        }
    }
}

/// Opens one that is bound to a NIC. Fails without CAP_NET_RAW.
pub fn open(kind: Kind, nic: &LinkAddr) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(kind.ethertype().to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.attach_filter(&filter(kind))?;
    socket.set_nonblocking(true)?;
    // The address names no protocol, which leaves that of the socket.
    bind(socket.as_raw_fd(), nic)?;
    // What came in before, unfiltered and from everywhere.
    let mut frame = [0; FRAME_MAX];
    while receive(&socket, &mut frame)?.is_some() {}
    Ok(socket)
}

/// No message that is read here is longer; the rest of a frame that is, is cut off.
pub const FRAME_MAX: usize = 1514;

/// The next frame's length, if there is one. That the NIC is down is no error: frames come again with its link.
pub fn receive(mut socket: &Socket, frame: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match socket.read(frame) {
            Ok(length) => return Ok(Some(length)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(None),
                ErrorKind::Interrupted | ErrorKind::NetworkDown => {}
                _ => return Err(error),
            },
        }
    }
}

/// Sends a frame by the NIC that the socket is bound to.
pub fn send(mut socket: &Socket, frame: &[u8]) -> io::Result<()> {
    socket.write(frame).map(drop)
}

/// A classic BPF program (`Documentation/networking/filter.rst`): frames for this
/// station that meet the conditions.
fn filter(kind: Kind) -> Vec<SockFilter> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`.
    const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    /// Of a frame to another station, and of one with the tag of a VLAN that has no device here: the kernel has
    /// taken the tag out by now.
    const OTHER_HOST: u32 = 3;

    let mut program = vec![
        SockFilter::new(LOAD_WORD, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, OTHER_HOST),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    for (at, values) in kind.conditions() {
        program.push(SockFilter::new(LOAD_BYTE, 0, 0, *at));
        for (value, after) in values.iter().zip((0..values.len()).rev()) {
            // Past the other values and the return.
            let skip = u8::try_from(after + 1).expect("few values");
            program.push(SockFilter::new(JUMP_IF_EQUAL, skip, 0, *value));
        }
        program.push(SockFilter::new(RETURN, 0, 0, 0));
    }
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program
}
