//! Duplicate request: the service gets a request twice, and its client one reply.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::pick::Picker;
use super::{ArmedToxic, Direction, LinkToxic, Next, RequestPattern, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::Chunk;

/// The largest request of which a copy is made.
const LARGEST: usize = 1024 * 1024;
/// A copy comes while the rehearsal still lasts.
const LATEST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct HttpDuplicate {
    pub(super) after: Duration,
    pub(super) request: RequestPattern,
    pub(super) picker: Picker,
}

impl ArmedToxic for HttpDuplicate {
    fn name(&self) -> &'static str {
        "http_duplicate"
    }

    fn validate(&self) -> Result<(), Wrong> {
        if self.after > LATEST {
            return Err(Wrong::new("after", format!("is {:?}", self.after), "a minute is the most"));
        }
        self.picker.pick().validate()
    }

    fn needs(&self) -> Option<Protocol> {
        Some(Protocol::Http)
    }

    fn direction(&self, _asked: Direction) -> Direction {
        Direction::Up
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkHttpDuplicate { toxic: self.clone(), rng, copy: None })
    }
}

struct LinkHttpDuplicate {
    toxic: HttpDuplicate,
    rng: ChaCha8Rng,
    /// The request under way as far as it has come, if its beginning was seen.
    copy: Option<Vec<u8>>,
}

impl LinkToxic for LinkHttpDuplicate {
    fn on_chunk(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        if let Some(part) = &chunk.call {
            if part.first {
                self.copy = Some(Vec::new());
            }
            let known = !part.texts.is_empty();
            let wanted = !known || part.texts.iter().any(|call| self.toxic.request.fits(call));
            self.copy = self.copy.take().filter(|copy| wanted && copy.len() + chunk.payload.len() <= LARGEST);
            if let Some(copy) = &mut self.copy {
                copy.extend_from_slice(chunk.payload.bytes());
            }
            let whole = if part.complete { self.copy.take() } else { None };
            if let Some(copy) = whole.filter(|_| self.toxic.picker.take(&mut self.rng)) {
                next.touch(copy.len());
                next.touch_call();
                next.copy(copy, self.toxic.after);
            }
        }
        next.pass(chunk);
    }

    fn needs_calls(&self) -> bool {
        true
    }
}
