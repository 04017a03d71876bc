//! Delivery of health checks: packets of the box itself that carry the mark of a probe
//! ([`shunt_api::snapshot::PROBE_MARK`]) go to the backend that the mark names, as the workers send its traffic.
//!
//! ```text
//!  socket with SO_MARK ──▶ ip rule fwmark ──▶ table 21320: default dev shunt-probe
//!                                                           │ tc egress: bpf/probe.bpf.c
//!                          NIC ◀── redirected with the headers of the way that the mark names
//! ```
//! The answers come to the box's own address, which the steering program leaves to the kernel.
//!
//! Nothing of it is made before a snapshot has probes; it is kept from then on, looked after, and removed when the
//! dataplane stops. What fails is a problem of health checks alone and is tried again. The control thread calls it;
//! `way` and `message` are pure, `device` asks the kernel.

mod device;
mod message;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use shunt_api::snapshot::{ProbeWay, Tunnel};
use shunt_api::status::ProbeCounters;

use crate::program::{Deliverer, ProgramError};
use crate::table::Hop;
use device::DeviceError;
use way::Content;

/// Between two looks at whether all of it is there (systemd-networkd removes rules and routes of others when it starts).
/// Checks fail meanwhile, and those of a few seconds take all backends down; a look is a few netlink requests.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two tries to make what could not be made twice.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// The probes of the snapshot in force, and what delivers them.
#[derive(Debug, Default)]
pub struct Probes {
    wanted: Vec<ProbeWay>,
    hops: BTreeMap<IpAddr, Hop>,
    content: Content,
    mtu: u32,
    delivery: Option<Delivery>,
    problem: Option<String>,
    look_at: Option<Instant>,
}

/// Device and program.
#[derive(Debug)]
struct Delivery {
    ifindex: u32,
    mtu: u32,
    program: Deliverer,
}

/// Why probes are not delivered.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// What is known of the network, as for backends.
pub struct Network<'a> {
    /// The way to the address of each probe.
    pub hops: BTreeMap<IpAddr, Hop>,
    /// How tunnels are made.
    pub tunnel: &'a Tunnel,
    /// Of the NICs, in their order.
    pub ifindexes: &'a [u32],
    /// The least of the NICs: no packet of a client is larger on all of them.
    pub mtu: u32,
}

impl Probes {
    /// These probes are to be delivered from now on; [`Self::renew`] does it.
    pub fn want(&mut self, probes: &[ProbeWay]) {
        self.wanted = probes.to_vec();
    }

    /// Where probes go.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.wanted.iter().map(|probe| probe.address).collect()
    }

    /// The way to each of them.
    pub fn hops(&self) -> &BTreeMap<IpAddr, Hop> {
        &self.hops
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Delivers by what is known now.
    pub fn renew(&mut self, network: Network<'_>, now: Instant) {
        self.content = way::content(&self.wanted, &network.hops, network.tunnel, network.ifindexes);
        self.hops = network.hops;
        self.mtu = network.mtu.max(message::MTU_MIN);
        // A device that somebody has just removed is made anew at once; one that cannot be made is not tried for often.
        let failed_lately = self.problem.is_some() && self.look_at.is_some_and(|at| now < at);
        if !failed_lately {
            self.settle(now);
        }
    }

    /// Looks after rules and routes now and then.
    pub fn tick(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| now >= at) {
            self.settle(now);
        }
    }

    /// What is wrong, in words with a remedy.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// How the packets fare; `None` while nothing delivers them.
    pub fn counters(&self) -> Option<ProbeCounters> {
        self.delivery.as_ref()?.program.counters().ok()
    }

    /// Ends the delivery, and leaves nothing behind.
    pub fn stop(self) {
        if self.delivery.is_none() && self.problem.is_none() {
            return;
        }
        if let Err(error) = remove_leftovers() {
            tracing::error!("{error}; `shunt-dataplane detach` tries again");
        }
    }

    fn settle(&mut self, now: Instant) {
        if self.wanted.is_empty() && self.delivery.is_none() {
            (self.problem, self.look_at) = (None, None);
            return;
        }
        let Err(error) = self.deliver() else {
            (self.problem, self.look_at) = (None, Some(now + LOOK_EVERY));
            return;
        };
        self.delivery = None;
        self.look_at = Some(now + if self.problem.is_none() { LOOK_EVERY } else { RETRY_EVERY });
        let problem =
            format!("health checks with via = \"service\" are not delivered, so they fail: {error}");
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
        }
        self.problem = Some(problem);
    }

    fn deliver(&mut self) -> Result<(), ProbeError> {
        let mtu = self.mtu;
        let stands = |delivery: &Delivery| delivery.mtu == mtu && device::index() == Some(delivery.ifindex);
        if let Some(delivery) = self.delivery.as_mut().filter(|delivery| stands(delivery))
            && delivery.stay().and_then(|()| delivery.serve(&self.content)).is_ok()
        {
            return Ok(());
        }
        // The device is missing, out of service, or vanished during the look.
        let delivery = self.delivery.insert(Delivery::make(mtu)?);
        delivery.serve(&self.content)?;
        tracing::info!(device = message::DEVICE, mtu, "health checks are delivered as traffic is");
        Ok(())
    }
}

impl Delivery {
    fn make(mtu: u32) -> Result<Self, ProbeError> {
        let ifindex = device::make(mtu)?;
        Ok(Self { ifindex, mtu, program: Deliverer::attach(ifindex)? })
    }

    /// Puts back the program that somebody removed from the device.
    fn stay(&mut self) -> Result<(), ProbeError> {
        if self.program.stay()? {
            tracing::warn!(
                "the program that delivers health checks was not on {} any more; it is back (see what removes qdiscs \
                 or filters: `tc monitor`)",
                message::DEVICE
            );
        }
        Ok(())
    }

    /// Has probes delivered by these ways.
    fn serve(&mut self, content: &Content) -> Result<(), ProbeError> {
        self.program.fill(content)?;
        // Last, so that no packet comes to the device before it is known where it goes.
        Ok(device::lead(self.ifindex)?)
    }
}

/// Removes what a dataplane made for probes. Returns it in words; nothing when there is nothing.
///
/// # Errors
/// The kernel refuses.
pub fn remove_leftovers() -> Result<Option<String>, DeviceError> {
    Ok(device::remove()?.then(|| format!("device {} with its rules and routes", message::DEVICE)))
}

/// Of these devices, those whose reverse-path filter is strict: it drops answers that come from a VIP, which no route
/// leads to by the device that they come in by (`Documentation/networking/ip-sysctl.rst`).
pub fn strict_filters<'a>(devices: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let setting = |of: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/rp_filter"));
        text.ok().and_then(|text| text.trim().parse::<u8>().ok()).unwrap_or(0)
    };
    let all = setting("all");
    devices.filter(|device| all.max(setting(device)) == 1).collect()
}
