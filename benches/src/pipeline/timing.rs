//! Time of a case's parts.

use super::scene::{Part, Scene};
use super::shape::Case;
use crate::Spread;

/// Times that each part is measured, in turns with the others.
pub const RUNS: usize = 7;
/// Worlds whose flows are begun, where one has too few for a figure.
const SMALL_WORLDS: usize = 15;
/// Flows up to which a world is small.
const SMALL: u32 = 10_000;
/// Pieces in which new flows are measured in a large world.
const PIECES: usize = 5;

/// Medians of nanoseconds per packet, of every part in its order. So many packets for each part but the new flows.
pub fn times(case: &Case, packets: usize) -> Vec<(Part, Spread)> {
    let (worlds, pieces) = if case.flows <= SMALL { (SMALL_WORLDS, 1) } else { (1, PIECES) };
    let mut new = Vec::new();
    let mut scene = begun(case, pieces, &mut new);
    for _ in 1..worlds {
        scene = begun(case, pieces, &mut new);
    }
    let parts: Vec<Part> = case.parts().into_iter().filter(|part| *part != Part::New).collect();
    let mut times = vec![Vec::with_capacity(RUNS); parts.len()];
    // The first run fills the caches.
    for run in 0..=RUNS {
        for (part, times) in parts.iter().zip(&mut times) {
            let time = per_packet(&mut scene, *part, packets);
            if run > 0 {
                times.push(time);
            }
        }
    }
    let others = parts.into_iter().zip(times.into_iter().map(Spread::of));
    std::iter::once((Part::New, Spread::of(new))).chain(others).collect()
}

fn begun(case: &Case, pieces: usize, times: &mut Vec<f64>) -> Scene {
    let piece = case.new_flows() as usize / pieces;
    let mut scene = Scene::new(*case, (piece * pieces) as u32);
    times.extend((0..pieces).map(|_| per_packet(&mut scene, Part::New, piece)));
    scene
}

/// Nanoseconds.
pub fn per_packet(scene: &mut Scene, part: Part, packets: usize) -> f64 {
    scene.pass(part, packets).as_nanos() as f64 / packets as f64
}

#[cfg(test)]
mod tests {
    use shunt_api::snapshot::Mode;

    use super::super::load::Family;
    use super::*;

    #[test]
    fn every_part_has_a_time() {
        for flows in [500, 10_001] {
            let case = Case::new(Mode::Nat, Family::V4, flows);
            let times = times(&case, 300);
            assert_eq!(times.iter().map(|(part, _)| *part).collect::<Vec<_>>(), case.parts());
            assert!(times.iter().all(|(_, spread)| spread.median > 0.0), "{flows}");
        }
    }
}
