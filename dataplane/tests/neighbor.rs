//! The follower against a real kernel: two network namespaces, joined by three veth pairs. Needs root.
//!
//! ```text
//!  balancer                                    backends
//!    v1  10.77.1.1/24  fd77:1::1/64   ─────  p1  10.77.1.2, .254   fd77:1::2      served
//!    v2  10.77.2.1/24                 ─────  p2  10.77.2.2, .254                  served
//!    v3  10.77.3.1/24                 ─────  p3  10.77.3.2                        not served
//! ```
//! The namespaces have no name (but for an instant while they are made), so they vanish with the test
//! however it ends.

#[path = "neighbor/vlan.rs"]
mod vlan;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space};
use shunt_api::mac::MacAddress;
use shunt_dataplane::neighbor::{Hop, HopMap, LinkMap, NeighborError, ResolvedHop, follow};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

const V4: &str = "10.77.1.2";
const V6: &str = "fd77:1::2";
/// Behind whatever route a test makes.
const FAR: &str = "192.0.2.7";
const SECOND: Duration = Duration::from_secs(1);
/// What finding a neighbour may take: a probe is lost if the far end is not ready yet, and repeated after 1 s.
const FIND: Duration = Duration::from_secs(3);
/// What a change of routes may take; the debounce is 20 ms, the rest is for a busy machine.
const SOON: Duration = Duration::from_millis(200);

const TOPOLOGY: &str = "
    link set lo up
    link set v1 address 02:00:00:00:01:01 up
    link set v2 address 02:00:00:00:02:01 up
    link set v3 address 02:00:00:00:03:01 up
    address add 10.77.1.1/24 dev v1
    address add fd77:1::1/64 dev v1 nodad
    address add 10.77.2.1/24 dev v2
    address add 10.77.3.1/24 dev v3
";
const BACKENDS: &str = "
    link set lo up
    link set p1 address 02:00:00:00:01:02 up
    link set p2 address 02:00:00:00:02:02 up
    link set p3 address 02:00:00:00:03:02 up
    address add 10.77.1.2/24 dev p1
    address add 10.77.1.254/24 dev p1
    address add fd77:1::2/64 dev p1 nodad
    address add 10.77.2.2/24 dev p2
    address add 10.77.2.254/24 dev p2
    address add 10.77.3.2/24 dev p3
";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The MAC address of `v<pair>` (side 1) or `p<pair>` (side 2).
fn mac(pair: u8, side: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, pair, side])
}

/// A network namespace that lives as long as this.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shunt-neighbor-{}-{count}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(added.status.success(), "this test needs root and iproute2: {added:?}");
        let file = File::open(format!("/run/netns/{name}"));
        assert!(Command::new("ip").args(["netns", "delete", &name]).status().unwrap().success());
        Self(file.unwrap())
    }

    /// Runs `work` on a thread of its own inside the namespace.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter_and_work = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(enter_and_work).join()).unwrap()
    }

    /// Runs one iproute2 command per line, from `ip` on.
    fn ip(&self, commands: &str) {
        self.try_ip(commands).unwrap_or_else(|complaint| panic!("ip: {complaint} in: {commands}"));
    }

    /// The same; fails with what `ip` complains of.
    fn try_ip(&self, commands: &str) -> Result<(), String> {
        self.inside(|| {
            let mut child = Command::new("ip");
            let mut child =
                child.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(()) } else { Err(complaint) }
        })
    }

    fn output(&self, arguments: &[&str]) -> String {
        let output = self.inside(|| Command::new("ip").args(arguments).output().unwrap());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes `value` to net/`key`.
    fn sysctl(&self, key: &str, value: &str) {
        self.inside(|| std::fs::write(format!("/proc/sys/net/{key}"), value)).unwrap();
    }
}

/// The two namespaces, and a follower in the first.
struct Lab {
    balancer: Namespace,
    backends: Namespace,
    served: watch::Sender<BTreeSet<u32>>,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    hops: watch::Receiver<Arc<HopMap>>,
    links: watch::Receiver<Arc<LinkMap>>,
    waiter: Runtime,
    follower: Option<thread::JoinHandle<NeighborError>>,
    stall: Option<oneshot::Sender<mpsc::Receiver<()>>>,
}

