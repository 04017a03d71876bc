//! Two boxes in front of a cluster, with the same configuration and the same fleet key. The client spreads its
//! connections over both, as a router does that has routes from both. One leads, dies, comes back, and later the one that
//! then leads loses the API server.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shunt_api::counters::Counter;
use shunt_api::status::ClusterRole;
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::wait;

use crate::client::{ask, first_answer, until_answered};
use crate::cluster::{Balancer, Cluster};
use crate::download::Downloads;
use crate::objects::service_with;
use crate::space::{Space, addresses_of, in_space};
use crate::survival::{deploy, judge, pod_names};

/// Of each of the two Services.
const DOWNLOADS: usize = 25;
/// New connections to each Service.
const REQUESTS: usize = 60;
/// Of so many connections, 120, each box gets more: 1 time in a million it would not.
const SHARE_MIN: u64 = 30;
/// A Lease lasts 15 s; the rest is for a busy machine.
const LEAD_LIMIT: Duration = Duration::from_secs(30);
/// For which a box does not reach the API server.
const CUT: Duration = Duration::from_secs(60);
/// For a box to do what it did not hear of.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at boxes.
const LOOK: Duration = Duration::from_millis(100);
/// The Lease that the boxes share.
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/shunt-system/leases/shunt.dev-l4";
/// The client's ways to the boxes (tests/cluster/net.sh).
const WAYS: [&str; 2] = ["via 203.0.113.1 dev eth0", "via 203.0.113.3 dev eth1"];

pub fn run(cluster: &Cluster) -> Result<()> {
    in_space(cluster, "boxes", |space| {
        deploy(space)?;
        let vips = [
            space.create_and_wait(&service_with("all", json!({})))?,
            space.create_and_wait(&service_with("local", json!({ "externalTrafficPolicy": "Local" })))?,
        ];
        vips.iter().try_for_each(|vip| until_answered(cluster, *vip))?;
        let boxes = [cluster.first(), cluster.second()?];
        let pair = Pair { space, boxes, vips };
        let outcome = pair.story();
        let restored = pair.restore();
        outcome.and(restored)
    })
}

struct Pair<'s> {
    space: &'s Space<'s>,
    boxes: [Balancer<'s>; 2],
    /// Of the Services `all` and `local`.
    vips: [IpAddr; 2],
}

