//! What the access layer looks at before it passes a request on (V2), rule by rule: whether its sender is logged in, whether it is
//! one that the service could grant, and how often its sender has asked in this second.
//!
//! The service looks at the first two itself, too, so that whoever gets past this layer gains nothing by it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use serde::Deserialize;

use crate::config::Secret;
use crate::idempotency::parse_key;
use crate::problem::{Kind, Problem};
use crate::session::Sessions;
use crate::wire::PROTOBUF;

/// Requests that change something which one user may send in a second.
pub const MOST_PER_SECOND: u32 = 10;
/// Users that are counted in a second; further ones are not held to anything.
const MOST_USERS: usize = 100_000;

/// What this layer knows of those who ask.
pub(super) struct Rules {
    /// Who is who; without the service's secret, only that there is a token can be seen.
    sessions: Option<Sessions>,
    begun: Instant,
    second: Mutex<Second>,
}

/// Requests of one second, by user.
#[derive(Default)]
struct Second {
    number: u64,
    requests: HashMap<String, u32>,
}

/// A request that goes no further.
pub(super) struct Objection {
    /// The rule that it breaks.
    pub rule: &'static str,
    /// What its sender is told.
    pub problem: Problem,
}

impl Rules {
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        let sessions = secret.map(|secret| Sessions::new(&secret.0));
        Self { sessions, begun: Instant::now(), second: Mutex::default() }
    }

    /// What is wrong with a request, if it would change something. Logging in takes no login.
    pub(super) fn objection(&self, request: &Parts, body: &[u8]) -> Option<Objection> {
        let path = request.uri.path();
        if request.method != Method::POST || path == "/sessions" {
            return None;
        }
        let of = |rule| move |problem| Objection { rule, problem };
        let user = match self.user_of(&request.headers) {
            Some(user) => user,
            None => return Some(of("login")(Kind::Unauthorized.into())),
        };
        if let Some(item) = path.strip_prefix("/items/").and_then(|rest| rest.strip_suffix("/orders"))
            && let Err(problem) = could_be_granted(item, &request.headers, body)
        {
            return Some(of("legality")(problem));
        }
        let second = self.begun.elapsed().as_secs();
        self.is_too_often(user, second).then(|| of("frequency")(Kind::QuotaExceeded.into()))
    }

    fn user_of(&self, headers: &HeaderMap) -> Option<String> {
        let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let token = Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())?;
        match &self.sessions {
            Some(sessions) => sessions.user_of(token),
            None => Some(token.to_owned()),
        }
    }

    fn is_too_often(&self, user: String, number: u64) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != number {
            *second = Second { number, requests: HashMap::new() };
        }
        if second.requests.len() >= MOST_USERS && !second.requests.contains_key(&user) {
            return false;
        }
        let requests = second.requests.entry(user).or_default();
        *requests += 1;
        *requests > MOST_PER_SECOND
    }
}

#[derive(Deserialize)]
struct Asked {
    quantity: i64,
}

/// Whether an order makes sense, whatever is left. What is wrong is told as the service would tell it.
fn could_be_granted(item: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    item.parse::<i64>().map_err(|_| Problem::because(Kind::NotFound, "identifiers are numbers"))?;
    let key = headers.get("idempotency-key").ok_or(Kind::KeyMissing)?;
    let bad = |why: &dyn std::fmt::Display| Problem::because(Kind::BadRequest, why);
    parse_key(key.to_str().unwrap_or_default()).map_err(|error| bad(&error))?;
    if headers.get(header::CONTENT_TYPE).is_some_and(|value| value == PROTOBUF) {
        return Ok(());
    }
    let Asked { quantity } = serde_json::from_slice(body).map_err(|error| bad(&format!("body: {error}")))?;
    if quantity < 1 {
        return Err(bad(&"quantity must be at least 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn parts(path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn rule(rules: &Rules, path: &str, headers: &[(&str, &str)], body: &str) -> Option<&'static str> {
        rules.objection(&parts(path, headers), body.as_bytes()).map(|objection| objection.rule)
    }

    #[test]
    fn each_rule_has_its_own_objection() {
        let secret: Secret = "00112233445566778899aabbccddeeff".parse().unwrap();
        let rules = Rules::new(Some(&secret));
        let token = |user: &str| format!("Bearer {}", Sessions::new(&secret.0).open(user).unwrap());
        let (mine, foreign) = (token("u"), format!("Bearer {}", Sessions::new(b"other").open("u").unwrap()));
        let (order, one) = ("/items/1/orders", r#"{"quantity":1}"#);
        assert_eq!(rule(&rules, "/sessions", &[], ""), None);
        for headers in [&[][..], &[("authorization", "Bearer ")], &[("authorization", foreign.as_str())]] {
            assert_eq!(rule(&rules, order, headers, one), Some("login"), "{headers:?}");
        }
        let with_key = [("authorization", mine.as_str()), ("idempotency-key", "k")];
        for (path, headers, body) in [
            ("/items/x/orders", &with_key[..], one),
            (order, &with_key[..1], one),
            (order, &with_key, r#"{"quantity":0}"#),
            (order, &with_key, "nonsense"),
        ] {
            assert_eq!(rule(&rules, path, headers, body), Some("legality"), "{path} {body}");
        }
        let often = token("often");
        let with_key = [("authorization", often.as_str()), ("idempotency-key", "k")];
        let told: Vec<_> = (0..3 * MOST_PER_SECOND).map(|_| rule(&rules, order, &with_key, one)).collect();
        assert_eq!(told[..MOST_PER_SECOND as usize], vec![None; MOST_PER_SECOND as usize]);
        assert!(told.contains(&Some("frequency")));
        assert!(!rules.is_too_often("often".into(), u64::MAX), "another second");
    }

    #[test]
    fn without_the_secret_there_has_to_be_a_token() {
        let rules = Rules::new(None);
        assert_eq!(rule(&rules, "/orders/1/pay", &[], ""), Some("login"));
        assert_eq!(rule(&rules, "/orders/1/pay", &[("authorization", "Bearer x")], ""), None);
    }
}
