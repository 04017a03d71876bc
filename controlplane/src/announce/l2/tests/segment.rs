//! A segment: hosts on a bridge.
//!
//! ```text
//!   host a: v0 10.9.0.1    ──┐
//!   host b: v0 10.9.0.2    ──┼── br0 in the hub
//!   client: v0 10.9.0.100  ──┘
//! ```
//! Each has fd09::/64 with the same last number, and the MAC address of [`mac`]. The namespaces have no name (but
//! for an instant while they are made), so they vanish with the test however it ends.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shunt_api::mac::MacAddress;
use socket2::Socket;

use crate::announce::l2::arp::{Arp, Operation};
use crate::announce::l2::socket::{self, FRAME_MAX, Kind};
use crate::announce::l2::{frame, link};

/// Last number of the addresses of a host.
fn number(name: &str) -> u8 {
    match name {
        "client" => 100,
        "a" => 1,
        _ => 2,
    }
}

/// The Ethernet address of a host.
pub fn mac(name: &str) -> MacAddress {
    MacAddress([2, 0, 0, 0, 9, number(name)])
}

/// A network namespace.
pub struct Host(File);

/// All of it.
pub struct Segment {
    hub: Host,
    hosts: Vec<(String, Host)>,
}

impl Segment {
    /// With a client and these boxes.
    pub fn new(boxes: &[&str]) -> Self {
        let hub = Host::new();
        hub.run("ip link add br0 type bridge forward_delay 0 stp_state 0 && ip link set br0 up");
        let mut hosts = Vec::new();
        for name in boxes.iter().chain(&["client"]) {
            let host = Host::new();
            host.run("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
            let there = format!("/proc/{}/fd/{}", std::process::id(), host.0.as_raw_fd());
            let (mac, number) = (mac(name), number(name));
            hub.run(&format!(
                "ip link add name {name} type veth peer name v0 address {mac} netns {there} && ip link set dev {name} master br0 up"
            ));
            host.run(&format!(
                "ip link set v0 up && ip address add 10.9.0.{number}/24 dev v0 && ip address add fd09::{number:x}/64 dev v0 nodad"
            ));
            // The kernel's own duplicate address detection is for the one test that wants it.
            host.run("echo 1 > /proc/sys/net/ipv6/conf/v0/accept_dad");
            hosts.push(((*name).to_owned(), host));
        }
        Self { hub, hosts }
    }

    /// Connects another NIC of a host.
    pub fn plug(&self, port: &str, host: &Host, nic: &str) {
        let there = format!("/proc/{}/fd/{}", std::process::id(), host.0.as_raw_fd());
        self.hub.run(&format!(
            "ip link add name {port} type veth peer name {nic} netns {there} && ip link set dev {port} master br0 up"
        ));
        host.run(&format!("ip link set {nic} up"));
    }

    /// The bridge.
    pub fn hub(&self) -> &Host {
        &self.hub
    }

    /// A box.
    pub fn host(&self, name: &str) -> &Host {
        &self.hosts.iter().find(|(host, _)| host == name).unwrap().1
    }

    /// The client.
    pub fn client(&self) -> &Host {
        self.host("client")
    }
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shunt-l2-{}-{count}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(added.status.success(), "this test needs root and iproute2: {added:?}");
        let file = File::open(format!("/run/netns/{name}"));
        assert!(Command::new("ip").args(["netns", "delete", &name]).status().unwrap().success());
        Self(file.unwrap())
    }

    /// The namespace, to enter it from elsewhere.
    pub fn file(&self) -> File {
        self.0.try_clone().unwrap()
    }

    /// Calls `work` on a thread inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter_and_work = || {
            enter(&self.0);
            work()
        };
        thread::scope(|scope| scope.spawn(enter_and_work).join()).unwrap()
    }

    /// A shell command inside, which must succeed. Returns what it says.
    pub fn run(&self, command: &str) -> String {
        let output = self.inside(|| Command::new("sh").args(["-c", command]).output().unwrap());
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many IPv6 groups `v0` has joined.
    pub fn groups(&self) -> usize {
        let mut text = String::new();
        self.inside(|| File::open("/proc/thread-self/net/igmp6").unwrap().read_to_string(&mut text).unwrap());
        text.lines().filter(|line| line.split_whitespace().nth(1) == Some("v0")).count()
    }

    /// A socket on `v0`.
    pub fn listen(&self, kind: Kind) -> Listener {
        self.inside(|| {
            let link = link::read().unwrap().ethernet.remove("v0").unwrap();
            let socket = socket::open(kind, &link.address).unwrap();
            socket.set_nonblocking(false).unwrap();
            Listener(socket)
        })
    }
}

/// Moves this thread into a namespace.
pub fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Hears and says what a host could.
pub struct Listener(Socket);

impl Listener {
    /// The next frame that passes, and when it was read; `None` if there is none for so long.
    pub fn next(&self, within: Duration, passes: impl Fn(&[u8]) -> bool) -> Option<(Instant, Vec<u8>)> {
        let (end, mut frame) = (Instant::now() + within, [0; FRAME_MAX]);
        loop {
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let Some(length) = socket::receive(&self.0, &mut frame).unwrap() else { continue };
            if passes(&frame[..length]) {
                return Some((Instant::now(), frame[..length].to_vec()));
            }
        }
    }

    /// Reads what nobody read until now.
    pub fn forget(&self) {
        while self.next(Duration::from_millis(1), |_| true).is_some() {}
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        socket::send(&self.0, frame).unwrap();
    }
}

/// A broadcast that asks for `target`.
pub fn request(from: MacAddress, sender: &str, target: &str) -> Vec<u8> {
    let request = Arp {
        operation: Operation::Request,
        sender_mac: from,
        sender: sender.parse().unwrap(),
        target_mac: MacAddress::default(),
        target: target.parse().unwrap(),
    };
    request.frame(frame::BROADCAST)
}