impl Lab {
    fn new(wanted: &[&str]) -> Self {
        let (balancer, backends) = (Namespace::new(), Namespace::new());
        for namespace in [&balancer, &backends] {
            // The kernel solicits no IPv6 neighbour before its link-local address passed this.
            namespace.sysctl("ipv6/conf/default/accept_dad", "0");
        }
        balancer.ip(&(1..=3).map(|pair| link_add(pair, &backends)).collect::<String>());
        backends.ip(BACKENDS);
        balancer.ip(TOPOLOGY);
        let (served, served_there) = watch::channel(BTreeSet::new());
        let (wanted, wanted_there) = watch::channel(wanted.iter().map(|address| ip(address)).collect());
        let (hops_there, hops) = watch::channel(Arc::default());
        let (links_there, links) = watch::channel(Arc::default());
        let (stall, stalled) = oneshot::channel::<mpsc::Receiver<()>>();
        let namespace = balancer.0.try_clone().unwrap();
        let follower = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.spawn(async move {
                // Blocks the whole runtime on purpose, for as long as the test wants.
                if let Ok(release) = stalled.await {
                    _ = release.recv();
                }
            });
            match runtime.block_on(follow(served_there, wanted_there, hops_there, links_there)) {
                Err(error) => error,
            }
        });
        let waiter = Builder::new_current_thread().enable_all().build().unwrap();
        let stall = Some(stall);
        let follower = Some(follower);
        let mut lab = Self { balancer, backends, served, wanted, hops, links, waiter, follower, stall };
        lab.serve(&["v1", "v2"]);
        lab
    }

    /// Waits until the follower knows the links `names`, and has it serve them.
    fn serve(&mut self, names: &[&str]) {
        let mut indexes = BTreeSet::new();
        let known = self.links.wait_for(|links| {
            indexes =
                links.iter().filter(|(_, link)| names.contains(&&*link.name)).map(|(i, _)| *i).collect();
            indexes.len() == names.len()
        });
        self.waiter.block_on(async { timeout(SECOND, known).await.expect("the links are known").unwrap() });
        self.served.send_replace(indexes);
    }

    fn want(&self, wanted: &[&str]) {
        self.wanted.send_replace(wanted.iter().map(|address| ip(address)).collect());
    }

    fn ifindex(&self, name: &str) -> u32 {
        *self.links.borrow().iter().find(|(_, link)| link.name == name).unwrap().0
    }

    /// Waits until the hops are as `expected`; fails after `deadline`. Prints and returns how long it took.
    fn until(&mut self, deadline: Duration, what: &str, expected: impl Fn(&HopMap) -> bool) -> Duration {
        let start = Instant::now();
        let reached = self.hops.wait_for(|hops| expected(hops));
        let reached =
            self.waiter.block_on(async { timeout(deadline, reached).await.map(|hops| hops.is_ok()) });
        let took = start.elapsed();
        assert_eq!(reached, Ok(true), "{what}: not within {deadline:?}: {:?}", self.hops.borrow());
        println!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
        took
    }

    fn until_hop(&mut self, deadline: Duration, what: &str, address: &str, expected: &Hop) -> Duration {
        self.until(deadline, what, |hops| hops.get(&ip(address)) == Some(expected))
    }

    /// The hop over pair number `pair` from `source`.
    fn over(&self, pair: u8, gateway: Option<&str>, source: &str) -> Hop {
        Hop::Resolved(ResolvedHop {
            ifindex: self.ifindex(&format!("v{pair}")),
            vlan: None,
            source_mac: mac(pair, 1),
            destination_mac: mac(pair, 2),
            gateway: gateway.map(ip),
            source_address: Some(ip(source)),
            mtu: 1500,
        })
    }

    /// Makes the kernel doubt and probe its neighbours in a second or two instead of half a minute.
    fn hurry(&self, family: &str) {
        for (key, value) in
            [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "200")]
        {
            self.balancer.sysctl(&format!("{family}/neigh/v1/{key}"), value);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (wanted, _) = watch::channel(BTreeSet::new());
        drop(std::mem::replace(&mut self.wanted, wanted));
        let error = self.follower.take().unwrap().join().expect("the follower did not panic");
        if !thread::panicking() {
            assert!(matches!(error, NeighborError::Closed), "{error}");
        }
    }
}

fn link_add(pair: u8, backends: &Namespace) -> String {
    let path = format!("/proc/{}/fd/{}", std::process::id(), backends.0.as_raw_fd());
    format!("link add v{pair} type veth peer name p{pair} netns {path}\n")
}

fn elsewhere(ifname: &str) -> Hop {
    Hop::RouteElsewhere { ifname: ifname.to_owned() }
}

