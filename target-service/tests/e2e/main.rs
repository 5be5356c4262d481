//! The reference service as a client sees it: a process of its own, on a real Postgres.
//!
//! One program, so that it is linked once, and that what waits in one test leaves its processor to any other.

mod access;
mod bugs;
mod buyer_page;
mod degrading;
mod faults;
mod hot_row;
mod layers;
mod mechanisms;
mod payment;
mod plans;
mod sale;
mod slow;
mod strategies;
mod support;
mod throughput;
mod uncertain;
mod write_path;
