//! Pools that the cluster defines, and clusters that do not know the kind.

use serde_json::json;

use super::*;
use crate::kubernetes::double::Broken;
use crate::kubernetes::double::objects::pool;

/// As long as it may take until a cluster is asked for the kind again.
const ASKED_AGAIN: Duration = Duration::from_secs(15);
const OWN_VIP: &str = "198.51.100.1";

/// Service `shop/own` wants an address of the cluster's pool `own`.
fn wants_own() -> Value {
    let mut service = service("own", 2, false);
    service["metadata"]["annotations"] = json!({ "shunt.dev/pool": "own" });
    service
}

/// The cluster does not know the kind, until [`Api::mend`].
fn lack_the_kind(api: &Api) {
    api.rule(|request| (request.kind == "shuntpools").then_some(Fault::Status(404)));
}

/// The first address in a Service's status.
fn shown(rig: &Rig, service: &str) -> Option<String> {
    let status = rig.status(service);
    status["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn a_cluster_need_not_know_the_kind_and_may_learn_it() {
    let api = api();
    lack_the_kind(&api);
    api.put("services", service("web", 1, false));
    api.put("services", wants_own());
    let rig = Rig::start(&api);
    rig.converge().await;
    assert_eq!(shown(&rig, "shop/web").as_deref(), Some(VIP));
    assert_eq!(shown(&rig, "shop/own"), None);
    let conditions = rig.status("shop/own")["conditions"].to_string();
    assert!(conditions.contains("there is no pool `own`"), "{conditions}");
    assert_eq!(rig.told("does not answer"), 0);
    api.writes();
    sleep(Duration::from_hours(1)).await;
    assert!(api.writes().is_empty());
    assert_eq!(rig.told("does not answer"), 0);

    api.mend();
    api.put("shuntpools", pool("own", "198.51.100.0/28"));
    sleep(ASKED_AGAIN).await;
    rig.converge().await;
    assert_eq!(shown(&rig, "shop/own").as_deref(), Some(OWN_VIP));
    let pool = api.object("shuntpools", "own").unwrap();
    assert_eq!(pool["status"]["conditions"][0]["status"], "True", "{pool}");
    assert_eq!(shown(&rig, "shop/web").as_deref(), Some(VIP));
}

#[tokio::test(start_paused = true)]
async fn pools_stay_when_the_kind_is_gone_and_nobody_said_that_they_are() {
    let rig = Rig::serving().await;
    rig.api.put("shuntpools", pool("own", "198.51.100.0/28"));
    rig.api.put("services", wants_own());
    rig.converge().await;
    assert_eq!(shown(&rig, "shop/own").as_deref(), Some(OWN_VIP));
    let before = rig.wanted();
    lack_the_kind(&rig.api);
    rig.api.break_watches(Broken::Ended);
    rig.api.put("nodes", node(3));
    rig.converge().await;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(rig.wanted(), before);
    assert_eq!(shown(&rig, "shop/own").as_deref(), Some(OWN_VIP));
    let problems = rig.told("does not answer");
    assert_eq!(problems, 2, "of the watch and of the list");
    // The kind is new, and so is the pool.
    rig.api.compact(false);
    rig.api.mend();
    rig.api.change("shuntpools", "own", |pool| pool["metadata"]["uid"] = "uid-new".into());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.told("answers again"), 1);
    assert_eq!(rig.wanted(), before);
    // Who deletes a pool takes its addresses away, the last one's, too.
    rig.api.delete("shuntpools", "own");
    sleep(MOMENT).await;
    lack_the_kind(&rig.api);
    rig.api.break_watches(Broken::Ended);
    rig.converge().await;
    assert_eq!(shown(&rig, "shop/own"), None);
    assert_eq!(rig.told("does not answer"), problems, "it has none, and that is all");
}

#[tokio::test(start_paused = true)]
async fn what_the_file_gives_to_others_no_pool_of_the_cluster_has() {
    let rig = Rig::serving().await;
    rig.api.put("shuntpools", pool("own", "198.51.100.0/28"));
    rig.api.put("services", wants_own());
    rig.converge().await;
    assert_eq!(shown(&rig, "shop/own").as_deref(), Some(OWN_VIP));
    let accepted = || {
        let pool = rig.api.object("shuntpools", "own").unwrap();
        let condition = &pool["status"]["conditions"][0];
        (condition["status"].as_str().unwrap().to_owned(), condition["message"].as_str().unwrap().to_owned())
    };
    let mut other = file();
    other.nat.sources = vec!["198.51.100.9".parse().unwrap()];
    rig.config.send_replace(Some(Arc::new(other)));
    rig.converge().await;
    let (status, message) = accepted();
    assert_eq!(status, "False");
    let reason = "198.51.100.0/28 has addresses of 198.51.100.9, which the configuration file gives to another: in sources \
        of [nat]; leave them out";
    assert_eq!(message, reason);
    assert_eq!(shown(&rig, "shop/own").as_deref(), Some(OWN_VIP), "nobody loses what it has by that");

    rig.config.send_replace(Some(Arc::new(file())));
    rig.converge().await;
    assert_eq!(accepted().0, "True");
    assert_eq!(shown(&rig, "shop/own").as_deref(), Some(OWN_VIP));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_to_leave_its_address_is_told_why_once() {
    let rig = Rig::serving().await;
    rig.api.put("shuntpools", pool("own", "198.51.100.0/28"));
    rig.api.put("services", wants_own());
    rig.converge().await;
    rig.api.writes();
    rig.api.change("shuntpools", "own", |pool| pool["spec"]["addresses"] = json!(["192.0.2.0/28"]));
    rig.converge().await;
    sleep(Duration::from_mins(5)).await;
    let writes = rig.api.writes();
    let about: Vec<_> = writes.iter().filter_map(|write| write.strip_prefix("shop/own ")).collect();
    assert_eq!(about, ["(AddressNotInPool)", "status[192.0.2.1]", "(EnsuredLoadBalancer)"]);
}
