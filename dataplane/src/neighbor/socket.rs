//! The two netlink sockets: one that only listens to events, one that only asks. They carry bytes and decide
//! nothing.

use std::io::{self, ErrorKind};
use std::time::Duration;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::time::timeout;

use super::NeighborError;
use super::message::{self, Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

/// RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, NEXTHOP.
const GROUPS: [u32; 9] = [1, 3, 5, 7, 8, 9, 11, 19, 32];
/// Room for some ten thousand events while a round of questions runs.
const EVENT_BUFFER_BYTES: usize = 8 << 20;
const ANSWER_BUFFER_BYTES: usize = 1 << 20;
/// The kernel never sends a larger datagram.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Datagrams read in one go, so that a storm of events cannot keep everything else waiting.
const READ_AT_ONCE: usize = 1024;
/// Questions in one datagram: the answers come as a datagram each and must fit in the receive buffer even
/// where it cannot be enlarged (about 4.5 KiB each of the usual 208 KiB).
const ASK_AT_ONCE: usize = 32;
/// The kernel answers within the system call that asks; waiting longer means that an answer was lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a dump is repeated that the kernel marks as inconsistent; events mend the rest.
const DUMP_TRIES: usize = 3;

fn cannot(doing: &'static str) -> impl Fn(io::Error) -> NeighborError {
    move |source| NeighborError::Netlink { doing, source }
}

fn open(groups: &[u32], buffer_bytes: usize) -> Result<TokioSocket, NeighborError> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(cannot("open a socket"))?;
    let inner = socket.socket_mut();
    inner.bind_auto().map_err(cannot("bind a socket"))?;
    if set_socket_recv_buffer_size_force(&*inner, buffer_bytes).is_err() {
        let bytes = i32::try_from(buffer_bytes).expect("a constant far below 2 GiB");
        inner.set_rx_buf_sz(bytes).map_err(cannot("enlarge the receive buffer"))?;
    }
    for &group in groups {
        inner.add_membership(group).map_err(cannot("subscribe to changes"))?;
    }
    Ok(socket)
}

/// What reading events led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing is missing.
    Complete,
    /// The kernel had to drop events, and all it did not drop are read.
    Overrun,
}

/// The socket that listens.
pub(super) struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
    overrun: bool,
}

impl Events {
    pub fn open() -> Result<Self, NeighborError> {
        let socket = open(&GROUPS, EVENT_BUFFER_BYTES)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_BYTES), overrun: false })
    }

    /// Waits for the first datagram, which [`Events::read`] then hands on. Nothing is lost if it is dropped.
    pub async fn wait(&mut self) -> Result<(), NeighborError> {
        self.buffer.clear();
        let received = self.socket.recv(&mut self.buffer).await;
        self.note_overrun(received)
    }

    /// Hands the messages that are there to `note`, without waiting.
    ///
    /// After an overrun what is left is old, so that it is told only when all of it is read: what is then
    /// asked of the kernel cannot be overtaken by it.
    pub fn read(&mut self, mut note: impl FnMut(Message)) -> Result<Read, NeighborError> {
        for _ in 0..READ_AT_ONCE {
            message::messages(&self.buffer).for_each(&mut note);
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let overrun = std::mem::take(&mut self.overrun);
                    return Ok(if overrun { Read::Overrun } else { Read::Complete });
                }
                received => self.note_overrun(received.map(|_| ()))?,
            }
        }
        message::messages(&self.buffer).for_each(&mut note);
        Ok(Read::Complete)
    }

    fn note_overrun(&mut self, received: io::Result<()>) -> Result<(), NeighborError> {
        match received {
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => self.overrun = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => received.map_err(cannot("read changes"))?,
        }
        Ok(())
    }
}

/// How the kernel answered one question.
#[derive(Debug)]
pub(super) enum Reply<'a> {
    /// With a message.
    Message(Message<'a>),
    /// It is done.
    Done,
    /// It refused.
    Refused(Errno),
}

/// The socket that asks.
pub(super) struct Questions {
    socket: TokioSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Questions {
    pub fn open() -> Result<Self, NeighborError> {
        let socket = open(&[], ANSWER_BUFFER_BYTES)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_BYTES), sequence: 0 })
    }

    /// Asks about each of `subjects` and hands the one reply to each to `note`, in the same order.
    pub async fn ask<T: Copy>(
        &mut self,
        subjects: &[T],
        question: impl Fn(T) -> NetlinkMessage<RouteNetlinkMessage>,
        mut note: impl FnMut(T, Reply),
    ) -> Result<(), NeighborError> {
        for chunk in subjects.chunks(ASK_AT_ONCE) {
            let first = self.send(chunk.iter().map(|subject| question(*subject)))?;
            let mut answered = 0;
            while answered < chunk.len() {
                self.receive().await?;
                for message in message::messages(&self.buffer) {
                    let Some(subject) = chunk.get(message.sequence.wrapping_sub(first) as usize) else {
                        continue;
                    };
                    answered += 1;
                    note(*subject, reply(message));
                }
            }
        }
        Ok(())
    }

    /// Asks for everything of a kind and hands it to `note`; what an interrupted try found is handed too.
    pub async fn dump(
        &mut self,
        question: impl Fn() -> NetlinkMessage<RouteNetlinkMessage>,
        mut note: impl FnMut(Message),
    ) -> Result<(), NeighborError> {
        for _ in 0..DUMP_TRIES {
            let sequence = self.send([question()].into_iter())?;
            if self.dumped(sequence, &mut note).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads one dump to its end; tells whether it is consistent.
    async fn dumped(&mut self, sequence: u32, note: &mut impl FnMut(Message)) -> Result<bool, NeighborError> {
        let mut consistent = true;
        loop {
            self.receive().await?;
            for message in message::messages(&self.buffer).filter(|message| message.sequence == sequence) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => {
                        let Reply::Refused(errno) = reply(message) else { continue };
                        return Err(cannot("read all links or neighbours")(errno.into()));
                    }
                    _ => note(message),
                }
            }
        }
    }

    /// Sends `questions` as one datagram with consecutive numbers; returns the first number.
    fn send(
        &mut self,
        questions: impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>>,
    ) -> Result<u32, NeighborError> {
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
        self.socket.socket_ref().send_to(&datagram, &kernel, 0).map_err(cannot("ask the kernel"))?;
        Ok(first)
    }

    /// Reads the next datagram into the buffer. It is there already unless the kernel is slow.
    async fn receive(&mut self) -> Result<(), NeighborError> {
        let no_answer = |_| NeighborError::NoAnswer { seconds: ANSWER_WITHIN.as_secs() };
        self.buffer.clear();
        let received = match self.socket.socket_ref().recv(&mut self.buffer, 0) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                timeout(ANSWER_WITHIN, self.socket.recv(&mut self.buffer)).await.map_err(no_answer)?
            }
            received => received.map(|_| ()),
        };
        received.map_err(cannot("read an answer"))
    }
}

fn reply(message: Message) -> Reply {
    if message.kind != NLMSG_ERROR {
        return Reply::Message(message);
    }
    let code = message.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 { Reply::Done } else { Reply::Refused(Errno::from_raw_os_error(-code)) }
}
