//! Whether this box may lead: only while its dataplane serves. What the leader's dataplane has not acknowledged the
//! cluster is not told, and then no box gets anything new.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Part, Trouble};
use crate::state::Agreement;
use crate::until::now;

/// A box whose dataplane has acknowledged nothing for so long does not lead. One that restarts serves again within a
/// second, and the lead does not move for that. One that stays away has another box lead before its Lease would run out.
pub const GRACE: Duration = Duration::from_secs(5);

/// What a box may do by its dataplane.
#[derive(Debug)]
pub struct Fitness {
    agreement: watch::Receiver<Agreement>,
    begun: Instant,
}

impl Fitness {
    /// Of a box that begins to take part at `now`.
    pub fn new(agreement: watch::Receiver<Agreement>, now: Instant) -> Self {
        Self { agreement, begun: now }
    }

    /// What part the box takes.
    pub fn part(&self, now: Instant) -> Part {
        match (*self.agreement.borrow(), self.ends()) {
            (_, Some(ends)) if now >= ends => Part::Leaves,
            (Agreement::Nothing, _) => Part::Waits,
            (Agreement::Owed { .. } | Agreement::Held, _) => Part::Stands,
        }
    }

    /// Why it leaves the lead to others, if it does.
    pub fn trouble(&self, now: Instant) -> Option<Trouble> {
        (self.part(now) == Part::Leaves).then(|| {
            Trouble::Dataplane(format!(
                "its dataplane has acknowledged nothing for {GRACE:?} or longer; see what else lbctl status says, and the \
                 log of shunt-dataplane"
            ))
        })
    }

    /// Returns after `pause`, or when the box takes another part than this.
    pub async fn rest(&mut self, part: Part, pause: Duration) {
        let end = now() + pause;
        while now() < end && self.part(now()) == part {
            let next = self.ends().filter(|ends| *ends > now()).map_or(end, |ends| ends.min(end));
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                // Fails only if the control plane is gone, and this with it.
                Ok(()) = self.agreement.changed() => {}
            }
        }
    }

    /// When it leaves the lead to others, unless the dataplane acknowledges something.
    fn ends(&self) -> Option<Instant> {
        match *self.agreement.borrow() {
            Agreement::Nothing => Some(self.begun + GRACE),
            Agreement::Owed { since } => Some(since + GRACE),
            Agreement::Held => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_leads_while_its_dataplane_serves() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let owed = Agreement::Owed { since: at(60_000) };
        for (agreement, ms, expected) in [
            (Agreement::Nothing, 0, Part::Waits),
            (Agreement::Nothing, 4_999, Part::Waits),
            (Agreement::Nothing, 5_000, Part::Leaves),
            (Agreement::Held, 0, Part::Stands),
            (Agreement::Held, 100_000, Part::Stands),
            (owed, 60_000, Part::Stands),
            (owed, 64_999, Part::Stands),
            (owed, 65_000, Part::Leaves),
        ] {
            let fitness = Fitness::new(watch::channel(agreement).1, begun);
            assert_eq!(fitness.part(at(ms)), expected, "{agreement:?} {ms}");
            assert_eq!(fitness.trouble(at(ms)).is_some(), expected == Part::Leaves, "{agreement:?} {ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_ends_when_the_part_changes() {
        let begun = now();
        let (agreement, told) = watch::channel(Agreement::Nothing);
        let mut fitness = Fitness::new(told, begun);
        let minute = Duration::from_mins(1);
        fitness.rest(Part::Waits, Duration::from_secs(1)).await;
        assert_eq!(now() - begun, Duration::from_secs(1));
        fitness.rest(Part::Waits, minute).await;
        assert!(now() >= begun + GRACE && now() < begun + GRACE * 2);
        let (before, telling) = (now(), async { agreement.send_replace(Agreement::Held) });
        tokio::join!(fitness.rest(Part::Leaves, minute), telling);
        assert_eq!(now(), before);
        // A snapshot that is acknowledged soon enough.
        let telling = async {
            agreement.send_replace(Agreement::Owed { since: now() });
            tokio::time::sleep(GRACE / 2).await;
            agreement.send_replace(Agreement::Held);
        };
        tokio::join!(fitness.rest(Part::Stands, minute), telling);
        assert_eq!(now() - before, minute);
    }
}
