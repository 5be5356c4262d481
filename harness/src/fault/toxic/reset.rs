//! Reset: connections are cut by RST, existing ones when it is armed and new ones as they come.

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Dial, Fate, LinkToxic};

#[derive(Debug, Clone, Copy)]
pub(super) struct Reset;

impl ArmedToxic for Reset {
    fn name(&self) -> &'static str {
        "reset"
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(*self)
    }
}

impl LinkToxic for Reset {
    fn on_connect(&mut self) -> Dial {
        Dial::Refuse
    }

    fn on_armed(&mut self) -> Fate {
        Fate::Reset
    }
}
