//! What a reply means: ok, definitely refused, or indeterminate. The one place that decides it.

use super::client::Broken;
use crate::history::Outcome;

/// How an attempt ended, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// Ok, fail or info.
    pub outcome: Outcome,
    /// The reason; empty when ok.
    pub reason: String,
}

/// Classifies a whole reply by the contract: 2xx and 304 are ok; 5xx may have taken effect; everything else is a
/// definite refusal, named by the `type` of its problem document (RFC 9457) since sold out is a 409 like others.
pub fn reply(status: u16, body: &[u8]) -> Classified {
    let outcome = match status {
        200..=299 | 304 => return Classified { outcome: Outcome::Ok, reason: String::new() },
        500.. => Outcome::Info,
        _ => Outcome::Fail,
    };
    let reason = problem_type(body).unwrap_or_else(|| format!("http-{status}"));
    Classified { outcome, reason }
}

/// Classifies an attempt without a reply: only one that provably sent nothing is a failure.
pub fn broken(broken: Broken) -> Classified {
    let outcome = if broken == Broken::NotSent { Outcome::Fail } else { Outcome::Info };
    Classified { outcome, reason: broken.reason().to_owned() }
}

/// Whether trying again under the same key can help.
pub fn worth_retrying(classified: &Classified, status: u16) -> bool {
    match classified.outcome {
        Outcome::Info => true,
        Outcome::Fail => status == 429 || matches!(classified.reason.as_str(), "in-flight" | "not-sent"),
        Outcome::Ok | Outcome::Dropped => false,
    }
}

fn problem_type(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let kind = problem.get("type")?.as_str()?;
    let slug = kind.rsplit(['/', '#', ':']).next().unwrap_or(kind);
    (!slug.is_empty() && slug != "blank").then(|| slug.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_is_named_by_its_problem_type() {
        let sold_out = reply(409, br#"{"type":"https://shop.example/problems/sold-out","status":409}"#);
        assert_eq!(sold_out, Classified { outcome: Outcome::Fail, reason: "sold-out".into() });
        assert_eq!(reply(404, b"nope").reason, "http-404");
        assert_eq!(reply(400, br#"{"type":"about:blank"}"#).reason, "http-400");
    }

    #[test]
    fn what_may_have_happened_is_worth_another_try() {
        for (status, body, again) in [
            (503, &br#"{"type":"timeout"}"#[..], true),
            (409, br#"{"type":"in-flight"}"#, true),
            (429, b"", true),
            (409, br#"{"type":"sold-out"}"#, false),
            (201, b"{}", false),
        ] {
            assert_eq!(worth_retrying(&reply(status, body), status), again, "{status}");
        }
        assert!(worth_retrying(&broken(Broken::Timeout), 0) && worth_retrying(&broken(Broken::NotSent), 0));
        assert_eq!(broken(Broken::NotSent).outcome, Outcome::Fail);
        assert_eq!(broken(Broken::Reset).outcome, Outcome::Info);
    }

    proptest! {
        #[test]
        fn never_takes_a_server_error_for_a_refusal(status in 500u16..1000, body: Vec<u8>) {
            prop_assert_eq!(reply(status, &body).outcome, Outcome::Info);
        }

        #[test]
        fn never_takes_a_refusal_for_an_acknowledgement(status in 400u16..500, body: Vec<u8>) {
            prop_assert_eq!(reply(status, &body).outcome, Outcome::Fail);
        }
    }
}
