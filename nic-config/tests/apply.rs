//! `apply` and `revert` by the real binary in a network namespace of its own: the state before is the state
//! after, also when the process is killed at any step. What this machine has not (interrupts of queues, CPU
//! frequencies, memory for huge pages) is files under a root of the test's own, and such tests say so.

#[path = "support/namespace.rs"]
mod namespace;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use self::namespace::{Namespace, json_of};

/// Queues, offloads, MTU, flags, NAPI of a device and of each polling context, kernel parameters.
const FILE: &str = r#"
[[nic]]
name = "one"
queues = 2
mtu = 1350
gro = true
promiscuous = true
napi_defer_hard_irqs = 2
gro_flush_timeout_ns = 200000
features = { tx-tcp-segmentation = false }

[[nic]]
name = "two"
gro = true
all_multicast = true
napi_each = true
napi_defer_hard_irqs = 3
# Polling contexts are there once GRO is on.
optional = ["napi_defer_hard_irqs"]

[host.sysctl]
"net.ipv4.ip_forward" = 1
"net.ipv4.tcp_rmem" = "4096 131072 4194304"
"#;

/// Kernel parameters of that file, and those that the kernel changes with them.
const SYSCTLS: &str = "forward|accept_redirects|tcp_rmem";

/// A namespace, a file of wishes and a place for the journal.
struct Case {
    namespace: Namespace,
    root: PathBuf,
}

impl Case {
    fn new(name: &str, text: &str) -> Option<Self> {
        let namespace = Namespace::new(name)?;
        fs::write(namespace.directory.join("nic.toml"), text).unwrap();
        // The kernel sets these with forwarding of all, and not back to what they were.
        for parameter in ["conf.one.forwarding=1", "conf.all.accept_redirects=0"] {
            namespace.run("sysctl", &["-w", &format!("net.ipv4.{parameter}")]);
        }
        Some(Self { namespace, root: PathBuf::from("/") })
    }

