//! Loads the steering program (`bpf/steer.bpf.c`) into the kernel, one instance per NIC, and fills its maps.
//!
//! What must outlive a crash is pinned in one directory of a BPF file system: the maps that all NICs share and
//! each NIC's link. After a `kill -9` the NICs therefore keep dropping packets to owned addresses, which the
//! host would otherwise answer with resets, until the next process takes the links over. That resets no NIC,
//! and leaves no gap when it keeps to the order `load`, `insert_socket`, `attach`.
//!
//! `probe` does the same for the program that delivers health checks (`bpf/probe.bpf.c`), which needs no pin.
//!
//! This module never sees a packet and never makes a socket. The control thread calls it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel};
use rustix::net::{AddressFamily, SocketType, netdevice};
use shunt_api::mac::MacAddress;
use shunt_api::snapshot::XdpMode;
use shunt_api::status::XdpCounters;

mod attach;
mod error;
mod link;
mod maps;
mod pins;
mod probe;

use attach::Target;
pub use attach::{Attached, AttachedMode};
pub use error::ProgramError;
use error::refused;
use maps::{Content, OWNED, TUNNEL_SOURCES, map};
use pins::Directory;
pub use probe::Deliverer;

/// Ethernet addresses that frames to one NIC may carry; as many as `bpf/steer.bpf.c` has places for.
pub const STATIONS: usize = 8;

/// The compiled program.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o")));

/// libbpf reads the structures of an ELF file in place.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

/// The steering programs of all NICs of this process.
///
/// Dropping it leaves them attached, as a crash does; [`Steering::detach`] removes them.
#[derive(Debug)]
pub struct Steering {
    directory: Directory,
    owned: MapHandle,
    tunnel_sources: MapHandle,
    nics: BTreeMap<String, Nic>,
}

/// One instance of the program.
#[derive(Debug)]
struct Nic {
    ifindex: u32,
    object: Object,
    xsks: MapHandle,
    counts: MapHandle,
    stations: MapHandle,
}

impl Steering {
    /// Opens the maps pinned in `bpf_dir`, with what a former process left in them, and makes those that are not
    /// there. The directory is made if needed, must be on a BPF file system, and is locked while `self` lives.
    ///
    /// # Errors
    /// `bpf_dir` is elsewhere or in use, holds a map of another layout, or permissions lack.
    pub fn open(bpf_dir: &Path) -> Result<Self, ProgramError> {
        libbpf_rs::set_print(Some((PrintLevel::Debug, log)));
        let directory = Directory::create(bpf_dir)?;
        // Says what the maps must be like.
        let fresh = open_object()?.load().map_err(ProgramError::load)?;
        let owned = maps::open(&OWNED, &directory, &fresh)?;
        let tunnel_sources = maps::open(&TUNNEL_SOURCES, &directory, &fresh)?;
        Ok(Self { directory, owned, tunnel_sources, nics: BTreeMap::new() })
    }

    /// Loads an instance of the program for a NIC, without attaching it. An instance loaded for the NIC before
    /// is given up with its sockets and counters, as is needed when the NIC was gone and came back.
    ///
    /// # Errors
    /// There is no such NIC, or the kernel refuses the program.
    pub fn load(&mut self, nic: &str) -> Result<(), ProgramError> {
        let ifindex = interface_index(nic)?;
        let mut open = open_object()?;
        maps::share(&OWNED, &self.owned, &mut open)?;
        maps::share(&TUNNEL_SOURCES, &self.tunnel_sources, &mut open)?;
        let object = open.load().map_err(ProgramError::load)?;
        let [xsks, counts, stations] = ["xsks", "counts", "stations"].map(|name| map(&object, name));
        let loaded = Nic { ifindex, object, xsks: xsks?, counts: counts?, stations: stations? };
        self.nics.insert(nic.to_owned(), loaded);
        Ok(())
    }

    /// Has the packets of a receive queue handed to an AF_XDP socket. When that is closed, the kernel takes it
    /// out, and packets of the queue to owned addresses are dropped.
    ///
    /// # Errors
    /// The queue is beyond the 256 that the program serves, or `socket` is no AF_XDP socket.
    ///
    /// # Panics
    /// The NIC is not loaded.
    pub fn insert_socket(&self, nic: &str, queue: u32, socket: BorrowedFd<'_>) -> Result<(), ProgramError> {
        let xsks = &self.loaded(nic).xsks;
        xsks.update(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(refused(format!("hand queue {queue} of {nic} (0 to 255 are possible) to its socket")))
    }

    /// Has frames taken on a NIC only if they carry one of these Ethernet addresses as destination, the NIC's own first;
    /// without any, or with more than [`STATIONS`], whatever they carry.
    ///
    /// # Errors
    /// The kernel refuses.
    ///
    /// # Panics
    /// The NIC is not loaded.
    pub fn set_stations(&self, nic: &str, macs: &[MacAddress]) -> Result<(), ProgramError> {
        let mut value = [0; STATIONS * 8];
        let known = if macs.len() <= STATIONS { macs } else { &[] };
        for (place, mac) in value.chunks_exact_mut(8).zip(known) {
            place[..6].copy_from_slice(&mac.0);
        }
        let stations = &self.loaded(nic).stations;
        stations.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY).map_err(refused("tell stations"))
    }

