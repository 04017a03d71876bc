//! Packets of several pieces: which chunk follows which, and how a packet grows from the pieces of a receive
//! ring. Used by every port; knows neither bytes nor rings, and frees nothing itself.
//!
//! A packet of one piece, which most are, touches none of this memory.

use std::ops::Range;

use super::{Frame, NicIndex};
use crate::limits::MAX_PIECES;

/// For every chunk of a port what follows it, if it is part of a packet that goes on.
#[derive(Debug)]
pub(super) struct Chains(Box<[Link]>);

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Chunk of the next piece. Means nothing for a last piece: a frame knows how many pieces it has.
    next: u32,
    /// Where this piece begins in its chunk. Means nothing for a head, whose place its frame knows.
    start: u16,
    /// Bytes of this piece. Means nothing for a head either.
    length: u16,
}

impl Chains {
    /// For so many chunks.
    pub fn new(chunks: usize) -> Self {
        Self(vec![Link::default(); chunks].into())
    }

    /// The packet's pieces, first to last.
    pub fn pieces(&self, frame: &Frame) -> impl Iterator<Item = Piece> {
        let (start, length) = (frame.start, frame.end - frame.start);
        let mut next = Some(Piece { chunk: frame.chunk, start, length, more: frame.pieces > 1 });
        let mut left = frame.pieces;
        std::iter::from_fn(move || {
            let this = next.take()?;
            left -= 1;
            if this.more {
                let chunk = self.0[this.chunk as usize].next;
                let Link { start, length, .. } = self.0[chunk as usize];
                next = Some(Piece { chunk, start, length, more: left > 1 });
            }
            Some(this)
        })
    }

    /// The packet's chunks, first to last.
    pub fn chunks(&self, frame: &Frame) -> impl Iterator<Item = u32> {
        self.pieces(frame).map(|piece| piece.chunk)
    }

    /// Adds a piece to a packet whose last one so far is `last`.
    fn append(&mut self, frame: &mut Frame, last: u32, piece: &Piece) {
        self.0[last as usize].next = piece.chunk;
        let link = &mut self.0[piece.chunk as usize];
        (link.start, link.length) = (piece.start, piece.length);
        frame.tail += u32::from(piece.length);
        frame.pieces += 1;
    }

    /// Ends the packet `length` bytes after its start. Returns the pieces that it no longer has, if any, as a
    /// frame whose range means nothing.
    pub fn truncate(&mut self, frame: &mut Frame, length: usize) -> Option<Frame> {
        if length >= frame.length() {
            return None;
        }
        let start = frame.range().start;
        let head = frame.range().len().min(length);
        frame.set_range(start..start + head);
        let mut left = (length - head) as u32;
        frame.tail = left;
        let (mut last, mut kept) = (frame.chunk, 1);
        while left > 0 {
            last = self.0[last as usize].next;
            kept += 1;
            let piece = &mut self.0[last as usize].length;
            *piece = (*piece).min(u16::try_from(left).unwrap_or(u16::MAX));
            left -= u32::from(*piece);
        }
        let surplus = frame.pieces - kept;
        frame.pieces = kept;
        let first = self.0[last as usize].next;
        (surplus > 0).then(|| Frame { pieces: surplus, ..Frame::empty(first, frame.nic) })
    }
}

/// One entry of a receive or transmit ring: bytes of a packet within one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub chunk: u32,
    /// Bytes of the chunk before it.
    pub start: u16,
    /// Bytes.
    pub length: u16,
    /// The packet goes on in the ring's next entry.
    pub more: bool,
}

impl Piece {
    /// Its place in its chunk.
    pub fn range(&self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.start) + usize::from(self.length)
    }
}

/// What a piece made of the packet it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The rest has yet to come.
    Incomplete,
    /// It is complete.
    Packet(Frame),
    /// It has too many pieces: these so far go back, and it counts as oversized.
    Oversized(Frame),
    /// One more piece of an oversized packet goes back.
    Surplus(Frame),
}

/// The packet of a receive ring that is arriving: a ring has its pieces one after the other, but a batch may end
/// between two.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    open: Option<Frame>,
    /// Chunk of the open packet's last piece so far.
    last: u32,
    /// The packet was oversized, and there is more of it to come.
    refusing: bool,
}

impl Assembly {
    /// Whether the ring's next piece is a packet by itself, as most are: then it need not be added.
    pub fn is_whole(&self, piece: &Piece) -> bool {
        !piece.more && self.open.is_none() && !self.refusing
    }

