//! The reference flash-sale service: what a rehearsal harness drives, breaks and audits.
//!
//! It sells a limited stock to more buyers than there are units, on Postgres, and is meant to be right
//! under every fault. Bugs can be planted on purpose ([`bugs`]), to show that a rehearsal finds them.
//!
//! A request passes the [`gateway`], is understood by [`api`], decided by an [`inventory`] strategy and
//! kept by the [`store`]. The [`sweeper`] gives back what unpaid holds tie up. [`admin`] is the listener
//! for tests, drills and monitoring. With a payment dependency, [`settle`] takes the money. [`degrade`] gives up what is
//! not needed when not everything works.
//!
//! The same program plays the roles around the service, each as a process of its own: [`access`]
//! in front of it, [`payment`] and [`profile`] behind it.

// First, since the macro that it defines is known to what stands below it.
#[macro_use]
pub mod print;

pub mod abuse;
pub mod access;
pub mod admin;
pub mod api;
pub mod app;
pub mod bugs;
pub mod challenge;
pub mod cli;
mod clock;
pub mod config;
pub mod deduct;
pub mod degrade;
pub mod dependency;
pub mod extras;
pub mod gateway;
pub mod idempotency;
pub mod inventory;
pub mod listen;
pub mod metrics;
pub mod order;
pub mod outbound;
pub mod payment;
pub mod problem;
pub mod process;
pub mod profile;
pub mod refusals;
pub mod sell;
pub mod server;
pub mod session;
pub mod settle;
pub mod slow;
pub mod store;
pub mod sweeper;
pub mod switches;
pub mod tls;
pub mod wire;
