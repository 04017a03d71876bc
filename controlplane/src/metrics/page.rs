//! Families of samples as Prometheus' text, version 0.0.4. Written here: of the libraries, prometheus-client does not escape
//! what is in labels, and `promtool check metrics`, which is asked in the tests, misses its help texts.

use std::fmt::Write;

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;

/// Metrics of one name.
#[derive(Debug)]
pub struct Family {
    /// Without the `_total` of counters.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// What they are.
    pub samples: Samples,
}

/// The samples of a family.
#[derive(Debug)]
pub enum Samples {
    /// They only grow, until a program starts again.
    Counters(Vec<(Labels, u64)>),
    /// They go up and down.
    Gauges(Vec<(Labels, f64)>),
}

impl Family {
    /// As a query has it.
    pub fn full_name(&self) -> String {
        match self.samples {
            Samples::Counters(_) => format!("{}_total", self.name),
            Samples::Gauges(_) => self.name.clone(),
        }
    }
}

/// The text of these.
pub fn text(families: &[Family]) -> String {
    let mut text = String::new();
    families.iter().for_each(|family| write_family(&mut text, family));
    text
}

fn write_family(text: &mut String, family: &Family) {
    let (name, help) = (family.full_name(), family.help.trim_end_matches('.'));
    let kind = if let Samples::Counters(_) = family.samples { "counter" } else { "gauge" };
    let _ = writeln!(
        text,
        "# HELP {name} {}\n# TYPE {name} {kind}",
        help.replace('\\', r"\\").replace('\n', r"\n")
    );
    match &family.samples {
        Samples::Counters(samples) => {
            samples.iter().for_each(|(labels, value)| write_sample(text, &name, labels, value));
        }
        Samples::Gauges(samples) => {
            samples.iter().for_each(|(labels, value)| write_sample(text, &name, labels, value));
        }
    }
}

fn write_sample(text: &mut String, name: &str, labels: &Labels, value: &impl std::fmt::Display) {
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
