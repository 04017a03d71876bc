//! The control thread: takes snapshots, keeps next hops current, watches the workers.
//!
//! One task owns everything that changes ([`Control`]); requests reach it as [`Command`]s, so there is no
//! lock and no order to get wrong. It never touches a packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use shunt_api::counters::DropReason;
use shunt_api::daemon::Pulse;
use shunt_api::snapshot::{Ack, DataplaneSettings, Rejected, Snapshot};
use shunt_api::status::{DataplaneStatus, Stats};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::clock::Clock;
use crate::cores;
use crate::engine::{self, Engine, EngineNic, Plan};
use crate::explain;
use crate::forward::FlowTables;
use crate::huge_pages::HugePages;
use crate::limits::{HOPS_PATIENCE, SWEEP_PERIOD, TICK};
use crate::losses::Losses;
use crate::neighbor::{self, HopMap, LinkMap};
use crate::notices::Notice;
use crate::path_mtu::PathMtus;
use crate::probe::{Network, Probes};
use crate::program::{ProgramError, Steering};
use crate::report;
use crate::stats::WorkerStats;
use crate::sweep::Sweep;
use crate::table::{Compiler, Forwarding, Hop, Table};
use crate::watchdog::Watchdog;
use crate::ways::{Ways, headrooms, stations, tunnel_sources};
use crate::worker::Shared;

const SWEEP_SLICES: usize = (SWEEP_PERIOD.as_millis() / TICK.as_millis()) as usize;

/// For how long a backend that sent packets back is a problem.
const LOOP_MEMORY: Duration = Duration::from_mins(1);

/// A request and where its answer goes. An asker that went away is nobody's loss.
pub enum Command {
    /// Forward by this snapshot.
    Apply(Box<Snapshot>, oneshot::Sender<Result<Ack, Rejected>>),
    /// How are you?
    Status(oneshot::Sender<DataplaneStatus>),
    /// Counters.
    Stats(oneshot::Sender<Stats>),
    /// What is needed to list flows, which the asker does on a thread of its own.
    Flows(oneshot::Sender<Option<FlowSource>>),
    /// Likewise to explain what becomes of a packet, or would, were something else in force.
    Explain {
        /// Something.
        supposing: bool,
        /// Where the answer goes.
        answer: oneshot::Sender<Option<explain::source::Source>>,
    },
}

/// The flow tables and what explains their entries.
pub struct FlowSource {
    /// Holds the flow tables.
    pub shared: Arc<Shared>,
    /// Names the backends.
    pub forwarding: Arc<Forwarding>,
    /// Now, by the tables' clock.
    pub now: crate::conntrack::Seconds,
}

/// The state of the dataplane.
pub struct Control {
    pub(crate) engine: Option<Engine>,
    pub(crate) steering: Steering,
    pub(crate) applied: Option<Applied>,
    /// The NIC whose loss ended the engine; it starts again once the NIC is back.
    pub(crate) lost_nic: Option<String>,
    pub(crate) sweep: Sweep,
    pub(crate) watchdog: Watchdog,
    pub(crate) losses: Losses,
    pub(crate) huge_pages: HugePages,
    /// Backends that sent packets back, and when they last did.
    pub(crate) looped: BTreeMap<IpAddr, std::time::Instant>,
    path_mtus: PathMtus,
    pub(crate) probes: Probes,
    pub(crate) clock: Clock,
    pub(crate) instance: u64,
    pub(crate) hops: watch::Receiver<Arc<HopMap>>,
    pub(crate) links: watch::Receiver<Arc<LinkMap>>,
    /// Why next hops are not followed at the moment.
    pub(crate) not_following: watch::Receiver<Option<String>>,
    /// Kept over a restart of the engine, with the sizes it was made for.
    flows: Option<(u32, u32, Arc<FlowTables>)>,
    cores: Vec<usize>,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    served: watch::Sender<BTreeSet<u32>>,
    compiler: Compiler,
}

/// The snapshot in force.
pub(crate) struct Applied {
    pub snapshot: Arc<Snapshot>,
    pub at: Instant,
    pub restart_needed: Vec<String>,
}

