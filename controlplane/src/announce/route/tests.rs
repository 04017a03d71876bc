//! Against a real kernel, each test in a network namespace of its own. Needs root. The namespaces have no name (but
//! for an instant while they are made), so they vanish with the test however it ends.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use netlink_packet_core::NLM_F_MULTIPART;
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, capabilities, move_into_link_name_space,
    set_capabilities,
};
use shunt_api::config::Config;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::kernel::DUMP_TRIES;
use super::message::{NLM_F_DUMP_INTR, NLMSG_DONE, messages};
use super::*;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const PLACE: Place = Place { table: 83, protocol: 83 };

thread_local! {
    /// How many more dumps of this thread are interrupted.
    static INTERRUPTIONS: Cell<usize> = const { Cell::new(0) };
}

/// Marks an answer of the kernel as it does itself when something changed while it told of it: nothing that a test could
/// do to routes brings that about for certain.
pub fn interrupt(answer: &mut [u8]) {
    let remaining = INTERRUPTIONS.get();
    if remaining == 0 {
        return;
    }
    // Of struct nlmsghdr, after length and kind.
    answer[6..8].copy_from_slice(&(NLM_F_MULTIPART | NLM_F_DUMP_INTR).to_ne_bytes());
    let ends = messages(answer).any(|message| message.kind == NLMSG_DONE);
    INTERRUPTIONS.set(remaining - usize::from(ends));
}

/// Runs a test inside a network namespace of its own, on one thread; programs it starts are inside too.
fn inside<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("shunt-route-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let added = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
    assert!(added.status.success(), "this test needs root and iproute2: {added:?}");
    let namespace = File::open(format!("/run/netns/{name}"));
    assert!(Command::new("ip").args(["netns", "delete", &name]).status().unwrap().success());
    let namespace = namespace.unwrap();
    let enter_and_test = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test().await });
    };
    thread::scope(|scope| scope.spawn(enter_and_test).join()).unwrap();
}

