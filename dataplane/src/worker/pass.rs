//! Sending a packet by the [`Way`] that [`Express`](super::express::Express) found. Whatever is not as usual is given
//! back, to be decided in full.

use std::net::IpAddr;

use shunt_api::snapshot::Protocol;

use super::express::{Express, Sight, Way};
use super::outbound::Outbound;
use crate::flow::{FlowKey, FlowKey4, FlowKey6, Tuple};
use crate::forward::{Decision, Events, FlowOutcome, Verdict, decide, peek};
use crate::memo::Memo;
use crate::nat::{LastHop, Translation};
use crate::packet::ethernet::Tags;
use crate::packet::{self, Content, Packet, ethernet, ipv4, ipv6, transport};
use crate::port::{Frame, NicIndex, Port};
use crate::rewrite::{self, Link, Outer};
use crate::table::{Exit, Forwarding};

impl<P: Port> Outbound<'_, P> {
    /// Writes a packet's headers as they leave, and says by which NIC; `None`, and nothing is written, if it must be
    /// decided.
    #[inline(always)]
    pub fn pass(&mut self, frame: &mut Frame, sight: &Sight) -> Option<NicIndex> {
        if sight.way == Way::Direct {
            self.directly(frame, sight)
        } else if sight.way == Way::Tunnel {
            self.through_tunnel(frame, sight)
        } else if sight.way == Way::Decide {
            None
        } else {
            self.with_new_ends(frame, sight)
        }
    }

    #[inline(always)]
    fn directly(&mut self, frame: &mut Frame, sight: &Sight) -> Option<NicIndex> {
        let exit = exit(self.forwarding, sight)?;
        if sight.ip_length > exit.direct_room || !sight.inner().is_untagged() {
            return self.retagged(frame, sight, exit, None);
        }
        let (at, same_nic) = (frame.range(), frame.nic() == exit.nic);
        let buffer = self.port.buffer(frame);
        frame.set_range(rewrite::redirect_at_once(buffer, at, sight.ip_length, &exit.link, same_nic)?);
        Some(exit.nic)
    }

    #[inline(always)]
    fn through_tunnel(&mut self, frame: &mut Frame, sight: &Sight) -> Option<NicIndex> {
        let exit = exit(self.forwarding, sight)?;
        let outer = exit.ends.as_ref()?.outer(sight.word);
        if sight.ip_length > exit.tunnel_room || !sight.inner().is_untagged() {
            return self.retagged(frame, sight, exit, Some(&outer));
        }
        let (at, buffer) = (frame.range(), self.port.buffer(frame));
        frame.set_range(rewrite::wrap_at_once(buffer, at, &sight.inner(), &exit.link, &outer)?);
        Some(exit.nic)
    }

    /// Where a tag comes off or on.
    #[inline(never)]
    fn retagged(
        &mut self,
        frame: &mut Frame,
        sight: &Sight,
        exit: &Exit,
        outer: Option<&Outer>,
    ) -> Option<NicIndex> {
        let from = ethernet::parse(self.head(frame)).map(|header| header.source);
        let comes_back = from == Ok(exit.link.destination) && frame.nic() == exit.nic;
        if outer.is_none() && (comes_back || !exit.on_link) {
            return None;
        }
        self.place_if_it_fits(frame, &sight.inner(), &exit.link, outer)?;
        Some(exit.nic)
    }

    #[inline(never)]
    fn with_new_ends(&mut self, frame: &mut Frame, sight: &Sight) -> Option<NicIndex> {
        let (translation, link, nic) = match sight.way {
            Way::Return => self.back_to_client(sight)?,
            _ => self.on_to_backend(frame, sight)?,
        };
        let of_family = |end: IpAddr| end.is_ipv6() == sight.is_v6;
        let alike = of_family(translation.source.0) && of_family(translation.destination.0);
        if u32::from(sight.ip_length) > link.mtu || !alike {
            return None;
        }
        if link.vlan.is_some() || !sight.inner().is_untagged() {
            self.place_if_it_fits(frame, &sight.inner(), &link, None)?;
            let ip = self.port.buffer(frame).get_mut(frame.range().start + link.header_length()..)?;
            return rewrite::translate_plain(ip, sight.protocol(), &translation).map(|()| nic);
        }
        let (at, buffer) = (frame.range(), self.port.buffer(frame));
        let range = rewrite::redirect_at_once(buffer, at, sight.ip_length, &link, false)?;
        let ip = buffer.get_mut(range.start + ethernet::HEADER_LENGTH..)?;
        rewrite::translate_plain(ip, sight.protocol(), &translation)?;
        frame.set_range(range);
        Some(nic)
    }

    fn on_to_backend(&mut self, frame: &Frame, sight: &Sight) -> Option<(Translation, Link, NicIndex)> {
        let forwarding = self.forwarding;
        let exit = exit(forwarding, sight)?;
        let head = self.head(frame);
        let (source, tags) = if sight.inner().is_untagged() {
            (ethernet::source(head.first_chunk()?), Tags::None)
        } else {
            ethernet::parse(head).map(|header| (header.source, header.tags)).ok()?
        };
        let last_hop = LastHop::new(frame.nic(), source, tags)?;
        let memo = Memo(sight.word);
        let translation = outward(forwarding, sight, memo).filter(|_| memo.may_come_by(last_hop))?;
        Some((translation, exit.link, exit.nic))
    }

    fn back_to_client(&self, sight: &Sight) -> Option<(Translation, Link, NicIndex)> {
        let last_hop = LastHop(sight.word);
        Some((homeward(sight)?, self.link_to(last_hop)?, last_hop.nic()))
    }

    /// The packet and what would have been decided of it, for whoever looks.
    pub fn seen(
        &mut self,
        frame: &Frame,
        sight: &Sight,
        express: &Express<'_>,
    ) -> (Option<Packet>, Option<Decision>) {
        let Ok(packet) = packet::parse(self.head(frame), frame.length()) else { return (None, None) };
        let decision = sight.decision(&packet, express);
        let context = express.context(frame.nic());
        let agrees = |decision: Decision| match decision.verdict {
            // The decision would keep the way back alive.
            Verdict::Translate { .. } => peek(&packet, context) == Some(decision.verdict),
            _ => decide(&packet, context) == decision,
        };
        debug_assert!(decision.is_none_or(agrees), "{packet:?} {decision:?}");
        debug_assert!(sight.packet(self.head(frame)).is_none_or(|read| read == packet));
        (Some(packet), decision)
    }

    fn head(&mut self, frame: &Frame) -> &[u8] {
        &self.port.buffer(frame)[frame.range()]
    }
}

