//! Refuse: new connections are reset at once, existing ones are left alone.

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Dial, LinkToxic};

#[derive(Debug, Clone, Copy)]
pub(super) struct Refuse;

impl ArmedToxic for Refuse {
    fn name(&self) -> &'static str {
        "refuse"
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(*self)
    }
}

impl LinkToxic for Refuse {
    fn on_connect(&mut self) -> Dial {
        Dial::Refuse
    }
}
