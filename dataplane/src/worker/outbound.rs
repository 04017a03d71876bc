//! What becomes of a packet after the decision: sent on, answered or dropped, and counted.

use shunt_api::counters::{Counter, DropReason};
use shunt_api::snapshot::Mode;

use crate::conntrack::Seconds;
use crate::flow::FlowKey;
use crate::forward::{Decision, Reply, Verdict};
use crate::nat::{LastHop, Translation};
use crate::notices::{Notice, Notices};
use crate::packet::plain::Inner;
use crate::packet::{Content, Packet, ethernet};
use crate::port::{Frame, NicIndex, Port};
use crate::reply;
use crate::rewrite::{self, Link, Outer};
use crate::stats::Tally;
use crate::table::{Exit, Forwarding, Member};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It, or an answer to its sender, is queued to leave by a NIC.
    Sent(NicIndex),
    /// It is gone.
    Dropped(DropReason),
}

/// Is told of each packet, in the order in which they came.
pub trait Observer {
    /// Whether it looks; packets are read and decisions put together for nobody else.
    const LOOKS: bool = true;

    /// `packet` and `decision` are missing if it could not be parsed.
    fn saw(&mut self, packet: Option<&Packet>, decision: Option<&Decision>, fate: Fate);
}

/// Nobody looks; costs nothing.
impl Observer for () {
    const LOOKS: bool = false;

    fn saw(&mut self, _: Option<&Packet>, _: Option<&Decision>, _: Fate) {}
}

/// Answers of each kind that may still be given in this second.
#[derive(Debug, Default)]
pub struct Budget {
    second: Option<Seconds>,
    left: [u32; 4],
}

/// Kinds of answers, each with a budget of its own, so that a flood that provokes one does not silence the others.
#[derive(Clone, Copy)]
enum Answer {
    Echo,
    Reset,
    Unreachable,
    TooBig,
}

impl Budget {
    /// A new second gives a new budget.
    pub fn renew(&mut self, now: Seconds, rate: u32) {
        if self.second != Some(now) {
            *self = Self { second: Some(now), left: [rate; 4] };
        }
    }

    fn has(&self, answer: Answer) -> bool {
        self.left[answer as usize] > 0
    }

    fn spend(&mut self, answer: Answer) {
        self.left[answer as usize] -= 1;
    }
}

/// The way out of one packet.
pub struct Outbound<'a, P> {
    pub port: &'a mut P,
    pub tally: &'a mut Tally,
    pub budget: &'a mut Budget,
    pub fragment_id: &'a mut (u16, u16),
    pub forwarding: &'a Forwarding,
    pub notices: &'a Notices,
}

/// The way of a packet that was decided and goes on.
struct Route {
    nic: NicIndex,
    link: Link,
    outer: Option<Outer>,
    translation: Option<Translation>,
}

