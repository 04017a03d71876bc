//! The provider against a double of the API and a dataplane that does as it is told, when it is told to.

mod boxes;
mod faults;
mod order;
mod pools;
mod watching;

use std::collections::BTreeMap;

use serde_json::Value;
use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::snapshot::FleetKey;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::kubernetes::double::objects::{namespace, node, service, slice};
use crate::kubernetes::double::{Api, Fault};
use crate::kubernetes::election::{Standing, Trouble};

/// Long enough for whatever happens by itself, and short for all that is waited for.
const MOMENT: Duration = Duration::from_millis(500);
const VIP: &str = "203.0.113.0";

/// A provider and what is around it.
struct Rig {
    api: Api,
    wanted: watch::Receiver<Option<Wanted>>,
    shown: watch::Receiver<Seen>,
    served: watch::Sender<Option<Arc<Snapshot>>>,
    config: watch::Sender<Option<Arc<Config>>>,
    journal: Journal,
    provider: JoinHandle<()>,
    /// That of the leader, if none is elected.
    seat: Option<watch::Sender<Seat>>,
    _left_out: watch::Sender<Arc<Vec<LeftOut>>>,
}

/// An API with a namespace and two nodes.
fn api() -> Api {
    let api = Api::default();
    api.put("namespaces", namespace());
    [1, 2].into_iter().for_each(|number| api.put("nodes", node(number)));
    api
}

fn file() -> Config {
    let text = r#"
        nic = [{ name = "eth1" }]
        [kubernetes]
        kubeconfig = "/none"
        pools = [{ name = "default", addresses = ["203.0.113.0/24"], avoid_edges = false }]
    "#;
    Config::parse(text, "f").unwrap_or_else(|problem| panic!("{problem}"))
}

impl Rig {
    /// One that leads.
    fn start(api: &Api) -> Self {
        let leads = Standing::Leads { term: 1, until: now() + Duration::from_hours(24 * 365) };
        let (seat, seated) = watch::channel(Seat { standing: leads, trouble: None });
        let mut rig = Self::seated(api, api.client(), seated);
        rig.seat = Some(seat);
        rig
    }

    fn seated(api: &Api, client: Client, seat: watch::Receiver<Seat>) -> Self {
        let (sender, wanted) = watch::channel(None);
        let (seen, shown) = watch::channel(Seen::default());
        let (served, of_dataplane) = watch::channel(None);
        let (left_out, of_control) = watch::channel(Arc::default());
        let (config, of_file) = watch::channel(Some(Arc::new(file())));
        let journal = Journal::default();
        let outlets = Outlets {
            wanted: sender,
            seen,
            served: of_dataplane,
            left_out: of_control,
            config: of_file,
            nat_families: BTreeSet::new(),
            seat,
            journal: journal.clone(),
        };
        let provider = tokio::spawn(serve(file().kubernetes.remove(0), client, outlets));
        Self {
            api: api.clone(),
            wanted,
            shown,
            served,
            config,
            journal,
            provider,
            seat: None,
            _left_out: left_out,
        }
    }

    /// With Service `shop/web`, served and told of.
    async fn serving() -> Self {
        let api = api();
        api.put("services", service("web", 1, false));
        api.put("endpointslices", slice("web", &[1]));
        let rig = Self::start(&api);
        rig.converge().await;
        rig.api.writes();
        rig
    }

    /// The dataplane does what is wanted now.
    fn obey(&self) {
        let snapshot = self.wanted.borrow().as_ref().map(|wanted| {
            let (config, left_out) = file().extended(&wanted.pools, &wanted.services);
            assert_eq!(left_out, []);
            Arc::new(compile(&config, FleetKey([7; 16])))
        });
        self.served.send_replace(snapshot);
    }

    /// Until nothing happens any more, with a dataplane that obeys at once.
    async fn converge(&self) {
        for _ in 0..6 {
            sleep(MOMENT).await;
            self.obey();
        }
        sleep(MOMENT).await;
    }

    /// Names of the services that are wanted, and their addresses; `None` while that is not known.
    fn wanted(&self) -> Option<BTreeMap<String, Vec<String>>> {
        let of = |service: &translate::wanted::Service| {
            (service.name.clone(), service.vips.iter().map(IpAddr::to_string).collect())
        };
        self.wanted.borrow().as_ref().map(|wanted| wanted.services.iter().map(of).collect())
    }

    fn wants_web(&self) -> bool {
        self.wanted().is_some_and(|wanted| wanted.contains_key("shop/web"))
    }

    /// Names of the nodes that serve one, in order, draining ones left out.
    fn backends(&self, service: &str) -> Vec<String> {
        let wanted = self.wanted.borrow();
        let wanted = wanted.as_ref().expect("it is known what is wanted");
        let service = wanted.services.iter().find(|of| of.name == service).expect("it is wanted");
        let backends = wanted.pools[service.pool].backends.iter().filter(|backend| backend.weight > 0);
        backends.map(|backend| backend.name.clone()).collect()
    }

    /// Why the API does not answer, as people are shown it.
    fn away(&self) -> Option<String> {
        self.shown.borrow().away.as_ref().map(|away| away.reason.clone())
    }

    /// How often people were told something.
    fn told(&self, text: &str) -> usize {
        self.journal.kept().iter().filter(|event| event.text.contains(text)).count()
    }

    fn status(&self, service: &str) -> Value {
        self.api.object("services", service).unwrap()["status"].clone()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.provider.abort();
    }
}

#[test]
fn an_absence_is_shown_by_whichever_notices_it() {
    let (seen, shown) = watch::channel(Seen::default());
    let outlets = Outlets {
        wanted: watch::Sender::new(None),
        seen,
        served: watch::channel(None).1,
        left_out: watch::channel(Arc::default()).1,
        config: watch::channel(None).1,
        nat_families: BTreeSet::new(),
        seat: watch::channel(Seat::default()).1,
        journal: Journal::default(),
    };
    let reason = || shown.borrow().away.as_ref().map(|away| away.reason.clone());
    outlets.show_contact(&Contact { problems: [("nodes", "nodes: reset".to_owned())].into() });
    assert_eq!(reason().as_deref(), Some("nodes: reset"));
    outlets.show_contact(&Contact::default());
    assert_eq!(reason(), None);
    let seat = Seat { standing: Standing::Lapsed, trouble: Some(Trouble::Away("no answer".into())) };
    outlets.seen.send_modify(|seen| seen.seat = seat);
    outlets.show_contact(&Contact::default());
    assert_eq!(reason().as_deref(), Some("no answer"));
}
