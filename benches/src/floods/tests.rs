use super::*;

fn check(kind: Kind, flows: usize) -> Outcome {
    let plan = Plan { name: "small", kind, max_flows: 2000, flows, chunks: 2, times_capacity: 5 };
    let outcome = flood::measure(&plan).unwrap();
    assert_eq!(outcome.failures(), Vec::<String>::new());
    assert!(outcome.flood_packets >= 5 * outcome.places);
    outcome
}

#[test]
fn no_flood_moves_or_forgets_a_confirmed_flow() {
    for kind in Kind::ALL {
        let Outcome { counts, confirmed_flows, places, .. } = check(kind, 1000);
        assert_eq!(confirmed_flows, 1000, "{kind:?}");
        assert!(counts.evicted > 3 * places as u64, "{kind:?}: {counts:?}");
    }
}

#[test]
fn with_a_table_full_of_confirmed_flows_a_flood_is_served_without_entries() {
    for kind in Kind::ALL {
        let Outcome { counts, confirmed_flows, places, .. } = check(kind, 16_000);
        assert!(confirmed_flows * 100 >= places * 99, "{confirmed_flows} of {places}");
        assert!(counts.full > 9 * counts.created, "{kind:?}: {counts:?}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let mut outcome = check(Kind::Syn, 1000);
    outcome.counts.moved += 1;
    outcome.counts.created -= 1;
    let text = outcome.failures().join("\n");
    assert!(text.contains("another backend: 1 instead of 0") && text.contains("by counters"), "{text}");
    outcome.throughput_kept = 0.79;
    assert!(shortfall(&outcome).unwrap().contains("keep 79 %"));
}
