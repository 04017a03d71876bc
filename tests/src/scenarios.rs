//! Scenarios that run one after the other in the main thread, those that `--run FILTER…` names or all of them: what they
//! measure shares the cores, and programs die with the thread that started them.

use std::process::ExitCode;
use std::time::Instant;

use crate::error::Result;
use crate::lifecycle;

/// Its name, what it shows, and how it is done.
pub type Scenario<F> = (&'static str, &'static str, F);

/// Runs what the arguments of this program name. Without `--run` it says `skipped` and nothing else happens; `--list`
/// lists. `prepare` makes what all scenarios share, and `None` if it has said why there is nothing to run in.
pub fn main<F, C>(
    title: &str,
    skipped: &str,
    scenarios: &[Scenario<F>],
    prepare: impl FnOnce() -> Result<Option<C>>,
    perform: impl Fn(&F, &C) -> Result<()>,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        scenarios.iter().for_each(|(name, about, _)| println!("{name:<18} {about}"));
        return ExitCode::SUCCESS;
    }
    if !has("--run") {
        println!("SKIPPED: {skipped}");
        return ExitCode::SUCCESS;
    }
    match lifecycle::install().and_then(|()| prepare()) {
        Ok(Some(shared)) => {
            let filters = arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-'));
            run(title, &chosen(scenarios, &filters.collect::<Vec<_>>()), |scenario| {
                perform(scenario, &shared)
            })
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn chosen<'s, F>(scenarios: &'s [Scenario<F>], filters: &[&str]) -> Vec<&'s Scenario<F>> {
    let is_chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    scenarios.iter().filter(|(name, ..)| is_chosen(name)).collect()
}

/// That none was chosen is a failure, too.
fn run<F>(title: &str, scenarios: &[&Scenario<F>], perform: impl Fn(&F) -> Result<()>) -> ExitCode {
    let start = Instant::now();
    let mut failed = Vec::new();
    for (name, about, scenario) in scenarios {
        println!("\n== {name}: {about}");
        let begin = Instant::now();
        let result = perform(scenario);
        let seconds = begin.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("   ok in {seconds:.1} s"),
            Err(error) => {
                println!("   FAILED in {seconds:.1} s: {error}");
                failed.push(*name);
            }
        }
    }
    let (seconds, passed) = (start.elapsed().as_secs_f64(), scenarios.len() - failed.len());
    println!("\n{title}: {passed} passed, {} failed, {seconds:.0} s {}", failed.len(), failed.join(" "));
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ensure;

    #[test]
    fn filters_choose_by_parts_of_names_and_a_failure_or_nothing_to_run_fails() {
        let scenarios = [("one", "", 1), ("two", "", 2), ("twenty", "", 20)];
        let names = |filters: &[&str]| -> Vec<&str> {
            chosen(&scenarios, filters).iter().map(|(name, ..)| *name).collect()
        };
        assert_eq!(names(&[]), ["one", "two", "twenty"]);
        assert_eq!(names(&["tw", "one"]), ["one", "two", "twenty"]);
        assert_eq!(names(&["twe"]), ["twenty"]);
        assert_eq!(names(&["three"]), [""; 0]);

        let ends_well = |filters: &[&str]| {
            let small = |number: &i32| ensure(*number < 10, || "too much".to_owned());
            run("numbers", &chosen(&scenarios, filters), small) == ExitCode::SUCCESS
        };
        assert!(ends_well(&["one", "two"]));
        assert!(!ends_well(&["one", "twenty"]));
        assert!(!ends_well(&["three"]));
    }
}
