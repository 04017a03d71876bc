//! The slow walk over the flow tables, off the workers: forgets flows past their idle time and counts the
//! rest. It takes a slice at a time, so the control thread is not held up for long.

use crate::conntrack::{BackendId, FlowTable, Seconds};
use crate::forward::FlowTables;
use crate::table::Table;

/// What a whole pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Live IPv4 flows.
    pub v4: u64,
    /// Live IPv6 flows.
    pub v6: u64,
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
        let (v4, v6) = (flows.v4.buckets(), flows.v6.buckets());
        for _ in 0..(v4 + v6).div_ceil(slices) {
            if self.next < v4 {
                self.counting.v4 += self.visit(&flows.v4, self.next, table, now);
            } else {
                self.counting.v6 += self.visit(&flows.v6, self.next - v4, table, now);
            }
            self.next += 1;
            if self.next >= v4 + v6 {
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
        flows: &FlowTable<K>,
        bucket: usize,
        table: &Table,
        now: Seconds,
    ) -> u64 {
        let mut live = 0;
        flows.visit(bucket, |_, hit| {
            let limit = table.idle_limits[hit.control.state() as usize];
            if hit.control.idle_s(now) >= limit && flows.remove(hit) {
                return;
            }
            live += 1;
            self.count(hit.control.backend());
        });
        live
    }

    fn count(&mut self, BackendId(id): BackendId) {
        let id = id as usize;
        if id >= self.counting.by_backend.len() {
            self.counting.by_backend.resize(id + 1, 0);
        }
        self.counting.by_backend[id] += 1;
    }
}

#[cfg(test)]
mod tests {
    use shunt_api::snapshot::Mode::Dr;

    use super::*;
    use crate::forward::decide;
    use crate::testing::{parsed, snapshot, table, tcp};

    #[test]
    fn idle_flows_go_and_the_rest_is_counted() {
        let table = table(&snapshot(
            &[&[("10.0.0.1", 1, Dr)]],
            &[("203.0.113.10", "tcp/80", 0), ("2001:db8::10", "tcp/80", 0)],
        ));
        let flows = FlowTables::new(1000, 1000);
        for port in 0..100 {
            let now = Seconds(if port < 40 { 0 } else { 25 });
            decide(&parsed(&tcp("192.0.2.1", port, "203.0.113.10", 80, 2)), &table, &flows, now);
            decide(&parsed(&tcp("2001:db8::1", port, "2001:db8::10", 80, 2)), &table, &flows, now);
        }
        let mut sweep = Sweep::default();
        (0..7).for_each(|_| sweep.step(&flows, &table, Seconds(29), 7));
        assert_eq!(sweep.census(), &Census { v4: 100, v6: 100, by_backend: vec![200] });
        // Slices round up, so a pass begins a little earlier each time: two make a whole one.
        (0..14).for_each(|_| sweep.step(&flows, &table, Seconds(30), 7));
        assert_eq!(sweep.census(), &Census { v4: 60, v6: 60, by_backend: vec![120] });
    }
}
