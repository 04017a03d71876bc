//! The three calls on a BPF link that libbpf-rs lacks: creating one for XDP with a mode, pinning it by its
//! descriptor, and asking what it holds. Decides nothing.
//!
//! A link is what attaches a program to a NIC. It lives as long as a descriptor or a pin refers to it, and
//! while it lives nobody else can attach or detach a program there.
#![allow(unsafe_code)] // libbpf's C interface

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libbpf_rs::XdpFlags;

/// What a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// NIC; 0 when it is gone.
    pub ifindex: u32,
    /// Kernel id of the program.
    pub program: u32,
}

/// Attaches `program` to a NIC in the mode that `flags` names, for as long as the result or a pin of it lives.
pub(super) fn create(program: BorrowedFd<'_>, ifindex: u32, flags: &XdpFlags) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: flags.bits(),
        ..Default::default()
    };
    let nic = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `options` lives through the call, says its own size, and is zero where it says nothing.
    let link =
        unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), nic, libbpf_sys::BPF_XDP, &options) };
    let link = checked(link)?;
    // SAFETY: the kernel has just opened this descriptor and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Makes the link outlive its descriptors.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` ends with a null byte and lives through the call.
    let result = unsafe { libbpf_sys::bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) };
    checked(result).map(drop)
}

/// What an XDP link holds; another kind of link or object is an error.
pub(super) fn held(link: BorrowedFd<'_>) -> io::Result<Held> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is writable for `size` bytes; both live through the call.
    let result = unsafe { libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &mut info, &mut size) };
    checked(result)?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_XDP {
        return Err(io::Error::other("it is no XDP link"));
    }
    // SAFETY: the kernel fills the `xdp` member for this type; any bytes make a valid u32.
    let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok(Held { ifindex, program: info.prog_id })
}

/// libbpf returns an error number negated.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
