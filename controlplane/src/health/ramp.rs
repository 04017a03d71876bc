//! Slow start: the share of a backend that has just come up. Pure.

use std::time::Duration;

/// Steps of a ramp. Each is a snapshot for the dataplane and moves a part of the new flows, so that they are
/// few; ten is what a person sees as a ramp.
pub const RAMP_STEPS: u16 = 10;

/// The weight of a backend that came up so long ago, in tenths (`1 / RAMP_STEPS`): a tenth of its weight at
/// first, and another with every tenth of `slow_start` that passes.
///
/// Tenths because the usual weight is 1, of which no smaller one can be had. Every backend of the pool must
/// be counted in tenths then; a Maglev table depends on the shares only, so that the table of a pool whose
/// ramps have ended is the one it has without this factor.
pub fn ramp(weight: u16, since_up: Duration, slow_start: Duration) -> u16 {
    weight.saturating_mul(step(since_up, slow_start))
}

/// How long until [`ramp`] gives the next weight; `None` once it is the whole one.
pub fn next_step(since_up: Duration, slow_start: Duration) -> Option<Duration> {
    let step = step(since_up, slow_start);
    if step == RAMP_STEPS {
        return None;
    }
    // Rounded up, so that the step is taken when the time has passed.
    let nanos = (slow_start.as_nanos() * u128::from(step)).div_ceil(u128::from(RAMP_STEPS));
    let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    Some(at.saturating_sub(since_up))
}

/// From 1 to [`RAMP_STEPS`].
fn step(since_up: Duration, slow_start: Duration) -> u16 {
    if since_up >= slow_start {
        return RAMP_STEPS;
    }
    let passed = since_up.as_nanos() * u128::from(RAMP_STEPS) / slow_start.as_nanos();
    u16::try_from(passed).map_or(RAMP_STEPS, |passed| (passed + 1).min(RAMP_STEPS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_tenth_at_first_and_everything_at_the_end() {
        let table = [(0, 1), (2, 1), (3, 2), (14, 5), (15, 6), (29, 10), (30, 10), (3_000, 10)];
        for (since_up, tenths) in table {
            assert_eq!(ramp(7, seconds(since_up), seconds(30)), 7 * tenths, "after {since_up} s");
        }
    }

    #[test]
    fn without_slow_start_the_weight_is_whole_at_once() {
        assert_eq!(ramp(1, Duration::ZERO, Duration::ZERO), RAMP_STEPS);
        assert_eq!(next_step(Duration::ZERO, Duration::ZERO), None);
        assert_eq!(ramp(0, seconds(1), seconds(30)), 0);
    }

    proptest! {
        #[test]
        fn steps_follow_each_other_at_the_time_told(since in 0u64..100_000, slow_start in 1u64..100_000) {
            let (since, slow_start) = (Duration::from_millis(since), Duration::from_millis(slow_start));
            let now = ramp(1, since, slow_start);
            match next_step(since, slow_start) {
                None => prop_assert_eq!(now, RAMP_STEPS),
                Some(wait) => {
                    prop_assert_eq!(ramp(1, since + wait, slow_start), now + 1);
                    prop_assert_eq!(ramp(1, since + wait - Duration::from_nanos(1), slow_start), now);
                }
            }
        }
    }
}