impl Control {
    /// Starts following next hops; attaches to nothing before the first snapshot. Must be called in a tokio
    /// runtime.
    pub fn new(steering: Steering, clock: Clock) -> Self {
        let (wanted, wanted_by) = watch::channel(BTreeSet::new());
        let (served, served_by) = watch::channel(BTreeSet::new());
        let (hops_out, hops) = watch::channel(Arc::default());
        let (links_out, links) = watch::channel(Arc::default());
        let (broken, not_following) = watch::channel(None);
        tokio::spawn(follow_for_ever(served_by, wanted_by, hops_out, links_out, broken));
        Self {
            engine: None,
            steering,
            applied: None,
            lost_nic: None,
            sweep: Sweep::default(),
            watchdog: Watchdog::default(),
            losses: Losses::default(),
            huge_pages: HugePages::default(),
            looped: BTreeMap::new(),
            path_mtus: PathMtus::default(),
            probes: Probes::default(),
            clock,
            instance: ahash::RandomState::new().hash_one(0),
            hops,
            links,
            not_following,
            flows: None,
            cores: cores::available(),
            wanted,
            served,
            compiler: Compiler::default(),
        }
    }

    /// Serves commands until `stop`; then detaches from the NICs and ends the workers.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ProgramError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulse = Pulse::of_environment();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return self.shut_down().await,
                Some(command) = commands.recv() => self.obey(command).await,
                Ok(()) = self.hops.changed() => self.publish_hops(),
                Ok(()) = self.links.changed() => self.publish_hops(),
                _ = ticks.tick() => {
                    self.tick().await;
                    pulse.beat(std::time::Instant::now());
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(snapshot, answer) => {
                let result = self.apply((*snapshot).into()).await;
                if let Err(rejected) = &result {
                    tracing::error!("{rejected}");
                }
                let _ = answer.send(result);
            }
            Command::Status(answer) => {
                self.huge_pages.renew(std::time::Instant::now());
                drop(answer.send(report::status(self)));
            }
            Command::Stats(answer) => drop(answer.send(report::stats(self))),
            Command::Flows(answer) => drop(answer.send(self.flow_source())),
            Command::Explain { supposing, answer } => drop(answer.send(self.explain_source(supposing))),
        }
    }

    async fn apply(&mut self, snapshot: Arc<Snapshot>) -> Result<Ack, Rejected> {
        let in_force = self.applied.as_ref().map_or(0, |applied| applied.snapshot.generation);
        if snapshot.generation < in_force {
            let late = snapshot.generation;
            return Err(Rejected {
                reason: format!("generation {late} is older than {in_force}, which is in force"),
            });
        }
        let table = Arc::new(self.compiler.compile(&snapshot).map_err(rejected)?);
        if let Some(before) = self.engine.as_ref().map(Engine::forwarding) {
            // Refused whole if the addresses do not fit.
            self.steering.own(&headrooms(&table, &before.hops, &before.nics)).map_err(rejected)?;
            self.probes.want(&snapshot.probes);
            self.ask_for_hops(&table).await;
            self.publish(table);
        } else {
            self.start(&snapshot, table).await.map_err(rejected)?;
        }
        let engine = self.engine.as_mut().expect("there was one, or it was started");
        let restart_needed = report::restart_needed(engine, &snapshot);
        let generation = snapshot.generation;
        self.applied = Some(Applied { snapshot, at: Instant::now(), restart_needed: restart_needed.clone() });
        engine.seen_by_all().await.map_err(rejected)?;
        tracing::info!(generation, "forwarding by a new snapshot");
        Ok(Ack { generation, restart_needed })
    }

    async fn start(&mut self, snapshot: &Snapshot, table: Arc<Table>) -> Result<(), engine::EngineError> {
        let ifindexes = engine::ifindexes(&snapshot.nics)?;
        self.served.send_replace(ifindexes.iter().copied().collect());
        self.probes.want(&snapshot.probes);
        self.ask_for_hops(&table).await;
        let ways = Ways {
            hops: &self.hops.borrow_and_update().clone(),
            links: &self.links.borrow_and_update().clone(),
            ifindexes: &ifindexes,
            path_mtus: &self.path_mtus,
            mtu_limit: None,
        };
        let (hops, nics) = (ways.to_backends(&table), ways.nics());
        let forwarding = Forwarding::new(1, table, hops, nics);
        let flows = self.flows_for(&snapshot.dataplane);
        let (nics, settings) = (snapshot.nics.as_slice(), &snapshot.dataplane);
        let plan = Plan { nics, settings, cores: &self.cores, clock: self.clock };
        self.engine = Some(Engine::start(&plan, forwarding, flows, &mut self.steering).await?);
        self.lost_nic = None;
        self.publish_hops();
        self.sweep = Sweep::default();
        self.watchdog = Watchdog::default();
        Ok(())
    }

    /// Has the ways to a table's backends and to probes followed, and gives those to new backends a moment to become known,
    /// so that their first packets are not dropped.
    async fn ask_for_hops(&mut self, table: &Table) {
        let mut wanted = self.probes.addresses();
        wanted.extend(table.backends().map(|(_, address)| address));
        let before = self.wanted.send_replace(wanted.clone());
        let new: Vec<IpAddr> = wanted.difference(&before).copied().collect();
        let known = |hops: &Arc<HopMap>| {
            new.iter().all(|address| hops.get(address).is_some_and(|hop| *hop != neighbor::Hop::Unresolved))
        };
        let _ = timeout(HOPS_PATIENCE, self.hops.clone().wait_for(known)).await;
    }

    fn flows_for(&mut self, settings: &DataplaneSettings) -> Arc<FlowTables> {
        let (v4, v6) = (settings.max_flows_v4, settings.max_flows_v6);
        let kept = self.flows.take().filter(|kept| (kept.0, kept.1) == (v4, v6));
        let make = || Arc::new(FlowTables::new(v4 as usize, v6 as usize));
        let flows =
            kept.map_or_else(|| cores::near_workers(&self.cores, &settings.cores, make), |kept| kept.2);
        self.flows = Some((v4, v6, flows.clone()));
        self.huge_pages = HugePages::read(std::time::Instant::now());
        log_memory(&flows, &self.huge_pages);
        flows
    }

    /// Publishes a table with the next hops known now.
    fn publish(&mut self, table: Arc<Table>) {
        let Some(engine) = &mut self.engine else { return };
        let ifindexes: Vec<u32> = engine.nics.iter().map(|nic| nic.ifindex).collect();
        let ways = Ways {
            hops: &self.hops.borrow_and_update(),
            links: &self.links.borrow_and_update(),
            ifindexes: &ifindexes,
            path_mtus: &self.path_mtus,
            mtu_limit: engine.mtu_limit(),
        };
        let (hops, nics) = (ways.to_backends(&table), ways.nics());
        let to_probes = ways.to_each(self.probes.addresses());
        // Ways with tags need more headroom, and ICMP errors about our tunnels come to their outer sources.
        let steered = self.steering.own(&headrooms(&table, &hops, &nics));
        let steered = steered.and_then(|()| self.steering.tunnel_sources(&tunnel_sources(&table, &hops)));
        let mut served = engine.nics.iter();
        let told = served.try_for_each(|nic| {
            let macs = stations(ways.links, nic.ifindex);
            self.steering.set_stations(&nic.configured.name, &macs)
        });
        if let Err(error) = steered.and(told) {
            tracing::error!("the steering program does not follow: {error}");
        }
        let (mtu, tunnel) = (nics.iter().map(|nic| nic.mtu).min().unwrap_or(0), table.tunnel);
        // Traffic comes first.
        engine.publish(table, hops, nics);
        let network = Network { hops: to_probes, tunnel: &tunnel, ifindexes: &ifindexes, mtu };
        self.probes.renew(network, std::time::Instant::now());
    }

    /// Takes in what the workers noticed.
    fn heed_notices(&mut self, now: std::time::Instant) {
        let Some(engine) = &self.engine else { return };
        let forwarding = engine.forwarding();
        let mut news = self.path_mtus.forget(now);
        for notice in engine.shared.notices.take() {
            match notice {
                Notice::TunnelTooBig { backend, mtu } => {
                    let Some(address) = forwarding.table.address(backend) else { continue };
                    if self.path_mtus.heard(address, mtu, now) {
                        tracing::info!(backend = %address, mtu = self.path_mtus.limit(address, mtu), "path MTU lowered by an ICMP message");
                        news = true;
                    }
                }
                Notice::Looped { backend } => {
                    if let Some(address) = forwarding.table.address(backend) {
                        self.looped.insert(address, now);
                    }
                }
            }
        }
        self.looped.retain(|_, at| now.duration_since(*at) < LOOP_MEMORY);
        if news {
            self.publish(forwarding.table.clone());
        }
    }

    fn publish_hops(&mut self) {
        let Some(before) = self.engine.as_ref().map(Engine::forwarding) else { return };
        self.publish(before.table.clone());
        if let Some(engine) = &self.engine {
            log_changes(&before, &engine.forwarding().hops);
        }
    }

    async fn tick(&mut self) {
        let lost = self.engine.as_ref().and_then(|engine| engine.lost_nic().map(str::to_owned));
        if let (Some(nic), Some(engine)) = (lost, self.engine.take_if(|engine| engine.lost_nic().is_some())) {
            tracing::error!(%nic, "a NIC is gone; forwarding stops until it is back");
            engine.stop().await;
            self.lost_nic = Some(nic);
        }
        let Some(engine) = &mut self.engine else { return self.start_again().await };
        engine.free_retired();
        self.watchdog.look(&engine.shared.stats);
        let forwarding = engine.forwarding();
        self.sweep.step(&engine.shared.flows, &forwarding.table, self.clock.now(), SWEEP_SLICES);
        for nic in &engine.nics {
            let name = &nic.configured.name;
            let counters = self.steering.counters(name).unwrap_or_default();
            self.losses.note(name, counters.dropped_no_socket, std::time::Instant::now());
        }
        let dropped = |stats: &WorkerStats| stats.dropped(DropReason::NatExhausted);
        let exhausted = engine.shared.stats.iter().map(|stats| dropped(stats)).sum();
        self.losses.note(report::NAT_EXHAUSTED, exhausted, std::time::Instant::now());
        self.heed_notices(std::time::Instant::now());
        self.probes.tick(std::time::Instant::now());
    }

    /// After the loss of a NIC: the last snapshot is obeyed for ever, also without a control plane.
    async fn start_again(&mut self) {
        let Some(snapshot) = self.applied.as_ref().map(|applied| applied.snapshot.clone()) else { return };
        match self.apply(snapshot).await {
            Ok(_) => tracing::info!("all NICs are back"),
            Err(error) => tracing::debug!(%error, "not yet"),
        }
    }

    fn flow_source(&self) -> Option<FlowSource> {
        let engine = self.engine.as_ref()?;
        Some(FlowSource {
            shared: engine.shared.clone(),
            forwarding: engine.forwarding(),
            now: self.clock.now(),
        })
    }

    fn explain_source(&self, supposing: bool) -> Option<explain::source::Source> {
        let engine = self.engine.as_ref()?;
        let nic = |nic: &EngineNic| (nic.configured.name.clone(), nic.ifindex);
        Some(explain::source::Source {
            forwarding: engine.forwarding(),
            flows: engine.shared.flows.clone(),
            compiler: supposing.then(|| self.compiler.clone()),
            hops: self.hops.borrow().clone(),
            links: self.links.borrow().clone(),
            nics: engine.nics.iter().map(nic).collect(),
            path_mtus: self.path_mtus.clone(),
            mtu_limit: engine.mtu_limit(),
            now: self.clock.now(),
        })
    }

    async fn shut_down(self) -> Result<(), ProgramError> {
        self.probes.stop();
        let removed = self.steering.detach()?;
        tracing::info!(?removed, "stopped");
        if let Some(engine) = self.engine {
            engine.stop().await;
        }
        Ok(())
    }
}

