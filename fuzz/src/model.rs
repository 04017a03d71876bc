//! What must be true from one packet of a flow to the next, remembered in plain maps.

use std::collections::HashMap;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Mode, Protocol};
use shunt_dataplane::conntrack::BackendId;
use shunt_dataplane::flow::FlowKey;
use shunt_dataplane::forward::{Decision, FlowOutcome, Verdict};
use shunt_dataplane::nat::Translation;
use shunt_dataplane::packet::{Content, Packet};
use shunt_dataplane::table::Table;

use crate::frames::End;

/// What was decided so far.
#[derive(Debug, Default)]
pub struct Model {
    /// Where each flow went last.
    backends: HashMap<FlowKey, BackendId>,
    /// Client and service that a pair of source and backend was last given to; `None` if only a fragment knows.
    translated: HashMap<(Protocol, End, End), Option<(End, End)>>,
}

impl Model {
    /// Checks a decision against those before, and remembers it.
    pub fn learn(&mut self, packet: &Packet, decision: &Decision, table: &Table) {
        match decision.verdict {
            Verdict::Forward { listener, member } => {
                let member = table.pool(table.listener(listener).pool).member(member);
                assert_ne!(member.mode, Mode::Nat);
                self.goes_to(packet, decision.outcome, member.backend);
            }
            Verdict::Translate { listener, member, translation } => {
                let nat = table.nat.as_ref().expect("translated only where that is configured");
                let member = table.pool(table.listener(listener).pool).member(member);
                assert!(nat.addresses.contains(&Some(translation.source.0)), "{translation:?}");
                assert_eq!(translation.destination, (member.address, table.listener(listener).target));
                self.goes_to(packet, decision.outcome, member.backend);
                self.takes(packet, translation);
            }
            Verdict::Return { translation, .. } => self.returns(packet, translation),
            // It was moved before no source was found for it.
            Verdict::Drop(DropReason::NatExhausted | DropReason::NatNoFlow | DropReason::StackedVlan) => {
                self.backends.clear();
            }
            Verdict::Reply(_) | Verdict::Drop(_) => {}
        }
    }

    /// A flow in the table does not move.
    fn goes_to(&mut self, packet: &Packet, outcome: FlowOutcome, backend: BackendId) {
        match packet.content {
            Content::Whole | Content::FirstFragment { .. } => {
                let before = self.backends.insert(packet.flow, backend);
                let chosen = !matches!(outcome, FlowOutcome::Hit | FlowOutcome::Confirmed);
                assert!(chosen || before.is_none_or(|before| before == backend), "{} moved", packet.flow);
            }
            // It has moved a flow of which it does not know the ports.
            Content::LaterFragment { .. } if outcome == FlowOutcome::Rehashed => self.backends.clear(),
            _ => {}
        }
    }

    fn takes(&mut self, packet: &Packet, Translation { source, destination }: Translation) {
        match packet.content {
            Content::Whole | Content::FirstFragment { .. } => {
                let pair = (packet.flow.protocol(), source, destination);
                self.translated.insert(pair, Some(ends(&packet.flow)));
            }
            Content::LaterFragment { .. } => {
                let pairs = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, source, destination));
                self.translated.extend(pairs.map(|pair| (pair, None)));
            }
            _ => {}
        }
    }

    /// A reply goes to whoever its source was given to last.
    fn returns(&self, packet: &Packet, Translation { source, destination }: Translation) {
        if !matches!(packet.content, Content::Whole | Content::FirstFragment { .. }) {
            return;
        }
        let (backend, own) = ends(&packet.flow);
        let owner = self.translated.get(&(packet.flow.protocol(), own, backend));
        let owner = owner.expect("only what was translated returns");
        assert!(owner.is_none_or(|owner| owner == (destination, source)), "who {} answers", packet.flow);
    }
}

fn ends(flow: &FlowKey) -> (End, End) {
    ((flow.client(), flow.client_port()), (flow.vip(), flow.service_port().port))
}
