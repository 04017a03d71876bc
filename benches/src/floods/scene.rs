//! A worker and its confirmed flows, each of which must go on to the backend that it began with.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use shunt_api::snapshot::Protocol;
use shunt_dataplane::conntrack::{Seconds, State};
use shunt_dataplane::flow::{FlowKey, FlowKey4, Tuple};
use shunt_dataplane::table::{Compiler, Table};
use shunt_tests::error::{Error, Result};

use super::flood::{Kind, is_flood};
use crate::stage::{self, ACK, Flow, Network, ROUND, Random, SYN, Sent, Stage};

/// The only VIP.
pub const VIP: [u8; 4] = [203, 0, 113, 10];
/// First address of clients that behave.
const CLIENTS: u32 = 0x0b00_0000;
/// Flows of one client.
const PORTS: usize = 50_000;
const BACKENDS: usize = 100;

/// The worker and what it has been seen to do.
pub struct Scene {
    /// The worker.
    pub stage: Stage,
    /// What it forwards by.
    pub table: Arc<Table>,
    /// Time of the flow table.
    pub now: Seconds,
    /// Packets that did not go where they had to, so far.
    pub moved: u64,
    /// Packets that did not leave, so far.
    pub lost: u64,
    /// By the number of the flow.
    backends: Vec<Ipv4Addr>,
    /// Numbers of the confirmed flows.
    confirmed: Vec<u32>,
    random: Random,
}

/// Live entries of a flow table.
#[derive(Clone, Copy, Default)]
pub struct Live {
    /// That make room for others.
    pub unconfirmed: u64,
    /// That do not.
    pub confirmed: u64,
}

impl Scene {
    /// With a table for `max_flows` in which as many of `flows` are confirmed as there is room for. Every fourth is
    /// of UDP.
    pub fn new(max_flows: usize, flows: usize) -> Result<Self> {
        let snapshot = stage::snapshot(&configuration())?;
        let table =
            Compiler::default().compile(&snapshot).map_err(|error| Error::Wrong(error.to_string()))?;
        let table = Arc::new(table);
        let forwarding = Network::of(&snapshot).forwarding(1, table.clone());
        let mut scene = Self {
            stage: Stage::new(forwarding, max_flows),
            table,
            now: Seconds(1),
            moved: 0,
            lost: 0,
            backends: vec![Ipv4Addr::UNSPECIFIED; flows],
            confirmed: vec![],
            random: Random::new(1),
        };
        for first in (0..flows).step_by(ROUND) {
            let some = first..flows.min(first + ROUND);
            scene.pass(some.clone(), SYN);
            scene.pass(some, ACK);
        }
        scene.confirmed = (0..flows as u32).filter(|&number| scene.is_confirmed(number as usize)).collect();
        Ok(scene)
    }

    /// How many flows are confirmed.
    pub fn confirmed_flows(&self) -> usize {
        self.confirmed.len()
    }

    /// A packet of each confirmed flow.
    pub fn pass_confirmed(&mut self) {
        let confirmed = self.confirmed.clone();
        self.pass(confirmed.into_iter().map(|number| number as usize), ACK);
    }

    /// A packet each of these flows, which are remembered if they are new.
    pub fn pass(&mut self, flows: impl Iterator<Item = usize>, flags: u8) {
        let mut packets = flows.map(|number| flow(number).packet(flags)).peekable();
        while packets.peek().is_some() {
            self.round(packets.by_ref().take(ROUND));
        }
    }

    /// A round of random confirmed flows.
    pub fn confirmed_round(&mut self) -> Duration {
        let packets: [_; ROUND] = std::array::from_fn(|_| self.next_confirmed());
        self.round(packets.into_iter())
    }

    /// A packet of a random confirmed flow.
    pub fn next_confirmed(&mut self) -> [u8; 60] {
        let number = self.confirmed[self.random.below(self.confirmed.len())];
        flow(number as usize).packet(ACK)
    }

    /// A round of packets. Returns the time that the worker took.
    pub fn round(&mut self, packets: impl Iterator<Item = [u8; 60]>) -> Duration {
        let mut injected = 0;
        let took = self.stage.round(packets.inspect(|_| injected += 1), self.now);
        let (backends, table, moved) = (&mut self.backends, &self.table, &mut self.moved);
        let sent = self.stage.drain(|sent| *moved += u64::from(!is_right(sent, backends, table)));
        self.lost += injected - sent as u64;
        took
    }

    /// Counts the entries of the table.
    pub fn live(&self) -> Live {
        let (flows, mut live) = (&self.stage.shared.flows.v4, Live::default());
        for bucket in 0..flows.buckets() {
            flows.visit(bucket, |_, hit| match hit.control.state() {
                State::Unconfirmed => live.unconfirmed += 1,
                _ => live.confirmed += 1,
            });
        }
        live
    }

    /// Begins flows anew after those that there are. Returns their numbers.
    pub fn new_flows(&mut self, count: usize) -> std::ops::Range<usize> {
        let first = self.backends.len();
        self.backends.resize(first + count, Ipv4Addr::UNSPECIFIED);
        first..first + count
    }

    fn is_confirmed(&self, number: usize) -> bool {
        let flows = &self.stage.shared.flows.v4;
        let Some(key) = FlowKey4::of(&flow(number).key()) else { return false };
        let hit = flows.find(&key.words(), flows.places(&key.words()));
        hit.is_some_and(|hit| hit.control.state() != State::Unconfirmed)
    }
}

/// Whether a packet went where it had to: a flow's to where its first one went, the flood's to where any box would
/// send it.
fn is_right(sent: Sent, backends: &mut [Ipv4Addr], table: &Table) -> bool {
    if is_flood(sent.client) {
        return Kind::ALL.iter().any(|kind| chosen(table, &kind.flow(&sent).key()) == Some(sent.backend));
    }
    let number = (sent.client - CLIENTS) as usize * PORTS + usize::from(sent.client_port) - 1024;
    let backend = &mut backends[number];
    if backend.is_unspecified() {
        *backend = sent.backend;
    }
    *backend == sent.backend
}

/// The backend that Maglev chooses.
fn chosen(table: &Table, flow: &FlowKey) -> Option<Ipv4Addr> {
    let listener = table.listener(table.listener_of(flow)?);
    let member = table.choose(listener, flow)?;
    match table.pool(listener.pool).member(member).address {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

fn flow(number: usize) -> Flow {
    let (protocol, port) = if number % 4 == 3 { (Protocol::Udp, 53) } else { (Protocol::Tcp, 80) };
    let client = CLIENTS + (number / PORTS) as u32;
    Flow { client, client_port: (1024 + number % PORTS) as u16, vip: VIP, port, protocol }
}

fn configuration() -> String {
    let backend = |i| format!("{{ name = \"b{i}\", address = \"10.0.1.{i}\" }}");
    let backends: Vec<_> = (1..=BACKENDS).map(backend).collect();
    format!(
        r#"
        nic = [{{ name = "eth1" }}]
        pools.a.backends = [{}]
        service = [{{ name = "s", vip = "203.0.113.10", ports = ["tcp/80", "udp/53"], pool = "a" }}]
        "#,
        backends.join(", ")
    )
}