    fn write(&self, text: &str) {
        fs::write(self.namespace.directory.join("nic.toml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let state = self.namespace.directory.join("state");
        let all = ["--state", state.to_str().unwrap(), "--root", self.root.to_str().unwrap()];
        self.namespace.nic_config(&[&all, arguments].concat())
    }

    fn with_file(&self, command: &str, rest: &[&str]) -> Output {
        let file = self.namespace.directory.join("nic.toml");
        self.run(&[&[command, file.to_str().unwrap()], rest].concat())
    }

    fn apply(&self) -> Value {
        json_of(&self.with_file("apply", &["-o", "json"]))
    }

    fn revert(&self) -> Value {
        json_of(&self.run(&["revert", "-o", "json"]))
    }

    /// Everything that can be seen: what we show, the kernel's parameters, and ethtool's own words.
    fn state(&self) -> String {
        let show = self.run(&["show", "-o", "json"]);
        let mut text = String::from_utf8(show.stdout).unwrap();
        text += &String::from_utf8(self.namespace.run("sysctl", &["-a", "-r", SYSCTLS]).stdout).unwrap();
        for (nic, what) in
            ["one", "two"].iter().flat_map(|nic| ["-k", "-l", "-c", "-g"].map(|what| (nic, what)))
        {
            text += &String::from_utf8(self.namespace.run("ethtool", &[what, nic]).stdout).unwrap();
        }
        let flags = self.namespace.run("ip", &["-details", "link"]);
        text + &String::from_utf8(flags.stdout).unwrap()
    }

    /// Ends `command` at each step in turn, both before and after it is done, and checks what is left.
    fn kill_everywhere(&self, command: impl Fn(&str) -> Output, check: impl Fn(&str)) {
        let mut killed = 0;
        for step in 1.. {
            let survived = ["before", "after"].into_iter().filter(|moment| {
                let place = format!("{step}:{moment}");
                let output = command(&place);
                let was_killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
                assert!(was_killed || output.status.success(), "{place}: {output:?}");
                killed += usize::from(was_killed);
                check(&place);
                !was_killed
            });
            if survived.count() == 2 {
                break;
            }
        }
        assert!(killed >= 12, "{killed} places only");
    }
}

fn lengths(value: &Value) -> Vec<usize> {
    ["done", "gone", "failed"].map(|key| value[key].as_array().unwrap().len()).to_vec()
}

#[test]
fn the_state_after_revert_is_the_state_before_apply() {
    let Some(case) = Case::new("revert", FILE) else { return };
    let before = case.state();
    let planned = json_of(&case.with_file("plan", &["-o", "json"]));
    assert_eq!(planned["steps"].as_array().unwrap().len(), 14, "{planned:#}");
    let dry = case.with_file("apply", &["--dry-run", "-o", "json"]);
    assert_eq!((json_of(&dry), case.state()), (planned, before.clone()));

    let applied = case.apply();
    assert!(applied["done"].as_array().unwrap().len() > 14, "each polling context, too: {applied:#}");
    assert_eq!(applied["notes"], json!([]));
    let after = json_of(&case.run(&["show", "one", "-o", "json"]));
    let settings = &after[0]["settings"];
    let set = ["queues.rx", "mtu", "feature.rx-gro", "promiscuous", "napi.defer-hard-irqs"];
    assert_eq!(
        set.map(|name| &settings[name]),
        [&json!(2), &json!(1350), &json!(true), &json!(true), &json!(2)]
    );
    assert_ne!(case.state(), before);

    let restored = case.revert();
    assert_eq!(lengths(&restored)[1..], [0, 0], "{restored:#}");
    assert_eq!(case.state(), before);
    assert_eq!(lengths(&case.revert()), [0, 0, 0]);
}

#[test]
fn a_second_time_nothing_is_done() {
    let Some(case) = Case::new("twice", FILE) else { return };
    case.apply();
    let state = case.state();
    assert_eq!(case.apply()["done"], json!([]));
    assert_eq!(case.state(), state);
}

#[test]
fn another_file_leaves_the_first_inverse() {
    let Some(case) = Case::new("other", FILE) else { return };
    let before = case.state();
    case.apply();
    case.write("[[nic]]\nname = \"one\"\nqueues = 3\nmtu = 1300\ntx_vlan = false\n");
    case.apply();
    case.revert();
    assert_eq!(case.state(), before);
}

#[test]
fn killed_at_any_step_revert_brings_the_state_before() {
    let Some(case) = Case::new("kill", FILE) else { return };
    let before = case.state();
    let apply = |place: &str| case.with_file("apply", &["--halt", place]);
    case.kill_everywhere(apply, |place| {
        case.revert();
        assert_eq!(case.state(), before, "{place}");
    });
}

#[test]
fn killed_at_any_step_apply_goes_on_and_revert_brings_the_state_before() {
    let Some(case) = Case::new("again", FILE) else { return };
    let before = case.state();
    let apply = |place: &str| case.with_file("apply", &["--halt", place]);
    case.kill_everywhere(apply, |place| {
        case.apply();
        assert_eq!(case.apply()["done"], json!([]), "{place}");
        case.revert();
        assert_eq!(case.state(), before, "{place}");
    });
}

#[test]
fn revert_killed_at_any_step_goes_on() {
    let Some(case) = Case::new("unkill", FILE) else { return };
    let before = case.state();
    let revert = |place: &str| {
        case.apply();
        case.run(&["revert", "--halt", place])
    };
    case.kill_everywhere(revert, |place| {
        case.revert();
        assert_eq!(case.state(), before, "{place}");
    });
}

#[test]
fn coalescing_of_a_tap_comes_back() {
    let Some(case) = Case::new("tap", "[[nic]]\nname = \"tap\"\nrx_frames = 16\n") else { return };
    case.namespace.ip("tuntap add tap mode tap");
    let coalescing = || String::from_utf8(case.namespace.run("ethtool", &["-c", "tap"]).stdout).unwrap();
    let before = coalescing();
    assert_eq!(case.apply()["done"].as_array().unwrap().len(), 1);
    let after = coalescing();
    assert!(after.lines().any(|line| line.split_whitespace().eq(["rx-frames:", "16"])), "{after}");
    case.revert();
    assert_eq!(coalescing(), before);
}

#[test]
fn a_refused_setting_leaves_what_was_before() {
    let text = format!("{FILE}[[nic]]\nname = \"mac\"\nmtu = 9000\n");
    let Some(case) = Case::new("refused", &text) else { return };
    // A macvlan takes no larger MTU than the device it stands on.
    case.namespace.ip("link add link two name mac type macvlan");
    let before = case.state();
    let refused = case.with_file("apply", &[]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.starts_with("nic-config: mac: mtu cannot be 9000 (line 26, nic[2].mtu): "), "{told}");
    assert_eq!(case.state(), before);
    assert_eq!(lengths(&case.revert()), [0, 0, 0]);

    case.write(&format!("{text}optional = [\"mtu\"]\n"));
    let applied = case.apply();
    assert!(applied["notes"][0].as_str().unwrap().contains("mac: mtu cannot be 9000"), "{applied:#}");
    case.revert();
    assert_eq!(case.state(), before);
}

#[test]
fn what_is_not_there_or_not_known_is_told_before_anything_is_done() {
    let Some(case) = Case::new("absent", "") else { return };
    let before = case.state();
    for (text, told) in [
        (
            "[[nic]]\nname = \"one\"\nmtu = 1300\nring_rx = 512\n",
            "line 4, nic[0].ring_rx: one has no setting ring.rx; take the key out, or add optional = [\"ring_rx\"] to go without",
        ),
        (
            "[[nic]]\nname = \"one\"\nqueues = 5\n",
            "line 3, nic[0].queues: one: queues.rx can be 4 at most, not 5; ",
        ),
        (
            "[[nic]]\nname = \"one\"\nquees = 2\n",
            "nic.toml:3:1: nic[0].quees: unknown key `quees`; did you mean `queues`?",
        ),
        ("[[nic]]\nname = \"three\"\n", "line 2: there is no interface `three` in this network namespace"),
    ] {
        case.write(text);
        for command in ["plan", "apply"] {
            let output = case.with_file(command, &[]);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{error}");
            assert!(error.contains(told), "{error}");
        }
    }
    assert_eq!(case.state(), before);
    case.write("[[nic]]\nname = \"one\"\nring_rx = 512\noptional = [\"ring_rx\"]\n");
    let notes = &case.apply()["notes"];
    assert!(notes[0].as_str().unwrap().ends_with("skipped, as it is optional"), "{notes:#}");
}

#[test]
fn one_at_a_time() {
    let Some(case) = Case::new("lock", FILE) else { return };
    case.revert();
    let lock = fs::File::open(case.namespace.directory.join("state/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let before = case.state();
    for output in [case.with_file("apply", &[]), case.run(&["revert"])] {
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.starts_with("nic-config: another nic-config is at work (it holds "), "{told}");
    }
    assert_eq!(case.state(), before);
}

#[test]
fn a_journal_of_an_earlier_start_or_another_namespace_is_not_used() {
    let Some(case) = Case::new("boot", "[[nic]]\nname = \"one\"\nmtu = 1300\n") else { return };
    case.apply();
    let path = case.namespace.directory.join("state/before.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut journal: Value = serde_json::from_str(&text).unwrap();
    journal["namespace"] = json!(1);
    fs::write(&path, journal.to_string()).unwrap();
    let other = case.run(&["revert"]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    journal["boot_id"] = json!("earlier");
    fs::write(&path, journal.to_string()).unwrap();
    let told = String::from_utf8(case.run(&["revert"]).stdout).unwrap();
    assert_eq!(told, "nothing to put back: the machine was started anew since\n");
    assert_eq!(json_of(&case.run(&["show", "one", "-o", "json"]))[0]["mtu"], 1300);
}

#[test]
fn a_removed_interface_is_told_and_forgotten() {
    let Some(case) = Case::new("removed", FILE) else { return };
    case.apply();
    case.namespace.ip("link delete one");
    let restored = case.revert();
    let gone = restored["gone"].as_array().unwrap();
    assert!(gone.contains(&json!("one: mtu")) && gone.contains(&json!("two: all-multicast")), "{restored:#}");
    let forward = case.namespace.run("sysctl", &["-n", "net.ipv4.ip_forward"]);
    assert_eq!(forward.stdout, b"0\n");
    assert_eq!(lengths(&case.revert()), [0, 0, 0]);
}

#[test]
fn a_renamed_interface_comes_back_under_its_new_name() {
    let Some(case) = Case::new("renamed", FILE) else { return };
    let settings = || {
        let shown = json_of(&case.run(&["show", "-o", "json"]));
        let nics =
            shown.as_array().unwrap().iter().map(|nic| (nic["ifindex"].to_string(), nic["settings"].clone()));
        nics.collect::<BTreeMap<_, _>>()
    };
    let before = settings();
    case.apply();
    case.namespace.ip("link set one name other");
    // Whoever has the old name now is not the one that was changed.
    case.namespace.ip("link set two name one");
    case.write("[[nic]]\nname = \"other\"\nmtu = 1300\n");
    case.apply();
    let restored = case.revert();
    assert_eq!(lengths(&restored)[2], 0, "{restored:#}");
    assert_eq!(settings(), before);
    assert_eq!(lengths(&case.revert()), [0, 0, 0]);
}

#[test]
fn the_doctor_says_what_a_veth_will_do() {
    let Some(case) = Case::new("doctor", "") else { return };
    let output = case.run(&["doctor", "one", "-o", "json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let diagnoses: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mode =
        diagnoses[0]["findings"].as_array().unwrap().iter().find(|finding| finding["subject"] == "mode");
    assert!(mode.unwrap()["what"].as_str().unwrap().starts_with("native with copying"), "{diagnoses:#}");
    let text = String::from_utf8(case.run(&["doctor", "one"]).stdout).unwrap();
    assert!(
        text.starts_with("one\n  ok       link        is up\n") && text.contains("lbctl get nics"),
        "{text}"
    );
}

/// What this machine has not: a veth with interrupts, CPUs with frequencies, huge pages.
const FAKE_FILE: &str = r#"
[[nic]]
name = "one"
irq_cpus = [2, 3]
napi_defer_hard_irqs = 2
gro_flush_timeout_ns = 200000
mtu = 1350

[host]
governor = "performance"
huge_pages = 64
isolated_cores = [2, 3]
sysctl = { "kernel.numa_balancing" = 0 }
"#;

/// The files of a machine with four CPUs, two interrupts of `one` and one of another.
fn fake_machine(root: &Path, ifindex: &str, boot_id: &str) {
    let interrupts = " 40:  1 2 3 4 PCI-MSIX 0-edge one-TxRx-0\n 41:  1 2 3 4 PCI-MSIX 1-edge one-TxRx-1\n 42: 1 2 3 4 PCI-MSIX 2-edge one\n";
    let mut files = BTreeMap::from([
        ("proc/interrupts".to_owned(), interrupts),
        ("proc/sys/kernel/random/boot_id".to_owned(), boot_id),
        ("proc/sys/kernel/numa_balancing".to_owned(), "1\n"),
        ("sys/devices/system/cpu/online".to_owned(), "0-3\n"),
        ("sys/devices/system/cpu/isolated".to_owned(), "\n"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages".to_owned(), "0\n"),
        ("sys/class/net/one/ifindex".to_owned(), ifindex),
        ("sys/class/net/one/napi_defer_hard_irqs".to_owned(), "0\n"),
        ("sys/class/net/one/gro_flush_timeout".to_owned(), "0\n"),
    ]);
    for cpu in 0..4 {
        files.insert(format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "powersave\n");
    }
    for irq in 40..43 {
        files.insert(format!("proc/irq/{irq}/smp_affinity_list"), "0-3\n");
    }
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// All files below a directory, without final newlines, which the kernel adds by itself.
fn tree(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.insert(path.clone(), fs::read_to_string(&path).unwrap().trim_end().to_owned());
        }
    }
    files
}

fn fake(name: &str) -> Option<Case> {
    let mut case = Case::new(name, FAKE_FILE)?;
    let ifindex = json_of(&case.run(&["show", "one", "-o", "json"]))[0]["ifindex"].to_string();
    case.root = case.namespace.directory.join("root");
    fake_machine(&case.root, &ifindex, "fake");
    Some(case)
}

#[test]
fn interrupts_governors_and_huge_pages_of_a_fake_machine_come_back() {
    let Some(case) = fake("fake") else { return };
    let (before, state) = (tree(&case.root), case.state());
    let applied = case.apply();
    let told = applied["notes"][0].as_str().unwrap();
    assert!(told.contains("CPU 2-3 is not isolated; put isolcpus=2-3 "), "{told}");
    let after = tree(&case.root);
    for (path, expected) in [
        ("proc/irq/40/smp_affinity_list", "2"),
        ("proc/irq/41/smp_affinity_list", "3"),
        ("proc/irq/42/smp_affinity_list", "0-3"),
        ("proc/sys/kernel/numa_balancing", "0"),
        ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64"),
        ("sys/class/net/one/gro_flush_timeout", "200000"),
    ] {
        assert_eq!(after[&case.root.join(path)], expected, "{path}");
    }
    assert_eq!(case.apply()["done"], json!([]));
    case.revert();
    assert_eq!((tree(&case.root), case.state()), (before, state));
}

#[test]
fn killed_at_any_step_a_fake_machine_comes_back() {
    let Some(case) = fake("fakekill") else { return };
    let (before, state) = (tree(&case.root), case.state());
    let apply = |place: &str| case.with_file("apply", &["--halt", place]);
    case.kill_everywhere(apply, |place| {
        case.revert();
        assert_eq!((tree(&case.root), case.state()), (before.clone(), state.clone()), "{place}");
    });
}
