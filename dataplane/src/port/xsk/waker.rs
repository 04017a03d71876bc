//! Ends a worker's sleep from another thread: an eventfd among the descriptors that the port waits for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;

use super::OpenError;

/// Wakes a worker from [`crate::port::Port::wait`], so that it sees a new table at once.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(super) fn new() -> Result<Self, OpenError> {
        let fd = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        fd.map(|fd| Self(Arc::new(fd))).map_err(OpenError::waker)
    }

    /// Ends the worker's sleep, if it sleeps.
    pub fn wake(&self) {
        // The counter cannot overflow: the worker empties it, and a full one wakes all the same.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// The next sleep is not ended by what came before.
    pub(super) fn reset(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
