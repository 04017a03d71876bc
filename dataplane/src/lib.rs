//! The packet path of Shunt as a library, so that tests, benches and fuzzers run the same code as the
//! program `shunt-dataplane`.
//!
//! `packet flow maglev conntrack memo index fragments nat table forward rewrite reply` are pure: no I/O, no clock, no log.
//! `port worker` move frames. `arguments` is the command line. `program neighbor probe queues engine control http huge_pages` run on the control thread.

pub mod arguments;
pub mod clock;
pub mod conntrack;
pub mod control;
pub mod cores;
pub mod engine;
pub mod explain;
pub mod flow;
pub mod flows;
pub mod forward;
pub mod fragments;
pub mod http;
pub mod huge_pages;
pub mod index;
pub mod limits;
pub mod losses;
pub mod maglev;
pub mod memo;
pub mod memory;
pub mod nat;
pub mod neighbor;
pub mod notices;
pub mod packet;
pub mod path_mtu;
pub mod port;
pub mod probe;
pub mod program;
pub mod queues;
pub mod replay;
pub mod reply;
pub mod report;
pub mod rewrite;
pub mod stats;
pub mod sweep;
mod sync;
pub mod table;
#[cfg(test)]
mod testing;
pub mod watchdog;
pub mod ways;
pub mod worker;
