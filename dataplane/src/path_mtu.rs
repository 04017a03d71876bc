//! Path MTUs towards backends, learned from ICMP errors about our own tunnel packets (RFC 1191, RFC 8201).
//!
//! Kept on the control thread, which lowers the next hops by them; forgotten after ten minutes, so that a path
//! that carries more again is used in full.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::{PATH_MTU_AGE, PATH_MTU_MIN_V4, PATH_MTU_MIN_V6};

/// The least MTU heard of for each backend, and when it was last heard.
#[derive(Clone, Debug, Default)]
pub struct PathMtus(BTreeMap<IpAddr, (u32, Instant)>);

impl PathMtus {
    /// A router carries no more than `mtu` bytes towards `backend`. Returns whether that is news. What no path
    /// can mean is raised to the least that is believed.
    pub fn heard(&mut self, backend: IpAddr, mtu: u32, now: Instant) -> bool {
        let mtu = mtu.max(if backend.is_ipv4() { PATH_MTU_MIN_V4 } else { PATH_MTU_MIN_V6 });
        let known = self.0.get(&backend).filter(|(_, at)| now.duration_since(*at) < PATH_MTU_AGE);
        match known {
            Some((known, _)) if *known < mtu => false,
            _ => self.0.insert(backend, (mtu, now)).is_none_or(|(before, _)| before != mtu),
        }
    }

    /// Forgets what is too old. Returns whether there was any.
    pub fn forget(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (_, at)| now.duration_since(*at) < PATH_MTU_AGE);
        self.0.len() < before
    }

    /// What fits on the way to a backend whose next hop carries `mtu`.
    pub fn limit(&self, backend: IpAddr, mtu: u32) -> u32 {
        self.0.get(&backend).map_or(mtu, |(known, _)| mtu.min(*known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn the_least_holds_for_ten_minutes_after_it_was_last_heard() {
        let (mut paths, start) = (PathMtus::default(), Instant::now());
        assert!(paths.heard(BACKEND, 1400, start));
        assert!(!paths.heard(BACKEND, 1400, start + PATH_MTU_AGE / 2), "no news");
        assert!(!paths.heard(BACKEND, 1450, start + PATH_MTU_AGE / 2), "an earlier router let it through");
        assert_eq!((paths.limit(BACKEND, 1500), paths.limit(BACKEND, 1300)), (1400, 1300));
        assert!(!paths.forget(start + PATH_MTU_AGE));
        assert!(paths.heard(BACKEND, 1380, start + PATH_MTU_AGE));
        assert!(paths.forget(start + 2 * PATH_MTU_AGE));
        assert_eq!(paths.limit(BACKEND, 1500), 1500);
    }

    #[test]
    fn what_no_path_means_is_not_believed() {
        let (mut paths, now) = (PathMtus::default(), Instant::now());
        let six = IpAddr::from([1; 16]);
        paths.heard(BACKEND, 0, now);
        paths.heard(six, 68, now);
        assert_eq!(paths.limit(BACKEND, 1500), PATH_MTU_MIN_V4);
        assert_eq!(paths.limit(six, 1500), PATH_MTU_MIN_V6);
    }
}
