//! Networks in network namespaces, real and small peers, and the checks on what they saw: the ground that
//! the end-to-end tests (`tests/end_to_end`) and the demo (`shunt-demo`) stand on.
//!
//! Nothing here sends a packet outside the namespaces it made, and nothing it made outlives it (see
//! [`lifecycle`] and [`leftovers`]). The programs under test are the built binaries; all that is shared
//! with them is `shunt-api`.

pub mod attempt;
pub mod bird;
pub mod bpf;
pub mod client;
pub mod command;
pub mod curl;
pub mod decapsulator;
pub mod demo;
pub mod echo;
pub mod error;
pub mod leftovers;
pub mod lifecycle;
pub mod namespace;
pub mod ping;
pub mod process;
pub mod programs;
pub mod run;
pub mod scenarios;
pub mod servers;
pub mod settings;
pub mod shares;
pub mod shunt;
pub mod topology;
pub mod vlan;
pub mod wait;
