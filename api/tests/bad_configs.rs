//! Golden test: every `bad_configs/NAME.toml` is refused with the line in `NAME.expected`, which is
//! `LINE:COLUMN: FIELD: REASON`. `BLESS=1` writes the lines anew; read them as an operator would before
//! committing: does each say what to write instead?

use std::fs;
use std::path::{Path, PathBuf};

use shunt_api::config::Config;

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_configs");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    cases.sort();
    cases
}

/// The refusal without the file's path, which differs from clone to clone.
fn refusal(case: &Path) -> String {
    let Err(problem) = Config::load(case) else { return "ACCEPTED".into() };
    assert_eq!(problem.file, case.display().to_string());
    format!("{}:{}: {}: {}", problem.line, problem.column, problem.field, problem.reason)
}

#[test]
fn every_bad_file_is_refused_with_the_expected_line() {
    let bless = std::env::var_os("BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= 30, "only {} cases found", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let line = refusal(case);
        assert!(!line.contains('\n') && line != "ACCEPTED", "{}: {line}", case.display());
        let golden = case.with_extension("expected");
        if bless {
            fs::write(&golden, format!("{line}\n")).unwrap();
        } else if fs::read_to_string(&golden).ok() != Some(format!("{line}\n")) {
            wrong.push(format!("{}\n  now: {line}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "differs (BLESS=1 renews):\n{}", wrong.join("\n"));
}

#[test]
fn no_expected_line_is_without_its_file() {
    let known: Vec<PathBuf> = cases().iter().map(|case| case.with_extension("expected")).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_configs");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let orphans: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "expected") && !known.contains(path))
        .collect();
    assert_eq!(orphans, Vec::<PathBuf>::new());
}
