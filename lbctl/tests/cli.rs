//! The real binary against a fake daemon on a Unix socket: every command as table and as JSON, exit codes,
//! and what is said when a daemon is not running.
//!
//! `golden/NAME.txt` holds the command line, both outputs and the exit code of one case; `BLESS=1` renews
//! them. What `docs/lbctl.md` shows is held to be in them.

#[path = "cli/daemon.rs"]
mod daemon;
#[path = "cli/sample.rs"]
mod sample;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use axum::http::StatusCode;
use daemon::{Answers, FakeDaemon};
use shunt_api::status::{ControlStatus, DataplaneStatus, FlowCount, L2Role, L2Status};

/// A box with the daemons, running or not.
struct Machine {
    directory: PathBuf,
    daemons: Vec<FakeDaemon>,
}

impl Machine {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("lbctl-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self { directory, daemons: Vec::new() }
    }

    fn with(mut self, socket: &str, answers: Answers) -> Self {
        self.daemons.push(FakeDaemon::start(self.directory.join(socket), answers));
        self
    }

    fn with_control(self, answers: Answers) -> Self {
        self.with("controlplane.sock", answers)
    }

    fn with_dataplane(self, answers: Answers) -> Self {
        self.with("dataplane.sock", answers)
    }

    /// Both daemons, all well.
    fn well(name: &str) -> Self {
        Self::new(name).with_control(sample::control_answers()).with_dataplane(sample::dataplane_answers())
    }

    /// One whose control plane has this status, beside a dataplane where all is well.
    fn that_says(name: &str, status: &ControlStatus) -> Self {
        let control = Answers::default().ok("/v1/status", status);
        Self::new(name).with_control(control).with_dataplane(sample::dataplane_answers())
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files"));
        command.args(arguments.split_whitespace()).stdin(Stdio::null());
        command.env("SHUNT_CONTROLPLANE_SOCKET", self.directory.join("controlplane.sock"));
        command.env("SHUNT_DATAPLANE_SOCKET", self.directory.join("dataplane.sock"));
        command
    }

