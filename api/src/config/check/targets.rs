//! Where the probes of a configuration go: a check of a pool, its backends and the services that use it give
//! [`Targets`]. Pure. What two pools ask alike is one target, and so one probe.
//!
//! A probe by way of the service goes to each VIP on each port of the services, because a backend may lack one
//! VIP alone; a direct probe goes to the backend on each port, for mode `nat` on that which the service names.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::super::{Backend, Config, Pool, Service};
use super::{Check, Via};
use crate::snapshot::Mode;

/// What is asked of one backend at one address and port. Equal targets need only one probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The machine that probes are delivered to.
    pub backend: IpAddr,
    /// How its packets get there; `nat` for all direct probes, which go as the kernel routes them.
    pub mode: Mode,
    /// Where probes are addressed to: a VIP for [`Via::Service`], the backend itself for [`Via::Direct`]. Port 0 for
    /// checks without ports.
    pub destination: SocketAddr,
    /// What is asked. Its way is that of this backend: never by the service for mode `nat`.
    pub check: Arc<Check>,
}

/// A backend of a pool, and what decides whether it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Index into the pool's backends.
    pub backend: usize,
    /// Indices into [`Targets::targets`]; the backend is up while all of them are. Empty if no service uses the pool.
    pub targets: Vec<usize>,
}

/// What is probed, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// No two are equal.
    pub targets: Vec<Target>,
    /// Every backend of every pool that has a check, in the order of the file.
    pub backends: Vec<Checked>,
}

impl Config {
    /// Where the probes of all checks go.
    pub fn targets(&self) -> Targets {
        let mut found = Targets::default();
        let mut known = HashMap::new();
        for (pool, services) in by_pool(self.pools.len(), &self.services).into_iter().enumerate() {
            found.add(&mut known, pool, &self.pools[pool], &services);
        }
        found
    }

    /// How many probes there would be if no two pools asked the same: as many as [`Self::targets`] or more, and found
    /// sooner.
    pub(in crate::config) fn probes_at_most(&self) -> usize {
        let by_pool = by_pool(self.pools.len(), &self.services);
        let of_pool = |(pool, services): (&Pool, &Vec<&Service>)| {
            let Some(check) = &pool.check else { return 0 };
            let places = Places::of(check, services);
            pool.backends.iter().map(|backend| places.count(check, backend.mode)).sum::<usize>()
        };
        self.pools.iter().zip(&by_pool).map(of_pool).sum()
    }
}

impl Targets {
    fn add(&mut self, known: &mut HashMap<Target, usize>, index: usize, pool: &Pool, services: &[&Service]) {
        let Some(check) = &pool.check else { return };
        let places = Places::of(check, services);
        let direct = Arc::new(Check { via: Via::Direct, ..check.clone() });
        let by_service = Arc::new(check.clone());
        for (backend, value) in pool.backends.iter().enumerate() {
            let check = if check.via_of(value.mode) == Via::Direct { &direct } else { &by_service };
            let targets = places.targets(value, check).into_iter().map(|target| {
                *known.entry(target).or_insert_with_key(|target| {
                    self.targets.push(target.clone());
                    self.targets.len() - 1
                })
            });
            let targets = targets.collect();
            self.backends.push(Checked { pool: index, backend, targets });
        }
    }
}

/// The services of each pool.
pub fn by_pool(pools: usize, services: &[Service]) -> Vec<Vec<&Service>> {
    let mut by_pool = vec![Vec::new(); pools];
    services.iter().for_each(|service| by_pool[service.pool].push(service));
    by_pool
}

/// Where a check goes, apart from the backend. A port is `None` for checks without ports.
pub struct Places {
    /// By way of the service.
    service: Vec<(IpAddr, Option<u16>)>,
    /// Direct, to backends that are reached on the client's port.
    direct: Vec<Option<u16>>,
    /// Direct, to backends of mode `nat`.
    nat: Vec<Option<u16>>,
}

