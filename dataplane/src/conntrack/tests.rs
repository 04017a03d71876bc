//! What a flow table promises, checked on real threads. The interleavings are `loom_tests`' part.

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;

use super::*;

const LIMITS: IdleLimits = [0, 0, 0, 30, 300, 900, 120, 10, 10_800];

fn table(flows: usize) -> FlowTable<2, 1> {
    FlowTable::new(flows, &RandomState::with_seeds(1, 2, 3, 4))
}

fn insert(table: &FlowTable<2, 1>, key: [u64; 2], backend: u32, now: u32) -> Inserted {
    let flow = NewFlow { key, value: [key[0] + 100], backend: BackendId(backend) };
    table.insert(&flow, table.places(&key), Seconds(now), &LIMITS)
}

fn find(table: &FlowTable<2, 1>, key: [u64; 2]) -> Option<Hit<1>> {
    table.find(&key, table.places(&key))
}

fn confirm(table: &FlowTable<2, 1>, key: [u64; 2]) {
    let hit = find(table, key).unwrap();
    table.update(hit, hit.control.with_state(State::Established)).unwrap();
}

#[test]
fn an_entry_is_as_small_as_designed() {
    assert_eq!((size_of::<Entry<2, 1>>(), size_of::<Bucket<2, 1>>()), (32, 128), "IPv4");
    assert_eq!((size_of::<Entry<5, 1>>(), size_of::<Bucket<5, 1>>()), (64, 256), "IPv6");
    let per_flow = |bucket: usize| 2 * bucket / BUCKET;
    assert_eq!(
        (per_flow(size_of::<Bucket<2, 1>>()), per_flow(size_of::<Bucket<5, 1>>())),
        (64, 128),
        "two places"
    );
    assert_eq!(
        (per_flow(size_of::<Bucket<2, 3>>()), per_flow(size_of::<Bucket<5, 6>>())),
        (128, 192),
        "translated"
    );
}

#[test]
fn ten_million_flows_fit_in_a_gibibyte() {
    const FLOWS: usize = 10_000_000;
    let buckets = FlowTable::<2, 1>::buckets_for(FLOWS);
    assert_eq!(buckets * size_of::<Bucket<2, 1>>(), 640_000_000);
    let made = table(1000);
    assert_eq!((made.buckets(), made.size_bytes()), (FlowTable::<2, 1>::buckets_for(1000), 64_000));
}

#[test]
fn what_is_inserted_is_found_and_removed() {
    let table = table(100);
    assert_eq!(find(&table, [1, 2]), None);
    assert_eq!(insert(&table, [1, 2], 7, 100), Inserted::New);
    let hit = find(&table, [1, 2]).unwrap();
    assert_eq!((hit.control.backend(), hit.control.state()), (BackendId(7), State::Unconfirmed));
    assert_eq!(hit.value, [101]);
    assert_eq!(insert(&table, [1, 2], 8, 100), Inserted::Lost(BackendId(7)), "a live entry wins");
    assert!(table.remove(hit));
    assert_eq!(find(&table, [1, 2]), None);
    assert!(!table.remove(hit), "the claim that the hit saw is over");
}

#[test]
fn a_word_of_the_value_is_replaced_if_it_is_what_was_seen() {
    let table = table(100);
    insert(&table, [1, 2], 7, 100);
    let hit = find(&table, [1, 2]).unwrap();
    table.replace(&hit, 0, 5);
    table.replace(&hit, 0, 6);
    assert_eq!(find(&table, [1, 2]).unwrap().value, [5], "the second one had not seen the 5");
}

#[test]
fn an_update_of_a_reused_place_changes_nothing() {
    let table = FlowTable::<2, 1>::new(1, &RandomState::with_seeds(1, 2, 3, 4));
    insert(&table, [1, 0], 1, 0);
    let stale = find(&table, [1, 0]).unwrap();
    table.remove(stale);
    (2..=5).for_each(|key| assert_eq!(insert(&table, [key, 0], 2, 0), Inserted::New));
    assert_eq!(table.update(stale, stale.control.with_state(State::Reset)), Err(None));
    (2..=5).for_each(|key| assert_eq!(find(&table, [key, 0]).unwrap().control.state(), State::Unconfirmed));
}

