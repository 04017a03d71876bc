//! Ethernet II with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use shunt_api::counters::DropReason;

/// Bytes of an untagged header: destination, source, type.
pub const HEADER_LENGTH: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_LENGTH: usize = 4;
/// Tags followed before the frame is given up on; the XDP program skips as many.
const MAX_TAGS: usize = 2;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_SERVICE_VLAN: u16 = 0x88a8;
/// The bits of a tag's control information that are not priority or drop eligibility.
const VLAN_ID_MASK: u16 = 0x0fff;

/// A VLAN tag with priority 0 (IEEE 802.1Q, clause 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol identifier: 0x8100 for a customer's VLAN (802.1Q), 0x88a8 for a provider's (802.1ad).
    pub tpid: u16,
    /// VLAN identifier, 0 to 4094; 12 bits on the wire.
    pub id: u16,
}

impl VlanTag {
    /// As it stands on the wire, between the Ethernet source and the type of the payload.
    pub const fn to_be_bytes(self) -> [u8; TAG_LENGTH] {
        let [[tpid_high, tpid_low], [id_high, id_low]] =
            [self.tpid.to_be_bytes(), (self.id & VLAN_ID_MASK).to_be_bytes()];
        [tpid_high, tpid_low, id_high, id_low]
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// 0x0800
    Ipv4,
    /// 0x86dd
    Ipv6,
}

impl EtherType {
    /// As it stands on the wire.
    pub const fn to_be_bytes(self) -> [u8; 2] {
        match self {
            Self::Ipv4 => TYPE_IPV4.to_be_bytes(),
            Self::Ipv6 => TYPE_IPV6.to_be_bytes(),
        }
    }
}

/// The type of the payload and where it begins, tags skipped.
pub fn parse(frame: &[u8]) -> Result<(EtherType, usize), DropReason> {
    let mut type_offset = HEADER_LENGTH - 2;
    for _ in 0..=MAX_TAGS {
        let field = frame.get(type_offset..type_offset + 2).ok_or(DropReason::Truncated)?;
        match u16::from_be_bytes([field[0], field[1]]) {
            TYPE_IPV4 => return Ok((EtherType::Ipv4, type_offset + 2)),
            TYPE_IPV6 => return Ok((EtherType::Ipv6, type_offset + 2)),
            TYPE_VLAN | TYPE_SERVICE_VLAN => type_offset += TAG_LENGTH,
            _ => return Err(DropReason::NotIp),
        }
    }
    Err(DropReason::NotIp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_one_and_two_tags_but_not_three() {
        let tag = [0x81, 0x00, 0x00, 0x64];
        for (tags, expected) in [
            (0, Ok((EtherType::Ipv4, 14))),
            (1, Ok((EtherType::Ipv4, 18))),
            (2, Ok((EtherType::Ipv4, 22))),
            (3, Err(DropReason::NotIp)),
        ] {
            let mut frame = vec![0u8; 12];
            (0..tags).for_each(|_| frame.extend(tag));
            frame.extend([0x08, 0x00]);
            assert_eq!(parse(&frame), expected, "{tags} tags");
        }
    }

    #[test]
    fn a_tag_is_written_with_priority_0_and_read_back() {
        for (tpid, id, expected) in [
            (TYPE_VLAN, 20, [0x81, 0x00, 0x00, 0x14]),
            (TYPE_SERVICE_VLAN, 4094, [0x88, 0xa8, 0x0f, 0xfe]),
            (TYPE_VLAN, 0xffff, [0x81, 0x00, 0x0f, 0xff]),
        ] {
            let tag = VlanTag { tpid, id };
            assert_eq!(tag.to_be_bytes(), expected, "{tag:?}");
            let frame = [&[0; 12][..], &tag.to_be_bytes(), &[0x86, 0xdd]].concat();
            assert_eq!(parse(&frame), Ok((EtherType::Ipv6, HEADER_LENGTH + TAG_LENGTH)), "{tag:?}");
        }
    }

    #[test]
    fn arp_and_runts_are_not_ip() {
        let mut frame = vec![0u8; 12];
        assert_eq!(parse(&frame), Err(DropReason::Truncated));
        frame.extend([0x08, 0x06]);
        assert_eq!(parse(&frame), Err(DropReason::NotIp));
    }
}
