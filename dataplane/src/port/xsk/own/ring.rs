//! A ring that is shared with the kernel, from either end: one side writes entries and moves the producer's index
//! on, the other reads them and moves the consumer's. Indices count entries from the socket's start and wrap at
//! 2³²; an entry's place is its index modulo the ring's size (Documentation/networking/af_xdp.rst).
//!
//! Each end keeps its own index to itself and remembers the other's, so that it touches the shared ones once per
//! batch. Makes no system calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::memory::{DescriptorCell, Mapping, Part, Shareable};

/// What a ring is made of.
pub trait Entry: Copy {
    /// Where it stands in the ring.
    type Cell: Shareable;

    /// Reads it; that it is there was learned from the producer's index.
    fn load(cell: &Self::Cell) -> Self;

    /// Writes it; the producer's index makes it known.
    fn store(self, cell: &Self::Cell);
}

/// An entry of a fill or completion ring: an address within the UMEM.
impl Entry for u64 {
    type Cell = AtomicU64;

    fn load(cell: &AtomicU64) -> Self {
        cell.load(Ordering::Relaxed)
    }

    fn store(self, cell: &AtomicU64) {
        cell.store(self, Ordering::Relaxed);
    }
}

/// An entry of a receive or transmit ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Within the UMEM.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// `XDP_PKT_CONTD`: the packet goes on in the next entry.
    pub options: u32,
}

impl Entry for Descriptor {
    type Cell = DescriptorCell;

    fn load(cell: &DescriptorCell) -> Self {
        Self {
            address: cell.address.load(Ordering::Relaxed),
            length: cell.length.load(Ordering::Relaxed),
            options: cell.options.load(Ordering::Relaxed),
        }
    }

    fn store(self, cell: &DescriptorCell) {
        cell.address.store(self.address, Ordering::Relaxed);
        cell.length.store(self.length, Ordering::Relaxed);
        cell.options.store(self.options, Ordering::Relaxed);
    }
}

/// Where in its mapping a ring has what.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub producer: usize,
    pub consumer: usize,
    pub flags: usize,
    pub entries: usize,
}

/// A ring in memory.
pub struct Ring<E: Entry> {
    producer: Part<AtomicU32>,
    consumer: Part<AtomicU32>,
    flags: Part<AtomicU32>,
    cells: Part<E::Cell>,
}

impl<E: Entry> Ring<E> {
    /// With `size` entries, a power of two. Panics if the layout is beyond the mapping.
    pub fn new(mapping: &Arc<Mapping>, layout: &Layout, size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring of {size} entries");
        Self {
            producer: mapping.part(layout.producer, 1),
            consumer: mapping.part(layout.consumer, 1),
            flags: mapping.part(layout.flags, 1),
            cells: mapping.part(layout.entries, size as usize),
        }
    }

    /// Bytes of the mapping of a ring.
    pub fn length(layout: &Layout, size: u32) -> usize {
        layout.entries + size as usize * size_of::<E::Cell>()
    }

    fn size(&self) -> u32 {
        self.cells.len() as u32
    }

    fn place(&self, index: u32) -> usize {
        index as usize & (self.cells.len() - 1)
    }

    /// All places in the order of their indices, in two parts: up to the end of the memory, and from its start.
    fn from(&self, index: u32) -> (&[E::Cell], &[E::Cell]) {
        let (before, from) = self.cells.split_at(self.place(index));
        (from, before)
    }
}

/// The writing end of a ring.
pub struct Producer<E: Entry> {
    ring: Ring<E>,
    /// Of the entry to be written next.
    next: u32,
    /// The first that is not yet known to have been read.
    read: u32,
}

impl<E: Entry> Producer<E> {
    /// Goes on where the ring stands.
    pub fn new(ring: Ring<E>) -> Self {
        let next = ring.producer[0].load(Ordering::Relaxed);
        let read = ring.consumer[0].load(Ordering::Acquire);
        Self { ring, next, read }
    }

    /// Whether so many more entries can be written.
    #[inline]
    pub fn has_room(&mut self, entries: u32) -> bool {
        if self.room() >= entries {
            return true;
        }
        // Acquire: the other side has read the entries before we write over them.
        self.read = self.ring.consumer[0].load(Ordering::Acquire);
        self.room() >= entries
    }

    fn room(&self) -> u32 {
        self.ring.size().wrapping_sub(self.next.wrapping_sub(self.read))
    }

    /// Writes an entry, which the other side does not see before [`Producer::publish`]. To be preceded by
    /// [`Producer::has_room`].
    #[inline]
    pub fn write(&mut self, entry: E) {
        debug_assert!(self.room() > 0, "an entry would be overwritten");
        entry.store(&self.ring.cells[self.ring.place(self.next)]);
        self.next = self.next.wrapping_add(1);
    }

    /// Writes several.
    #[inline]
    pub fn write_all<T: Copy>(&mut self, what: &[T], as_entry: impl Fn(T) -> E) {
        debug_assert!(self.room() as usize >= what.len(), "entries would be overwritten");
        let (here, at_the_start) = self.ring.from(self.next);
        let (now, later) = what.split_at(what.len().min(here.len()));
        let store = |(&what, cell): (&T, &E::Cell)| as_entry(what).store(cell);
        now.iter().zip(here).for_each(store);
        later.iter().zip(at_the_start).for_each(store);
        self.next = self.next.wrapping_add(what.len() as u32);
    }

    /// Shows the other side all that was written.
    #[inline]
    pub fn publish(&mut self) {
        assert!(self.room() <= self.ring.size(), "entries were overwritten that nobody had read");
        // Release: who sees the index sees the entries.
        self.ring.producer[0].store(self.next, Ordering::Release);
    }

    /// Entries shown to the other side that it has not read.
    #[inline]
    pub fn unread(&mut self) -> u32 {
        self.read = self.ring.consumer[0].load(Ordering::Acquire);
        self.ring.producer[0].load(Ordering::Relaxed).wrapping_sub(self.read)
    }

    /// Whether the kernel waits for a system call before it looks at the ring. It may set the flag just after it was
    /// asked for, so ask in every round.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.ring.flags[0].load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The reading end of a ring.
pub struct Consumer<E: Entry> {
    ring: Ring<E>,
    /// Of the entry to be read next.
    next: u32,
    /// The first that is not yet known to have been written.
    written: u32,
}

impl<E: Entry> Consumer<E> {
    /// Goes on where the ring stands.
    pub fn new(ring: Ring<E>) -> Self {
        let next = ring.consumer[0].load(Ordering::Relaxed);
        Self { ring, next, written: next }
    }

    /// Reads up to `limit` entries, oldest first, and gives their places back. Returns how many there were.
    #[inline]
    pub fn read(&mut self, limit: u32, mut each: impl FnMut(E)) -> u32 {
        if self.written.wrapping_sub(self.next) < limit {
            // Acquire: with the index we see the entries before it.
            self.written = self.ring.producer[0].load(Ordering::Acquire);
        }
        let count = self.written.wrapping_sub(self.next).min(limit);
        if count > 0 {
            let (here, at_the_start) = self.ring.from(self.next);
            here.iter().chain(at_the_start).take(count as usize).for_each(|cell| each(E::load(cell)));
            self.next = self.next.wrapping_add(count);
            // Release: we have read the entries before the other side writes over them.
            self.ring.consumer[0].store(self.next, Ordering::Release);
        }
        count
    }
}

#[cfg(test)]
mod tests;
