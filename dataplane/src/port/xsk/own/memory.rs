//! Memory shared with the kernel: that of rings, which both sides change at any time, and that of packets, which
//! belongs to one side at a time.
//!
//! Rings are reached through atomics only. So whatever the other side writes, and however wrong an index is, to
//! read and write them is sound; [`super::ring`] has no unsafe code.
#![allow(unsafe_code)] // mappings, and references into them.

use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::limits::FRAME_SIZE;
use crate::port::Frame;

/// Bytes of the pages that are tried first for packets.
const HUGE_PAGE: usize = 2 << 20;

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is the process's, and may be used and unmapped by any thread. What is in it is reached through
// `Part`, whose elements are atomics, and through `Chunks`, which needs exclusive use.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The memory of a socket's ring; `offset` says of which: mmap(2) with `XDP_PGOFF_…`.
    pub fn of_ring(socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let (null, flags) = (std::ptr::null_mut(), MapFlags::SHARED | MapFlags::POPULATE);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory in use.
        let start = unsafe { rustix::mm::mmap(null, length, access, flags, socket, offset) }?;
        Self::at(start, length)
    }

    /// Zeros of this process alone.
    pub fn private(length: usize) -> io::Result<Self> {
        Self::anonymous(length, MapFlags::empty())
    }

    /// Likewise, in huge pages from the pool set aside for them, or else in such as the kernel finds.
    fn huge(length: usize) -> io::Result<Self> {
        let rounded = length.next_multiple_of(HUGE_PAGE);
        if let Ok(pages) = Self::anonymous(rounded, MapFlags::HUGETLB | MapFlags::HUGE_2MB) {
            return Ok(pages);
        }
        let pages = Self::private(rounded)?;
        // SAFETY: the range is a mapping of our own, and the advice does not change what is in it. A kernel without
        // transparent huge pages refuses, which does no harm.
        let _ = unsafe { rustix::mm::madvise(pages.start.as_ptr().cast(), rounded, Advice::LinuxHugepage) };
        Ok(pages)
    }

    fn anonymous(length: usize, flags: MapFlags) -> io::Result<Self> {
        let (null, flags) = (std::ptr::null_mut(), flags | MapFlags::PRIVATE);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory in use.
        let start = unsafe { rustix::mm::mmap_anonymous(null, length, access, flags) }?;
        Self::at(start, length)
    }

    fn at(start: *mut std::ffi::c_void, length: usize) -> io::Result<Self> {
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// So many elements from `offset` on. Panics if they are not within the mapping or not aligned.
    pub fn part<T: Shareable>(self: &Arc<Self>, offset: usize, count: usize) -> Part<T> {
        let bytes = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(bytes.is_some_and(|end| end <= self.length), "{count} elements at {offset}");
        // SAFETY: the offset is within the mapping, as was just asserted.
        let start = unsafe { self.start.add(offset) }.cast::<T>();
        assert!(start.is_aligned(), "{count} elements at {offset}");
        Part { elements: NonNull::slice_from_raw_parts(start, count), _mapping: self.clone() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more: a `Part` keeps it alive, and what `Chunks` lends out is
        // borrowed from it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// What may be shared with the kernel at any time.
///
/// # Safety
/// All of its bytes are in atomic integers.
pub unsafe trait Shareable {}

// SAFETY: an atomic integer.
unsafe impl Shareable for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: three atomic integers, of 16 bytes, which leaves none for padding.
unsafe impl Shareable for DescriptorCell {}

/// Where a descriptor stands: `struct xdp_desc` of linux/if_xdp.h.
#[derive(Debug)]
#[repr(C)]
pub struct DescriptorCell {
    pub address: AtomicU64,
    pub length: AtomicU32,
    pub options: AtomicU32,
}

const _: () = assert!(size_of::<DescriptorCell>() == size_of::<libc::xdp_desc>());
const _: () =
    assert!(std::mem::offset_of!(DescriptorCell, length) == std::mem::offset_of!(libc::xdp_desc, len));

/// Elements within a mapping, which lives as long as they are used.
#[derive(Debug)]
pub struct Part<T> {
    elements: NonNull<[T]>,
    _mapping: Arc<Mapping>,
}

// SAFETY: as `Arc<Mapping>` with `&[T]` into it; atomics may be used by several threads.
unsafe impl<T: Shareable> Send for Part<T> {}

impl<T: Shareable> Deref for Part<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the elements are aligned and within the mapping, which `self` keeps alive. They are atomics, for
        // which every value is valid and which may change behind a shared reference. No exclusive reference to
        // them is ever made: packets are in mappings of which no `Part` is made.
        unsafe { self.elements.as_ref() }
    }
}

/// Memory for packets, in chunks of [`FRAME_SIZE`] bytes.
#[derive(Debug)]
pub struct Chunks {
    mapping: Mapping,
    count: u32,
}

impl Chunks {
    /// So many.
    pub fn new(count: u32) -> io::Result<Self> {
        Mapping::huge(count as usize * FRAME_SIZE as usize).map(|mapping| Self { mapping, count })
    }

    /// Where they begin, and how many bytes they have.
    pub fn place(&self) -> (u64, u64) {
        (
            self.mapping.start.as_ptr().expose_provenance() as u64,
            u64::from(self.count) * u64::from(FRAME_SIZE),
        )
    }

    /// The chunk of a packet's head piece.
    #[inline]
    pub fn of(&mut self, frame: &Frame) -> &mut [u8] {
        assert!(frame.chunk < self.count, "the kernel named a chunk that there is not");
        let offset = frame.chunk as usize * FRAME_SIZE as usize;
        // SAFETY: the chunk is within the mapping, which is readable, writable, and borrowed for as long as the
        // slice. The caller has the token of this chunk, so that the kernel does not use it meanwhile.
        unsafe {
            std::slice::from_raw_parts_mut(self.mapping.start.add(offset).as_ptr(), FRAME_SIZE as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::port::NicIndex;

    #[test]
    fn a_part_outlives_its_mapping_and_shares_it_with_others() {
        let mapping = Arc::new(Mapping::private(4096).unwrap());
        let (one, same) = (mapping.part::<AtomicU32>(64, 4), mapping.part::<AtomicU32>(68, 1));
        drop(mapping);
        same[0].store(7, Ordering::Relaxed);
        let values: Vec<u32> = one.iter().map(|value| value.load(Ordering::Relaxed)).collect();
        assert_eq!(values, [0, 7, 0, 0]);
    }

    #[test]
    fn what_is_not_within_a_mapping_or_not_aligned_is_no_part_of_it() {
        let mapping = Arc::new(Mapping::private(4096).unwrap());
        let is_part = |offset, count| {
            let part = || drop(mapping.part::<AtomicU64>(offset, count));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(part)).is_ok()
        };
        assert!(is_part(0, 512) && is_part(4088, 1) && is_part(4096, 0));
        assert!(!is_part(0, 513) && !is_part(4096, 1) && !is_part(8, usize::MAX) && !is_part(4, 1));
    }

    #[test]
    fn every_chunk_has_bytes_of_its_own() {
        let mapping = Mapping::private(4 * FRAME_SIZE as usize).unwrap();
        let mut chunks = Chunks { mapping, count: 4 };
        let frames = [0, 1, 2, 3].map(|chunk| Frame::empty(chunk, NicIndex::default()));
        for (byte, frame) in (1..).zip(&frames) {
            let bytes = chunks.of(frame);
            assert!(bytes.len() == FRAME_SIZE as usize && bytes.iter().all(|&byte| byte == 0));
            bytes.fill(byte);
        }
        for (byte, frame) in (1..).zip(&frames) {
            assert!(chunks.of(frame).iter().all(|&there| there == byte));
        }
        let beyond = Frame::empty(4, NicIndex::default());
        let past_the_end = std::panic::AssertUnwindSafe(|| chunks.of(&beyond).len());
        assert!(std::panic::catch_unwind(past_the_end).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel for huge pages, which Miri does not know")]
    fn chunks_are_zeros_that_begin_with_a_page() {
        let mut chunks = Chunks::new(3).unwrap();
        let (start, length) = chunks.place();
        assert_eq!((start % 4096, length), (0, 3 * 2048));
        assert!(chunks.of(&Frame::empty(2, NicIndex::default())).iter().all(|&byte| byte == 0));
    }
}
