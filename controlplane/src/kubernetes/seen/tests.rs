use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::snapshot::FleetKey;

use super::*;
use crate::kubernetes::facts::Service;
use crate::kubernetes::ipam::{Reason, Refusal};
use crate::kubernetes::translate::wanted::Wanted;

const CLASS: &str = "ours";

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: name.into() }
}

fn config(name: &str) -> Config {
    let text = "nic = [{ name = \"eth1\" }]\n[pools.p]\nbackends = [{ name = \"n\", address = \"10.0.0.9\" }]\n\
                [[service]]\nname = \"web\"\nvip = \"203.0.113.1\"\nports = [\"tcp/80\"]\npool = \"p\"\n";
    let mut config = Config::parse(text, "f").unwrap();
    config.services[0].name = name.into();
    config
}

/// A Service `shop/web` and what became of it.
struct World {
    service: Service,
    allocation: Allocation,
    translated: Translated,
    served: bool,
}

fn world() -> World {
    let Config { mut pools, services, .. } = config("shop/web");
    pools[0].name = "shop/web/v4".into();
    World {
        service: Service { wants_load_balancer: true, class: Some(CLASS.into()), ..Service::default() },
        allocation: Allocation { addresses: vec![[203, 0, 113, 1].into()], ..Allocation::default() },
        translated: Translated {
            wanted: Wanted { pools, services, created_s: vec![0] },
            ..Translated::default()
        },
        served: true,
    }
}

impl World {
    /// Served, waiting, refused.
    fn counts(&self) -> [usize; 3] {
        let facts = Facts { services: [(key("web"), self.service.clone())].into(), ..Facts::default() };
        let class = Class { name: CLASS.into(), default_class: false };
        let allocations = [(key("web"), self.allocation.clone())].into();
        let translated = [(key("web"), self.translated.clone())].into();
        let name = if self.served { "shop/web" } else { "shop/other" };
        let snapshot = compile(&config(name), FleetKey([0; 16]));
        let counts = count(&facts, &class, &allocations, &translated, Some(&snapshot));
        [counts.served, counts.waiting, counts.refused]
    }

    fn leave_out(&mut self, part: Part, name: &str) {
        let mut translated = [(key("web"), std::mem::take(&mut self.translated))].into();
        let left = LeftOut { part, name: name.into(), reason: "taken".into() };
        add_left_out(&mut translated, &[left]);
        self.translated = translated.remove(&key("web")).unwrap();
    }
}

#[test]
fn services_are_counted_as_they_fare() {
    assert_eq!(world().counts(), [1, 0, 0]);
    assert_eq!(World { served: false, ..world() }.counts(), [0, 1, 0]);
    let none = Allocation::default();
    assert_eq!(World { allocation: none.clone(), ..world() }.counts(), [0, 1, 0]);
    let refusal = Refusal { reason: Reason::PoolExhausted, message: "full".into() };
    let refused = Allocation { problem: Some(refusal), ..none };
    assert_eq!(World { allocation: refused, ..world() }.counts(), [0, 0, 1]);
    assert_eq!(World { translated: Translated::default(), ..world() }.counts(), [0, 0, 1]);
    let headless = Service { headless: true, ..world().service };
    assert_eq!(World { service: headless, ..world() }.counts(), [0, 0, 1]);
    for other in [
        Service { class: Some("other".into()), ..world().service },
        Service { wants_load_balancer: false, ..world().service },
        Service { deleting: true, ..world().service },
    ] {
        assert_eq!(World { service: other, ..world() }.counts(), [0, 0, 0]);
    }
}

