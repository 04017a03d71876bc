use shunt_api::snapshot::FleetKey;

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
fn wanted(name: &str, vip: &str) -> wanted::Wanted {
    let text = format!(
        "nic = [{{ name = \"eth1\" }}]\n[pools.p]\nbackends = [{{ name = \"n\", address = \"10.0.0.9\" }}]\n\
         [[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [\"tcp/80\"]\npool = \"p\"\n"
    );
    let config = Config::parse(&text, "f").unwrap();
    wanted::Wanted { pools: config.pools, services: config.services }
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
    control.set_cluster(&Some("b".into()), wanted::Wanted::default());
    assert_eq!(served(&control), ["file", "web"]);
    control.set_cluster(&Some("stranger".into()), wanted("no", "203.0.113.3"));
    assert_eq!(served(&control), ["file", "web"]);
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
async fn what_contradicts_the_file_is_left_out() {
    let control = control();
    configure(&control, &cluster("a"));
    control.set_cluster(&Some("a".into()), wanted("web", "203.0.113.1"));
    assert_eq!(served(&control), ["file"]);
}