#[test]
fn neighbours_on_the_link_resolve_and_the_wanted_set_may_change() {
    let mut lab = Lab::new(&[V4, V6]);
    let (v4, v6) = (lab.over(1, None, "10.77.1.1"), lab.over(1, None, "fd77:1::1"));
    lab.until_hop(FIND, "IPv4 on the link resolves", V4, &v4);
    lab.until_hop(FIND, "IPv6 on the link resolves", V6, &v6);

    lab.want(&[V4, V6, "10.77.2.2", "10.77.1.99", "10.77.3.2", "10.77.1.1", FAR]);
    let second = lab.over(2, None, "10.77.2.1");
    lab.until_hop(FIND, "more are wanted: on the other NIC", "10.77.2.2", &second);
    lab.until_hop(SECOND, "nobody there", "10.77.1.99", &Hop::Unresolved);
    lab.until_hop(SECOND, "a NIC not served", "10.77.3.2", &elsewhere("v3"));
    lab.until_hop(SECOND, "our own address", "10.77.1.1", &elsewhere("lo"));
    lab.until_hop(SECOND, "no route", FAR, &Hop::NoRoute);
    lab.backends.ip("address add 10.77.1.99/24 dev p1");
    lab.until_hop(6 * SECOND, "a host comes up", "10.77.1.99", &v4);

    lab.balancer.ip("neighbour replace 10.77.1.50 lladdr 02:00:00:00:01:02 nud permanent dev v1");
    lab.want(&["10.77.1.50"]);
    lab.until(SECOND, "fewer are wanted", |hops| hops.len() == 1 && hops.get(&ip("10.77.1.50")) == Some(&v4));
    let entry = lab.balancer.output(&["neighbour", "show", "10.77.1.50"]);
    assert!(entry.contains("PERMANENT"), "an entry made by hand stays so: {entry}");
}

#[test]
fn routes_are_the_kernels_and_changes_are_followed() {
    let mut lab = Lab::new(&[FAR]);
    let first = lab.over(1, Some("10.77.1.254"), "10.77.1.1");
    let second = lab.over(2, Some("10.77.2.254"), "10.77.2.1");
    lab.balancer.ip("route add 192.0.2.0/24 via 10.77.1.254");
    lab.until_hop(FIND, "a gateway", FAR, &first);
    lab.balancer.ip("neighbour replace 10.77.2.254 dev v2 use");
    lab.balancer.ip("route replace 192.0.2.0/24 via 10.77.2.254");
    lab.until_hop(SOON, "the route moves to the other NIC", FAR, &second);
    lab.balancer.ip("route add 192.0.2.7/32 via 10.77.1.254");
    lab.until_hop(SOON, "a longer prefix", FAR, &first);
    lab.balancer.ip("route delete 192.0.2.7/32");
    lab.until_hop(SOON, "and back", FAR, &second);
    for kind in ["unreachable", "prohibit", "blackhole"] {
        lab.balancer.ip(&format!("route replace {kind} 192.0.2.0/24"));
        lab.until_hop(SOON, kind, FAR, &Hop::NoRoute);
        lab.balancer.ip("route delete 192.0.2.0/24\nroute add 192.0.2.0/24 via 10.77.1.254");
        lab.until_hop(SOON, "usable again", FAR, &first);
    }
    lab.balancer.ip("route replace 192.0.2.0/24 via 10.77.3.2");
    lab.until_hop(SOON, "a NIC not served", FAR, &elsewhere("v3"));
    lab.balancer.ip("route replace 192.0.2.0/24 via inet6 fd77:1::2 dev v1 mtu 1400 src 10.77.2.1");
    let Hop::Resolved(hop) = lab.over(1, Some(V6), "10.77.2.1") else { unreachable!() };
    let by_ipv6 = Hop::Resolved(ResolvedHop { mtu: 1400, ..hop });
    lab.until_hop(FIND, "an IPv6 gateway, an MTU and a source of its own", FAR, &by_ipv6);
    lab.balancer.ip("route add 192.0.2.0/24 via 10.77.2.254 table 99\nrule add to 192.0.2.0/24 lookup 99");
    lab.until_hop(SOON, "a rule", FAR, &second);
    lab.balancer.ip("rule delete to 192.0.2.0/24 lookup 99");
    lab.until_hop(SOON, "and without it", FAR, &by_ipv6);
    lab.balancer.ip("nexthop add id 5 via 10.77.1.254 dev v1\nroute replace 192.0.2.0/24 nhid 5");
    lab.until_hop(SOON, "a next-hop object", FAR, &first);
    lab.balancer.ip("nexthop replace id 5 via 10.77.2.254 dev v2");
    lab.until_hop(SOON, "which is replaced", FAR, &second);
}

