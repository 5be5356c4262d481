//! Reset: connections are cut by RST, existing ones when it is armed and new ones as they come, or each after a while.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Dial, Fate, LinkToxic, Next, Wrong, not_too_long};

#[derive(Debug, Clone, Copy)]
pub(super) struct Reset {
    pub(super) after: Duration,
}

impl ArmedToxic for Reset {
    fn name(&self) -> &'static str {
        "reset"
    }

    fn validate(&self) -> Result<(), Wrong> {
        not_too_long("after", self.after)
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkReset { at: (!self.after.is_zero()).then(|| Instant::now() + self.after) })
    }
}

struct LinkReset {
    /// When the connection is reset, unless at once.
    at: Option<Instant>,
}

impl LinkToxic for LinkReset {
    fn on_connect(&mut self) -> Dial {
        if self.at.is_none() { Dial::Refuse } else { Dial::Proceed }
    }

    fn on_armed(&mut self) -> Fate {
        if self.at.is_none() { Fate::Reset } else { Fate::Live }
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.at
    }

    fn on_time(&mut self, _now: Instant, _next: &mut Next<'_, '_>) -> Fate {
        Fate::Reset
    }
}
