//! Where a configuration comes from. Each source gives [`Reading`]s to [`crate::control::Control`] and knows
//! nothing of the dataplane.

pub mod file;

use std::sync::Arc;

use shunt_api::config::Config;
use shunt_api::snapshot::Snapshot;
use shunt_api::status::ConfigProblem;

/// What a source wants, not numbered yet.
#[derive(Clone, Debug)]
pub struct Desired {
    /// What was asked for.
    pub config: Arc<Config>,
    /// What it compiles to, with generation 0.
    pub snapshot: Snapshot,
}

/// What came of looking at a source.
pub type Reading = Result<Box<Desired>, ConfigProblem>;
