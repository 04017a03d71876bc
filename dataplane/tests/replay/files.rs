//! Captures as bytes, in every form that there is, and files of this test alone.

use std::path::PathBuf;
use std::time::Duration;

use shunt_dataplane::replay::capture::{Capture, CaptureError, Precision, Writer};

/// Time, bytes as captured, and the length that the packet had.
pub type Packet = (Duration, Vec<u8>, u32);

/// Packets that were captured whole, a millisecond and a microsecond apart.
pub fn packets(frames: &[Vec<u8>]) -> Vec<Packet> {
    let time = |number: u64| Duration::from_secs(1_700_000_000) + Duration::from_micros(number * 1001);
    let packet =
        |(number, frame): (usize, &Vec<u8>)| (time(number as u64), frame.clone(), frame.len() as u32);
    frames.iter().enumerate().map(packet).collect()
}

/// A pcap file, by our own writer.
pub fn pcap(packets: &[Packet], precision: Precision) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, precision).unwrap();
    packets.iter().for_each(|(time, frame, _)| writer.record(*time, frame).unwrap());
    writer.finish().unwrap();
    bytes
}

/// The byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// A pcap file by the letter of draft-ietf-opsawg-pcap.
pub fn raw_pcap(order: Order, magic: u32, link_type: u32, packets: &[Packet]) -> Vec<u8> {
    let units = if magic == 0xa1b2_3c4d { Duration::subsec_nanos } else { Duration::subsec_micros };
    let mut bytes = [&order.u32(magic)[..], &order.u16(2), &order.u16(4), &[0; 8]].concat();
    bytes.extend([order.u32(65535), order.u32(link_type)].concat());
    for (time, frame, length) in packets {
        let fields = [time.as_secs() as u32, units(time), frame.len() as u32, *length];
        bytes.extend(fields.map(|field| order.u32(field)).concat());
        bytes.extend(frame);
    }
    bytes
}

/// A pcapng block.
pub fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let length = order.u32((12 + body.len() + padding.len()) as u32);
    [&order.u32(kind)[..], &length, body, &padding, &length].concat()
}

pub fn section(order: Order) -> Vec<u8> {
    let (magic, version) = (order.u32(0x1a2b_3c4d), [order.u16(1), order.u16(0)].concat());
    block(order, 0x0a0d_0d0a, &[&magic[..], &version, &[0xff; 8]].concat())
}

/// An interface; `options` are `(code, value)`.
pub fn interface(order: Order, link_type: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&order.u16(link_type)[..], &[0; 2], &order.u32(0)].concat();
    for (code, value) in options {
        body.extend([order.u16(*code), order.u16(value.len() as u16)].concat());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(order, 1, &body)
}

/// An enhanced packet block with a time in units of its interface.
pub fn enhanced(order: Order, interface: u32, units: u64, frame: &[u8], length: u32) -> Vec<u8> {
    let fields = [interface, (units >> 32) as u32, units as u32, frame.len() as u32, length];
    block(order, 6, &[&fields.map(|field| order.u32(field)).concat()[..], frame].concat())
}

/// A pcapng file of one interface whose times are in nanoseconds, or in microseconds as if nothing is said.
pub fn pcapng(order: Order, packets: &[Packet], precision: Precision) -> Vec<u8> {
    let is_nano = precision == Precision::Nano;
    let resolution: &[(u16, &[u8])] = if is_nano { &[(2, b"eth1"), (9, &[9])] } else { &[(2, b"eth1")] };
    let mut bytes = [section(order), interface(order, 1, resolution)].concat();
    for (time, frame, length) in packets {
        let units = if is_nano { time.as_nanos() } else { time.as_micros() };
        bytes.extend(enhanced(order, 0, units as u64, frame, *length));
    }
    bytes
}

/// `if_tsoffset`, in seconds.
pub fn offset(order: Order, seconds: i64) -> [u8; 8] {
    order.u64(seconds as u64)
}

/// All packets of a capture, and the capture.
pub fn read(bytes: &[u8]) -> Result<(Vec<Packet>, Capture), CaptureError> {
    read_from(std::io::Cursor::new(bytes.to_vec()))
}

pub fn read_from(
    source: impl std::io::Read + Send + 'static,
) -> Result<(Vec<Packet>, Capture), CaptureError> {
    let mut capture = Capture::open(source)?;
    let mut packets = Vec::new();
    while let Some(record) = capture.next_record()? {
        packets.push((record.time, record.bytes.to_vec(), record.length));
    }
    Ok((packets, capture))
}

/// A directory of one test, empty.
pub fn directory(test: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("replay").join(test);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}
