//! Makes the network deliver VIPs to this box: by answering for them on its segment ([`l2`]), and by routes that a
//! routing daemon exports ([`route`]). Each follows what it is told to announce, and decides nothing about it.

pub mod l2;
pub mod route;

use std::collections::BTreeSet;
use std::net::IpAddr;

/// What to announce by one of the ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted<S> {
    /// Not known yet, as just after the start: what is announced stays, and nothing is added.
    #[default]
    Unknown,
    /// This way is not used: what is announced goes.
    Unused,
    /// Exactly these addresses.
    These {
        /// How.
        settings: S,
        /// Each as a single host.
        addresses: BTreeSet<IpAddr>,
    },
}