impl Pair<'_> {
    fn story(&self) -> Result<()> {
        let [_, second] = self.boxes;
        let written = [self.boxes[0].writes()?.len(), second.writes()?.len()];
        second.start()?;
        self.route(&[0, 1])?;
        self.both_forward_one_writes(written)?;
        let dead = self.leader()?;
        self.during(35, |downloads| self.die(dead, downloads))?;
        self.during(15, |downloads| self.come_back(dead, downloads))?;
        self.during(CUT.as_secs() + 20, |downloads| self.lose_cluster(downloads))
    }

    /// One box again, as scenarios find it.
    fn restore(&self) -> Result<()> {
        let [first, second] = self.boxes;
        // Absent if the scenario did not come so far.
        let _ = self.cluster().client.ip("route del 198.51.100.0/24\n");
        first.plug()?;
        second.plug()?;
        second.stop()?;
        first.start()?;
        until(LEAD_LIMIT, "the first box to lead", || Ok(self.leads(0).then_some(()))).map(drop)
    }

    fn cluster(&self) -> &Cluster {
        self.space.cluster
    }

    /// Spreads the client's connections over these boxes. A link that goes down takes its way with it.
    fn route(&self, boxes: &[usize]) -> Result<()> {
        let ways: Vec<String> = boxes.iter().map(|number| format!("nexthop {}", WAYS[*number])).collect();
        let route = format!("route replace 198.51.100.0/24 src 203.0.113.2 {}\n", ways.join(" "));
        let client = &self.cluster().client;
        client.ip(&route)?;
        client.sysctl(&[
            ("ipv4/fib_multipath_hash_policy", "1"),
            ("ipv4/conf/all/ignore_routes_with_linkdown", "1"),
        ])
    }

    fn leads(&self, number: usize) -> bool {
        self.boxes[number].seat().is_ok_and(|seat| seat.role == ClusterRole::Leader)
    }

    fn leader(&self) -> Result<usize> {
        let leaders: Vec<usize> = (0..2).filter(|number| self.leads(*number)).collect();
        match leaders[..] {
            [one] => Ok(one),
            _ => Err(Error::Wrong(format!("boxes {leaders:?} lead"))),
        }
    }

    /// Calls `disturb` during 50 downloads, which all have to be whole.
    fn during(&self, seconds: u64, disturb: impl FnOnce(&Downloads) -> Result<()>) -> Result<()> {
        let downloads = Downloads::start(self.cluster(), &self.vips, DOWNLOADS, seconds)?;
        let disturbed = disturb(&downloads);
        let transfers = downloads.finish()?;
        disturbed.and(judge(&transfers, &pod_names(&self.space.pods()?)))
    }

    fn expect_answers(&self) -> Result<()> {
        self.vips.iter().try_for_each(|vip| ask(self.cluster(), *vip, REQUESTS).map(drop))
    }

    /// New connections are answered, and go by both boxes.
    fn expect_spread(&self) -> Result<()> {
        let before = self.flows()?;
        self.expect_answers()?;
        let after = self.flows()?;
        let came = [after[0] - before[0], after[1] - before[1]];
        ensure(came.iter().all(|came| *came > SHARE_MIN), || {
            format!("of {} connections, {} went by box 1, {} by box 2", 2 * REQUESTS, came[0], came[1])
        })
    }

    /// New ones so far, by box.
    fn flows(&self) -> Result<[u64; 2]> {
        let [one, two] = self.boxes.map(|each| each.counter(Counter::FlowsCreated));
        Ok([one?, two?])
    }

    /// Waits until both serve the same, by the same backends of the same weights.
    fn until_alike(&self, limit: Duration) -> Result<Duration> {
        let what = || {
            let [one, two] = self.boxes.map(served);
            Ok(one.is_ok_and(|one| !one.is_empty() && two.is_ok_and(|two| one == two)).then_some(()))
        };
        until(limit, "both boxes to serve the same", what)
    }

    /// `before`: how much each had written.
    fn both_forward_one_writes(&self, before: [usize; 2]) -> Result<()> {
        self.until_alike(CATCH_UP_LIMIT)?;
        let leader = self.leader()?;
        let (leads, follows) = (self.boxes[leader].seat()?, self.boxes[1 - leader].seat()?);
        ensure(follows.role == ClusterRole::Follower && follows.leader == leads.leader, || {
            format!("one box says {leads:?}, the other {follows:?}")
        })?;
        let holder = self.lease()?["holderIdentity"].clone();
        ensure(holder.as_str() == leads.leader.as_deref(), || format!("the Lease is {holder}'s"))?;
        self.expect_spread()?;
        let vip = self.space.create_and_wait(&service_with("early", json!({})))?;
        self.until_alike(CATCH_UP_LIMIT)?;
        until_answered(self.cluster(), vip)?;
        self.space.delete_service("early")?;
        self.space.until_gone("early")?;
        let written = |number: usize| Result::Ok(self.boxes[number].writes()?.split_off(before[number]));
        let (leaders, followers) = (written(leader)?, written(1 - leader)?);
        println!(
            "   {} leads and wrote {} times, the other {}",
            self.boxes[leader].name(),
            leaders.len(),
            followers.len()
        );
        ensure(!leaders.is_empty() && followers.is_empty(), || format!("a follower wrote {followers:?}"))
    }

    fn lease(&self) -> Result<Value> {
        Ok(self.cluster().api.get(LEASE)?["spec"].clone())
    }

    fn die(&self, dead: usize, downloads: &Downloads) -> Result<()> {
        let (cluster, before) = (self.cluster(), self.shown()?);
        let begin = Instant::now();
        self.boxes[dead].die()?;
        self.space.create(&service_with("new", json!({})))?;
        self.expect_answers()?;
        until(LEAD_LIMIT, "the other box to lead", || Ok(self.leads(1 - dead).then_some(())))?;
        let led = begin.elapsed();
        let vip = self.space.address("new")?;
        first_answer(cluster, vip)?;
        println!(
            "   {} is dead; the other leads after {:.1} s, a new Service answers after {:.1} s",
            self.boxes[dead].name(),
            led.as_secs_f64(),
            begin.elapsed().as_secs_f64()
        );
        self.expect_kept(&before)?;
        self.expect_answers()?;
        downloads.expect_running()
    }

    fn come_back(&self, dead: usize, downloads: &Downloads) -> Result<()> {
        let (before, lease) = (self.shown()?, self.lease()?);
        // As a router that learns of it when it is ready.
        self.route(&[1 - dead])?;
        let begin = Instant::now();
        self.boxes[dead].plug()?;
        self.boxes[dead].start()?;
        self.until_alike(CATCH_UP_LIMIT)?;
        println!("   back: serves the same {:.1} s after its start", begin.elapsed().as_secs_f64());
        self.route(&[0, 1])?;
        self.expect_spread()?;
        self.expect_kept(&before)?;
        let term = |lease: &Value| (lease["holderIdentity"].clone(), lease["leaseTransitions"].clone());
        let now = self.lease()?;
        ensure(term(&lease) == term(&now) && self.leads(1 - dead), || {
            format!("the Lease was {lease} and is {now}")
        })?;
        downloads.expect_running()
    }

    fn lose_cluster(&self, downloads: &Downloads) -> Result<()> {
        let (cluster, before, lost) = (self.cluster(), self.shown()?, self.leader()?);
        let begin = Instant::now();
        self.boxes[lost].reach_cluster(false)?;
        let meanwhile = self.while_cut(lost, begin);
        self.boxes[lost].reach_cluster(true)?;
        meanwhile?;
        downloads.expect_running()?;
        let late = self.until_alike(CATCH_UP_LIMIT)?;
        let vip = self.space.address("late")?;
        ask(cluster, vip, REQUESTS)?;
        until(CATCH_UP_LIMIT, "it to follow", || {
            Ok((self.boxes[lost].seat()?.role == ClusterRole::Follower).then_some(()))
        })?;
        println!("   reached again: serves the same after {:.1} s", late.as_secs_f64());
        let known: Vec<_> = before.into_iter().filter(|(name, _)| name != "new").collect();
        self.expect_kept(&known)?;
        self.expect_spread()
    }

    /// A Service comes and one goes; the others answer over both boxes all the time.
    fn while_cut(&self, lost: usize, begin: Instant) -> Result<()> {
        until(LEAD_LIMIT, "the other box to lead", || {
            self.expect_answers()?;
            Ok((self.leads(1 - lost) && !self.leads(lost)).then_some(()))
        })?;
        let led = begin.elapsed();
        println!(
            "   {} is cut off; the other leads after {:.1} s",
            self.boxes[lost].name(),
            led.as_secs_f64()
        );
        self.space.delete_service("new")?;
        self.space.until_gone("new")?;
        self.space.create_and_wait(&service_with("late", json!({})))?;
        while begin.elapsed() < CUT {
            self.expect_spread()?;
            wait::pass(Duration::from_secs(5));
        }
        Ok(())
    }

    /// The Services and what their status shows.
    fn shown(&self) -> Result<Vec<(String, Value)>> {
        let list = self.cluster().api.get(&self.space.path("services"))?;
        let of = |service: &Value| {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), service["status"].clone())
        };
        Ok(list["items"].as_array().into_iter().flatten().map(of).collect())
    }

    /// Each of these shows the same, and no two have one address.
    fn expect_kept(&self, before: &[(String, Value)]) -> Result<()> {
        let now = self.shown()?;
        let changed: Vec<_> = before.iter().filter(|each| !now.contains(each)).collect();
        ensure(changed.is_empty(), || format!("{changed:?} became {now:?}"))?;
        let mut all: Vec<IpAddr> =
            now.iter().flat_map(|(_, status)| addresses_of(&json!({ "status": status }))).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        ensure(all.len() == count, || format!("two Services have one address: {now:?}"))
    }
}

fn until(limit: Duration, what: &str, condition: impl FnMut() -> Result<Option<()>>) -> Result<Duration> {
    wait::until_every(LOOK, what, limit, condition).map(|((), took)| took)
}

/// Services, and by what their backends are chosen.
fn served(of: Balancer<'_>) -> Result<Vec<String>> {
    let services = of.services()?.into_iter().map(|service| {
        format!(
            "{} {} {:?} {} {}",
            service.name, service.vip, service.port, service.pool, service.backends_usable
        )
    });
    let backends = of.backends()?.into_iter().map(|backend| {
        format!("{} {} {} {} {}", backend.pool, backend.name, backend.address, backend.weight, backend.state)
    });
    Ok(services.chain(backends).collect())
}