impl Places {
    /// The places of a check, for all services that use its pool; in order, and each once.
    pub fn of(check: &Check, services: &[&Service]) -> Self {
        let (mut service, mut direct, mut nat) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for used in services {
            for (port, target) in ports(check, used) {
                service.extend(used.vips.iter().map(|vip| (*vip, port)));
                direct.insert(port);
                nat.insert(target);
            }
        }
        Self {
            service: service.into_iter().collect(),
            direct: direct.into_iter().collect(),
            nat: nat.into_iter().collect(),
        }
    }

    /// There is none: the services have no port of the check's protocol.
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty()
    }

    /// The ports of the services that are probed.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.direct.iter().flatten().copied()
    }

    /// How many probes a backend of a mode takes.
    pub fn count(&self, check: &Check, mode: Mode) -> usize {
        match check.via_of(mode) {
            Via::Service => self.service.len(),
            Via::Direct if mode == Mode::Nat => self.nat.len(),
            Via::Direct => self.direct.len(),
        }
    }

    /// The targets of a backend; `check` is that of its pool, with the way that the backend's mode asks for.
    fn targets(&self, backend: &Backend, check: &Arc<Check>) -> Vec<Target> {
        let Backend { address: backend, mode, .. } = *backend;
        let target = |address, port: Option<u16>| Target {
            backend,
            mode: if check.via == Via::Direct { Mode::Nat } else { mode },
            destination: SocketAddr::new(address, port.unwrap_or(0)),
            check: Arc::clone(check),
        };
        match check.via {
            Via::Service => self.service.iter().map(|(vip, port)| target(*vip, *port)).collect(),
            Via::Direct if mode == Mode::Nat => self.nat.iter().map(|port| target(backend, *port)).collect(),
            Via::Direct => self.direct.iter().map(|port| target(backend, *port)).collect(),
        }
    }
}

