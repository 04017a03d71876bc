//! Workers on NICs: sockets, threads and the steering program, from start to stop; and the publication of
//! tables to the workers with the proof that all have seen them.
//!
//! Order at start: sockets, then the addresses, then the program, then the threads, so that a packet to an
//! owned address never finds nobody: until its worker runs it waits in a ring. At stop the other way round.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice};
use shunt_api::snapshot::{DataplaneSettings, Nic, XdpMode, ZeroCopy};
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::cores::Cores;
use crate::forward::FlowTables;
use crate::limits::{ACK_TIMEOUT, MAX_NICS, SINGLE_BUFFER_MTU, STOP_PATIENCE};
use crate::port::Port;
use crate::port::xsk::{
    EitherPort, Mode, Offers, OpenError, QueueId, Settings, SocketHandle, Waker, combined,
};
use crate::program::{Attached, AttachedMode, ProgramError, Steering};
use crate::queues::{self, QueuesError};
use crate::table::{Forwarding, Hop, NicLink, Table};
use crate::worker::{Shared, Worker};

/// How long a queue that another process just closed may stay busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at something that ends within microseconds.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Running workers.
pub struct Engine {
    /// What the workers share.
    pub shared: Arc<Shared>,
    /// NICs attached to, in the order of the configuration.
    pub nics: Vec<EngineNic>,
    /// The workers, by index.
    pub workers: Vec<EngineWorker>,
    /// Settings that the workers were started with.
    pub settings: DataplaneSettings,
    /// Views that a worker may still read, oldest first; dropped here and never on a worker.
    retired: Vec<Arc<Forwarding>>,
}

/// One NIC of a running engine.
pub struct EngineNic {
    /// As configured.
    pub configured: Nic,
    /// Kernel index.
    pub ifindex: u32,
    /// Queues served.
    pub queues: u32,
    /// How the program got attached.
    pub attached: Attached,
}

/// One worker of a running engine.
pub struct EngineWorker {
    /// Core it is pinned to, if that worked.
    pub core: Option<usize>,
    /// What it serves.
    pub sockets: Vec<SocketHandle>,
    waker: Waker,
    thread: JoinHandle<()>,
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No NIC to forward on.
    #[error("no NIC is configured; add [[nic]] with a name")]
    NoNic,
    /// More than next hops can name.
    #[error("{0} NICs are configured; remove some, at most {MAX_NICS} are possible")]
    TooManyNics(usize),
    /// Not in this network namespace.
    #[error("there is no NIC `{nic}`; `nic-config show` lists those there are")]
    NoSuchNic {
        /// Name as configured.
        nic: String,
    },
    /// The kernel does not say.
    #[error("cannot look {nic} up: {source}; the limit of open files may be too low (LimitNOFILE=)")]
    Ask {
        /// Name as configured.
        nic: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Queue counts.
    #[error(transparent)]
    Queues(#[from] QueuesError),
    /// Sockets.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The steering program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Threads.
    #[error("cannot start a worker thread: {0}; raise the limit of tasks (TasksMax=)")]
    Thread(#[from] std::io::Error),
}

/// A worker has not seen a published view in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "worker {worker} did not take over the new table within {ACK_TIMEOUT:?}; it hangs, see `lbctl status`"
)]
pub struct NotSeen {
    /// Its index.
    pub worker: usize,
}

impl Engine {
    /// Starts workers on `nics` that forward by `forwarding` and go on with `flows`.
    pub async fn start(
        plan: &Plan<'_>,
        forwarding: Forwarding,
        flows: Arc<FlowTables>,
        steering: &mut Steering,
    ) -> Result<Self, EngineError> {
        let counted = count_queues(plan.nics).await?;
        let partition = queues::partition(&counted);
        for nic in plan.nics {
            steering.load(&nic.name)?;
        }
        let zero_copy = plan.nics.iter().map(zero_copy_of).reduce(combined).unwrap_or_default();
        let jumbo = forwarding.nics.iter().any(|nic| nic.mtu > SINGLE_BUFFER_MTU);
        let mut opened = open_all(&partition, plan.settings, &Offers::of(zero_copy, jumbo), steering).await?;
        steering.own(&forwarding.table.owned())?;
        steering.detach_others()?;
        let nics = attach(plan.nics, &counted, steering)?;
        let is_zero_copy = opened.iter().flat_map(|o| &o.sockets).any(|socket| socket.mode == Mode::ZeroCopy);
        if is_zero_copy && nics.iter().any(|nic| nic.attached.mode == AttachedMode::Generic) {
            // A driver that does not run the program does not serve its zero-copy sockets either.
            drop(opened);
            let offers = Offers::of(ZeroCopy::Off, jumbo);
            opened = open_all(&partition, plan.settings, &offers, steering).await?;
        }
        log_sockets(&opened);
        let shared = Arc::new(Shared::new(forwarding, flows, opened.len()));
        let workers = spawn(opened, &shared, plan)?;
        Ok(Self { shared, nics, workers, settings: plan.settings.clone(), retired: Vec::new() })
    }

