//! How requests spread over backends, and whether that is as the weights say.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Result, ensure};

/// Requests by backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    counts: BTreeMap<String, u64>,
}

impl<'b> FromIterator<&'b str> for Shares {
    fn from_iter<I: IntoIterator<Item = &'b str>>(backends: I) -> Self {
        let mut counts = BTreeMap::new();
        for backend in backends {
            *counts.entry(backend.to_owned()).or_default() += 1;
        }
        Self { counts }
    }
}

impl Shares {
    /// Of all backends.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Requests of one backend.
    pub fn count(&self, backend: &str) -> u64 {
        self.counts.get(backend).copied().unwrap_or(0)
    }

    /// Share of one backend in percent.
    pub fn percent(&self, backend: &str) -> f64 {
        100.0 * self.count(backend) as f64 / (self.total().max(1) as f64)
    }

    /// An error unless every backend's share is within `points` percentage points of its weight's, and
    /// nobody else answered. Returns the largest deviation.
    pub fn follow<'b>(&self, weights: impl IntoIterator<Item = (&'b str, u16)>, points: f64) -> Result<f64> {
        let weights: BTreeMap<_, _> = weights.into_iter().collect();
        let sum: f64 = weights.values().map(|weight| f64::from(*weight)).sum();
        let stranger = self.counts.keys().find(|backend| !weights.contains_key(backend.as_str()));
        ensure(stranger.is_none(), || format!("{stranger:?} is not in the pool, but answered: {self}"))?;
        let mut largest = 0.0f64;
        for (backend, weight) in weights {
            let wanted = 100.0 * f64::from(weight) / sum;
            let deviation = (self.percent(backend) - wanted).abs();
            ensure(deviation <= points, || {
                format!("{backend} should have {wanted:.1} % ± {points} points: {self}")
            })?;
            largest = largest.max(deviation);
        }
        Ok(largest)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, backend) in self.counts.keys().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{backend} {:.1} %", self.percent(backend))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_weights_within_the_margin() {
        let answers = ["a", "b", "b", "b"];
        let shares: Shares = answers.into_iter().collect();
        assert_eq!(shares.to_string(), "a 25.0 % b 75.0 %");
        assert!(shares.follow([("a", 1), ("b", 3)], 0.1).is_ok());
        assert!(shares.follow([("a", 1), ("b", 1)], 3.0).is_err(), "too far off");
        assert!(shares.follow([("a", 1), ("b", 3), ("c", 4)], 3.0).is_err(), "c got nothing");
        assert!(shares.follow([("b", 1)], 100.0).is_err(), "a is a stranger");
        assert!(Shares::default().follow([("a", 1)], 3.0).is_err(), "nobody answered");
    }
}