#[test]
fn what_is_left_out_is_a_problem_of_its_service() {
    let mut whole = world();
    whole.leave_out(Part::Service, "shop/web");
    assert_eq!(left_out(&whole.translated), Some(&Problem::new("LeftOut", "taken")));
    assert_eq!(whole.counts(), [0, 0, 1]);
    let mut check = world();
    check.leave_out(Part::Check, "shop/web/v4");
    assert_eq!(check.translated.problems, [Problem::new("NotChecked", "taken")]);
    assert_eq!((left_out(&check.translated), check.counts()), (None, [1, 0, 0]));
    let mut backend = world();
    backend.leave_out(Part::Backend, "shop/web/v4");
    assert_eq!(backend.translated.problems, [Problem::new("NodeAddressTaken", "taken")]);
    assert_eq!((left_out(&backend.translated), backend.counts()), (None, [1, 0, 0]));
    // Of the service of another family, and of another pool.
    let mut other = world();
    other.leave_out(Part::Service, "shop/web/v4");
    other.leave_out(Part::Check, "shop/web");
    assert_eq!(other.translated.problems, []);
}

#[test]
fn an_absence_is_told_since_it_began() {
    let mut seen = Seen::default();
    assert!(!seen.set_away(None, TimeMs(1)));
    assert!(seen.set_away(Some("refused".into()), TimeMs(2)));
    assert!(!seen.set_away(Some("refused".into()), TimeMs(3)));
    assert!(seen.set_away(Some("timeout".into()), TimeMs(4)));
    let status = seen.status(&Some("berlin".into()), ClusterSource::Memory);
    assert_eq!(status.away, Some(ClusterAway { since_ms: TimeMs(2), reason: "timeout".into() }));
    let problems = problems(&status);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("cluster berlin does not answer since 1970-01-01T00:00:00.002Z"),
        "{problems:?}"
    );
    assert!(seen.set_away(None, TimeMs(5)));
    assert_eq!(seen, Seen::default());
}

#[test]
fn who_leads_is_shown_and_why_this_box_cannot() {
    let stands = |standing, trouble| {
        let seen = Seen { identity: "me".into(), seat: Seat { standing, trouble }, ..Seen::default() };
        let status = seen.status(&None, ClusterSource::Live);
        (status.role, status.leader.clone(), problems(&status).len())
    };
    let leads = Standing::Leads { term: 1, until: std::time::Instant::now() };
    assert_eq!(stands(leads, None), (ClusterRole::Leader, Some("me".into()), 0));
    let follows = Standing::Follows { leader: "other".into() };
    assert_eq!(stands(follows, None), (ClusterRole::Follower, Some("other".into()), 0));
    let away = Some(Trouble::Away("timeout".into()));
    assert_eq!(stands(Standing::Lapsed, away), (ClusterRole::Unknown, None, 0));
    let refused = Some(Trouble::Refused("forbidden; run this".into()));
    assert_eq!(stands(Standing::Unknown, refused), (ClusterRole::Unknown, None, 1));
    let dataplane = Some(Trouble::Dataplane("away; see this".into()));
    assert_eq!(stands(Standing::Lapsed, dataplane.clone()), (ClusterRole::Unknown, None, 1));
    let follows = Standing::Follows { leader: "other".into() };
    assert_eq!(stands(follows, dataplane), (ClusterRole::Follower, Some("other".into()), 1));
}

#[test]
fn one_that_hangs_is_noticed_by_the_lease() {
    let quiet = Contact::default();
    let broken = Contact { problems: [("nodes", "nodes: reset".to_owned())].into() };
    let troubled = |trouble| Seat { standing: Standing::Unknown, trouble };
    let hangs = troubled(Some(Trouble::Away("Lease a/b: no answer".into())));
    for (contact, seat, expected) in [
        (&quiet, &Seat::default(), None),
        (&quiet, &hangs, Some("Lease a/b: no answer")),
        (&broken, &hangs, Some("nodes: reset")),
        (&broken, &Seat::default(), Some("nodes: reset")),
        (&quiet, &troubled(Some(Trouble::Refused("forbidden".into()))), None),
        (&quiet, &troubled(Some(Trouble::Dataplane("away".into()))), None),
    ] {
        assert_eq!(absence(contact, seat).as_deref(), expected);
    }
}
