//! The backends of the configuration and how each is: what their checks say and what operators ask for; and what the
//! dataplane shall balance over for it. Pure, without a clock.
//!
//! ```text
//!   configuration ─┐                       ┌→ watches: what to probe, and by which way
//!   health events ─┼→ Roster → standings ──┼→ a snapshot to balance over
//!   drain, undrain ┘                       └→ happenings
//! ```

mod changes;
mod numbers;
mod standing;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shunt_api::config::{Config, Service, Target, Targets, Via};
use shunt_api::snapshot::{Mode, PROBE_MARK, ProbeWay, Snapshot};
use shunt_api::status::DrainRequest;
use tracing::Level;

use crate::balance::{Condition, balanced, forsaken};
use crate::health::{Health, HealthEvent, Watch, Way, next_step};
use crate::journal::Happening;
use numbers::Numbers;
use standing::Known;
pub use standing::{Standing, question};

/// A backend of a pool: its identity is its address, so that another name changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Name of the pool.
    pub pool: String,
    /// Address of the backend.
    pub backend: IpAddr,
}

/// What must outlive the process, lest a restart sends flows to where nobody answers or an operator wants none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Whom operators drain.
    #[serde(default)]
    pub drained: BTreeSet<Member>,
    /// Who is down.
    #[serde(default)]
    pub down: BTreeSet<Member>,
}

/// The backends and how they are.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// `None` before the first good configuration.
    configured: Option<Configured>,
    known: HashMap<Target, Known>,
    drained: BTreeSet<Member>,
    /// Who was down when the process before this one ended; taken into account by the first configuration.
    remembered_down: BTreeSet<Member>,
    /// By pool and place in it.
    standings: Vec<Vec<Standing>>,
    /// Names of services all of whose backends are down.
    forsaken: BTreeSet<String>,
    numbers: Numbers,
    revision: u64,
    /// To be told with the next balance.
    untold: Vec<Happening>,
}

#[derive(Clone, Debug)]
struct Configured {
    config: Arc<Config>,
    /// As if all were up, with the ways of probes; generation 0.
    whole: Snapshot,
    targets: Targets,
}

/// The links to backends: bytes of IP packet that they carry, and the names of the NICs.
pub type Hops = HashMap<IpAddr, (u32, Arc<str>)>;

/// What came of looking at all backends.
pub struct Balance {
    /// To balance over; generation 0.
    pub snapshot: Snapshot,
    /// What became another.
    pub happenings: Vec<Happening>,
}

impl Roster {
    /// Without a configuration yet.
    pub fn new(memory: Memory) -> Self {
        Self { drained: memory.drained, remembered_down: memory.down, ..Self::default() }
    }

    /// Goes by a configuration; `whole` is its snapshot. What is known of backends that stay is kept. Returns whether
    /// anything of it differs from the one before.
    pub fn load(&mut self, config: Arc<Config>, mut whole: Snapshot) -> bool {
        let targets = config.targets();
        let by_service = targets.targets.iter().filter(|target| by_service(target));
        whole.probes = self.numbers.give(by_service.map(|target| (target.backend, target.mode)));
        let changed = self.configured.as_ref().is_none_or(|before| {
            before.whole != whole
                || before.config.pools != config.pools
                || before.config.services != config.services
                || before.config.announce != config.announce
        });
        let asked: HashSet<&Target> = targets.targets.iter().collect();
        let asked_before: HashSet<&Target> =
            self.configured.iter().flat_map(|configured| &configured.targets.targets).collect();
        self.known.retain(|target, _| asked.contains(target) && asked_before.contains(target));
        let down = std::mem::take(&mut self.remembered_down);
        let mut before = self.by_member();
        let mut standing = |pool, backend| {
            let member = Member::of(&config, pool, backend);
            let remembered = || Standing { down: down.contains(&member), ..Standing::default() };
            before.remove(&member).unwrap_or_else(remembered)
        };
        let pools = config.pools.iter().enumerate();
        self.standings = pools
            .map(|(pool, value)| (0..value.backends.len()).map(|backend| standing(pool, backend)).collect())
            .collect();
        self.forget_drains(&config);
        let names: HashSet<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        self.forsaken.retain(|name| names.contains(name.as_str()));
        self.configured = Some(Configured { config, whole, targets });
        changed
    }

