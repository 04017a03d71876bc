//! Generic netlink messages whose attributes are read and written by number: families `netdev` and `ethtool`,
//! of which no crate sets what we set.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::constants::GENL_ID_CTRL;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::netlink;

/// A family that the kernel has. Families are numbered as the kernel loads them.
#[derive(Clone, Copy, Debug)]
pub struct Family(u16);

impl Family {
    /// `None` if the kernel does not have it.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let named = vec![GenlCtrlAttrs::FamilyName(name.to_owned())];
        let mut question = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: named });
        question.set_resolved_family_id(GENL_ID_CTRL);
        match netlink::query(NETLINK_GENERIC, question) {
            Ok(answers) => {
                let mut nlas = answers.iter().flat_map(|answer| &answer.payload.nlas);
                Ok(nlas.find_map(|nla| match nla {
                    GenlCtrlAttrs::FamilyId(id) => Some(Self(*id)),
                    _ => None,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a kind.
    pub fn dump(self, command: u8, attributes: Attributes) -> io::Result<Vec<Attributes>> {
        bodies(netlink::dump(NETLINK_GENERIC, self.message(command, attributes)))
    }

    /// One object; `None` if the driver does not have such a thing.
    pub fn object(self, command: u8, attributes: Attributes) -> io::Result<Option<Attributes>> {
        match bodies(netlink::query(NETLINK_GENERIC, self.message(command, attributes))) {
            Ok(answers) => Ok(answers.into_iter().next()),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A change.
    pub fn change(self, command: u8, attributes: Attributes) -> io::Result<()> {
        bodies(netlink::query(NETLINK_GENERIC, self.message(command, attributes))).map(drop)
    }

    fn message(self, command: u8, attributes: Attributes) -> GenlMessage<Body> {
        let mut message = GenlMessage::from_payload(Body { command, attributes });
        message.set_resolved_family_id(self.0);
        message
    }
}

fn bodies(answers: io::Result<Vec<GenlMessage<Body>>>) -> io::Result<Vec<Attributes>> {
    Ok(answers?.into_iter().map(|answer| answer.payload.attributes).collect())
}

/// Attributes as they travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// With one more.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let begin = self.0.len();
        self.0.resize(begin + attribute.buffer_len(), 0);
        attribute.emit(&mut self.0[begin..]);
        self
    }

    /// With one more, of 32 bits.
    #[must_use]
    pub fn number(self, kind: u16, number: u32) -> Self {
        self.with(kind, &number.to_ne_bytes())
    }

    /// With one more, a text that ends with a zero byte.
    #[must_use]
    pub fn text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// With one more, that has attributes in it.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NLA_F_NESTED, &inner.0)
    }

    /// Kinds and values.
    pub fn read(&self) -> Result<Vec<(u16, &[u8])>, DecodeError> {
        let pair = |attribute: Result<netlink_packet_core::NlaBuffer<_>, DecodeError>| {
            let attribute = attribute?;
            let start = attribute.kind();
            Ok((start, value_of(attribute.into_inner())))
        };
        NlasIterator::new(self.0.as_slice()).map(pair).collect()
    }

    /// The value of the first of a kind.
    pub fn value(&self, kind: u16) -> Option<&[u8]> {
        self.read().ok()?.into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The same as a whole number of one, four or eight bytes, which the kernel writes in its own byte order.
    pub fn unsigned(&self, kind: u16) -> Option<u64> {
        unsigned(self.value(kind)?).ok()
    }

    /// What is in the first of a kind.
    pub fn inner(&self, kind: u16) -> Option<Self> {
        Some(Self(self.value(kind)?.to_vec()))
    }
}

impl From<&[u8]> for Attributes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// Behind the header of four bytes, of which the first two are the length with the header.
fn value_of(attribute: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_ne_bytes([attribute[0], attribute[1]]));
    &attribute[4..length]
}

/// A whole number in the kernel's byte order.
pub fn unsigned(value: &[u8]) -> Result<u64, DecodeError> {
    if let [byte] = value {
        return Ok(u64::from(*byte));
    }
    if let Ok(bytes) = value.try_into() {
        return Ok(u64::from(u32::from_ne_bytes(bytes)));
    }
    let bytes = value.try_into().map_err(|_| format!("a number of {} bytes", value.len()))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Body {
    command: u8,
    attributes: Attributes,
}

impl GenlFamily for Body {
    /// Not used: messages carry the number that [`Family`] found.
    fn family_name() -> &'static str {
        ""
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Body {
    fn buffer_len(&self) -> usize {
        self.attributes.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.0.len()].copy_from_slice(&self.attributes.0);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Body {
    fn parse_with_param(attributes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = Attributes(attributes.to_vec());
        attributes.read()?;
        Ok(Self { command: header.cmd, attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let inner = Attributes::default().number(2, 7).with(3, &[]);
        let all = Attributes::default().text(1, "eth1").nest(5, &inner).with(9, &[1]);
        assert_eq!(all.value(1), Some(b"eth1\0".as_slice()));
        assert_eq!(all.inner(5).unwrap(), inner);
        assert_eq!((inner.unsigned(2), inner.value(3), all.unsigned(9)), (Some(7), Some(&[][..]), Some(1)));
        assert_eq!((all.value(4), all.unsigned(1)), (None, None));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let header = GenlHeader { cmd: 1, version: 1 };
        assert!(Body::parse_with_param(&[8, 0, 1, 0, 5], header).is_err());
        assert!(unsigned(&[1, 2]).is_err());
    }
}
