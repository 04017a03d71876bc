//! More than one box: one leads by the Lease, and all serve the same.

use std::cell::Cell;

use super::*;
use crate::kubernetes::double::Broken;
use crate::kubernetes::double::objects::pool;
use crate::kubernetes::election::fitness::GRACE;
use crate::kubernetes::election::lease::Candidate;
use crate::kubernetes::election::{DEADLINE, LEASE};
use crate::state::Agreement;

/// What people are told when a box comes to lead.
const LEADS: &str = "this box leads: ";

/// A provider that takes part in the election.
struct Box {
    rig: Rig,
    name: &'static str,
    candidate: JoinHandle<()>,
    agreement: watch::Sender<Agreement>,
    /// Its dataplane is away.
    dead: Cell<bool>,
}

impl Box {
    fn start(api: &Api, name: &'static str) -> Self {
        let (seat, seated) = watch::channel(Seat::default());
        let client = api.client_of(name);
        let (agreement, agreed) = watch::channel(Agreement::Nothing);
        let mut candidate = Candidate::new(&client, file().kubernetes.remove(0).lease, name, agreed);
        let rig = Rig::seated(api, client, seated);
        let candidate = tokio::spawn(async move { candidate.run(&seat).await });
        Self { rig, name, candidate, agreement, dead: Cell::new(false) }
    }

    /// Its dataplane, if there is one, does what is wanted now.
    fn obey(&self) {
        if self.dead.get() {
            return;
        }
        self.rig.obey();
        if self.rig.served.borrow().is_some() {
            self.agreement.send_replace(Agreement::Held);
        }
    }

    fn kill_dataplane(&self) {
        self.dead.set(true);
        self.rig.served.send_replace(None);
        self.agreement.send_replace(Agreement::Owed { since: now() });
    }

    fn revive_dataplane(&self) {
        self.dead.set(false);
        self.obey();
    }

