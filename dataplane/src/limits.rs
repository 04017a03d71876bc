//! Every bound of the dataplane with its reason, and where reaching it shows.

use std::time::Duration;

use shunt_api::config;

/// Most frames a worker takes at once: the batch then fits the first-level cache with its packets' headers.
pub const MAX_BATCH: usize = *config::BATCH.end() as usize;

/// Most NICs: a NIC's index is kept in one byte of a next hop, and no box has more.
pub const MAX_NICS: usize = config::NICS_MAX;

/// Most backends of one pool: Maglev slots hold 16-bit indices. A snapshot beyond it is refused.
pub const MAX_POOL_BACKENDS: usize = config::BACKENDS_MAX;

/// Bytes of one AF_XDP frame: the smallest that the kernel allows, which holds an MTU of 1500 with 256 bytes
/// of kernel headroom and 40 of tunnel header.
pub const FRAME_SIZE: u32 = 2048;

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

/// Time in which the sweep passes the whole flow table once.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(10);

/// Most flows in one answer of `GET /v1/flows`, whatever the request's limit.
pub const MAX_FLOWS_LISTED: usize = 1_000_000;

/// Largest snapshot accepted, in bytes of JSON: 10,000 services × 50 backends come to about 60 MB.
pub const MAX_SNAPSHOT_BYTES: usize = 256 << 20;
