//! What the box hears on its segments.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use shunt_api::mac::MacAddress;
use tracing::Level;

use super::{GRACE, PEERS, Sent, Station, subject};
use crate::announce::l2::arp::{Arp, Operation};
use crate::announce::l2::conflicts::Tell;
use crate::announce::l2::frame::Ethernet;
use crate::announce::l2::link::Facts;
use crate::announce::l2::ndp::{self, Ndp};
use crate::announce::l2::socket::Kind;
use crate::announce::l2::vrrp::{Advertisement, Refused};

impl Station {
    /// Takes in a frame that came by a NIC.
    pub fn receive(&mut self, nic: &str, kind: Kind, frame: &[u8], now: Instant) {
        let Some(facts) = self.nics.get(nic).cloned() else { return };
        let Some(ethernet) = Ethernet::parse(frame) else { return };
        // What comes back to its sender is a loop of the network's, or another NIC of ours on the same segment.
        let is_echo = self.nics.values().any(|own| own.mac == ethernet.source);
        if is_echo || !ethernet.is_for(facts.mac) {
            return;
        }
        match kind {
            Kind::Arp => self.hear_arp(nic, &facts, ethernet, now),
            Kind::Ndp => self.hear_ndp(nic, &facts, ethernet, now),
            Kind::VrrpV4 | Kind::VrrpV6 => self.hear_vrrp(&facts, ethernet, now),
        }
    }

    fn hear_arp(&mut self, nic: &str, facts: &Facts, ethernet: Ethernet<'_>, now: Instant) {
        let Some(arp) = Arp::parse(ethernet.payload) else { return };
        if self.answers_for_v4(arp.sender) {
            return self.hear_claim(nic, facts, arp.sender.into(), arp.sender_mac, now);
        }
        if arp.operation == Operation::Request && self.answers_for_v4(arp.target) {
            self.answered += 1;
            self.output.frames.push(Sent { nic: facts.index, frame: arp.answer(facts.mac) });
        }
    }

    fn hear_ndp(&mut self, nic: &str, facts: &Facts, ethernet: Ethernet<'_>, now: Instant) {
        match Ndp::parse(ethernet.payload) {
            Some(Ndp::Solicitation { source, target, link }) if self.answers_for_v6(target) => {
                let asker = link.unwrap_or(ethernet.source);
                self.answer_solicitation(facts, source, target, asker);
            }
            Some(Ndp::Advertisement { target, link }) if self.answers_for_v6(target) => {
                self.hear_claim(nic, facts, target.into(), link.unwrap_or(ethernet.source), now);
            }
            _ => {}
        }
    }

    fn answer_solicitation(&mut self, facts: &Facts, source: Ipv6Addr, target: Ipv6Addr, asker: MacAddress) {
        self.answered += 1;
        let frame = ndp::answer(source, target, asker, facts.mac);
        self.output.frames.push(Sent { nic: facts.index, frame });
    }

    fn hear_vrrp(&mut self, facts: &Facts, ethernet: Ethernet<'_>, now: Instant) {
        let Some(own) = facts.elected_with().filter(|_| self.election.is_some()) else { return };
        let group = self.group();
        let heard = Advertisement::parse(ethernet.payload);
        let (said, from) = match heard {
            Ok((said, from)) if said.group == group => (said, from),
            // Another protocol shares the filter's conditions, and another election the segment.
            Err(Refused::NotVrrp) => return,
            _ => return self.refused += 1,
        };
        if self.peers.len() < PEERS || self.peers.contains_key(&ethernet.source) {
            self.peers.insert(ethernet.source, now);
        }
        if let Some(election) = &mut self.election {
            let outcome = election.hear(said, from, own, now);
            self.act(outcome, now);
        }
    }

    /// Another station says that it has one of the addresses that we answer for.
    fn hear_claim(&mut self, nic: &str, facts: &Facts, address: IpAddr, mac: MacAddress, now: Instant) {
        let is_ours = self.own.contains(&mac) || self.nics.values().any(|own| own.mac == mac);
        let is_peer = self.peers.contains_key(&mac) && now < self.tolerate_until;
        if is_ours || is_peer {
            return;
        }
        self.schedule.defend(address, now);
        let tell = self.conflicts.observe(address, mac, nic, now, self.wall);
        if tell == Tell::Nothing {
            return;
        }
        let text = format!("claimed by {mac} on {nic}, which is not this box ({})", facts.mac);
        let more = if tell == Tell::ThisAndNoMore { "; more claims are not told for a minute" } else { "" };
        let keep =
            if address.is_ipv4() { "arp_ignore = 1, arp_announce = 2" } else { "on its lo, not on a NIC" };
        let advice = format!(
            "take the address from that station; a backend that has it must keep it to itself ({keep}){more}"
        );
        self.tell(Level::ERROR, subject(address), text, Some(advice));
    }

    /// Forgets boxes of the group that were not heard for longer than claims of theirs are tolerated.
    pub(super) fn forget_peers(&mut self, now: Instant) {
        if now >= self.tolerate_until {
            self.peers.retain(|_, heard| now.saturating_duration_since(*heard) < 20 * GRACE);
        }
    }
}
