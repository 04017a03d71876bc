//! What the dataplane shall balance over: a configuration's snapshot with what is known of its backends. Pure.
//!
//! A backend that is down is left out of its pool, so that its flows are chosen anew, or has weight 0, so that they
//! stay ([`OnDown`]); one that an operator drains has weight 0. When no backend of a pool that should take flows can,
//! each of its services follows its own [`WhenAllDown`]: such a service gets a pool of its own.

use std::time::Duration;

use shunt_api::config::{self, Config, OnDown, WhenAllDown};
use shunt_api::snapshot::{Backend, Pool, Snapshot};

use crate::health::{RAMP_STEPS, ramp};

/// What is known of a backend of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It takes new flows; since so long, if it came up.
    Usable(Option<Duration>),
    /// It keeps its flows and takes no new ones.
    Drained,
    /// Its checks fail.
    Down,
}

/// The snapshot of `config`, which is `snapshot`, as things are. `condition` knows a backend by its pool and its place
/// in it.
pub fn balanced(
    config: &Config,
    snapshot: &Snapshot,
    condition: impl Fn(usize, usize) -> Condition,
) -> Snapshot {
    let mut balanced = snapshot.clone();
    for (number, pool) in config.pools.iter().enumerate() {
        let conditions: Vec<_> = (0..pool.backends.len()).map(|backend| condition(number, backend)).collect();
        let whole = &snapshot.pools[number];
        balanced.pools[number].backends = backends(pool, whole, &conditions);
        if all_down(pool, &conditions) {
            follow(config, number, whole, &conditions, &mut balanced);
        }
    }
    balanced
}

/// The members of a pool.
fn backends(pool: &config::Pool, whole: &Pool, conditions: &[Condition]) -> Vec<Backend> {
    let ramps = pool.slow_start.filter(|&slow_start| {
        conditions
            .iter()
            .any(|condition| matches!(condition, Condition::Usable(Some(since)) if *since < slow_start))
    });
    let member = |(backend, condition): (&Backend, &Condition)| {
        let weight = match (condition, ramps) {
            (Condition::Usable(Some(since)), Some(slow_start)) => ramp(backend.weight, *since, slow_start),
            (Condition::Usable(_), Some(_)) => backend.weight.saturating_mul(RAMP_STEPS),
            (Condition::Usable(_), None) => backend.weight,
            (Condition::Drained, _) => 0,
            (Condition::Down, _) if pool.on_down == OnDown::Rehash => return None,
            (Condition::Down, _) => 0,
        };
        Some(Backend { weight, ..backend.clone() })
    };
    whole.backends.iter().zip(conditions).filter_map(member).collect()
}

/// Whether a pool that should take new flows has nobody who can.
pub fn all_down(pool: &config::Pool, conditions: &[Condition]) -> bool {
    let wanted = || {
        let weighed = pool.backends.iter().zip(conditions).filter(|(backend, _)| backend.weight > 0);
        weighed.map(|(_, condition)| *condition).filter(|condition| *condition != Condition::Drained)
    };
    wanted().next().is_some() && wanted().all(|condition| condition == Condition::Down)
}

/// Gives the services of a pool of which all are down what each wants.
fn follow(config: &Config, number: usize, whole: &Pool, conditions: &[Condition], balanced: &mut Snapshot) {
    let of_pool = || config.services.iter().enumerate().filter(|(_, service)| service.pool == number);
    let trusting = |service: &config::Service| service.when_all_down == WhenAllDown::UseAll;
    if !of_pool().any(|(_, service)| trusting(service)) {
        return;
    }
    let as_if_up = |(backend, condition): (&Backend, &Condition)| match condition {
        Condition::Drained => Backend { weight: 0, ..backend.clone() },
        _ => backend.clone(),
    };
    let used = whole.backends.iter().zip(conditions).map(as_if_up).collect();
    if of_pool().all(|(_, service)| trusting(service)) {
        balanced.pools[number].backends = used;
        return;
    }
    let all = u32::try_from(balanced.pools.len()).expect("the number of pools is limited");
    balanced.pools.push(Pool { name: format!("{} (all, although down)", whole.name), backends: used });
    for (index, _) in of_pool().filter(|(_, service)| trusting(service)) {
        balanced.services[index].pool = all;
    }
}

