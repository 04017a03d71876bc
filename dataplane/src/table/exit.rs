//! The ways out as packets read them: for each backend one cache line with all that its headers are made of. Made off
//! the workers from next hops and settings.

use std::net::IpAddr;
use std::sync::Arc;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Mode, Tunnel};

use super::{Hop, OpenHop, Table};
use crate::port::NicIndex;
use crate::rewrite::{Ends, Link, Outer};

/// The way to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Exit {
    /// Ethernet header to write.
    pub link: Link,
    /// NIC to leave by.
    pub nic: NicIndex,
    /// Direct routing works: there is no gateway in between.
    pub on_link: bool,
    /// Ends of tunnels; `None` if the box has no address of the backend's family to tunnel from.
    pub ends: Option<Ends>,
    /// Bytes of IP packet that may go there as they are with nothing but new MAC addresses; 0 if none may.
    pub direct_room: u16,
    /// Bytes of IP packet that fit the tunnel, if nothing but an IP header comes before them; 0 if none do.
    pub tunnel_room: u16,
}

const _: () = assert!(size_of::<Option<Exit>>() == crate::memory::LINE);

impl Exit {
    /// What an open way to `backend` comes to.
    pub fn of(hop: &OpenHop, tunnel: &Tunnel, backend: IpAddr) -> Self {
        let ends = Ends::of(tunnel, hop.source, backend);
        let plain = hop.link.vlan.is_none();
        let room = |may: bool, before: u32| {
            if may { hop.link.mtu.saturating_sub(before).min(u16::MAX.into()) as u16 } else { 0 }
        };
        Self {
            link: hop.link,
            nic: hop.nic,
            on_link: hop.on_link,
            direct_room: room(plain && hop.on_link, 0),
            tunnel_room: room(plain && ends.is_some(), ends.map_or(0, |ends| ends.length())),
            ends,
        }
    }

    /// The header that packets of a flow with this hash get in front in mode `dr` (none) or `ipip`; `Err` with the
    /// reason if they cannot leave.
    pub fn outer(&self, mode: Mode, hash: u64) -> Result<Option<Outer>, DropReason> {
        match mode {
            Mode::Dr if !self.on_link => Err(DropReason::BackendNotOnLink),
            Mode::Dr | Mode::Nat => Ok(None),
            // A route without a usable source address of the backend's family is no route for a tunnel.
            Mode::Ipip => Ok(Some(self.ends.ok_or(DropReason::NoRoute)?.outer(hash))),
        }
    }
}

/// By `BackendId`; `None` where packets cannot leave.
pub fn exits(table: &Table, hops: &[Hop]) -> Arc<[Option<Exit>]> {
    let exit = |(id, hop): (usize, &Hop)| {
        let Hop::Open(hop) = hop else { return None };
        let address: IpAddr = table.addresses.get(id).copied().flatten()?;
        Some(Exit::of(hop, &table.tunnel, address))
    };
    hops.iter().enumerate().map(exit).collect()
}
