//! Workers on NICs: sockets, threads and the steering program, from start to stop; and the publication of
//! tables to the workers with the proof that all have seen them.
//!
//! Order at start: sockets, then the addresses, then the program, then the threads, so that a packet to an
//! owned address never finds nobody: until its worker runs it waits in a ring. At stop the other way round.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use shunt_api::snapshot::{DataplaneSettings, Nic, XdpMode};
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::cores::Cores;
use crate::forward::FlowTables;
use crate::limits::{ACK_TIMEOUT, MAX_NICS};
use crate::port::xsk::{OpenError, QueueId, Settings, SocketHandle, Waker, XskPort};
use crate::program::{Attached, ProgramError, Steering};
use crate::queues::{self, QueuesError};
use crate::table::{Forwarding, Hop, Table};
use crate::worker::{Shared, Worker};

/// How long a queue that another process just closed may stay busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

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
    #[error("{0} NICs are configured; at most {MAX_NICS} are possible")]
    TooManyNics(usize),
    /// Not in this network namespace.
    #[error("there is no NIC `{nic}`; `nic-config show` lists those there are")]
    NoSuchNic {
        /// Name as configured.
        nic: String,
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
    /// Starts workers on `nics` that forward by `table` and go on with `flows`.
    pub async fn start(
        nics: &[Nic],
        settings: &DataplaneSettings,
        table: Arc<Table>,
        flows: Arc<FlowTables>,
        steering: &mut Steering,
        clock: Clock,
    ) -> Result<Self, EngineError> {
        let counted = count_queues(nics).await?;
        let partition = queues::partition(&counted);
        for nic in nics {
            steering.load(&nic.name)?;
        }
        let mut opened = Vec::with_capacity(partition.len());
        for queues in &partition {
            let (port, waker, sockets) = open(queues, nics, settings).await?;
            for socket in &sockets {
                use std::os::fd::AsFd;
                steering.insert_socket(&socket.queue.name, socket.queue.queue, socket.fd.as_fd())?;
            }
            opened.push((port, waker, sockets));
        }
        steering.own(&table.owned())?;
        let forwarding = Forwarding { sequence: 1, hops: Box::default(), table };
        let shared = Arc::new(Shared::new(forwarding, flows, opened.len()));
        steering.detach_others()?;
        let nics = attach(nics, &counted, steering)?;
        let workers = spawn(opened, &shared, settings, clock)?;
        Ok(Self { shared, nics, workers, settings: settings.clone(), retired: Vec::new() })
    }

    /// Whether a NIC is no longer the one that the sockets are bound to: removed, or removed and made anew.
    pub fn has_lost_a_nic(&self) -> bool {
        self.nics.iter().any(|nic| !ifindex(&nic.configured.name).is_ok_and(|ifindex| ifindex == nic.ifindex))
    }

    /// Publishes a view to all workers at once. The one before is kept until all have moved on.
    pub fn publish(&mut self, table: Arc<Table>, hops: Box<[Hop]>) {
        let sequence = self.shared.forwarding.load().sequence + 1;
        let forwarding = Arc::new(Forwarding { sequence, table, hops });
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
            sleep(Duration::from_millis(1)).await;
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
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.workers.iter().for_each(|worker| worker.waker.wake());
        for worker in self.workers {
            // A worker that panicked has ended the process already.
            let _ = worker.thread.join();
        }
    }
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
    Ok(counted)
}

fn ifindex(nic: &str) -> Result<u32, EngineError> {
    let no_such_nic = |_| EngineError::NoSuchNic { nic: nic.to_owned() };
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    socket.and_then(|socket| rustix::net::netdevice::name_to_index(socket, nic)).map_err(no_such_nic)
}

async fn open(
    queues: &[QueueId],
    nics: &[Nic],
    settings: &DataplaneSettings,
) -> Result<(XskPort, Waker, Vec<SocketHandle>), EngineError> {
    let zero_copy =
        nics.iter().map(|nic| nic.zero_copy).reduce(crate::port::xsk::combined).unwrap_or_default();
    let settings = Settings { ring_size: settings.ring_size, zero_copy, busy_poll: settings.busy_poll };
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        match XskPort::open(queues, &settings) {
            Err(error) if error.is_busy() && Instant::now() < deadline => sleep(RETRY_PAUSE).await,
            other => return Ok(other?),
        }
    }
}

type Opened = (XskPort, Waker, Vec<SocketHandle>);

fn spawn(
    opened: Vec<Opened>,
    shared: &Arc<Shared>,
    settings: &DataplaneSettings,
    clock: Clock,
) -> Result<Vec<EngineWorker>, EngineError> {
    let cores = Cores::for_workers(&settings.cores, opened.len());
    let mut workers = Vec::with_capacity(opened.len());
    for (index, (port, waker, sockets)) in opened.into_iter().enumerate() {
        let worker = Worker::new(port, shared.clone(), index, settings.batch as usize, settings.busy_poll);
        let core = cores.of_worker(index);
        let (pinned, is_pinned) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let _ = pinned.send(core.is_some_and(core_affinity::set_for_current));
            worker.run(|| clock.now());
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(body)?;
        let core = core.filter(|_| is_pinned.recv() == Ok(true)).map(|core| core.id);
        workers.push(EngineWorker { core, sockets, waker, thread });
    }
    // This is the control thread; it keeps off the workers' cores where there is another.
    if let Some(core) = cores.housekeeping() {
        core_affinity::set_for_current(core);
    }
    Ok(workers)
}

fn attach(
    nics: &[Nic],
    counted: &[(String, u32)],
    steering: &mut Steering,
) -> Result<Vec<EngineNic>, EngineError> {
    let mut attached = Vec::with_capacity(nics.len());
    for (nic, (_, queues)) in nics.iter().zip(counted) {
        let how = steering.attach(&nic.name, nic.xdp)?;
        let wanted_native = nic.xdp != XdpMode::Generic;
        tracing::info!(nic = %nic.name, queues, mode = ?how.mode, took_over = how.took_over, wanted_native, "attached");
        attached.push(EngineNic {
            configured: nic.clone(),
            ifindex: ifindex(&nic.name)?,
            queues: *queues,
            attached: how,
        });
    }
    Ok(attached)
}
