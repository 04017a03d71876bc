//! What is written when.

use serde_json::json;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_finalizer_comes_before_and_the_status_after_the_dataplane() {
    let api = api();
    let rig = Rig::start(&api);
    sleep(MOMENT).await;
    rig.obey();
    api.rule(|request| {
        let delayed = request.patch == "json-patch+json";
        delayed.then_some(Fault::Late(Duration::from_secs(3)))
    });
    api.put("services", service("web", 1, false));
    sleep(Duration::from_secs(2)).await;
    assert!(!rig.wants_web(), "it is claimed first");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.wanted(), Some([("shop/web".to_owned(), vec![VIP.to_owned()])].into()));
    assert_eq!(api.writes(), ["shop/web (EnsuringLoadBalancer)", "shop/web +finalizer"]);
    rig.obey();
    sleep(MOMENT).await;
    assert_eq!(api.writes(), [format!("shop/web status[{VIP}]"), "shop/web (EnsuredLoadBalancer)".into()]);
    assert_eq!(rig.status("shop/web")["loadBalancer"]["ingress"][0]["ip"], VIP);
    rig.converge().await;
    assert!(api.writes().is_empty(), "nothing is told twice");
}

#[tokio::test(start_paused = true)]
async fn a_dataplane_that_is_long_in_coming_is_told_of_and_nothing_more() {
    let api = api();
    let rig = Rig::start(&api);
    sleep(MOMENT).await;
    rig.obey();
    api.put("services", service("web", 1, false));
    sleep(Duration::from_secs(2)).await;
    api.put("services", service("later", 2, false));
    sleep(Duration::from_secs(1)).await;
    let claimed =
        |name: &str| ["(EnsuringLoadBalancer)", "+finalizer"].map(|what| format!("shop/{name} {what}"));
    let told = |name: &str| vec![format!("shop/{name} status[]")];
    assert_eq!(api.writes(), [&claimed("web")[..], &claimed("later"), &told("web")].concat());
    sleep(Duration::from_mins(10)).await;
    assert_eq!(api.writes(), told("later"), "each has its own time");
    rig.obey();
    sleep(MOMENT).await;
    assert!(api.writes().contains(&format!("shop/web status[{VIP}]")));
}

#[tokio::test(start_paused = true)]
async fn a_dataplane_that_is_away_for_a_while_is_no_news_of_any_service() {
    let rig = Rig::serving().await;
    rig.served.send_replace(None);
    sleep(Duration::from_secs(10)).await;
    rig.obey();
    rig.converge().await;
    assert_eq!(rig.api.writes(), [""; 0]);
}

/// Released only once the dataplane has withdrawn it.
async fn released_by(cease: impl FnOnce(&Api)) {
    let rig = Rig::serving().await;
    cease(&rig.api);
    sleep(Duration::from_mins(1)).await;
    assert!(!rig.wants_web());
    assert_eq!(rig.api.writes(), ["shop/web (DeletingLoadBalancer)"]);
    rig.obey();
    sleep(MOMENT).await;
    assert_eq!(
        rig.api.writes(),
        ["shop/web status[]", "shop/web -finalizer", "shop/web (DeletedLoadBalancer)"]
    );
    rig.converge().await;
    assert!(rig.api.writes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_finalizer_goes_after_the_withdrawal() {
    released_by(|api| api.delete("services", "shop/web")).await;
    released_by(|api| {
        api.change("services", "shop/web", |service| {
            // The API wipes the class with the type.
            service["spec"]["type"] = "ClusterIP".into();
            service["spec"].as_object_mut().unwrap().remove("loadBalancerClass");
        });
    })
    .await;
    // Only a Service that is made anew can have another class; without one it is not ours either.
    released_by(|api| {
        api.change("services", "shop/web", |service| {
            service["spec"].as_object_mut().unwrap().remove("loadBalancerClass");
        });
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_foreign_is_not_written_to() {
    let api = api();
    for (name, class) in [("theirs", json!("example.com/lb")), ("nobodys", json!(null))] {
        let mut service = service(name, 1, false);
        service["spec"]["loadBalancerClass"] = class;
        service["metadata"]["finalizers"] = json!(["service.kubernetes.io/load-balancer-cleanup"]);
        api.put("services", service);
    }
    let rig = Rig::start(&api);
    rig.converge().await;
    api.delete("services", "shop/theirs");
    rig.converge().await;
    assert!(api.writes().is_empty());
    assert_eq!(rig.wanted(), Some(BTreeMap::new()));
    // One that was ours: it ceased to be of this type, and came back with another class, while nobody looked.
    let rig = Rig::serving().await;
    rig.api.change("services", "shop/web", |service| {
        service["spec"]["loadBalancerClass"] = "example.com/lb".into();
    });
    rig.converge().await;
    let released = ["(DeletingLoadBalancer)", "status[]", "-finalizer", "(DeletedLoadBalancer)"];
    assert_eq!(rig.api.writes(), released.map(|write| format!("shop/web {write}")));
    assert!(!rig.wants_web());
    rig.converge().await;
    assert!(rig.api.writes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_are_told_at_transitions() {
    let rig = Rig::serving().await;
    let exclude = |excluded: bool| {
        for node in ["n1", "n2"] {
            rig.api.change("nodes", node, |node| {
                let labels = json!({ "node.kubernetes.io/exclude-from-external-load-balancers": "true" });
                node["metadata"]["labels"] = if excluded { labels } else { json!({}) };
            });
        }
    };
    exclude(true);
    rig.converge().await;
    let told: Vec<_> = rig.api.writes().into_iter().filter(|write| write.contains('(')).collect();
    assert_eq!(told, ["shop/web (UnAvailableLoadBalancer)"]);
    rig.api.change("nodes", "n1", |node| node["metadata"]["annotations"] = json!({ "x": "y" }));
    sleep(Duration::from_hours(1)).await;
    assert!(rig.api.writes().is_empty());
    exclude(false);
    rig.converge().await;
    assert!(!rig.api.writes().iter().any(|write| write.contains("UnAvailable")));
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_addresses_and_repeats_nothing() {
    let rig = Rig::serving().await;
    let api = rig.api.clone();
    // An older one without an address would come first.
    api.put("services", service("older", 0, false));
    drop(rig);
    let rig = Rig::start(&api);
    rig.converge().await;
    let wanted = rig.wanted().unwrap();
    assert_eq!(wanted["shop/web"], [VIP]);
    assert_ne!(wanted["shop/older"], [VIP]);
    let writes = api.writes();
    assert!(!writes.iter().any(|write| write.starts_with("shop/web")), "{writes:#?}");
}

#[tokio::test(start_paused = true)]
async fn changes_without_end_keep_no_service_from_being_told_of() {
    let rig = Rig::serving().await;
    rig.api.put("services", service("new", 2, false));
    for number in 3..83 {
        rig.api.put("nodes", node(number));
        sleep(Duration::from_millis(25)).await;
        rig.obey();
    }
    let writes = rig.api.writes();
    assert!(writes.iter().any(|write| write.starts_with("shop/new status[203")), "{writes:#?}");
}

/// Where there is not room for all, those that come last are left out.
#[tokio::test(start_paused = true)]
async fn a_newcomer_is_wanted_behind_what_is_served_whatever_its_name() {
    let rig = Rig::serving().await;
    rig.api.put("services", service("a-newcomer", 2, false));
    rig.converge().await;
    let wanted = rig.wanted.borrow().clone().unwrap();
    let names: Vec<_> = wanted.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["shop/web", "shop/a-newcomer"]);
}
