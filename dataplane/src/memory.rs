//! What a program can tell the machine about memory: that a line will be read soon, that a table is best kept on
//! huge pages. Neither changes what the memory holds.
#![allow(unsafe_code)] // Hints to the processor and the kernel take raw addresses.

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Asks for all cache lines of a value. It returns at once, and the value can be read without waiting a hundred
/// nanoseconds later.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let mut at = 0;
    while at < size_of::<T>() {
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(at);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing as far as the program can tell; any address is allowed.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line);
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: likewise.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags));
        }
        at += LINE;
    }
}

/// A table of so many values, all memory taken and touched, on transparent huge pages if the kernel has any to give
/// (`/sys/kernel/mm/transparent_hugepage/enabled` is `madvise` or `always`).
pub fn table_of<T>(count: usize, value: impl FnMut() -> T) -> Box<[T]> {
    let mut values = Vec::with_capacity(count);
    advise_huge_pages(values.spare_capacity_mut());
    values.resize_with(count, value);
    values.into_boxed_slice()
}

fn advise_huge_pages<T>(memory: &mut [T]) {
    const HUGE_PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let (start, end) = (range.start as usize, range.end as usize);
    let (first, last) = (start.next_multiple_of(HUGE_PAGE), end / HUGE_PAGE * HUGE_PAGE);
    if first >= last {
        return;
    }
    let skipped = first - start;
    // SAFETY: whole pages inside memory that is borrowed exclusively; the advice changes how it is backed, not what
    // it holds. A kernel that does not take it leaves it on small pages.
    let _ = unsafe {
        rustix::mm::madvise(
            range.start.wrapping_byte_add(skipped).cast(),
            last - first,
            rustix::mm::Advice::LinuxHugepage,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_what_it_was_made_of() {
        let large = if cfg!(miri) { 2000 } else { 1 << 19 };
        for count in [0, 1, 1000, large] {
            let mut next = 0u64;
            let table = table_of(count, || {
                next += 1;
                next
            });
            prefetch(&table.first());
            assert!(table.iter().copied().eq(1..=count as u64));
        }
    }
}
