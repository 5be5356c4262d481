//! HTTP status: a request is answered by the proxy, and the service never sees it.

use rand_chacha::ChaCha8Rng;

use super::pick::Picker;
use super::{ArmedToxic, Direction, Fate, LinkToxic, Next, RequestPattern, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::{Chunk, Payload, Side};

#[derive(Debug, Clone)]
pub(super) struct HttpStatus {
    pub(super) status: u16,
    pub(super) request: RequestPattern,
    pub(super) picker: Picker,
}

impl ArmedToxic for HttpStatus {
    fn name(&self) -> &'static str {
        "http_status"
    }

    fn validate(&self) -> Result<(), Wrong> {
        if !(200..=599).contains(&self.status) {
            return Err(Wrong::new("status", format!("is {}", self.status), "a final status, from 200 to 599"));
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
        Box::new(LinkHttpStatus { toxic: self.clone(), rng, kept: Vec::new(), call: Call::Between })
    }
}

/// What is known about the request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Between,
    /// Its head is not complete: what has come of it is kept.
    Unknown,
    Passes,
    Swallowed,
}

struct LinkHttpStatus {
    toxic: HttpStatus,
    rng: ChaCha8Rng,
    kept: Vec<u8>,
    call: Call,
}

/// A reply with nothing but its status, in the form in which services tell of problems.
fn reply(status: u16) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = reason.unwrap_or("Injected");
    let retry = if matches!(status, 429 | 503) { "retry-after: 0\r\n" } else { "" };
    let head = format!("HTTP/1.1 {status} {reason}\r\n{retry}");
    match status {
        204 | 304 => format!("{head}\r\n"),
        _ => {
            let body = format!(r#"{{"type":"injected","title":"{reason}","status":{status}}}"#);
            let kind = "content-type: application/problem+json";
            format!("{head}{kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }
    }
    .into_bytes()
}

impl LinkHttpStatus {
    /// What becomes of the request under way, as far as this part tells.
    fn decide(&mut self, chunk: &Chunk, next: &mut Next<'_, '_>) -> Call {
        let Some(part) = &chunk.call else { return Call::Passes };
        match self.call {
            Call::Between if !part.first => Call::Passes,
            Call::Between | Call::Unknown if part.texts.is_empty() && !part.complete => Call::Unknown,
            Call::Between | Call::Unknown => {
                // A reply must not overtake one that an earlier request still waits for.
                let matches = part.alone && part.texts.iter().any(|call| self.toxic.request.fits(call));
                if matches && self.toxic.picker.take(&mut self.rng) {
                    next.touch_call();
                    return Call::Swallowed;
                }
                Call::Passes
            }
            decided => decided,
        }
    }

    fn answer(&self, chunk: &Chunk, next: &mut Next<'_, '_>) {
        let texts = chunk.call.as_ref().map(|call| call.texts.clone()).unwrap_or_default();
        let mut bytes = reply(self.toxic.status);
        if texts.first().is_some_and(|call| call.starts_with("HEAD ")) {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            bytes.truncate(end);
        }
        next.answer(Payload::from(bytes), texts, chunk.arrived);
    }
}

impl LinkToxic for LinkHttpStatus {
    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        if chunk.end.is_some() {
            self.on_heal(next);
            return next.pass(chunk);
        }
        let complete = chunk.call.as_ref().is_none_or(|call| call.complete);
        self.call = self.decide(&chunk, next);
        match self.call {
            Call::Unknown => self.kept.extend_from_slice(chunk.payload.bytes()),
            Call::Swallowed => {
                next.touch(self.kept.len() + chunk.payload.len());
                self.kept.clear();
                if complete {
                    self.answer(&chunk, next);
                }
            }
            Call::Passes | Call::Between => {
                if !self.kept.is_empty() {
                    let mut bytes = std::mem::take(&mut self.kept);
                    bytes.extend_from_slice(chunk.payload.bytes());
                    chunk.payload = Payload::from(bytes);
                }
                next.pass(chunk);
            }
        }
        if complete {
            self.call = Call::Between;
        }
    }

    /// What was kept of a head goes on; of a request that was swallowed half, nobody could make sense.
    fn on_heal(&mut self, next: &mut Next<'_, '_>) -> Fate {
        if !self.kept.is_empty() {
            let payload = Payload::from(std::mem::take(&mut self.kept));
            next.pass(Chunk::new(Side::Up, payload, std::time::Instant::now()));
        }
        if self.call == Call::Swallowed { Fate::Reset } else { Fate::Live }
    }

    fn needs_calls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_injected_replies_frame_themselves() {
        for status in [200, 204, 304, 429, 500, 503, 599] {
            let text = String::from_utf8(reply(status)).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(length.map_or(0, |length| length.parse().unwrap()), body.len());
        }
    }
}