    /// Lets the packets of a NIC go through the program loaded for it. If a former process's program is there,
    /// it is replaced in place, unless `mode` rules out the way it is attached.
    ///
    /// # Errors
    /// A program of somebody else is attached, the NIC has gone, the driver lacks the native mode that `mode` demands, or
    /// permissions lack.
    ///
    /// # Panics
    /// The NIC is not loaded.
    pub fn attach(&mut self, nic: &str, mode: XdpMode) -> Result<Attached, ProgramError> {
        let Nic { ifindex, object, .. } = self.loaded(nic);
        let program = object.progs().next().expect("steer.bpf.c defines one program");
        Target { nic, ifindex: *ifindex, program: &program }.attach(&self.directory, mode)
    }

    /// Detaches the programs that a former process left on NICs for which none is loaded now, and returns the
    /// names those NICs had. To be called before `attach`: a NIC may have been given another name meanwhile.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach_others(&mut self) -> Result<Vec<String>, ProgramError> {
        let mut others = self.directory.linked_nics()?;
        others.retain(|nic| !self.nics.contains_key(nic));
        others.iter().try_for_each(|nic| self.directory.detach(nic))?;
        Ok(others)
    }

    /// Makes exactly these addresses owned, on all NICs, each with the bytes of headroom (0, or 20 to 44) that the
    /// frames to it get. Adds and changes before it removes.
    ///
    /// # Errors
    /// There are more addresses than the map holds (nothing has changed then), or the kernel refuses.
    ///
    /// # Panics
    /// A number of bytes is none of the three.
    pub fn own(&mut self, addresses: &BTreeMap<IpAddr, u32>) -> Result<(), ProgramError> {
        let room = self.owned.max_entries() as usize;
        if addresses.len() > room {
            return Err(ProgramError::TooManyAddresses { wanted: addresses.len(), room });
        }
        let wanted = addresses.iter().map(|(address, headroom)| {
            assert!(matches!(headroom, 0 | 20..=44), "no headers have {headroom} bytes");
            (maps::address(*address).to_vec(), headroom.to_ne_bytes().to_vec())
        });
        maps::fill(&OWNED, &self.owned, &wanted.collect())
    }

    /// Has the ICMP errors about tunnels that come from these prefixes, and from no others, handed to the sockets,
    /// on all NICs, whether or not the address they come to is owned. Adds before it removes.
    ///
    /// # Errors
    /// There are more prefixes than the map holds (nothing has changed then), or the kernel refuses.
    pub fn tunnel_sources(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<(), ProgramError> {
        let wanted: Content =
            prefixes.iter().map(|prefix| (maps::prefix(*prefix), 1_u32.to_ne_bytes().to_vec())).collect();
        let room = self.tunnel_sources.max_entries() as usize;
        if wanted.len() > room {
            return Err(ProgramError::TooManyTunnelSources { wanted: wanted.len(), room });
        }
        maps::fill(&TUNNEL_SOURCES, &self.tunnel_sources, &wanted)
    }

    /// What the program has counted on a NIC since it was loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    ///
    /// # Panics
    /// The NIC is not loaded.
    pub fn counters(&self, nic: &str) -> Result<XdpCounters, ProgramError> {
        let counts = &self.loaded(nic).counts;
        let count = |index| maps::count(counts, index);
        Ok(XdpCounters {
            redirected: count(0)?,
            passed: count(1)?,
            dropped_no_socket: count(2)?,
            dropped_no_headroom: count(3)?,
            dropped_bad_source_mac: count(4)?,
        })
    }

    /// Detaches the programs from all NICs, then removes the maps: owned addresses are the host's again. Returns
    /// what was removed, in words.
    ///
    /// # Errors
    /// The kernel refuses; [`detach_leftovers`] can be tried again.
    pub fn detach(self) -> Result<Vec<String>, ProgramError> {
        self.directory.clear()
    }

    fn loaded(&self, nic: &str) -> &Nic {
        self.nics.get(nic).unwrap_or_else(|| panic!("{nic} must be loaded first"))
    }
}

/// Removes what a dead process left in `bpf_dir`, of this and of any other layout. Returns it in words; nothing
/// when there is nothing.
///
/// # Errors
/// A running process uses `bpf_dir`, or the kernel refuses.
pub fn detach_leftovers(bpf_dir: &Path) -> Result<Vec<String>, ProgramError> {
    Directory::existing(bpf_dir)?.map_or(Ok(Vec::new()), Directory::clear)
}

fn open_object() -> Result<OpenObject, ProgramError> {
    ObjectBuilder::default().open_memory(&OBJECT.0).map_err(ProgramError::load)
}

/// Of the calling thread's network namespace.
fn interface_index(nic: &str) -> Result<u32, ProgramError> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)
        .map_err(refused("open a socket"))?;
    netdevice::name_to_index(&socket, nic).map_err(|_| ProgramError::NoSuchNic { nic: nic.to_owned() })
}

#[expect(clippy::needless_pass_by_value, reason = "libbpf-rs wants this signature")]
fn log(level: PrintLevel, line: String) {
    match level {
        PrintLevel::Debug => tracing::trace!("libbpf: {}", line.trim_end()),
        PrintLevel::Info | PrintLevel::Warn => tracing::debug!("libbpf: {}", line.trim_end()),
    }
}
