//! A place for a test to attach programs: a process of its own, with its own network namespace and BPF file
//! system. All of it ends with the process, however that ends.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shunt_api::snapshot::XdpMode;
use shunt_dataplane::program::Steering;

use super::root;

/// Set in the process that is in the namespaces.
const INSIDE: &str = "SHUNT_TEST_INSIDE";
/// Set in the process that is to die: a directory for pins, a NIC and a mode.
const VICTIM: &str = "SHUNT_TEST_VICTIM";

/// Reached by way of the NIC `v1`, so that packets to it come in by `v0`.
pub const OWNED: &str = "192.0.2.10";
/// Likewise.
pub const NOT_OWNED: &str = "192.0.2.11";

/// Runs `body` in a sandbox, with a directory on the BPF file system that is not there yet. `test` is the path
/// of the calling test.
pub fn sandboxed(test: &str, body: impl FnOnce(&Path)) {
    if !root(test) {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return run_inside(test);
    }
    let mount = env!("CARGO_TARGET_TMPDIR");
    run(&format!("mount -t bpf bpf {mount}"));
    body(&Path::new(mount).join("shunt"));
}

fn run_inside(test: &str) {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "in the sandbox:\n{said}");
}

/// A shell command that must succeed. Returns what it says.
pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A NIC `v0`. Packets to [`OWNED`] and [`NOT_OWNED`] leave by its peer `v1` and come in by it.
pub fn add_veth() {
    run(
        "ip link add v0 address 02:00:00:00:00:02 type veth peer name v1 && ip link set v0 up && ip link set v1 up",
    );
    run("ip addr add 192.0.2.1/24 dev v1");
    for address in [OWNED, NOT_OWNED] {
        run(&format!("ip neigh add {address} lladdr 02:00:00:00:00:02 dev v1"));
    }
}

/// Kernel id of the XDP program on a NIC.
pub fn program_on(nic: &str) -> Option<u64> {
    let links: serde_json::Value = serde_json::from_str(&run(&format!("ip -j link show dev {nic}"))).unwrap();
    links[0]["xdp"]["prog"]["id"].as_u64()
}

/// Sends an IPv4 packet by `v1`. Returns its bytes.
pub fn send(destination: &str, payload: &[u8]) -> u64 {
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(payload, (destination, 9)).unwrap();
    20 + 8 + payload.len() as u64
}

/// Whether a packet to [`OWNED`] is kept from the host's IP stack.
pub fn owned_is_kept_from_the_host() -> bool {
    let before = bytes_received_by_host();
    let owned = send(OWNED, &[0; 1000]);
    // Comes in behind the other.
    let not_owned = send(NOT_OWNED, &[0]);
    let mut received = 0;
    wait_until("the packet to an address not owned arrives", || {
        received = bytes_received_by_host() - before;
        [not_owned, owned + not_owned].contains(&received)
    });
    received == not_owned
}

/// IPv4, in this network namespace.
fn bytes_received_by_host() -> u64 {
    let statistics = std::fs::read_to_string("/proc/self/net/netstat").unwrap();
    let mut lines = statistics.lines().filter(|line| line.starts_with("IpExt: ")).map(|line| line.split(' '));
    let column = lines.next().unwrap().position(|name| name == "InOctets").unwrap();
    lines.next().unwrap().nth(column).unwrap().parse().unwrap()
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 5 s until {what}");
        std::thread::yield_now();
    }
}

/// Another process attaches the program to `nic`, owns [`OWNED`], and is killed.
pub fn attach_and_crash(directory: &Path, nic: &str, mode: &str) {
    let mut victim = spawn_victim(directory, nic, mode);
    victim.kill().unwrap();
    victim.wait().unwrap();
}

fn spawn_victim(directory: &Path, nic: &str, mode: &str) -> Child {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["sandbox::victim", "--exact", "--ignored", "--nocapture"])
        .env(VICTIM, format!("{} {nic} {mode}", directory.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().ends_with("ready")),
        "the other process did not attach the program"
    );
    victim
}

#[test]
#[ignore = "other tests start this as a process and kill it"]
fn victim() {
    let Ok(task) = std::env::var(VICTIM) else { return };
    let [directory, nic, mode] = task.split(' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
    let mode = if mode == "generic" { XdpMode::Generic } else { XdpMode::Native };
    let mut steering = Steering::open(&PathBuf::from(directory)).unwrap();
    steering.own(&[(OWNED.parse().unwrap(), 0)].into()).unwrap();
    steering.load(nic).unwrap();
    steering.attach(nic, mode).unwrap();
    println!("ready");
    // Ends when the other process does, if not before.
    let _ = std::io::stdin().read_line(&mut String::new());
}
