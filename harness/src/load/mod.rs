//! The load: planned arrivals, journeys of virtual buyers, and the one file that knows goose.

pub mod arrival;
pub mod buyer;
pub mod classify;
pub mod client;
pub mod clock;
pub mod cookies;
pub mod dispatch;
pub mod driver;
pub mod live;
pub mod pool;
pub mod retry;
pub mod slice;
pub mod sse;
pub mod turns;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_protocols;
