//! Carries out what `message` says, one request at a time: the kernel answers within the system call. Everything can
//! be done again where it has been done, and what is there already is taken as it is.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::{AddressFamily as Family, SocketType, netdevice};

use super::message::{self, DEVICE, FAMILIES, PEER};

/// What the kernel would not do for probes.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {cause}{}", remedy(*cause))]
pub struct DeviceError {
    doing: &'static str,
    cause: Errno,
}

fn remedy(cause: Errno) -> &'static str {
    match cause {
        Errno::PERM | Errno::ACCESS => {
            "; run as root, or with CAP_NET_ADMIN (AmbientCapabilities= in the unit)"
        }
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT => {
            "; load the kernel module veth (modprobe veth); policy routing must be in the kernel, too"
        }
        _ => "",
    }
}

/// Index of the probe device; `None` if there is none.
pub fn index() -> Option<u32> {
    let socket = rustix::net::socket(Family::UNIX, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(&socket, DEVICE).ok()
}

/// Makes the devices, or takes over those that are there; no packet is led to them yet. Returns the index.
pub fn make(mtu: u32) -> Result<u32, DeviceError> {
    let doing = "make the device that health checks leave by";
    let failed = |cause| DeviceError { doing, cause };
    let mut kernel = Kernel::open().map_err(failed)?;
    kernel.ask(&message::make_devices(), &[Errno::EXIST]).map_err(failed)?;
    for device in [DEVICE, PEER] {
        kernel.ask(&message::without_address(device), NO_IPV6).map_err(failed)?;
        kernel.ask(&message::up(device, mtu), &[]).map_err(failed)?;
    }
    index().ok_or(failed(Errno::NODEV))
}

/// Leads packets with a probe's mark to the device.
pub fn lead(ifindex: u32) -> Result<(), DeviceError> {
    let failed = |cause| DeviceError { doing: "route health checks to their device", cause };
    let mut kernel = Kernel::open().map_err(failed)?;
    for family in FAMILIES {
        let mut accepted = vec![Errno::EXIST];
        accepted.extend(if family == AddressFamily::Inet6 { NO_IPV6 } else { &[] });
        kernel.ask(&message::add_route(family, ifindex), &accepted).map_err(failed)?;
        kernel.ask(&message::add_rule(family), &accepted).map_err(failed)?;
    }
    Ok(())
}

/// Removes all of it. Returns whether there was anything.
pub fn remove() -> Result<bool, DeviceError> {
    let failed = |cause| DeviceError { doing: "remove the device of health checks and its rules", cause };
    let mut kernel = Kernel::open().map_err(failed)?;
    let mut removed = false;
    for family in FAMILIES {
        let gone = [Errno::NOENT, Errno::AFNOSUPPORT, Errno::OPNOTSUPP];
        removed |= kernel.ask(&message::remove_rule(family), &gone).map_err(failed)?;
    }
    removed |= kernel.ask(&message::remove_devices(), &[Errno::NODEV]).map_err(failed)?;
    Ok(removed)
}

/// What a kernel says whose IPv6 is missing or switched off: then there are no probes by it either.
const NO_IPV6: &[Errno] = &[Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::ACCESS];

/// A socket to ask by.
struct Kernel(Socket);

impl Kernel {
    fn open() -> Result<Self, Errno> {
        let socket = Socket::new(NETLINK_ROUTE).map_err(errno)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(errno)?;
        Ok(Self(socket))
    }

    /// Whether it was done; `accepted` says that it need not.
    fn ask(
        &mut self,
        request: &NetlinkMessage<RouteNetlinkMessage>,
        accepted: &[Errno],
    ) -> Result<bool, Errno> {
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0).map_err(errno)?;
        let (answer, _) = self.0.recv_from_full().map_err(errno)?;
        match acknowledged(&answer) {
            Ok(()) => Ok(true),
            Err(errno) if accepted.contains(&errno) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

fn errno(error: impl Into<io::Error>) -> Errno {
    Errno::from_io_error(&error.into()).unwrap_or(Errno::IO)
}

/// What an acknowledgement says.
fn acknowledged(answer: &[u8]) -> Result<(), Errno> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(|_| Errno::PROTO)?;
    match message.payload {
        NetlinkPayload::Error(error) => {
            error.code.map_or(Ok(()), |code| Err(Errno::from_raw_os_error(code.get().abs())))
        }
        _ => Err(Errno::PROTO),
    }
}
