//! What the dataplane shall balance over: a configuration's snapshot with what is known of its backends. Pure.
//!
//! A backend that is down is left out of its pool, so that its flows are chosen anew, or has weight 0, so that they
//! stay ([`OnDown`]); one that an operator drains has weight 0. When no backend of a pool that should take flows can,
//! each of its services follows its own [`WhenAllDown`]: such a service gets a pool of its own.

use std::time::Duration;

use shunt_api::config::{self, Config, OnDown, Service, WhenAllDown};
use shunt_api::snapshot::{Backend, Pool, Snapshot};

use crate::health::{RAMP_STEPS, ramp};

/// What is known of a backend of a pool. The default is that of one which nobody checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Its checks fail.
    pub down: bool,
    /// An operator wants it to keep its flows and take no new ones.
    pub drained: bool,
    /// For how long it has been up, if it was down before.
    pub up_for: Option<Duration>,
}

/// The snapshot of `config`, which is `snapshot`, as things are: the conditions of the backends of each pool, both in the
/// order of the configuration.
pub fn balanced(config: &Config, snapshot: &Snapshot, conditions: &[Vec<Condition>]) -> Snapshot {
    let mut balanced = snapshot.clone();
    for (number, (pool, conditions)) in config.pools.iter().zip(conditions).enumerate() {
        let whole = &snapshot.pools[number];
        balanced.pools[number].backends = backends(pool, whole, conditions);
        if all_down(pool, conditions) {
            follow(config, number, whole, conditions, &mut balanced);
        }
    }
    balanced
}

/// The services that should take new flows and have nobody who can.
pub fn forsaken<'c>(config: &'c Config, conditions: &[Vec<Condition>]) -> Vec<&'c Service> {
    let pools = config.pools.iter().zip(conditions);
    let down: Vec<bool> = pools.map(|(pool, conditions)| all_down(pool, conditions)).collect();
    config.services.iter().filter(|service| down[service.pool]).collect()
}

/// The members of a pool.
fn backends(pool: &config::Pool, whole: &Pool, conditions: &[Condition]) -> Vec<Backend> {
    let growing = |condition: &Condition, slow_start| {
        !condition.down && condition.up_for.is_some_and(|up_for| up_for < slow_start)
    };
    let ramps = pool
        .slow_start
        .filter(|slow_start| conditions.iter().any(|condition| growing(condition, *slow_start)));
    let weight = |weight: u16, condition: &Condition| match (condition.up_for, ramps) {
        _ if condition.down || condition.drained => 0,
        (Some(up_for), Some(slow_start)) => ramp(weight, up_for, slow_start),
        (None, Some(_)) => weight.saturating_mul(RAMP_STEPS),
        (_, None) => weight,
    };
    let stays = |condition: &Condition| !condition.down || pool.on_down == OnDown::Keep;
    let members = whole.backends.iter().zip(conditions).filter(|(_, condition)| stays(condition));
    members
        .map(|(backend, condition)| Backend { weight: weight(backend.weight, condition), ..backend.clone() })
        .collect()
}

/// Whether a pool that should take new flows has nobody who can.
fn all_down(pool: &config::Pool, conditions: &[Condition]) -> bool {
    let wanted = || {
        let members = pool.backends.iter().zip(conditions);
        members.filter(|(backend, condition)| backend.weight > 0 && !condition.drained)
    };
    wanted().next().is_some() && wanted().all(|(_, condition)| condition.down)
}

/// Gives the services of a pool of which all are down what each wants.
fn follow(config: &Config, number: usize, whole: &Pool, conditions: &[Condition], balanced: &mut Snapshot) {
    let of_pool = || config.services.iter().enumerate().filter(|(_, service)| service.pool == number);
    let trusting = |service: &Service| service.when_all_down == WhenAllDown::UseAll;
    if !of_pool().any(|(_, service)| trusting(service)) {
        return;
    }
    let as_if_up = |(backend, condition): (&Backend, &Condition)| Backend {
        weight: if condition.drained { 0 } else { backend.weight },
        ..backend.clone()
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
        let balanced = balanced(config, &snapshot, &[conditions.to_vec()]);
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

    const UP: Condition = Condition { down: false, drained: false, up_for: None };
    const DOWN: Condition = Condition { down: true, ..UP };
    const DRAINED: Condition = Condition { drained: true, ..UP };

    #[test]
    fn what_is_down_gets_no_new_flows() {
        let all = &[("a", 1), ("b", 2), ("c", 0)];
        let rehash = config("", "");
        check(&rehash, [UP, UP, UP], all, all);
        check(&rehash, [DOWN, UP, UP], &all[1..], &all[1..]);
        let both = Condition { drained: true, ..DOWN };
        check(&rehash, [both, UP, UP], &all[1..], &all[1..]);
        check(&rehash, [both, DOWN, UP], &[("a", 0), ("b", 2), ("c", 0)], &[("a", 0), ("b", 2), ("c", 0)]);
        check(&rehash, [DRAINED, UP, UP], &[("a", 0), ("b", 2), ("c", 0)], &[("a", 0), ("b", 2), ("c", 0)]);
        let keep = config(r#"on_down = "keep""#, "");
        let kept = &[("a", 1), ("b", 0), ("c", 0)];
        check(&keep, [UP, DOWN, UP], kept, kept);
    }

    #[test]
    fn when_all_are_down_each_service_has_its_way() {
        let all = &[("a", 1), ("b", 2), ("c", 0)];
        check(&config("", ""), [DOWN, DOWN, UP], all, all);
        let differing = config("", r#"when_all_down = "refuse""#);
        check(&differing, [DOWN, DOWN, DOWN], all, &[]);
        check(&differing, [DOWN, UP, DOWN], &[("b", 2)], &[("b", 2)]);
        // What is drained is not meant to take anything, so the other one is all there is.
        check(&differing, [DOWN, DRAINED, UP], &[("a", 1), ("b", 0), ("c", 0)], &[("b", 0), ("c", 0)]);
        check(
            &differing,
            [DRAINED, DRAINED, UP],
            &[("a", 0), ("b", 0), ("c", 0)],
            &[("a", 0), ("b", 0), ("c", 0)],
        );
    }

    #[test]
    fn a_share_grows_after_coming_up() {
        let slow = config(r#"slow_start = "10s""#, "");
        let after = |seconds| [Condition { up_for: Some(Duration::from_secs(seconds)), ..UP }, UP, UP];
        let grown = &[("a", 6), ("b", 20), ("c", 0)];
        check(&slow, after(5), grown, grown);
        let whole = &[("a", 1), ("b", 2), ("c", 0)];
        check(&slow, after(10), whole, whole);
    }
}