    /// How many of the ring's next pieces are whole packets, before the first that is not.
    #[inline]
    pub fn whole_ahead<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) -> usize {
        let idle = self.open.is_none() && !self.refusing;
        if idle { pieces.take_while(|piece| !piece.more).count() } else { 0 }
    }

    /// Takes the ring's next piece.
    pub fn add(&mut self, piece: &Piece, nic: NicIndex, chains: &mut Chains) -> Arrival {
        if self.refusing {
            self.refusing = piece.more;
            return Arrival::Surplus(Frame::single(piece, nic));
        }
        let frame = match self.open.take() {
            None => Frame::single(piece, nic),
            Some(mut frame) => {
                chains.append(&mut frame, self.last, piece);
                frame
            }
        };
        if frame.pieces() > MAX_PIECES {
            self.refusing = piece.more;
            return Arrival::Oversized(frame);
        }
        if !piece.more {
            return Arrival::Packet(frame);
        }
        self.last = piece.chunk;
        self.open = Some(frame);
        Arrival::Incomplete
    }

    /// Chunks that wait for the rest of their packet.
    pub fn pieces(&self) -> usize {
        self.open.as_ref().map_or(0, Frame::pieces)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NIC: NicIndex = NicIndex(3);

    /// Differs from chunk to chunk.
    fn start_in(chunk: u32) -> u16 {
        chunk as u16 % 13
    }

    /// A packet of pieces with these lengths, in chunks from `first` on.
    fn packet(chains: &mut Chains, first: u32, lengths: &[u16]) -> Frame {
        let mut assembly = Assembly::default();
        for (index, &length) in lengths.iter().enumerate() {
            let chunk = first + index as u32;
            let piece = Piece { chunk, start: start_in(chunk), length, more: index + 1 < lengths.len() };
            if let Arrival::Packet(frame) = assembly.add(&piece, NIC, chains) {
                return frame;
            }
        }
        panic!("{lengths:?} is no packet")
    }

    /// Cuts 90, 100 and 60 bytes in chunks 5, 6 and 7 at `length`: pieces that stay, and how many chunks go.
    fn check_cut(length: usize, stay: &[(u32, u16)], go: usize) {
        let mut chains = Chains::new(8);
        let mut frame = packet(&mut chains, 5, &[100, 100, 60]);
        assert_eq!(frame.range(), 5..105);
        frame.set_range(10..100);
        let rest = chains.truncate(&mut frame, length);
        let kept = chains.pieces(&frame).map(|piece| {
            let expected = if piece.chunk == 5 { 10 } else { start_in(piece.chunk) };
            assert_eq!(piece.start, expected, "cut at {length}");
            (piece.chunk, piece.length)
        });
        assert_eq!(kept.collect::<Vec<_>>(), stay, "cut at {length}");
        let more: Vec<bool> = chains.pieces(&frame).map(|piece| piece.more).collect();
        assert_eq!(more.iter().filter(|more| !**more).count(), 1, "cut at {length}");
        assert_eq!(more.last(), Some(&false), "cut at {length}");
        assert_eq!((frame.length(), frame.range().start), (length.min(250), 10));
        let gone: Vec<u32> = rest.iter().flat_map(|rest| chains.chunks(rest)).collect();
        assert_eq!(gone, (8 - go as u32..8).collect::<Vec<_>>(), "cut at {length}");
    }

    #[test]
    fn a_packet_ends_where_it_is_cut() {
        check_cut(251, &[(5, 90), (6, 100), (7, 60)], 0);
        check_cut(250, &[(5, 90), (6, 100), (7, 60)], 0);
        check_cut(249, &[(5, 90), (6, 100), (7, 59)], 0);
        check_cut(190, &[(5, 90), (6, 100)], 1);
        check_cut(91, &[(5, 90), (6, 1)], 1);
        check_cut(90, &[(5, 90)], 2);
        check_cut(0, &[(5, 0)], 2);
    }

    #[test]
    fn one_piece_too_many_is_refused_once_and_the_next_packet_is_not() {
        let mut chains = Chains::new(2 * MAX_PIECES);
        assert_eq!(packet(&mut chains, 0, &[9; MAX_PIECES]).pieces(), MAX_PIECES);
        let mut assembly = Assembly::default();
        let mut add = |chunk: usize, more| {
            assembly.add(&Piece { chunk: chunk as u32, start: 0, length: 9, more }, NIC, &mut chains)
        };
        (0..MAX_PIECES).for_each(|chunk| assert_eq!(add(chunk, true), Arrival::Incomplete));
        assert!(
            matches!(add(MAX_PIECES, true), Arrival::Oversized(frame) if frame.pieces() == MAX_PIECES + 1)
        );
        assert!(matches!(add(MAX_PIECES + 1, false), Arrival::Surplus(frame) if frame.pieces() == 1));
        assert!(matches!(add(MAX_PIECES + 2, false), Arrival::Packet(frame) if frame.length() == 9));
    }

    proptest! {
        #[test]
        fn every_chunk_comes_out_once_and_in_order(
            packets in proptest::collection::vec(proptest::collection::vec(0u16..2048, 1..MAX_PIECES + 4), 0..20)
        ) {
            let total = packets.iter().map(Vec::len).sum();
            let (mut chains, mut assembly) = (Chains::new(total), Assembly::default());
            let (mut next, mut seen, mut whole) = (0, Vec::new(), Vec::new());
            for lengths in &packets {
                for (index, &length) in lengths.iter().enumerate() {
                    let more = index + 1 < lengths.len();
                    let piece = Piece { chunk: next, start: start_in(next), length, more };
                    next += 1;
                    prop_assert_eq!(assembly.is_whole(&piece), lengths.len() == 1);
                    let arrival = assembly.add(&piece, NIC, &mut chains);
                    prop_assert_eq!(seen.len() + assembly.pieces(), next as usize - match &arrival {
                        Arrival::Incomplete => 0,
                        Arrival::Packet(frame) | Arrival::Oversized(frame) | Arrival::Surplus(frame) => frame.pieces(),
                    });
                    match arrival {
                        Arrival::Incomplete => {}
                        Arrival::Packet(frame) => {
                            prop_assert_eq!(frame.length(), lengths.iter().map(|&length| usize::from(length)).sum::<usize>());
                            prop_assert_eq!(frame.nic(), NIC);
                            let pieces: Vec<u16> = chains.pieces(&frame).map(|piece| piece.length).collect();
                            prop_assert!(chains.pieces(&frame).all(|piece| piece.start == start_in(piece.chunk)));
                            seen.extend(chains.chunks(&frame));
                            whole.push(pieces);
                        }
                        Arrival::Oversized(frame) | Arrival::Surplus(frame) => seen.extend(chains.chunks(&frame)),
                    }
                }
            }
            prop_assert_eq!(seen, (0..next).collect::<Vec<_>>());
            let expected: Vec<_> = packets.into_iter().filter(|lengths| lengths.len() <= MAX_PIECES).collect();
            prop_assert_eq!(whole, expected);
        }
    }
}
