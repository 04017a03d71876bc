//! Offline replay: captures in, captures and reports out, by the library and by the program.

#[path = "replay/bulk.rs"]
mod bulk;
#[path = "replay/capture.rs"]
mod capture;
#[path = "replay/command.rs"]
mod command;
#[path = "replay/files.rs"]
mod files;
#[path = "replay/frames.rs"]
mod frames;
#[path = "replay/golden.rs"]
mod golden;
