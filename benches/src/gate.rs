//! Whether packets take more instructions than they did. Callgrind counts the same in every run of the same binary, on
//! any machine that is as busy as it may be, so a change of 5 % is one of the program or of the compiler.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shunt_api::snapshot::Mode;
use shunt_tests::error::{Error, Result, While};

use crate::callgrind::{self, Count};
use crate::markdown::{Table, figure};
use crate::pipeline::load::{Distribution, Family};
use crate::pipeline::scene::Part;
use crate::pipeline::shape::Case;
use crate::results::rounded;

/// Growth that is let through.
const TOLERANCE: f64 = 0.05;
/// Flows of every case: what is measured is the program, not the table.
const FLOWS: u32 = 1000;
/// Packets of each part.
const PACKETS: usize = 20_000;

/// Instructions per packet, by name of what is measured.
type Figures = BTreeMap<String, f64>;

/// What to compare with.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Writes the baseline instead of comparing with it.
    #[arg(long)]
    bless: bool,
    /// What to compare with.
    #[arg(long, default_value = "benches/baseline.json")]
    baseline: PathBuf,
}

/// How a figure compares with its baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Same,
    Grown,
    Fallen,
    /// Not in the baseline.
    New,
    /// No longer measured.
    Gone,
}

impl Change {
    fn of(before: Option<f64>, now: Option<f64>) -> Self {
        match (before, now) {
            (None, _) => Self::New,
            (_, None) => Self::Gone,
            (Some(before), Some(now)) if now > before * (1.0 + TOLERANCE) => Self::Grown,
            (Some(before), Some(now)) if now < before * (1.0 - TOLERANCE) => Self::Fallen,
            _ => Self::Same,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Grown => "GROWN",
            Self::Fallen => "fallen",
            Self::New => "NOT IN THE BASELINE",
            Self::Gone => "NOT MEASURED",
        }
    }
}

/// Measures, prints a table and compares; an error when something has grown or cannot be compared.
pub fn run(options: &Options) -> Result<()> {
    let now = measure()?;
    if options.bless {
        print!("{}", table(&now, &now));
        return write(&options.baseline, &now);
    }
    let before = read(&options.baseline)?;
    print!("{}", table(&before, &now));
    let changes = changes(&before, &now);
    if changes.contains(&Change::Fallen) {
        println!(
            "Some packets take fewer instructions than the baseline says: `shunt-benches gate --bless` renews it."
        );
    }
    verdict(&changes).map_err(Error::Wrong)
}

fn verdict(changes: &[Change]) -> std::result::Result<(), String> {
    let percent = TOLERANCE * 100.0;
    if changes.contains(&Change::Grown) {
        return Err(format!(
            "packets take over {percent:.0} % more instructions than the baseline says; if that is worth it or due to \
             another compiler, renew it with `shunt-benches gate --bless` and say why in the commit"
        ));
    }
    if changes.iter().any(|change| matches!(change, Change::New | Change::Gone)) {
        return Err(
            "the baseline is of other measurements; renew it with `shunt-benches gate --bless`".to_owned()
        );
    }
    Ok(())
}

/// The cases with their names, and the parts of each that are compared.
fn cases() -> Vec<(String, Case, Vec<Part>)> {
    let (forward, back) = (Part::Forward(Distribution::Uniform), Part::Back(Distribution::Uniform));
    let mut cases = Vec::new();
    for mode in [Mode::Dr, Mode::Ipip, Mode::Nat] {
        for (family, name) in [(Family::V4, "v4"), (Family::V6, "v6")] {
            let mut parts = vec![forward];
            parts.extend((mode == Mode::Nat).then_some(back));
            parts.extend((mode == Mode::Dr && family == Family::V4).then_some(Part::New));
            cases.push((format!("{mode} {name}"), Case::new(mode, family, FLOWS), parts));
        }
    }
    let plain = Case::new(Mode::Dr, Family::V4, FLOWS);
    let both = vec![forward, Part::New];
    cases.push(("dr v4, 10,000 services".to_owned(), Case { services: 10_000, ..plain }, both.clone()));
    cases.push(("dr v4, 10,000 source ranges".to_owned(), Case { ranges: 10_000, ..plain }, both));
    cases
}

