//! Pools that a cluster defines itself, as objects of kind `ShuntPool`. They stand beside those of the configuration
//! file; one that is wrong is left out and told of, and the others stay. So do the addresses that Services have of it.

mod tell;

use std::collections::BTreeSet;
use std::sync::Arc;

use shunt_api::address_pool::AddressPool;
use shunt_api::config::{Taken, manifest};

use super::ipam::Offer;
use super::shunt_pool::ShuntPool;
pub use tell::Teller;

/// What became of the pools of a cluster.
#[derive(Debug, Default)]
pub struct Judged {
    /// Those to give addresses from: the file's, and the cluster's that are right.
    pub pools: Vec<AddressPool>,
    /// Of each of the cluster's.
    pub verdicts: Vec<Verdict>,
}

/// A pool of the cluster, and what is wrong with it.
pub type Verdict = (Arc<ShuntPool>, Option<String>);

impl Judged {
    /// Judges anew if a pool is another one than before. With another file it must be done from the beginning.
    pub fn update(&mut self, file: &[AddressPool], taken: &[Taken], found: Vec<Arc<ShuntPool>>) {
        let same = |before: &Verdict, now: &Arc<ShuntPool>| Arc::ptr_eq(&before.0, now);
        let found = in_order(found);
        let is_same = self.verdicts.len() == found.len()
            && self.verdicts.iter().zip(&found).all(|(before, now)| same(before, now));
        if !is_same || self.pools.is_empty() {
            *self = judge(file, taken, found);
        }
    }

    /// What there is to give addresses from.
    pub fn offer(&self) -> Offer<'_> {
        let is_whole = self.verdicts.iter().all(|(_, problem)| problem.is_none());
        Offer { pools: &self.pools, is_whole }
    }
}

/// Whoever came first has its addresses.
fn in_order(mut found: Vec<Arc<ShuntPool>>) -> Vec<Arc<ShuntPool>> {
    let age = |pool: &ShuntPool| pool.metadata.creation_timestamp.as_ref().map(|time| time.0);
    found.sort_by_key(|pool| (age(pool), pool.metadata.name.clone()));
    found
}

fn judge(file: &[AddressPool], taken: &[Taken], found: Vec<Arc<ShuntPool>>) -> Judged {
    let mut judged = Judged { pools: file.to_vec(), verdicts: Vec::new() };
    let files: BTreeSet<String> = file.iter().map(|pool| pool.name.clone()).collect();
    for object in found {
        let fits = read(&object).and_then(|pool| {
            leaves_alone(&pool, taken)?;
            beside(pool, &judged.pools, &files)
        });
        let problem = fits.map(|pool| judged.pools.push(pool)).err();
        judged.verdicts.push((object, problem));
    }
    judged
}

/// By the rules that `lbctl validate` has.
fn read(object: &ShuntPool) -> Result<AddressPool, String> {
    let mut object = object.clone();
    object.status = None;
    let text = serde_json::to_string(&object).map_err(|error| error.to_string())?;
    let read = manifest::read(&text, "");
    let read = read.map_err(|problem| format!("{}: {}", problem.field, problem.reason))?;
    read.pools.into_iter().next().ok_or_else(|| "it cannot be read as a pool".into())
}

fn leaves_alone(pool: &AddressPool, taken: &[Taken]) -> Result<(), String> {
    let pairs = pool.ranges.iter().flat_map(|range| taken.iter().map(move |taken| (range, taken)));
    let Some((range, taken)) = pairs.into_iter().find(|(range, taken)| range.overlaps(&taken.range)) else {
        return Ok(());
    };
    Err(format!(
        "{range} has addresses of {}, which the configuration file gives to another: {}; leave them out",
        taken.range, taken.by
    ))
}

