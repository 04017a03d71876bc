//! Multicast groups that a NIC listens to, so that its filter and the switches let their frames through.
//!
//! The kernel joins, and tells routers and switches by MLD (RFC 3810). A socket has room for a few hundred groups
//! (`net.core.optmem_max`), so that more sockets are opened as it takes. They receive nothing themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use rustix::io::Errno;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

use super::vrrp;

/// Most groups joined at once: each may set the filter of the NIC anew.
const BATCH: usize = 64;
/// Most sockets: room for ten thousands of groups.
const SOCKETS_MAX: usize = 256;

/// The groups of one NIC.
#[derive(Debug, Default)]
pub struct Groups {
    sockets: Vec<Socket>,
    /// By the socket that joined.
    joined: BTreeMap<Ipv6Addr, usize>,
    election_v4: Option<Socket>,
}

impl Groups {
    /// Comes nearer to having joined exactly these, by a batch. Returns whether that is done.
    pub fn follow(&mut self, nic: u32, wanted: &BTreeSet<Ipv6Addr>) -> io::Result<bool> {
        let gone: Vec<Ipv6Addr> =
            self.joined.keys().filter(|group| !wanted.contains(group)).take(BATCH).copied().collect();
        for group in &gone {
            if let Some(socket) = self.joined.remove(group) {
                // It fails if the NIC is gone, and then there is nothing to leave.
                let _ = self.sockets[socket].leave_multicast_v6(group, nic);
            }
        }
        let new: Vec<Ipv6Addr> =
            wanted.iter().filter(|group| !self.joined.contains_key(group)).take(BATCH).copied().collect();
        for group in &new {
            self.join(nic, *group)?;
        }
        Ok(gone.len() < BATCH && new.len() < BATCH)
    }

    /// Joins the group of the election over IPv4, or leaves it.
    pub fn follow_election_v4(&mut self, nic: u32, wanted: bool) -> io::Result<()> {
        if !wanted {
            self.election_v4 = None;
        } else if self.election_v4.is_none() {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.join_multicast_v4_n(&vrrp::GROUP_V4, &InterfaceIndexOrAddress::Index(nic))?;
            self.election_v4 = Some(socket);
        }
        Ok(())
    }

    fn join(&mut self, nic: u32, group: Ipv6Addr) -> io::Result<()> {
        // The last is the one with room, unless groups were left.
        for (number, socket) in self.sockets.iter().enumerate().rev() {
            match socket.join_multicast_v6(&group, nic) {
                Ok(()) => {
                    self.joined.insert(group, number);
                    return Ok(());
                }
                Err(error) if is_full(&error) && self.sockets.len() < SOCKETS_MAX => {}
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        socket.join_multicast_v6(&group, nic)?;
        self.joined.insert(group, self.sockets.len());
        self.sockets.push(socket);
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOBUFS, Errno::NOMEM];
    full.iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}
