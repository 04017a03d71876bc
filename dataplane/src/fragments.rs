//! Which flow a fragment belongs to: later fragments have no ports, so the first one's are remembered for them
//! (RFC 791, RFC 8200 §4.5). Shared by all workers, since a NIC may hand the first fragment of a packet to
//! another queue than the others.
//!
//! A later fragment that overtakes its first one is not kept: it is dropped and the sender repeats the packet.

use std::net::IpAddr;

use ahash::RandomState;

use crate::conntrack::{BackendId, FlowTable, IdleLimits, NewFlow, Seconds, State};
use crate::flow::FlowKey;
use crate::limits::{FRAGMENT_IDLE_S, FRAGMENTED_PACKETS};
use crate::packet::transport;

/// Fragmented packets on their way, by addresses and number.
pub struct Fragments {
    v4: FlowTable<2, 1>,
    v6: FlowTable<5, 1>,
}

const LIMITS: IdleLimits = [FRAGMENT_IDLE_S; State::COUNT];

impl Fragments {
    /// Room for [`FRAGMENTED_PACKETS`] of each family.
    pub fn new(seed: &RandomState) -> Self {
        let v4 = FlowTable::new(FRAGMENTED_PACKETS, seed);
        Self { v4, v6: FlowTable::new(FRAGMENTED_PACKETS, seed) }
    }

    /// The first fragment of packet `id` belongs to this flow.
    pub fn remember(&self, flow: &FlowKey, id: u32, now: Seconds) {
        match keys(flow, id, transport::number(flow.protocol())) {
            Keys::V4(key) => remember(&self.v4, key, pack(flow), now),
            Keys::V6(key) => remember(&self.v6, key, pack(flow), now),
        }
    }

    /// The flow of a later fragment: `addresses` with the ports of the first.
    pub fn recall(&self, addresses: &FlowKey, id: u32, protocol: u8, now: Seconds) -> Option<FlowKey> {
        let word = match keys(addresses, id, protocol) {
            Keys::V4(key) => recall(&self.v4, key, now),
            Keys::V6(key) => recall(&self.v6, key, now),
        }?;
        let protocol = transport::protocol((word >> 32) as u8)?;
        Some(addresses.with_ports((word >> 16) as u16, word as u16, protocol))
    }
}

/// What identifies a fragmented packet. The protocol is part of it in IPv4 alone (RFC 791 §2.3).
enum Keys {
    V4([u64; 2]),
    V6([u64; 5]),
}

fn keys(flow: &FlowKey, id: u32, protocol: u8) -> Keys {
    match (flow.client(), flow.vip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Keys::V4([
            u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()),
            u64::from(id) << 8 | u64::from(protocol),
        ]),
        (source, destination) => {
            let [source, destination] = [source, destination].map(bits);
            let halves = |bits: u128| ((bits >> 64) as u64, bits as u64);
            let ((a, b), (c, d)) = (halves(source), halves(destination));
            Keys::V6([a, b, c, d, u64::from(id)])
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn pack(flow: &FlowKey) -> u64 {
    let port = flow.service_port();
    u64::from(transport::number(port.protocol)) << 32
        | u64::from(flow.client_port()) << 16
        | u64::from(port.port)
}

fn remember<const K: usize>(table: &FlowTable<K, 1>, key: [u64; K], word: u64, now: Seconds) {
    let places = table.places(&key);
    // The sender uses a number again as soon as it has gone round all of them.
    if let Some(hit) = table.find(&key, places) {
        if hit.value == [word] && table.update(hit, hit.control.with_time(now)).is_ok() {
            return;
        }
        table.remove(hit);
    }
    table.insert(&NewFlow { key, value: [word], backend: BackendId(0) }, places, now, &LIMITS);
}

fn recall<const K: usize>(table: &FlowTable<K, 1>, key: [u64; K], now: Seconds) -> Option<u64> {
    let hit = table.find(&key, table.places(&key))?;
    (hit.control.idle_s(now) < FRAGMENT_IDLE_S).then_some(hit.value[0])
}

#[cfg(test)]
mod tests {
    use shunt_api::snapshot::Protocol;

    use super::*;

    fn flow(client: &str, port: u16) -> FlowKey {
        let vip = if client.contains(':') { "2001:db8::10" } else { "203.0.113.10" };
        let ends = ((client.parse().unwrap(), port), (vip.parse().unwrap(), 53));
        FlowKey::new(ends.0, ends.1, Protocol::Udp).unwrap()
    }

    fn recalled(store: &Fragments, client: &str, id: u32, now: u32) -> Option<u16> {
        let flow = store.recall(&flow(client, 0), id, transport::UDP, Seconds(now))?;
        assert_eq!(flow.service_port().port, 53);
        Some(flow.client_port())
    }

    #[test]
    fn later_fragments_find_their_flow_until_it_is_too_late() {
        let store = Fragments::new(&RandomState::new());
        for client in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(recalled(&store, client, 7, 0), None);
            store.remember(&flow(client, 40_000), 7, Seconds(0));
            assert_eq!(recalled(&store, client, 7, FRAGMENT_IDLE_S - 1), Some(40_000));
            assert_eq!(recalled(&store, client, 7, FRAGMENT_IDLE_S), None);
            assert_eq!(recalled(&store, client, 8, 0), None, "another packet");
        }
        assert_eq!(recalled(&store, "192.0.2.2", 7, 0), None, "another client");
        let tcp = store.recall(&flow("192.0.2.1", 0), 7, transport::TCP, Seconds(0));
        assert_eq!(tcp, None, "IPv4 numbers packets per protocol");
    }

    #[test]
    fn a_number_used_again_is_the_latest_packets() {
        let store = Fragments::new(&RandomState::new());
        for port in [1, 2, 2, 3] {
            store.remember(&flow("192.0.2.1", port), 7, Seconds(u32::from(port)));
            assert_eq!(recalled(&store, "192.0.2.1", 7, u32::from(port)), Some(port));
        }
    }

    #[test]
    fn a_flood_leaves_the_newest() {
        let store = Fragments::new(&RandomState::new());
        let packets = 4 * FRAGMENTED_PACKETS as u32;
        (0..packets).for_each(|id| {
            store.remember(&flow("192.0.2.1", 1), id, Seconds(id / FRAGMENTED_PACKETS as u32));
        });
        let newest = packets - FRAGMENTED_PACKETS as u32 / 4..packets;
        let found = newest.clone().filter(|&id| recalled(&store, "192.0.2.1", id, 3).is_some()).count();
        assert!(found > newest.len() * 9 / 10, "{found} of {}", newest.len());
    }
}
