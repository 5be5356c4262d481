//! The load: planned arrivals, journeys of virtual buyers, and the one file that knows goose.

pub mod arrival;
pub mod buyer;
pub mod classify;
pub mod client;
pub mod clock;
pub mod driver;
pub mod pool;
pub mod slice;

#[cfg(test)]
mod tests;
