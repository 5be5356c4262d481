//! Cut reply, for HTTP: the request is carried out and its reply never arrives.

use rand_chacha::ChaCha8Rng;

use super::cutter::{Cutter, Judge};
use super::pick::Picker;
use super::{ArmedToxic, Direction, LinkToxic, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::ReplyPart;

#[derive(Debug, Clone)]
pub(super) struct HttpCutReply {
    pub(super) request: RequestPattern,
    pub(super) picker: Picker,
}

/// Which requests a toxic is about; the default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestPattern {
    /// The method, such as `POST`.
    pub method: Option<String>,
    /// The path without its query, where `*` stands for any text: `/items/*/orders`.
    pub path: Option<String>,
}

impl RequestPattern {
    /// Whether a call written as `METHOD /path?query` matches.
    pub(super) fn fits(&self, call: &str) -> bool {
        let (method, target) = call.split_once(' ').unwrap_or((call, ""));
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_deref().is_none_or(|pattern| glob(pattern, path))
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        // The earliest match leaves the most for the parts that follow.
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

impl ArmedToxic for HttpCutReply {
    fn name(&self) -> &'static str {
        "http_cut_reply"
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
        Box::new(Cutter::new(self.request.clone(), self.picker.clone(), rng))
    }
}

impl Judge for RequestPattern {
    fn may_match(&self, reply: &ReplyPart) -> bool {
        reply.texts.iter().any(|call| self.fits(call))
    }

    fn matches(&self, reply: &ReplyPart) -> bool {
        self.may_match(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_request_patterns() {
        let orders = RequestPattern { method: Some("post".into()), path: Some("/items/*/orders".into()) };
        assert!(orders.fits("POST /items/7/orders"));
        assert!(orders.fits("POST /items/7/orders?x=1"));
        assert!(!orders.fits("GET /items/7/orders"));
        assert!(!orders.fits("POST /items/7"));
        assert!(RequestPattern::default().fits("GET /"));
        assert!(glob("*", "") && glob("a*", "abc") && glob("*c", "abc") && glob("a*b*c", "axbxc"));
        assert!(!glob("abc", "abcd") && !glob("a*b*c", "acb") && !glob("ab*b", "ab"));
    }
}
