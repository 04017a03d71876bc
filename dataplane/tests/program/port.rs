//! The AF_XDP port on real sockets: every frame is somewhere at every step, also when rings are full.

use std::os::fd::AsFd;
use std::path::Path;

use shunt_api::snapshot::{XdpMode, ZeroCopy};
use shunt_dataplane::port::xsk::{Mode, OpenError, QueueId, Settings, SocketHandle, XskPort};
use shunt_dataplane::port::{Frame, NicIndex, Port};
use shunt_dataplane::program::Steering;

use super::sandbox::{OWNED, add_veth, run, sandboxed, send, wait_until};

const RING: u32 = 64;
const HEADROOM: u32 = 20;
const IN: NicIndex = NicIndex(0);
const OUT: NicIndex = NicIndex(1);

/// A port on `v0`, where packets to [`OWNED`] come in, and on `w0`, whose peer is `w1`.
struct Bench {
    port: XskPort,
    sockets: Vec<SocketHandle>,
    frames: Vec<Frame>,
    _steering: Steering,
}

fn queues() -> [QueueId; 2] {
    [(IN, "v0"), (OUT, "w0")].map(|(nic, name)| QueueId { nic, name: name.to_owned(), queue: 0 })
}

fn open(queues: &[QueueId], zero_copy: ZeroCopy) -> Result<(XskPort, Vec<SocketHandle>), OpenError> {
    let settings = Settings { ring_size: RING, zero_copy, busy_poll: false };
    XskPort::open(queues, &settings).map(|(port, _, sockets)| (port, sockets))
}

impl Bench {
    fn new(directory: &Path) -> Self {
        run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        add_veth();
        run("ip link add w0 type veth peer name w1 && ip link set w0 up && ip link set w1 up");
        let mut steering = Steering::open(directory).unwrap();
        let (port, sockets) = open(&queues(), ZeroCopy::Auto).unwrap();
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

    fn check(&self) {
        let census = self.port.census();
        assert!(census.is_conserved(), "{census:?}");
        assert_eq!(census.worker, self.frames.len(), "{census:?}");
        assert_eq!(census.total, 2 * 4 * RING as usize);
    }
}

fn received_by(nic: &str) -> u64 {
    let links: serde_json::Value =
        serde_json::from_str(&run(&format!("ip -s -j link show dev {nic}"))).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn frames_are_conserved_through_the_kernel() {
    sandboxed("port::frames_are_conserved_through_the_kernel", |directory| {
        let mut bench = Bench::new(directory);
        assert!(bench.sockets.iter().all(|socket| socket.mode == Mode::Copy), "veth has no zero-copy");
        let mut sent = 0;
        for _ in 0..40 {
            bench.receive(30);
            for (index, mut frame) in std::mem::take(&mut bench.frames).into_iter().enumerate() {
                assert_eq!(frame.length(), HEADROOM as usize + 14 + 20 + 8 + 100);
                if index % 3 == 0 {
                    bench.port.release(frame);
                    continue;
                }
                frame.set_range(HEADROOM as usize..frame.range().end);
                bench.port.transmit(OUT, frame).unwrap();
                sent += 1;
            }
            bench.flush();
        }
        wait_until("all has arrived", || received_by("w1") == sent);
        wait_until("all is completed", || {
            bench.flush();
            bench.port.census().transmit == 0
        });
        assert_eq!(bench.port.counters().realigned, sent, "xsk-rs cannot move the start of a frame");
        assert_eq!(bench.port.census().fill, bench.port.census().total);
    });
}

#[test]
fn a_full_transmit_ring_gives_the_frame_back() {
    sandboxed("port::a_full_transmit_ring_gives_the_frame_back", |directory| {
        let mut bench = Bench::new(directory);
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
    });
}

#[test]
fn a_queue_has_one_port_and_is_free_when_that_is_gone() {
    sandboxed("port::a_queue_has_one_port_and_is_free_when_that_is_gone", |_| {
        add_veth();
        let queue = &queues()[..1];
        let first = open(queue, ZeroCopy::Auto).unwrap();
        let Err(error) = open(queue, ZeroCopy::Off) else { panic!("bound twice") };
        assert!(error.is_busy() && error.to_string().contains("queue 0 of v0"), "{error}");
        drop(first);
        wait_until("the queue is free", || open(queue, ZeroCopy::Auto).is_ok());
        let refused = |queue: &[QueueId], zero_copy| {
            let mut said = String::new();
            wait_until("it is refused for another reason than being in use", || {
                match open(queue, zero_copy) {
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
    });
}
