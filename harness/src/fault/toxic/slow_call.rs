//! Slow call: one kind of call is delayed, or its reply, and everything else passes.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::latency::Delays;
use super::pick::Picker;
use super::{ArmedToxic, CallPattern, LinkToxic, Next, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::{Chunk, Side};

#[derive(Debug, Clone)]
pub(super) struct SlowCall {
    pub(super) calls: CallPattern,
    pub(super) delays: Delays,
    pub(super) picker: Picker,
}

impl ArmedToxic for SlowCall {
    fn name(&self) -> &'static str {
        "slow_call"
    }

    fn validate(&self) -> Result<(), Wrong> {
        self.delays.validate()?;
        self.picker.pick().validate()
    }

    fn needs(&self) -> Option<Protocol> {
        Some(self.calls.protocol())
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkSlowCall { slow: self.clone(), rng, under_way: [None; 2] })
    }
}

struct LinkSlowCall {
    slow: SlowCall,
    rng: ChaCha8Rng,
    /// What was decided about the call, or the reply, under way in each direction.
    under_way: [Option<Duration>; 2],
}

impl LinkSlowCall {
    /// How long a chunk of this call is delayed: the same for all of them.
    fn decide(&mut self, side: Side, texts: &[Arc<str>], complete: bool, next: &mut Next<'_, '_>) -> Duration {
        let decided = &mut self.under_way[side as usize];
        if decided.is_none() && self.slow.calls.matches(texts) {
            let picked = self.slow.picker.take(&mut self.rng);
            *decided = Some(if picked { self.slow.delays.draw(&mut self.rng) } else { Duration::ZERO });
            if picked {
                next.touch_call();
            }
        }
        let delay = decided.unwrap_or_default();
        if complete {
            *decided = None;
        }
        delay
    }
}

impl LinkToxic for LinkSlowCall {
    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        let delay = match (&chunk.call, &chunk.reply) {
            (Some(call), _) => self.decide(chunk.side, &call.texts, call.complete, next),
            (_, Some(reply)) => self.decide(chunk.side, &reply.texts, reply.complete, next),
            _ => Duration::ZERO,
        };
        if !delay.is_zero() {
            next.touch(chunk.payload.len());
            next.hold(&mut chunk, delay);
        }
        next.pass(chunk);
    }

    fn needs_replies(&self) -> bool {
        true
    }

    fn needs_calls(&self) -> bool {
        true
    }
}
