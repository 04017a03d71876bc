//! Where a configuration comes from. Each source gives [`Reading`]s to [`crate::control::Control`] and knows
//! nothing of the dataplane.

pub mod file;

use shunt_api::snapshot::Snapshot;
use shunt_api::status::ConfigProblem;

/// What a source wants, not numbered yet.
#[derive(Clone, Debug)]
pub struct Desired {
    /// With generation 0.
    pub snapshot: Snapshot,
    /// What is allowed but hardly meant.
    pub warnings: Vec<ConfigProblem>,
}

/// What came of looking at a source.
pub type Reading = Result<Box<Desired>, ConfigProblem>;
