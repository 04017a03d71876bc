use super::*;

const SMALL: Sizes = Sizes { services: 200, pools: 10, backends: 5, maglev_size: 251, flows: 2000 };

#[test]
fn changes_under_load_lose_no_packet_and_move_no_flow() {
    let outcome = measure(&SMALL, &Change::ALL, 4, Duration::ZERO, None).unwrap();
    outcome.demand_nothing_lost().unwrap();
    assert_eq!(outcome.turns.len(), 16);
    // The worker forwarded by every view, and as many packets as there are flows by each.
    assert_eq!(outcome.log.first_batches.len(), 16);
    assert!(outcome.log.packets > 17 * SMALL.flows);
}

#[test]
fn only_services_that_changed_look_at_their_flows_again() {
    let outcome = measure(&SMALL, &Change::ALL, 2, Duration::ZERO, None).unwrap();
    for Turn { change, cycle, .. } in &outcome.turns {
        assert_eq!(cycle.services_renewed, services_of(*change), "{change:?}");
    }
}

#[test]
fn a_moved_packet_is_an_error() {
    let mut outcome = measure(&SMALL, &[Change::Nothing], 1, Duration::ZERO, None).unwrap();
    outcome.log.moved = 1;
    assert!(outcome.demand_nothing_lost().unwrap_err().to_string().starts_with("1 of "));
}

/// How many services a change is about.
fn services_of(change: Change) -> usize {
    match change {
        Change::Nothing | Change::AllWeights => 0,
        Change::OnePool => SMALL.services / SMALL.pools,
        Change::AllPools => SMALL.services,
    }
}