impl<P: Port> Outbound<'_, P> {
    /// Does what was decided.
    pub fn act(&mut self, frame: Frame, packet: &Packet, decision: &Decision) -> Fate {
        decision.outcome.counters().iter().for_each(|&counter| self.tally.add(counter, 1));
        if !decision.events.is_empty() {
            decision.events.counters().for_each(|counter| self.tally.add(counter, 1));
        }
        let way = match decision.verdict {
            Verdict::Forward { listener, member } => {
                self.to_member(&frame, packet, listener, member, None, decision.hash)
            }
            Verdict::Translate { listener, member, translation } => {
                self.to_member(&frame, packet, listener, member, Some(translation), decision.hash)
            }
            Verdict::Return { translation, last_hop, .. } => self.to_client(translation, last_hop),
            Verdict::Reply(reply) => return self.answer(frame, packet, reply),
            Verdict::Drop(reason) => {
                self.note(packet, reason);
                Err(reason)
            }
        };
        match way {
            Ok(way) => self.send(frame, packet, &way),
            Err(reason) => self.discard(frame, reason),
        }
    }

    fn to_member(
        &self,
        frame: &Frame,
        packet: &Packet,
        listener: u32,
        member: u16,
        translation: Option<Translation>,
        hash: u64,
    ) -> Result<Route, DropReason> {
        let table = &self.forwarding.table;
        let member = table.pool(table.listener(listener).pool).member(member);
        let exit = self.forwarding.exit(member.backend)?;
        let outer = exit.outer(member.mode, hash)?;
        if member.mode == Mode::Dr && came_back(frame, packet, member, exit) {
            self.notices.leave(Notice::Looped { backend: member.backend });
            return Err(DropReason::Looped);
        }
        Ok(Route { nic: exit.nic, link: exit.link, outer, translation })
    }

    /// The way back is the one that the client's packets come by.
    fn to_client(&self, translation: Translation, last_hop: LastHop) -> Result<Route, DropReason> {
        let link = self.link_to(last_hop).ok_or(DropReason::NoRoute)?;
        Ok(Route { nic: last_hop.nic(), link, outer: None, translation: Some(translation) })
    }

    /// What a packet to a last hop begins with.
    pub fn link_to(&self, last_hop: LastHop) -> Option<Link> {
        let own = self.forwarding.nics.get(usize::from(last_hop.nic().0))?;
        Some(Link { destination: last_hop.mac(), source: own.mac, vlan: last_hop.vlan(), mtu: own.mtu })
    }

    fn send(&mut self, mut frame: Frame, packet: &Packet, way: &Route) -> Fate {
        let fits = rewrite::room(&way.link, way.outer.as_ref());
        if u32::from(packet.ip_length) > fits {
            return self.too_big(frame, packet, way, fits);
        }
        match self.write(&mut frame, packet, way) {
            Ok(()) => self.transmit(way.nic, frame),
            Err(reason) => self.discard(frame, reason),
        }
    }

    /// Writes the headers before the IP packet. `None`, and only padding is gone, if it does not fit the way or the
    /// buffer with them.
    pub fn place_if_it_fits(
        &mut self,
        frame: &mut Frame,
        inner: &Inner,
        link: &Link,
        outer: Option<&Outer>,
    ) -> Option<()> {
        let fits = u32::from(inner.ip_length) <= rewrite::room(link, outer);
        if fits { self.place(frame, inner, link, outer).ok() } else { None }
    }

    /// Writes all headers.
    fn write(&mut self, frame: &mut Frame, packet: &Packet, way: &Route) -> Result<(), DropReason> {
        if let Some(translation) = &way.translation {
            let (at, ip) = (frame.range(), usize::from(packet.ip_offset));
            let end = at.end.min(at.start + ip + usize::from(packet.ip_length));
            rewrite::translate(&mut self.port.buffer(frame)[at.start + ip..end], packet, translation);
        }
        self.place(frame, &packet.inner(), &way.link, way.outer.as_ref())
    }

    /// Writes the headers before the IP packet. Bytes behind it stay here.
    #[inline(never)]
    fn place(
        &mut self,
        frame: &mut Frame,
        inner: &Inner,
        link: &Link,
        outer: Option<&Outer>,
    ) -> Result<(), DropReason> {
        if let Some(range) = self.placed_at_once(frame, inner, link, outer) {
            frame.set_range(range);
            return Ok(());
        }
        let end = usize::from(inner.ip_offset) + usize::from(inner.ip_length);
        let least = if frame.length() < ethernet::MIN_LENGTH { 0 } else { ethernet::MIN_LENGTH };
        self.port.truncate(frame, end);
        let (at, buffer) = (frame.range(), self.port.buffer(frame));
        let placed = rewrite::place(buffer, at, inner, link, outer).ok_or(DropReason::TooBig)?;
        let range = fill_up(buffer, placed.range, least);
        frame.set_range(range);
        self.tally.add(Counter::Realigned, u64::from(placed.moved));
        Ok(())
    }

    /// A packet that does not fit: its sender is told, or the tunnel packet goes in two pieces.
    fn too_big(&mut self, frame: Frame, packet: &Packet, way: &Route, fits: u32) -> Fate {
        // IPv6 packets of 1280 bytes must pass every tunnel (RFC 4213 §3.2), whatever IPv4 clients are granted.
        let granted = self.forwarding.table.tunnel.fragment || matches!(packet.flow, FlowKey::V6(_));
        let may_split = granted && matches!(way.outer, Some(Outer::V4 { .. })) && frame.tail_length() == 0;
        if may_split && !reply::is_told_too_big(packet) {
            return self.send_split(frame, packet, way);
        }
        let answer = |buffer: &mut [u8], at, packet: &Packet| reply::too_big(buffer, at, packet, fits);
        self.answer_with(frame, packet, Answer::TooBig, DropReason::TooBig, answer)
    }

    fn send_split(&mut self, mut frame: Frame, packet: &Packet, way: &Route) -> Fate {
        if let Err(reason) = self.write(&mut frame, packet, way) {
            return self.discard(frame, reason);
        }
        let Some(mut second) = self.port.spare() else { return self.discard(frame, DropReason::TxRingFull) };
        let (last, step) = *self.fragment_id;
        self.fragment_id.0 = last.wrapping_add(step);
        let link_length = ethernet::HEADER_LENGTH + way.link.vlan.map_or(0, |_| ethernet::TAG_LENGTH);
        // The two buffers cannot be borrowed at once, so the second fragment is made on the stack.
        let mut copy = [0; crate::limits::FRAME_SIZE as usize];
        let range = frame.range();
        let bytes = &mut self.port.buffer(&frame)[range.clone()];
        let split = rewrite::split_outer(bytes, link_length, way.link.mtu, last, &mut copy);
        let Some((one, other)) = split.filter(|(_, other)| *other <= self.port.buffer(&second).len()) else {
            self.port.release(second);
            return self.discard(frame, DropReason::TooBig);
        };
        self.port.buffer(&second)[..other].copy_from_slice(&copy[..other]);
        second.set_range(0..other);
        frame.set_range(range.start..range.start + one);
        if let Err(frame) = self.port.transmit(way.nic, frame) {
            self.port.release(second);
            return self.discard(frame, DropReason::TxRingFull);
        }
        // Without its second half the packet is lost, whatever became of the first.
        let fate = self.transmit(way.nic, second);
        if let Fate::Sent(_) = fate {
            self.tally.add(Counter::OuterFragmented, 1);
            self.tally.add(Counter::TxBytes, one as u64);
        }
        fate
    }

    fn answer(&mut self, frame: Frame, packet: &Packet, reply: Reply) -> Fate {
        match reply {
            Reply::Echo => self.echo(frame, packet),
            Reply::Reset => {
                self.answer_with(frame, packet, Answer::Reset, DropReason::UnlistedPort, reply::reset)
            }
            Reply::Unreachable => self.answer_with(
                frame,
                packet,
                Answer::Unreachable,
                DropReason::UnlistedPort,
                reply::unreachable,
            ),
        }
    }

    fn echo(&mut self, frame: Frame, packet: &Packet) -> Fate {
        let range = frame.range();
        let bytes = &mut self.port.buffer(&frame)[range];
        if !self.budget.has(Answer::Echo) || !reply::may_answer(bytes, packet) {
            return self.discard(frame, DropReason::EchoLimited);
        }
        reply::echo(bytes, packet);
        self.send_answer(frame, Answer::Echo)
    }

    /// Sends what `make` makes of the packet back to its sender, within the budget; else the packet is dropped
    /// for `reason`.
    fn answer_with(
        &mut self,
        mut frame: Frame,
        packet: &Packet,
        answer: Answer,
        reason: DropReason,
        make: impl Fn(&mut [u8], std::ops::Range<usize>, &Packet) -> Option<std::ops::Range<usize>>,
    ) -> Fate {
        let (at, buffer) = (frame.range(), self.port.buffer(&frame));
        let may = self.budget.has(answer) && reply::may_answer(&buffer[at.clone()], packet);
        let Some(range) = Some(buffer).filter(|_| may).and_then(|buffer| make(buffer, at.clone(), packet))
        else {
            return self.discard(frame, reason);
        };
        self.port.truncate(&mut frame, at.len());
        frame.set_range(range);
        self.send_answer(frame, answer)
    }

    fn send_answer(&mut self, frame: Frame, answer: Answer) -> Fate {
        let nic = frame.nic();
        let fate = self.transmit(nic, frame);
        if let Fate::Sent(_) = fate {
            self.budget.spend(answer);
            self.tally.add(answer.counter(), 1);
        }
        fate
    }

    /// The way of nearly all packets: in one piece, without tags, room for a header in front.
    fn placed_at_once(
        &mut self,
        frame: &Frame,
        inner: &Inner,
        link: &Link,
        outer: Option<&Outer>,
    ) -> Option<std::ops::Range<usize>> {
        if frame.tail_length() > 0 || link.vlan.is_some() || !inner.is_untagged() {
            return None;
        }
        let (at, buffer) = (frame.range(), self.port.buffer(frame));
        match outer {
            None => rewrite::redirect_at_once(buffer, at, inner.ip_length, link, false),
            Some(outer) => rewrite::wrap_at_once(buffer, at, inner, link, outer),
        }
    }

    /// What the control thread has to know of a packet that is dropped.
    fn note(&self, packet: &Packet, reason: DropReason) {
        let (source, backend) = (packet.flow.vip(), packet.flow.client());
        if let (DropReason::TunnelError, Content::TunnelError { mtu: Some(mtu) }) = (reason, packet.content)
            && let Some(backend) = self.forwarding.table.tunnelled(source, backend)
            && self.forwarding.tunnels_come_from(source, backend)
        {
            self.notices.leave(Notice::TunnelTooBig { backend, mtu });
        }
    }

    #[inline(always)]
    pub fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Fate {
        let length = frame.length() as u64;
        match self.port.transmit(nic, frame) {
            Ok(()) => {
                self.tally.add(Counter::TxPackets, 1);
                self.tally.add(Counter::TxBytes, length);
                Fate::Sent(nic)
            }
            Err(frame) => self.discard(frame, DropReason::TxRingFull),
        }
    }

    /// Sends packets of so many bytes in all, each by the NIC that it names.
    pub fn transmit_all(&mut self, frames: &mut Vec<Frame>, bytes: u64) {
        let count = frames.len();
        self.port.transmit_all(frames);
        self.tally.add(Counter::TxPackets, (count - frames.len()) as u64);
        self.tally
            .add(Counter::TxBytes, bytes - frames.iter().map(|frame| frame.length() as u64).sum::<u64>());
        for frame in frames.drain(..) {
            self.discard(frame, DropReason::TxRingFull);
        }
    }

    /// Drops a packet.
    pub fn discard(&mut self, frame: Frame, reason: DropReason) -> Fate {
        self.tally.drop(reason);
        self.port.release(frame);
        Fate::Dropped(reason)
    }
}

impl Answer {
    fn counter(self) -> Counter {
        match self {
            Self::Echo => Counter::EchoReplies,
            Self::Reset => Counter::ResetReplies,
            Self::Unreachable => Counter::UnreachableReplies,
            Self::TooBig => Counter::TooBigReplies,
        }
    }
}

/// Zeros behind a frame that has become too short for the wire.
fn fill_up(buffer: &mut [u8], range: std::ops::Range<usize>, least: usize) -> std::ops::Range<usize> {
    let end = range.end.max(range.start + least).min(buffer.len());
    buffer[range.end..end].fill(0);
    range.start..end
}

/// Whether a packet came from the machine that it would be sent to: it does not own the VIP, and routed the packet
/// back. A backend that is a client itself sends from its own address.
fn came_back(frame: &Frame, packet: &Packet, member: &Member, exit: &Exit) -> bool {
    packet.source_mac == exit.link.destination
        && frame.nic() == exit.nic
        && packet.flow.client() != member.address
}