#[test]
fn a_mac_address_that_changes_is_noticed() {
    let mut lab = Lab::new(&[V4, V6]);
    let to = |lab: &Lab, last: u8, source: &str| {
        let Hop::Resolved(hop) = lab.over(1, None, source) else { unreachable!() };
        Hop::Resolved(ResolvedHop { destination_mac: mac(1, last), ..hop })
    };
    let (v4, v6) = ("10.77.1.1", "fd77:1::1");
    lab.until_hop(FIND, "IPv4 resolves", V4, &to(&lab, 2, v4));
    lab.until_hop(FIND, "IPv6 resolves", V6, &to(&lab, 2, v6));

    lab.backends.sysctl("ipv4/conf/p1/arp_notify", "1");
    lab.backends.sysctl("ipv6/conf/p1/ndisc_notify", "1");
    lab.backends.ip("link set p1 address 02:00:00:00:01:03");
    lab.until_hop(FIND, "announced with gratuitous ARP", V4, &to(&lab, 3, v4));
    lab.until_hop(FIND, "announced with an unsolicited advertisement", V6, &to(&lab, 3, v6));
    lab.backends.sysctl("ipv4/conf/p1/arp_notify", "0");
    lab.backends.sysctl("ipv6/conf/p1/ndisc_notify", "0");

    lab.backends.ip("link set p1 address 02:00:00:00:01:04");
    lab.balancer.ip("neighbour flush dev v1");
    lab.until_hop(SECOND, "flushed by hand: IPv4 found anew", V4, &to(&lab, 4, v4));
    lab.until_hop(SECOND, "flushed by hand: IPv6 found anew", V6, &to(&lab, 4, v6));

    lab.hurry("ipv4");
    lab.hurry("ipv6");
    // An entry keeps the reachable time it was made with until it is confirmed again.
    lab.balancer.ip("neighbour flush dev v1");
    lab.backends.ip("link set p1 address 02:00:00:00:01:05");
    lab.until_hop(10 * SECOND, "unannounced: IPv4 noticed", V4, &to(&lab, 5, v4));
    lab.until_hop(10 * SECOND, "unannounced: IPv6 noticed", V6, &to(&lab, 5, v6));
    lab.backends.ip("link set p1 address 02:00:00:00:01:06");
    lab.until_hop(10 * SECOND, "unannounced again: IPv4 noticed", V4, &to(&lab, 6, v4));
    lab.until_hop(10 * SECOND, "unannounced again: IPv6 noticed", V6, &to(&lab, 6, v6));
}

#[test]
fn a_backend_or_its_link_goes_down_and_comes_back() {
    let mut lab = Lab::new(&[V4, V6]);
    let (v4, v6) = (lab.over(1, None, "10.77.1.1"), lab.over(1, None, "fd77:1::1"));
    lab.until_hop(FIND, "resolves", V4, &v4);
    lab.hurry("ipv4");
    lab.balancer.ip("neighbour flush dev v1");
    lab.backends.ip("address delete 10.77.1.2/24 dev p1\naddress add 10.77.1.254/24 dev p1");
    lab.until_hop(12 * SECOND, "the backend falls silent", V4, &Hop::Unresolved);
    lab.backends.ip("address add 10.77.1.2/24 dev p1");
    lab.until_hop(6 * SECOND, "and answers again", V4, &v4);

    for (namespace, link) in [("far", "p1"), ("near", "v1")] {
        let side = |lab: &Lab, state: &str| {
            let namespace = if namespace == "far" { &lab.backends } else { &lab.balancer };
            namespace.ip(&format!("link set {link} {state}"));
        };
        side(&lab, "down");
        lab.until_hop(3 * SECOND, &format!("the {namespace} end goes down"), V4, &Hop::NoRoute);
        side(&lab, "up");
        lab.until_hop(6 * SECOND, &format!("the {namespace} end comes up"), V4, &v4);
    }
    lab.until(SECOND, "IPv6 of a NIC that lost its addresses", |hops| hops.get(&ip(V6)) != Some(&v6));

    let before = lab.ifindex("v1");
    lab.balancer.ip("link delete v1");
    lab.until_hop(SECOND, "the NIC is removed", V4, &Hop::NoRoute);
    lab.balancer.ip(&link_add(1, &lab.backends));
    lab.backends.ip("link set p1 address 02:00:00:00:01:02 up\naddress add 10.77.1.2/24 dev p1");
    lab.balancer.ip("link set v1 address 02:00:00:00:01:01 up\naddress add 10.77.1.1/24 dev v1");
    lab.until_hop(3 * SECOND, "added again, not served yet", V4, &elsewhere("v1"));
    lab.serve(&["v1", "v2"]);
    assert_ne!(lab.ifindex("v1"), before);
    let v4 = lab.over(1, None, "10.77.1.1");
    lab.until_hop(3 * SECOND, "added again and served", V4, &v4);
}

