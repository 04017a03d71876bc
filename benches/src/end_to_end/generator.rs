//! The load generator, `bpf/generate.bpf.c`, as a process of its own: a run of live frames cannot be stopped but by
//! killing who asked for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, ProgramInput};
use shunt_tests::bpf;
use shunt_tests::error::{Result, While};
use shunt_tests::process::Process;
use shunt_tests::topology::NODE_NIC;

use super::GENERATOR_CORE;
use super::frame::{FIRST_PORT, FLOWS, HEADERS, template};
use super::network::Network;
use super::pinning;
use crate::end_to_end::Aligned;

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/generate.bpf.o")));

/// Maps that the process shares with this one.
const SHARED: [&str; 2] = ["settings", "state"];
/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h: frames are really sent.
const LIVE_FRAMES: u32 = 1 << 1;
/// Each call waits until the kernel's readers are through (RCU), so one call does for any measurement.
const REPEAT: u32 = 1 << 30;

/// A generator in the client's namespace.
pub struct Generator<'n> {
    network: &'n Network,
    object: Object,
    pins: PathBuf,
    ifindex: u32,
}

/// What the process is started with.
#[derive(clap::Args)]
pub struct Sending {
    /// Directory with the pinned maps.
    #[arg(long)]
    pins: PathBuf,
    /// File with the frame to send.
    #[arg(long)]
    frame: PathBuf,
}

impl<'n> Generator<'n> {
    /// Loads it; nothing is sent yet.
    pub fn load(network: &'n Network) -> Result<Self> {
        let what = || "load the load generator".to_owned();
        let pins = network.run.mount_bpf("generator")?;
        let mut object = open()?.load().to(what)?;
        for mut map in object.maps_mut().filter(|map| SHARED.iter().any(|name| map.name() == *name)) {
            let path = pins.join(map.name());
            map.pin(&path).to(|| format!("pin {}", path.display()))?;
        }
        let ifindex = bpf::interface_index(&network.client.namespace, NODE_NIC)?;
        Ok(Self { network, object, pins, ifindex })
    }

    /// Sends frames of so many bytes, one each `interval` with its time stamp, or without one as fast as it goes,
    /// until the process is dropped.
    pub fn start(&self, frame_bytes: usize, interval: Option<Duration>) -> Result<Process> {
        let frame = template(frame_bytes);
        let settings = settings(&frame, self.ifindex, interval.unwrap_or_default());
        let what = || "set the load generator".to_owned();
        bpf::map(&self.object, "settings")?.update(&[0; 4], &settings, MapFlags::ANY).to(what)?;
        let file = self.network.run.write("frame", &frame)?;
        let program = std::env::current_exe().to(|| "find the path of this program".to_owned())?;
        let arguments = [
            "send".to_owned(),
            format!("--pins={}", self.pins.display()),
            format!("--frame={}", file.display()),
        ];
        Process::start(&self.network.run, &self.network.client.namespace, "generator", &program, &arguments)
    }

    /// Frames sent so far.
    pub fn sent(&self) -> Result<u64> {
        let state = bpf::map(&self.object, "state")?.lookup(&[0; 4], MapFlags::ANY);
        let state = state.to(|| "read the load generator's count".to_owned())?.unwrap_or_default();
        Ok(state.get(..8).map_or(0, |sent| bpf::number(sent.to_vec())))
    }
}

/// The process: sends until it is killed.
pub fn send(sending: &Sending) -> Result<()> {
    let what = || "run the load generator".to_owned();
    pinning::pin_this_thread(GENERATOR_CORE)?;
    let frame = fs::read(&sending.frame).to(|| format!("read {}", sending.frame.display()))?;
    let mut open = open()?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if SHARED.contains(&name.as_str()) {
            let pinned = MapHandle::from_pinned_path(sending.pins.join(&name)).to(what)?;
            map.reuse_fd(std::os::fd::AsFd::as_fd(&pinned)).to(what)?;
        }
    }
    let object = open.load().to(what)?;
    let program = bpf::program(&object)?;
    loop {
        let input =
            ProgramInput { data_in: Some(&frame), flags: LIVE_FRAMES, repeat: REPEAT, ..Default::default() };
        program.test_run(input).to(what)?;
    }
}

fn open() -> Result<OpenObject> {
    ObjectBuilder::default().open_memory(&OBJECT.0).to(|| "open the load generator".to_owned())
}

/// `struct settings` of the program.
fn settings(frame: &[u8], ifindex: u32, interval: Duration) -> Vec<u8> {
    let mut headers = [0; 48];
    headers[..HEADERS].copy_from_slice(&frame[..HEADERS]);
    // The checksum is the complement of the sum.
    let udp_sum = !u16::from_ne_bytes([frame[HEADERS - 2], frame[HEADERS - 1]]);
    let numbers = [u32::from(udp_sum), ifindex, u32::from(FLOWS), u32::from(FIRST_PORT)];
    let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let numbers = numbers.iter().flat_map(|number| number.to_ne_bytes());
    headers.into_iter().chain(numbers).chain(interval_ns.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::end_to_end::frame::{Kind, check};
    use crate::end_to_end::network::{BACK_MAC, BACKEND_MAC};
    use crate::end_to_end::tests::is_root;

    const REDIRECT: u32 = 4;
    const DROP: u32 = 1;

    #[test]
    fn every_frame_is_right_in_every_byte_whatever_was_in_the_page() {
        if !is_root() {
            return;
        }
        let object = open().unwrap().load().unwrap();
        let mut frame = template(64);
        for interval in [Duration::ZERO, Duration::from_secs(1)] {
            let settings = settings(&frame, 1, interval);
            bpf::map(&object, "settings").unwrap().update(&[0; 4], &settings, MapFlags::ANY).unwrap();
            frame[..HEADERS + 8].fill(0xee);
            let (verdict, mut sent) = run(&object, &frame);
            assert_eq!(verdict, REDIRECT);
            assert_eq!(sent[..14], template(64)[..14]);
            sent[..6].copy_from_slice(&BACKEND_MAC.0);
            sent[6..12].copy_from_slice(&BACK_MAC.0);
            assert_eq!(check(Kind::AsSent, &sent), Ok(()), "{interval:?}");
            let stamp = u64::from_ne_bytes(sent[HEADERS..HEADERS + 8].try_into().unwrap());
            assert_eq!(stamp == 0, interval.is_zero());
            frame = template(64);
        }
        assert_eq!(run(&object, &frame).0, DROP, "the next is due in a second");
    }

    fn run(object: &Object, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 2048];
        let input = ProgramInput { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
        let output = bpf::program(object).unwrap().test_run(input).unwrap();
        (output.return_value, output.data.unwrap().to_vec())
    }
}
