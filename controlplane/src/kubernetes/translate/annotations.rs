//! Settings in the annotations of a Service. A wrong one is named, and the usual holds.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Problem;
use crate::kubernetes::facts::{Labels, Service};

/// Begins every annotation of ours.
const PREFIX: &str = "shunt.dev/";

/// Reads annotations and gathers what is wrong with them.
pub struct Annotations<'a> {
    annotations: &'a Labels,
    /// One for each wrong annotation.
    pub problems: Vec<Problem>,
}

impl<'a> Annotations<'a> {
    /// Those of a Service.
    pub fn of(service: &'a Service) -> Self {
        Self { annotations: &service.annotations, problems: Vec::new() }
    }

    /// Notes that an annotation is wrong: `why` ends with what to write.
    pub fn refuse(&mut self, name: &str, why: &str) {
        self.problems.push(Problem::new("InvalidAnnotation", format!("annotation {name}: {why}")));
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)], usual: T) -> T {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let read = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.read(name, read, &format!("one of {expected}")).unwrap_or(usual)
    }

    /// A duration such as `500ms`, `2s`, `1m` or `1h`.
    pub fn duration(&mut self, name: &str, range: RangeInclusive<Duration>, usual: Duration) -> Duration {
        let expected =
            format!("a duration such as 500ms or 2s, from {:?} to {:?}", range.start(), range.end());
        let read = |text: &str| duration(text).filter(|duration| range.contains(duration));
        self.read(name, read, &expected).unwrap_or(usual)
    }

    /// A number.
    pub fn count(&mut self, name: &str, range: RangeInclusive<u32>, usual: u32) -> u32 {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let read = |text: &str| text.parse().ok().filter(|count| range.contains(count));
        self.read(name, read, &expected).unwrap_or(usual)
    }

    fn read<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>, expected: &str) -> Option<T> {
        let text = self.annotations.get(name)?;
        let value = read(text.trim());
        if value.is_none() {
            let text: String = text.escape_debug().take(100).collect();
            self.refuse(name, &format!("`{text}` is not known here; write {expected}"));
        }
        value
    }
}

/// What begins like an annotation of ours and is none of `known`, of which the last is nobody's to write.
pub fn unknown(service: &Service, known: &[&str]) -> Vec<Problem> {
    let ours = service.annotations.keys().filter(|name| name.starts_with(PREFIX));
    let unknown = ours.filter(|name| !known.contains(&name.as_str()));
    let known = known.split_last().map_or(&[][..], |(_, known)| known).join(", ");
    let problem = |name: &String| {
        let message = format!(
            "annotation {name} is not known and counts for nothing; remove it, or write one of {known}"
        );
        Problem::new("UnknownAnnotation", message)
    };
    unknown.map(problem).collect()
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|digit: char| !digit.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, expected_ms) in [
            ("500ms", Some(500)),
            ("2s", Some(2_000)),
            ("1m", Some(60_000)),
            ("1h", Some(3_600_000)),
            ("2", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("9999999999999999h", None),
        ] {
            assert_eq!(duration(text), expected_ms.map(Duration::from_millis), "{text}");
        }
    }
}
