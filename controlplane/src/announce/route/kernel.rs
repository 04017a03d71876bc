//! The kernel's routing tables: two netlink sockets, one that only listens to changes, one that asks and orders. They
//! carry bytes and decide nothing.

use std::io::{self, ErrorKind};
use std::time::Duration;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rustix::io::Errno;
use tokio::time::timeout;

use super::message::{self, Change, Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use super::plan::{Found, Place};

/// RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE.
const GROUPS: [u32; 2] = [7, 11];
/// The kernel never sends a larger datagram.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Orders in one datagram: each is acknowledged by a datagram of its own, and these must fit in the receive buffer
/// (about 1 KiB each of the usual 208 KiB).
const ORDERS_AT_ONCE: usize = 64;
/// The kernel answers within the system call that asks; waiting longer means that an answer was lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often routes are read in a row, as long as the kernel marks what it tells as inconsistent.
pub const DUMP_TRIES: usize = 3;

/// Why the kernel could not be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Of a socket.
    #[error(
        "a netlink socket could not {doing}: {source}; allow the control plane AF_NETLINK (RestrictAddressFamilies= of \
         its systemd unit) and enough open files"
    )]
    Socket { doing: &'static str, source: io::Error },
    /// To a question.
    #[error(
        "the kernel did not let routes of table {table} be read: {errno}; see `ip route show table {table}`"
    )]
    Unreadable { table: u32, errno: Errno },
    /// They never held still.
    #[error(
        "routes changed each time that table {table} was read; it is read again (`ip monitor route` shows what changes \
         them)"
    )]
    Interrupted { table: u32 },
    /// An answer never came.
    #[error("the kernel gave no answer about routes within {} s; it is asked again", ANSWER_WITHIN.as_secs())]
    NoAnswer,
}

fn cannot(doing: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Socket { doing, source }
}

/// How a change went.
pub type Outcome = Result<(), Errno>;

/// Both sockets.
pub struct Kernel {
    events: TokioSocket,
    questions: TokioSocket,
    /// By which events are known that we caused.
    own_port: u32,
    buffer: Vec<u8>,
    event: Vec<u8>,
    sequence: u32,
}

impl Kernel {
    /// Opens the sockets in the network namespace of this thread.
    pub fn open() -> Result<Self, KernelError> {
        let (mut events, _) = open()?;
        for group in GROUPS {
            events.socket_mut().add_membership(group).map_err(cannot("subscribe to changes"))?;
        }
        let (questions, own_port) = open()?;
        // A kernel without this sends more than it was asked for, which is sorted out on arrival.
        let _ = questions.socket_ref().set_netlink_get_strict_chk(true);
        Ok(Self { events, questions, own_port, buffer: Vec::new(), event: Vec::new(), sequence: 0 })
    }

    /// Waits until another program changed routes at a place, or may have. Nothing is lost if this is dropped.
    pub async fn changed(&mut self, place: Place) -> Result<(), KernelError> {
        loop {
            self.event.clear();
            self.event.reserve(DATAGRAM_BYTES);
            match self.events.recv(&mut self.event).await {
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                received => received.map_err(cannot("read changes"))?,
            }
            let foreign = |message: &Message| message.port != self.own_port;
            let concerns = |message| message::route(message).is_some_and(|(at, _)| at == place);
            if message::messages(&self.event).filter(foreign).any(concerns) {
                return Ok(());
            }
        }
    }

