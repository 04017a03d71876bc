//! `lbctl validate` and `lbctl reload`: the configuration file, checked here or taken by the control plane.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use shunt_api::client::{Client, ClientError};
use shunt_api::config::manifest::{self, Manifests};
use shunt_api::config::{Config, Pool};
use shunt_api::status::{ConfigProblem, Reloaded};

use crate::Outcome;
use crate::output::{self, Format, count};

/// What `validate -o json` prints.
#[derive(Serialize)]
struct Findings<'a> {
    /// Why the file would be refused.
    problem: Option<&'a ConfigProblem>,
    /// What is allowed but hardly meant.
    warnings: &'a [ConfigProblem],
    /// How each pool is checked; empty if none is.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    checks: &'a [PoolCheck],
}

/// How the backends of a pool are found to be up.
#[derive(Serialize)]
struct PoolCheck {
    pool: String,
    /// In words; `None`: they are taken to be.
    check: Option<String>,
    /// Probes that the pool needs at each interval, over its backends.
    probes: usize,
}

/// Checks a file as the control plane would: a configuration file, or manifests of a cluster's pools.
pub fn validate(file: &Path, format: Format) -> anyhow::Result<Outcome> {
    let is_manifest =
        file.extension().is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|e| extension == *e));
    let parsed = if is_manifest {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        return manifests(file, &text, format);
    } else if file == Path::new("-") {
        let text = io::read_to_string(io::stdin()).context("standard input cannot be read as text")?;
        // Nothing of TOML begins so.
        if text.lines().any(|line| line.starts_with("apiVersion:") || line.starts_with('{')) {
            return manifests(file, &text, format);
        }
        Config::parse(&text, "-")
    } else {
        Config::load(file)
    };
    let checked = parsed.and_then(|config| fleet_key(&config).map(|warning| (config, warning)));
    let (problem, warnings) = match &checked {
        Ok((config, warning)) => (None, config.warnings().iter().cloned().chain(warning.clone()).collect()),
        Err(problem) => (Some(problem), Vec::new()),
    };
    let warnings: Vec<ConfigProblem> = warnings;
    let checks = checked.as_ref().map_or(Vec::new(), |(config, _)| pool_checks(config));
    match (&checked, format) {
        (_, Format::Json) => {
            output::print_json(&Findings { problem, warnings: &warnings, checks: &checks })?;
        }
        (Ok((config, _)), Format::Table) => output::print(&accepted(file, config, &warnings, &checks))?,
        (Err(problem), Format::Table) => output::print(&format!("{problem}\n"))?,
    }
    Ok(Outcome::well_if(problem.is_none()))
}

/// Checks pools that are for a cluster.
fn manifests(file: &Path, text: &str, format: Format) -> anyhow::Result<Outcome> {
    let found = manifest::read(text, &file.display().to_string());
    let (problem, warnings) = match &found {
        Ok(found) => (None, &found.warnings[..]),
        Err(problem) => (Some(problem), &[][..]),
    };
    match (&found, format) {
        (_, Format::Json) => output::print_json(&Findings { problem, warnings, checks: &[] })?,
        (Ok(found), Format::Table) => output::print(&pools_accepted(file, found))?,
        (Err(problem), Format::Table) => output::print(&format!("{problem}\n"))?,
    }
    Ok(Outcome::well_if(problem.is_none()))
}

fn pools_accepted(file: &Path, found: &Manifests) -> String {
    let mut text = warned(&found.warnings);
    let _ = writeln!(text, "{} is valid: {}", file.display(), count(found.pools.len(), manifest::KIND));
    for pool in &found.pools {
        let ranges: Vec<String> = pool.ranges.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{}: {}", pool.name, ranges.join(", "));
    }
    text
}

/// A key that can be read must be one. A key that cannot be read here is only worth a warning, because a
/// file may be checked by another user or on another machine.
fn fleet_key(config: &Config) -> Result<Option<ConfigProblem>, ConfigProblem> {
    let Some(key) = &config.fleet_key_file else { return Ok(None) };
    match key.read() {
        Ok(_) => Ok(None),
        Err(problem) if fs::read(&key.path).is_err() => Ok(Some(problem)),
        Err(problem) => Err(problem),
    }
}

/// One for each pool, unless no pool is checked.
fn pool_checks(config: &Config) -> Vec<PoolCheck> {
    if config.pools.iter().all(|pool| pool.check.is_none()) {
        return Vec::new();
    }
    let mut probes = vec![0; config.pools.len()];
    config.targets().backends.iter().for_each(|checked| probes[checked.pool] += checked.targets.len());
    let check = |(pool, probes): (&Pool, usize)| PoolCheck {
        pool: pool.name.clone(),
        check: pool.check.as_ref().map(ToString::to_string),
        probes,
    };
    config.pools.iter().zip(probes).map(check).collect()
}

fn warned(warnings: &[ConfigProblem]) -> String {
    let mut text = String::new();
    for ConfigProblem { file, line, column, field, reason } in warnings {
        let _ = writeln!(text, "{file}:{line}:{column}: warning: {field}: {reason}");
    }
    text
}

fn accepted(file: &Path, config: &Config, warnings: &[ConfigProblem], checks: &[PoolCheck]) -> String {
    let mut text = warned(warnings);
    let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
    let _ = writeln!(
        text,
        "{} is valid: {}, {}, {}",
        file.display(),
        count(config.services.len(), "service"),
        count(config.pools.len(), "pool"),
        count(backends, "backend"),
    );
    for PoolCheck { pool, check, probes } in checks {
        let _ = match check {
            Some(check) => writeln!(text, "pool {pool}: {check}; {}", count(*probes, "probe")),
            None => writeln!(text, "pool {pool}: not checked"),
        };
    }
    text
}

/// Has the control plane read its file again.
pub async fn reload(control: &Client, format: Format) -> anyhow::Result<Outcome> {
    match control.post("/v1/reload", &()).await {
        Ok(reloaded) => taken(&reloaded, format),
        Err(ClientError::Refused { status: 422, message }) => refused(message, format),
        Err(error) => Err(error.into()),
    }
}

fn taken(reloaded: &Reloaded, format: Format) -> anyhow::Result<Outcome> {
    match format {
        Format::Json => output::print_json(reloaded)?,
        Format::Table => output::print(&reloaded_text(reloaded))?,
    }
    Ok(Outcome::well_if(reloaded.acknowledged == Some(reloaded.generation)))
}

fn reloaded_text(reloaded: &Reloaded) -> String {
    let changed = if reloaded.changed { "changed" } else { "nothing changed" };
    let acknowledged = if reloaded.acknowledged == Some(reloaded.generation) {
        "acknowledged by the dataplane"
    } else {
        "not acknowledged by the dataplane within two seconds; see `lbctl status`"
    };
    let mut text = format!("generation {}: {changed}, {acknowledged}\n", reloaded.generation);
    for setting in &reloaded.restart_needed {
        let _ = writeln!(
            text,
            "restart needed: {setting}; restart shunt-dataplane when a short interruption is harmless"
        );
    }
    text
}

/// The file was refused; what was served before still is.
fn refused(message: String, format: Format) -> anyhow::Result<Outcome> {
    match serde_json::from_str::<ConfigProblem>(&message) {
        Ok(problem) if format == Format::Json => output::print_json(&problem)?,
        Ok(problem) => output::print(&format!("{problem}\n"))?,
        Err(_) => anyhow::bail!(message),
    }
    Ok(Outcome::Unwell)
}
