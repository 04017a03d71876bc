//! The maps that the programs of all NICs share: how they are opened, given to a program and filled, and how their
//! keys are written. Knows nothing of NICs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};

use super::error::{ProgramError, refused};
use super::pins::Directory;

/// A map that outlives the process by a pin.
#[derive(Debug)]
pub(super) struct SharedMap {
    /// In `steer.bpf.c`.
    pub name: &'static str,
    /// In words.
    pub holds: &'static str,
    /// Changes with the types of the map, so that a process never takes one of other types for its own.
    pub layout: u32,
}

/// Address → headroom in bytes.
pub(super) const OWNED: SharedMap = SharedMap { name: "owned", holds: "owned addresses", layout: 1 };
/// Prefix → 1.
pub(super) const TUNNEL_SOURCES: SharedMap =
    SharedMap { name: "tunnel_sources", holds: "tunnel sources", layout: 1 };
/// All of them.
pub(super) const SHARED: [SharedMap; 2] = [OWNED, TUNNEL_SOURCES];

/// Key → value, as the kernel has them.
pub(super) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// The pinned map, or the one of `fresh`, a program just loaded, which is then pinned. A former process of a version
/// without the map has left none.
pub(super) fn open(
    shared: &SharedMap,
    directory: &Directory,
    fresh: &Object,
) -> Result<MapHandle, ProgramError> {
    let pin = directory.map(shared);
    let mut fresh = map(fresh, shared.name)?;
    if !pin.exists() {
        fresh.pin(&pin).map_err(refused(format!("pin {}", pin.display())))?;
        return Ok(fresh);
    }
    let pinned = MapHandle::from_pinned_path(&pin).map_err(refused(format!("open {}", pin.display())))?;
    let shape = |map: &MapHandle| (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
    match shape(&pinned) == shape(&fresh) {
        true => Ok(pinned),
        false => Err(ProgramError::OtherLayout { pin }),
    }
}

/// Has a program that is about to be loaded use `map` instead of one of its own.
pub(super) fn share(
    shared: &SharedMap,
    map: &MapHandle,
    program: &mut OpenObject,
) -> Result<(), ProgramError> {
    let mut own = program.maps_mut().find(|own| own.name() == shared.name).expect("steer.bpf.c defines it");
    own.reuse_fd(map.as_fd()).map_err(refused(format!("share the map of {}", shared.holds)))
}

/// A map of a loaded program.
pub(super) fn map(program: &Object, name: &str) -> Result<MapHandle, ProgramError> {
    let map = program.maps().find(|map| map.name() == name).expect("its source defines it");
    MapHandle::try_from(&map).map_err(refused(format!("hold the map {name}")))
}

/// Makes `wanted` all that the map holds. Adds and changes before it removes, and leaves alone what is right.
pub(super) fn fill(shared: &SharedMap, map: &MapHandle, wanted: &Content) -> Result<(), ProgramError> {
    let present = content(map).map_err(refused(format!("read the map of {}", shared.holds)))?;
    change(shared.holds, map, &present, wanted)
}

/// Likewise, of a map that is known to hold `present`.
pub(super) fn change(
    holds: &str,
    map: &MapHandle,
    present: &Content,
    wanted: &Content,
) -> Result<(), ProgramError> {
    for (key, value) in wanted.iter().filter(|(key, value)| present.get(*key) != Some(*value)) {
        map.update(key, value, MapFlags::ANY).map_err(refused(format!("add to the {holds}")))?;
    }
    for key in present.keys().filter(|key| !wanted.contains_key(*key)) {
        map.delete(key).map_err(refused(format!("remove from the {holds}")))?;
    }
    Ok(())
}

/// The sum over all cores of a counter.
pub(super) fn count(counts: &MapHandle, index: u32) -> Result<u64, ProgramError> {
    let per_cpu =
        counts.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).map_err(refused("read counters"))?;
    let per_cpu = per_cpu.expect("an array has all its elements");
    Ok(per_cpu.iter().map(|value| u64::from_ne_bytes(value[..8].try_into().expect("8 bytes"))).sum())
}

fn content(map: &MapHandle) -> libbpf_rs::Result<Content> {
    let entry = |key: Vec<u8>| {
        let value = map.lookup(&key, MapFlags::ANY)?;
        Ok(value.map(|value| (key, value)))
    };
    map.keys().filter_map(|key| entry(key).transpose()).collect()
}

/// How the maps write an address: IPv4 as ::ffff:a.b.c.d.
pub(super) fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// How a map of prefixes writes one (`struct prefix`): its length in bits, then its first address.
pub(super) fn prefix(prefix: IpNet) -> Vec<u8> {
    let in_front = match prefix {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    let bits = in_front + u32::from(prefix.prefix_len());
    [&bits.to_ne_bytes()[..], &address(prefix.network())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_written_as_the_program_reads_them() {
        let v4 =
            |bits: u32, last: [u8; 4]| [&bits.to_ne_bytes()[..], &[0; 10], &[0xff, 0xff], &last].concat();
        let v6 = |bits: u32, first: [u8; 8]| [&bits.to_ne_bytes()[..], &first, &[0; 8]].concat();
        for (text, key) in [
            ("10.200.0.0/16", v4(112, [10, 200, 0, 0])),
            ("10.200.3.4/16", v4(112, [10, 200, 0, 0])),
            ("192.0.2.1/32", v4(128, [192, 0, 2, 1])),
            ("0.0.0.0/0", v4(96, [0; 4])),
            ("fd00:200::1/64", v6(64, [0xfd, 0, 2, 0, 0, 0, 0, 0])),
            ("::/0", v6(0, [0; 8])),
        ] {
            assert_eq!(prefix(text.parse().unwrap()), key, "{text}");
        }
    }
}
