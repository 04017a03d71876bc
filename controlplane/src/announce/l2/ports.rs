//! The sockets and groups on each NIC: opened, followed and closed as planned.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr};
use std::task::Poll;
use std::time::Instant;

use shunt_api::mac::MacAddress;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::groups::Groups;
use super::link::{self, Facts, Link};
use super::socket::{self, FRAME_MAX, Kind};
use super::station::{Sent, Station, Wish};
use super::{ndp, vrrp};

/// Frames read from one socket before the others have their turn.
const BURST: usize = 64;

/// What to have open.
#[derive(Debug, Default)]
pub struct Plan {
    nics: BTreeSet<String>,
    groups: BTreeSet<Ipv6Addr>,
    election: bool,
    addresses: BTreeSet<IpAddr>,
}

impl Plan {
    /// What the wish takes; `None` takes nothing.
    pub fn of(wish: Option<&Wish>) -> Self {
        let Some((settings, addresses)) = wish else { return Self::default() };
        let election = settings.l2.election.is_some();
        let v6 = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(ndp::solicited_group(*address)),
        });
        let groups = v6.chain(election.then_some(vrrp::GROUP_V6)).collect();
        Self { nics: settings.nics.iter().cloned().collect(), groups, election, addresses: addresses.clone() }
    }

    fn kinds(&self) -> &'static [Kind] {
        if self.election {
            &[Kind::VrrpV4, Kind::VrrpV6, Kind::Arp, Kind::Ndp]
        } else {
            &[Kind::Arp, Kind::Ndp]
        }
    }
}

/// What is open, by NIC.
#[derive(Debug, Default)]
pub struct Ports {
    open: BTreeMap<String, Port>,
    /// No longer planned, and kept until the box has said there that it leaves.
    closing: Vec<Port>,
    /// The Ethernet addresses of all NICs of the box, at the last look.
    own: BTreeSet<MacAddress>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Port {
    facts: Facts,
    /// For tokio a datagram socket is a datagram socket: it says when there is something to read.
    sockets: Vec<(Kind, UdpSocket)>,
    groups: Groups,
}

impl Ports {
    /// Opens and closes until it is as planned. Returns whether all groups are joined; what cannot be done is a
    /// problem, and tried again at the next look.
    pub fn follow(&mut self, plan: &Plan) -> bool {
        self.problems.clear();
        let read = if plan.nics.is_empty() { Ok(link::Links::default()) } else { link::read() };
        let links = match read {
            Ok(read) => {
                self.problems.extend(also_the_kernels(plan, &read.addresses));
                self.own = read.ethernet.values().map(|link| link.facts.mac).collect();
                read.ethernet
            }
            Err(error) => {
                self.problems.push(format!("the kernel does not list its NICs: {error}; check `ip link`"));
                return true;
            }
        };
        let gone = self.open.extract_if(.., |name, _| !plan.nics.contains(name) || !links.contains_key(name));
        self.closing.extend(gone.map(|(_, port)| port));
        let mut done = true;
        for name in &plan.nics {
            let followed = match links.get(name) {
                Some(link) => self.follow_nic(name, link, plan),
                None => Err(format!(
                    "there is no NIC {name} with an Ethernet address; check `ip link` and [[nic]]"
                )),
            };
            match followed {
                Ok(nic_done) => done &= nic_done,
                Err(problem) => self.problems.push(problem),
            }
        }
        done
    }

    fn follow_nic(&mut self, name: &str, link: &Link, plan: &Plan) -> Result<bool, String> {
        let kinds = plan.kinds();
        let stands =
            |port: &&mut Port| port.facts.index == link.facts.index && port.sockets.len() == kinds.len();
        if self.open.get_mut(name).as_ref().is_none_or(|port| !stands(port)) {
            self.open.remove(name);
            let port = Port::open(link, kinds).map_err(|error| cannot_listen(name, &error))?;
            self.open.insert(name.to_owned(), port);
        }
        let Some(port) = self.open.get_mut(name) else { return Ok(true) };
        port.facts = link.facts.clone();
        let index = link.facts.index;
        let joined = port.groups.follow_election_v4(index, plan.election);
        joined
            .and_then(|()| port.groups.follow(index, &plan.groups))
            .map_err(|error| cannot_join(name, &error))
    }

