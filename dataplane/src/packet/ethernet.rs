//! Ethernet II with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use shunt_api::counters::DropReason;
use shunt_api::mac::MacAddress;

/// Bytes of an untagged header: destination, source, type.
pub const HEADER_LENGTH: usize = 14;
/// Shortest frame, check sequence not counted.
pub const MIN_LENGTH: usize = 60;
/// Bytes of a station's address.
pub const ADDRESS_LENGTH: usize = 6;
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

/// The fields that forwarding reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// What the payload is.
    pub ether_type: EtherType,
    /// Bytes of header and tags: where the payload begins.
    pub length: usize,
    /// Who sent the frame.
    pub source: MacAddress,
    /// Its VLAN tags.
    pub tags: Tags,
}

/// VLAN tags of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// None.
    None,
    /// One.
    One(VlanTag),
    /// More, which are not looked at.
    Stacked,
}

/// Who sent the frame.
pub fn source(header: &[u8; HEADER_LENGTH]) -> MacAddress {
    MacAddress([header[6], header[7], header[8], header[9], header[10], header[11]])
}

/// Reads a header with its tags.
pub fn parse(frame: &[u8]) -> Result<Ethernet, DropReason> {
    let header = frame.first_chunk::<HEADER_LENGTH>().ok_or(DropReason::Truncated)?;
    let source = source(header);
    let (mut type_offset, mut tags) = (HEADER_LENGTH - 2, Tags::None);
    for _ in 0..=MAX_TAGS {
        let field = frame.get(type_offset..type_offset + 2).ok_or(DropReason::Truncated)?;
        let ether_type = match u16::from_be_bytes([field[0], field[1]]) {
            TYPE_IPV4 => EtherType::Ipv4,
            TYPE_IPV6 => EtherType::Ipv6,
            tpid @ (TYPE_VLAN | TYPE_SERVICE_VLAN) => {
                let control = frame.get(type_offset + 2..type_offset + 4).ok_or(DropReason::Truncated)?;
                let id = u16::from_be_bytes([control[0], control[1]]) & VLAN_ID_MASK;
                tags = if tags == Tags::None { Tags::One(VlanTag { tpid, id }) } else { Tags::Stacked };
                type_offset += TAG_LENGTH;
                continue;
            }
            _ => return Err(DropReason::NotIp),
        };
        return Ok(Ethernet { ether_type, length: type_offset + 2, source, tags });
    }
    Err(DropReason::NotIp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_one_and_two_tags_but_not_three() {
        let tag = [0x81, 0x00, 0xe0, 0x64];
        for (tags, expected) in [
            (0, Ok((14, Tags::None))),
            (1, Ok((18, Tags::One(VlanTag { tpid: 0x8100, id: 0x64 })))),
            (2, Ok((22, Tags::Stacked))),
            (3, Err(DropReason::NotIp)),
        ] {
            let mut frame = vec![0u8; 12];
            (0..tags).for_each(|_| frame.extend(tag));
            frame.extend([0x08, 0x00]);
            let read = parse(&frame).map(|header| (header.length, header.tags));
            assert_eq!(read, expected, "{tags} tags");
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
            let tags = Tags::One(VlanTag { id: id & VLAN_ID_MASK, ..tag });
            assert_eq!(parse(&frame).map(|header| header.tags), Ok(tags), "{tag:?}");
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
