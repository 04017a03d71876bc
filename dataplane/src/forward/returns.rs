//! Packets to the source addresses of translated flows: replies on their way back to the client.

use shunt_api::snapshot::Protocol;

use super::{Context, Decision, Events, FlowOutcome, Verdict, next_state};
use crate::conntrack::{FlowTable, Seconds, State, fresh_s};
use crate::flow::{FlowKey, Tuple};
use crate::nat::{self, Translation};
use crate::packet::Packet;

/// The way back of a reply; `None` if it answers no flow.
pub fn returned(packet: &Packet, context: Context<'_>) -> Option<Decision> {
    let tables = &context.table.nat.as_ref()?.tables;
    match &packet.flow {
        FlowKey::V4(reply) => through(packet, context, reply, &tables.v4, &context.flows.v4),
        FlowKey::V6(reply) => through(packet, context, reply, &tables.v6, &context.flows.v6),
    }
}

fn through<T: Tuple<K>, const K: usize, const R: usize>(
    packet: &Packet,
    context: Context<'_>,
    reply: &T,
    table: &FlowTable<K, R>,
    flows: &FlowTable<K, 1>,
) -> Option<Decision> {
    let owner = nat::owner(table, reply, context.now, &context.table.idle_limits)?;
    let control = owner.hit.control;
    // The answer to a single datagram, whose source may be forged, confirms nothing.
    let state = match packet.flow.protocol() {
        Protocol::Udp => control.state(),
        Protocol::Tcp => next_state(packet, control.state()),
    };
    let limit_s = context.table.idle_limits[control.state() as usize];
    if state != control.state() || !control.is_fresh(context.now, limit_s) {
        let touched = control.with_state(state).with_time(context.now);
        // Another worker's packet of the same flow may have done it.
        let _ = table.update(owner.hit, touched);
        let is_over = state != control.state() && matches!(state, State::Closing | State::Reset);
        keep_alive(flows, &owner.flow, is_over, context);
    }
    let verdict = to_client(&owner.flow.into(), &owner);
    Some(Decision { verdict, outcome: FlowOutcome::Hit, events: Events::default(), hash: 0 })
}

/// A flow whose client is silent lives on by its replies. If the backend is said to have closed it (`is_over`) the
/// client's next packet shall be noted, which keeps the way back open if there is more to come.
fn keep_alive<T: Tuple<K>, const K: usize>(
    flows: &FlowTable<K, 1>,
    flow: &T,
    is_over: bool,
    context: Context<'_>,
) {
    let key = flow.words();
    if let Some(hit) = flows.find(&key, flows.places(&key)) {
        let limit_s = context.table.idle_limits[hit.control.state() as usize];
        let ago_s = if is_over { fresh_s(limit_s) + 1 } else { 0 };
        let time = Seconds(context.now.0.wrapping_sub(ago_s));
        // A packet of the client's came meanwhile, which does as well.
        let _ = flows.update(hit, hit.control.with_time(time));
    }
}

/// As the client knows the flow.
pub fn to_client<T, const R: usize>(flow: &FlowKey, owner: &nat::Owner<T, R>) -> Verdict {
    let translation = Translation {
        source: (flow.vip(), flow.service_port().port),
        destination: (flow.client(), flow.client_port()),
    };
    Verdict::Return { backend: owner.hit.control.backend(), translation, last_hop: owner.last_hop }
}
