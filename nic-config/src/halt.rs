//! Ends this process at a given step as `kill -9` would, for tests of what is left then.

use std::str::FromStr;

use rustix::process::{Signal, getpid, kill_process};

use crate::apply::Watch;

/// Where to end, if anywhere: `3:before` is when the third step has been remembered but not done, `3:after`
/// when it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halt {
    at: Option<(u32, Moment)>,
    step: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no step; write 3:before or 3:after");
        let (step, moment) = text.split_once(':').ok_or_else(wrong)?;
        let moment = match moment {
            "before" => Moment::Before,
            "after" => Moment::After,
            _ => return Err(wrong()),
        };
        Ok(Self { at: Some((step.parse().map_err(|_| wrong())?, moment)), step: 0 })
    }
}

impl Halt {
    fn reached(&self, moment: Moment) {
        if self.at == Some((self.step, moment)) {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

impl Watch for Halt {
    fn remembered(&mut self) {
        self.step += 1;
        self.reached(Moment::Before);
    }

    fn done(&mut self) {
        self.reached(Moment::After);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_step_and_a_moment() {
        assert_eq!("3:after".parse(), Ok(Halt { at: Some((3, Moment::After)), step: 0 }));
        assert!("3".parse::<Halt>().is_err() && "x:after".parse::<Halt>().is_err());
        assert!("3:during".parse::<Halt>().is_err());
    }
}
