//! ICMP errors: to the backend, or the client, of the flow that they are about. Nothing is remembered of them.
//!
//! Where the flow is not known here, as when routers spread packets over several boxes, Maglev says where it
//! would be. Errors about our own tunnel packets are for this box; the worker takes note of them.

use shunt_api::counters::DropReason;

use super::lookup::Lookup;
use super::{Context, Decision, Events, FlowOutcome, Verdict, returns};
use crate::conntrack::FlowTable;
use crate::flow::{FlowKey, Tuple};
use crate::nat::{self, Nat};
use crate::packet::Packet;
use crate::table::Table;

/// An error about a packet from a service to a client, or from one of our sources to a backend.
pub fn about_flow(packet: &Packet, context: Context<'_>) -> Decision {
    let nat = context.table.nat.as_ref();
    let verdict = match &packet.flow {
        FlowKey::V4(flow) => {
            let tables = nat.map(|nat| (nat, &nat.tables.v4));
            way(packet, context, flow, &context.flows.v4, tables)
        }
        FlowKey::V6(flow) => {
            let tables = nat.map(|nat| (nat, &nat.tables.v6));
            way(packet, context, flow, &context.flows.v6, tables)
        }
    };
    match verdict {
        Some((verdict, hash)) => {
            Decision { verdict, outcome: FlowOutcome::None, events: Events::ICMP_ERROR, hash }
        }
        None => Decision::drop(DropReason::IcmpUnmatched),
    }
}

/// An error about a tunnel packet: noted if the tunnel can be ours.
pub fn about_tunnel(packet: &Packet, table: &Table) -> Decision {
    match table.tunnelled(packet.flow.vip(), packet.flow.client()) {
        Some(_) => Decision::drop(DropReason::TunnelError),
        None => Decision::drop(DropReason::IcmpUnmatched),
    }
}

fn way<T: Tuple<K>, const K: usize, const R: usize>(
    packet: &Packet,
    context: Context<'_>,
    flow: &T,
    flows: &FlowTable<K, 1>,
    nat: Option<(&Nat, &FlowTable<K, R>)>,
) -> Option<(Verdict, u64)> {
    let Some(index) = context.table.listener_of(&packet.flow) else {
        let owner = nat::owner(nat?.1, flow, context.now, &context.table.idle_limits)?;
        return Some((returns::to_client(&owner.flow.into(), &owner), 0));
    };
    let listener = context.table.listener(index);
    if !listener.allows(packet.flow.client()) {
        return None;
    }
    let (member, translation, hash) = Lookup::new(packet, context, index, *flow, flows, nat).peek()?;
    let verdict = match translation {
        None => Verdict::Forward { listener: index, member },
        Some(translation) => Verdict::Translate { listener: index, member, translation },
    };
    Some((verdict, hash))
}
