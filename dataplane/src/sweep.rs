//! The slow walk over the flow tables, off the workers: forgets flows past their idle time and counts the
//! rest. It takes a slice at a time, so the control thread is not held up for long.

use crate::conntrack::{BackendId, Control, FlowTable, Seconds, State};
use crate::forward::FlowTables;
use crate::table::Table;

/// What a whole pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Live IPv4 flows.
    pub v4: u64,
    /// Live IPv6 flows.
    pub v6: u64,
    /// Translated IPv4 flows.
    pub nat_v4: u64,
    /// Translated IPv6 flows.
    pub nat_v6: u64,
    /// Live flows by `BackendId`.
    pub by_backend: Vec<u64>,
}

/// Where the walk is. It belongs to tables of one size; others need a walk of their own.
#[derive(Debug, Default)]
pub struct Sweep {
    next: usize,
    counting: Census,
    finished: Census,
}

impl Sweep {
    /// Visits the next `1/slices` of all buckets.
    pub fn step(&mut self, flows: &FlowTables, table: &Table, now: Seconds, slices: usize) {
        let nat = table.nat.as_ref().map(|nat| &*nat.tables);
        let (v4, v6) = (flows.v4.buckets(), flows.v6.buckets());
        let (nat_v4, nat_v6) = nat.map_or((0, 0), |nat| (nat.v4.buckets(), nat.v6.buckets()));
        let all = v4 + v6 + nat_v4 + nat_v6;
        for _ in 0..all.div_ceil(slices) {
            // Translation may have been configured away meanwhile.
            self.next = self.next.min(all - 1);
            match (self.next, nat) {
                (next, _) if next < v4 => self.counting.v4 += self.visit(&flows.v4, next, table, now),
                (next, _) if next < v4 + v6 => {
                    self.counting.v6 += self.visit(&flows.v6, next - v4, table, now);
                }
                (next, Some(nat)) if next < v4 + v6 + nat_v4 => {
                    self.counting.nat_v4 += kept(&nat.v4, next - v4 - v6, table, now, |_| ());
                }
                (next, Some(nat)) => {
                    self.counting.nat_v6 += kept(&nat.v6, next - v4 - v6 - nat_v4, table, now, |_| ());
                }
                (_, None) => {}
            }
            self.next += 1;
            if self.next >= all {
                self.next = 0;
                self.finished = std::mem::take(&mut self.counting);
            }
        }
    }

    /// What the last whole pass found.
    pub fn census(&self) -> &Census {
        &self.finished
    }

    fn visit<const K: usize>(
        &mut self,
        flows: &FlowTable<K, 1>,
        bucket: usize,
        table: &Table,
        now: Seconds,
    ) -> u64 {
        let mut flows_seen = 0;
        kept(flows, bucket, table, now, |control| {
            if control.state() != State::Affinity {
                flows_seen += 1;
                self.count(control.backend());
            }
        });
        flows_seen
    }

    fn count(&mut self, BackendId(id): BackendId) {
        let id = id as usize;
        if id >= self.counting.by_backend.len() {
            self.counting.by_backend.resize(id + 1, 0);
        }
        self.counting.by_backend[id] += 1;
    }
}

/// Forgets what is past its idle time in a bucket, and shows and counts the rest.
fn kept<const K: usize, const V: usize>(
    entries: &FlowTable<K, V>,
    bucket: usize,
    table: &Table,
    now: Seconds,
    mut each: impl FnMut(Control),
) -> u64 {
    let mut kept = 0;
    entries.visit(bucket, |_, hit| {
        let limit = table.idle_limits[hit.control.state() as usize];
        if hit.control.idle_s(now) >= limit && entries.remove(hit) {
            return;
        }
        kept += 1;
        each(hit.control);
    });
    kept
}

#[cfg(test)]
mod tests {
    use shunt_api::snapshot::Mode::Dr;

    use super::*;
    use crate::testing::{decided, parsed, snapshot, table, tcp};

    #[test]
    fn idle_flows_go_and_the_rest_is_counted() {
        let table = table(&snapshot(
            &[&[("10.0.0.1", 1, Dr)]],
            &[("203.0.113.10", "tcp/80", 0), ("2001:db8::10", "tcp/80", 0)],
        ));
        let flows = FlowTables::new(1000, 1000);
        for port in 0..100 {
            let now = Seconds(if port < 40 { 0 } else { 25 });
            decided(&parsed(&tcp("192.0.2.1", port, "203.0.113.10", 80, 2)), &table, &flows, now);
            decided(&parsed(&tcp("2001:db8::1", port, "2001:db8::10", 80, 2)), &table, &flows, now);
        }
        let mut sweep = Sweep::default();
        (0..7).for_each(|_| sweep.step(&flows, &table, Seconds(29), 7));
        assert_eq!(sweep.census(), &Census { v4: 100, v6: 100, by_backend: vec![200], ..Census::default() });
        // Slices round up, so a pass begins a little earlier each time: two make a whole one.
        (0..14).for_each(|_| sweep.step(&flows, &table, Seconds(30), 7));
        assert_eq!(sweep.census(), &Census { v4: 60, v6: 60, by_backend: vec![120], ..Census::default() });
    }
}