fn beside(
    pool: AddressPool,
    others: &[AddressPool],
    files: &BTreeSet<String>,
) -> Result<AddressPool, String> {
    let whose =
        |name: &str| if files.contains(name) { "of the configuration file" } else { "of the cluster" };
    for other in others {
        if other.name == pool.name {
            return Err(format!(
                "the configuration file has a pool `{}`, too; name this one otherwise",
                pool.name
            ));
        }
        if let Some((own, range)) = pool.overlap(other) {
            return Err(format!(
                "{own} overlaps {range} of pool `{}` {}; write addresses that no other pool has",
                other.name,
                whose(&other.name)
            ));
        }
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn object(name: &str, second: i64, addresses: &[&str]) -> Arc<ShuntPool> {
        let spec = serde_json::json!({ "addresses": addresses });
        let mut object = ShuntPool::new(name, serde_json::from_value(spec).unwrap());
        object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        Arc::new(object)
    }

    fn problems(judged: &Judged) -> Vec<(&str, Option<&str>)> {
        let verdicts = judged.verdicts.iter();
        verdicts
            .map(|(object, problem)| (object.metadata.name.as_deref().unwrap(), problem.as_deref()))
            .collect()
    }

    #[test]
    fn a_wrong_pool_is_left_out_and_the_others_stay() {
        let file = [AddressPool::new("file", vec!["198.51.100.0/28".parse().unwrap()])];
        let found = vec![
            object("late", 30, &["203.0.113.7"]),
            object("early", 10, &["203.0.113.0/24", "2001:db8::/64"]),
            object("file", 10, &["192.0.2.1"]),
            object("inside", 20, &["198.51.100.7"]),
            object("host-bits", 20, &["192.0.2.1/24"]),
            object("good", 40, &["192.0.2.0/25"]),
            object("other", 50, &["192.0.2.126-192.0.2.129"]),
        ];
        let taken =
            Taken { range: "192.0.2.128/25".parse().unwrap(), by: "in pool `p` of cluster `jena`".into() };
        let judged = judge(&file, &[taken], in_order(found));
        let names: Vec<&str> = judged.pools.iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!(names, ["file", "early", "good"]);
        let other = "write addresses that no other pool has";
        assert_eq!(
            problems(&judged),
            [
                ("early", None),
                ("file", Some("the configuration file has a pool `file`, too; name this one otherwise")),
                (
                    "host-bits",
                    Some(
                        "spec.addresses[0]: 192.0.2.1/24 has host bits; write \"192.0.2.0/24\", or \"192.0.2.1\" for \
                         that address alone"
                    )
                ),
                (
                    "inside",
                    Some(&*format!(
                        "198.51.100.7 overlaps 198.51.100.0/28 of pool `file` of the configuration file; {other}"
                    ))
                ),
                (
                    "late",
                    Some(&*format!(
                        "203.0.113.7 overlaps 203.0.113.0/24 of pool `early` of the cluster; {other}"
                    ))
                ),
                ("good", None),
                (
                    "other",
                    Some(
                        "192.0.2.126-192.0.2.129 has addresses of 192.0.2.128/25, which the configuration file gives to \
                         another: in pool `p` of cluster `jena`; leave them out"
                    )
                ),
            ]
        );
    }

    #[test]
    fn pools_are_judged_again_only_when_one_is_another() {
        let mut judged = Judged::default();
        let file = [AddressPool::new("file", vec!["198.51.100.0/28".parse().unwrap()])];
        judged.update(&file, &[], vec![]);
        assert_eq!(judged.pools, file, "the file's are there from the beginning");
        let (a, b) = (object("a", 1, &["192.0.2.0/24"]), object("b", 2, &["192.0.2.0/24"]));
        judged.update(&file, &[], vec![Arc::clone(&b), Arc::clone(&a)]);
        assert_eq!(judged.pools.len(), 2);
        judged.pools.pop();
        judged.update(&file, &[], vec![Arc::clone(&a), Arc::clone(&b)]);
        assert_eq!(judged.pools.len(), 1, "not judged again");
        judged.update(&file, &[], vec![b]);
        assert_eq!(judged.pools.len(), 2, "what was taken is free");
        assert_eq!(judged.verdicts[0].1, None);
    }
}
