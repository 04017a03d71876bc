//! Two boxes on a segment, of which one answers for the VIPs, and it dies, leaves, or loses its dataplane or a link.
//!
//! ```text
//!              front                          back
//!   client ──────┬────── box 1: priority 150 ──┬───┬── dr1 …
//!   watcher ─────┼────── box 2: priority 100 ──┤   └── router ── far1 …
//!                └────── router ───────────────┘
//! ```
//! The client has no route to the VIPs: it finds them by ARP and neighbour discovery. The boxes share the fleet key,
//! so that downloads go on over a box that has never seen them.

mod downloads;
mod visits;
mod watcher;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shunt_api::mac::MacAddress;
use shunt_api::status::{ControlStatus, Event, L2Role};
use shunt_tests::error::{Error, Result, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::process::Process;
use shunt_tests::run::Run;
use shunt_tests::settings::{Settings, like_v4};
use shunt_tests::shunt::{PATIENCE, Shunt};
use shunt_tests::topology::{Arms, Node, Segment, Shape, Topology};
use shunt_tests::{servers, wait};

use self::downloads::Downloads;
use self::visits::Visits;
use self::watcher::{Question, Watcher};
use crate::segment::{forget_routes, mac_of, on_segment};
use crate::stage::with_second_box;

/// Last numbers of the VIPs.
const DR: u8 = 210;
const FAR: u8 = 220;
const NAT: u8 = 230;
/// Where translated packets come to.
const HTTP_TARGET: u16 = 30080;
/// Host numbers on both segments; box 1 is the topology's own load balancer.
const BOX_2: u8 = 2;
const WATCHER: u8 = 3;
/// How often the box that answers is killed.
const TRIES: usize = 3;
/// What is promised.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(1);
/// For what is tried once, on a machine that may be busy with something else just then.
const ONCE_LIMIT: Duration = Duration::from_secs(2);
/// For what nobody promised a time for, such as starting a box.
const LIMIT: Duration = Duration::from_secs(15);
/// Around the moment at which another box begins to answer, both may.
const WINDOW: Duration = Duration::from_secs(1);
const HIGH: &str =
    "[nat]\nsources = [\"10.77.2.240\", \"fd77:2::240\"]\n[announce]\nl2 = { priority = 150 }\n";
const LOW: &str =
    "[nat]\nsources = [\"10.77.2.240\", \"fd77:2::240\"]\n[announce]\nl2 = { priority = 100 }\n";
const CHECK: &str = r#"check = { type = "http", interval = "500ms", timeout = "400ms" }"#;

pub fn run() -> Result<()> {
    let shape = Shape { arms: Arms::Two, queues: 1, dr: 3, far: 3, vips: all_vips() };
    with_second_box("takeover", shape, two_boxes)
}

/// Those that the backends have, too: their flows go on over either box.
fn all_vips() -> Vec<IpAddr> {
    [DR, FAR].into_iter().flat_map(on_segment).collect()
}

fn settings(topology: &Topology, tables: &'static str) -> Settings {
    let mut settings = Settings::new(topology.lb_nics());
    settings.serve("dr", "dr", &topology.dr, like_v4(), (&on_segment(DR), &["tcp/80"]));
    settings.serve("far", "ipip", &topology.far, like_v4(), (&on_segment(FAR), &["tcp/80"]));
    for (vip, name) in on_segment(NAT).into_iter().zip(["nat4", "nat6"]) {
        settings.serve(name, "nat", &topology.dr, vip, (&[vip], &["tcp/80:30080"]));
    }
    settings.pools.iter_mut().for_each(|pool| pool.keys = CHECK);
    settings.tables = tables;
    settings
}

fn two_boxes(topology: &Topology, run: &Run) -> Result<()> {
    let Some(second) = run.namespaces(["lb2"])?.pop() else { unreachable!("one was asked for") };
    let Some(station) = topology.run.namespaces(["watcher"])?.pop() else {
        unreachable!("one was asked for")
    };
    topology.plug_box(&second, "lb2", BOX_2)?;
    topology.plug_box(&station, "watcher", WATCHER)?;
    filter_by_mac(topology)?;
    forget_routes(topology)?;
    let _nginx = topology.nodes().map(|node| start_nginx(topology, node)).collect::<Result<Vec<_>>>()?;
    let high = settings(topology, HIGH);
    let low = settings(topology, LOW);
    let mut one = Peer::start(&topology.run, &topology.lb, &high)?;
    let two = Peer::start(run, &second, &low)?;
    one.becomes(L2Role::Master)?;
    two.becomes(L2Role::Backup)?;

    let mut stage = Stage {
        topology,
        watcher: Watcher::start(&station, Segment::Front.name(), on_segment(DR)),
        visits: Visits::start(&topology.client, &all_vips()),
        translated: Visits::start(&topology.client, &on_segment(NAT)),
        downloads: Downloads::start(topology, &all_vips())?,
        reigns: Vec::new(),
    };
    stage.answers("box 1 answers", &one, Instant::now())?;
    stage.killed(&mut one, &two)?;
    stage.left(&mut one, &two)?;
    stage.without_dataplane(&mut one, &two)?;
    stage.without_link(&one, &two)?;
    let Stage { watcher, visits, translated, downloads, reigns, .. } = stage;
    downloads.finish()?;
    visits.finish()?;
    translated.finish()?;
    judge(&watcher.finish()?, &reigns)
}

/// The NICs of both boxes get no frames for others, as real ones do: a veth pair would hand them on.
fn filter_by_mac(topology: &Topology) -> Result<()> {
    [Segment::Front, Segment::Back].into_iter().try_for_each(|segment| {
        ["lb", "lb2"].into_iter().try_for_each(|role| {
            let port = format!("{}-{role}", segment.name());
            topology.switch.run("bridge", &["link", "set", "dev", &port, "flood", "off"]).map(drop)
        })
    })
}

/// On the VIPs that are the backends' own and, for mode `nat`, on the node's address.
fn start_nginx(topology: &Topology, node: &Node) -> Result<Process> {
    node.finish_own_packets()?;
    let vips = all_vips().into_iter().map(|vip| SocketAddr::new(vip, 80));
    let own = [node.v4.into(), node.v6.into()].map(|ip: IpAddr| SocketAddr::new(ip, HTTP_TARGET));
    servers::start_nginx_at(&topology.run, node, &vips.chain(own).collect::<Vec<_>>())
}

/// A box of the pair.
struct Peer<'t> {
    shunt: Shunt<'t>,
    mac: MacAddress,
}

