//! Cut reply, for Redis: the command takes effect and its reply never arrives.

use rand_chacha::ChaCha8Rng;

use super::cutter::{Cutter, Judge};
use super::pick::Picker;
use super::{ArmedToxic, CommandPattern, Direction, LinkToxic, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::ReplyPart;

#[derive(Debug, Clone)]
pub(super) struct RedisCutReply {
    pub(super) command: CommandPattern,
    pub(super) picker: Picker,
}

impl ArmedToxic for RedisCutReply {
    fn name(&self) -> &'static str {
        "redis_cut_reply"
    }

    fn validate(&self) -> Result<(), Wrong> {
        self.picker.pick().validate()
    }

    fn needs(&self) -> Option<Protocol> {
        Some(Protocol::Redis)
    }

    fn direction(&self, _asked: Direction) -> Direction {
        Direction::Down
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(Cutter::new(self.command.clone(), self.picker.clone(), rng))
    }
}

impl Judge for CommandPattern {
    fn may_match(&self, reply: &ReplyPart) -> bool {
        reply.texts.iter().any(|text| self.fits(text))
    }

    /// What failed took no effect, and what was queued by `MULTI` has none yet.
    fn matches(&self, reply: &ReplyPart) -> bool {
        reply.committed && self.may_match(reply)
    }
}
