//! What a capture says of the interface that its packets came in by.

use std::time::Duration;

use pcap_parser::{InterfaceDescriptionBlock, OptionCode, PcapHeader};

use super::Precision;

/// Link type of Ethernet frames (<https://www.tcpdump.org/linktypes.html>).
pub const ETHERNET: i32 = 1;

/// The bits of a pcap header's link type that are it; those above say whether frames have a check sequence.
const LINK_TYPE_MASK: i32 = 0xffff;

const NANOS_PER_S: u128 = 1_000_000_000;
const MICROS_PER_S: u128 = 1_000_000;

/// An interface of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What its frames begin with.
    pub link_type: i32,
    /// Units of its times per second; 0 if no number is so large.
    units_per_s: u128,
    /// Seconds to add to its times.
    offset_s: i64,
    /// Most bytes captured of a packet; 0 is no limit.
    snap_length: u32,
}

impl Interface {
    /// Of a pcap file.
    pub fn legacy(header: &PcapHeader) -> Self {
        Self {
            link_type: header.network.0 & LINK_TYPE_MASK,
            units_per_s: if header.is_nanosecond_precision() { NANOS_PER_S } else { MICROS_PER_S },
            offset_s: 0,
            snap_length: header.snaplen,
        }
    }

    /// Of a pcapng section in this byte order.
    pub fn described(block: &InterfaceDescriptionBlock<'_>, is_big_endian: bool) -> Self {
        let offset = block.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|option| option.value.first_chunk::<8>());
        let read = |&bytes| if is_big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
        Self {
            link_type: block.linktype.0,
            units_per_s: units_per_s(block.if_tsresol),
            offset_s: offset.map_or(0, read),
            snap_length: block.snaplen,
        }
    }

    /// How fine its times are.
    pub fn precision(&self) -> Precision {
        if self.units_per_s > MICROS_PER_S { Precision::Nano } else { Precision::Micro }
    }

    /// So many units after 1970.
    pub fn time(&self, units: u64) -> Duration {
        let since = self.duration(units);
        let offset = Duration::from_secs(self.offset_s.unsigned_abs());
        if self.offset_s < 0 { since.saturating_sub(offset) } else { since.saturating_add(offset) }
    }

    /// So many units.
    pub fn duration(&self, units: u64) -> Duration {
        let units = u128::from(units);
        let (Some(seconds), Some(rest)) =
            (units.checked_div(self.units_per_s), units.checked_rem(self.units_per_s))
        else {
            return Duration::ZERO;
        };
        let nanos = rest * NANOS_PER_S / self.units_per_s;
        Duration::new(seconds as u64, nanos as u32)
    }

    /// Bytes that were captured of a packet that had so many.
    pub fn captured(&self, length: u32) -> usize {
        (if self.snap_length == 0 { length } else { length.min(self.snap_length) }) as usize
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 if the highest bit is set.
fn units_per_s(resolution: u8) -> u128 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_resolution(resolution: u8, offset_s: i64) -> Interface {
        let units_per_s = units_per_s(resolution);
        Interface { link_type: ETHERNET, units_per_s, offset_s, snap_length: 0 }
    }

    #[test]
    fn times_are_read_in_every_unit() {
        let ms = Duration::from_millis;
        for (resolution, offset, units, expected, precision) in [
            (0, 0, 3, ms(3000), Precision::Micro),
            (3, 0, 1500, ms(1500), Precision::Micro),
            (6, 0, 1_500_000, ms(1500), Precision::Micro),
            (9, 0, 1_500_000_000, ms(1500), Precision::Nano),
            (12, 2, 1_500_000_000_000, ms(3500), Precision::Nano),
            (0x80 | 1, -1, 3, ms(500), Precision::Micro),
            (0x80 | 32, -9, 3 << 31, ms(0), Precision::Nano),
            (127, 7, u64::MAX, ms(7000), Precision::Micro),
            (0x80 | 127, 0, u64::MAX, ms(0), Precision::Nano),
        ] {
            let interface = with_resolution(resolution, offset);
            assert_eq!(interface.time(units), expected, "{resolution}");
            assert_eq!(interface.precision(), precision, "{resolution}");
        }
        assert!(with_resolution(0, i64::MAX).time(u64::MAX) > ms(0), "no overflow");
    }
}