impl<'t> Peer<'t> {
    fn start(run: &'t Run, namespace: &'t Namespace, settings: &Settings) -> Result<Self> {
        let mac = mac_of(namespace, Segment::Front.name())?;
        let mac = mac.parse().map_err(|error| Error::Wrong(format!("{error}")))?;
        Ok(Self { shunt: Shunt::start_at(run, namespace, settings)?, mac })
    }

    fn role(&self) -> Option<L2Role> {
        let status: serde_json::Value = self.shunt.lbctl_json(&["status"]).ok()?;
        let control: ControlStatus = serde_json::from_value(status.get("controlplane")?.clone()).ok()?;
        Some(control.l2?.role)
    }

    fn becomes(&self, role: L2Role) -> Result<()> {
        wait::until_true(&format!("a box to be {role:?}"), LIMIT, || self.role() == Some(role)).map(drop)
    }
}

/// Ends what runs beside the scenario, at the latest when this fails.
#[derive(Default)]
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What goes on around the boxes.
struct Stage<'t> {
    topology: &'t Topology,
    watcher: Watcher,
    visits: Visits,
    /// Those to VIPs of mode `nat`, whose backends have to find the source addresses anew. What is under way when the
    /// box changes breaks: only new ones are looked at.
    translated: Visits,
    downloads: Downloads,
    /// Since when each box answers.
    reigns: Vec<(Instant, MacAddress)>,
}

