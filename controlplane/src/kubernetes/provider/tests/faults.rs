//! Writes that fail.

use serde_json::json;

use super::*;
use crate::kubernetes::double::objects::pool;

/// Seconds at which the API was written to.
type Times = Arc<std::sync::Mutex<Vec<u64>>>;

#[tokio::test(start_paused = true)]
async fn a_status_of_another_controller_is_told_once_and_asked_for_ever_more_seldom() {
    let api = api();
    let mut taken = service("web", 1, false);
    taken["status"]["loadBalancer"] = json!({ "ingress": [{ "ip": "198.51.100.1", "ipMode": "VIP" }] });
    taken["metadata"]["ownersOfStatus"] = json!({ "loadBalancer": "another" });
    api.put("services", taken);
    let rig = Rig::start(&api);
    rig.converge().await;
    sleep(Duration::from_mins(30)).await;
    let writes = api.writes();
    let count = |what: &str| writes.iter().filter(|write| write.contains(what)).count();
    assert_eq!(count("(SyncLoadBalancerFailed)"), 1, "{writes:#?}");
    // 1, 2, 4, ... 256, 300 s and so on
    assert!((12..=16).contains(&count("!409")), "{writes:#?}");
    assert_eq!(rig.status("shop/web")["loadBalancer"]["ingress"][0]["ip"], "198.51.100.1");
    api.change("services", "shop/web", |service| {
        service["status"]["loadBalancer"] = json!({});
        service["metadata"]["ownersOfStatus"] = json!({});
    });
    sleep(Duration::from_mins(6)).await;
    assert_eq!(api.writes(), [format!("shop/web status[{VIP}]"), "shop/web (EnsuredLoadBalancer)".into()]);
}

#[tokio::test(start_paused = true)]
async fn what_a_former_controller_left_is_told_once_and_asked_for_ever_more_seldom() {
    let api = api();
    api.put("shuntpools", pool("own", "198.51.100.1-198.51.100.1"));
    let mut taken = service("web", 1, false);
    taken["metadata"]["annotations"] = json!({ "shunt.dev/pool": "own" });
    taken["status"]["loadBalancer"] = json!({ "ingress": [{ "ip": "198.51.100.1", "ipMode": "VIP" }] });
    taken["metadata"]["ownersOfStatus"] = json!({ "loadBalancer": "another" });
    api.put("services", taken);
    let rig = Rig::start(&api);
    rig.converge().await;
    let shown = || rig.status("shop/web")["loadBalancer"]["ingress"][0]["ip"].clone();
    assert_eq!(shown(), "198.51.100.1", "both say the same");
    api.writes();
    api.delete("shuntpools", "own");
    rig.converge().await;
    sleep(Duration::from_mins(30)).await;
    assert_eq!(shown(), "198.51.100.1", "the other one's entry stays");
    let writes = api.writes();
    let count = |what: &str| writes.iter().filter(|write| *write == what).count();
    assert!((8..=20).contains(&count("shop/web status[]")), "{writes:#?}");
    assert_eq!(
        count("shop/web (SyncLoadBalancerFailed)"),
        2,
        "of the pool, and of the other one: {writes:#?}"
    );
    // As the event says.
    api.change("services", "shop/web", |service| {
        service["status"]["loadBalancer"] = json!({});
        service["metadata"]["ownersOfStatus"].as_object_mut().unwrap().remove("loadBalancer");
    });
    sleep(Duration::from_mins(6)).await;
    assert_eq!(api.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_ever_more_seldom_and_hold_up_nobody() {
    let api = api();
    let times = Times::default();
    let (noted, start) = (times.clone(), now());
    api.rule(move |request| {
        let fails = request.verb == "patch" && request.key == "shop/bad";
        fails.then(|| {
            noted.lock().unwrap().push((now() - start).as_secs());
            Fault::Status(500)
        })
    });
    api.put("services", service("bad", 1, false));
    api.put("services", service("good", 2, false));
    let rig = Rig::start(&api);
    sleep(Duration::from_mins(20)).await;
    let pauses: Vec<u64> = times.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert!(rig.wanted().unwrap().contains_key("shop/good"));
    let told = api.writes().iter().filter(|write| *write == "shop/bad (EnsuringLoadBalancer)").count();
    assert_eq!(told, 1);
    // It is tried at once the next time it fails.
    api.mend();
    sleep(Duration::from_mins(6)).await;
    rig.converge().await;
    assert!(rig.status("shop/bad")["loadBalancer"]["ingress"].is_array());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_a_write_is_told_after_it() {
    let rig = Rig::serving().await;
    rig.api.rule(|request| (request.verb == "patch").then_some(Fault::Status(500)));
    rig.api.delete("services", "shop/web");
    sleep(MOMENT).await;
    rig.obey();
    sleep(Duration::from_secs(5)).await;
    assert!(!rig.api.writes().iter().any(|write| write.contains("(DeletedLoadBalancer)")));
    rig.api.mend();
    sleep(Duration::from_secs(20)).await;
    let writes = rig.api.writes();
    assert_eq!(writes[writes.len() - 2..], ["shop/web -finalizer", "shop/web (DeletedLoadBalancer)"]);
    // Nothing is left to be tried.
    assert_eq!(rig.api.object("services", "shop/web"), None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_api_holds_up_neither_the_dataplane_nor_other_services() {
    let rig = Rig::serving().await;
    rig.api.rule(|request| (request.verb == "patch").then_some(Fault::Late(Duration::from_secs(4))));
    for number in 2..34 {
        rig.api.put("services", service(&format!("s{number}"), number, false));
    }
    sleep(MOMENT).await;
    rig.api.put("nodes", node(3));
    sleep(MOMENT).await;
    assert_eq!(rig.backends("shop/web").len(), 3, "the dataplane is told before anything is written");
    sleep(Duration::from_secs(9)).await;
    // 32 at 16 at once, 4 s each.
    assert_eq!(rig.wanted().unwrap().len(), 33);
    assert_eq!(rig.api.most_at_once(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_given_up_and_tried_again() {
    let rig = Rig::serving().await;
    rig.api.rule(|request| (request.verb == "patch").then_some(Fault::Silence));
    rig.api.put("services", service("new", 2, false));
    sleep(Duration::from_secs(10)).await;
    rig.api.mend();
    sleep(Duration::from_secs(13)).await;
    rig.converge().await;
    assert!(rig.wanted().unwrap().contains_key("shop/new"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_went_while_its_writes_failed_is_forgotten() {
    let rig = Rig::serving().await;
    rig.api.rule(|request| (request.verb == "patch").then_some(Fault::Status(500)));
    rig.api.put("services", service("new", 2, false));
    sleep(MOMENT).await;
    rig.api.delete("services", "shop/new");
    sleep(Duration::from_secs(5)).await;
    rig.api.writes();
    // A look that is due at once, again and again, would take very long here.
    sleep(Duration::from_hours(24)).await;
    assert!(rig.api.writes().is_empty());
}
