//! A station on the segment that asks for addresses all the time, by ARP and neighbour solicitations, and notes who
//! answers.
//!
//! Every question comes from another address, which nobody has, so that an answer tells which question it is to.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, bind};
use shunt_api::mac::MacAddress;
use shunt_tests::error::{Error, Result, While, ensure};
use shunt_tests::namespace::Namespace;
use shunt_tests::topology::Segment;
use socket2::{Domain, Protocol, Socket, Type};

use super::End;

/// From one question about an address to the next.
const PERIOD: Duration = Duration::from_millis(20);
/// IPv4 addresses to ask from, which recur after so many questions, and the first of them.
const SENDERS: usize = 100;
const FIRST_SENDER: u8 = 100;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// One question, and what was answered.
#[derive(Clone, Debug)]
pub struct Question {
    /// When it was asked.
    pub at: Instant,
    /// Whom it asks for.
    pub target: IpAddr,
    /// When each answer came, and the Ethernet address that it tells.
    pub answers: Vec<(Instant, MacAddress)>,
}

type Asked = Arc<Mutex<Vec<Question>>>;

/// The station at work.
pub struct Watcher {
    end: End,
    asked: Asked,
    thread: JoinHandle<Result<()>>,
}

impl Watcher {
    /// Asks for these, two addresses of the front segment, by a NIC of that name.
    pub fn start(namespace: &Namespace, nic: &'static str, targets: [IpAddr; 2]) -> Self {
        let (end, asked) = (End::default(), Asked::default());
        let (namespace, end_there, asked_there) = (namespace.clone(), Arc::clone(&end.0), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            namespace.inside(|| Station::open(nic)?.ask(targets, &end_there, &asked_there))?
        });
        Self { end, asked, thread }
    }

    /// All questions so far.
    pub fn questions(&self) -> Vec<Question> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the first answer with this Ethernet address came to a question asked after `since`, for whichever address
    /// it took longest; `None` until all have one.
    pub fn answered_by(&self, mac: MacAddress, since: Instant, targets: [IpAddr; 2]) -> Option<Instant> {
        let questions = self.questions();
        let first = |target: IpAddr| {
            let about = questions.iter().filter(|question| question.at >= since && question.target == target);
            about.flat_map(|question| &question.answers).find(|(_, by)| *by == mac).map(|(at, _)| *at)
        };
        let [one, other] = targets.map(first);
        Some(one?.max(other?))
    }

    /// Ends it; all questions.
    pub fn finish(self) -> Result<Vec<Question>> {
        drop(self.end);
        let joined = self.thread.join().unwrap_or_else(|_| Err(Error::Wrong("the watcher panicked".into())));
        joined?;
        Ok(std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

struct Station {
    socket: Socket,
    mac: MacAddress,
}

impl Station {
    fn open(nic: &str) -> Result<Self> {
        let all = Protocol::from(i32::from(u16::to_be(nix::libc::ETH_P_ALL as u16)));
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(all)).to(|| "open a packet socket".into())?;
        let address = link_address(nic)?;
        let bound = bind(socket.as_raw_fd(), &address).map_err(std::io::Error::from);
        bound.to(|| format!("bind to {nic}"))?;
        let mac = MacAddress(address.addr().unwrap_or_default());
        ensure(mac != MacAddress::default(), || format!("{nic} has no Ethernet address"))?;
        Ok(Self { socket, mac })
    }

    fn ask(mut self, targets: [IpAddr; 2], end: &AtomicBool, asked: &Asked) -> Result<()> {
        let mut next = Instant::now();
        let mut number = 0;
        while !end.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < next {
                self.hear(next - now, asked)?;
                continue;
            }
            next = now + PERIOD;
            for target in targets {
                let question = Question { at: Instant::now(), target, answers: Vec::new() };
                asked.lock().unwrap_or_else(PoisonError::into_inner).push(question);
                let sent = self.socket.write(&self.question(number, target)).map(drop);
                sent.to(|| "ask for an address".to_owned())?;
                number += 1;
            }
        }
        Ok(())
    }

    fn question(&self, number: usize, target: IpAddr) -> Vec<u8> {
        match target {
            IpAddr::V4(target) => request(self.mac, sender(number), target),
            IpAddr::V6(target) => solicitation(self.mac, source(number), target),
        }
    }

    /// Takes in one frame, if one comes within that time.
    fn hear(&mut self, within: Duration, asked: &Asked) -> Result<()> {
        let within = within.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(within)).to(|| "set a timeout".to_owned())?;
        let mut frame = [0; 2048];
        let length = match self.socket.read(&mut frame) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error).to(|| "hear answers".to_owned()),
        };
        let Some((to, target, mac)) = answer(&frame[..length]) else { return Ok(()) };
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let last = asked.len();
        let is_to = |number: &usize| match to {
            IpAddr::V4(to) => sender(*number) == to,
            IpAddr::V6(to) => source(*number) == to,
        };
        let recent = (last.saturating_sub(SENDERS)..last).rev();
        if let Some(number) = recent.filter(|number| asked[*number].target == target).find(is_to) {
            asked[number].answers.push((Instant::now(), mac));
        }
        Ok(())
    }
}

fn link_address(nic: &str) -> Result<LinkAddr> {
    let all = getifaddrs().map_err(std::io::Error::from).to(|| "list NICs".to_owned())?;
    let mut of_nic = all.filter(|entry| entry.interface_name == nic);
    let found = of_nic.find_map(|entry| entry.address?.as_link_addr().copied());
    found.ok_or_else(|| Error::Wrong(format!("there is no NIC {nic}")))
}

fn sender(number: usize) -> Ipv4Addr {
    Segment::Front.v4(FIRST_SENDER + u8::try_from(number % SENDERS).unwrap_or_default())
}

fn source(number: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(Segment::Front.v6(0).to_bits() | 0xa5c << 48 | number as u128)
}

/// RFC 826.
fn request(mac: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let ethernet = [&[0xff; 6][..], &mac.0, &ARP].concat();
    let kinds = [0, 1, 8, 0, 6, 4, 0, 1];
    [&ethernet[..], &kinds, &mac.0, &sender.octets(), &[0; 6], &target.octets()].concat()
}

/// RFC 4861 §4.3, to the solicited-node group.
fn solicitation(mac: MacAddress, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c])]);
    let option = [&[1, 1][..], &mac.0].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0xff, a, b, c])
        .ipv6(source.octets(), group.octets(), 255)
        .icmpv6_raw(SOLICITATION, 0, [0; 4])
        .write(&mut frame, &[&target.octets()[..], &option].concat())
        .expect("a vector takes all");
    frame
}

/// Whom an answer is for, what it is about, and the Ethernet address that it tells.
fn answer(frame: &[u8]) -> Option<(IpAddr, IpAddr, MacAddress)> {
    let bytes = |at: usize| frame.get(at..);
    let mac = |at| bytes(at)?.first_chunk().copied().map(MacAddress);
    match *bytes(12)?.first_chunk()? {
        ARP if frame.get(21) == Some(&2) => {
            let v4 = |at| bytes(at)?.first_chunk::<4>().map(|ip| IpAddr::from(*ip));
            Some((v4(38)?, v4(28)?, mac(22)?))
        }
        IPV6 if frame.get(20) == Some(&58) && frame.get(54) == Some(&ADVERTISEMENT) => {
            let v6 = |at| bytes(at)?.first_chunk::<16>().map(|ip| IpAddr::from(*ip));
            Some((v6(38)?, v6(62)?, mac(80)?))
        }
        _ => None,
    }
}