/// The ports of a service that a check probes: that which clients use, and that of `nat` backends.
fn ports(check: &Check, service: &Service) -> Vec<(Option<u16>, Option<u16>)> {
    let Some(protocol) = check.kind.protocol() else { return vec![(None, None)] };
    if let Some(port) = check.kind.port() {
        return vec![(Some(port), Some(port))];
    }
    let mappings = service.ports.iter().filter(|mapping| mapping.port.protocol == protocol);
    mappings
        .map(|mapping| (Some(mapping.port.port), Some(mapping.target.unwrap_or(mapping.port.port))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
nic = [{ name = "eth1" }]
nat.sources = "10.0.1.250"
tunnel.source_v4 = "10.200.0.0/16"
service = [
  { name = "s", vip = ["192.0.2.1", "2001:db8::1"], ports = ["tcp/80", "udp/53"], pool = "p" },
  { name = "t", vip = "192.0.2.1", ports = ["tcp/81"], pool = "p" },
  { name = "u", vip = "192.0.2.1", ports = ["tcp/82"], pool = "same" },
  { name = "v", vip = "192.0.2.3", ports = ["tcp/80:30080", "tcp/81:30080", "tcp/82"], pool = "nat" },
  { name = "w", vip = "192.0.2.4", ports = ["tcp/80"], pool = "unchecked" },
]
[pools]
p = { check = CHECK, backends = [
  { name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2", mode = "ipip", weight = 0 } ] }
same = { check = CHECK, backends = [{ name = "a", address = "10.0.0.1" }] }
nat = { check = CHECK, mode = "nat", backends = [{ name = "c", address = "10.0.0.3" }] }
unchecked = { backends = [{ name = "a", address = "10.0.0.1" }] }
unused = { check = CHECK, backends = [{ name = "a", address = "10.0.0.1" }] }
"#;

    fn targets(check: &str) -> Targets {
        Config::parse(&TEXT.replace("CHECK", check), "f").unwrap().targets()
    }

    /// Each backend with its probes, as `BACKEND MODE WAY DESTINATION`.
    fn shown(check: &str) -> Vec<Vec<String>> {
        let Targets { targets, backends } = targets(check);
        let one = |index: &usize| {
            let Target { backend, mode, destination, check } = &targets[*index];
            format!("{backend} {mode} {} {destination}", check.via)
        };
        backends.iter().map(|checked| checked.targets.iter().map(one).collect()).collect()
    }

    #[test]
    fn by_way_of_the_service_every_vip_is_probed_on_every_port() {
        let a = [
            "10.0.0.1 dr service 192.0.2.1:80",
            "10.0.0.1 dr service 192.0.2.1:81",
            "10.0.0.1 dr service [2001:db8::1]:80",
        ];
        let b = a.map(|target| target.replace("10.0.0.1 dr", "10.0.0.2 ipip"));
        let nat = ["10.0.0.3 nat direct 10.0.0.3:82", "10.0.0.3 nat direct 10.0.0.3:30080"];
        let same = ["10.0.0.1 dr service 192.0.2.1:82"];
        let expected: [&[String]; 5] =
            [&a.map(String::from), &b, &same.map(String::from), &nat.map(String::from), &[]];
        assert_eq!(shown("\"tcp\""), expected);
    }

    #[test]
    fn directly_each_port_is_probed_once() {
        let shown = shown("{ type = \"tcp\", via = \"direct\" }");
        assert_eq!(shown[0], ["10.0.0.1 nat direct 10.0.0.1:80", "10.0.0.1 nat direct 10.0.0.1:81"]);
        assert_eq!(shown[3], ["10.0.0.3 nat direct 10.0.0.3:82", "10.0.0.3 nat direct 10.0.0.3:30080"]);
    }

    #[test]
    fn a_port_of_the_check_takes_the_place_of_all() {
        let shown = shown("{ type = \"tcp\", port = 9000 }");
        assert_eq!(
            shown[0],
            ["10.0.0.1 dr service 192.0.2.1:9000", "10.0.0.1 dr service [2001:db8::1]:9000"]
        );
        assert_eq!(shown[3], ["10.0.0.3 nat direct 10.0.0.3:9000"]);
    }

    #[test]
    fn a_check_without_ports_is_made_per_vip() {
        let shown = shown("\"icmp\"");
        assert_eq!(shown[0], ["10.0.0.1 dr service 192.0.2.1:0", "10.0.0.1 dr service [2001:db8::1]:0"]);
        assert_eq!(shown[3], ["10.0.0.3 nat direct 10.0.0.3:0"]);
    }

    /// Pools `p` and `same` ask 192.0.2.1 of backend `a` alike.
    #[test]
    fn what_two_pools_ask_alike_is_one_target() {
        let Targets { targets, backends } = targets("\"icmp\"");
        let places: Vec<(usize, usize)> =
            backends.iter().map(|checked| (checked.pool, checked.backend)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (1, 0), (2, 0), (4, 0)]);
        assert_eq!(backends[2].targets, [backends[0].targets[0]]);
        let distinct: BTreeSet<String> = targets.iter().map(|target| format!("{target:?}")).collect();
        assert_eq!((targets.len(), distinct.len()), (5, 5));
    }

    #[test]
    fn more_probes_than_a_box_makes_are_refused() {
        let text = |vips: usize, backends: usize, via: &str| {
            let vip = |n: usize| format!("\"10.1.{}.{}\"", n >> 8, n & 255);
            let backend =
                |n: usize| format!("{{ name = \"b{n}\", address = \"10.2.{}.{}\" }}", n >> 8, n & 255);
            let list =
                |count, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
            format!(
                "nic = [{{ name = \"eth1\" }}]\n[pools.p]\ncheck = {{ type = \"tcp\", via = \"{via}\" }}\n\
                 backends = [{}]\n[[service]]\nname = \"s\"\npool = \"p\"\nports = \"tcp/80\"\nvip = [{}]",
                list(backends, &backend),
                list(vips, &vip)
            )
        };
        assert_eq!(Config::parse(&text(200, 250, "service"), "f").unwrap().targets().targets.len(), 50_000);
        assert_eq!(Config::parse(&text(201, 250, "direct"), "f").unwrap().targets().targets.len(), 250);
        let problem = Config::parse(&text(201, 250, "service"), "f").unwrap_err();
        let expected = "f:3:9: pools.p.check: with this check there are 50250 probes (backends × VIPs × ports), and \
                        a box makes at most 50000; via = \"direct\" takes one per backend and port instead of one per \
                        VIP too";
        assert_eq!(problem.to_string(), expected);
    }
}