    /// The name of a NIC that is no longer the one that the sockets are bound to: removed, or removed and made
    /// anew.
    pub fn lost_nic(&self) -> Option<&str> {
        let lost = self.nics.iter().find(|nic| match ifindex(&nic.configured.name) {
            Ok(ifindex) => ifindex != nic.ifindex,
            Err(error) => matches!(error, EngineError::NoSuchNic { .. }),
        });
        lost.map(|nic| nic.configured.name.as_str())
    }

    /// Bytes of the largest IP packet that surely passes the sockets; `None` where packets of any size do, in
    /// several buffers.
    pub fn mtu_limit(&self) -> Option<u32> {
        mtu_limit(self.workers.iter().flat_map(|worker| &worker.sockets))
    }

    /// Publishes a view to all workers at once. The one before is kept until all have moved on.
    pub fn publish(&mut self, table: Arc<Table>, hops: Box<[Hop]>, nics: Box<[NicLink]>) {
        let sequence = self.shared.forwarding.load().sequence + 1;
        let forwarding = Forwarding::new(sequence, table, hops, nics);
        let forwarding = Arc::new(forwarding.after(&self.shared.forwarding.load()));
        self.retired.push(self.shared.forwarding.swap(forwarding));
        self.workers.iter().for_each(|worker| worker.waker.wake());
        self.free_retired();
    }

    /// The view in force.
    pub fn forwarding(&self) -> Arc<Forwarding> {
        self.shared.forwarding.load_full()
    }

    /// Waits until all workers forward by the view in force.
    pub async fn seen_by_all(&mut self) -> Result<(), NotSeen> {
        let sequence = self.forwarding().sequence;
        let deadline = Instant::now() + ACK_TIMEOUT;
        loop {
            let behind =
                self.shared.stats.iter().position(|stats| stats.seen.load(Ordering::Acquire) < sequence);
            let Some(worker) = behind else { break };
            if Instant::now() > deadline {
                return Err(NotSeen { worker });
            }
            sleep(SHORT_PAUSE).await;
        }
        self.free_retired();
        Ok(())
    }

    /// Drops the views that no worker can hold any more.
    pub fn free_retired(&mut self) {
        let seen_by_all = self.shared.stats.iter().map(|stats| stats.seen.load(Ordering::Acquire)).min();
        self.retired.retain(|forwarding| seen_by_all.is_none_or(|seen| seen <= forwarding.sequence));
    }

    /// Ends the workers and closes their sockets. The program is detached by its owner, before.
    pub async fn stop(self) {
        stop_workers(&self.shared, self.workers).await;
    }
}

/// What an engine is started with.
pub struct Plan<'a> {
    /// NICs to attach to.
    pub nics: &'a [Nic],
    /// Rings and batches.
    pub settings: &'a DataplaneSettings,
    /// Cores this process may use.
    pub cores: &'a [usize],
    /// Time for the workers.
    pub clock: Clock,
}

async fn stop_workers(shared: &Shared, workers: Vec<EngineWorker>) {
    shared.stop.store(true, Ordering::Relaxed);
    workers.iter().for_each(|worker| worker.waker.wake());
    let deadline = Instant::now() + STOP_PATIENCE;
    for (index, worker) in workers.into_iter().enumerate() {
        while !worker.thread.is_finished() && Instant::now() < deadline {
            sleep(SHORT_PAUSE).await;
        }
        if worker.thread.is_finished() {
            // A worker that panicked is of no further interest: its sockets are closed.
            let _ = worker.thread.join();
        } else {
            tracing::error!(
                worker = index,
                "a worker does not end; its queues stay in use until this process does"
            );
        }
    }
}

/// Indices of NICs in the order of the configuration.
pub fn ifindexes(nics: &[Nic]) -> Result<Vec<u32>, EngineError> {
    nics.iter().map(|nic| ifindex(&nic.name)).collect()
}

async fn count_queues(nics: &[Nic]) -> Result<Vec<(String, u32)>, EngineError> {
    match nics.len() {
        0 => return Err(EngineError::NoNic),
        count if count > MAX_NICS => return Err(EngineError::TooManyNics(count)),
        _ => {}
    }
    let mut counted = Vec::with_capacity(nics.len());
    for nic in nics {
        ifindex(&nic.name)?;
        counted.push((nic.name.clone(), queues::to_serve(nic).await?));
    }
    let counts = || counted.iter().map(|(_, queues)| *queues);
    if counts().min() != counts().max() {
        let workers = counts().min();
        tracing::warn!(
            ?counted,
            workers,
            "NICs differ in queues, so workers serve several; `ethtool -L` makes them equal"
        );
    }
    Ok(counted)
}

fn ifindex(nic: &str) -> Result<u32, EngineError> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None);
    let index = socket.and_then(|socket| netdevice::name_to_index(socket, nic));
    index.map_err(|error| match error {
        Errno::NODEV => EngineError::NoSuchNic { nic: nic.to_owned() },
        other => EngineError::Ask { nic: nic.to_owned(), source: other.into() },
    })
}

