//! The control thread: takes snapshots, keeps next hops current, watches the workers.
//!
//! One task owns everything that changes ([`Control`]); requests reach it as [`Command`]s, so there is no
//! lock and no order to get wrong. It never touches a packet.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use shunt_api::counters::DropReason;
use shunt_api::snapshot::{Ack, DataplaneSettings, Rejected, Snapshot};
use shunt_api::status::{DataplaneStatus, Stats};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::engine::{Engine, EngineNic};
use crate::forward::FlowTables;
use crate::limits::SWEEP_PERIOD;
use crate::neighbor::{self, HopMap, LinkMap};
use crate::port::NicIndex;
use crate::program::{ProgramError, Steering};
use crate::report;
use crate::rewrite::Link;
use crate::sweep::Sweep;
use crate::table::{Compiler, Forwarding, Hop, OpenHop, Table};
use crate::watchdog::Watchdog;
use crate::worker::Shared;

/// Between two looks at the workers and two slices of the sweep.
const TICK: Duration = Duration::from_millis(250);
const SWEEP_SLICES: usize = (SWEEP_PERIOD.as_millis() / TICK.as_millis()) as usize;

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
    pub(crate) sweep: Sweep,
    pub(crate) watchdog: Watchdog,
    pub(crate) clock: Clock,
    pub(crate) instance: u64,
    /// Kept over a restart of the engine, with the sizes it was made for.
    flows: Option<(u32, u32, Arc<FlowTables>)>,
    pub(crate) hops: watch::Receiver<Arc<HopMap>>,
    pub(crate) links: watch::Receiver<Arc<LinkMap>>,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    served: watch::Sender<BTreeSet<u32>>,
    compiler: Compiler,
}

