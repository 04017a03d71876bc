//! The protocol under every interleaving that loom's memory model allows (bounded preemptions), on tables
//! of one bucket with two places. Run with `make test`, or
//! `cargo test -p shunt-dataplane --lib --features loom loom_`.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::Arc;
use loom::thread;

use super::*;

const LIMITS: IdleLimits = [0, 0, 0, 30, 300, 900, 120, 10, 10_800];
const KEY: [u64; 2] = [1, 1];
const OTHER: [u64; 2] = [2, 2];

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    let explored = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = explored.clone();
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    let explored = explored.load(Relaxed);
    println!("{explored} interleavings");
    assert!(explored > 50, "{explored} interleavings: the model does not race");
}

fn table() -> Arc<FlowTable<2, 1>> {
    Arc::new(FlowTable::new(1, &RandomState::with_seeds(1, 2, 3, 4)))
}

/// What a worker does with a packet: find or insert. The backend it forwards to.
fn packet(table: &FlowTable<2, 1>, key: [u64; 2], backend: u32) -> BackendId {
    let places = table.places(&key);
    if let Some(hit) = table.find(&key, places) {
        return hit.control.backend();
    }
    match table.insert(
        &NewFlow { key, value: [u64::from(backend)], backend: BackendId(backend) },
        places,
        Seconds(0),
        &LIMITS,
    ) {
        Inserted::Lost(winner) => winner,
        Inserted::New | Inserted::Evicting | Inserted::Full => BackendId(backend),
    }
}

fn live(table: &FlowTable<2, 1>, key: [u64; 2]) -> Vec<BackendId> {
    let mut found = Vec::new();
    (0..table.buckets()).for_each(|bucket| {
        table.visit(bucket, |stored, hit| {
            if stored == key {
                found.push(hit.control.backend());
            }
        });
    });
    found
}

/// Runs both at once on two spawned threads, as loom explores those best, and returns what they return.
fn race<A: 'static, B: 'static>(
    table: &Arc<FlowTable<2, 1>>,
    a: impl FnOnce(&FlowTable<2, 1>) -> A + 'static,
    b: impl FnOnce(&FlowTable<2, 1>) -> B + 'static,
) -> (A, B) {
    let (first, second) = (table.clone(), table.clone());
    let a = thread::spawn(move || a(&first));
    let b = thread::spawn(move || b(&second));
    (a.join().unwrap(), b.join().unwrap())
}

#[test]
fn loom_two_inserts_of_one_flow_leave_one_entry_and_agree() {
    explore(|| {
        let table = table();
        let (a, b) = race(&table, |table| packet(table, KEY, 10), |table| packet(table, KEY, 20));
        assert_eq!(a, b);
        assert_eq!(live(&table, KEY), [a]);
    });
}

#[test]
fn loom_a_reader_never_sees_one_flow_with_the_backend_of_another() {
    explore(|| {
        let table = table();
        packet(&table, KEY, 10);
        let write = |table: &FlowTable<2, 1>| {
            let hit = table.find(&KEY, table.places(&KEY)).unwrap();
            table.remove(hit);
            packet(table, OTHER, 20);
        };
        let read = |table: &FlowTable<2, 1>| [KEY, OTHER].map(|key| table.find(&key, table.places(&key)));
        let ((), [key, other]) = race(&table, write, read);
        assert!(key.is_none_or(|hit| hit.control.backend() == BackendId(10) && hit.value == [10]));
        assert!(other.is_none_or(|hit| hit.control.backend() == BackendId(20) && hit.value == [20]));
    });
}

#[test]
fn loom_a_confirmed_flow_is_never_evicted() {
    explore(|| {
        let table = table();
        packet(&table, KEY, 10);
        packet(&table, [3, 3], 11);
        let confirm = |table: &FlowTable<2, 1>| {
            let hit = table.find(&KEY, table.places(&KEY));
            hit.is_some_and(|hit| table.update(hit, hit.control.with_state(State::Established)).is_ok())
        };
        let (confirmed, _) = race(&table, confirm, |table| packet(table, OTHER, 20));
        if confirmed {
            assert_eq!(live(&table, KEY), [BackendId(10)]);
        }
    });
}

#[test]
fn loom_a_late_update_never_touches_the_next_flow_of_the_place() {
    explore(|| {
        let table = table();
        packet(&table, KEY, 10);
        let hit = table.find(&KEY, table.places(&KEY)).unwrap();
        let late =
            move |table: &FlowTable<2, 1>| table.update(hit, hit.control.with_state(State::Reset)).is_ok();
        let reuse = move |table: &FlowTable<2, 1>| {
            table.remove(hit);
            packet(table, OTHER, 20);
        };
        race(&table, late, reuse);
        assert_eq!(live(&table, OTHER), [BackendId(20)]);
        let other = table.find(&OTHER, table.places(&OTHER)).unwrap();
        assert_eq!(other.control.state(), State::Unconfirmed);
    });
}