    /// What is known of the NICs that are open.
    pub fn facts(&self) -> BTreeMap<String, Facts> {
        self.open.iter().map(|(name, port)| (name.clone(), port.facts.clone())).collect()
    }

    /// Hands on what was received, each frame as heard when it was read: a box that is stopped between two of them must
    /// not take the second for an old one. Returns whether there may be more.
    pub fn drain(&self, station: &mut Station) -> bool {
        let (mut frame, mut more) = ([0; FRAME_MAX], false);
        for (name, port) in &self.open {
            for (kind, socket) in &port.sockets {
                let mut left = BURST;
                // What goes wrong with a socket goes wrong with its NIC, which the next look shows.
                while left > 0
                    && let Ok(Some(length)) = socket::receive(&SockRef::from(socket), &mut frame)
                {
                    station.receive(name, *kind, &frame[..length], Instant::now());
                    left -= 1;
                }
                more |= left == 0;
            }
        }
        more
    }

    /// A frame that finds no room is lost like any on the way: all that is sent is asked for, or said, again.
    pub fn send(&self, sent: &Sent) {
        let port = self.open.values().chain(&self.closing).find(|port| port.facts.index == sent.nic);
        let Some((_, socket)) = port.and_then(|port| port.sockets.first()) else { return };
        if let Err(error) = socket::send(&SockRef::from(socket), &sent.frame) {
            tracing::debug!("announce.l2: a frame could not be sent: {error}");
        }
    }

    /// The Ethernet addresses of all NICs of the box, planned or not.
    pub fn own(&self) -> &BTreeSet<MacAddress> {
        &self.own
    }

    /// What could not be done at the last look; each says what to do.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Closes what was kept to say there that the box leaves.
    pub fn close_leaving(&mut self) {
        self.closing.clear();
    }

    /// Until some socket has something to read.
    pub async fn readable(&self) {
        poll_fn(|context| {
            let mut ready = Poll::Pending;
            for (_, socket) in self.open.values().flat_map(|port| &port.sockets) {
                if socket.poll_recv_ready(context).is_ready() {
                    // That it is ready is forgotten before it is read, and not when nothing is left: `drain` reads
                    // whatever tokio has seen.
                    let forget = || Err::<(), _>(ErrorKind::WouldBlock.into());
                    let _ = socket.try_io(Interest::READABLE, forget);
                    ready = Poll::Ready(());
                }
            }
            ready
        })
        .await;
    }
}

impl Port {
    fn open(link: &Link, kinds: &[Kind]) -> io::Result<Self> {
        let open = |kind: &Kind| {
            let socket = socket::open(*kind, &link.address)?;
            Ok((*kind, UdpSocket::from_std(socket.into())?))
        };
        let sockets = kinds.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { facts: link.facts.clone(), sockets, groups: Groups::default() })
    }
}

fn cannot_listen(nic: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => "give the control plane CAP_NET_RAW",
        _ => "check that the kernel has packet sockets (CONFIG_PACKET)",
    };
    format!("cannot listen on {nic}: {error}; {advice}")
}

fn cannot_join(nic: &str, error: &io::Error) -> String {
    format!(
        "{nic} cannot join multicast groups: {error}; switches may keep solicitations from this box; check that its \
         MTU is at least 1280, and raise net.core.optmem_max if there are very many addresses"
    )
}

/// The kernel answers for its own addresses, whoever is master.
fn also_the_kernels(plan: &Plan, own: &BTreeMap<IpAddr, String>) -> Vec<String> {
    let both = plan.addresses.iter().filter_map(|address| Some((address, own.get(address)?)));
    both.map(|(address, nic)| {
        format!(
            "{address} is an address of this box itself, whose kernel answers for it too, even as a backup; remove \
             it: ip address del {address} dev {nic}"
        )
    })
    .collect()
}