/// Generic XDP runs outside the driver, which then cannot serve a zero-copy socket.
fn zero_copy_of(nic: &Nic) -> ZeroCopy {
    if nic.xdp == XdpMode::Generic { ZeroCopy::Off } else { nic.zero_copy }
}

/// One worker's sockets, known to the steering program.
struct Opened {
    port: EitherPort,
    waker: Waker,
    sockets: Vec<SocketHandle>,
}

async fn open_all(
    partition: &[Vec<QueueId>],
    settings: &DataplaneSettings,
    offers: &Offers,
    steering: &Steering,
) -> Result<Vec<Opened>, EngineError> {
    let mut opened = Vec::with_capacity(partition.len());
    for queues in partition {
        let (port, waker, sockets) = open(queues, settings, offers.clone()).await?;
        for SocketHandle { queue, fd, .. } in &sockets {
            steering.insert_socket(&queue.name, queue.queue, fd.as_fd())?;
        }
        opened.push(Opened { port, waker, sockets });
    }
    Ok(opened)
}

fn log_sockets(opened: &[Opened]) {
    let sockets = || opened.iter().flat_map(|opened| &opened.sockets);
    let zero_copy = sockets().all(|socket| socket.mode == Mode::ZeroCopy);
    let mtu_limit = mtu_limit(sockets());
    tracing::info!(workers = opened.len(), zero_copy, multi_buffer = mtu_limit.is_none(), "sockets open");
    if let Some(mtu) = mtu_limit {
        tracing::warn!(
            "packets up to {mtu} bytes of MTU pass, larger ones are lost: a driver or the kernel does not hand \
             over packets in several buffers; keep the MTU of the NICs within that, or try zero_copy = \"off\""
        );
    }
}

fn mtu_limit<'a>(sockets: impl Iterator<Item = &'a SocketHandle>) -> Option<u32> {
    sockets.filter_map(SocketHandle::mtu_limit).min()
}

/// Opens a worker's sockets; a queue that another process just left is waited for.
async fn open(
    queues: &[QueueId],
    settings: &DataplaneSettings,
    mut offers: Offers,
) -> Result<(EitherPort, Waker, Vec<SocketHandle>), OpenError> {
    let rings = settings.rings;
    let settings = Settings { ring_size: settings.ring_size, busy_poll: settings.busy_poll };
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        match EitherPort::open(rings, queues, &settings, &mut offers) {
            Err(error) if error.is_busy() && Instant::now() < deadline => sleep(RETRY_PAUSE).await,
            other => return other,
        }
    }
}

fn spawn(
    opened: Vec<Opened>,
    shared: &Arc<Shared>,
    plan: &Plan<'_>,
) -> Result<Vec<EngineWorker>, EngineError> {
    let cores = Cores::choose(plan.cores, &plan.settings.cores, opened.len());
    let mut workers = Vec::with_capacity(opened.len());
    for (index, Opened { port, waker, sockets }) in opened.into_iter().enumerate() {
        let run = match port {
            EitherPort::Own(port) => run_on(port, shared, index, plan),
            EitherPort::XskRs(port) => run_on(port, shared, index, plan),
        };
        let core = cores.of_worker(index);
        let (pinned, is_pinned) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let _ = pinned.send(core.is_some_and(core_affinity::set_for_current));
            run();
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(body);
        let thread = thread.inspect_err(|_| shared.stop.store(true, Ordering::Relaxed))?;
        let core = core.filter(|_| is_pinned.recv() == Ok(true)).map(|core| core.id);
        workers.push(EngineWorker { core, sockets, waker, thread });
    }
    // This is the control thread; it keeps off the workers' cores where there is another.
    if let Some(core) = cores.housekeeping() {
        core_affinity::set_for_current(core);
    }
    Ok(workers)
}

/// What a worker's thread does, compiled for the kind of its port.
fn run_on(
    port: impl Port + Send + 'static,
    shared: &Arc<Shared>,
    index: usize,
    plan: &Plan<'_>,
) -> Box<dyn FnOnce() + Send> {
    let (batch, busy_poll, clock) = (plan.settings.batch as usize, plan.settings.busy_poll, plan.clock);
    let worker = Worker::new(port, shared.clone(), index, batch, busy_poll);
    Box::new(move || worker.run(|| clock.now()))
}

fn attach(
    nics: &[Nic],
    counted: &[(String, u32)],
    steering: &mut Steering,
) -> Result<Vec<EngineNic>, EngineError> {
    let mut attached = Vec::with_capacity(nics.len());
    for (nic, (_, queues)) in nics.iter().zip(counted) {
        let how = steering.attach(&nic.name, nic.xdp)?;
        tracing::info!(nic = %nic.name, queues, mode = %how.mode, took_over = how.took_over, "attached");
        let ifindex = ifindex(&nic.name)?;
        attached.push(EngineNic { configured: nic.clone(), ifindex, queues: *queues, attached: how });
    }
    Ok(attached)
}
