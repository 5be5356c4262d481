//! Faults: what the nemesis can break, one file per kind.
//!
//! This module owns how a fault is made and healed. It knows nothing about timelines, loads or verdicts: when a fault
//! starts and ends is the nemesis's business, and what it did to the sale is the checks' business.
//!
//! - [`proxy`] stands between two roles of the stack and forwards bytes;
//! - [`toxic`] is what can be done to the bytes and connections inside a proxy.

pub mod proxy;
pub mod toxic;
