//! What the fuzz targets share: a world around one worker that is played by the bytes of an input, and the
//! checks that hold whatever those bytes are.
//!
//! The same input always plays the same game: tables are seeded, and nothing outlives an input.

pub mod bytes;
pub mod check;
pub mod frames;
pub mod inet;
pub mod ledger;
pub mod model;
pub mod setting;
pub mod world;
