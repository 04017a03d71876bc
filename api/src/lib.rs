//! What Shunt's programs say to each other: the configuration a person writes ([`config`]), the snapshot
//! the dataplane obeys ([`snapshot`]) and the way from one to the other ([`compile`]), and what the daemons
//! report ([`status`], [`counters`]). The client for their Unix sockets is behind the feature `client`, what
//! the daemons do alike behind `daemon`. This crate never does packet work and never opens a NIC.

pub mod address_pool;
#[cfg(feature = "client")]
pub mod client;
pub mod compile;
pub mod config;
pub mod counters;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod explain;
pub mod file;
pub mod mac;
pub mod snapshot;
pub mod status;

/// Where the dataplane listens unless told otherwise.
pub const DATAPLANE_SOCKET: &str = "/run/shunt/dataplane.sock";
/// Where the control plane listens unless told otherwise.
pub const CONTROLPLANE_SOCKET: &str = "/run/shunt/controlplane.sock";
/// The configuration file unless told otherwise.
pub const CONFIG_FILE: &str = "/etc/shunt/shunt.toml";
