//! A port in memory: no NIC, no root, no kernel. Tests, benches and fuzzers put frames in at one end and
//! take what the worker sent out at the other. It never drops: [`MemoryPort::inject`] says when full.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Census, Frame, NicIndex, Port, PortCounters};

/// Bytes of one buffer, as in AF_XDP.
pub const CHUNK_SIZE: usize = 2048;

/// Rings of one worker.
#[derive(Debug)]
pub struct MemoryPort {
    memory: Vec<u8>,
    free: Vec<u32>,
    received: VecDeque<Frame>,
    outgoing: VecDeque<(NicIndex, Frame)>,
    in_worker: usize,
    transmit_limit: usize,
}

impl MemoryPort {
    /// With `frames` buffers, of which at most `transmit_limit` can be on their way out at once.
    pub fn new(frames: usize, transmit_limit: usize) -> Self {
        Self {
            memory: vec![0; frames * CHUNK_SIZE],
            free: (0..frames as u32).rev().collect(),
            received: VecDeque::with_capacity(frames),
            outgoing: VecDeque::with_capacity(frames),
            in_worker: 0,
            transmit_limit,
        }
    }

    /// Puts one frame into the receive ring, `lead` being the bytes the steering program put before the
    /// Ethernet header. Returns false, and changes nothing, if there is no free buffer.
    ///
    /// Panics if the frame is longer than a buffer.
    pub fn inject(&mut self, lead: &[u8], frame: &[u8]) -> bool {
        let length = lead.len() + frame.len();
        assert!(length <= CHUNK_SIZE, "{length} bytes do not fit a buffer");
        let Some(chunk) = self.free.pop() else { return false };
        let buffer = &mut self.memory[chunk as usize * CHUNK_SIZE..][..length];
        buffer[..lead.len()].copy_from_slice(lead);
        buffer[lead.len()..].copy_from_slice(frame);
        self.received.push_back(Frame { chunk, start: 0, end: length as u16 });
        true
    }

    /// Takes what was transmitted, oldest first, and frees its buffers.
    pub fn drain(&mut self, mut each: impl FnMut(NicIndex, &[u8])) {
        while let Some((nic, frame)) = self.outgoing.pop_front() {
            each(nic, &self.memory[frame.chunk as usize * CHUNK_SIZE..][frame.range()]);
            self.free.push(frame.chunk);
        }
    }

    /// Takes what was transmitted, oldest first.
    pub fn take_transmitted(&mut self) -> Vec<(NicIndex, Vec<u8>)> {
        let mut taken = Vec::new();
        self.drain(|nic, bytes| taken.push((nic, bytes.to_vec())));
        taken
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> usize {
        let count = limit.min(self.received.len());
        frames.extend(self.received.drain(..count));
        self.in_worker += count;
        count
    }

    fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        &mut self.memory[frame.chunk as usize * CHUNK_SIZE..][..CHUNK_SIZE]
    }

    fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Result<(), Frame> {
        if self.outgoing.len() >= self.transmit_limit {
            return Err(frame);
        }
        self.in_worker -= 1;
        self.outgoing.push_back((nic, frame));
        Ok(())
    }

    fn release(&mut self, frame: Frame) {
        self.in_worker -= 1;
        self.free.push(frame.chunk);
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}

    fn census(&self) -> Census {
        Census {
            fill: self.free.len() + self.received.len(),
            worker: self.in_worker,
            transmit: self.outgoing.len(),
            total: self.memory.len() / CHUNK_SIZE,
        }
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
