//! The load: planned arrivals, journeys of virtual buyers, and the one file that knows goose.

pub mod arrival;
