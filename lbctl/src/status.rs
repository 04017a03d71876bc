//! `lbctl status`: whether all is well, from both daemons, and what to do if not.
//!
//! Both are asked directly, because the dataplane goes on forwarding without the control plane.

use std::fmt::Write as _;

use serde::Serialize;
use shunt_api::client::{Client, ClientError};
use shunt_api::status::{
    ChecksStatus, ClusterRole, ClusterServices, ClusterSource, ClusterStatus, ControlStatus, DataplaneStatus,
    FlowTableStatus, L2Status, NicStatus, RoutesStatus, WorkerState, WorkerStatus,
};

use crate::Outcome;
use crate::get::attachment;
use crate::output::{self, Format, count, duration};

/// What `-o json` prints.
#[derive(Serialize)]
struct Report {
    /// Nothing is wrong.
    healthy: bool,
    /// What is wrong, in words with a remedy.
    problems: Vec<String>,
    /// The control plane's answer, if it gave one.
    controlplane: Option<ControlStatus>,
    /// The dataplane's own answer, if it gave one.
    dataplane: Option<DataplaneStatus>,
}

/// Asks both daemons.
pub async fn run(control: &Client, dataplane: &Client, format: Format) -> anyhow::Result<Outcome> {
    let answers = tokio::join!(control.get("/v1/status"), dataplane.get("/v1/status"));
    let report = report(answers.0, answers.1);
    match format {
        Format::Json => output::print_json(&report)?,
        Format::Table => output::print(&text(&report))?,
    }
    Ok(Outcome::well_if(report.healthy))
}

fn report(
    control: Result<ControlStatus, ClientError>,
    dataplane: Result<DataplaneStatus, ClientError>,
) -> Report {
    let mut problems = Vec::new();
    match &control {
        Ok(control) => control_problems(control, &mut problems),
        Err(error) => problems.push(alone(error, dataplane.as_ref().ok())),
    }
    match &dataplane {
        Ok(dataplane) => dataplane_problems(dataplane, &mut problems),
        Err(error) => problems.push(error.to_string()),
    }
    // Both daemons may tell of one and the same.
    let mut told = std::collections::HashSet::new();
    problems.retain(|problem| told.insert(problem.clone()));
    Report { healthy: problems.is_empty(), problems, controlplane: control.ok(), dataplane: dataplane.ok() }
}

/// The control plane does not answer: what that means depends on the dataplane.
fn alone(error: &ClientError, dataplane: Option<&DataplaneStatus>) -> String {
    match dataplane.and_then(|dataplane| dataplane.generation) {
        Some(generation) => format!(
            "{error}. Meanwhile the dataplane goes on forwarding by generation {generation}; \
             changes wait for the control plane"
        ),
        None => error.to_string(),
    }
}

fn control_problems(control: &ControlStatus, problems: &mut Vec<String>) {
    if let Some(problem) = &control.config_problem {
        let meanwhile =
            if control.generation > 0 { "the one before is still served" } else { "nothing is configured" };
        problems.push(format!(
            "the configuration file is refused and {meanwhile}: {problem} (mend the file; it is read again when saved)"
        ));
    }
    problems.extend(control.problems.iter().cloned());
    match &control.dataplane_problem {
        Some(problem) => problems.push(problem.clone()),
        None if control.generation > 0 && control.acknowledged != Some(control.generation) => {
            problems.push(format!(
                "the dataplane has not acknowledged generation {} yet; ask again in a second",
                control.generation
            ));
        }
        None => {}
    }
}

fn dataplane_problems(dataplane: &DataplaneStatus, problems: &mut Vec<String>) {
    problems.extend(dataplane.problems.iter().cloned());
    for setting in &dataplane.restart_needed {
        problems.push(format!(
            "restart needed: {setting}; restart shunt-dataplane when a short interruption is harmless"
        ));
    }
}

