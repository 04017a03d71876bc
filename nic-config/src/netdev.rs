//! What a driver can do with XDP: generic netlink family `netdev`, since Linux 6.3
//! (Documentation/netlink/specs/netdev.yaml).

use std::collections::HashMap;
use std::io;

use netlink_packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use netlink_packet_generic::constants::GENL_ID_CTRL;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use serde::Serialize;

use crate::netlink;

const FAMILY: &str = "netdev";
const COMMAND_DEV_GET: u8 = 1;
const ATTRIBUTE_IFINDEX: u16 = 1;
const ATTRIBUTE_XDP_FEATURES: u16 = 3;
const ATTRIBUTE_XDP_ZC_MAX_SEGS: u16 = 4;

/// Names of `enum netdev_xdp_act`, by bit.
const FEATURES: [&str; 7] =
    ["basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"];

/// What a driver can do with XDP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct XdpSupport {
    /// Names as in the kernel's specification; a bit without a name is `bit-N`.
    pub features: Vec<String>,
    /// Most fragments of a frame in zero-copy mode, if the driver has that mode.
    pub zero_copy_segments_max: Option<u32>,
}

/// All devices of this network namespace by interface index; `None` if the kernel is too old to tell.
pub fn xdp_support() -> io::Result<Option<HashMap<u32, XdpSupport>>> {
    let Some(family) = family_id()? else { return Ok(None) };
    let mut question = GenlMessage::from_payload(Device::default());
    question.set_resolved_family_id(family);
    let devices = netlink::dump(NETLINK_GENERIC, question)?;
    Ok(Some(devices.into_iter().map(|device| (device.payload.ifindex, device.payload.xdp)).collect()))
}

/// Families are numbered as the kernel loads them.
fn family_id() -> io::Result<Option<u16>> {
    let named = vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())];
    let mut question = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: named });
    question.set_resolved_family_id(GENL_ID_CTRL);
    match netlink::query(NETLINK_GENERIC, question) {
        Ok(answers) => Ok(answers.iter().flat_map(|answer| &answer.payload.nlas).find_map(|nla| match nla {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `dev-get`: as a question for all devices it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Device {
    ifindex: u32,
    xdp: XdpSupport,
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        COMMAND_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(attributes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut device = Self::default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                ATTRIBUTE_IFINDEX => device.ifindex = unsigned(value)? as u32,
                ATTRIBUTE_XDP_FEATURES => device.xdp.features = feature_names(unsigned(value)?),
                ATTRIBUTE_XDP_ZC_MAX_SEGS => {
                    device.xdp.zero_copy_segments_max = Some(unsigned(value)? as u32);
                }
                _ => {}
            }
        }
        Ok(device)
    }
}

/// The kernel writes numbers in its own byte order, in four or eight bytes.
fn unsigned(value: &[u8]) -> Result<u64, DecodeError> {
    if let Ok(bytes) = value.try_into() {
        return Ok(u64::from(u32::from_ne_bytes(bytes)));
    }
    let bytes = value.try_into().map_err(|_| format!("a number of {} bytes", value.len()))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn feature_names(bits: u64) -> Vec<String> {
    let set = (0..u64::BITS as usize).filter(|bit| bits >> bit & 1 == 1);
    set.map(|bit| FEATURES.get(bit).map_or_else(|| format!("bit-{bit}"), |&name| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attributes: &[u8]) -> Option<Device> {
        let header = GenlHeader { cmd: COMMAND_DEV_GET, version: 1 };
        Device::parse_with_param(attributes, header).ok()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_device_is_read_from_its_attributes() {
        let veth = [
            8, 0, 1, 0, 5, 0, 0, 0, // ifindex 5
            12, 0, 3, 0, 0x27, 0, 0, 0, 0, 0, 0, 0, // XDP features
            12, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // metadata features, which nobody asks for
        ];
        let features = ["basic", "redirect", "ndo-xmit", "rx-sg"].map(str::to_owned).to_vec();
        let xdp = XdpSupport { features, zero_copy_segments_max: None };
        assert_eq!(check(&veth), Some(Device { ifindex: 5, xdp }));

        let zero_copy = [8, 0, 4, 0, 17, 0, 0, 0];
        assert_eq!(check(&zero_copy).unwrap().xdp.zero_copy_segments_max, Some(17));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        assert_eq!(check(&[]), Some(Device::default()));
        assert_eq!(check(&[8, 0, 1, 0, 5]), None);
        assert_eq!(check(&[5, 0, 1, 0, 5, 0, 0, 0]), None);
    }

    #[test]
    fn a_feature_of_a_newer_kernel_is_shown_by_its_bit() {
        assert_eq!(feature_names(1 << 3 | 1 << 9), ["xsk-zerocopy", "bit-9"]);
    }
}
