//! Writes pcap files (draft-ietf-opsawg-pcap): a header, then a record for every packet, little-endian.

use std::io::{self, Write};
use std::time::Duration;

use super::Precision;
use super::interface::ETHERNET;

const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
const MAGIC_NANO: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Bytes of a packet that readers must be ready for, as `tcpdump` writes it: packets here are never cut.
const SNAP_LENGTH: u32 = 262_144;

/// A pcap file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    precision: Precision,
}

impl<W: Write> Writer<W> {
    /// Writes the header of a file of Ethernet frames with times as fine as this.
    pub fn new(mut out: W, precision: Precision) -> io::Result<Self> {
        let magic = match precision {
            Precision::Micro => MAGIC_MICRO,
            Precision::Nano => MAGIC_NANO,
        };
        let [major, minor] = VERSION.map(u16::to_le_bytes);
        out.write_all(&magic.to_le_bytes())?;
        out.write_all(&[major, minor].concat())?;
        // Two fields that nobody uses: time zone and accuracy.
        out.write_all(&[0; 8])?;
        out.write_all(&SNAP_LENGTH.to_le_bytes())?;
        out.write_all(&ETHERNET.to_le_bytes())?;
        Ok(Self { out, precision })
    }

    /// Writes one whole packet. Seconds since 1970 have 32 bits and wrap around in 2106.
    pub fn record(&mut self, time: Duration, bytes: &[u8]) -> io::Result<()> {
        let fraction = match self.precision {
            Precision::Micro => time.subsec_micros(),
            Precision::Nano => time.subsec_nanos(),
        };
        let length = bytes.len() as u32;
        for field in [time.as_secs() as u32, fraction, length, length] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(bytes)
    }

    /// Hands all of it on.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
