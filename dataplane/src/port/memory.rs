//! A port in memory: no NIC, no root, no kernel. Tests, benches and fuzzers put packets in at one end and
//! take what the worker sent out at the other. It never drops but what is oversized: [`MemoryPort::inject`]
//! says when full.

use std::time::Duration;

use super::chains::{Assembly, Piece};
use super::stock::Stock;
use super::{Census, Frame, NicIndex, Port, PortCounters, transmit_each};

/// Bytes of one buffer, as in AF_XDP.
pub const CHUNK_SIZE: usize = 2048;

/// Rings of one worker.
#[derive(Debug)]
pub struct MemoryPort {
    memory: Vec<u8>,
    chunk_size: usize,
    stock: Stock,
    /// In order; the first `taken` are no longer there.
    received: Vec<(NicIndex, Piece)>,
    taken: usize,
    assembly: Assembly,
    /// Each with the NIC that it leaves by.
    outgoing: Vec<Frame>,
    /// Chunks.
    sending: usize,
    transmit_limit: usize,
}

impl MemoryPort {
    /// With `frames` buffers, of which at most `transmit_limit` can be on their way out at once.
    pub fn new(frames: usize, transmit_limit: usize) -> Self {
        Self::with_chunk_size(frames, transmit_limit, CHUNK_SIZE)
    }

    /// Likewise, with buffers of `chunk_size` bytes: small ones make packets of many pieces out of few bytes.
    pub fn with_chunk_size(frames: usize, transmit_limit: usize, chunk_size: usize) -> Self {
        assert!(chunk_size <= usize::from(u16::MAX), "a frame's place has 16 bits");
        Self {
            memory: vec![0; frames * chunk_size],
            chunk_size,
            stock: Stock::new(frames as u32),
            received: Vec::with_capacity(frames),
            taken: 0,
            assembly: Assembly::default(),
            outgoing: Vec::with_capacity(frames),
            sending: 0,
            transmit_limit,
        }
    }

    /// Puts one packet into the receive ring of the first NIC; see [`MemoryPort::inject_from`].
    pub fn inject(&mut self, lead: &[u8], frame: &[u8]) -> bool {
        self.inject_from(NicIndex::default(), lead, frame)
    }

    /// Puts one packet into the receive ring of a NIC, in as many pieces as it needs, `lead` being the bytes
    /// the steering program put before the Ethernet header. Returns false, and changes nothing, if there are too
    /// few free buffers.
    pub fn inject_from(&mut self, nic: NicIndex, lead: &[u8], frame: &[u8]) -> bool {
        let pieces = (lead.len() + frame.len()).div_ceil(self.chunk_size).max(1);
        if pieces > self.stock.free.len() {
            return false;
        }
        self.received.drain(..std::mem::take(&mut self.taken));
        let mut sources = [lead, frame];
        for _ in 0..pieces {
            let chunk = self.stock.free.pop().expect("there are as many as looked for");
            let length = fill(self.chunk_mut(chunk), &mut sources) as u16;
            let more = sources.iter().any(|source| !source.is_empty());
            self.received.push((nic, Piece { chunk, start: 0, length, more }));
        }
        true
    }

