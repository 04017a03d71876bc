//! Atomics of the flow table: the standard ones, or loom's when its model checker runs.

#[cfg(feature = "loom")]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
pub use std::sync::atomic::{AtomicU64, Ordering, fence};
