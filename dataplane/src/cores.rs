//! Which core each worker is pinned to.

use core_affinity::CoreId;

/// Cores this process may use. To be asked before any thread is pinned: it is the calling thread's that count.
pub fn available() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
}

/// Cores of the workers and the one that is left for housekeeping.
#[derive(Debug)]
pub struct Cores {
    workers: Vec<Option<CoreId>>,
    housekeeping: Option<CoreId>,
}

impl Cores {
    /// The configured cores in order; without any, the last of those `available`, so that the first stays
    /// free for housekeeping. With more workers than cores, cores are used again. A configured core that is
    /// not available pins nothing.
    pub fn choose(available: &[usize], configured: &[u32], workers: usize) -> Self {
        let configured: Vec<usize> = configured.iter().map(|&core| core as usize).collect();
        let own_choice = &available[available.len().saturating_sub(workers)..];
        let from = if configured.is_empty() { own_choice } else { &configured };
        let of_worker = |index| (!from.is_empty()).then(|| from[index % from.len()]);
        let taken: Vec<Option<usize>> = (0..workers).map(of_worker).collect();
        let housekeeping = available.iter().find(|&&core| !taken.contains(&Some(core))).copied();
        let core = |id| CoreId { id };
        let usable = |id: &usize| available.contains(id);
        Self {
            workers: taken.into_iter().map(|id| id.filter(usable).map(core)).collect(),
            housekeeping: housekeeping.map(core),
        }
    }

    /// The core of a worker, if any core is known.
    pub fn of_worker(&self, index: usize) -> Option<CoreId> {
        self.workers.get(index).copied().flatten()
    }

    /// A core without a worker, if there is one.
    pub fn housekeeping(&self) -> Option<CoreId> {
        self.housekeeping
    }
}

/// What `make` returns on a thread that is pinned where workers are: memory that it is the first to touch lies on their
/// NUMA node. `available` and `configured` as in [`Cores::choose`].
pub fn near_workers<T: Send>(available: &[usize], configured: &[u32], make: impl FnOnce() -> T + Send) -> T {
    let core = Cores::choose(available, configured, 1).of_worker(0);
    let pinned = move || {
        core.map(core_affinity::set_for_current);
        make()
    };
    let made = std::thread::scope(|scope| scope.spawn(pinned).join());
    made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_workers_is_on_a_core_of_theirs() {
        let all = available();
        let last = *all.last().expect("this runs somewhere");
        assert_eq!(near_workers(&all, &[], available), [last]);
        assert_eq!(near_workers(&all, &[all[0] as u32], available), [all[0]]);
        assert_eq!(near_workers(&[], &[], || 7), 7);
        assert_eq!(available(), all, "the caller stays where it is");
    }

    #[test]
    fn check() {
        let check =
            |available: &[usize], configured: &[u32], workers: usize, expected: &[usize], housekeeping| {
                let cores = Cores::choose(available, configured, workers);
                let of_workers: Vec<usize> =
                    (0..workers).filter_map(|i| cores.of_worker(i)).map(|core| core.id).collect();
                assert_eq!(
                    (of_workers.as_slice(), cores.housekeeping().map(|core| core.id)),
                    (expected, housekeeping)
                );
            };
        check(&[0, 1, 2, 3], &[], 2, &[2, 3], Some(0));
        check(&[0, 1], &[], 2, &[0, 1], None);
        check(&[0, 1], &[], 3, &[0, 1, 0], None);
        check(&[0, 1, 2, 3], &[1, 3], 2, &[1, 3], Some(0));
        check(&[0, 1, 2, 3], &[0], 2, &[0, 0], Some(1));
        check(&[0, 1], &[1, 7], 2, &[1], Some(0));
        check(&[], &[], 1, &[], None);
    }
}
