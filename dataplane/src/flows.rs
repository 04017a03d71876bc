//! Lists and counts flows while the workers go on: a walk over the lock-free tables, on a thread of its own.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use shunt_api::status::{FlowCount, FlowFilter, FlowView, Flows};

use crate::conntrack::{FlowTable, Hit, Seconds, State};
use crate::control::FlowSource;
use crate::flow::{FlowKey, FlowKey4, FlowKey6, Tuple};
use crate::limits::MAX_FLOWS_LISTED;
use crate::memo::Memo;
use crate::table::Table;

const DEFAULT_LIMIT: usize = 1000;

/// The flows that match, in the order of the tables.
pub fn list(source: &FlowSource, filter: &FlowFilter) -> Flows {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_FLOWS_LISTED);
    let mut flows = Flows::default();
    walk(source, filter, |key, hit| {
        flows.truncated = flows.flows.len() == limit;
        if !flows.truncated {
            flows.flows.push(view(&source.forwarding.table, source.now, key, hit));
        }
        if flows.truncated { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    flows
}

/// How many match and have not been idle for too long. The limit of the filter does not matter.
pub fn count(source: &FlowSource, filter: &FlowFilter) -> FlowCount {
    let mut count = FlowCount::default();
    let idle_limits = &source.forwarding.table.idle_limits;
    walk(source, filter, |_, hit| {
        let state = hit.control.state();
        let forgotten = hit.control.idle_s(source.now) > idle_limits[state as usize];
        match state {
            _ if forgotten => {}
            State::Closing | State::Reset => count.closing += 1,
            State::Unconfirmed | State::Confirmed | State::Established => count.open += 1,
            State::Empty | State::Claimed | State::Tentative | State::Affinity => {}
        }
        ControlFlow::Continue(())
    });
    count
}

/// Calls `visit` with every entry that matches until it has enough.
fn walk(source: &FlowSource, filter: &FlowFilter, mut visit: impl FnMut(FlowKey, Hit<1>) -> ControlFlow<()>) {
    let addresses = &source.forwarding.table;
    let mut matching = |key: Option<FlowKey>, hit: Hit<1>| match key {
        Some(key) if matches(filter, &key, addresses.address(hit.control.backend())) => visit(key, hit),
        _ => ControlFlow::Continue(()),
    };
    let tables = &source.shared.flows;
    let go_on =
        walk_table(&tables.v4, |words, hit| matching(FlowKey4::from_words(words).map(FlowKey::V4), hit));
    if go_on.is_continue() {
        let _ =
            walk_table(&tables.v6, |words, hit| matching(FlowKey6::from_words(words).map(FlowKey::V6), hit));
    }
}

fn walk_table<const K: usize>(
    table: &FlowTable<K, 1>,
    mut visit: impl FnMut([u64; K], Hit<1>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    (0..table.buckets()).try_for_each(|bucket| {
        let mut go_on = ControlFlow::Continue(());
        table.visit(bucket, |words, hit| {
            if go_on.is_continue() {
                go_on = visit(words, hit);
            }
        });
        go_on
    })
}

/// An entry for people, by the table in force.
pub fn view(table: &Table, now: Seconds, key: FlowKey, hit: Hit<1>) -> FlowView {
    let state = hit.control.state();
    let idle_s = hit.control.idle_s(now);
    let nat = table.nat.as_ref();
    FlowView {
        client: key.client(),
        client_port: key.client_port(),
        vip: key.vip(),
        port: key.service_port(),
        backend: table.address(hit.control.backend()),
        source: nat.and_then(|nat| nat.source(Memo(hit.value[0]).binding())).map(SocketAddr::from),
        state: state.name().to_owned(),
        idle_s,
        expires_s: table.idle_limits[state as usize].saturating_sub(idle_s),
    }
}

fn matches(filter: &FlowFilter, key: &FlowKey, backend: Option<IpAddr>) -> bool {
    let port = key.service_port();
    filter.client.is_none_or(|client| client == key.client())
        && filter.vip.is_none_or(|vip| vip == key.vip())
        && filter.port.is_none_or(|wanted| wanted == port.port)
        && filter.protocol.is_none_or(|protocol| protocol == port.protocol)
        && filter.backend.is_none_or(|wanted| Some(wanted) == backend)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shunt_api::snapshot::Mode::Dr;

    use super::*;
    use crate::forward::FlowTables;
    use crate::table::Forwarding;
    use crate::testing::{decided, parsed, snapshot, table, tcp};
    use crate::worker::Shared;

    fn source() -> FlowSource {
        let services = &[("203.0.113.10", "tcp/80", 0), ("2001:db8::10", "tcp/80", 0)];
        let table = Arc::new(table(&snapshot(&[&[("10.0.0.1", 1, Dr)]], services)));
        let flows = FlowTables::new(1000, 1000);
        for port in 1..=5 {
            decided(&parsed(&tcp("192.0.2.1", port, "203.0.113.10", 80, 2)), &table, &flows, Seconds(10));
            decided(&parsed(&tcp("2001:db8::1", port, "2001:db8::10", 80, 2)), &table, &flows, Seconds(10));
        }
        let forwarding = Forwarding::new(1, table.clone(), Box::default(), Box::default());
        let shared = Arc::new(Shared::new(
            Forwarding::new(1, table, Box::default(), Box::default()),
            Arc::new(flows),
            1,
        ));
        FlowSource { shared, forwarding: Arc::new(forwarding), now: Seconds(14) }
    }

    #[test]
    fn filters_narrow_and_limits_are_told() {
        let source = source();
        let all = list(&source, &FlowFilter::default());
        assert_eq!((all.flows.len(), all.truncated), (10, false));
        let one = &all.flows[0];
        assert_eq!((one.state.as_str(), one.idle_s, one.expires_s), ("unconfirmed", 4, 26));
        let cases = [
            (FlowFilter { client: "192.0.2.1".parse().ok(), ..Default::default() }, 5),
            (FlowFilter { vip: "2001:db8::10".parse().ok(), ..Default::default() }, 5),
            (FlowFilter { port: Some(81), ..Default::default() }, 0),
            (FlowFilter { backend: "10.0.0.1".parse().ok(), ..Default::default() }, 10),
            (FlowFilter { backend: "10.0.0.2".parse().ok(), ..Default::default() }, 0),
            (FlowFilter { limit: Some(3), ..Default::default() }, 3),
        ];
        for (filter, expected) in cases {
            let listed = list(&source, &filter);
            assert_eq!((listed.flows.len(), listed.truncated), (expected, expected == 3), "{filter:?}");
        }
    }

    #[test]
    fn what_is_over_or_forgotten_is_counted_apart() {
        let source = source();
        let backend = FlowFilter { backend: "10.0.0.1".parse().ok(), ..Default::default() };
        assert_eq!(count(&source, &backend), FlowCount { open: 10, closing: 0 });
        let (table, flows) = (&source.forwarding.table, &source.shared.flows);
        for flags in [0x10, 0x11] {
            let packet = tcp("192.0.2.1", 1, "203.0.113.10", 80, flags);
            decided(&parsed(&packet), table, flows, Seconds(14));
        }
        assert_eq!(count(&source, &backend), FlowCount { open: 9, closing: 1 });
        // Unconfirmed flows are forgotten after half a minute, those after a FIN after two.
        let later = FlowSource { now: Seconds(80), ..source };
        assert_eq!(count(&later, &backend), FlowCount { open: 0, closing: 1 });
        let other = FlowFilter { backend: "10.0.0.2".parse().ok(), ..Default::default() };
        assert_eq!(count(&later, &other), FlowCount::default());
    }
}