#[test]
fn a_flood_evicts_unconfirmed_flows_only() {
    const FLOWS: u64 = if cfg!(miri) { 60 } else { 3000 };
    // So few that some find both of their buckets full.
    let table = table(FLOWS as usize * 2 / 3);
    let flows: Vec<[u64; 2]> = (0..FLOWS).map(|i| [i, 1]).collect();
    let stored = flows.iter().filter(|&&key| insert(&table, key, 5, 0) != Inserted::Full).count();
    let confirmed: Vec<_> = flows.into_iter().filter(|&key| find(&table, key).is_some()).collect();
    confirmed.iter().for_each(|&key| confirm(&table, key));
    let mut outcomes = [0; 3];
    for i in 0..5 * table.capacity() as u64 {
        match insert(&table, [i, 2], 6, 1) {
            Inserted::New => outcomes[0] += 1,
            Inserted::Evicting => outcomes[1] += 1,
            Inserted::Full => outcomes[2] += 1,
            Inserted::Lost(_) => panic!("one thread cannot lose"),
        }
    }
    println!("{stored} of {FLOWS} stored; flood: new, evicting, full = {outcomes:?}");
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
    for &key in &confirmed {
        assert_eq!(find(&table, key).unwrap().control.backend(), BackendId(5));
    }
}

#[test]
fn the_designed_number_of_flows_fits() {
    const FLOWS: u64 = if cfg!(miri) { 200 } else { 200_000 };
    let table = table(FLOWS as usize);
    // Neighbours would spread better than chance has it.
    let random = RandomState::with_seeds(5, 6, 7, 8);
    let keys: Vec<[u64; 2]> = (0..FLOWS).map(|i| [random.hash_one(i), 9]).collect();
    let full = keys.iter().filter(|&&key| insert(&table, key, 1, 0) != Inserted::New).count();
    let first = keys.iter().filter(|key| table.find_first(key, &table.places(key)).is_some()).count();
    let [full, first] = [full, first].map(|count| count as f64 / FLOWS as f64);
    println!(
        "at the designed load {:.3} % of flows found no free place, {:.1} % stand in their first bucket",
        full * 100.0,
        first * 100.0
    );
    assert!(full < 0.001 && first > 0.85, "{full} {first}");
}

#[test]
fn idle_entries_make_room_by_the_time_of_their_state() {
    let table = FlowTable::<2, 1>::new(1, &RandomState::with_seeds(1, 2, 3, 4));
    (0..4).for_each(|key| assert_eq!(insert(&table, [key, 0], 1, 0), Inserted::New));
    (0..4).for_each(|key| confirm(&table, [key, 0]));
    assert_eq!(insert(&table, [9, 0], 2, 899), Inserted::Full);
    assert_eq!(insert(&table, [9, 0], 2, 900), Inserted::New);
}

#[test]
fn a_walk_sees_every_live_flow_once() {
    const FLOWS: u64 = if cfg!(miri) { 50 } else { 500 };
    let table = table(2 * FLOWS as usize);
    (0..FLOWS).for_each(|i| assert_eq!(insert(&table, [i, 3], 1, 0), Inserted::New));
    let mut seen = Vec::new();
    (0..table.buckets()).for_each(|bucket| table.visit(bucket, |key, _| seen.push(key[0])));
    seen.sort_unstable();
    assert_eq!(seen, (0..FLOWS).collect::<Vec<_>>());
}

#[test]
fn threads_agree_on_one_entry_per_flow() {
    const THREADS: u32 = 4;
    const KEYS: u64 = if cfg!(miri) { 20 } else { 2000 };
    // So much room that all threads find a free place for a key at once: whoever loses has evicted nobody.
    let table = table(KEYS as usize * 16);
    let barrier = Barrier::new(THREADS as usize);
    let duplicates = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, barrier) = (&table, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for key in 0..KEYS {
                    if find(table, [key, 4]).is_none() {
                        insert(table, [key, 4], thread, 0);
                    }
                }
            });
        }
    });
    let mut seen = std::collections::HashMap::new();
    (0..table.buckets()).for_each(|bucket| {
        table.visit(bucket, |key, hit| {
            if seen.insert(key, hit).is_some() {
                duplicates.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    });
    assert_eq!((duplicates.into_inner(), seen.len() as u64), (0, KEYS));
}
