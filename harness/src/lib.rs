//! Rehearse a flash sale before it opens: provision it, load it, break it, and prove from the evidence what happened.
//!
//! A **scenario** becomes a **run**: a stack is provisioned, goose fires an open-loop spike at it, a nemesis breaks things
//! on a timeline, and everything that happened is written to a **history**. What is right of the history is pure.

// First, since the macros that it defines are known to what stands below it.
#[macro_use]
pub mod stdout;

pub mod adapt;
pub mod baseline;
pub mod bench;
pub mod calibrate;
pub mod campaign;
pub mod capacity;
pub mod check;
pub mod cli;
pub mod compare;
pub mod doctor;
pub mod drain;
pub mod drill;
pub mod dry_run;
pub mod exit;
pub mod fault;
pub mod forecast;
pub mod gate;
pub mod history;
pub mod judge;
pub mod kept;
pub mod kill_soak;
pub mod load;
pub mod manual;
pub mod measure;
pub mod merge;
pub mod mutants;
pub mod nemesis;
pub mod priority;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod sampler;
pub mod scenario;
pub mod shard;
#[cfg(test)]
#[path = "../tests/e2e/support/skipped.rs"]
mod skipped;
pub mod stack;
pub mod summary;
pub(crate) mod timer;
pub mod toxiproxy;
pub mod trend;
pub mod workbench;