#[inline(always)]
fn exit<'a>(forwarding: &'a Forwarding, sight: &Sight) -> Option<&'a Exit> {
    forwarding.exits.get(sight.backend.0 as usize)?.as_ref()
}

/// New ends of a packet to a backend.
fn outward(forwarding: &Forwarding, sight: &Sight, memo: Memo) -> Option<Translation> {
    let table = &forwarding.table;
    let source = table.nat.as_ref()?.source(memo.binding())?;
    let port = table.permit(memo.version())?.target;
    Some(Translation { source, destination: (table.address(sight.backend)?, port) })
}

/// New ends of a reply, whose client's flow is known.
fn homeward(sight: &Sight) -> Option<Translation> {
    let flow = sight.flow()?;
    let source = (flow.vip(), flow.service_port().port);
    Some(Translation { source, destination: (flow.client(), flow.client_port()) })
}

impl Sight {
    fn protocol(&self) -> Protocol {
        let ports = if self.is_v6 { self.key[4] } else { self.key[1] };
        if ports as u8 == transport::TCP { Protocol::Tcp } else { Protocol::Udp }
    }

    /// The client's flow.
    fn flow(&self) -> Option<FlowKey> {
        let [a, b, ..] = self.key;
        if self.is_v6 {
            FlowKey6::from_words(self.key).map(FlowKey::V6)
        } else {
            FlowKey4::from_words([a, b]).map(FlowKey::V4)
        }
    }

    /// The packet as it is parsed, if it is a plain one without a tag.
    pub fn packet(&self, head: &[u8]) -> Option<Packet> {
        let header = head.first_chunk::<{ ethernet::HEADER_LENGTH + ipv4::HEADER_LENGTH }>()?;
        let header_length = if self.is_v6 { ipv6::HEADER_LENGTH } else { ipv4::HEADER_LENGTH } as u16;
        let flow = self.flow().filter(|_| self.inner().is_untagged() && self.way != Way::Return)?;
        Some(Packet {
            flow,
            content: Content::Whole,
            ip_offset: ethernet::HEADER_LENGTH as u16,
            header_length,
            ip_length: self.ip_length,
            traffic_class: self.traffic_class,
            tcp_flags: self.tcp_flags,
            dont_fragment: self.is_v6 || ipv4::dont_fragment(header.last_chunk()?),
            source_mac: ethernet::source(header.first_chunk()?),
            tags: Tags::None,
        })
    }

    /// What would have been decided of the packet.
    fn decision(&self, packet: &Packet, express: &Express<'_>) -> Option<Decision> {
        let forwarding = express.forwarding;
        let table = &*forwarding.table;
        let member = || {
            let listener = table.listener_of(&packet.flow)?;
            Some((listener, table.pool(table.listener(listener).pool).member_of(self.backend)?))
        };
        let (verdict, hash) = match self.way {
            Way::Decide | Way::Find | Way::FindReply => return None,
            Way::Direct | Way::Tunnel => {
                let (listener, member) = member()?;
                (Verdict::Forward { listener, member }, self.word)
            }
            Way::Translate => {
                let (listener, member) = member()?;
                let translation = outward(forwarding, self, Memo(self.word))?;
                let hash = match packet.flow {
                    FlowKey::V4(flow) => express.flows.v4.places(&flow.words()).hash,
                    FlowKey::V6(flow) => express.flows.v6.places(&flow.words()).hash,
                };
                (Verdict::Translate { listener, member, translation }, hash)
            }
            Way::Return => {
                let (translation, last_hop) = (homeward(self)?, LastHop(self.word));
                (Verdict::Return { backend: self.backend, translation, last_hop }, 0)
            }
        };
        Some(Decision { verdict, outcome: FlowOutcome::Hit, events: Events::default(), hash })
    }
}