    /// Who left the configuration is drained no longer.
    fn forget_drains(&mut self, config: &Config) {
        if self.drained.is_empty() {
            return;
        }
        let present: HashSet<Member> =
            places_of(config).map(|(pool, backend)| Member::of(config, pool, backend)).collect();
        for Member { pool, backend } in self.drained.extract_if(.., |drained| !present.contains(drained)) {
            self.untold.push(Happening {
                level: Level::WARN,
                subject: format!("backend {backend} of pool {pool}"),
                text: "no longer draining".into(),
                reason: Some("it left the configuration; drain it again if it returns".into()),
            });
        }
    }

    /// Takes in what checks found.
    pub fn observe(&mut self, events: Vec<HealthEvent>) {
        for HealthEvent { watch, transition } in events {
            let known = Known { health: transition.to, since: transition.at, reason: transition.reason };
            self.known.insert(watch.subject.clone(), known);
        }
    }

    /// Drains the backends of a name or address, or ends that. The error says that there is none.
    pub fn set_drained(&mut self, request: &DrainRequest) -> Result<(), String> {
        let places = self.find(request);
        if places.is_empty() {
            return Err(no_such_backend(request));
        }
        for (pool, backend) in &places {
            let member = self.member(*pool, *backend);
            if request.drained {
                self.drained.insert(member)
            } else {
                self.drained.remove(&member)
            };
        }
        Ok(())
    }

    /// Looks at all backends. `None` before the first configuration.
    pub fn balance(&mut self, now: Instant) -> Option<Balance> {
        let standings = self.judged()?;
        self.revision += 1;
        let configured = self.configured.as_ref()?;
        let config = &configured.config;
        let mut happenings = std::mem::take(&mut self.untold);
        happenings.extend(changes::of_backends(config, &self.standings, &standings));
        self.standings = standings;
        let conditions = self.conditions(now);
        let forsaken = forsaken(config, &conditions);
        happenings.extend(changes::of_services(&self.forsaken, &forsaken));
        self.forsaken = forsaken.into_iter().map(|service| service.name.clone()).collect();
        let snapshot = balanced(config, &configured.whole, &conditions);
        Some(Balance { snapshot, happenings })
    }

    /// To balance over, as all backends stand.
    fn snapshot(&self, now: Instant) -> Option<Snapshot> {
        let configured = self.configured.as_ref()?;
        Some(balanced(&configured.config, &configured.whole, &self.conditions(now)))
    }

    fn conditions(&self, now: Instant) -> Vec<Vec<Condition>> {
        let of_pool = |pool: &Vec<Standing>| pool.iter().map(|standing| standing.condition(now)).collect();
        self.standings.iter().map(of_pool).collect()
    }

    /// As it would be by another configuration, or with backends down of these names or addresses; and what would be
    /// balanced over. The error says that there is no such backend. `None` before the first configuration.
    pub fn supposing(
        &self,
        other: Option<(Arc<Config>, Snapshot)>,
        down: &[String],
        now: Instant,
    ) -> Option<Result<(Self, Snapshot), String>> {
        let mut supposed = self.clone();
        if let Some((config, whole)) = other {
            supposed.load(config, whole);
        }
        supposed.standings = supposed.judged()?;
        for backend in down {
            let request = DrainRequest { backend: backend.clone(), ..DrainRequest::default() };
            let places = supposed.find(&request);
            if places.is_empty() {
                return Some(Err(no_such_backend(&request)));
            }
            for (pool, backend) in places {
                let reason = Some("as supposed".to_owned());
                let standing = &mut supposed.standings[pool][backend];
                let drained = standing.drained;
                *standing =
                    Standing { health: Health::Down, down: true, reason, drained, ..Standing::default() };
            }
        }
        let snapshot = supposed.snapshot(now)?;
        Some(Ok((supposed, snapshot)))
    }