impl Stage<'_> {
    /// Box 1 dies as when the power fails, and comes back, again and again.
    fn killed(&mut self, one: &mut Peer<'_>, two: &Peer<'_>) -> Result<()> {
        let mut took = Vec::new();
        for _ in 0..TRIES {
            let begin = Instant::now();
            self.set_links(&["front", "back"], "down")?;
            one.shunt.kill_dataplane()?;
            one.shunt.kill_controlplane()?;
            took.push(self.moves("box 1 killed", two, begin)?);
            self.goes_on(two)?;
            self.set_links(&["front", "back"], "up")?;
            one.shunt.start_dataplane()?;
            self.returns(one, Instant::now())?;
        }
        let events: Vec<Event> = two.shunt.lbctl_json(&["events"])?;
        let mut told = events.iter().filter(|event| event.text.starts_with("master of group 1"));
        ensure(told.clone().count() == TRIES, || {
            format!("`lbctl events` of box 2 does not tell of it: {events:?}")
        })?;
        told.next_back().inspect(|event| println!("     {event}"));
        took.sort_unstable();
        let median = took[took.len() / 2];
        println!(
            "   killed: a new connection is answered {} later (median of {TRIES}), promised 1000 ms",
            ms(median)
        );
        ensure(median <= TAKEOVER_LIMIT, || format!("it took {median:?} until somebody answered"))
    }

    /// The control plane of box 1 is asked to end, and is started again.
    fn left(&mut self, one: &mut Peer<'_>, two: &Peer<'_>) -> Result<()> {
        let begin = Instant::now();
        one.shunt.end_controlplane();
        one.shunt.controlplane_ended()?;
        let took = self.moves("control plane stopped", two, begin)?;
        self.goes_on(two)?;
        ensure(took <= ONCE_LIMIT, || format!("it took {took:?} until somebody answered"))?;
        self.returns(one, Instant::now())
    }

    /// The dataplane of box 1 is killed alone, and is started again.
    fn without_dataplane(&mut self, one: &mut Peer<'_>, two: &Peer<'_>) -> Result<()> {
        let begin = Instant::now();
        one.shunt.kill_dataplane()?;
        let took = self.moves("dataplane killed", two, begin)?;
        self.goes_on(two)?;
        ensure(took <= ONCE_LIMIT, || format!("it took {took:?} until somebody answered"))?;
        one.shunt.kill_controlplane()?;
        one.shunt.start_dataplane()?;
        self.returns(one, Instant::now())
    }

    /// Box 1 loses its way to the backends, and gets it back.
    fn without_link(&mut self, one: &Peer<'_>, two: &Peer<'_>) -> Result<()> {
        let begin = Instant::now();
        self.set_links(&["back"], "down")?;
        let took = self.moves("link to the backends lost", two, begin)?;
        self.goes_on(two)?;
        ensure(took <= ONCE_LIMIT, || format!("it took {took:?} until somebody answered"))?;
        let begin = Instant::now();
        self.set_links(&["back"], "up")?;
        self.preempts(one, begin)
    }

    /// The switch's ends of the links of box 1.
    fn set_links(&self, segments: &[&str], state: &str) -> Result<()> {
        let line = |segment: &&str| format!("link set {segment}-lb {state}\n");
        self.topology.switch.ip(&segments.iter().map(line).collect::<String>())
    }

    /// Waits until this box answers to questions asked after `begin`; when it began to.
    fn answers(&mut self, what: &str, peer: &Peer<'_>, begin: Instant) -> Result<Instant> {
        let what = format!("an answer from the other box: {what}");
        let answered = || Ok(self.watcher.answered_by(peer.mac, begin, on_segment(DR)));
        let (at, _) = wait::until(&what, LIMIT, answered)?;
        self.reigns.push((at, peer.mac));
        Ok(at)
    }

    /// Waits until a new connection is answered by way of this box; how long after `begin`.
    fn moves(&mut self, what: &str, peer: &Peer<'_>, begin: Instant) -> Result<Duration> {
        let done = Instant::now();
        let answers = self.answers(what, peer, begin)?;
        let (connected, _) =
            wait::until(&format!("new connections: {what}"), LIMIT, || Ok(self.visits.answered(done)))?;
        let (translated, _) = wait::until(&format!("new connections (nat): {what}"), LIMIT, || {
            Ok(self.translated.answered(done))
        })?;
        println!(
            "   {what}: the other box answers {} later; new connections to all VIPs {} later, of mode nat {} later",
            ms(answers - begin),
            ms(connected - begin),
            ms(translated - begin)
        );
        Ok(connected.max(translated).max(answers) - begin)
    }

    /// The downloads go on, over this box.
    fn goes_on(&self, peer: &Peer<'_>) -> Result<()> {
        let took = self.downloads.go_on()?;
        let (ends, count) = (peer.shunt.client_ends()?, self.downloads.count());
        let came = self.downloads.ends().filter(|end| ends.contains(end)).count();
        println!("     {came} of {count} downloads go on over it, two seconds of each after {}", ms(took));
        ensure(came == count, || "not every download came to the box that answers".to_owned())
    }

    /// Starts the control plane of the box of higher priority, which takes over again.
    fn returns(&mut self, one: &mut Peer<'_>, begin: Instant) -> Result<()> {
        one.shunt.start_controlplane()?;
        self.preempts(one, begin)?;
        one.shunt.wait_healthy(PATIENCE).map(drop)
    }

    /// The box of higher priority takes over from the living one.
    fn preempts(&mut self, one: &Peer<'_>, begin: Instant) -> Result<()> {
        let at = self.answers("box 1 is back", one, begin)?;
        println!("   box 1 is back and answers {} later", ms(at - begin));
        self.goes_on(one)?;
        let (from, to) = (at - WINDOW, at + WINDOW);
        let (mut failed, mut all) = (0, 0);
        let waited = wait::until_true("all new connections to be answered", PATIENCE, || {
            (failed, all) = self.visits.unanswered(from, to);
            failed == 0
        });
        let silence = ms(self.visits.silence(from, to));
        println!(
            "     within 1 s of that {failed} of {all} new connections unanswered, {silence} at most without one"
        );
        waited.map(drop)
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// Each question has to be answered by the one box that reigns, but for the moments of a takeover.
fn judge(questions: &[Question], reigns: &[(Instant, MacAddress)]) -> Result<()> {
    let is_near = |at: Instant, reign: &Instant| at + WINDOW > *reign && at < *reign + WINDOW;
    let (near, quiet): (Vec<_>, Vec<_>) = questions
        .iter()
        .filter(|question| question.at >= reigns[0].0)
        .partition(|question| reigns.iter().skip(1).any(|(since, _)| is_near(question.at, since)));
    let by_both = |question: &&&Question| {
        let first = question.answers.first();
        question.answers.iter().any(|(_, mac)| first.is_some_and(|(_, first)| first != mac))
    };
    let master = |at: Instant| reigns.iter().rev().find(|(since, _)| *since <= at).map(|(_, mac)| *mac);
    let by_another =
        |question: &&&Question| question.answers.iter().any(|(_, mac)| Some(*mac) != master(question.at));
    let silent = quiet.iter().filter(|question| question.answers.is_empty()).count();
    let (both, wrong) = (near.iter().filter(by_both).count(), quiet.iter().filter(by_another).count());
    println!(
        "   {} ARP requests and neighbour solicitations within 1 s of {} takeovers: {both} answered by both",
        near.len(),
        reigns.len() - 1
    );
    println!(
        "   {} at other times: {wrong} answered by another box than the master, {silent} by none",
        quiet.len()
    );
    ensure(quiet.len() > 100, || "too few questions to show it".to_owned())?;
    ensure(wrong == 0, || {
        let example = quiet.iter().find(by_another);
        format!("{wrong} questions were answered by the box that is not master, e.g. {example:?}")
    })?;
    ensure(silent * 100 <= quiet.len(), || format!("{silent} of {} questions found no answer", quiet.len()))
}
