//! What is of the host as a whole: kernel parameters, CPUs and huge pages.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::files::{self, Root};
use crate::setting::{Item, Value};

/// How the host stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// What can be set and what it is.
    pub values: BTreeMap<Item, Value>,
    /// What else the kernel changes with a parameter, for each that was asked about.
    pub along: BTreeMap<Item, Vec<Item>>,
    /// What cannot.
    pub cpus: Cpus,
}

/// CPUs by what can be seen of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpus {
    /// At work.
    pub online: Vec<u32>,
    /// Left alone by the scheduler (`isolcpus=`).
    pub isolated: Vec<u32>,
    /// By memory node.
    pub nodes: BTreeMap<u32, Vec<u32>>,
}

/// Observes the host, and of the kernel parameters those that are named and those that change along with them.
pub fn observe(root: &Root, sysctls: &[String]) -> HostState {
    let (mut values, mut along) = (BTreeMap::new(), BTreeMap::new());
    for name in sysctls {
        let changed = changed_along(root, name);
        for name in std::iter::once(name).chain(&changed) {
            if let Some(value) = root.read(&sysctl_file(name)) {
                values.insert(Item::Sysctl(name.clone()), Value::Text(in_one_line(&value)));
            }
        }
        along.insert(Item::Sysctl(name.clone()), changed.into_iter().map(Item::Sysctl).collect());
    }
    let cpus = cpus(root);
    for &cpu in &cpus.online {
        if let Some(governor) = root.read(&governor_file(cpu)) {
            values.insert(Item::Governor(cpu), Value::Text(governor));
        }
    }
    for directory in root.names("/sys/kernel/mm/hugepages") {
        let size =
            directory.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB")?.parse().ok());
        let Some(size_kb) = size else { continue };
        if let Some(pages) = root.number(&huge_pages_file(size_kb)) {
            values.insert(Item::HugePages { size_kb }, Value::Number(pages));
        }
    }
    HostState { values, along, cpus }
}

/// Pairs of which the kernel empties one when the other is written (mm/page-writeback.c, mm/util.c).
const PAIRS: [(&str, &str); 3] = [
    ("vm.dirty_bytes", "vm.dirty_ratio"),
    ("vm.dirty_background_bytes", "vm.dirty_background_ratio"),
    ("vm.overcommit_kbytes", "vm.overcommit_ratio"),
];
const FORWARD_4: &str = "net.ipv4.ip_forward";
const FORWARDING_4: &str = "net.ipv4.conf.all.forwarding";

/// Other parameters that the kernel may change when this one is written. One of all interfaces, or of those
/// to come, goes to each interface (Documentation/networking/ip-sysctl.rst); which of them do so differs by
/// parameter and version, so all are taken to.
fn changed_along(root: &Root, name: &str) -> Vec<String> {
    let mut along: Vec<String> = Vec::new();
    if [FORWARD_4, FORWARDING_4].contains(&name) {
        along.extend([FORWARD_4, "net.ipv4.conf.all.accept_redirects"].map(str::to_owned));
    }
    let name = if name == FORWARD_4 { FORWARDING_4 } else { name };
    along.extend(of_each_interface(root, name).unwrap_or_default());
    along.extend(PAIRS.iter().filter(|pair| pair.0 == name).map(|pair| pair.1.to_owned()));
    along.extend(PAIRS.iter().filter(|pair| pair.1 == name).map(|pair| pair.0.to_owned()));
    along
}

/// A parameter of all interfaces, or of those to come, for each interface there is.
fn of_each_interface(root: &Root, name: &str) -> Option<Vec<String>> {
    let (family, rest) = name.split_once(".conf.")?;
    let key = rest.strip_prefix("all.").or_else(|| rest.strip_prefix("default."))?;
    let interfaces = root.names(&format!("{}/conf", sysctl_file(family)));
    let named = |interface: String| format!("{family}.conf.{}.{key}", interface.replace('.', "/"));
    Some(interfaces.into_iter().map(named).collect())
}

