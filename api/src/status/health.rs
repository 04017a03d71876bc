//! How backends are, and what happened to them. Times are wall-clock times, because people compare them with logs
//! of other machines.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Whether a backend is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Not decided yet: the first probes are under way.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not answer as it should.
    Down,
}

/// A time in milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeMs(pub u64);

/// The health of a backend in a pool that has a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendHealth {
    /// What it is.
    pub state: HealthState,
    /// When it became so; `None` for what was never decided.
    pub since_ms: Option<TimeMs>,
    /// Why it is so, such as `connection refused by 203.0.113.10:80`; `None` if there is nothing to say.
    pub reason: Option<String>,
    /// What the last good answer took, in microseconds, of its slowest probe; `None` before the first.
    pub last_latency_us: Option<u64>,
    /// What is asked. The backend is down while one of them is; of one that has no answer yet nothing follows.
    #[serde(default)]
    pub probes: Vec<ProbeView>,
}

/// A probe of a backend, made again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeView {
    /// Such as `tcp 203.0.113.10:80 through the service`.
    pub question: String,
    /// What it says.
    pub state: HealthState,
    /// Why it last failed; `None` if it never did.
    pub last_failure: Option<String>,
    /// How often it succeeded.
    pub successes: u64,
    /// How often it failed.
    pub failures: u64,
    /// How often this box could not ask, which counts for nothing.
    pub own_faults: u64,
}

/// The health checks as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChecksStatus {
    /// Distinct probes that are made again and again.
    pub probes: usize,
    /// Probes that have ended.
    pub made: u64,
    /// Probes that were left out, because the one before still ran or the control plane was held up.
    pub left_out: u64,
    /// Probes that this box could not make, which count for nothing.
    pub own_faults: u64,
    /// How late 99 of 100 probes began at most, as a share of their interval.
    pub late_p99: f64,
}

/// A transition: something of interest to operators became another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event of a run of the control plane, from 1.
    #[serde(default)]
    pub number: u64,
    /// When.
    pub at_ms: TimeMs,
    /// What changed, such as `backend web1 of pool web`.
    pub subject: String,
    /// What became of it, such as `down`.
    pub text: String,
    /// Why, such as `no answer within 1s from 203.0.113.10:80`; `None` if an operator asked for it.
    pub reason: Option<String>,
}

impl TimeMs {
    /// The time of a clock, cut to milliseconds; times before 1970 are 0.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `up`, `down` or `unknown`.
impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// RFC 3339, in UTC, such as `2026-01-31T12:00:00.123Z`.
impl fmt::Display for TimeMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last that RFC 3339 can write, for which see below.
        let last = Duration::from_millis(LAST_MS);
        let time = UNIX_EPOCH + Duration::from_millis(self.0).min(last);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

/// 9999-12-31T23:59:59.999Z: humantime refuses to write later times, and RFC 3339 has four digits for the year.
const LAST_MS: u64 = 253_402_300_799_999;

/// A line for `lbctl events`: time, subject, what became of it, reason.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number: _, at_ms, subject, text, reason } = self;
        write!(f, "{at_ms} {subject}: {text}")?;
        reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = |reason: Option<&str>| Event {
            number: 1,
            at_ms: TimeMs(1_769_860_800_123),
            subject: "backend web1 of pool web".into(),
            text: "down".into(),
            reason: reason.map(str::to_owned),
        };
        let line = "2026-01-31T12:00:00.123Z backend web1 of pool web: down";
        assert_eq!(event(None).to_string(), line);
        assert_eq!(event(Some("3 failures")).to_string(), format!("{line} (3 failures)"));
    }

    #[test]
    fn health_travels_as_json() {
        let health = BackendHealth {
            state: HealthState::Down,
            since_ms: Some(TimeMs(1)),
            reason: None,
            last_latency_us: Some(250),
            probes: vec![],
        };
        let json = serde_json::to_string(&health).unwrap();
        assert_eq!(json, r#"{"state":"down","since_ms":1,"reason":null,"last_latency_us":250,"probes":[]}"#);
        assert_eq!(serde_json::from_str::<BackendHealth>(&json).unwrap(), health);
        for state in [HealthState::Unknown, HealthState::Up, HealthState::Down] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }

    #[test]
    fn every_time_can_be_written() {
        assert_eq!(TimeMs(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(TimeMs(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        let time = UNIX_EPOCH + Duration::from_micros(1_999);
        assert_eq!(TimeMs::of(time), TimeMs(1));
        assert_eq!(TimeMs::of(UNIX_EPOCH - Duration::from_secs(1)), TimeMs(0));
    }
}
