//! Every bound of the dataplane with its reason, and where reaching it shows.

use std::time::Duration;

use shunt_api::config;

/// Most frames a worker takes at once: the batch then fits the first-level cache with its packets' headers.
pub const MAX_BATCH: usize = *config::BATCH.end() as usize;

/// Most NICs: a NIC's index is kept in one byte of a next hop, and no box has more.
pub const MAX_NICS: usize = config::NICS_MAX;

/// Most backends of one pool: Maglev slots hold 16-bit indices. A snapshot beyond it is refused.
pub const MAX_POOL_BACKENDS: usize = config::BACKENDS_MAX;

/// Bytes of one AF_XDP frame: the smallest that the kernel allows, which holds an MTU of 1500. A larger packet
/// comes in pieces of one frame each.
pub const FRAME_SIZE: u32 = 2048;

/// Bytes at the start of every AF_XDP frame that the kernel keeps free (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: u32 = 256;

/// Most bytes between the start of a buffer and the Ethernet header: an outer IPv6 header and a VLAN tag.
const LEAD: u32 = 40 + 4;

/// Ethernet header with one VLAN tag.
const ETHERNET: u32 = 14 + 4;

/// Bytes of the largest IP packet that surely fits one buffer: the MTU that can be served where a driver does
/// not take packets in pieces. Larger packets are lost there, which shows as `rx_dropped` of the sockets.
pub const SINGLE_BUFFER_MTU: u32 = FRAME_SIZE - KERNEL_HEADROOM - LEAD - ETHERNET;
const _: () = assert!(SINGLE_BUFFER_MTU >= 1500, "every network has an MTU of 1500");

/// Most pieces of one packet; a packet of more is dropped and counted as `oversized`. To send in copy mode the
/// kernel makes each piece a fragment of a socket buffer, which has room for `MAX_SKB_FRAGS` = 17
/// (`xsk_build_skb_zerocopy` of net/xdp/xsk.c). That is 30 kB, and an MTU of 9000 needs 6.
pub const MAX_PIECES: usize = 17;

/// Empty rounds before a worker sleeps: about the time in which a busy NIC delivers its next packet.
pub const SPINS_BEFORE_SLEEP: u32 = 32;

/// Longest sleep of a worker, so that its heartbeat is never older.
pub const MAX_SLEEP: Duration = Duration::from_millis(200);

/// Between two looks of the control thread at the workers.
pub const TICK: Duration = Duration::from_millis(250);

/// A worker that has not gone round between so many looks (one second) is reported as stalled.
pub const STALL_REPORTED_LOOKS: u32 = 4;

/// A worker that has not gone round between so many looks (ten seconds) ends the process, to be started afresh.
pub const STALL_FATAL_LOOKS: u32 = 40;

/// Time that the ways to new backends have to become known before packets are sent to them all the same. A
/// neighbour on the segment answers within a millisecond.
pub const HOPS_PATIENCE: Duration = Duration::from_millis(200);

/// How long an ending worker is waited for; one that hangs is left behind.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Time the workers have to see a new table before the snapshot is reported as not acknowledged.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Fragmented packets of a family that are remembered at once; beyond it the longest silent one is forgotten, and
/// its later fragments are `fragment_without_first`. 10 Gbit/s of 8 kB datagrams are 150,000 a second, whose
/// fragments come within milliseconds.
pub const FRAGMENTED_PACKETS: usize = 4096;

/// Seconds for which a later fragment may follow its first: what hosts wait at most is 60 (RFC 8200 §4.5), what
/// Linux waits is 30.
pub const FRAGMENT_IDLE_S: u32 = 30;

/// Source address and port pairs tried for a translated flow before it counts as `nat_exhausted`. With nine of
/// ten pairs taken, one flow in 850 finds none.
pub const NAT_ATTEMPTS: u32 = 64;

/// Candidates in which a flow without an entry looks for a pair of its own before it takes a free one. Of flows
/// that began when half of all pairs were taken, one in 256 has it further on.
pub const NAT_OWN_ATTEMPTS: u32 = 8;

/// Lowest port of translated flows: those below are the system's (RFC 6335).
pub const NAT_PORT_MIN: u16 = 1024;

/// Least path MTU towards an IPv4 backend that an ICMP message is believed, so that a forged one does not cut IPv6
/// clients off: their packets of 1280 bytes still pass in two outer fragments.
pub const PATH_MTU_MIN_V4: u32 = 680;

/// Least path MTU towards an IPv6 backend that an ICMP message is believed: clients' IPv6 packets of 1280 bytes,
/// which may not be called too big (RFC 8200 §5), and the tunnel's header.
pub const PATH_MTU_MIN_V6: u32 = 1320;

/// How long a path MTU learned from an ICMP message is used (RFC 1191 §6.3).
pub const PATH_MTU_AGE: Duration = Duration::from_mins(10);

/// Notices from workers that wait for the control thread; beyond it they are lost, and sent again by the next
/// packet with the same cause.
pub const NOTICES: usize = 256;

/// Time in which the sweep passes the whole flow table once.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(10);

/// Most flows in one answer of `GET /v1/flows`, whatever the request's limit.
pub const MAX_FLOWS_LISTED: usize = 1_000_000;

/// Largest snapshot accepted, in bytes of JSON: 10,000 services × 50 backends come to about 60 MB.
pub const MAX_SNAPSHOT_BYTES: usize = 256 << 20;