    /// Why it cannot lead, as people are shown it.
    fn cannot_lead(&self) -> Option<String> {
        match &self.rig.shown.borrow().seat.trouble {
            Some(Trouble::Dataplane(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Names of services that are wanted, and their addresses.
    fn wanted(&self) -> BTreeMap<String, Vec<String>> {
        self.rig.wanted().unwrap_or_else(|| panic!("{} knows what is wanted", self.name))
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        self.candidate.abort();
    }
}

/// Two boxes, the first of which leads, with Service `shop/web` served and told of.
async fn two() -> (Api, Box, Box) {
    let api = api();
    api.put("services", service("web", 1, false));
    let first = Box::start(&api, "first");
    sleep(MOMENT).await;
    first.obey();
    // There is no Lease yet.
    sleep(LEASE + MOMENT * 4).await;
    let second = Box::start(&api, "second");
    converge(&first, &second).await;
    assert_eq!(web(&api), VIP);
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [1, 0]);
    (api, first, second)
}

/// Until nothing happens any more.
async fn converge(first: &Box, second: &Box) {
    for _ in 0..6 {
        sleep(MOMENT).await;
        [first, second].into_iter().for_each(|of| of.obey());
    }
    sleep(MOMENT).await;
}

/// The address that the status of `shop/web` says.
fn web(api: &Api) -> String {
    let service = api.object("services", "shop/web").unwrap();
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or_default().to_owned()
}

/// What one box wrote.
fn by(writes: &[(&'static str, String)], name: &str) -> Vec<String> {
    writes.iter().filter(|(from, _)| *from == name).map(|(_, write)| write.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_follower_serves_what_the_leader_decides_and_writes_nothing() {
    let (api, first, second) = two().await;
    api.put("services", service("new", 2, false));
    // Refused, for the file's has its addresses, and told of.
    api.put("shuntpools", pool("late", "203.0.113.0/25"));
    converge(&first, &second).await;
    api.delete("services", "shop/web");
    converge(&first, &second).await;
    sleep(Duration::from_hours(1)).await;
    assert_eq!(first.wanted().into_keys().collect::<Vec<_>>(), ["shop/new"]);
    assert_eq!(second.wanted(), first.wanted());
    let writes = api.writes_by_client();
    for expected in ["shop/new +finalizer", "shop/web -finalizer", "late (InvalidPool)"] {
        assert_eq!(by(&writes, "first").iter().filter(|write| *write == expected).count(), 1, "{expected}");
    }
    assert_eq!(by(&writes, "second"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_next_keeps_all_addresses_and_does_what_was_left_undone() {
    let (api, first, second) = two().await;
    // One that would be given the first address if its status did not say that it has the second.
    api.put("services", service("second", 2, false));
    converge(&first, &second).await;
    api.delete("services", "shop/web");
    converge(&first, &second).await;
    let kept = first.wanted();
    assert_ne!(kept["shop/second"], [VIP]);
    // The leader comes no further than the finalizer.
    api.rule(|request| {
        let status = request.from == "first" && request.patch == "apply-patch+yaml";
        status.then_some(Fault::Status(500))
    });
    api.put("services", service("undone", 3, false));
    converge(&first, &second).await;
    let serves = first.wanted();
    assert!(serves.contains_key("shop/undone") && second.wanted() == kept);

    api.writes();
    api.cut_off("first");
    sleep(LEASE).await;
    converge(&first, &second).await;
    assert_eq!(second.rig.told(LEADS), 1);
    api.put("services", service("later", 4, false));
    converge(&first, &second).await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!(first.wanted(), serves, "it forwards on");
    let writes = api.writes_by_client();
    let change = writes.iter().position(|(from, _)| *from == "second").unwrap();
    assert_eq!(by(&writes[change..], "first"), [""; 0], "it tries nothing while another leads");
    let of = |name: &str| {
        let writes = by(&writes, "second").into_iter();
        writes.filter_map(|write| Some(write.strip_prefix(name)?.trim().to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(of("shop/second"), [""; 0], "all of it is done");
    let undone = format!("status[{}]", serves["shop/undone"][0]);
    assert!(of("shop/undone").contains(&undone), "{writes:#?}");
    assert!(!of("shop/undone").contains(&"+finalizer".to_owned()), "{writes:#?}");
    assert!(of("shop/later").contains(&"+finalizer".to_owned()), "{writes:#?}");
    assert_eq!(second.wanted()["shop/second"], kept["shop/second"]);

    api.mend();
    sleep(Duration::from_mins(2)).await;
    converge(&first, &second).await;
    assert_eq!(first.wanted(), second.wanted());
    assert_eq!(first.wanted().len(), 3);
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [1, 1], "the second leads on");
    assert_eq!(api.writes(), [""; 0], "nothing was left to be said");
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_the_api_serves_on_and_catches_up() {
    let (api, first, second) = two().await;
    let before = second.wanted();
    api.cut_off("second");
    api.put("services", service("new", 2, false));
    api.put("nodes", node(3));
    sleep(Duration::from_hours(1)).await;
    converge(&first, &second).await;
    assert_eq!((first.wanted().len(), second.wanted()), (2, before));
    api.compact(true);
    api.mend();
    sleep(Duration::from_mins(2)).await;
    assert_eq!(second.wanted(), first.wanted());
    assert_eq!(second.rig.backends("shop/new"), first.rig.backends("shop/new"));
    assert_eq!(second.rig.backends("shop/web"), ["n1", "n2", "n3"]);
    assert_eq!(second.rig.told(LEADS), 0);
    assert_eq!(by(&api.writes_by_client(), "second"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_box_that_led_and_cannot_read_the_lease_any_more_serves_what_another_decides() {
    let (api, first, second) = two().await;
    api.rule(|request| (request.from == "first" && request.kind == "leases").then_some(Fault::Status(500)));
    sleep(DEADLINE + MOMENT).await;
    // It is seen before another leads.
    api.put("services", service("new", 2, false));
    sleep(LEASE).await;
    converge(&first, &second).await;
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [1, 1]);
    assert_eq!(second.wanted().len(), 2);
    assert_eq!(first.wanted(), second.wanted());
}

#[tokio::test(start_paused = true)]
async fn a_box_leads_only_once_its_dataplane_has_acknowledged_something() {
    let api = api();
    api.put("services", service("web", 1, false));
    let only = Box::start(&api, "only");
    sleep(Duration::from_mins(10)).await;
    assert_eq!((only.rig.told(LEADS), api.writes()), (0, vec![]));
    assert!(only.cannot_lead().is_some());
    // What it wants is known without a lead, and acknowledging that is enough.
    assert_eq!(only.wanted(), BTreeMap::new());
    only.obey();
    sleep(LEASE + MOMENT * 4).await;
    assert_eq!((only.rig.told(LEADS), only.cannot_lead()), (1, None));
    converge(&only, &only).await;
    assert_eq!(web(&api), VIP);
}

#[tokio::test(start_paused = true)]
async fn a_box_whose_dataplane_is_away_lets_another_lead() {
    let (api, first, second) = two().await;
    // As long as a restart may take.
    first.kill_dataplane();
    sleep(GRACE - MOMENT).await;
    first.revive_dataplane();
    sleep(Duration::from_mins(1)).await;
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [1, 0]);
    api.writes_by_client();

    first.kill_dataplane();
    api.put("services", service("new", 2, false));
    api.delete("services", "shop/web");
    sleep(GRACE + (LEASE - DEADLINE) + MOMENT * 6).await;
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [1, 1], "sooner than the Lease runs out");
    let reason = first.cannot_lead().unwrap();
    assert!(reason.contains("shunt-dataplane"), "{reason}");
    converge(&first, &second).await;
    let writes = by(&api.writes_by_client(), "second");
    for expected in ["shop/web -finalizer", "shop/new status"] {
        assert!(writes.iter().any(|write| write.starts_with(expected)), "{expected}: {writes:#?}");
    }
    assert_eq!(second.wanted().into_keys().collect::<Vec<_>>(), ["shop/new"]);

    // Nobody whose dataplane serves: nobody leads.
    second.kill_dataplane();
    sleep(LEASE).await;
    api.writes();
    api.put("services", service("later", 3, false));
    sleep(Duration::from_hours(1)).await;
    assert_eq!(api.writes(), [""; 0]);
    first.revive_dataplane();
    sleep(MOMENT * 4).await;
    converge(&first, &second).await;
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [2, 1]);
    assert_eq!(first.wanted().into_keys().collect::<Vec<_>>(), ["shop/later", "shop/new"]);
    assert_eq!(first.cannot_lead(), None);
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_next_knows_the_pools_before_it_takes_an_address_away() {
    let (api, first, second) = two().await;
    // The second is told that there is no such kind until it leads, as if the kind were new.
    let leads = std::sync::atomic::AtomicBool::new(false);
    api.break_watches(Broken::Ended);
    api.rule(move |request| {
        use std::sync::atomic::Ordering::Relaxed;
        if request.from != "second" {
            return None;
        }
        leads.fetch_or(request.kind == "leases" && request.verb == "update", Relaxed);
        (request.kind == "shuntpools" && !leads.load(Relaxed)).then_some(Fault::Status(404))
    });
    api.put("shuntpools", pool("own", "198.51.100.0/28"));
    let mut own = service("own", 2, false);
    own["metadata"]["annotations"] = serde_json::json!({ "shunt.dev/pool": "own" });
    api.put("services", own);
    converge(&first, &second).await;
    let given = first.wanted();
    assert_eq!(given["shop/own"], ["198.51.100.1"]);
    assert!(!second.wanted().contains_key("shop/own"), "it knows no such pool");
    api.writes();

    first.kill_dataplane();
    for _ in 0..60 {
        sleep(MOMENT).await;
        second.obey();
    }
    assert_eq!([&first, &second].map(|of| of.rig.told(LEADS)), [1, 1]);
    assert_eq!(second.wanted(), given);
    let writes = by(&api.writes_by_client(), "second");
    assert!(!writes.iter().any(|write| write.starts_with("shop/own")), "{writes:#?}");
}
