use shunt_api::snapshot::{Ack, FleetKey};
use shunt_api::status::{ClusterServices, ClusterSource};

use super::*;
use crate::health::Prober;

const FILE: &str = r#"
nic = [{ name = "eth1" }]
[pools.file]
backends = [{ name = "f", address = "10.0.0.1" }]
[[service]]
name = "file"
vip = "203.0.113.1"
ports = ["tcp/80"]
pool = "file"
"#;

fn control() -> Control {
    Control::new(Runner::new(Prober::new(), 0).0, Journal::default(), Memory::default())
}

fn configure(control: &Control, clusters: &str) -> Reload {
    let config = Arc::new(Config::parse(&format!("{FILE}{clusters}"), "/etc/shunt/f").unwrap());
    let snapshot = compile(&config, FleetKey([7; 16]));
    control.configure(Ok(Box::new(Desired { config, snapshot }))).unwrap()
}

/// A service of a cluster, on a pool of its own.
fn wanted(name: &str, vip: &str) -> ClusterWanted {
    let text = format!(
        "nic = [{{ name = \"eth1\" }}]\n[pools.p]\nbackends = [{{ name = \"n\", address = \"10.0.0.9\" }}]\n\
         [[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [\"tcp/80\"]\npool = \"p\"\n"
    );
    let config = Config::parse(&text, "f").unwrap();
    ClusterWanted { pools: config.pools, services: config.services, created_s: vec![7] }
}

fn cluster(name: &str) -> String {
    format!("[[kubernetes]]\nname = \"{name}\"\nkubeconfig = \"{name}\"\n")
}

fn served(control: &Control) -> Vec<String> {
    control.look(|model| {
        let config = model.roster.config();
        config.iter().flat_map(|config| &config.services).map(|service| service.name.clone()).collect()
    })
}

#[tokio::test]
async fn a_fresh_start_waits_for_what_clusters_want() {
    let control = control();
    let reload = configure(&control, &(cluster("a") + &cluster("b")));
    assert_eq!((reload.generation, served(&control)), (0, vec![]));
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    assert_eq!(served(&control), [""; 0]);
    control.set_cluster(&Some("b".into()), ClusterWanted::default());
    assert_eq!(served(&control), ["file", "web"]);
    control.set_cluster(&Some("stranger".into()), wanted("no", "203.0.113.3"));
    assert_eq!(served(&control), ["file", "web"]);
}

#[tokio::test]
async fn a_cluster_that_was_never_reached_holds_nothing_up_for_ever() {
    let control = control();
    configure(&control, &(cluster("a") + &cluster("b")));
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    control.recall_cluster(&Some("b".into()));
    assert_eq!(served(&control), [""; 0], "nothing is remembered");
    control.do_without_cluster(&Some("b".into()));
    assert_eq!(served(&control), ["file", "web"]);
    assert_eq!(control.look(Model::clusters)[1].source, ClusterSource::Unknown);
    control.set_cluster(&Some("b".into()), wanted("late", "203.0.113.3"));
    control.do_without_cluster(&Some("b".into()));
    assert_eq!(served(&control), ["file", "web", "late"]);
}

#[tokio::test]
async fn what_a_cluster_wants_holds_while_it_is_configured_anew_and_goes_with_it() {
    let control = control();
    configure(&control, &cluster("a"));
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    configure(
        &control,
        &(cluster("a").replace("kubeconfig = \"a\"", "kubeconfig = \"a\"\nclass = \"x.y/z\"")
            + &cluster("b")),
    );
    assert_eq!(served(&control), ["file", "web"]);
    configure(&control, &cluster("b"));
    assert_eq!(served(&control), ["file"]);
}

#[tokio::test]
async fn a_cluster_that_gets_a_name_keeps_what_it_has() {
    let at = |kubeconfig: &str, name: &str| {
        format!("[[kubernetes]]\nname = \"{name}\"\nkubeconfig = \"{kubeconfig}\"\n")
    };
    let control = control();
    configure(&control, "[kubernetes]\nkubeconfig = \"k\"\n");
    control.set_cluster(&None, wanted("web", "203.0.113.2"));
    assert_eq!(served(&control), ["file", "web"]);
    // A second one is added, and so the first needs a name.
    let both = at("k", "berlin") + &at("j", "jena");
    configure(&control, &both);
    assert_eq!(served(&control), ["file", "berlin/web"]);
    control.set_cluster(&Some("jena".into()), wanted("db", "203.0.113.3").renamed(None, Some("jena")));
    // The names change places.
    configure(&control, &(at("k", "jena") + &at("j", "berlin")));
    assert_eq!(served(&control), ["file", "berlin/db", "jena/web"]);
    // Another takes over the name of one that has got another.
    configure(&control, &(at("k", "bonn") + &at("new", "jena")));
    assert_eq!(served(&control), ["file", "bonn/web"]);
    // It is reached otherwise.
    configure(&control, &at("moved", "bonn"));
    assert_eq!(served(&control), ["file", "bonn/web"]);
}

