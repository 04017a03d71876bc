//! The AF_XDP port on real sockets, whoever drives their rings: every frame is somewhere at every step, also when rings are full, and packets
//! larger than a buffer pass unchanged.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, sockopt};
use shunt_api::snapshot::{Rings, XdpMode, ZeroCopy};
use shunt_dataplane::port::xsk::{EitherPort, Mode, Offers, OpenError, QueueId, Settings, SocketHandle};
use shunt_dataplane::port::{Frame, NicIndex, Port};
use shunt_dataplane::program::Steering;

use super::sandbox::{OWNED, add_veth, run, sandboxed, send, wait_until};

const RING: u32 = 64;
const HEADROOM: u32 = 20;
const IN: NicIndex = NicIndex(0);
const OUT: NicIndex = NicIndex(1);
/// Bytes of a packet that the kernel puts in one buffer in copy mode.
const PIECE: usize = 2048 - 256;
/// Bytes before the payload of a packet that was sent by [`send`]: Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Where forwarded packets go; nobody has it.
const AWAY: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// A port on `v0`, where packets to [`OWNED`] come in, and on `w0`, whose peer is `w1`.
struct Bench {
    port: Box<dyn Port>,
    sockets: Vec<SocketHandle>,
    frames: Vec<Frame>,
    _steering: Steering,
}

fn queues() -> [QueueId; 2] {
    [(IN, "v0"), (OUT, "w0")].map(|(nic, name)| QueueId { nic, name: name.to_owned(), queue: 0 })
}

fn open(
    rings: Rings,
    queues: &[QueueId],
    zero_copy: ZeroCopy,
) -> Result<(Box<dyn Port>, Vec<SocketHandle>), OpenError> {
    let settings = Settings { ring_size: RING, busy_poll: false };
    let (port, _, sockets) = EitherPort::open(rings, queues, &settings, &mut Offers::of(zero_copy, false))?;
    let port: Box<dyn Port> = match port {
        EitherPort::Own(port) => Box::new(port),
        EitherPort::XskRs(port) => Box::new(port),
    };
    Ok((port, sockets))
}

/// Runs each of these functions as a test, in a sandbox of its own, with both kinds of rings.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod own {
            $(#[test] fn $test() {
                super::sandboxed(concat!("port::own::", stringify!($test)), |directory| {
                    super::$test(super::Rings::Own, directory)
                });
            })*
        }
        mod xsk_rs {
            $(#[test] fn $test() {
                super::sandboxed(concat!("port::xsk_rs::", stringify!($test)), |directory| {
                    super::$test(super::Rings::XskRs, directory)
                });
            })*
        }
    };
}

on_both! {
    frames_are_conserved_through_the_kernel
    a_full_transmit_ring_gives_the_frame_back
    jumbo_frames_pass_unchanged_between_small_ones
    jumbo_frames_can_be_cut_and_released
    a_packet_of_too_many_pieces_is_counted_and_its_buffers_are_free
    a_queue_has_one_port_and_is_free_when_that_is_gone
}

impl Bench {
    fn new(rings: Rings, directory: &Path, mtu: u32) -> Self {
        run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        add_veth();
        run("ip link add w0 type veth peer name w1 && ip link set w0 up && ip link set w1 up");
        for nic in ["v0", "v1", "w0", "w1"] {
            run(&format!("ip link set {nic} mtu {mtu}"));
        }
        let mut steering = Steering::open(directory).unwrap();
        let (port, sockets) = open(rings, &queues(), ZeroCopy::Auto).unwrap();
        for SocketHandle { queue, fd, .. } in &sockets {
            steering.load(&queue.name).unwrap();
            steering.insert_socket(&queue.name, 0, fd.as_fd()).unwrap();
        }
        steering.own(&[(OWNED.parse().unwrap(), HEADROOM)].into()).unwrap();
        for nic in ["v0", "w0"] {
            steering.attach(nic, XdpMode::Native).unwrap();
        }
        Self { port, sockets, frames: Vec::new(), _steering: steering }
    }

