//! Packets of one piece and of many through a port in memory: nothing is lost, mixed up or changed.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_PIECES;

#[test]
fn frames_are_conserved_through_every_path() {
    let mut port = MemoryPort::new(4, 1);
    for byte in 0..4 {
        assert!(port.inject(&[9], &[byte; 60]));
    }
    assert!(!port.inject(&[], &[4; 60]), "no fifth buffer");
    let mut frames = Vec::new();
    assert_eq!(port.receive(&mut frames, 3), 3);
    assert_eq!(port.census(), Census { fill: 1, worker: 3, transmit: 0, total: 4 });
    let mut first = frames.remove(0);
    assert_eq!(port.buffer(&first)[..2], [9, 0]);
    first.set_range(1..61);
    port.transmit(NicIndex(1), first).unwrap();
    let refused = port.transmit(NicIndex(1), frames.remove(0)).unwrap_err();
    port.release(refused);
    port.release(frames.remove(0));
    assert!(port.census().is_conserved());
    assert_eq!(port.take_transmitted(), [(NicIndex(1), vec![0; 60])]);
    assert_eq!(port.census(), Census { fill: 4, worker: 0, transmit: 0, total: 4 });
}

#[test]
fn a_large_packet_comes_in_pieces_and_goes_out_whole() {
    let mut port = MemoryPort::with_chunk_size(6, 5, 64);
    let bytes: Vec<u8> = (0..200).collect();
    assert!(port.inject_from(NicIndex(2), &[0xee; 20], &bytes), "220 bytes in 4 pieces");
    assert!(!port.inject(&[], &bytes[..129]), "2 pieces are free, 3 are needed");
    assert_eq!(port.census().fill, 6);
    let mut frames = Vec::new();
    assert_eq!(port.receive(&mut frames, 1), 1);
    let mut frame = frames.pop().unwrap();
    assert_eq!((frame.nic(), frame.length(), frame.tail_length()), (NicIndex(2), 220, 156));
    assert_eq!(port.buffer(&frame).len(), 64, "only the head is the worker's");
    frame.set_range(20..64);
    let blocking = (port.spare().unwrap(), port.spare().unwrap());
    assert_eq!(port.spare(), None);
    for mut spare in [blocking.0, blocking.1] {
        spare.set_range(0..60);
        port.transmit(NicIndex(0), spare).unwrap();
    }
    let frame = port.transmit(NicIndex(1), frame).unwrap_err();
    assert_eq!(port.census(), Census { fill: 0, worker: 4, transmit: 2, total: 6 }, "no room for all pieces");
    assert_eq!(port.take_transmitted().len(), 2);
    port.transmit(NicIndex(1), frame).unwrap();
    assert_eq!(port.take_transmitted(), [(NicIndex(1), bytes)]);
    assert_eq!(port.census().fill, 6);
}

#[test]
fn what_has_no_bytes_is_not_sent() {
    let mut port = MemoryPort::new(2, 2);
    let frame = port.spare().unwrap();
    assert_eq!((frame.length(), frame.nic()), (0, NicIndex(0)));
    let frame = port.transmit(NicIndex(0), frame).unwrap_err();
    port.release(frame);
    assert_eq!(port.census().fill, 2);
}

#[test]
fn an_oversized_packet_is_counted_and_the_next_one_is_not_touched() {
    let mut port = MemoryPort::with_chunk_size(2 * MAX_PIECES, 0, 8);
    assert!(port.inject(&[], &[1; 8 * MAX_PIECES + 1]));
    assert!(port.inject(&[], &[2; 12]));
    let mut frames = Vec::new();
    assert_eq!(port.receive(&mut frames, 8), 1);
    assert_eq!(port.joined(&frames[0]), [2; 12]);
    assert_eq!(port.counters().oversized, 1);
    assert_eq!(
        port.census(),
        Census { fill: 2 * MAX_PIECES - 2, worker: 2, transmit: 0, total: 2 * MAX_PIECES }
    );
}

/// Something a worker or its network does. Indices are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Inject { nic: u8, length: usize },
    Receive { limit: usize, pieces: usize },
    Strip { frame: usize, bytes: usize },
    Truncate { frame: usize, length: usize },
    Spare { length: usize },
    Transmit { frame: usize, nic: u8 },
    Release { frame: usize },
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let frame = 0..64usize;
    prop_oneof![
        4 => (0..4u8, 0..400usize).prop_map(|(nic, length)| Step::Inject { nic, length }),
        4 => (0..6usize, 0..20usize).prop_map(|(limit, pieces)| Step::Receive { limit, pieces }),
        1 => (frame.clone(), 0..16usize).prop_map(|(frame, bytes)| Step::Strip { frame, bytes }),
        2 => (frame.clone(), 0..400usize).prop_map(|(frame, length)| Step::Truncate { frame, length }),
        1 => (0..16usize).prop_map(|length| Step::Spare { length }),
        3 => (frame.clone(), 0..4u8).prop_map(|(frame, nic)| Step::Transmit { frame, nic }),
        1 => frame.prop_map(|frame| Step::Release { frame }),
        1 => Just(Step::Drain),
    ]
}

