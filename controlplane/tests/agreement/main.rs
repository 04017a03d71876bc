//! The real `shunt-controlplane` against a fake dataplane: whatever happens to either of the two or to the
//! file, they agree in the end, and whoever asks is told why they do not.

mod fake;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fake::FakeDataplane;
use rustix::process::{Pid, Signal, kill_process};
use shunt_api::client::{Client, ClientError};
use shunt_api::status::{BackendView, ConfigProblem, ControlStatus, Reloaded, ServiceView};

/// A directory of its own with a configuration file, and the daemon's sockets.
struct Host {
    directory: PathBuf,
}

impl Host {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("shunt-agreement-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes the configuration as a careful editor does: beside, then renamed over.
    fn configure(&self, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("shunt.toml")).unwrap();
    }

    fn dataplane(&self, instance: u64) -> FakeDataplane {
        FakeDataplane::start(&self.path("dataplane.sock"), instance)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shunt-controlplane"));
        command
            .arg("--config")
            .arg(self.path("shunt.toml"))
            .arg("--socket")
            .arg(self.path("run/control.sock"))
            .arg("--dataplane-socket")
            .arg(self.path("dataplane.sock"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .args(["--log-level", "info"]);
        command
    }

    fn start(&self) -> Daemon {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        Daemon(self.command().stderr(log).spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn client(&self) -> Client {
        Client::controlplane(self.path("run/control.sock"))
    }

    async fn status(&self) -> Option<ControlStatus> {
        self.client().get("/v1/status").await.ok()
    }

    /// Waits until the daemon's status is as it should be.
    async fn status_where(&self, what: &str, holds: impl Fn(&ControlStatus) -> bool) -> ControlStatus {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let status = self.status().await;
            match status {
                Some(status) if holds(&status) => return status,
                _ if Instant::now() > deadline => panic!("never {what}: {status:#?}\n{}", self.log()),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Waits until both agree on a generation.
    async fn agreement(&self) -> ControlStatus {
        let agrees = |status: &ControlStatus| {
            status.generation > 0
                && status.acknowledged == Some(status.generation)
                && status.dataplane_problem.is_none()
        };
        self.status_where("in agreement", agrees).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The process, ended with the test that started it.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A configuration that is told from others by its weight.
fn config(weight: u16) -> String {
    format!(
        r#"
        [[nic]]
        name = "eth1"
        [pools.web]
        backends = [{{ name = "web1", address = "10.0.1.11", weight = {weight} }}]
        [[service]]
        name = "web"
        vip = "203.0.113.10"
        ports = ["tcp/80", "tcp/443"]
        pool = "web"
        "#
    )
}

fn weight(dataplane: &FakeDataplane) -> Option<u16> {
    Some(dataplane.last()?.pools[0].backends[0].weight)
}

async fn weight_becomes(dataplane: &FakeDataplane, wanted: u16) {
    let arrived = || (weight(dataplane) == Some(wanted)).then_some(());
    wait_for(&format!("a snapshot with weight {wanted}"), arrived).await;
}

#[tokio::test]
async fn publishes_at_start_and_answers_what_is_configured() {
    let host = Host::new("start");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    let _daemon = host.start();
    let status = host.agreement().await;
    assert_eq!((status.generation, status.services, status.backends), (1, 1, 1));
    assert_eq!(status.dataplane.unwrap().version, "fake");
    assert_eq!(dataplane.snapshots().len(), 1);

    let services: Vec<ServiceView> = host.client().get("/v1/services").await.unwrap();
    let ports: Vec<String> = services.iter().map(|service| service.port.to_string()).collect();
    assert_eq!(ports, ["tcp/80", "tcp/443"]);
    let backends: Vec<BackendView> = host.client().get("/v1/backends").await.unwrap();
    assert_eq!((backends[0].name.as_str(), backends[0].state.as_str()), ("web1", "unknown"));
    let unknown = host.client().get::<ControlStatus>("/v2/status").await.unwrap_err();
    assert!(
        matches!(&unknown, ClientError::Refused { status: 404, message } if message.contains("/v1/status"))
    );
}

#[tokio::test]
async fn a_changed_file_is_taken_when_saved_on_sighup_and_on_request() {
    let host = Host::new("change");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    let daemon = host.start();
    host.agreement().await;

    host.configure(&config(2));
    weight_becomes(&dataplane, 2).await;

    host.configure(&config(3));
    daemon.signal(Signal::HUP);
    weight_becomes(&dataplane, 3).await;
    assert!(host.log().contains("SIGHUP"), "{}", host.log());

    host.configure(&config(4));
    let reloaded: Reloaded = host.client().post("/v1/reload", &()).await.unwrap();
    assert_eq!(weight(&dataplane), Some(4), "acknowledged before the answer");
    assert_eq!(reloaded.acknowledged, Some(reloaded.generation));
    assert_eq!((reloaded.changed, reloaded.restart_needed), (true, vec!["ring_size".to_owned()]));
    let log = host.log();
    assert!(log.contains("reload requested") && log.contains("peer.uid="), "{log}");

    let count = dataplane.snapshots().len();
    let again: Reloaded = host.client().post("/v1/reload", &()).await.unwrap();
    assert_eq!(
        (again.changed, again.generation, again.acknowledged),
        (false, reloaded.generation, reloaded.acknowledged)
    );
    assert_eq!(dataplane.snapshots().len(), count, "nothing changed, nothing sent");
}

#[tokio::test]
async fn a_restarted_dataplane_is_configured_within_a_second() {
    let host = Host::new("restart");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    let _daemon = host.start();
    host.agreement().await;

    drop(dataplane);
    let gone = host.status_where("disconnected", |status| status.dataplane.is_none()).await;
    assert!(gone.dataplane_problem.unwrap().contains("shunt-dataplane run"));
    assert_eq!(gone.acknowledged, None);
    // As long as it takes for the tries to be at their rarest.
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let restarted = Instant::now();
    let dataplane = host.dataplane(2);
    weight_becomes(&dataplane, 1).await;
    assert!(restarted.elapsed() < Duration::from_secs(1), "{:?}", restarted.elapsed());
    host.agreement().await;
    assert_eq!(dataplane.snapshots().len(), 1);
    assert_eq!(host.log().matches("is not running").count(), 1, "told once, not at every try");
}

#[tokio::test]
async fn a_dataplane_that_restarts_unnoticed_or_serves_something_else_is_configured_again() {
    let host = Host::new("instance");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    let _daemon = host.start();
    host.agreement().await;

    drop(dataplane);
    let dataplane = host.dataplane(2);
    weight_becomes(&dataplane, 1).await;
    host.agreement().await;

    dataplane.claim(40);
    wait_for("a generation above the foreign one", || dataplane.last().filter(|s| s.generation == 41)).await;
    let both = |status: &ControlStatus| status.acknowledged == Some(41);
    let problem = host.status_where("acknowledged again", both).await.dataplane_problem;
    assert!(problem.unwrap().contains("second shunt-controlplane"));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_shown_until_it_is_mended() {
    let host = Host::new("bad");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    let _daemon = host.start();
    host.agreement().await;

    host.configure(&config(1001));
    let refused = host.status_where("refused", |status| status.config_problem.is_some()).await;
    let problem = refused.config_problem.unwrap();
    assert_eq!((problem.line, problem.field.as_str()), (5, "pools.web.backends[0].weight"));
    assert_eq!((refused.generation, refused.acknowledged), (1, Some(1)));

    let answer = host.client().post::<Reloaded>("/v1/reload", &()).await.unwrap_err();
    let ClientError::Refused { status: 422, message } = answer else { panic!("{answer:?}") };
    assert_eq!(serde_json::from_str::<ConfigProblem>(&message).unwrap(), problem);
    assert_eq!(dataplane.snapshots().len(), 1);
    assert!(host.log().contains(&problem.to_string()), "{}", host.log());

    host.configure(&config(5));
    weight_becomes(&dataplane, 5).await;
    assert_eq!(host.agreement().await.config_problem, None);
}

#[tokio::test]
async fn starts_without_a_good_file_and_takes_it_once_it_is_there() {
    let host = Host::new("late");
    let dataplane = host.dataplane(1);
    dataplane.claim(7);
    let _daemon = host.start();
    let status = host.status_where("connected", |status| status.dataplane.is_some()).await;
    assert_eq!((status.generation, status.config_problem.unwrap().line), (0, 0));
    assert_eq!(dataplane.snapshots().len(), 0, "the dataplane keeps what it has");

    host.configure(&config(1));
    weight_becomes(&dataplane, 1).await;
    assert_eq!(host.agreement().await.generation, 8, "above what was served");
}

#[tokio::test]
async fn a_refused_snapshot_is_shown_and_the_next_is_taken() {
    let host = Host::new("refused");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    dataplane.refuse(Some("there is no NIC eth1"));
    let _daemon = host.start();
    let refused = |status: &ControlStatus| {
        status.dataplane_problem.as_ref().is_some_and(|problem| problem.contains("there is no NIC eth1"))
    };
    assert_eq!(host.status_where("refused", refused).await.acknowledged, None);
    let reloaded: Reloaded = host.client().post("/v1/reload", &()).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.acknowledged), (false, None));

    dataplane.refuse(None);
    host.configure(&config(2));
    assert_eq!(host.agreement().await.generation, 2);
}

#[tokio::test]
async fn stops_at_once_and_leaves_the_dataplane_alone() {
    let host = Host::new("stop");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = host.start();
        host.agreement().await;
        let count = dataplane.snapshots().len();
        let asked = Instant::now();
        daemon.signal(signal);
        assert!(daemon.exit().await.success());
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(!host.path("run/control.sock").exists());
        assert_eq!(dataplane.snapshots().len(), count);
    }
}

#[tokio::test]
async fn a_killed_one_is_replaced_and_a_living_one_is_not() {
    let host = Host::new("kill");
    host.configure(&config(1));
    let dataplane = host.dataplane(1);
    let mut daemon = host.start();
    let before = host.agreement().await.generation;
    let key = fs::read(host.path("state/fleet.key")).unwrap();

    let second = host.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another shunt-controlplane listens on"), "{said}");
    assert!(host.status().await.is_some(), "the first still answers");

    daemon.signal(Signal::KILL);
    daemon.exit().await;
    let _daemon = host.start();
    assert!(host.agreement().await.generation > before);
    let keys: Vec<_> = dataplane.snapshots().iter().map(|snapshot| snapshot.fleet_key).collect();
    assert_eq!(keys[0], keys[keys.len() - 1], "the key outlives the process");
    assert_eq!(fs::read(Path::new(&host.path("state/fleet.key"))).unwrap(), key);
}