    fn receive(&mut self, count: usize) {
        (0..count).for_each(|_| assert!(send(OWNED, &[7; 100]) > 0));
        let wanted = self.frames.len() + count;
        wait_until("the packets are received", || {
            let missing = wanted - self.frames.len();
            self.port.receive(&mut self.frames, missing);
            self.port.flush();
            self.frames.len() == wanted
        });
        self.check();
    }

    fn flush(&mut self) {
        self.port.flush();
        self.check();
    }

    /// Receives what is there, looking at `pieces` ring entries at a time, until `count` packets are held.
    fn collect(&mut self, count: usize, pieces: usize) {
        wait_until("the packets are received", || {
            let received = self.port.receive(&mut self.frames, pieces);
            assert!(received <= pieces);
            self.check();
            self.port.flush();
            self.check();
            self.frames.len() == count
        });
    }

    /// Sends a frame, behind its headroom, to [`AWAY`].
    fn forward(&mut self, mut frame: Frame) {
        frame.set_range(frame.range().start + HEADROOM as usize..frame.range().end);
        let start = frame.range().start;
        self.port.buffer(&frame)[start..start + 6].copy_from_slice(&AWAY);
        let mut unsent = Some(frame);
        wait_until("there is room", || {
            if let Err(frame) = self.port.transmit(OUT, unsent.take().unwrap()) {
                self.port.flush();
                unsent = Some(frame);
            }
            unsent.is_none()
        });
    }

    fn wait_until_completed(&mut self) {
        wait_until("all is completed", || {
            self.flush();
            self.port.census().transmit == 0
        });
        assert_eq!(self.port.census().fill + self.port.census().worker, self.port.census().total);
    }

    fn check(&self) {
        let census = self.port.census();
        assert!(census.is_conserved(), "{census:?}");
        let held = self.frames.iter().map(|frame| 1 + frame.tail_length().div_ceil(PIECE)).sum::<usize>();
        assert_eq!(census.worker, held, "{census:?}");
        assert_eq!(census.total, 2 * 4 * RING as usize);
    }
}

/// Sees the IPv4 frames that the kernel sends or receives in this network namespace.
struct Tap(OwnedFd);

impl Tap {
    fn open() -> Self {
        const ETH_P_ALL: u16 = 3;
        let all = NonZeroU32::new(ETH_P_ALL.to_be().into()).map(Protocol::from_raw);
        let flags = SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, all).unwrap();
        sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).unwrap();
        Self(socket)
    }

    /// Adds those seen since the last look to `sent`, or to `arrived` if they go to [`AWAY`].
    fn look(&self, sent: &mut Vec<Vec<u8>>, arrived: &mut Vec<Vec<u8>>) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, _)) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            let frame = &buffer[..length];
            if frame[12..14] == [0x08, 0x00] {
                if frame[..6] == AWAY { &mut *arrived } else { &mut *sent }.push(frame.to_vec());
            }
        }
    }
}

