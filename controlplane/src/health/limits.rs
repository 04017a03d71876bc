//! What the process may have of the system.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files as far as this process may. Returns what it is then; `None` is no limit.
///
/// Every running probe holds a socket: 5,000 backends that answer nothing for a second, asked every two
/// seconds, are 2,500 sockets, more than the 1,024 that a process starts with.
pub fn raise_open_files() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => now.maximum,
        Err(_) => now.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_the_kernel_says_afterwards() {
        assert_eq!(raise_open_files(), getrlimit(Resource::Nofile).current);
    }
}
