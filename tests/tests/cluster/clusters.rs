//! One box for two clusters, each with a pool of its own. What is made in both has the same namespace and name.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shunt_api::address_pool::AddressRange;
use shunt_api::status::{ClusterRole, ControlStatus};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::wait;
use toml::Table;

use crate::client::{self, ask, first_answer, until_answered};
use crate::cluster::Cluster;
use crate::download::Downloads;
use crate::objects::service;
use crate::space::{Space, in_space, in_space_named};
use crate::survival::{judge, pod_names};

/// Of each cluster's Service.
const DOWNLOADS: usize = 25;
/// New connections.
const REQUESTS: usize = 20;
/// For a box to hear of a cluster again whose API server was away.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at a Service.
const LOOK: Duration = Duration::from_millis(100);
/// What the clusters are called, and their pools.
const NAMES: [(&str, &str); 2] = [("one", "198.51.100.0/25"), ("two", "198.51.100.128/25")];
/// Where pools are that a cluster defines.
const POOLS: &str = "/apis/shunt.dev/v1alpha1/shuntpools";

pub fn run(cluster: &Cluster) -> Result<()> {
    // Said already why not.
    let Some(neighbour) = cluster.neighbour()? else { return Ok(()) };
    cluster.join(&neighbour)?;
    let first = cluster.first();
    // Its dataplane takes another NIC when it starts.
    first.stop()?;
    let config = both(&cluster.config()?, &neighbour)?;
    let outcome = first.start_with(&config).and_then(|()| {
        in_space(cluster, "clusters", |one| {
            in_space_named(&neighbour, &one.name, |two| Pair::deploy(one, two)?.story())
        })
    });
    first.stop()?;
    first.start()?;
    outcome
}

/// A configuration with both clusters.
fn both(usual: &str, neighbour: &Cluster) -> Result<String> {
    let mut table: Table = usual.parse().map_err(|error| Error::Wrong(format!("shunt.toml: {error}")))?;
    let absent = || Error::Wrong("shunt.toml names no NIC or cluster".to_owned());
    let nics = table.get_mut("nic").and_then(toml::Value::as_array_mut).ok_or_else(absent)?;
    nics.push(table_of(&[("name", "nod1")]));
    let usual = table.get("kubernetes").and_then(toml::Value::as_table).ok_or_else(absent)?.clone();
    let clusters = NAMES.map(|(name, addresses)| {
        let mut cluster = usual.clone();
        let pool = table_of(&[("name", name), ("addresses", addresses)]);
        cluster.insert("name".into(), name.into());
        cluster.insert("pools".into(), vec![pool].into());
        if name == NAMES[1].0 {
            cluster.insert("kubeconfig".into(), neighbour.kubeconfig().display().to_string().into());
        }
        cluster
    });
    table.insert("kubernetes".into(), clusters.to_vec().into());
    Ok(table.to_string())
}

fn table_of(entries: &[(&str, &str)]) -> toml::Value {
    let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), toml::Value::from(*value)));
    toml::Value::Table(entries.collect())
}

/// The same namespace in both, with a Service `web` and pods that are named after their cluster.
struct Pair<'s> {
    one: &'s Space<'s>,
    two: &'s Space<'s>,
    vips: [IpAddr; 2],
}

impl<'s> Pair<'s> {
    fn deploy(one: &'s Space<'s>, two: &'s Space<'s>) -> Result<Self> {
        for (space, (name, _)) in [one, two].into_iter().zip(NAMES) {
            let nodes: Vec<&str> = space.cluster.nodes.iter().map(String::as_str).collect();
            space.start_pods_named(name, &nodes)?;
        }
        let vips = [one.create_and_wait(&service("web"))?, two.create_and_wait(&service("web"))?];
        Ok(Self { one, two, vips })
    }

    /// That the client and the box are of.
    fn cluster(&self) -> &Cluster {
        self.one.cluster
    }

    fn story(&self) -> Result<()> {
        self.own_addresses_and_pods()?;
        self.during(&self.vips, 20, |downloads| self.api_away(downloads))?;
        self.wrong_pools()?;
        self.during(&self.vips[..1], 8, |downloads| self.removed(downloads))
    }

    fn own_addresses_and_pods(&self) -> Result<()> {
        let status: ControlStatus = self.cluster().status()?;
        let leads: Vec<_> =
            status.clusters.iter().filter(|cluster| cluster.role == ClusterRole::Leader).collect();
        ensure(leads.len() == 2, || format!("the box leads in {leads:?}"))?;
        for ((name, addresses), vip) in NAMES.into_iter().zip(self.vips) {
            let own: AddressRange = addresses.parse().expect("a prefix");
            ensure(own.contains(vip), || format!("cluster {name} has {vip}, not of {addresses}"))?;
            let wanted = format!("{name}/{}/web", self.one.name);
            let services = self.cluster().services()?;
            let found = services.iter().find(|service| service.vip == vip);
            ensure(found.is_some_and(|found| found.name == wanted), || {
                format!("{vip} is served as {found:?}")
            })?;
            until_answered(self.cluster(), vip)?;
            self.expect_pods_of(name, vip)?;
        }
        println!(
            "   {}/web has {} and {}, each answered by its own cluster's pods",
            self.one.name, self.vips[0], self.vips[1]
        );
        Ok(())
    }

