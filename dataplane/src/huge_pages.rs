//! How much of a table the kernel keeps on huge pages, as it tells itself in `/proc/self/smaps`. Asked by the control
//! thread.

use std::ops::Range;
use std::time::{Duration, Instant};

/// An answer is good for so long: the kernel walks all pages of the process for it.
const AGE_MAX: Duration = Duration::from_secs(10);

/// The mappings of this process that have huge pages.
#[derive(Debug, Default)]
pub struct HugePages {
    mappings: Vec<Mapping>,
    read_at: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    addresses: Range<usize>,
    huge_bytes: usize,
}

impl HugePages {
    /// Asks the kernel. Where it does not tell there are none.
    pub fn read(now: Instant) -> Self {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        Self { mappings: mappings(&smaps), read_at: Some(now) }
    }

    /// Asks again after a while.
    pub fn renew(&mut self, now: Instant) {
        if self.read_at.is_none_or(|at| now.duration_since(at) >= AGE_MAX) {
            *self = Self::read(now);
        }
    }

    /// Bytes on huge pages in a range of addresses; at most that many if it shares a mapping with other memory.
    pub fn bytes_in(&self, addresses: &Range<usize>) -> usize {
        let common = |mapping: &Mapping| {
            let end = mapping.addresses.end.min(addresses.end);
            end.saturating_sub(mapping.addresses.start.max(addresses.start)).min(mapping.huge_bytes)
        };
        self.mappings.iter().map(common).sum()
    }
}

/// Reads proc_pid_smaps(5): a line with the addresses, then one for each property.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    let mut addresses = 0..0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some(range) = range(first) {
            addresses = range;
        } else if let Some(huge_bytes) = line.strip_prefix("AnonHugePages:").and_then(bytes)
            && huge_bytes > 0
        {
            mappings.push(Mapping { addresses: addresses.clone(), huge_bytes });
        }
    }
    mappings
}

/// `7f00-7fff`
fn range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// `2048 kB`
fn bytes(text: &str) -> Option<usize> {
    Some(text.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c8a00000-55d0c8a21000 r--p 00000000 08:01 1234       /usr/sbin/shunt-dataplane
Size:                132 kB
AnonHugePages:         0 kB
VmFlags: rd mr mw me
200000-a00000 rw-p 00000000 00:00 0
Size:               8192 kB
AnonHugePages:      4096 kB
ShmemPmdMapped:        0 kB
VmFlags: rd wr mr mw me ac hg
a00000-e00000 rw-p 00000000 00:00 0
AnonHugePages:      2048 kB
";

    #[test]
    fn huge_pages_are_counted_where_they_are() {
        let read = HugePages { mappings: mappings(SMAPS), read_at: None };
        let check = |addresses: Range<usize>, expected: usize| {
            assert_eq!(read.bytes_in(&addresses), expected, "{addresses:x?}");
        };
        check(0x20_0000..0xa0_0000, 4 << 20);
        check(0x20_0000..0xe0_0000, 6 << 20);
        check(0x90_0000..0xb0_0000, 2 << 20);
        check(0xe0_0000..0xf0_0000, 0);
        check(0x55d0_c8a0_0000..0x55d0_c8a2_1000, 0);
        check(0..0, 0);
    }

    #[test]
    fn large_tables_stand_on_huge_pages() {
        const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
        let setting = std::fs::read_to_string(SETTING).unwrap_or_default();
        if !setting.contains("[madvise]") && !setting.contains("[always]") {
            println!("SKIPPED: {SETTING} is {setting:?}");
            return;
        }
        let table = crate::memory::table_of(4 << 20, || 7u64);
        let addresses = table.as_ptr_range();
        let huge_bytes =
            HugePages::read(Instant::now()).bytes_in(&(addresses.start.addr()..addresses.end.addr()));
        println!("{huge_bytes} of {} bytes", size_of_val(&*table));
        assert!(huge_bytes > 0 && huge_bytes <= size_of_val(&*table));
    }

    #[test]
    fn the_kernel_is_asked_again_after_a_while() {
        let now = Instant::now();
        let mut read = HugePages { mappings: mappings(SMAPS), read_at: Some(now) };
        read.renew(now + AGE_MAX / 2);
        assert_eq!(read.bytes_in(&(0x20_0000..0xa0_0000)), 4 << 20);
        read.renew(now + AGE_MAX);
        assert_eq!(read.bytes_in(&(0x20_0000..0xa0_0000)), 0, "nothing of ours is there");
    }
}
