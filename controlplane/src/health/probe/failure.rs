//! Why a probe failed, in words for a person, and whose fault it was.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::{Instant, timeout_at};

/// A probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Such as `connection refused`, to follow "the check failed: ".
    pub reason: String,
    /// What it says about the backend.
    pub fault: Fault,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The backend's, or that of the way to it.
    Backend,
    /// This box could not ask, which says nothing about the backend.
    Own,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Failure {
    /// The backend did not answer as it should.
    pub fn backend(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), fault: Fault::Backend }
    }

    /// This box could not ask.
    pub fn own(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), fault: Fault::Own }
    }

    /// What the kernel said while a probe talked to the backend.
    pub fn io(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Self::backend("the connection was closed before an answer came")
                }
                _ => Self::backend(error.to_string()),
            };
        };
        match errno {
            Errno::CONNREFUSED => Self::backend("connection refused"),
            Errno::CONNRESET | Errno::PIPE => Self::backend("connection reset"),
            Errno::HOSTUNREACH => Self::backend("host unreachable"),
            Errno::NETUNREACH => Self::backend("no route to it"),
            Errno::TIMEDOUT => Self::backend("no answer"),
            Errno::MSGSIZE => Self::backend("packets of this size do not pass"),
            Errno::MFILE | Errno::NFILE => Self::own("too many open files; raise LimitNOFILE of the unit"),
            Errno::ADDRNOTAVAIL => {
                Self::own("no source address or port left; see net.ipv4.ip_local_port_range")
            }
            Errno::NOBUFS | Errno::NOMEM => Self::own("out of memory for sockets"),
            _ => Self::backend(error.to_string()),
        }
    }

    /// What the kernel said to the making of a socket. `what` goes into "cannot …".
    pub fn setup(what: &str, error: &io::Error) -> Self {
        let hint = match Errno::from_io_error(error) {
            Some(Errno::PERM | Errno::ACCESS) => "; run as root or with CAP_NET_ADMIN and CAP_NET_RAW",
            Some(Errno::ADDRNOTAVAIL) => "; give this box that address",
            Some(Errno::MFILE | Errno::NFILE) => "; raise LimitNOFILE of the unit",
            _ => "",
        };
        Self::own(format!("cannot {what}: {error}{hint}"))
    }
}

/// The time a probe has.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    timeout: Duration,
    deadline: Instant,
}

impl Within {
    /// So long from now.
    pub fn starting_now(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now() + timeout }
    }

    /// What `future` gives; `None` if the time is over before.
    pub async fn limit<T>(self, future: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.deadline, future).await.ok()
    }

    /// What `future` gives, or a failure such as `no answer within 1 s`, of which `missing` is the beginning.
    pub async fn wait<T>(
        self,
        missing: &str,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.limit(future).await.unwrap_or_else(|| Err(self.over(missing)))
    }

    /// The failure that the time is over, of which `missing` is the beginning.
    pub fn over(self, missing: &str) -> Failure {
        Failure::backend(format!("{missing} within {}", in_words(self.timeout)))
    }
}

/// `1 s`, `1.5 s`, `250 ms`.
fn in_words(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        _ => format!("{} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        let words = [1, 250, 1_000, 1_500, 10_000].map(|ms| in_words(Duration::from_millis(ms)));
        assert_eq!(words, ["1 ms", "250 ms", "1 s", "1.5 s", "10 s"]);
    }

    #[test]
    fn a_lack_of_this_box_is_not_held_against_the_backend() {
        let fault = |errno: Errno| Failure::io(&errno.into()).fault;
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(fault(errno), Fault::Own, "{errno:?}");
        }
        for errno in
            [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::PERM]
        {
            assert_eq!(fault(errno), Fault::Backend, "{errno:?}");
        }
    }
}
