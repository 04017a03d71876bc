//! What a worker counts, and every reason it drops a packet for.
//!
//! For every batch: received = transmitted + dropped (the sum over all reasons). Names are stable: they
//! appear in `lbctl stats`, in JSON and in the documentation.

use serde::{Deserialize, Serialize};

macro_rules! named {
    ($(#[$meta:meta])* $enum:ident { $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum $enum { $($(#[doc = $doc])+ $variant,)+ }

        impl $enum {
            /// All of them, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name in tables, JSON and documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for an operator.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+),)+ }
            }

            /// The one with this stable name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

named! {
    /// What a worker counts besides drops.
    Counter {
        /// Frames taken from receive rings.
        RxPackets = "rx_packets",
        /// Bytes of those frames, from the Ethernet header on.
        RxBytes = "rx_bytes",
        /// Frames handed to transmit rings.
        TxPackets = "tx_packets",
        /// Bytes of those frames, from the Ethernet header on.
        TxBytes = "tx_bytes",
        /// Packets that followed an entry of the flow table.
        FlowHits = "flow_hits",
        /// Flows entered into the flow table.
        FlowsCreated = "flows_created",
        /// Flows that got their second packet and are now safe from eviction.
        FlowsConfirmed = "flows_confirmed",
        /// Unconfirmed flows that made room for newer ones.
        FlowsEvicted = "flows_evicted",
        /// Flows chosen anew: their backend is gone from the pool, they were idle for too long, or their tuple was used again.
        FlowsRehashed = "flows_rehashed",
        /// Packets of flows without an entry, served by Maglev alone because the bucket is full of confirmed flows.
        FlowTableFull = "flow_table_full",
        /// Packets of TCP flows that were in the middle when first seen here.
        MidstreamMisses = "midstream_misses",
        /// Flows whose client has a backend from an earlier connection and was sent there (client-IP affinity).
        AffinityHits = "affinity_hits",
        /// Later fragments that followed their first one.
        FragmentsFollowed = "fragments_followed",
        /// ICMP errors that were sent to the backend, or translated for the client, of the flow they are about.
        IcmpErrorsForwarded = "icmp_errors_forwarded",
        /// Source addresses and ports taken for flows in mode nat.
        NatFlowsCreated = "nat_flows_created",
        /// Echo requests that were answered.
        EchoReplies = "echo_replies",
        /// TCP resets sent for ports without a service.
        ResetReplies = "reset_replies",
        /// "Port unreachable" messages sent for ports without a service.
        UnreachableReplies = "unreachable_replies",
        /// "Too big" messages sent to clients whose packets do not fit the way to the backend.
        TooBigReplies = "too_big_replies",
        /// Packets that left in two outer fragments; each counts once as transmitted.
        OuterFragmented = "outer_fragmented",
        /// Frames moved within their buffer because the headroom did not fit the tunnel header.
        Realigned = "realigned",
        /// Packets in more pieces than can leave again; they were never seen by a worker.
        Oversized = "oversized",
        /// Batches of at least one frame.
        Batches = "batches",
        /// Times the worker slept for want of packets.
        Sleeps = "sleeps",
        /// System calls that told the kernel to transmit.
        TxWakeups = "tx_wakeups",
    }
}

named! {
    /// Why a packet was dropped. Every dropped packet is counted under exactly one reason.
    DropReason {
        /// The frame is shorter than its headers.
        Truncated = "truncated",
        /// The frame carries neither IPv4 nor IPv6.
        NotIp = "not_ip",
        /// Version, header length or total length of the IP header contradict each other.
        BadIpHeader = "bad_ip_header",
        /// The IPv4 header checksum is wrong.
        BadIpChecksum = "bad_ip_checksum",
        /// The TCP or UDP header contradicts the packet's length.
        BadTransportHeader = "bad_transport_header",
        /// The options of the IPv4 header run over its end.
        BadIpOptions = "bad_ip_options",
        /// The packet wants to choose its own route (IPv4 source route, IPv6 routing header with segments left; RFC 7126, RFC 8200).
        SourceRouted = "source_routed",
        /// A fragment that cannot be: empty, beyond the largest packet, or lying over the transport header (RFC 1858).
        BadFragment = "bad_fragment",
        /// A later fragment whose first one was not seen, or too long ago.
        FragmentWithoutFirst = "fragment_without_first",
        /// An ICMP message that is cut short or has a wrong checksum.
        BadIcmp = "bad_icmp",
        /// An ICMP error about a packet that does not belong to any service.
        IcmpUnmatched = "icmp_unmatched",
        /// An ICMP message that is neither an echo request nor an error, or an echo request in fragments.
        IcmpUnhandled = "icmp_unhandled",
        /// An echo request beyond the rate at which they are answered, or from where none may be answered.
        EchoLimited = "echo_limited",
        /// An ICMP error about one of our own tunnel packets; it was taken note of.
        TunnelError = "tunnel_error",
        /// Neither TCP nor UDP nor ICMP.
        UnsupportedProtocol = "unsupported_protocol",
        /// More IPv6 extension headers than are followed.
        TooManyExtensionHeaders = "too_many_extension_headers",
        /// The destination is not (or no longer) an owned address.
        NotOurAddress = "not_our_address",
        /// An owned address, but no service on this protocol and port.
        UnlistedPort = "unlisted_port",
        /// The client's address is in none of the service's source ranges.
        SourceDenied = "source_denied",
        /// The packet claims to come from an address of ours, which would make two services answer each other.
        FromOurAddress = "from_our_address",
        /// The packet came from the very machine it would be sent to: the backend does not have the VIP and sent it back.
        Looped = "looped",
        /// No source address and port is free for a flow in mode nat.
        NatExhausted = "nat_exhausted",
        /// A reset or later fragment to a service in mode nat that belongs to no translated flow.
        NatNoFlow = "nat_no_flow",
        /// A client of a service in mode nat whose frames have two VLAN tags, or a provider's (802.1ad).
        StackedVlan = "stacked_vlan",
        /// The service has no backend that takes new flows.
        NoBackend = "no_backend",
        /// The kernel has no route to the backend.
        NoRoute = "no_route",
        /// The route to the backend leaves by a NIC that Shunt does not serve.
        RouteElsewhere = "route_elsewhere",
        /// The MAC address on the way to the backend is not known (yet).
        NeighborUnresolved = "neighbor_unresolved",
        /// Direct routing needs the backend on the same L2 segment, but the route goes through a gateway.
        BackendNotOnLink = "backend_not_on_link",
        /// The packet does not fit the MTU of the way to the backend, tunnel header included.
        TooBig = "too_big",
        /// The transmit ring is full.
        TxRingFull = "tx_ring_full",
    }
}

/// Counters of one worker, or their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValues {
    /// By [`Counter::name`].
    pub counters: std::collections::BTreeMap<String, u64>,
    /// By [`DropReason::name`].
    pub drops: std::collections::BTreeMap<String, u64>,
}

impl CounterValues {
    /// The value of one counter; 0 if the other side does not know it.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter.name()).copied().unwrap_or(0)
    }

    /// Packets dropped for one reason; 0 if the other side does not know it.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.name()).copied().unwrap_or(0)
    }

    /// Packets dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops.values().sum()
    }

    /// Adds another worker's values.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.counters {
            *self.counters.entry(name.clone()).or_default() += value;
        }
        for (name, value) in &other.drops {
            *self.drops.entry(name.clone()).or_default() += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_name(reason.name()), Some(*reason));
            assert!(reason.description().ends_with('.'), "{}", reason.name());
        }
        for counter in Counter::ALL {
            assert_eq!(Counter::from_name(counter.name()), Some(*counter));
        }
    }
}
