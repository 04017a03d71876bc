//! What the program that delivers probes (`bpf/probe.bpf.c`) puts in front of their packets, made of the same next
//! hops by the same code as the workers' headers. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{ProbeWay, Tunnel};

use crate::packet::ethernet;
use crate::packet::ipv6;
use crate::packet::plain::Inner;
use crate::rewrite::{self, Link};
use crate::table::{Exit, Hop, OpenHop};

/// Key → value, as the program's map has them.
pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// Ethernet and tunnel header.
const HEADERS_BYTES: usize = ethernet::HEADER_LENGTH + ipv6::HEADER_LENGTH;
/// `struct way`.
const WAY_BYTES: usize = 14 + HEADERS_BYTES;

/// An odd number, so that its multiples differ in their last bits as the numbers of the ways do: each way has an
/// outer source of its own as long as the prefix has. Its first bits make the flow label.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The ways of all probes that can leave, for packets of both families. `ifindexes`: of the NICs, by `NicIndex`.
pub fn content(
    probes: &[ProbeWay],
    hops: &BTreeMap<IpAddr, Hop>,
    tunnel: &Tunnel,
    ifindexes: &[u32],
) -> Content {
    let mut content = Content::new();
    for probe in probes {
        let Some(Hop::Open(hop)) = hops.get(&probe.address) else { continue };
        let Some(ifindex) = ifindexes.get(usize::from(hop.nic.0)) else { continue };
        for is_v6 in [false, true] {
            if let Ok(way) = way(probe, is_v6, hop, tunnel, *ifindex) {
                let key = u32::from(probe.number) << 1 | u32::from(is_v6);
                content.insert(key.to_ne_bytes().into(), way.into());
            }
        }
    }
    content
}

/// `struct way` of the program, or why packets of clients could not leave either.
fn way(
    probe: &ProbeWay,
    is_v6: bool,
    hop: &OpenHop,
    tunnel: &Tunnel,
    ifindex: u32,
) -> Result<[u8; WAY_BYTES], DropReason> {
    let hash = (u64::from(probe.number) + 1).wrapping_mul(SPREAD);
    let outer = Exit::of(hop, tunnel, probe.address).outer(probe.mode, hash)?;
    let outer_length = outer.as_ref().map_or(0, rewrite::Outer::length);
    // The kernel itself knows best how a NIC wants a tag.
    let untagged = Link { vlan: None, ..hop.link };
    let (tag_type, tag) = hop.link.vlan.map_or((0, 0), |vlan| (vlan.tpid, vlan.id));

    let mut way = [0; WAY_BYTES];
    let (fields, headers) = way.split_at_mut(WAY_BYTES - HEADERS_BYTES);
    fields[0..4].copy_from_slice(&ifindex.to_ne_bytes());
    fields[4..8].copy_from_slice(&rewrite::room(&hop.link, outer.as_ref()).to_ne_bytes());
    fields[8..10].copy_from_slice(&tag_type.to_be_bytes());
    fields[10..12].copy_from_slice(&tag.to_ne_bytes());
    fields[12..14].copy_from_slice(&(outer_length as u16).to_ne_bytes());
    let nothing_yet = Inner { ip_offset: 0, ip_length: 0, traffic_class: 0, is_v6 };
    let headers = &mut headers[..ethernet::HEADER_LENGTH + outer_length];
    rewrite::place(headers, 0..0, &nothing_yet, &untagged, outer.as_ref()).expect("just the headers fit");
    Ok(way)
}

#[cfg(test)]
mod tests {
    use shunt_api::mac::MacAddress;
    use shunt_api::snapshot::Mode;

    use super::*;
    use crate::packet::ethernet::VlanTag;
    use crate::port::NicIndex;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));

    fn hop(on_link: bool, source: Option<&str>) -> Hop {
        let link = Link {
            destination: MacAddress([2, 0, 0, 0, 0, 9]),
            source: MacAddress([2, 0, 0, 0, 0, 1]),
            vlan: Some(VlanTag { tpid: 0x8100, id: 20 }),
            mtu: 1500,
        };
        Hop::Open(OpenHop {
            nic: NicIndex(1),
            link,
            on_link,
            source: source.map(|text| text.parse().unwrap()),
        })
    }

    fn tunnel() -> Tunnel {
        Tunnel { source_v4: Some("10.9.0.0/24".parse().unwrap()), source_v6: None, fragment: false }
    }

    /// Values by number and family.
    fn check(mode: Mode, address: IpAddr, hop: Hop, numbers: &[u16]) -> Vec<Vec<u8>> {
        let probes: Vec<_> = numbers.iter().map(|&number| ProbeWay { number, address, mode }).collect();
        let content = content(&probes, &BTreeMap::from([(address, hop)]), &tunnel(), &[3, 7]);
        let keys: Vec<_> =
            content.keys().map(|key| u32::from_ne_bytes(key[..].try_into().unwrap())).collect();
        assert!(keys.iter().all(|key| numbers.contains(&((key >> 1) as u16))), "{keys:?}");
        content.into_values().collect()
    }

    #[test]
    fn a_direct_way_is_an_ethernet_header_for_each_family() {
        let [four, six] = &check(Mode::Dr, V4, hop(true, None), &[5])[..] else { panic!("two ways") };
        let fields = [&7_u32.to_ne_bytes()[..], &1500_u32.to_ne_bytes(), &[0x81, 0], &20_u16.to_ne_bytes()];
        let macs = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
        for (way, ether_type) in [(four, [8, 0]), (six, [0x86, 0xdd])] {
            assert_eq!(way[..14], [&fields.concat()[..], &[0, 0]].concat());
            assert_eq!(way[14..28], [&macs[..], &ether_type].concat());
            assert!(way[28..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_tunnel_is_as_for_clients_and_comes_from_the_same_range() {
        let ways = check(Mode::Ipip, V4, hop(false, None), &[0, 1, 2, 3]);
        let mut sources = std::collections::BTreeSet::new();
        for way in &ways {
            assert_eq!(way[4..8], 1480_u32.to_ne_bytes());
            assert_eq!(way[12..14], 20_u16.to_ne_bytes());
            assert_eq!(way[26..28], [8, 0], "the outer packet is IPv4");
            assert_eq!(way[40..43], [10, 9, 0], "source");
            assert_eq!(way[44..48], [10, 0, 0, 9], "destination");
            sources.insert(way[43]);
        }
        assert_eq!(sources.len(), 4, "each probe has its own");
        let protocols: Vec<_> = ways.iter().map(|way| way[37]).collect();
        assert_eq!(protocols.iter().filter(|&&protocol| protocol == 4).count(), 4);
        assert_eq!(protocols.iter().filter(|&&protocol| protocol == 41).count(), 4);

        let six = check(Mode::Ipip, V6, hop(false, Some("fd00::1")), &[9]);
        assert_eq!((six.len(), &six[0][26..28], six[0][28] >> 4), (2, &[0x86, 0xdd][..], 6));
    }

    #[test]
    fn what_is_no_way_for_clients_is_none_for_probes() {
        for (mode, address, hop) in [
            (Mode::Dr, V4, hop(false, None)),
            (Mode::Ipip, V6, hop(true, None)),
            (Mode::Ipip, V6, hop(true, Some("10.0.0.1"))),
            (Mode::Dr, V4, Hop::Closed(DropReason::NoRoute)),
        ] {
            assert!(check(mode, address, hop, &[1]).is_empty(), "{mode} {hop:?}");
        }
    }
}
