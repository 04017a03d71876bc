//! The system calls for which rustix has no safe form.
#![allow(unsafe_code)] // poll with a set that outlives a call, and socket options that rustix does not know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sleeps until one of the descriptors has an event or the time is over: poll(2).
pub fn poll(set: &mut [libc::pollfd], timeout_ms: i32) {
    // SAFETY: the pointer and the length are those of `set`, which is borrowed for the call. A descriptor that is
    // not open is reported in its entry, nothing more.
    unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout_ms) };
}

/// Sets an integer option of level `SOL_SOCKET`: setsockopt(2).
pub fn set_socket_option(socket: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes at the pointer, which are those of `value`.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const value).cast(), length)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
