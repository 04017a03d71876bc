//! Lists flows while the workers go on: a walk over the lock-free tables, on a thread of its own.

use std::net::SocketAddr;

use shunt_api::status::{FlowFilter, FlowView, Flows};

use crate::conntrack::{FlowTable, Hit};
use crate::control::FlowSource;
use crate::flow::{FlowKey, FlowKey4, FlowKey6, Tuple};
use crate::limits::MAX_FLOWS_LISTED;
use crate::memo::Memo;

const DEFAULT_LIMIT: usize = 1000;

/// The flows that match, in the order of the tables.
pub fn list(source: &FlowSource, filter: &FlowFilter) -> Flows {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_FLOWS_LISTED);
    let mut listing = Listing { source, filter, limit, flows: Flows::default() };
    let tables = &source.shared.flows;
    listing.walk(&tables.v4, |words| FlowKey4::from_words(words).map(FlowKey::V4));
    listing.walk(&tables.v6, |words| FlowKey6::from_words(words).map(FlowKey::V6));
    listing.flows
}

struct Listing<'a> {
    source: &'a FlowSource,
    filter: &'a FlowFilter,
    limit: usize,
    flows: Flows,
}

impl Listing<'_> {
    fn walk<const K: usize>(&mut self, table: &FlowTable<K, 1>, key: impl Fn([u64; K]) -> Option<FlowKey>) {
        for bucket in 0..table.buckets() {
            if self.flows.truncated {
                return;
            }
            table.visit(bucket, |words, hit| {
                if let Some(key) = key(words) {
                    self.take(key, hit);
                }
            });
        }
    }

    fn take(&mut self, key: FlowKey, hit: Hit<1>) {
        let view = self.view(key, hit);
        if !matches(self.filter, &view) {
            return;
        }
        if self.flows.flows.len() < self.limit {
            self.flows.flows.push(view);
        } else {
            self.flows.truncated = true;
        }
    }

    fn view(&self, key: FlowKey, hit: Hit<1>) -> FlowView {
        let table = &self.source.forwarding.table;
        let state = hit.control.state();
        let idle_s = hit.control.idle_s(self.source.now);
        FlowView {
            client: key.client(),
            client_port: key.client_port(),
            vip: key.vip(),
            port: key.service_port(),
            backend: table.address(hit.control.backend()),
            source: table
                .nat
                .as_ref()
                .and_then(|nat| nat.source(Memo(hit.value[0]).binding()))
                .map(SocketAddr::from),
            state: state.name().to_owned(),
            idle_s,
            expires_s: table.idle_limits[state as usize].saturating_sub(idle_s),
        }
    }
}

fn matches(filter: &FlowFilter, flow: &FlowView) -> bool {
    filter.client.is_none_or(|client| client == flow.client)
        && filter.vip.is_none_or(|vip| vip == flow.vip)
        && filter.port.is_none_or(|port| port == flow.port.port)
        && filter.protocol.is_none_or(|protocol| protocol == flow.port.protocol)
        && filter.backend.is_none_or(|backend| Some(backend) == flow.backend)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shunt_api::snapshot::Mode::Dr;

    use super::*;
    use crate::conntrack::Seconds;
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
}
