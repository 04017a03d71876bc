//! Interrupts of a NIC's queues: which there are, by what the driver calls them, and which CPUs serve them.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::files::{self, Root};

/// What drivers write before the number of a queue: Intel's, Amazon's, those with interrupts of their own for
/// each direction, virtio's, Mellanox's. Other interrupts of a NIC, such as for its link, have none of these.
const MARKERS: [&str; 7] = ["-TxRx-", "-Tx-Rx-", "-rx-", "-tx-", "-input.", "-output.", "mlx5_comp"];

/// An interrupt of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Irq {
    /// The kernel's number, which changes with the queues.
    pub number: u32,
    /// The driver's name for it, which stays.
    pub name: String,
    /// The queue it is for.
    pub queue: u32,
    /// CPUs that may serve it, as the kernel lists them.
    pub cpus: String,
}

/// Interrupts of an interface's queues: those of its device on the bus, or those that are called after it.
pub fn of(root: &Root, nic: &str, bus_device: Option<&Path>) -> Vec<Irq> {
    let device = bus_device.map(numbers).unwrap_or_default();
    let Some(table) = root.read("/proc/interrupts") else { return Vec::new() };
    let ours = |(number, name): &(u32, String)| {
        if device.is_empty() { is_called_after(name, nic) } else { device.contains(number) }
    };
    let irq = |(number, name): (u32, String)| {
        let cpus = root.read(&affinity_file(number))?;
        Some(Irq { number, queue: queue(&name)?, name, cpus })
    };
    let mut irqs: Vec<Irq> = named(&table).into_iter().filter(ours).filter_map(irq).collect();
    irqs.sort_by(|a, b| (a.queue, &a.name).cmp(&(b.queue, &b.name)));
    irqs
}

/// Where the CPUs of an interrupt are written.
pub fn affinity_file(number: u32) -> String {
    format!("/proc/irq/{number}/smp_affinity_list")
}

/// Numbers of the device's interrupts, or of the nearest device above it that has any: a virtio device has
/// none itself, but sits on a PCI device that has.
fn numbers(bus_device: &Path) -> Vec<u32> {
    let Ok(device) = fs::canonicalize(bus_device) else { return Vec::new() };
    let listed = device.ancestors().map(|above| files::names(&above.join("msi_irqs")));
    let first = listed.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
    first.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Numbers and names of `/proc/interrupts`; the name is the last word.
fn named(table: &str) -> Vec<(u32, String)> {
    let pair = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        Some((number.trim().parse().ok()?, rest.split_whitespace().last()?.to_owned()))
    };
    table.lines().filter_map(pair).collect()
}

/// `eth1-TxRx-0` and `ice-eth1-TxRx-0` are called after `eth1`, `eth11-TxRx-0` is not.
fn is_called_after(name: &str, nic: &str) -> bool {
    let part_of_name = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.match_indices(nic).any(|(at, _)| {
        !part_of_name(name[..at].chars().next_back()) && !part_of_name(name[at + nic.len()..].chars().next())
    })
}

fn queue(name: &str) -> Option<u32> {
    let after = MARKERS.iter().find_map(|marker| Some(name.split_once(marker)?.1))?;
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_the_number_behind_the_drivers_marker() {
        for (name, expected) in [
            ("eth1-TxRx-3", Some(3)),
            ("i40e-eth1-TxRx-12", Some(12)),
            ("eth1-Tx-Rx-0", Some(0)),
            ("virtio2-input.1", Some(1)),
            ("mlx5_comp7@pci:0000:01:00.0", Some(7)),
            ("eth1", None),
            ("mlx5_async0@pci:0000:01:00.0", None),
            ("virtio2-config", None),
        ] {
            assert_eq!(queue(name), expected, "{name}");
        }
    }

    #[test]
    fn an_interrupt_is_called_after_one_interface() {
        assert!(is_called_after("eth1-TxRx-0", "eth1") && is_called_after("ice-eth1-TxRx-0", "eth1"));
        assert!(!is_called_after("eth11-TxRx-0", "eth1") && !is_called_after("meth1-TxRx-0", "eth1"));
    }

    #[test]
    fn the_table_is_read_by_number_and_last_word() {
        let table =
            "           CPU0  CPU1\n 38:  0  4 PCI-MSIX-0000:00:03.0 1-edge virtio2-input.0\nNMI: 0 0 x\n";
        assert_eq!(named(table), [(38, "virtio2-input.0".to_owned())]);
    }
}
