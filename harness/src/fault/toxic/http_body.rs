//! Garbage body: a reply's status and headers arrive, and something else in the place of its body.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cutter::{Cutter, Deed, Judge};
use super::pick::Picker;
use super::{ArmedToxic, Direction, LinkToxic, RequestPattern, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::ReplyPart;

/// What arrives instead of a reply's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Garbage {
    /// As many random bytes.
    #[default]
    Bytes,
    /// Its first half.
    Half,
    /// Nothing.
    Empty,
    /// A page of a gateway that has something else to say.
    Html,
}

const PAGE: &[u8] = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>\n";

#[derive(Debug, Clone)]
pub(super) struct HttpBody {
    pub(super) garbage: Garbage,
    pub(super) request: RequestPattern,
    pub(super) picker: Picker,
}

impl ArmedToxic for HttpBody {
    fn name(&self) -> &'static str {
        "http_body"
    }

    fn validate(&self) -> Result<(), Wrong> {
        self.picker.pick().validate()
    }

    fn needs(&self) -> Option<Protocol> {
        Some(Protocol::Http)
    }

    fn direction(&self, _asked: Direction) -> Direction {
        Direction::Down
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        let judge = Falsifier { garbage: self.garbage, request: self.request.clone() };
        Box::new(Cutter::new(judge, self.picker.clone(), rng))
    }
}

struct Falsifier {
    garbage: Garbage,
    request: RequestPattern,
}

impl Judge for Falsifier {
    fn may_match(&self, reply: &ReplyPart) -> bool {
        self.request.may_match(reply)
    }

    fn matches(&self, reply: &ReplyPart) -> bool {
        self.request.matches(reply)
    }

    fn deed(&self, reply: &[u8], rng: &mut ChaCha8Rng) -> Deed {
        falsify(self.garbage, reply, rng).map_or(Deed::Spare, Deed::Falsify)
    }
}

/// The reply with another body, and the length of that; nothing if it has no body.
fn falsify(garbage: Garbage, reply: &[u8], rng: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    // An interim reply before it goes on as it is.
    let interim = reply.starts_with(b"HTTP/1.1 1").then(|| head_end(reply)).flatten().unwrap_or(0);
    let (before, reply) = reply.split_at(interim);
    let (head, body) = reply.split_at(head_end(reply)?);
    if body.is_empty() {
        return None;
    }
    let other = match garbage {
        Garbage::Bytes => body.iter().map(|_| rng.random()).collect(),
        Garbage::Half => body[..body.len() / 2].to_vec(),
        Garbage::Empty => Vec::new(),
        Garbage::Html => PAGE.to_vec(),
    };
    let mut bytes = before.to_vec();
    for line in head.trim_ascii_end().split(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default().to_ascii_lowercase();
        if name != b"content-length" && name != b"transfer-encoding" {
            bytes.extend_from_slice(line.trim_ascii_end());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", other.len()).as_bytes());
    bytes.extend_from_slice(&other);
    Some(bytes)
}

fn head_end(reply: &[u8]) -> Option<usize> {
    reply.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn proxy_garbage_keeps_the_head_and_frames_itself() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let reply = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n4\r\ndone\r\n0\r\n\r\n";
        for (garbage, len) in [(Garbage::Bytes, 14), (Garbage::Half, 7), (Garbage::Empty, 0), (Garbage::Html, 62)] {
            let other = falsify(garbage, reply, &mut rng).unwrap();
            let head = format!("HTTP/1.1 201 Created\r\nx: y\r\ncontent-length: {len}\r\n\r\n");
            assert!(other.starts_with(head.as_bytes()), "{}", String::from_utf8_lossy(&other));
            assert_eq!(other.len(), head.len() + len);
        }
        assert_eq!(falsify(Garbage::Empty, b"HTTP/1.1 204 No Content\r\n\r\n", &mut rng), None);
    }
}