    /// The routes at a place, of both families.
    pub async fn read(&mut self, place: Place) -> Result<Vec<Found>, KernelError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            found.extend(self.read_family(place, family).await?);
        }
        Ok(found)
    }

    /// Nothing is known of routes that change while they are read, least of all that there are none.
    async fn read_family(&mut self, place: Place, family: AddressFamily) -> Result<Vec<Found>, KernelError> {
        for _ in 0..DUMP_TRIES {
            let mut found = Vec::new();
            if self.dump(place, family, &mut found).await? {
                return Ok(found);
            }
        }
        Err(KernelError::Interrupted { table: place.table })
    }

    /// Carries out the changes in their order; returns how each of them went.
    pub async fn change(&mut self, place: Place, changes: &[Change]) -> Result<Vec<Outcome>, KernelError> {
        let mut outcomes = vec![Ok(()); changes.len()];
        for (chunk, outcomes) in changes.chunks(ORDERS_AT_ONCE).zip(outcomes.chunks_mut(ORDERS_AT_ONCE)) {
            let first = self.send(chunk.iter().map(|change| message::order(place, *change)))?;
            let mut answered = 0;
            while answered < chunk.len() {
                self.receive().await?;
                for message in message::messages(&self.buffer).filter(|message| message.kind == NLMSG_ERROR) {
                    let index = message.sequence.wrapping_sub(first) as usize;
                    let (Some(change), Some(outcome)) = (chunk.get(index), outcomes.get_mut(index)) else {
                        continue;
                    };
                    answered += 1;
                    *outcome = refusal(*change, message).map_or(Ok(()), Err);
                }
            }
        }
        Ok(outcomes)
    }

    /// Reads one dump to its end; tells whether it is consistent.
    async fn dump(
        &mut self,
        place: Place,
        family: AddressFamily,
        found: &mut Vec<Found>,
    ) -> Result<bool, KernelError> {
        let sequence = self.send([message::question(place, family)].into_iter())?;
        let mut consistent = true;
        loop {
            self.receive().await?;
            for message in message::messages(&self.buffer).filter(|message| message.sequence == sequence) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match (message.kind, code(message)) {
                    // A table is made by the first route in it, and a family may be off.
                    (
                        NLMSG_DONE | NLMSG_ERROR,
                        None | Some(Errno::NOENT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP),
                    ) => {
                        return Ok(consistent);
                    }
                    (NLMSG_DONE | NLMSG_ERROR, Some(errno)) => {
                        return Err(KernelError::Unreadable { table: place.table, errno });
                    }
                    _ => found.extend(
                        message::route(message).filter(|(at, _)| *at == place).map(|(_, route)| route),
                    ),
                }
            }
        }
    }

    /// Sends `questions` as one datagram with consecutive numbers; returns the first number.
    fn send(
        &mut self,
        questions: impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>>,
    ) -> Result<u32, KernelError> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for mut question in questions {
            self.sequence = self.sequence.wrapping_add(1);
            question.header.sequence_number = self.sequence;
            question.finalize();
            let start = datagram.len();
            datagram.resize(start + question.buffer_len().next_multiple_of(4), 0);
            question.serialize(&mut datagram[start..]);
        }
        let kernel = SocketAddr::new(0, 0);
        self.questions.socket_ref().send_to(&datagram, &kernel, 0).map_err(cannot("ask the kernel"))?;
        Ok(first)
    }

    /// Reads the next datagram into the buffer. It is there already unless the kernel is slow.
    async fn receive(&mut self) -> Result<(), KernelError> {
        self.buffer.clear();
        self.buffer.reserve(DATAGRAM_BYTES);
        let received = timeout(ANSWER_WITHIN, self.questions.recv(&mut self.buffer)).await;
        received.map_err(|_| KernelError::NoAnswer)?.map_err(cannot("read an answer"))?;
        #[cfg(test)]
        super::tests::interrupt(&mut self.buffer);
        Ok(())
    }
}

fn open() -> Result<(TokioSocket, u32), KernelError> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(cannot("be opened"))?;
    let address = socket.socket_mut().bind_auto().map_err(cannot("be bound"))?;
    Ok((socket, address.port_number()))
}

/// Why a change was not carried out. What is gone need not be removed.
fn refusal(change: Change, message: Message) -> Option<Errno> {
    let errno = code(message)?;
    let gone = matches!(change, Change::Remove(_)) && errno == Errno::SRCH;
    (!gone).then_some(errno)
}

/// The error number with which an answer begins; `None`: it is no error.
fn code(message: Message) -> Option<Errno> {
    let code = message.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    (code < 0).then(|| Errno::from_raw_os_error(-code))
}