/// A port of 16-byte buffers and what its packets should be.
struct Model {
    port: MemoryPort,
    arriving: VecDeque<(NicIndex, Vec<u8>)>,
    held: Vec<(Frame, Vec<u8>)>,
    leaving: Vec<(NicIndex, Vec<u8>)>,
    written: u8,
    oversized: u64,
}

const CHUNK: usize = 16;
const CHUNKS: usize = 60;

impl Model {
    fn new() -> Self {
        let port = MemoryPort::with_chunk_size(CHUNKS, 30, CHUNK);
        let (arriving, held, leaving) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { port, arriving, held, leaving, written: 0, oversized: 0 }
    }

    /// Bytes that were not used lately.
    fn fresh(&mut self, length: usize) -> Vec<u8> {
        let first = self.written;
        self.written = first.wrapping_add(length as u8);
        (0..length).map(|index| first.wrapping_add(index as u8)).collect()
    }

    fn take(&mut self, frame: usize) -> Option<(Frame, Vec<u8>)> {
        (!self.held.is_empty()).then(|| self.held.swap_remove(frame % self.held.len()))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Inject { nic, length } => {
                let bytes = self.fresh(length);
                let free = self.port.stock.free.len();
                let fits = self.port.inject_from(NicIndex(nic), &bytes[..length / 5], &bytes[length / 5..]);
                assert_eq!(fits, length.div_ceil(CHUNK).max(1) <= free);
                if fits {
                    self.arriving.push_back((NicIndex(nic), bytes));
                }
            }
            Step::Receive { limit, pieces } => self.receive(limit, pieces),
            Step::Strip { frame, bytes } => {
                let Some((mut frame, expected)) = self.take(frame) else { return };
                let bytes = bytes.min(frame.range().len());
                frame.set_range(frame.range().start + bytes..frame.range().end);
                self.held.push((frame, expected[bytes..].to_vec()));
            }
            Step::Truncate { frame, length } => {
                let Some((mut frame, mut expected)) = self.take(frame) else { return };
                self.port.truncate(&mut frame, length);
                expected.truncate(length);
                self.held.push((frame, expected));
            }
            Step::Spare { length } => {
                let Some(mut frame) = self.port.spare() else { return };
                let bytes = self.fresh(length);
                self.port.buffer(&frame)[..length].copy_from_slice(&bytes);
                frame.set_range(0..length);
                self.held.push((frame, bytes));
            }
            Step::Transmit { frame, nic } => {
                let Some((frame, expected)) = self.take(frame) else { return };
                match self.port.transmit(NicIndex(nic), frame) {
                    Ok(()) => self.leaving.push((NicIndex(nic), expected)),
                    Err(frame) => self.held.push((frame, expected)),
                }
            }
            Step::Release { frame } => {
                if let Some((frame, _)) = self.take(frame) {
                    self.port.release(frame);
                }
            }
            Step::Drain => assert_eq!(self.port.take_transmitted(), std::mem::take(&mut self.leaving)),
        }
    }

    fn receive(&mut self, limit: usize, pieces: usize) {
        let mut frames = Vec::new();
        let count = self.port.receive_pieces(&mut frames, limit, pieces);
        assert!(count == frames.len() && count <= limit);
        for frame in frames {
            let (nic, expected) = loop {
                let (nic, bytes) = self.arriving.pop_front().unwrap();
                if bytes.len() <= MAX_PIECES * CHUNK {
                    break (nic, bytes);
                }
                self.oversized += 1;
            };
            assert_eq!(frame.nic(), nic);
            self.held.push((frame, expected));
        }
    }

    fn check(&self) {
        let census = self.port.census();
        assert!(census.is_conserved() && census.total == CHUNKS, "{census:?}");
        assert_eq!(census.worker, self.held.iter().map(|(frame, _)| frame.pieces()).sum::<usize>());
        for (frame, expected) in &self.held {
            assert_eq!(frame.length(), expected.len());
            assert_eq!(&self.port.joined(frame), expected);
        }
        assert!(
            self.oversized <= self.port.counters().oversized,
            "counted here when the next one is complete"
        );
    }
}

proptest! {
    #[test]
    fn whatever_is_done_no_buffer_is_lost_and_no_byte_changes(steps in proptest::collection::vec(step(), 0..200)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
            model.check();
        }
        model.receive(CHUNKS, CHUNKS);
        model.oversized += model.arriving.len() as u64;
        assert_eq!(model.oversized, model.port.counters().oversized);
        while !model.held.is_empty() {
            model.run(Step::Release { frame: 0 });
        }
        model.run(Step::Drain);
        assert_eq!(model.port.census().fill, CHUNKS);
    }
}
