//! The harness as its users have it: every test here starts the real binary, or drives one whole part of the library.
//!
//! One program, so that it is linked once, and that what waits in one test leaves its processor to any other.

mod adapter;
mod blast;
mod calibrate;
mod capacity;
mod compare;
mod containers;
mod databases;
mod doctor;
mod drill;
mod forecast;
mod full_link;
mod gate;
mod history;
mod manual;
mod measure;
mod mechanisms;
mod mistakes;
mod mutants;
mod nemesis;
mod pipes;
mod processes;
mod proxy;
mod proxy_calls;
mod proxy_toxics;
mod rehearsal;
mod report;
mod schema;
mod shards;
mod strategies;
mod support;
mod toxiproxy;
mod tutorials;