#[tokio::test]
async fn services_that_nobody_cleans_up_any_more_are_told_of() {
    let control = control();
    let told = |clusters: &str| {
        let before = control.journal().kept().len();
        configure(&control, clusters);
        let told = control.journal().kept().split_off(before).into_iter();
        told.map(|event| format!("{} {}", event.subject, event.text)).collect::<Vec<_>>()
    };
    let nameless = "[kubernetes]\nkubeconfig = \"a\"\n";
    let other_class = |text: &str| format!("{text}class = \"x.y/z\"\n");
    assert_eq!(told(nameless), [""; 0]);
    assert_eq!(told(&(cluster("a") + &cluster("b"))), [""; 0], "it has a name, and that is all");
    let [text] = &told(&(other_class(&cluster("a")) + &cluster("b")))[..] else { panic!() };
    assert!(text.starts_with("cluster a is served by class x.y/z instead of shunt.dev/l4; "), "{text}");
    let [text] = &told(&other_class(&cluster("a")))[..] else { panic!() };
    assert!(text.starts_with("cluster b is no longer configured; Services of before keep"), "{text}");
    assert_eq!(told(&other_class(nameless)), [""; 0]);
    assert_eq!(told("").len(), 1);
}

#[tokio::test]
async fn what_contradicts_the_file_is_left_out() {
    let control = control();
    configure(&control, &cluster("a"));
    let mut told = control.left_out();
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.1"));
    assert_eq!(served(&control), ["file"]);
    let left_out: Vec<_> = told.borrow_and_update().iter().map(|left| left.name.clone()).collect();
    assert_eq!(left_out, ["web"]);
    configure(&control, &cluster("a"));
    assert!(!told.has_changed().unwrap(), "it is the same as before");
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    assert!(told.borrow_and_update().is_empty());
}

#[tokio::test]
async fn clusters_are_shown_in_the_order_of_the_file() {
    let control = control().remembering(Remembered::default());
    configure(&control, &(cluster("b") + &cluster("a")));
    let (seen, shown) = watch::channel(Seen::default());
    control.show_cluster(&Some("a".into()), shown);
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    let services = ClusterServices { served: 3, ..ClusterServices::default() };
    seen.send_modify(|seen| seen.services = Some(services));
    let shown = control.look(Model::clusters);
    let shown: Vec<_> = shown
        .iter()
        .map(|of| (of.name.as_deref().unwrap(), of.source, of.services.map(|services| services.served)))
        .collect();
    assert_eq!(shown, [("b", ClusterSource::Unknown, None), ("a", ClusterSource::Live, Some(3))]);
}

#[tokio::test]
async fn memory_is_served_until_the_cluster_speaks_and_says_so_once() {
    let before = control();
    configure(&before, &(cluster("a") + &cluster("gone")));
    before.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    before.set_cluster(&Some("gone".into()), wanted("old", "203.0.113.3"));
    let remembered = before.cluster_memory().borrow().clone();

    let control = control().remembering(remembered.clone());
    configure(&control, &(cluster("a") + &cluster("new")));
    assert_ne!(*control.cluster_memory().borrow(), remembered, "of one that is gone nothing is remembered");
    let (a, new) = (Some("a".to_owned()), Some("new".to_owned()));
    control.recall_cluster(&a);
    assert_eq!(served(&control), [""; 0], "of the other nothing is known");
    control.recall_cluster(&new);
    control.set_cluster(&new, ClusterWanted::default());
    assert_eq!(served(&control), ["file", "web"]);
    control.set_cluster(&a, wanted("other", "203.0.113.4"));
    control.recall_cluster(&a);
    assert_eq!(served(&control), ["file", "other"]);
    let told: Vec<_> = control.journal().kept().into_iter().map(|event| event.subject).collect();
    assert_eq!(told.iter().filter(|subject| **subject == "cluster a").count(), 1);
    assert!(!told.contains(&"cluster new".to_owned()));
}

#[tokio::test]
async fn what_changes_nothing_is_not_remembered_anew() {
    let control = control();
    configure(&control, &cluster("a"));
    let mut memory = control.cluster_memory();
    for _ in 0..2 {
        control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    }
    assert!(memory.has_changed().unwrap());
    memory.mark_unchanged();
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.2"));
    assert!(!memory.has_changed().unwrap());
}

/// A box may lead only then, and it needs no leader for it.
#[tokio::test]
async fn a_cluster_that_wants_nothing_is_acknowledged_too() {
    let control = control();
    let (published, agreement) = (control.published(), control.agreement());
    let file = format!("nic = [{{ name = \"eth1\" }}]\n{}", cluster("a"));
    let config = Arc::new(Config::parse(&file, "/etc/shunt/f").unwrap());
    let snapshot = compile(&config, FleetKey([7; 16]));
    control.configure(Ok(Box::new(Desired { config, snapshot }))).unwrap();
    control.apply(Event::DataplaneStatus(Box::new(status())));
    assert!(published.borrow().is_none(), "it is not known what the cluster wants");
    control.set_cluster(&Some("a".into()), ClusterWanted::default());
    let snapshot = published.borrow().clone().expect("a snapshot, though there is nothing to serve");
    assert_eq!((snapshot.services.len(), *agreement.borrow()), (0, Agreement::Nothing));
    let ack = Ack { generation: snapshot.generation, restart_needed: vec![] };
    control.apply(Event::Acknowledged(ack, snapshot));
    assert_eq!(*agreement.borrow(), Agreement::Held);
}

fn status() -> DataplaneStatus {
    DataplaneStatus { version: "1".into(), instance: 1, ..DataplaneStatus::default() }
}
