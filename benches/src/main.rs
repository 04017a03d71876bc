//! `make bench`: prints how long a Maglev table takes to build and what a packet costs in the pipeline.
//!
//! Wall time on a shared machine informs and nothing more: each figure is the median of its runs with the
//! least and the most beside it, and the pipeline stands next to its floor, measured in the same run.

mod maglev;
mod pipeline;

fn main() {
    maglev::run();
    pipeline::run();
}

/// Least, median and most of some measurements.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut measurements: Vec<f64>) -> Self {
        measurements.sort_by(f64::total_cmp);
        let (least, most) = (measurements[0], measurements[measurements.len() - 1]);
        Self { least, median: measurements[measurements.len() / 2], most }
    }
}