fn received_by(nic: &str) -> u64 {
    let links: serde_json::Value =
        serde_json::from_str(&run(&format!("ip -s -j link show dev {nic}"))).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

fn frames_are_conserved_through_the_kernel(rings: Rings, directory: &Path) {
    let mut bench = Bench::new(rings, directory, 1500);
    assert!(bench.sockets.iter().all(|socket| socket.mode == Mode::Copy), "veth has no zero-copy");
    let mut sent = 0;
    for _ in 0..40 {
        bench.receive(30);
        for (index, mut frame) in std::mem::take(&mut bench.frames).into_iter().enumerate() {
            assert_eq!(frame.length(), HEADROOM as usize + HEADERS + 100);
            if index % 3 == 0 {
                bench.port.release(frame);
                continue;
            }
            let range = frame.range();
            frame.set_range(range.start + HEADROOM as usize..range.end);
            bench.port.transmit(OUT, frame).unwrap();
            sent += 1;
        }
        bench.flush();
    }
    wait_until("all has arrived", || received_by("w1") == sent);
    bench.wait_until_completed();
    let realigned = if rings == Rings::XskRs { sent } else { 0 };
    assert_eq!(bench.port.counters().realigned, realigned, "xsk-rs cannot move the start of a frame");
    assert_eq!(bench.port.census().fill, bench.port.census().total);
}

fn a_full_transmit_ring_gives_the_frame_back(rings: Rings, directory: &Path) {
    let mut bench = Bench::new(rings, directory, 1500);
    for _ in 0..4 {
        bench.receive(RING as usize / 2);
        bench.flush();
    }
    let (mut accepted, mut refused) = (0, 0);
    for frame in std::mem::take(&mut bench.frames) {
        match bench.port.transmit(OUT, frame) {
            Ok(()) => accepted += 1,
            Err(frame) => {
                refused += 1;
                bench.port.release(frame);
            }
        }
    }
    assert_eq!((accepted, refused), (u64::from(RING), u64::from(RING)));
    bench.check();
    bench.flush();
    wait_until("the accepted ones have arrived", || received_by("w1") == accepted);
    let nowhere = NicIndex(9);
    bench.receive(1);
    let frame = bench.frames.pop().unwrap();
    let frame = bench.port.transmit(nowhere, frame).unwrap_err();
    bench.port.release(frame);
    bench.check();
}

/// Bytes that differ from packet to packet and from piece to piece.
fn payload(round: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251 + round) as u8).collect()
}

fn jumbo_frames_pass_unchanged_between_small_ones(rings: Rings, directory: &Path) {
    let mut bench = Bench::new(rings, directory, 9000);
    assert!(bench.sockets.iter().all(|socket| socket.multi_buffer && socket.mtu_limit().is_none()));
    let tap = Tap::open();
    let one_piece = PIECE - HEADROOM as usize - HEADERS;
    let sizes = [9000 - 28, 1, one_piece, one_piece + 1, 9000 - 28, 100, 5000, 9000 - 28, 9000 - 28];
    for round in 0..30 {
        let (mut sent, mut arrived) = (Vec::new(), Vec::new());
        for size in sizes {
            send(OWNED, &payload(round, size));
        }
        // 32 pieces: most of these numbers end a batch within a packet.
        bench.collect(sizes.len(), 1 + round % 12);
        for (frame, size) in std::mem::take(&mut bench.frames).into_iter().zip(sizes) {
            let length = HEADROOM as usize + HEADERS + size;
            assert_eq!((frame.length(), frame.nic()), (length, IN));
            assert_eq!(frame.tail_length(), length.saturating_sub(PIECE));
            bench.forward(frame);
        }
        wait_until("all has arrived", || {
            bench.port.flush();
            bench.check();
            tap.look(&mut sent, &mut arrived);
            arrived.len() == sizes.len()
        });
        assert_eq!(sent.len(), sizes.len());
        for ((sent, arrived), size) in sent.iter().zip(&arrived).zip(sizes) {
            assert!(sent[6..] == arrived[6..], "{size} bytes of payload in round {round}");
            assert!(arrived[HEADERS..] == payload(round, size), "{size} bytes of payload in round {round}");
        }
    }
    bench.wait_until_completed();
    assert_eq!(bench.port.census().fill, bench.port.census().total);
    assert_eq!(bench.port.counters().oversized, 0);
    let losses: Vec<_> = bench.sockets.iter().map(|socket| socket.counters().unwrap()).collect();
    assert!(losses.iter().all(|losses| *losses == Default::default()), "{losses:?}");
}

