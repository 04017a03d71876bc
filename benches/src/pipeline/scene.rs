//! A world and its floor, and the parts of a measurement that callgrind and the clock both go through.

use std::fmt;
use std::time::Duration;

use shunt_api::snapshot::Mode;

use super::load::{self, Distribution, Turns};
use super::shape::Case;
use super::world::{Floor, ROUND, World};

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// First packets of flows.
    New,
    /// Packets of established flows.
    Forward(Distribution),
    /// Replies to translated flows.
    Back(Distribution),
    /// MAC addresses swapped and nothing else.
    Floor,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Forward(Distribution::Uniform) => "uniform",
            Self::Forward(Distribution::Zipf) => "zipf",
            Self::Back(Distribution::Uniform) => "back-uniform",
            Self::Back(Distribution::Zipf) => "back-zipf",
            Self::Floor => "floor",
        })
    }
}

/// See the module.
pub struct Scene {
    case: Case,
    world: World,
    floor: Floor,
    turns: [Turns; 2],
    /// Flows below this one have had their first packet.
    begun: u32,
}

/// Most new flows of a measurement.
const NEW_MOST: u32 = 250_000;

impl Case {
    /// Flows that are new when all others are established: few enough to find the table as good as full.
    pub fn new_flows(&self) -> u32 {
        (self.flows / 8).clamp(ROUND as u32, NEW_MOST).min(self.flows)
    }

    /// The parts in the order in which they can be measured.
    pub fn parts(&self) -> Vec<Part> {
        let both = [Distribution::Uniform, Distribution::Zipf];
        let back = both.map(Part::Back).into_iter().filter(|_| self.mode == Mode::Nat);
        std::iter::once(Part::New).chain(both.map(Part::Forward)).chain(back).chain([Part::Floor]).collect()
    }
}

impl Scene {
    /// With all flows established but `new_flows` of them.
    pub fn new(case: Case, new_flows: u32) -> Self {
        let (mut world, begun) = (World::of(&case), case.flows - new_flows);
        world.establish(begun);
        let turns = [Distribution::Uniform, Distribution::Zipf]
            .map(|distribution| Turns::new(case.flows, distribution));
        Self { case, world, floor: Floor::new(case.family), turns, begun }
    }

    /// Lets so many packets through. Returns the time that took. No more new flows can begin than are left, and no
    /// other part comes before the last of them.
    pub fn pass(&mut self, part: Part, packets: usize) -> Duration {
        match part {
            Part::New => self.begin(packets),
            Part::Forward(distribution) => {
                let turns = self.turns[distribution as usize].by_ref().take(packets);
                self.world.pass(turns, load::ACK)
            }
            Part::Back(distribution) => {
                self.world.pass_back(self.turns[distribution as usize].by_ref().take(packets))
            }
            Part::Floor => self.floor.pass(self.turns[0].by_ref().take(packets)),
        }
    }

    fn begin(&mut self, packets: usize) -> Duration {
        let end = self.begun + packets as u32;
        assert!(end <= self.case.flows, "{packets} new flows are more than are left");
        let new = self.begun..end;
        let elapsed = self.world.pass(new.clone(), load::SYN);
        self.world.confirm(new);
        self.begun = end;
        elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Family;
    use super::*;

    #[test]
    fn every_part_passes_in_order() {
        for mode in [Mode::Dr, Mode::Nat] {
            let case = Case::new(mode, Family::V6, 2000);
            let mut scene = Scene::new(case, case.new_flows());
            assert_eq!(scene.begun, 1744);
            for part in case.parts() {
                scene.pass(part, 256);
            }
            assert_eq!((scene.begun, case.parts().len()), (2000, if mode == Mode::Nat { 6 } else { 4 }));
        }
    }
}
