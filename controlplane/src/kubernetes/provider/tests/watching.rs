//! What the provider knows while the API is late, away or broken.

use super::*;
use crate::kubernetes::double::Broken;

/// Everything that may be late.
const KINDS: [&str; 4] = ["services", "endpointslices", "nodes", "namespaces"];

#[tokio::test(start_paused = true)]
async fn nothing_is_concluded_before_all_is_known() {
    for kind in KINDS {
        let api = api();
        api.put("services", service("web", 1, true));
        api.rule(move |request| {
            let late = request.verb == "list" && request.kind == kind;
            late.then_some(Fault::Late(Duration::from_secs(40)))
        });
        let rig = Rig::start(&api);
        sleep(Duration::from_secs(39)).await;
        assert_eq!(rig.wanted(), None, "{kind}");
        assert!(api.writes().is_empty(), "{kind}");
        // Whoever begins to lead lists the Services once more.
        api.mend();
        rig.converge().await;
        assert!(rig.wants_web(), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let api = api();
    (0..1_203).for_each(|number| api.put("services", service(&format!("s{number}"), number, false)));
    api.rule(|request| (request.verb == "patch").then_some(Fault::Late(Duration::from_millis(5))));
    let rig = Rig::start(&api);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.wanted().map(|wanted| wanted.len()), Some(256), "as many as there are addresses");
    let claimed = api.writes().iter().filter(|write| write.ends_with("+finalizer")).count();
    assert_eq!(claimed, 1_203);
    assert_eq!(api.most_at_once(), 16);
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_api_changes_nothing_and_one_look_mends_all() {
    let rig = Rig::serving().await;
    let before = rig.wanted();
    rig.api.go_away();
    sleep(Duration::from_hours(1)).await;
    assert_eq!(rig.wanted(), before);
    assert!(rig.api.writes().is_empty());
    let problems = rig.told("does not answer");
    assert!((1..=4).contains(&problems), "{problems}: once for each kind at most");
    assert_eq!(rig.told("answers again"), 0);
    // Meanwhile:
    rig.api.put("services", service("new", 2, false));
    rig.api.put("nodes", node(3));
    rig.api.compact(true);
    rig.api.mend();
    rig.converge().await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.wanted().unwrap().len(), 2);
    assert_eq!(rig.backends("shop/web"), ["n1", "n2", "n3"]);
    assert_eq!(rig.told("answers again"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_api_in_which_nothing_changes_answers_again_when_all_is_watched_again() {
    let rig = Rig::serving().await;
    rig.api.go_away();
    sleep(Duration::from_mins(10)).await;
    let problems = rig.told("does not answer");
    assert!(rig.away().unwrap().contains("services: "), "{:?}", rig.away());
    rig.api.mend();
    // The longest pause between two tries.
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.away(), None);
    assert_eq!(rig.told("answers again"), 1);
    assert_eq!(rig.told("does not answer"), problems, "what is over in part is no news");
    // That something is too old to be watched from is no problem, either.
    for (number, as_event) in [(3, true), (4, false)] {
        // The pauses are short again.
        sleep(Duration::from_mins(3)).await;
        rig.api.break_watches(Broken::Ended);
        rig.api.put("nodes", node(number));
        rig.api.compact(as_event);
        rig.converge().await;
        assert_eq!(rig.backends("shop/web").len(), usize::from(number));
    }
    assert_eq!(rig.told("does not answer"), problems);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_too_old_loses_nothing() {
    for as_event in [true, false] {
        let rig = Rig::serving().await;
        rig.api.break_watches(Broken::Ended);
        rig.api.put("services", service("new", 2, false));
        rig.api.put("nodes", node(3));
        rig.api.delete("nodes", "n1");
        rig.api.compact(as_event);
        rig.converge().await;
        assert_eq!(rig.wanted().unwrap().len(), 2, "{as_event}");
        assert_eq!(rig.backends("shop/web"), ["n2", "n3"], "{as_event}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_in_a_line_or_falls_silent_is_begun_again() {
    let rig = Rig::serving().await;
    for number in 3..7 {
        rig.api.break_watches(Broken::MidLine);
        rig.api.put("nodes", node(number));
        rig.converge().await;
        assert_eq!(rig.backends("shop/web").len(), usize::from(number));
    }
    rig.api.fall_silent();
    rig.api.put("nodes", node(7));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.backends("shop/web").len(), 6, "nothing can be known yet");
    rig.api.mend();
    rig.api.break_watches(Broken::Ended);
    rig.converge().await;
    assert_eq!(rig.backends("shop/web").len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_is_noticed_within_a_minute() {
    let rig = Rig::serving().await;
    rig.api.fall_silent();
    rig.api.put("nodes", node(3));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.backends("shop/web").len(), 2);
    rig.api.speak_on_new_watches();
    sleep(Duration::from_secs(50)).await;
    assert_eq!(rig.backends("shop/web").len(), 3);
}
