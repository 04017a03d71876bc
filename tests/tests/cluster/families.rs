//! Services of one family or two, in a cluster with both (`FAMILIES=46`); in another, what of it there is.

use serde_json::{Value, json};
use shunt_tests::error::{Result, ensure};

use crate::cluster::{Cluster, Pool};
use crate::objects::service_with;
use crate::space::Space;
use crate::table::{self, Case};

const V4: Pool<'static> = ("v4", &["198.51.100.10-198.51.100.19"], "");
const V6: Pool<'static> = ("v6", &["2001:db8:1::10-2001:db8:1::19"], "");
const DUAL: Pool<'static> = ("zdual", &["198.51.100.30-198.51.100.39", "2001:db8:1::30-2001:db8:1::39"], "");

pub fn run(cluster: &Cluster) -> Result<()> {
    if cluster.has_both_families()? {
        return table::run(cluster, "families", CASES);
    }
    println!("   of one family; for the other cases: P=shunt-dual FAMILIES=46 NODES=1");
    table::run(cluster, "families", SINGLE)
}

const SINGLE: &[Case] = &[
    ("PreferDualStack in a cluster of one family", |space| {
        space.create_and_wait(&of_policy("PreferDualStack", None)).map(drop)
    }),
    ("RequireDualStack in a cluster of one family is refused by the API server", |space| {
        let answer =
            space.cluster.api.try_create(&space.path("services"), &of_policy("RequireDualStack", None))?;
        ensure(answer.status == 422, || format!("{}: {}", answer.status, answer.message()))
    }),
];

const CASES: &[Case] = &[
    ("SingleStack of either family", |space| {
        space.cluster.with_pools(&[V4, V6, DUAL], || {
            shows(space, &of_policy("SingleStack", Some("IPv4")), &["198.51.100.10"])?;
            space.delete_service("a")?;
            space.until_gone("a")?;
            shows(space, &of_policy("SingleStack", Some("IPv6")), &["2001:db8:1::10"])
        })
    }),
    ("PreferDualStack takes both from a pool that has both", |space| {
        space.cluster.with_pools(&[V4, V6, DUAL], || {
            shows(space, &of_policy("PreferDualStack", None), &["198.51.100.30", "2001:db8:1::30"])
        })
    }),
    ("PreferDualStack takes the primary family where no pool has both: IPv4", |space| {
        space.cluster.with_pools(&[V4, V6], || {
            shows(space, &of_policy("PreferDualStack", Some("IPv4")), &["198.51.100.10"])
        })
    }),
    ("PreferDualStack takes the primary family where no pool has both: IPv6", |space| {
        space.cluster.with_pools(&[V4, V6], || {
            shows(space, &of_policy("PreferDualStack", Some("IPv6")), &["2001:db8:1::10"])
        })
    }),
    ("PreferDualStack takes the secondary family if there is nothing else", |space| {
        space.cluster.with_pools(&[V6], || {
            shows(space, &of_policy("PreferDualStack", Some("IPv4")), &["2001:db8:1::10"])
        })
    }),
    ("PreferDualStack gets its second address when its pool has one, and from no other pool", grown),
    ("a pool that shrinks takes only what it loses", shrunk),
    ("RequireDualStack: both, from two pools if need be, or none", |space| {
        space.cluster.with_pools(&[V4], || {
            space.create(&of_policy("RequireDualStack", None))?;
            space.until_refused("a", "NoPool")?;
            space.cluster.set_pools(&[V4, V6])?;
            space.until_addresses("a", &["198.51.100.10", "2001:db8:1::10"])
        })
    }),
    ("Prefer to Require to Single and back: what is still wanted is kept", changed),
    ("both addresses asked for", |space| {
        let request = json!({ "metadata": { "annotations": {
            "shunt.dev/addresses": "2001:db8:1::77, 198.51.100.77",
        } } });
        let service = crate::objects::with(of_policy("RequireDualStack", None), request);
        shows(space, &service, &["198.51.100.77", "2001:db8:1::77"])
    }),
];

/// Service `a` of a policy.
fn of_policy(policy: &str, primary: Option<&str>) -> Value {
    let families = match (policy, primary) {
        (_, None) => Value::Null,
        ("SingleStack", Some(family)) => json!([family]),
        (_, Some("IPv6")) => json!(["IPv6", "IPv4"]),
        _ => json!(["IPv4", "IPv6"]),
    };
    service_with("a", json!({ "ipFamilyPolicy": policy, "ipFamilies": families }))
}

fn shows(space: &Space, service: &Value, expected: &[&str]) -> Result<()> {
    space.create(service)?;
    space.until_addresses("a", expected)?;
    let mut unserved = expected.iter().filter_map(|text| text.parse().ok());
    ensure(unserved.all(|vip| space.cluster.serves(vip).unwrap_or(false)), || {
        "shown, but not served".to_owned()
    })
}

fn grown(space: &Space) -> Result<()> {
    space.cluster.with_pools(&[V4], || {
        shows(space, &of_policy("PreferDualStack", None), &["198.51.100.10"])?;
        space.cluster.set_pools(&[V4, DUAL])?;
        space.stays("it does not jump", || Ok(space.addresses("a")?.len() == 1))?;
        space.cluster.set_pools(&[("v4", &["198.51.100.10-198.51.100.19", "2001:db8:1::50"], ""), DUAL])?;
        space.until_addresses("a", &["198.51.100.10", "2001:db8:1::50"])
    })
}

fn shrunk(space: &Space) -> Result<()> {
    space.cluster.with_pools(&[DUAL], || {
        shows(space, &of_policy("PreferDualStack", None), &["198.51.100.30", "2001:db8:1::30"])?;
        space.cluster.set_pools(&[(
            "zdual",
            &["198.51.100.35-198.51.100.39", "2001:db8:1::30-2001:db8:1::39"],
            "",
        )])?;
        space.until_addresses("a", &["198.51.100.35", "2001:db8:1::30"])?;
        space.cluster.set_pools(&[("zdual", &["198.51.100.35-198.51.100.39"], "")])?;
        space.until_addresses("a", &["198.51.100.35"])
    })
}

fn changed(space: &Space) -> Result<()> {
    space.cluster.with_pools(&[DUAL], || {
        shows(space, &of_policy("PreferDualStack", None), &["198.51.100.30", "2001:db8:1::30"])?;
        let to = |policy: &str, change: Value| {
            let change = crate::objects::with(json!({ "spec": { "ipFamilyPolicy": policy } }), change);
            space.change("a", &change)
        };
        to("RequireDualStack", json!({}))?;
        space.stays("both are kept", || Ok(space.addresses("a")?.len() == 2))?;
        let one = &space.service("a")?["spec"];
        let single =
            json!({ "spec": { "ipFamilies": [one["ipFamilies"][0]], "clusterIPs": [one["clusterIPs"][0]] } });
        to("SingleStack", single)?;
        space.until_addresses("a", &["198.51.100.30"])?;
        to("PreferDualStack", json!({}))?;
        space.until_addresses("a", &["198.51.100.30", "2001:db8:1::30"])
    })
}