    /// When to balance again although nothing happens: the next step of a slow start.
    pub fn next_step(&self, now: Instant) -> Option<Instant> {
        let config = self.config()?;
        let pools = config.pools.iter().zip(&self.standings);
        let steps = pools.filter_map(|(pool, standings)| Some((pool.slow_start?, standings))).flat_map(
            |(slow_start, standings)| {
                let risen =
                    standings.iter().filter(|standing| !standing.down).filter_map(|standing| standing.risen);
                risen.filter_map(move |risen| next_step(now.saturating_duration_since(risen), slow_start))
            },
        );
        steps.min().map(|wait| now + wait)
    }

    /// What to probe. `served` are the ways that the dataplane has, `hops` the links to backends.
    pub fn watches(&self, served: &[ProbeWay], hops: &Hops) -> Vec<Watch> {
        let Some(Configured { targets, .. }) = &self.configured else { return Vec::new() };
        let served: HashSet<(IpAddr, Mode, u16)> =
            served.iter().map(|way| (way.address, way.mode, way.number)).collect();
        let watch = |target: &Target| {
            let subject = target.clone();
            if !by_service(target) {
                return Some(Watch { subject, way: None });
            }
            let Target { backend, mode, .. } = *target;
            let number = self.numbers.of(backend, mode)?;
            served.contains(&(backend, mode, number)).then(|| {
                let hop = hops.get(&backend);
                let room = hop.map(|(mtu, _)| room(*mtu, mode, backend));
                let nic = hop.map(|(_, nic)| Arc::clone(nic));
                Watch { subject, way: Some(Way { mark: PROBE_MARK | u32::from(number), backend, room, nic }) }
            })
        };
        targets.targets.iter().filter_map(watch).collect()
    }

    /// Addresses that belong to services.
    pub fn own_addresses(&self) -> HashSet<IpAddr> {
        let Some(config) = self.config() else { return HashSet::new() };
        let vips = config.services.iter().flat_map(|service| &service.vips);
        vips.chain(&config.nat.sources).copied().collect()
    }

    /// VIPs of which some service has a backend that is not down. One that drains counts: it has flows to serve.
    pub fn vips_with_backends(&self) -> HashSet<IpAddr> {
        let Some(config) = self.config() else { return HashSet::new() };
        let alive = |pool: usize| self.standings[pool].iter().any(|standing| !standing.down);
        let alive: Vec<bool> = (0..config.pools.len()).map(alive).collect();
        let services = config.services.iter().filter(|service| alive[service.pool]);
        services.flat_map(|service| &service.vips).copied().collect()
    }

    /// How long to forward on after routes were withdrawn.
    pub fn withdraw_delay(&self) -> Duration {
        let routes = self.config().and_then(|config| config.announce.routes);
        routes.map_or(Duration::ZERO, |routes| routes.withdraw_delay)
    }