fn text(report: &Report) -> String {
    let mut text = match report.problems.len() {
        0 => "healthy\n\n".to_owned(),
        number => format!("not healthy: {}\n\n", count(number, "problem")),
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("control plane", report.controlplane.as_ref().map_or_else(no_answer, control_line));
    line("dataplane", report.dataplane.as_ref().map_or_else(no_answer, dataplane_line));
    if let Some(control) = &report.controlplane {
        line("generation", generation_line(control));
        control.checks.iter().for_each(|checks| line("health checks", checks_line(checks)));
        control.l2.iter().for_each(|l2| line("on segments", l2_line(l2)));
        control.routes.iter().for_each(|routes| line("by routes", routes_line(routes)));
        control.clusters.iter().for_each(|cluster| line("cluster", cluster_line(cluster)));
    }
    if let Some(dataplane) = &report.dataplane {
        nic_lines(dataplane).into_iter().for_each(|nic| line("NIC", nic));
        line("workers", workers_line(&dataplane.workers));
        line("flows", flows_line(dataplane));
        line("flow tables", memory_line(dataplane));
        line("next hops", next_hops_line(dataplane));
    }
    if !report.problems.is_empty() {
        text.push_str("\nproblems\n");
        report.problems.iter().for_each(|problem| {
            let _ = writeln!(text, "- {problem}");
        });
    }
    text
}

fn no_answer() -> String {
    "no answer".to_owned()
}

fn control_line(control: &ControlStatus) -> String {
    format!(
        "{}, up {}, {}: {}, {}",
        control.version,
        duration(control.uptime_s),
        control.config_file,
        count(control.services, "service"),
        count(control.backends, "backend"),
    )
}

fn dataplane_line(dataplane: &DataplaneStatus) -> String {
    let forwarding = match (dataplane.generation, dataplane.generation_age_s) {
        (Some(generation), Some(age)) => format!("generation {generation} for {}", duration(age)),
        (Some(generation), None) => format!("generation {generation}"),
        (None, _) => "no configuration yet".to_owned(),
    };
    format!("{}, up {}, {forwarding}", dataplane.version, duration(dataplane.uptime_s))
}

fn generation_line(control: &ControlStatus) -> String {
    let acknowledged = control.acknowledged.map_or_else(|| "none".to_owned(), |number| number.to_string());
    format!("{} wanted, {acknowledged} acknowledged", control.generation)
}

fn checks_line(checks: &ChecksStatus) -> String {
    let late = 100.0 * checks.late_p99;
    let probes = count(checks.probes, "probe");
    format!("{probes}, {} made, 99 % at most {late:.1} % of their interval late", checks.made)
}

fn l2_line(l2: &L2Status) -> String {
    let mut line = l2.role.to_string();
    if let Some(group) = l2.group {
        let _ = write!(line, " of group {group}");
    }
    if let Some(priority) = l2.priority {
        let _ = write!(line, " with priority {priority}");
    }
    if let Some(master) = l2.master {
        let _ = write!(line, ", {master} is master");
    }
    if l2.role.answers() {
        let _ = write!(line, ", answers for {}", addresses(l2.addresses));
    }
    line
}

fn routes_line(routes: &RoutesStatus) -> String {
    format!("{} in table {}", addresses(routes.present), routes.table)
}

fn cluster_line(cluster: &ClusterStatus) -> String {
    let name = cluster.name.as_ref().map_or_else(String::new, |name| format!("{name}: "));
    let contact = match (&cluster.away, cluster.source) {
        (Some(away), _) => format!("no answer since {}", away.since_ms),
        (None, ClusterSource::Live) => "answers".to_owned(),
        (None, ClusterSource::Unknown | ClusterSource::Memory) => "is being asked".to_owned(),
    };
    let source = match cluster.source {
        ClusterSource::Unknown => ", what it wants is not known yet",
        ClusterSource::Memory => ", served from memory",
        ClusterSource::Live => "",
    };
    let role = match (cluster.role, &cluster.leader) {
        (ClusterRole::Leader, _) => "this box leads".to_owned(),
        (ClusterRole::Follower, Some(leader)) => format!("{leader} leads"),
        _ => "no leader known".to_owned(),
    };
    let mut line = format!("{name}{contact}{source}, {role}");
    let Some(ClusterServices { served, waiting, refused }) = cluster.services else { return line };
    let _ = write!(line, "; {} served", count(served, "Service"));
    for (number, what) in [(waiting, "waiting"), (refused, "refused")] {
        if number > 0 {
            let _ = write!(line, ", {number} {what}");
        }
    }
    line
}

fn addresses(number: usize) -> String {
    if number == 1 { "1 address".to_owned() } else { format!("{number} addresses") }
}

fn nic_lines(dataplane: &DataplaneStatus) -> Vec<String> {
    let nic_line = |nic: &NicStatus| {
        let link = if nic.up { "up" } else { "down" };
        let queues = count(nic.queues as usize, "queue");
        format!("{} {link}, {}, {queues}", nic.name, attachment(nic))
    };
    dataplane.nics.iter().map(nic_line).collect()
}

fn workers_line(workers: &[WorkerStatus]) -> String {
    let states = [
        (WorkerState::Running, "running"),
        (WorkerState::Waiting, "waiting for packets"),
        (WorkerState::Stalled, "STALLED"),
    ];
    let parts = states.iter().filter_map(|(state, name)| {
        let number = workers.iter().filter(|worker| worker.state == *state).count();
        (number > 0).then(|| format!("{number} {name}"))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn flows_line(dataplane: &DataplaneStatus) -> String {
    let load = |table: &FlowTableStatus| {
        let percent = 100.0 * table.used as f64 / table.capacity.max(1) as f64;
        format!("{} of {} ({percent:.1} %)", table.used, table.capacity)
    };
    let flows = &dataplane.flows;
    let translated = [("IPv4", flows.nat_v4), ("IPv6", flows.nat_v6)];
    let translated = translated.iter().filter_map(|(family, table)| Some((family, (*table)?)));
    let translated = translated.map(|(family, table)| format!(", translated {family} {}", load(&table)));
    format!("IPv4 {}, IPv6 {}", load(&flows.v4), load(&flows.v6)) + &translated.collect::<String>()
}

fn memory_line(dataplane: &DataplaneStatus) -> String {
    let flows = &dataplane.flows;
    let tables = || [Some(flows.v4), Some(flows.v6), flows.nat_v4, flows.nat_v6].into_iter().flatten();
    let size_bytes: u64 = tables().map(|table| table.size_bytes).sum();
    if size_bytes == 0 {
        return "none".to_owned();
    }
    let huge_page_bytes: u64 = tables().map(|table| table.huge_page_bytes).sum();
    let percent = 100.0 * huge_page_bytes as f64 / size_bytes as f64;
    format!("{:.1} MB, {percent:.0} % on huge pages", size_bytes as f64 / 1e6)
}

fn next_hops_line(dataplane: &DataplaneStatus) -> String {
    let hops = &dataplane.next_hops;
    let open = hops.iter().filter(|hop| hop.resolved.is_some()).count();
    format!("{open} of {} open", hops.len())
}