fn log_memory(flows: &FlowTables, huge_pages: &HugePages) {
    let size_bytes = flows.v4.size_bytes() + flows.v6.size_bytes();
    let tables = [flows.v4.addresses(), flows.v6.addresses()];
    let huge_page_bytes: usize = tables.iter().map(|table| huge_pages.bytes_in(table)).sum();
    tracing::info!(size_bytes, huge_page_bytes, "flow tables ready");
}

fn rejected(error: impl std::error::Error) -> Rejected {
    Rejected { reason: error.to_string() }
}

/// Followers that fail are started again; what they published stays in force meanwhile.
async fn follow_for_ever(
    served: watch::Receiver<BTreeSet<u32>>,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    hops: watch::Sender<Arc<HopMap>>,
    links: watch::Sender<Arc<LinkMap>>,
    broken: watch::Sender<Option<String>>,
) {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        let following = neighbor::follow(served.clone(), wanted.clone(), hops.clone(), links.clone());
        tokio::pin!(following);
        let ended = match timeout(2 * PAUSE, &mut following).await {
            Ok(ended) => ended,
            Err(_) => {
                broken.send_replace(None);
                following.await
            }
        };
        let Err(error) = ended;
        if matches!(error, neighbor::NeighborError::Closed) {
            return;
        }
        tracing::error!("next hops are not followed: {error}; starting again in {PAUSE:?}");
        broken.send_replace(Some(error.to_string()));
        tokio::time::sleep(PAUSE).await;
    }
}

fn log_changes(forwarding: &Forwarding, new: &[Hop]) {
    for (id, backend) in forwarding.table.backends() {
        let (was, is) = (forwarding.hops.get(id.0 as usize), &new[id.0 as usize]);
        match is {
            _ if was == Some(is) => {}
            Hop::Open(hop) => {
                let vlan = hop.link.vlan.map(|tag| tag.id);
                tracing::info!(%backend, vlan, mac = %hop.link.destination, "way to backend open");
            }
            Hop::Closed(reason) => tracing::warn!(%backend, reason = reason.name(), "way to backend closed"),
        }
    }
}
