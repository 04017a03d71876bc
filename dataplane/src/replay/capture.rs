//! Captures: read as a stream, pcap and pcapng, and written as pcap
//! (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng). Memory does not grow with the file.

mod interface;
mod writer;

use std::io::{self, Read};
use std::time::Duration;

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use interface::{ETHERNET, Interface};
pub use writer::Writer;

/// Bytes read at once. It grows where a single block is larger.
const BUFFER: usize = 1 << 16;

/// Largest block of a capture; a larger one is damage, or no capture at all.
const BLOCK_MAX: usize = 16 << 20;

/// Type of the block that held packets before there were enhanced packet blocks (pcapng, appendix A).
const OBSOLETE_PACKET: u32 = 2;

/// How fine a capture's times are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Microseconds.
    Micro,
    /// Nanoseconds, or whatever else is finer than microseconds.
    Nano,
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Since 1970, UTC.
    pub time: Duration,
    /// From the Ethernet header on, as far as captured.
    pub bytes: &'a [u8],
    /// Bytes that the packet had.
    pub length: u32,
}

impl Record<'_> {
    /// Whether the packet had more bytes than were captured.
    pub fn is_cut(&self) -> bool {
        self.bytes.len() < self.length as usize
    }
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Neither format.
    #[error("this is no capture; give a pcap or pcapng file, not compressed, such as `tcpdump -w` writes")]
    NotACapture,
    /// The frames have no Ethernet header.
    #[error(
        "its packets have link type {0} and Shunt reads Ethernet (1) alone; capture on one NIC, \
         `tcpdump -i eth1 -s 0 -w FILE`, not with `-i any`"
    )]
    LinkType(i32),
    /// What stands there cannot be.
    #[error("it is damaged {0} bytes after its start; what comes before can be saved with `editcap`")]
    Damaged(usize),
    /// A form of pcapng from before 2009.
    #[error("it is of an early form of pcapng; `editcap -F pcap IN OUT` makes a pcap file of it")]
    Obsolete,
    /// The operating system does not give more of it.
    #[error("it cannot be read any further; is the disk well, or the program that writes it?")]
    Read,
}

/// A capture that is being read.
pub struct Capture {
    blocks: Box<dyn PcapReaderIterator + Send>,
    room: usize,
    state: State,
    /// The packet in `state` was read, but not yet asked for.
    is_ahead: bool,
    is_cut_short: bool,
}

/// What the blocks read so far say.
#[derive(Default)]
struct State {
    interfaces: Vec<Interface>,
    is_big_endian: bool,
    time: Duration,
    bytes: Vec<u8>,
    length: u32,
}

impl Capture {
    /// Begins to read, up to the first packet.
    pub fn open(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let blocks = create_reader(BUFFER, Full(source)).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Read,
            _ => CaptureError::NotACapture,
        })?;
        let mut capture =
            Self { blocks, room: BUFFER, state: State::default(), is_ahead: false, is_cut_short: false };
        capture.is_ahead = capture.advance()?;
        Ok(capture)
    }

    /// How fine the times are that were seen so far.
    pub fn precision(&self) -> Precision {
        let is_nano = self.state.interfaces.iter().any(|interface| interface.precision() == Precision::Nano);
        if is_nano { Precision::Nano } else { Precision::Micro }
    }

    /// The next packet; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        if !std::mem::take(&mut self.is_ahead) && !self.advance()? {
            return Ok(None);
        }
        let State { time, length, ref bytes, .. } = self.state;
        Ok(Some(Record { time, bytes, length }))
    }

    /// The capture ended in the middle of a packet, as when the program that wrote it was killed.
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// Reads on to the next packet. `false` at the end.
    fn advance(&mut self) -> Result<bool, CaptureError> {
        loop {
            match self.blocks.next() {
                Ok((length, block)) => {
                    let is_packet = self.state.take(&block)?;
                    self.blocks.consume(length);
                    if is_packet {
                        return Ok(true);
                    }
                }
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::UnexpectedEof) => {
                    self.is_cut_short = true;
                    return Ok(false);
                }
                Err(PcapError::Incomplete(_)) => {
                    self.blocks.refill().map_err(|_| CaptureError::Read)?;
                }
                Err(PcapError::BufferTooSmall) if self.room < BLOCK_MAX => {
                    self.room *= 2;
                    self.blocks.grow(self.room);
                }
                Err(_) => return Err(CaptureError::Damaged(self.blocks.consumed())),
            }
        }
    }
}

impl State {
    /// Takes a block in. Returns whether it was a packet.
    fn take(&mut self, block: &PcapBlockOwned<'_>) -> Result<bool, CaptureError> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => self.interfaces = vec![Interface::legacy(header)],
            PcapBlockOwned::Legacy(packet) => {
                let fraction = self.interface(0)?.duration(packet.ts_usec.into());
                let time = Duration::from_secs(packet.ts_sec.into()) + fraction;
                self.keep(time, packet.data, packet.origlen);
                return Ok(true);
            }
            PcapBlockOwned::NG(block) => return self.take_new(block),
        }
        Ok(false)
    }

    /// Likewise, a block of pcapng.
    fn take_new(&mut self, block: &Block<'_>) -> Result<bool, CaptureError> {
        match block {
            Block::SectionHeader(section) => {
                self.interfaces.clear();
                self.is_big_endian = section.big_endian();
            }
            Block::InterfaceDescription(description) => {
                self.interfaces.push(Interface::described(description, self.is_big_endian));
            }
            Block::EnhancedPacket(packet) => {
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let time = self.interface(packet.if_id)?.time(units);
                self.keep(time, packet.packet_data(), packet.origlen);
                return Ok(true);
            }
            Block::SimplePacket(packet) => {
                let captured = self.interface(0)?.captured(packet.origlen);
                let bytes = packet.packet_data();
                // It has no time of its own.
                self.keep(self.time, &bytes[..captured.min(bytes.len())], packet.origlen);
                return Ok(true);
            }
            Block::Unknown(block) if block.block_type == OBSOLETE_PACKET => {
                return Err(CaptureError::Obsolete);
            }
            _ => {}
        }
        Ok(false)
    }

    /// What a packet came in by, if that is Ethernet.
    fn interface(&self, index: u32) -> Result<&Interface, CaptureError> {
        let interface = self.interfaces.get(index as usize).ok_or(CaptureError::NotACapture)?;
        if interface.link_type != ETHERNET {
            return Err(CaptureError::LinkType(interface.link_type));
        }
        Ok(interface)
    }

    fn keep(&mut self, time: Duration, bytes: &[u8], length: u32) {
        (self.time, self.length) = (time, length);
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

/// Fills every buffer as far as the source goes: the parser takes a short read for all there is of a header.
struct Full<R>(R);

impl<R: Read> Read for Full<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