fn jumbo_frames_can_be_cut_and_released(rings: Rings, directory: &Path) {
    let mut bench = Bench::new(rings, directory, 9000);
    let tap = Tap::open();
    // To the end of the first piece, into it, into the second, to the end of the second, into the last, longer.
    let cuts = [PIECE - HEADROOM as usize, 60, PIECE, 2 * PIECE - HEADROOM as usize, 9013, 9100];
    let (mut sent, mut arrived) = (Vec::new(), Vec::new());
    for (round, cut) in cuts.into_iter().enumerate() {
        (0..2).for_each(|_| assert!(send(OWNED, &payload(round, 9000 - 28)) > 0));
        bench.collect(2, 64);
        let released = bench.frames.pop().unwrap();
        bench.port.release(released);
        bench.check();
        bench.port.truncate(&mut bench.frames[0], HEADROOM as usize + cut);
        bench.check();
        let frame = bench.frames.pop().unwrap();
        bench.forward(frame);
        bench.flush();
    }
    let mut own = bench.port.spare().unwrap();
    let bytes = [&AWAY[..], &[2, 0, 0, 0, 0, 1, 0x08, 0x00], &[0x45; 46]].concat();
    bench.port.buffer(&own)[..60].copy_from_slice(&bytes);
    own.set_range(0..60);
    bench.port.transmit(OUT, own).unwrap();
    bench.flush();
    wait_until("all has arrived", || {
        bench.flush();
        tap.look(&mut sent, &mut arrived);
        arrived.len() == cuts.len() + 1
    });
    assert_eq!(arrived.pop().unwrap(), bytes);
    for ((arrived, sent), cut) in arrived.iter().zip(sent.iter().step_by(2)).zip(cuts) {
        assert_eq!(arrived.len(), cut.min(9014));
        assert!(arrived[6..] == sent[6..arrived.len()], "cut at {cut}");
    }
    bench.wait_until_completed();
    assert_eq!(bench.port.census().fill, bench.port.census().total);
}

fn a_packet_of_too_many_pieces_is_counted_and_its_buffers_are_free(rings: Rings, directory: &Path) {
    let mut bench = Bench::new(rings, directory, 65_535);
    for round in 0..20 {
        send(OWNED, &payload(round, 40_000));
        bench.receive(1);
        assert_eq!(bench.frames[0].length(), HEADROOM as usize + HEADERS + 100);
        let frame = bench.frames.pop().unwrap();
        bench.port.release(frame);
        bench.check();
    }
    assert_eq!(bench.port.counters().oversized, 20);
    let largest = 17 * PIECE - HEADROOM as usize - HEADERS;
    send(OWNED, &payload(0, largest));
    bench.collect(1, 5);
    let frame = bench.frames.pop().unwrap();
    bench.forward(frame);
    wait_until("the largest packet arrives", || {
        bench.flush();
        received_by("w1") == 1
    });
    bench.wait_until_completed();
    assert_eq!(bench.port.counters().oversized, 20);
}

fn a_queue_has_one_port_and_is_free_when_that_is_gone(rings: Rings, _: &Path) {
    add_veth();
    let queue = &queues()[..1];
    let first = open(rings, queue, ZeroCopy::Auto).unwrap();
    let Err(error) = open(rings, queue, ZeroCopy::Off) else { panic!("bound twice") };
    assert!(error.is_busy() && error.to_string().contains("queue 0 of v0"), "{error}");
    drop(first);
    wait_until("the queue is free", || open(rings, queue, ZeroCopy::Auto).is_ok());
    let refused = |queue: &[QueueId], zero_copy| {
        let mut said = String::new();
        wait_until("it is refused for another reason than being in use", || {
            match open(rings, queue, zero_copy) {
                Err(error) => {
                    said = error.to_string();
                    !error.is_busy()
                }
                Ok(_) => panic!("it cannot work"),
            }
        });
        said
    };
    let no_zero_copy = refused(queue, ZeroCopy::On);
    assert!(no_zero_copy.contains("zero_copy = \"auto\""), "{no_zero_copy}");
    let no_such_queue = refused(&[QueueId { queue: 9, ..queue[0].clone() }], ZeroCopy::Auto);
    assert!(no_such_queue.contains("queue 9 of v0"), "{no_such_queue}");
}