    /// Grows with every [`Self::balance`].
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The configuration; `None` before the first.
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.configured.as_ref().map(|configured| &configured.config)
    }

    /// How a backend is, by pool and place in it.
    pub fn standing(&self, pool: usize, backend: usize) -> &Standing {
        &self.standings[pool][backend]
    }

    /// Every backend of every pool, in the order of the configuration.
    pub fn places(&self) -> Vec<(usize, usize)> {
        self.config().map_or_else(Vec::new, |config| places_of(config).collect())
    }

    /// The targets of each backend that is checked, by its place.
    pub fn targets(&self) -> HashMap<(usize, usize), Vec<&Target>> {
        let Some(Configured { targets, .. }) = &self.configured else { return HashMap::new() };
        let of = |indices: &[usize]| indices.iter().map(|index| &targets.targets[*index]).collect();
        targets
            .backends
            .iter()
            .map(|checked| ((checked.pool, checked.backend), of(&checked.targets)))
            .collect()
    }

    /// Services all of whose backends are down, in words.
    pub fn problems(&self) -> Vec<String> {
        let Some(config) = self.config() else { return Vec::new() };
        let service = |service: &Service| {
            let [text, _] = changes::forsaken(service);
            format!("service {}: {text}; `lbctl get backends` says why each is down", service.name)
        };
        config.services.iter().filter(|service| self.forsaken.contains(&service.name)).map(service).collect()
    }

    /// What a restart must not forget.
    pub fn memory(&self) -> Memory {
        Memory { drained: self.drained.clone(), down: self.members(|standing| standing.down) }
    }

    fn judged(&self) -> Option<Vec<Vec<Standing>>> {
        let Configured { config, targets, .. } = self.configured.as_ref()?;
        // Who is checked no longer is not known to be down.
        let unchecked = |pool: &Vec<Standing>| vec![Standing::default(); pool.len()];
        let mut standings: Vec<Vec<Standing>> = self.standings.iter().map(unchecked).collect();
        for checked in &targets.backends {
            let known = checked.targets.iter().map(|index| &targets.targets[*index]);
            let known = known.filter_map(|target| Some((target, self.known.get(target)?)));
            let before = &self.standings[checked.pool][checked.backend];
            standings[checked.pool][checked.backend] = Standing::judge(known, before);
        }
        for (pool, backend) in places_of(config) {
            // Mostly nobody is, and names are long.
            let drained = !self.drained.is_empty() && self.drained.contains(&self.member(pool, backend));
            standings[pool][backend].drained = drained;
        }
        Some(standings)
    }

    /// The backends that a request means.
    pub fn find(&self, request: &DrainRequest) -> Vec<(usize, usize)> {
        let (backend, pool) = (&request.backend, request.pool.as_deref());
        let Some(config) = self.config() else { return Vec::new() };
        let address: Option<IpAddr> = backend.parse().ok();
        let is_it = |(pool_index, index): &(usize, usize)| {
            let of = &config.pools[*pool_index];
            let value = &of.backends[*index];
            pool.is_none_or(|pool| of.name == pool)
                && (value.name == *backend || Some(value.address) == address)
        };
        places_of(config).filter(is_it).collect()
    }

    fn members(&self, is_it: impl Fn(&Standing) -> bool) -> BTreeSet<Member> {
        let Some(config) = self.config() else { return BTreeSet::new() };
        let places = places_of(config).filter(|(pool, backend)| is_it(&self.standings[*pool][*backend]));
        places.map(|(pool, backend)| Member::of(config, pool, backend)).collect()
    }

    fn by_member(&mut self) -> HashMap<Member, Standing> {
        let standings = std::mem::take(&mut self.standings);
        let Some(config) = self.config() else { return HashMap::new() };
        let mut by_member = HashMap::new();
        for (pool, standings) in standings.into_iter().enumerate() {
            for (backend, standing) in standings.into_iter().enumerate() {
                by_member.insert(Member::of(config, pool, backend), standing);
            }
        }
        by_member
    }

    /// Of a configuration that is there.
    fn member(&self, pool: usize, backend: usize) -> Member {
        Member::of(self.config().expect("places are those of a configuration"), pool, backend)
    }
}

impl Member {
    fn of(config: &Config, pool: usize, backend: usize) -> Self {
        let pool = &config.pools[pool];
        Self { pool: pool.name.clone(), backend: pool.backends[backend].address }
    }
}

fn no_such_backend(request: &DrainRequest) -> String {
    let of_pool = request.pool.as_ref().map_or(String::new(), |pool| format!(" of pool `{pool}`"));
    format!(
        "there is no backend{of_pool} of name or address `{}`; `lbctl get backends` lists them",
        request.backend
    )
}

/// Every backend of every pool.
fn places_of(config: &Config) -> impl Iterator<Item = (usize, usize)> {
    let pools = config.pools.iter().enumerate();
    pools.flat_map(|(pool, value)| (0..value.backends.len()).map(move |backend| (pool, backend)))
}

fn by_service(target: &Target) -> bool {
    target.check.via_of(target.mode) == Via::Service
}

/// What is left of a link's MTU for the packet of a client.
fn room(mtu: u32, mode: Mode, backend: IpAddr) -> u16 {
    let header = match (mode, backend) {
        (Mode::Ipip, IpAddr::V4(_)) => 20,
        (Mode::Ipip, IpAddr::V6(_)) => 40,
        _ => 0,
    };
    u16::try_from(mtu.saturating_sub(header)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