fn measure() -> Result<Figures> {
    let cases = cases();
    let counts = callgrind::instructions(&cases.iter().map(|case| case.1).collect::<Vec<_>>(), PACKETS)?;
    let mut figures = Figures::new();
    for ((name, _, parts), counts) in cases.iter().zip(&counts) {
        let kept = counts.iter().filter(|count| parts.contains(&count.part));
        figures
            .extend(kept.map(|Count { part, instructions }| (title(name, *part), rounded(*instructions, 1))));
    }
    Ok(figures)
}

fn title(name: &str, part: Part) -> String {
    match part {
        Part::New => format!("{name}, first packets"),
        Part::Back(_) => format!("{name}, replies"),
        Part::Forward(_) | Part::Floor => name.to_owned(),
    }
}

fn names<'f>(before: &'f Figures, now: &'f Figures) -> Vec<&'f String> {
    let mut names: Vec<_> = before.keys().chain(now.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn changes(before: &Figures, now: &Figures) -> Vec<Change> {
    let change = |name: &String| Change::of(before.get(name).copied(), now.get(name).copied());
    names(before, now).into_iter().map(change).collect()
}

fn table(before: &Figures, now: &Figures) -> Table {
    let mut table = Table::new(["instructions per packet", "baseline", "now", "change", ""]);
    for (name, change) in names(before, now).into_iter().zip(changes(before, now)) {
        let (before, now) = (before.get(name).copied(), now.get(name).copied());
        let percent = before
            .zip(now)
            .map_or(String::new(), |(before, now)| format!("{:+.1} %", (now / before - 1.0) * 100.0));
        table.row([name.clone(), figure(before, 1), figure(now, 1), percent, change.word().to_owned()]);
    }
    table
}

fn read(path: &Path) -> Result<Figures> {
    let what = || format!("read {}; `shunt-benches gate --bless` writes it", path.display());
    let text = fs::read_to_string(path).to(what)?;
    serde_json::from_str(&text).map_err(io::Error::from).to(what)
}

fn write(path: &Path, figures: &Figures) -> Result<()> {
    let text = serde_json::to_string_pretty(figures).map_err(io::Error::from);
    let written = text.and_then(|text| fs::write(path, text + "\n"));
    written.to(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(of: &[(&str, f64)]) -> Figures {
        of.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect()
    }

    #[test]
    fn growth_fails_and_a_fall_does_not() {
        let check = |now: &[(&str, f64)], expected: &[Change], passes: bool| {
            let (before, now) = (figures(&[("a", 100.0), ("b", 200.0)]), figures(now));
            let changes = changes(&before, &now);
            assert_eq!(changes, expected, "{now:?}");
            assert_eq!(verdict(&changes).is_ok(), passes, "{now:?}");
            let words = table(&before, &now).to_string();
            assert!(expected.iter().all(|change| words.contains(change.word())), "{words}");
        };
        use Change::{Fallen, Gone, Grown, New, Same};
        check(&[("a", 100.0), ("b", 200.0)], &[Same, Same], true);
        check(&[("a", 104.9), ("b", 190.1)], &[Same, Same], true);
        check(&[("a", 105.1), ("b", 200.0)], &[Grown, Same], false);
        check(&[("a", 94.0), ("b", 200.0)], &[Fallen, Same], true);
        check(&[("a", 94.0), ("b", 211.0)], &[Fallen, Grown], false);
        check(&[("a", 100.0)], &[Same, Gone], false);
        check(&[("a", 100.0), ("b", 200.0), ("c", 1.0)], &[Same, Same, New], false);
    }

    #[test]
    fn a_baseline_comes_back_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("shunt-baseline-{}.json", std::process::id()));
        let missing = read(&path).expect_err("no such file").to_string();
        assert!(missing.contains("--bless"), "{missing}");
        let written = figures(&[("dr v4", 199.9)]);
        write(&path, &written).unwrap();
        let read = read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(read, written);
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let cases = cases();
        let names: Vec<_> = cases
            .iter()
            .flat_map(|(name, _, parts)| parts.iter().map(move |part| title(name, *part)))
            .collect();
        assert_eq!(names.len(), names.iter().collect::<std::collections::HashSet<_>>().len());
        for (name, case, parts) in &cases {
            assert!(parts.iter().all(|part| case.parts().contains(part)), "{name}");
        }
    }
}