    fn expect_pods_of(&self, name: &str, vip: IpAddr) -> Result<()> {
        let answers = ask(self.cluster(), vip, REQUESTS)?;
        let pods = client::pods(&answers);
        let own = |server: &&str| server.split('/').nth(1).is_some_and(|pod| pod.starts_with(name));
        ensure(pods.iter().all(own), || format!("{vip} of cluster {name} is answered by {pods:?}"))
    }

    /// Both Services are as they were.
    fn expect_kept(&self) -> Result<()> {
        let shown = [self.one.addresses("web")?, self.two.addresses("web")?].concat();
        ensure(shown == self.vips, || format!("{:?} became {shown:?}", self.vips))?;
        NAMES.iter().zip(self.vips).try_for_each(|((name, _), vip)| self.expect_pods_of(name, vip))
    }

    /// Calls `disturb` during downloads, which all have to be whole.
    fn during(
        &self,
        vips: &[IpAddr],
        seconds: u64,
        disturb: impl FnOnce(&Downloads) -> Result<()>,
    ) -> Result<()> {
        let downloads = Downloads::start(self.cluster(), vips, DOWNLOADS, seconds)?;
        let disturbed = disturb(&downloads);
        let transfers = downloads.finish()?;
        let mut pods = pod_names(&self.one.pods()?);
        pods.extend(pod_names(&self.two.pods()?));
        disturbed.and(judge(&transfers, &pods))
    }

    /// A Service comes, answers and goes, in one cluster.
    fn change(&self, space: &Space) -> Result<()> {
        let begin = Instant::now();
        let vip = space.create_and_wait(&service("more"))?;
        first_answer(self.cluster(), vip)?;
        let answered = begin.elapsed().as_secs_f64();
        space.delete_service("more")?;
        space.until_gone("more")?;
        println!("   a Service more, answered after {answered:.1} s, and gone again");
        Ok(())
    }

    fn api_away(&self, downloads: &Downloads) -> Result<()> {
        println!("   the second cluster has no API server");
        self.two.cluster.restart_apiserver(|| {
            self.change(self.one)?;
            NAMES.iter().zip(self.vips).try_for_each(|((name, _), vip)| self.expect_pods_of(name, vip))
        })?;
        downloads.expect_running()?;
        self.two.create(&service("late"))?;
        let shown = || Ok(self.two.addresses("late")?.first().copied());
        let (vip, took) = wait::until_every(LOOK, "an address of late", CATCH_UP_LIMIT, shown)?;
        println!("   it has one again: a Service has its address {:.1} s later", took.as_secs_f64());
        first_answer(self.cluster(), vip)?;
        self.two.delete_service("late")?;
        self.expect_kept()
    }

    /// What the second cluster's own pools may not be, and what becomes of one that has addresses of the first's.
    fn wrong_pools(&self) -> Result<()> {
        self.with_pool("of-file", "198.51.100.200-198.51.100.201", |condition| {
            ensure(condition["status"] == "False", || format!("it is accepted: {condition}"))?;
            let message = condition["message"].as_str().unwrap_or_default();
            println!("   refused: {message}");
            ensure(message.contains("overlaps 198.51.100.128/25 of pool `two`"), || message.to_owned())
        })?;
        self.with_pool("of-other", &self.vips[0].to_string(), |condition| {
            ensure(condition["status"] == "False", || format!("it is accepted: {condition}"))?;
            let message = condition["message"].as_str().unwrap_or_default();
            println!("   refused: {message}");
            ensure(message.contains("in pool `one` of cluster `one`"), || message.to_owned())
        })?;
        self.expect_kept()
    }

    /// Calls `work` with what the control plane says of a pool that the second cluster defines.
    fn with_pool(&self, name: &str, addresses: &str, work: impl FnOnce(&Value) -> Result<()>) -> Result<()> {
        let api = &self.two.cluster.api;
        let pool = json!({
            "apiVersion": "shunt.dev/v1alpha1",
            "kind": "ShuntPool",
            "metadata": { "name": name },
            "spec": { "addresses": [addresses], "autoAssign": false },
        });
        api.create(POOLS, &pool)?;
        let path = format!("{POOLS}/{name}");
        let outcome = self
            .two
            .until(&format!("a verdict on pool {name}"), || {
                let conditions = api.get(&path)?["status"]["conditions"].clone();
                let of = |all: &Vec<Value>| all.iter().find(|each| each["type"] == "Accepted").cloned();
                Ok(conditions.as_array().and_then(of))
            })
            .and_then(|condition| work(&condition));
        api.delete(&path)?;
        outcome
    }

    /// The box is to serve the first cluster alone, and then both again.
    fn removed(&self, downloads: &Downloads) -> Result<()> {
        let cluster = self.cluster();
        let only_first = |table: &mut Table| {
            if let Some(clusters) = table.get_mut("kubernetes").and_then(toml::Value::as_array_mut) {
                clusters.truncate(1);
            }
        };
        cluster.with_config(only_first, || {
            self.one.until("the second cluster to be gone from the box", || {
                Ok((!cluster.serves(self.vips[1])?).then_some(()))
            })?;
            ensure(cluster.status()?.clusters.len() == 1, || "the box knows it still".to_owned())?;
            ensure(self.one.addresses("web")? == self.vips[..1], || "another address".to_owned())?;
            self.expect_pods_of(NAMES[0].0, self.vips[0])?;
            self.change(self.one)
        })?;
        downloads.expect_running()?;
        self.one.until("the second cluster to be served again", || {
            Ok(cluster.serves(self.vips[1])?.then_some(()))
        })?;
        until_answered(cluster, self.vips[1])?;
        self.expect_kept()
    }
}