#[test]
fn without_the_capability_it_says_what_to_do() {
    let (balancer, backends) = (Namespace::new(), Namespace::new());
    balancer.ip(&(1..=3).map(|pair| link_add(pair, &backends)).collect::<String>());
    backends.ip(BACKENDS);
    balancer.ip(TOPOLOGY);
    let error = balancer.inside(|| {
        let sets = rustix::thread::capabilities(None).unwrap();
        let effective = sets.effective - CapabilitySet::NET_ADMIN;
        rustix::thread::set_capabilities(None, CapabilitySets { effective, ..sets }).unwrap();
        let (_served, served) = watch::channel((0..20).collect());
        let (_wanted, wanted) = watch::channel(BTreeSet::from([ip(V4)]));
        let (hops, links) = (watch::Sender::new(Arc::default()), watch::Sender::new(Arc::default()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let followed = runtime.block_on(async { timeout(SECOND, follow(served, wanted, hops, links)).await });
        followed.expect("it ends").expect_err("it cannot go on").to_string()
    });
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
}

/// `count` host routes, of the block 100.64.0.0/10, as lines for `ip -batch`.
fn host_routes(verb: &str, count: u32) -> String {
    (0..count).fold(String::new(), |mut lines, n| {
        let host = IpAddr::from((0x6440_0000 + n).to_be_bytes());
        writeln!(lines, "route {verb} {host}/32 via 10.77.1.254").unwrap();
        lines
    })
}

#[test]
fn thousands_of_backends_and_a_full_table_reload() {
    let backends: Vec<IpAddr> =
        (0..5000u16).map(|n| IpAddr::from([198, 18, (n >> 8) as u8, n as u8])).collect();
    let mut lab = Lab::new(&[]);
    lab.balancer.ip("route add 198.18.0.0/15 via 10.77.1.254");
    lab.wanted.send_replace(backends.iter().copied().collect());
    let first = lab.over(1, Some("10.77.1.254"), "10.77.1.1");
    let second = lab.over(2, Some("10.77.2.254"), "10.77.2.1");
    let all = |hop: &Hop, hops: &HopMap| hops.len() == 5000 && hops.values().all(|found| found == hop);
    lab.until(FIND, "5000 backends resolve", |hops| all(&first, hops));
    lab.balancer.ip("route replace 198.18.0.0/15 via 10.77.2.254");
    lab.until(FIND, "and move to another gateway", |hops| all(&second, hops));

    let start = Instant::now();
    lab.balancer.ip(&host_routes("add", 20_000));
    println!("20000 routes loaded in {:?}", start.elapsed());
    lab.balancer.ip("route replace 198.18.0.0/15 via 10.77.1.254");
    lab.until(SECOND, "5000 move back after a table was loaded", |hops| all(&first, hops));
}

#[test]
fn events_that_were_lost_do_not_leave_a_wrong_hop() {
    let mut lab = Lab::new(&[FAR]);
    lab.balancer.ip("route add 192.0.2.0/24 via 10.77.1.254");
    let first = lab.over(1, Some("10.77.1.254"), "10.77.1.1");
    lab.until_hop(FIND, "a gateway", FAR, &first);
    let (release, stalled) = mpsc::channel();
    lab.stall.take().unwrap().send(stalled).unwrap();
    lab.balancer.ip(&host_routes("add", 60_000));
    lab.balancer.ip("route replace 192.0.2.0/24 via 10.77.2.254");
    let sockets = lab.balancer.inside(|| std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap());
    let drops = |line: &str| line.split_whitespace().nth(8).and_then(|drops| drops.parse::<u64>().ok());
    assert!(sockets.lines().filter_map(drops).sum::<u64>() > 0, "nothing was lost: {sockets}");
    drop(release);
    let second = lab.over(2, Some("10.77.2.254"), "10.77.2.1");
    lab.until_hop(3 * SECOND, "the route that moved unseen", FAR, &second);
}
