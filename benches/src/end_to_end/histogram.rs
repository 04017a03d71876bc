//! The log-linear histogram of `bpf/sink.bpf.c`: 32 buckets for each power of two, so that a value is known to 3 %.

/// Buckets for each power of two, as a power of two.
const STEPS_BITS: u32 = 5;
const STEPS: usize = 1 << STEPS_BITS;
/// Buckets.
pub const BUCKETS: usize = 40 * STEPS;

/// The middle of a bucket.
fn value(bucket: usize) -> f64 {
    if bucket < STEPS {
        return bucket as f64;
    }
    let power = bucket / STEPS - 1;
    let least = ((bucket % STEPS + STEPS) as u64) << power;
    least as f64 + (1u64 << power) as f64 / 2.0
}

/// The value that a share of all entries do not exceed; nothing if there are none.
pub fn percentile(counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    found.map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the program does it.
    fn bucket(value: u64) -> usize {
        if value < STEPS as u64 {
            return value as usize;
        }
        let power = value.ilog2() - STEPS_BITS;
        (((power as usize + 1) << STEPS_BITS) + ((value >> power) as usize - STEPS)).min(BUCKETS - 1)
    }

    #[test]
    fn values_are_known_to_three_percent() {
        for exact in (0..200).chain([1_000, 65_535, 65_536, 1_234_567, 10_000_000_000]) {
            let read = value(bucket(exact));
            let tolerance = (exact as f64 / 32.0).max(0.5);
            assert!((read - exact as f64).abs() <= tolerance, "{exact} is read as {read}");
        }
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut counts = vec![0; BUCKETS];
        assert_eq!(percentile(&counts, 0.5), None);
        (1..=20).for_each(|value| counts[bucket(value)] += 50);
        assert_eq!(percentile(&counts, 0.5), Some(10.0));
        assert_eq!(percentile(&counts, 0.99), Some(20.0));
        assert_eq!(percentile(&counts, 0.0), Some(1.0));
        assert_eq!(percentile(&counts, 1.0), Some(20.0));
    }
}
