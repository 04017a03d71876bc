//! What a driver can do with XDP: generic netlink family `netdev`, since Linux 6.3
//! (Documentation/netlink/specs/netdev.yaml).

use std::collections::HashMap;
use std::io;

use netlink_packet_core::DecodeError;
use serde::Serialize;

use crate::genl::{Attributes, Family, unsigned};
use crate::setting::Knob;

const FAMILY: &str = "netdev";
const COMMAND_DEV_GET: u8 = 1;
const COMMAND_NAPI_GET: u8 = 11;
const COMMAND_NAPI_SET: u8 = 14;
const ATTRIBUTE_IFINDEX: u16 = 1;
const ATTRIBUTE_XDP_FEATURES: u16 = 3;
const ATTRIBUTE_XDP_ZC_MAX_SEGS: u16 = 4;
const ATTRIBUTE_NAPI_IFINDEX: u16 = 1;
const ATTRIBUTE_NAPI_ID: u16 = 2;

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
    let Some(family) = Family::named(FAMILY)? else { return Ok(None) };
    let devices = family.dump(COMMAND_DEV_GET, Attributes::default())?;
    let devices = devices.iter().map(device).collect::<Result<_, _>>().map_err(io::Error::other)?;
    Ok(Some(devices))
}

/// What is set for each polling context of an interface, by the kernel's number of it; empty before Linux
/// 6.13, which has no such settings.
pub fn napis(ifindex: u32) -> io::Result<Vec<(u32, Knob, u64)>> {
    let Some(family) = Family::named(FAMILY)? else { return Ok(Vec::new()) };
    let question = Attributes::default().number(ATTRIBUTE_NAPI_IFINDEX, ifindex);
    let napis = match family.dump(COMMAND_NAPI_GET, question) {
        // Kernels before 6.8 do not know the question.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => {
            return Ok(Vec::new());
        }
        answer => answer?,
    };
    let knobs = |napi: &Attributes| {
        let id = napi.unsigned(ATTRIBUTE_NAPI_ID);
        Knob::ALL.map(|knob| Some((id? as u32, knob, napi.unsigned(attribute(knob))?)))
    };
    Ok(napis.iter().flat_map(knobs).flatten().collect())
}

/// Sets one polling context.
pub fn set_napi(id: u32, knob: Knob, value: u64) -> io::Result<()> {
    let family = Family::named(FAMILY)?.ok_or(io::ErrorKind::Unsupported)?;
    let attributes = Attributes::default().number(ATTRIBUTE_NAPI_ID, id);
    let value = u32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
    family.change(COMMAND_NAPI_SET, attributes.number(attribute(knob), value))
}

/// `enum netdev_a_napi`.
fn attribute(knob: Knob) -> u16 {
    match knob {
        Knob::DeferHardIrqs => 5,
        Knob::GroFlushTimeout => 6,
    }
}

/// An answer to `dev-get`.
fn device(attributes: &Attributes) -> Result<(u32, XdpSupport), DecodeError> {
    let (mut ifindex, mut xdp) = (0, XdpSupport::default());
    for (kind, value) in attributes.read()? {
        match kind {
            ATTRIBUTE_IFINDEX => ifindex = unsigned(value)? as u32,
            ATTRIBUTE_XDP_FEATURES => xdp.features = feature_names(unsigned(value)?),
            ATTRIBUTE_XDP_ZC_MAX_SEGS => xdp.zero_copy_segments_max = Some(unsigned(value)? as u32),
            _ => {}
        }
    }
    Ok((ifindex, xdp))
}

fn feature_names(bits: u64) -> Vec<String> {
    let set = (0..u64::BITS as usize).filter(|bit| bits >> bit & 1 == 1);
    set.map(|bit| FEATURES.get(bit).map_or_else(|| format!("bit-{bit}"), |&name| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attributes: &[u8]) -> Option<(u32, XdpSupport)> {
        device(&Attributes::from(attributes)).ok()
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
        assert_eq!(check(&veth), Some((5, xdp)));

        let zero_copy = [8, 0, 4, 0, 17, 0, 0, 0];
        assert_eq!(check(&zero_copy).unwrap().1.zero_copy_segments_max, Some(17));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        assert_eq!(check(&[]), Some((0, XdpSupport::default())));
        assert_eq!(check(&[8, 0, 1, 0, 5]), None);
        assert_eq!(check(&[6, 0, 1, 0, 5, 0, 0, 0]), None);
    }

    #[test]
    fn a_feature_of_a_newer_kernel_is_shown_by_its_bit() {
        assert_eq!(feature_names(1 << 3 | 1 << 9), ["xsk-zerocopy", "bit-9"]);
    }
}