/// Writing this parameter may switch LRO off for good: a merged packet cannot be forwarded
/// (`dev_disable_lro`).
pub fn ends_lro(sysctl: &str) -> bool {
    sysctl == FORWARD_4 || sysctl.ends_with(".forwarding")
}

fn cpus(root: &Root) -> Cpus {
    let list = |path: &str| root.read(path).map(|list| files::cpus(&list)).unwrap_or_default();
    let nodes = root.names("/sys/devices/system/node").into_iter().filter_map(|name| {
        let node = name.strip_prefix("node")?.parse().ok()?;
        Some((node, list(&format!("/sys/devices/system/node/{name}/cpulist"))))
    });
    Cpus {
        online: list("/sys/devices/system/cpu/online"),
        isolated: list("/sys/devices/system/cpu/isolated"),
        nodes: nodes.collect(),
    }
}

/// Where a kernel parameter is: dots part its name, and a slash stands for a dot in a part, as in sysctl(8).
pub fn sysctl_file(name: &str) -> String {
    let swapped: String = name.chars().map(swap_dot_and_slash).collect();
    format!("/proc/sys/{swapped}")
}

fn swap_dot_and_slash(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        c => c,
    }
}

/// Where a CPU's governor is.
pub fn governor_file(cpu: u32) -> String {
    format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
}

/// Where the number of huge pages is.
pub fn huge_pages_file(size_kb: u32) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{size_kb}kB/nr_hugepages")
}

/// The kernel parts the numbers of a parameter by tabs and takes them parted by spaces.
pub fn in_one_line(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_parameters_name_is_a_dot() {
        assert_eq!(sysctl_file("net.core.somaxconn"), "/proc/sys/net/core/somaxconn");
        assert_eq!(sysctl_file("net.ipv4.conf.eth1/5.rp_filter"), "/proc/sys/net/ipv4/conf/eth1.5/rp_filter");
    }

    #[test]
    fn this_host_has_cpus_and_the_parameters_it_is_asked_for() {
        let asked = ["kernel.ostype".to_owned(), "net.none".to_owned()];
        let host = observe(&Root::at("/".as_ref()), &asked);
        assert!(host.cpus.online.contains(&0));
        assert_eq!(host.values.get(&Item::Sysctl(asked[0].clone())), Some(&Value::Text("Linux".to_owned())));
        assert_eq!(host.values.get(&Item::Sysctl(asked[1].clone())), None);
    }

    #[test]
    fn a_parameter_of_all_interfaces_is_that_of_each() {
        let root = std::env::temp_dir().join(format!("nic-config-host-{}", std::process::id()));
        for interface in ["all", "default", "eth1.5"] {
            std::fs::create_dir_all(root.join("proc/sys/net/ipv4/conf").join(interface)).unwrap();
        }
        let check = |name: &str, expected: &[&str]| {
            assert_eq!(changed_along(&Root::at(&root), name), expected, "{name}");
        };
        let of_each = ["all", "default", "eth1/5"].map(|of| format!("net.ipv4.conf.{of}.rp_filter"));
        check("net.ipv4.conf.default.rp_filter", &of_each.each_ref().map(String::as_str));
        let forwarding = ["all", "default", "eth1/5"].map(|of| format!("net.ipv4.conf.{of}.forwarding"));
        let [all, default, one] = forwarding.each_ref().map(String::as_str);
        check(FORWARD_4, &[FORWARD_4, "net.ipv4.conf.all.accept_redirects", all, default, one]);
        check("net.ipv4.conf.eth1/5.forwarding", &[]);
        check("vm.dirty_ratio", &["vm.dirty_bytes"]);
        check("net.core.somaxconn", &[]);
        assert!(ends_lro("net.ipv6.conf.all.forwarding") && !ends_lro("net.ipv4.conf.all.mc_forwarding"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