    /// Runs `lbctl ARGUMENTS` and compares everything it did with `golden/NAME.txt`.
    fn check(&self, name: &str, arguments: &str) {
        let output = self.command(arguments).output().unwrap();
        let seen = self.transcript(arguments, &output);
        let path = golden_directory().join(format!("{name}.txt"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &seen).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(seen == golden, "{} differs (BLESS=1 renews it); now it is:\n{seen}", path.display());
    }

    fn transcript(&self, arguments: &str, output: &Output) -> String {
        let mut text = format!("$ lbctl {arguments}\n{}", String::from_utf8_lossy(&output.stdout));
        if !output.stderr.is_empty() {
            text += &format!("[stderr]\n{}", String::from_utf8_lossy(&output.stderr));
        }
        text += &format!("[exit {}]\n", output.status.code().unwrap_or(-1));
        text.replace(self.directory.to_str().unwrap(), "/run/shunt")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.daemons.clear();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn golden_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn every_reading_command_has_a_table_and_a_json_form() {
    let well = Machine::well("reading");
    for (name, arguments) in [
        ("status", "status"),
        ("services", "get services"),
        ("backends", "get backends"),
        ("nics", "get nics"),
        ("stats", "stats"),
        ("flows", "flows"),
        ("explain", "explain --src 192.0.2.7:40000 --dst 203.0.113.10:80"),
        ("events", "events"),
    ] {
        well.check(name, arguments);
        well.check(&format!("{name}-json"), &format!("{arguments} -o json"));
    }
    well.check("stats-all", "stats --all");
    well.check("stats-per-worker", "stats --per-worker");
    well.check("reload", "reload");
    well.check("reload-json", "reload -o json");
}

#[test]
fn a_name_selects_and_its_health_is_the_exit_code() {
    let well = Machine::well("names");
    well.check("service-by-name", "get services web");
    well.check("service-unusable", "get services dns");
    well.check("service-unknown", "get services wbe");
    well.check("backend-by-name", "get backends web2");
    well.check("backend-by-address", "get backends 2001:db8:1::13");
    well.check("backend-closed", "get backends dns1");
    well.check("backend-down", "get backends web4");
    well.check("nic-by-name", "get nics eth1 -o json");
    well.check("nic-unknown", "get nics eht1");

    let down = Answers::default().ok("/v1/status", &sample::dataplane_with_link_down());
    let down = Machine::new("down").with_dataplane(down);
    down.check("nic-down", "get nics eth2");
}

#[test]
fn draining_says_how_many_flows_are_left() {
    let well = Machine::well("drain");
    well.check("drain", "drain web2");
    well.check("drain-json", "drain web2 -o json");
    well.check("drain-not-in-time", "drain web2 --timeout 10ms");
    well.check("undrain-weight-0", "undrain web2");
    well.check("events-limited", "events --limit 1");

    let empty = serde_json::to_string(&sample::drained(0)).unwrap();
    let empty = Machine::new("empty")
        .with_control(Answers::default().put("/v1/drain", StatusCode::OK, empty))
        .with_dataplane(Answers::default().ok("/v1/flows/count?backend=10.0.1.12", &FlowCount::default()));
    empty.check("drain-empty", "drain web2 --timeout 5m");

    let reason = "there is no backend of name or address `wbe2`; `lbctl get backends` lists them".to_owned();
    let answers = Answers::default().put("/v1/drain", StatusCode::NOT_FOUND, reason);
    let unknown = Machine::new("unknown").with_control(answers.ok("/v1/events", &[0u8; 0]));
    unknown.check("drain-unknown", "drain wbe2");
    unknown.check("events-none", "events");
}

#[test]
fn flow_filters_reach_the_dataplane() {
    let well = Machine::well("filters");
    well.check("flows-of-a-client", "flows --client 192.0.2.7");
    well.check("flows-limited", "flows --limit 1");
    let every = "flows --client 192.0.2.7 --vip 203.0.113.10 --port 80 --protocol tcp --backend 10.0.1.11";
    well.check("flows-every-filter", every);
}

#[test]
fn a_daemon_that_is_not_running_is_one_line() {
    let nothing = Machine::new("nothing");
    nothing.check("status-nothing-runs", "status");
    nothing.check("services-nothing-runs", "get services");
    nothing.check("nics-nothing-runs", "get nics");
    nothing.check("stats-nothing-runs", "stats");
    nothing.check("flows-nothing-runs", "flows -o json");
    nothing.check("reload-nothing-runs", "reload");

    let forwarding = Machine::new("forwarding").with_dataplane(sample::dataplane_answers());
    forwarding.check("status-control-plane-gone", "status");
    forwarding.check("status-control-plane-gone-json", "status -o json");

    let alone =
        Machine::new("alone").with_control(Answers::default().ok("/v1/status", &sample::unconnected()));
    alone.check("status-dataplane-gone", "status");
}

#[test]
fn what_is_wrong_is_listed_with_its_remedy() {
    let dataplane = sample::dataplane_in_trouble();
    let control = ControlStatus {
        config_problem: Some(sample::config_problem()),
        acknowledged: Some(6),
        dataplane_problem: Some("the dataplane refused the snapshot: there is no NIC `eth9`; `nic-config show` lists those there are".to_owned()),
        dataplane: Some(dataplane.clone()),
        ..sample::control()
    };
    let trouble = Machine::new("trouble")
        .with_control(Answers::default().ok("/v1/status", &control))
        .with_dataplane(Answers::default().ok("/v1/status", &dataplane));
    trouble.check("status-in-trouble", "status");

    let behind = ControlStatus { acknowledged: Some(6), ..sample::control() };
    Machine::that_says("behind", &behind).check("status-behind", "status");

    let master = "10.0.0.2".parse().ok();
    let conflict = "address 203.0.113.10: 02:00:00:00:00:09 on eth1 claims it, too, last at 2026-01-31T12:00:00.123Z; \
        take it from that machine";
    let standby = ControlStatus {
        l2: sample::control().l2.map(|l2| L2Status { role: L2Role::Backup, master, addresses: 0, ..l2 }),
        routes: None,
        clusters: Vec::new(),
        problems: vec![conflict.to_owned()],
        ..sample::control()
    };
    Machine::that_says("standby", &standby).check("status-standby", "status");

    let away = "cluster berlin does not answer since 2026-01-31T12:00:00.123Z, and what is served stays as it is: services: \
        connection refused; is its API server up, and is kubernetes.kubeconfig right?";
    let clusters = ControlStatus {
        clusters: sample::clusters_in_trouble(),
        problems: vec![away.to_owned()],
        ..sample::control()
    };
    Machine::that_says("clusters", &clusters).check("status-clusters", "status");

    let fresh =
        DataplaneStatus { generation: None, generation_age_s: None, ..sample::dataplane_in_trouble() };
    let fresh = Machine::new("fresh").with_dataplane(Answers::default().ok("/v1/status", &fresh));
    fresh.check("status-never-configured", "status");
}

#[test]
fn a_reload_says_what_came_of_it() {
    let problem = serde_json::to_string(&sample::config_problem()).unwrap();
    let answers = Answers::default().post("/v1/reload", StatusCode::UNPROCESSABLE_ENTITY, problem);
    let refused = Machine::new("refused").with_control(answers);
    refused.check("reload-refused", "reload");
    refused.check("reload-refused-json", "reload -o json");

    let unacknowledged = serde_json::to_string(&sample::unacknowledged()).unwrap();
    let late = Machine::new("late").with_control(Answers::default().post(
        "/v1/reload",
        StatusCode::OK,
        unacknowledged,
    ));
    late.check("reload-not-acknowledged", "reload");
}

#[test]
fn validate_judges_a_file() {
    let nothing = Machine::new("validate");
    nothing.check("validate", "validate good.toml");
    nothing.check("validate-json", "validate good.toml -o json");
    nothing.check("validate-refused", "validate bad.toml");
    nothing.check("validate-refused-json", "validate bad.toml -o json");
    nothing.check("validate-missing", "validate nowhere.toml");
    nothing.check("validate-warnings", "validate warning.toml");
    nothing.check("validate-bad-key", "validate bad-key.toml");
    nothing.check("validate-checks", "validate checks.toml");
    nothing.check("validate-pools", "validate pools.yaml");
    nothing.check("validate-pools-json", "validate pools.yaml -o json");
    nothing.check("validate-pools-refused", "validate bad-pools.yaml");
    nothing.check("validate-checks-json", "validate checks.toml -o json");

    let good = fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good.toml")).unwrap();
    let output = nothing.command("validate -").stdin(good).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("- is valid: "), "{output:?}");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let nothing = Machine::new("usage");
    for arguments in ["", "stat", "get", "get pods", "flows --client x", "flows --port 0", "stats --watch 0"]
    {
        let output = nothing.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "lbctl {arguments}");
        assert!(!output.stderr.is_empty(), "lbctl {arguments}");
    }
    assert!(nothing.command("--help").output().unwrap().status.success());
}

#[test]
fn completions_name_every_command() {
    let nothing = Machine::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let output = nothing.command(&format!("completions {shell}")).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for command in [
            "status",
            "get",
            "stats",
            "flows",
            "events",
            "drain",
            "undrain",
            "validate",
            "kubeconfig",
            "reload",
            "dataplane-socket",
        ] {
            assert!(script.contains(command), "{command} in the {shell} script");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let well = Machine::well("pipe");
    let mut lbctl =
        well.command("stats --all").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(lbctl.stdout.take());
    let output = lbctl.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn watching_prints_rates_and_ends_with_an_interrupt() {
    use std::io::{BufRead, BufReader};

    let well = Machine::well("watch");
    let mut lbctl = well.command("stats --watch 0.1").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(lbctl.stdout.take().unwrap()).lines();
    let header = lines.next().unwrap().unwrap();
    assert!(header.starts_with("COUNTER") && header.contains("PER SECOND"), "{header}");
    assert!(!header.contains('\x1b'), "a pipe is not a terminal");
    // The fake daemon's counters never grow.
    let first = lines.next().unwrap().unwrap();
    let cells: Vec<&str> = first.split_whitespace().take(2).collect();
    assert_eq!(cells, ["rx_packets", "0"]);
    let interrupted = Command::new("kill").args(["-INT", &lbctl.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(lbctl.wait().unwrap().code(), Some(0));
}

#[test]
fn the_documentation_shows_real_output() {
    let golden: String = fs::read_dir(golden_directory())
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lbctl.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = page.split("```console\n").skip(1).collect();
    assert!(blocks.len() >= 8, "the page shows every command");
    for block in blocks {
        let block = block.split("```").next().unwrap();
        assert!(golden.contains(block), "docs/lbctl.md shows what lbctl does not print:\n{block}");
    }
}