/// Runs `ip`; returns what it prints.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip` says of a table, both families, each route by its first words.
fn shown(table: u32) -> Vec<String> {
    let lines = [4, 6].map(|family| {
        // Fails for a table that nobody has put anything into.
        let arguments = format!("-{family} route show table {table}");
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    let first_words = |line: &str| {
        let words: Vec<_> = line.split(' ').filter(|word| !["dev", "lo"].contains(word)).take(4).collect();
        words.join(" ").trim_end().to_owned()
    };
    lines.iter().flat_map(|text| text.lines()).map(first_words).collect()
}

/// An announcer, and what others hold of it.
struct Lab {
    wanted: watch::Sender<Wanted<Settings>>,
    standing: watch::Receiver<RoutesStatus>,
    journal: Journal,
    running: JoinHandle<()>,
}

impl Lab {
    fn start() -> Self {
        let (wanted, receiver) = watch::channel(Wanted::Unknown);
        let (sender, standing) = watch::channel(RoutesStatus::default());
        let journal = Journal::default();
        let running = tokio::spawn(run(receiver, journal.clone(), sender));
        Self { wanted, standing, journal, running }
    }

    fn want(&self, settings: &str, addresses: impl IntoIterator<Item = impl Into<IpAddr>>) {
        let routes = Config::parse(&format!("announce.routes = {settings}"), "f").unwrap().announce.routes;
        let addresses = addresses.into_iter().map(Into::into).collect();
        let others =
            (0..=u8::MAX).flat_map(|third| (0..=u8::MAX).map(move |last| IpAddr::from([10, 0, third, last])));
        let withheld = others.map(|address| (address, "no backend of it is up")).collect();
        let settings = Settings { routes: routes.unwrap(), withheld };
        self.wanted.send(Wanted::These { settings, addresses }).unwrap();
    }

    async fn standing_becomes(&mut self, reached: impl FnMut(&RoutesStatus) -> bool) -> RoutesStatus {
        let journal = self.journal.clone();
        match timeout(PATIENCE, self.standing.wait_for(reached)).await {
            Ok(standing) => standing.unwrap().clone(),
            Err(_) => panic!("{:?}", journal.kept()),
        }
    }

    /// Lets it stop; returns what it told.
    async fn stop(self) -> Vec<String> {
        drop(self.wanted);
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
        let line = |event: shunt_api::status::Event| {
            let reason = event.reason.map(|reason| format!(" ({reason})"));
            format!("{}: {}{}", event.subject, event.text, reason.unwrap_or_default())
        };
        self.journal.kept().into_iter().map(line).collect()
    }
}

/// Waits until as many of our routes are at a place.
async fn routes_become(kernel: &mut Kernel, place: Place, count: usize) {
    let reached = async {
        while kernel.read(place).await.unwrap().len() != count {
            kernel.changed(place).await.unwrap();
        }
    };
    timeout(PATIENCE, reached).await.expect("the routes never came to be so");
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn own_routes_are_adopted_and_foreign_ones_kept() {
    inside(async || {
        ip("route add blackhole 203.0.113.1 table 83 proto 83");
        ip("route add unreachable 203.0.113.2 table 83 proto 83");
        ip("route add blackhole 203.0.113.9 table 83 proto 83");
        ip("-6 route add 2001:db8::9 dev lo table 83 proto 83 metric 7");
        ip("route add blackhole 203.0.113.7 table 83 proto static");
        ip("route add blackhole 203.0.113.1 table 84 proto 83");
        let foreign = ["blackhole 203.0.113.7 proto static"];
        let before = shown(83);
        let mut lab = Lab::start();
        lab.want("true", addresses(&["203.0.113.1", "203.0.113.2", "2001:db8::1"]));
        let standing = lab.standing_becomes(|standing| standing.present == 3).await;
        assert_eq!(before.len(), 5, "what it did before it knew what is wanted: {before:?}");
        assert_eq!((standing.table, standing.protocol, standing.problems), (83, 83, vec![]));
        let prefixes: Vec<_> = standing.prefixes.iter().map(IpNet::to_string).collect();
        assert_eq!(prefixes, ["203.0.113.1/32", "203.0.113.2/32", "2001:db8::1/128"]);
        let ours = ["blackhole 203.0.113.1 proto 83", "blackhole 203.0.113.2 proto 83"];
        assert_eq!(shown(83), [&ours[..], &foreign, &["blackhole 2001:db8::1 proto 83"]].concat());
        lab.wanted.send(Wanted::Unused).unwrap();
        lab.standing_becomes(|standing| *standing == RoutesStatus::default()).await;
        assert_eq!(shown(83), foreign);
        assert_eq!(shown(84), ["blackhole 203.0.113.1 proto 83"]);
        let mut told = lab.stop().await;
        told.sort();
        let gone = "withdrawn (announce.routes is no longer configured)";
        let left = "withdrawn (left from before, and not wanted)";
        let mut expected = [
            format!("route 203.0.113.1/32 in table 83: {gone}"),
            "route 203.0.113.1/32 in table 83: found and kept".to_owned(),
            "route 203.0.113.2/32 in table 83: announced".to_owned(),
            format!("route 203.0.113.2/32 in table 83: {gone}"),
            format!("route 203.0.113.2/32 in table 83: {left}"),
            format!("route 203.0.113.9/32 in table 83: {left}"),
            "route 2001:db8::1/128 in table 83: announced".to_owned(),
            format!("route 2001:db8::1/128 in table 83: {gone}"),
            format!("route 2001:db8::9/128 in table 83: {left}"),
        ];
        expected.sort();
        assert_eq!(told, expected);
    });
}

#[test]
fn what_is_deleted_by_hand_comes_back() {
    inside(async || {
        let mut lab = Lab::start();
        lab.want("true", addresses(&["203.0.113.1", "203.0.113.2", "2001:db8::1"]));
        lab.standing_becomes(|standing| standing.present == 3).await;
        let mut kernel = Kernel::open().unwrap();
        for deletion in [
            "route del blackhole 203.0.113.1 table 83",
            "-6 route del blackhole 2001:db8::1 table 83",
            "route flush table 83",
            "link set lo down",
        ] {
            ip(deletion);
            let start = Instant::now();
            routes_become(&mut kernel, PLACE, 3).await;
            println!("after `ip {deletion}` it was back in {:?}", start.elapsed());
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        let told = lab.stop().await;
        assert_eq!(told.iter().filter(|line| line.ends_with("announced (it had been deleted)")).count(), 5);
        assert_eq!(shown(83), [""; 0]);
    });
}

#[test]
fn thousands_of_routes_come_and_go_in_no_time() {
    inside(async || {
        let v4 = (0..2500u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let v6 = (0..2500u128).map(|number| IpAddr::from(((0x2001_0db8 << 96) + number).to_be_bytes()));
        let all: Vec<_> = v4.chain(v6).collect();
        let mut lab = Lab::start();
        let mut took = async |wanted: &[IpAddr]| {
            let start = Instant::now();
            lab.want("true", wanted.iter().copied());
            lab.standing_becomes(|standing| standing.table == 83 && standing.present == wanted.len()).await;
            start.elapsed()
        };
        let added = took(&all).await;
        let removed = took(&all[..1]).await;
        println!("5,000 routes: added in {added:?}, all but one removed in {removed:?}");
        assert!(added < Duration::from_secs(2) && removed < Duration::from_secs(2));
        took(&all).await;
        assert_eq!(shown(83).len(), 5000);
        let start = Instant::now();
        let told = lab.stop().await;
        println!("5,000 routes: withdrawn at the stop in {:?}", start.elapsed());
        assert_eq!(shown(83), [""; 0]);
        let first = "10.0.0.0/32, 10.0.0.1/32, 10.0.0.2/32";
        let six = "2001:db8::/128, 2001:db8::1/128, 2001:db8::2/128";
        let later = "10.0.0.1/32, 10.0.0.2/32, 10.0.0.3/32";
        let expected = [
            format!("5000 announced: {first} and 4997 more"),
            format!("2500 withdrawn: {six} and 2497 more (it is no longer configured)"),
            format!("2499 withdrawn: {later} and 2496 more (no backend of it is up)"),
            format!("4999 announced: {later} and 4996 more"),
            format!("5000 withdrawn: {first} and 4997 more (the control plane stops)"),
        ];
        assert_eq!(told, expected.map(|line| format!("routes in table 83: {line}")));
    });
}

#[test]
fn kept_routes_wait_for_the_next_start() {
    inside(async || {
        let mut lab = Lab::start();
        lab.want(r#"{ on_stop = "keep" }"#, addresses(&["203.0.113.1", "2001:db8::1"]));
        lab.standing_becomes(|standing| standing.present == 2).await;
        assert_eq!(lab.stop().await.len(), 2);
        assert_eq!(shown(83).len(), 2);
        let mut lab = Lab::start();
        lab.want("true", addresses(&["203.0.113.1", "2001:db8::1"]));
        lab.standing_becomes(|standing| standing.present == 2).await;
        let told = lab.stop().await;
        assert_eq!(told.iter().filter(|line| line.ends_with(": found and kept")).count(), 2);
        assert_eq!((told.len(), shown(83).len()), (4, 0));
    });
}

#[test]
fn routes_move_with_the_settings() {
    inside(async || {
        let mut lab = Lab::start();
        for (settings, table, protocol) in [
            ("true", 83, "83"),
            ("{ protocol = 84 }", 83, "84"),
            ("{ table = 1000, protocol = 84 }", 1000, "84"),
            ("true", 83, "83"),
        ] {
            lab.want(settings, addresses(&["203.0.113.1", "2001:db8::1"]));
            let here = |standing: &RoutesStatus| {
                standing.table == table && standing.protocol.to_string() == protocol
            };
            lab.standing_becomes(|standing| here(standing) && standing.present == 2).await;
            let other = if table == 83 { 1000 } else { 83 };
            assert_eq!((shown(table).len(), shown(other).len()), (2, 0), "{settings}");
            assert!(
                shown(table).iter().all(|line| line.ends_with(&format!(" proto {protocol}"))),
                "{settings}"
            );
        }
        lab.stop().await;
        assert_eq!(shown(83).len(), 0);
    });
}

#[test]
fn what_stands_in_the_way_is_told_until_it_is_gone() {
    inside(async || {
        ip("route add blackhole 203.0.113.1 table 83 proto static");
        let mut lab = Lab::start();
        lab.want("true", addresses(&["203.0.113.1", "203.0.113.2"]));
        let standing = lab.standing_becomes(|standing| standing.present == 1).await;
        let problem =
            "203.0.113.1/32 cannot be added to table 83: a route that is not of protocol 83 is in the way; ";
        assert!(standing.problems[0].starts_with(problem) && standing.problems.len() == 1, "{standing:?}");
        ip("route del blackhole 203.0.113.1 table 83 proto static");
        let standing = lab.standing_becomes(|standing| standing.present == 2).await;
        assert_eq!(standing.problems, [""; 0]);
        lab.stop().await;
    });
}

#[test]
fn without_the_right_to_change_routes_it_says_so_and_tries_on() {
    inside(async || {
        let mut lab = Lab::start();
        let all = capabilities(None).unwrap();
        let without = all.effective.difference(CapabilitySet::NET_ADMIN);
        set_capabilities(None, CapabilitySets { effective: without, ..all }).unwrap();
        lab.want("true", addresses(&["203.0.113.1"]));
        let standing = lab.standing_becomes(|standing| !standing.problems.is_empty()).await;
        assert!(standing.problems[0].contains("give it CAP_NET_ADMIN"), "{standing:?}");
        assert_eq!((standing.present, standing.problems.len()), (0, 1));
        set_capabilities(None, all).unwrap();
        lab.standing_becomes(|standing| standing.present == 1 && standing.problems.is_empty()).await;
        set_capabilities(None, CapabilitySets { effective: without, ..all }).unwrap();
        let told = lab.stop().await;
        let advice =
            "routes remain; run `ip route flush table 83 proto 83` and `ip -6 route flush table 83 proto 83`";
        assert!(told.last().unwrap().ends_with(advice), "{told:?}");
    });
}

#[test]
fn what_changes_while_it_is_read_is_read_again_and_not_taken_for_nothing() {
    inside(async || {
        let mut lab = Lab::start();
        lab.want("true", addresses(&["203.0.113.1", "2001:db8::1"]));
        lab.standing_becomes(|standing| standing.present == 2).await;
        INTERRUPTIONS.set(DUMP_TRIES - 1);
        lab.want("true", addresses(&["203.0.113.2", "2001:db8::1"]));
        let next = IpNet::from(IpAddr::from([203, 0, 113, 2]));
        let standing = lab.standing_becomes(|standing| standing.prefixes.contains(&next)).await;
        assert_eq!((standing.present, standing.problems), (2, vec![]), "once more was enough");

        INTERRUPTIONS.set(usize::MAX);
        lab.want("true", addresses(&["203.0.113.1"]));
        let standing = lab.standing_becomes(|standing| !standing.problems.is_empty()).await;
        let problem = "routes changed each time that table 83 was read; it is read again (`ip monitor route` shows what \
                       changes them)";
        assert_eq!((standing.present, standing.problems), (2, vec![problem.to_owned()]));
        let before = ["blackhole 203.0.113.2 proto 83", "blackhole 2001:db8::1 proto 83"];
        assert_eq!(shown(83), before, "nothing is done without knowing");
        INTERRUPTIONS.set(0);
        lab.standing_becomes(|standing| standing.present == 1 && standing.problems.is_empty()).await;
        assert_eq!(shown(83), ["blackhole 203.0.113.1 proto 83"]);

        INTERRUPTIONS.set(DUMP_TRIES);
        let told = lab.stop().await;
        assert_eq!(INTERRUPTIONS.get(), 0);
        assert_eq!(shown(83), [""; 0], "withdrawn at the second try: {told:?}");
    });
}

#[test]
fn routes_that_cannot_be_read_at_the_stop_are_told_of() {
    inside(async || {
        let mut lab = Lab::start();
        lab.want("true", addresses(&["203.0.113.1"]));
        lab.standing_becomes(|standing| standing.present == 1).await;
        INTERRUPTIONS.set(usize::MAX);
        let told = lab.stop().await;
        assert!(told.iter().any(|line| line.contains("routes changed each time")), "{told:?}");
        assert!(told.last().unwrap().contains("routes remain; run `ip route flush table 83"), "{told:?}");
        assert_eq!(shown(83), ["blackhole 203.0.113.1 proto 83"]);
    });
}
