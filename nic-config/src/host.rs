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

/// Observes the host, and of the kernel parameters those that are named.
pub fn observe(root: &Root, sysctls: &[String]) -> HostState {
    let mut values = BTreeMap::new();
    for name in sysctls {
        if let Some(value) = root.read(&sysctl_file(name)) {
            values.insert(Item::Sysctl(name.clone()), Value::Text(in_one_line(&value)));
        }
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
    HostState { values, cpus }
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
}