#[cfg(test)]
mod tests {
    use shunt_api::compile::compile;
    use shunt_api::snapshot::FleetKey;

    use super::Condition::{Down, Drained, Usable};
    use super::*;

    /// A pool of three with weights 1, 2 and 0, and two services on it.
    fn config(pool: &str, second: &str) -> Config {
        let text = format!(
            r#"
            nic = [{{ name = "eth1" }}]
            [pools.web]
            check = "tcp"
            {pool}
            backends = [
                {{ name = "a", address = "10.0.0.1" }},
                {{ name = "b", address = "10.0.0.2", weight = 2 }},
                {{ name = "c", address = "10.0.0.3", weight = 0 }},
            ]
            [[service]]
            name = "first"
            vip = "203.0.113.10"
            ports = ["tcp/80"]
            pool = "web"
            [[service]]
            name = "second"
            vip = "203.0.113.11"
            ports = ["tcp/80"]
            pool = "web"
            {second}
            "#
        );
        Config::parse(&text, "f").unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Names and weights of the backends of each service.
    fn served(config: &Config, conditions: [Condition; 3]) -> [Vec<(String, u16)>; 2] {
        let snapshot = compile(config, FleetKey([7; 16]));
        let balanced = balanced(config, &snapshot, |_, backend| conditions[backend]);
        [0, 1].map(|service| {
            let pool = &balanced.pools[balanced.services[service].pool as usize];
            pool.backends.iter().map(|backend| (backend.name.clone(), backend.weight)).collect()
        })
    }

    fn check(config: &Config, conditions: [Condition; 3], first: &[(&str, u16)], second: &[(&str, u16)]) {
        let own = |list: &[(&str, u16)]| {
            list.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect::<Vec<_>>()
        };
        assert_eq!(served(config, conditions), [own(first), own(second)], "{conditions:?}");
    }

    const UP: Condition = Usable(None);

    #[test]
    fn what_is_down_gets_no_new_flows() {
        let all = &[("a", 1), ("b", 2), ("c", 0)];
        let rehash = config("", "");
        check(&rehash, [UP, UP, UP], all, all);
        check(&rehash, [Down, UP, UP], &all[1..], &all[1..]);
        check(&rehash, [Drained, UP, UP], &[("a", 0), ("b", 2), ("c", 0)], &[("a", 0), ("b", 2), ("c", 0)]);
        let keep = config(r#"on_down = "keep""#, "");
        let kept = &[("a", 1), ("b", 0), ("c", 0)];
        check(&keep, [UP, Down, UP], kept, kept);
    }

    #[test]
    fn when_all_are_down_each_service_has_its_way() {
        let all = &[("a", 1), ("b", 2), ("c", 0)];
        check(&config("", ""), [Down, Down, UP], all, all);
        let differing = config("", r#"when_all_down = "refuse""#);
        check(&differing, [Down, Down, Down], all, &[]);
        check(&differing, [Down, UP, Down], &[("b", 2)], &[("b", 2)]);
        // What is drained is not meant to take anything, so the other one is all there is.
        check(&differing, [Down, Drained, UP], &[("a", 1), ("b", 0), ("c", 0)], &[("b", 0), ("c", 0)]);
        check(
            &differing,
            [Drained, Drained, UP],
            &[("a", 0), ("b", 0), ("c", 0)],
            &[("a", 0), ("b", 0), ("c", 0)],
        );
    }

    #[test]
    fn a_share_grows_after_coming_up() {
        let slow = config(r#"slow_start = "10s""#, "");
        let after = |seconds| [Usable(Some(Duration::from_secs(seconds))), UP, UP];
        let grown = &[("a", 6), ("b", 20), ("c", 0)];
        check(&slow, after(5), grown, grown);
        let whole = &[("a", 1), ("b", 2), ("c", 0)];
        check(&slow, after(10), whole, whole);
    }
}
