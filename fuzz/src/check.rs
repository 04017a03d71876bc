//! What must be true of every packet's fate: it agrees with the decision, and what left agrees with what came.

mod answer;
mod forwarded;

use std::collections::VecDeque;
use std::net::IpAddr;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::Mode;
use shunt_dataplane::forward::{Decision, Reply, Verdict};
use shunt_dataplane::nat::Translation;
use shunt_dataplane::packet::Packet;
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::rewrite::Link;
use shunt_dataplane::table::{Forwarding, Hop};
use shunt_dataplane::worker::{Fate, Observer};

use crate::inet::{HEADER_V4, HEADER_V6};
use crate::ledger::Ledger;

/// A frame at a NIC, coming or going, from its Ethernet header on.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which NIC.
    pub nic: NicIndex,
    /// All its bytes.
    pub bytes: Vec<u8>,
}

/// What the worker says of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Both missing if it could not be parsed.
    pub judged: Option<(Packet, Decision)>,
    /// What became of it.
    pub fate: Fate,
}

/// Writes down what the worker says.
#[derive(Debug, Default)]
pub struct Notes(pub Vec<Seen>);

impl Observer for Notes {
    fn saw(&mut self, packet: Option<&Packet>, decision: Option<&Decision>, fate: Fate) {
        assert_eq!(packet.is_some(), decision.is_some(), "what parses is decided");
        self.0.push(Seen { judged: packet.copied().zip(decision.copied()), fate });
    }
}

/// A packet on its way through.
#[derive(Clone, Copy)]
struct Case<'a> {
    came: &'a Frame,
    packet: &'a Packet,
}

impl<'a> Case<'a> {
    /// The IP packet that came.
    fn ip(&self) -> &'a [u8] {
        &self.came.bytes[usize::from(self.packet.ip_offset)..][..usize::from(self.packet.ip_length)]
    }
}

/// The way that a decision means.
#[derive(Clone, Copy, Debug)]
struct Way {
    nic: NicIndex,
    link: Link,
    /// The far end of a tunnel.
    tunnel: Option<IpAddr>,
    translation: Option<Translation>,
}

impl Way {
    /// `None` if it is closed, or the packet goes nowhere.
    fn of(verdict: &Verdict, forwarding: &Forwarding) -> Option<Self> {
        let (listener, member, translation) = match *verdict {
            Verdict::Forward { listener, member } => (listener, member, None),
            Verdict::Translate { listener, member, translation } => (listener, member, Some(translation)),
            Verdict::Return { translation, last_hop, .. } => {
                let (nic, vlan) = (last_hop.nic(), last_hop.vlan());
                let own = forwarding.nics.get(usize::from(nic.0))?;
                let link = Link { destination: last_hop.mac(), source: own.mac, vlan, mtu: own.mtu };
                return Some(Self { nic, link, tunnel: None, translation: Some(translation) });
            }
            Verdict::Reply(_) | Verdict::Drop(_) => return None,
        };
        let pool = forwarding.table.listener(listener).pool;
        let member = forwarding.table.pool(pool).member(member);
        assert_eq!(translation.is_some(), member.mode == Mode::Nat, "{verdict:?} to {member:?}");
        let Some(Hop::Open(hop)) = forwarding.hops.get(member.backend.0 as usize) else { return None };
        let tunnel = (member.mode == Mode::Ipip).then_some(member.address);
        Some(Self { nic: hop.nic, link: hop.link, tunnel, translation })
    }

    /// Bytes of IP packet that fit.
    fn room(&self) -> usize {
        let header = match self.tunnel {
            None => 0,
            Some(IpAddr::V4(_)) => HEADER_V4,
            Some(IpAddr::V6(_)) => HEADER_V6,
        };
        (self.link.mtu as usize).saturating_sub(header)
    }

    /// Whether a packet that does not fit may leave in two fragments.
    fn may_split(&self) -> bool {
        matches!(self.tunnel, Some(IpAddr::V4(_)))
    }
}

/// Checks what became of a packet; `gone` are the frames that left and were not accounted for yet.
pub fn fate(
    came: &Frame,
    seen: &Seen,
    forwarding: &Forwarding,
    gone: &mut VecDeque<Frame>,
    ledger: &mut Ledger,
) {
    ledger.came(came.bytes.len(), seen.fate);
    let Some((packet, decision)) = &seen.judged else {
        assert!(matches!(seen.fate, Fate::Dropped(_)), "{seen:?}");
        return;
    };
    let case = Case { came, packet };
    let way = Way::of(&decision.verdict, forwarding);
    match seen.fate {
        Fate::Sent(nic) => sent(&case, decision, way.as_ref(), nic, gone, ledger),
        Fate::Dropped(reason) => dropped(&case, decision, way.as_ref(), reason, gone, ledger),
    }
}

fn sent(
    case: &Case<'_>,
    decision: &Decision,
    way: Option<&Way>,
    nic: NicIndex,
    gone: &mut VecDeque<Frame>,
    ledger: &mut Ledger,
) {
    let frame = take(gone, nic, ledger);
    match (decision.verdict, way) {
        (Verdict::Drop(reason), _) => panic!("sent, although decided to be dropped: {reason:?}"),
        (Verdict::Reply(reply), _) => answer::check(case, &frame, reply),
        (_, None) => panic!("sent, although there is no way: {decision:?}"),
        (_, Some(way)) if case.ip().len() <= way.room() => forwarded::whole(case, way, &frame),
        (_, Some(way)) if way.may_split() && forwarded::is_first_half(way, &frame) => {
            let second = take(gone, nic, ledger);
            ledger.split();
            forwarded::halves(case, way, &frame, &second);
        }
        (_, Some(way)) => answer::too_big(case, &frame, way.room()),
    }
}

fn dropped(
    case: &Case<'_>,
    decision: &Decision,
    way: Option<&Way>,
    reason: DropReason,
    gone: &mut VecDeque<Frame>,
    ledger: &mut Ledger,
) {
    use DropReason::*;
    let expected = match decision.verdict {
        Verdict::Drop(decided) => reason == decided,
        Verdict::Reply(Reply::Echo) => matches!(reason, EchoLimited | TxRingFull),
        Verdict::Reply(_) => matches!(reason, UnlistedPort | TxRingFull),
        _ if way.is_none() => matches!(reason, NeighborUnresolved | NoRoute),
        _ => matches!(reason, NoRoute | BackendNotOnLink | Looped | TooBig | TxRingFull),
    };
    assert!(expected, "dropped for {reason:?}, decided {decision:?}");
    // The first half of a packet may have left before there was no room for the second. If its second half follows
    // it is a later packet's.
    let Some(way) = way.filter(|way| reason == TxRingFull && way.may_split()) else { return };
    let too_big = case.ip().len() > way.room();
    let is_stray = match (gone.front(), gone.get(1)) {
        (Some(first), second) if forwarded::is_first_half(way, first) => {
            !second.is_some_and(|second| forwarded::is_second_half(way, first, second))
        }
        _ => false,
    };
    if too_big && is_stray {
        let stray = take(gone, way.nic, ledger);
        ledger.stray(stray.bytes.len());
    }
}

fn take(gone: &mut VecDeque<Frame>, nic: NicIndex, ledger: &mut Ledger) -> Frame {
    let frame = gone.pop_front().expect("what is said to be sent left");
    assert_eq!(frame.nic, nic);
    ledger.left(frame.bytes.len());
    frame
}
