//! The chunks of a port: those that are free, and which packets the received ones make up.

use super::chains::{Arrival, Assembly, Chains, Piece};
use super::{Frame, NicIndex};

/// The chunks that are neither with a socket nor with the kernel.
#[derive(Debug)]
pub struct Stock {
    pub free: Vec<u32>,
    pub chains: Chains,
    /// Chunks that are the worker's.
    pub in_worker: usize,
    /// Chunks there are.
    pub total: usize,
    /// Packets of too many pieces so far.
    pub oversized: u64,
}

impl Stock {
    /// All chunks are free; the first ones are taken first.
    pub fn new(chunks: u32) -> Self {
        let total = chunks as usize;
        let (free, chains) = ((0..chunks).rev().collect(), Chains::new(total));
        Self { free, chains, in_worker: 0, total, oversized: 0 }
    }

    /// One entry of a receive ring.
    #[inline]
    pub fn take_in(
        &mut self,
        piece: &Piece,
        nic: NicIndex,
        assembly: &mut Assembly,
        frames: &mut Vec<Frame>,
    ) {
        if assembly.is_whole(piece) {
            self.in_worker += 1;
            frames.push(Frame::single(piece, nic));
            return;
        }
        match assembly.add(piece, nic, &mut self.chains) {
            Arrival::Incomplete => {}
            Arrival::Packet(frame) => {
                self.in_worker += frame.pieces();
                frames.push(frame);
            }
            Arrival::Oversized(frame) => {
                self.oversized += 1;
                self.reclaim(&frame);
            }
            Arrival::Surplus(frame) => self.reclaim(&frame),
        }
    }

    /// A packet's chunks are free again.
    #[inline]
    pub fn reclaim(&mut self, frame: &Frame) {
        self.free.extend(self.chains.chunks(frame));
    }
}
