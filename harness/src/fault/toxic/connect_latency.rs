//! Connect latency: a new connection reaches the upstream later.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::latency::Delays;
use super::{ArmedToxic, LinkToxic, Wrong};

#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectLatency(pub(super) Delays);

impl ArmedToxic for ConnectLatency {
    fn name(&self) -> &'static str {
        "connect_latency"
    }

    fn validate(&self) -> Result<(), Wrong> {
        self.0.validate()
    }

    fn strike(&self, mut rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkConnectLatency { wait: self.0.draw(&mut rng) })
    }
}

struct LinkConnectLatency {
    wait: Duration,
}

impl LinkToxic for LinkConnectLatency {
    fn opens_in(&self) -> Duration {
        self.wait
    }
}