    /// Takes what was transmitted, oldest first, and frees its buffers.
    pub fn drain(&mut self, mut each: impl FnMut(NicIndex, &[u8])) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        for frame in outgoing.drain(..) {
            if frame.pieces() == 1 {
                each(frame.nic, &self.chunk(frame.chunk)[frame.range()]);
            } else {
                each(frame.nic, &self.joined(&frame));
            }
            self.sending -= frame.pieces();
            self.stock.reclaim(&frame);
        }
        self.outgoing = outgoing;
    }

    /// Takes what was transmitted, oldest first.
    pub fn take_transmitted(&mut self) -> Vec<(NicIndex, Vec<u8>)> {
        let mut taken = Vec::new();
        self.drain(|nic, bytes| taken.push((nic, bytes.to_vec())));
        taken
    }

    /// The whole packet.
    fn joined(&self, frame: &Frame) -> Vec<u8> {
        let bytes = |piece: Piece| &self.chunk(piece.chunk)[piece.range()];
        self.stock.chains.pieces(frame).map(bytes).collect::<Vec<_>>().concat()
    }

    #[inline]
    fn chunk(&self, chunk: u32) -> &[u8] {
        &self.memory[chunk as usize * self.chunk_size..][..self.chunk_size]
    }

    #[inline]
    fn chunk_mut(&mut self, chunk: u32) -> &mut [u8] {
        &mut self.memory[chunk as usize * self.chunk_size..][..self.chunk_size]
    }

    /// Like [`Port::receive`], but looks at no more than so many pieces.
    #[inline]
    fn receive_pieces(&mut self, frames: &mut Vec<Frame>, limit: usize, pieces: usize) -> usize {
        let before = frames.len();
        let arrived = &self.received[self.taken..];
        let arrived = &arrived[..arrived.len().min(pieces)];
        let whole = self.assembly.whole_ahead(arrived.iter().take(limit).map(|(_, piece)| piece));
        frames.extend(arrived[..whole].iter().map(|(nic, piece)| Frame::single(piece, *nic)));
        self.stock.in_worker += whole;
        let mut taken = whole;
        for (nic, piece) in &arrived[whole..] {
            if frames.len() - before == limit {
                break;
            }
            taken += 1;
            self.stock.take_in(piece, *nic, &mut self.assembly, frames);
        }
        self.taken += taken;
        if self.taken == self.received.len() {
            self.received.clear();
            self.taken = 0;
        }
        frames.len() - before
    }
}

impl Port for MemoryPort {
    #[inline]
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> usize {
        self.receive_pieces(frames, limit, usize::MAX)
    }

    #[inline]
    fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        self.chunk_mut(frame.chunk)
    }

    fn truncate(&mut self, frame: &mut Frame, length: usize) {
        if let Some(rest) = self.stock.chains.truncate(frame, length) {
            self.release(rest);
        }
    }

    fn spare(&mut self) -> Option<Frame> {
        let chunk = self.stock.free.pop()?;
        self.stock.in_worker += 1;
        Some(Frame::empty(chunk, NicIndex::default()))
    }

    #[inline]
    fn transmit(&mut self, nic: NicIndex, frame: Frame) -> Result<(), Frame> {
        if frame.range().is_empty() || self.sending + frame.pieces() > self.transmit_limit {
            return Err(frame);
        }
        self.stock.in_worker -= frame.pieces();
        self.sending += frame.pieces();
        self.outgoing.push(Frame { nic, ..frame });
        Ok(())
    }

    #[inline]
    fn transmit_all(&mut self, frames: &mut Vec<Frame>) {
        let plain = frames.iter().all(|frame| frame.pieces == 1 && frame.start < frame.end);
        if plain && self.sending + frames.len() <= self.transmit_limit {
            self.stock.in_worker -= frames.len();
            self.sending += frames.len();
            self.outgoing.append(frames);
        } else {
            transmit_each(self, frames);
        }
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        self.stock.in_worker -= frame.pieces();
        self.stock.reclaim(&frame);
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}

    fn census(&self) -> Census {
        Census {
            fill: self.stock.free.len() + self.received.len() - self.taken + self.assembly.pieces(),
            worker: self.stock.in_worker,
            transmit: self.sending,
            total: self.stock.total,
        }
    }

    fn counters(&self) -> PortCounters {
        PortCounters { oversized: self.stock.oversized, ..PortCounters::default() }
    }
}

/// Moves bytes from the sources, one after the other, to the buffer until it is full. Returns how many.
fn fill(buffer: &mut [u8], sources: &mut [&[u8]; 2]) -> usize {
    let mut filled = 0;
    for source in sources {
        let (now, later) = source.split_at(source.len().min(buffer.len() - filled));
        buffer[filled..filled + now.len()].copy_from_slice(now);
        filled += now.len();
        *source = later;
    }
    filled
}

#[cfg(test)]
mod tests;