/// The snapshot in force.
pub(crate) struct Applied {
    pub snapshot: Box<Snapshot>,
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
        tokio::spawn(follow_for_ever(served_by, wanted_by, hops_out, links_out));
        Self {
            engine: None,
            steering,
            applied: None,
            sweep: Sweep::default(),
            watchdog: Watchdog::default(),
            clock,
            instance: ahash::RandomState::new().hash_one(0),
            flows: None,
            hops,
            links,
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
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return self.shut_down(),
                Some(command) = commands.recv() => self.obey(command).await,
                Ok(()) = self.hops.changed() => self.publish_hops(),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(snapshot, answer) => {
                let result = self.apply(snapshot).await;
                if let Err(rejected) = &result {
                    tracing::error!("{rejected}");
                }
                let _ = answer.send(result);
            }
            Command::Status(answer) => drop(answer.send(report::status(self))),
            Command::Stats(answer) => drop(answer.send(report::stats(self))),
            Command::Flows(answer) => drop(answer.send(self.flow_source())),
        }
    }

    async fn apply(&mut self, snapshot: Box<Snapshot>) -> Result<Ack, Rejected> {
        let table = self.compiler.compile(&snapshot).map_err(rejected)?;
        let table = Arc::new(table);
        if self.engine.is_some() {
            self.steering.own(&table.owned()).map_err(rejected)?;
        } else {
            let (nics, settings) = (&snapshot.nics, &snapshot.dataplane);
            let (flows, steering) = (self.flows_for(settings), &mut self.steering);
            let started = Engine::start(nics, settings, table.clone(), flows, steering, self.clock).await;
            let engine = started.map_err(rejected)?;
            self.served.send_replace(engine.nics.iter().map(|nic| nic.ifindex).collect());
            self.engine = Some(engine);
        }
        self.wanted.send_replace(table.backends().map(|(_, address)| address).collect());
        let engine = self.engine.as_mut().expect("started above");
        let hops = hops_for(&table, &self.hops.borrow_and_update(), &engine.nics);
        engine.publish(table, hops);
        let restart_needed = restart_needed(engine, &snapshot);
        engine.seen_by_all().await.map_err(rejected)?;
        let generation = snapshot.generation;
        tracing::info!(
            generation,
            services = snapshot.services.len(),
            pools = snapshot.pools.len(),
            "forwarding by a new snapshot"
        );
        self.applied = Some(Applied { snapshot, at: Instant::now(), restart_needed: restart_needed.clone() });
        Ok(Ack { generation, restart_needed })
    }

    fn flows_for(&mut self, settings: &DataplaneSettings) -> Arc<FlowTables> {
        let (v4, v6) = (settings.max_flows_v4, settings.max_flows_v6);
        let kept = self.flows.take().filter(|kept| (kept.0, kept.1) == (v4, v6));
        let flows = kept.map_or_else(|| Arc::new(FlowTables::new(v4 as usize, v6 as usize)), |kept| kept.2);
        self.flows = Some((v4, v6, flows.clone()));
        flows
    }

    fn publish_hops(&mut self) {
        let hops = self.hops.borrow_and_update().clone();
        let Some(engine) = &mut self.engine else { return };
        let forwarding = engine.forwarding();
        let new = hops_for(&forwarding.table, &hops, &engine.nics);
        if new != forwarding.hops {
            log_changes(&forwarding, &new);
            engine.publish(forwarding.table.clone(), new);
        }
    }

    fn tick(&mut self) {
        if let Some(engine) = self.engine.take_if(|engine| engine.has_lost_a_nic()) {
            // Without a generation in force the control plane sends its snapshot until the NIC is back.
            tracing::error!("a NIC is gone; the workers end, and start again once it is back");
            engine.stop();
            self.applied = None;
        }
        let Some(engine) = &mut self.engine else { return };
        engine.free_retired();
        self.watchdog.look(&engine.shared.stats, std::time::Instant::now());
        let forwarding = engine.forwarding();
        self.sweep.step(&engine.shared.flows, &forwarding.table, self.clock.now(), SWEEP_SLICES);
    }

    fn flow_source(&self) -> Option<FlowSource> {
        let engine = self.engine.as_ref()?;
        Some(FlowSource {
            shared: engine.shared.clone(),
            forwarding: engine.forwarding(),
            now: self.clock.now(),
        })
    }

    fn shut_down(self) -> Result<(), ProgramError> {
        let removed = self.steering.detach()?;
        tracing::info!(?removed, "stopped");
        if let Some(engine) = self.engine {
            engine.stop();
        }
        Ok(())
    }
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
) {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        let Err(error) = neighbor::follow(served.clone(), wanted.clone(), hops.clone(), links.clone()).await;
        if matches!(error, neighbor::NeighborError::Closed) {
            return;
        }
        tracing::error!("next hops are not followed: {error}; starting again in {PAUSE:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The way to each backend of a table, as the workers read it.
fn hops_for(table: &Table, hops: &HopMap, nics: &[EngineNic]) -> Box<[Hop]> {
    let mut by_id = vec![Hop::Closed(DropReason::NeighborUnresolved); table.backend_limit()];
    for (id, address) in table.backends() {
        if let Some(hop) = hops.get(&address) {
            by_id[id.0 as usize] = hop_for(hop, nics);
        }
    }
    by_id.into()
}

fn hop_for(hop: &neighbor::Hop, nics: &[EngineNic]) -> Hop {
    let resolved = match hop {
        neighbor::Hop::Resolved(resolved) => resolved,
        neighbor::Hop::NoRoute => return Hop::Closed(DropReason::NoRoute),
        neighbor::Hop::RouteElsewhere { .. } => return Hop::Closed(DropReason::RouteElsewhere),
        neighbor::Hop::Unresolved => return Hop::Closed(DropReason::NeighborUnresolved),
    };
    let Some(index) = nics.iter().position(|nic| nic.ifindex == resolved.ifindex) else {
        return Hop::Closed(DropReason::RouteElsewhere);
    };
    Hop::Open(OpenHop {
        nic: NicIndex(index as u8),
        link: Link { destination: resolved.destination_mac, source: resolved.source_mac, mtu: resolved.mtu },
        on_link: resolved.gateway.is_none(),
        source: resolved.source_address,
    })
}

fn log_changes(forwarding: &Forwarding, new: &[Hop]) {
    for (id, backend) in forwarding.table.backends() {
        let (was, is) = (forwarding.hops.get(id.0 as usize), &new[id.0 as usize]);
        match is {
            _ if was == Some(is) => {}
            Hop::Open(hop) => tracing::info!(%backend, mac = %hop.link.destination, "way to backend open"),
            Hop::Closed(reason) => tracing::warn!(%backend, reason = reason.name(), "way to backend closed"),
        }
    }
}

/// What of a snapshot the running engine cannot take over.
fn restart_needed(engine: &Engine, snapshot: &Snapshot) -> Vec<String> {
    let mut differing = Vec::new();
    if !engine.nics.iter().map(|nic| &nic.configured).eq(&snapshot.nics) {
        differing.push("the list of NICs or their settings ([[nic]]) changed".to_owned());
    }
    if engine.settings != snapshot.dataplane {
        differing.push("the settings of [dataplane] changed".to_owned());
    }
    differing
}
