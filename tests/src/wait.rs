//! Waiting for a condition. The only place of the workspace that sleeps.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Between two looks at a condition.
const PERIOD: Duration = Duration::from_millis(5);

/// Looks until `condition` yields a value, and says how long that took. An error ends the waiting.
pub fn until<T>(
    what: &str,
    limit: Duration,
    condition: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    until_every(PERIOD, what, limit, condition)
}

/// The same for a condition that is not to be looked at so often.
pub fn until_every<T>(
    period: Duration,
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok((value, start.elapsed()));
        }
        if start.elapsed() > limit {
            return Err(Error::Timeout { what: what.to_owned(), limit });
        }
        // Conditions are the kernel's and other processes'; none of them can wake us.
        pass(period);
    }
}

/// Lets time pass where that is what is tested: how much happens in it, or what comes and goes at this pace. Where
/// something is awaited it is never right.
#[allow(clippy::disallowed_methods)]
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until `condition` holds.
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    until(what, limit, || Ok(condition().then_some(()))).map(|((), elapsed)| elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_value_and_gives_up_at_the_limit() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap().0, 3);
        let late = until_true("the moon", Duration::from_millis(1), || false);
        assert!(late.unwrap_err().to_string().contains("the moon"));
    }
}
