//! The payment dependency as the service sees it: what its replies mean, and when it is worth asking again.
//!
//! Only a reply that speaks of this very key, order and amount says anything (R5). Everything else, like no reply at all, is
//! unclear, and an unclear capture is asked about by its key. What stays unclear is never guessed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use hyper::http::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::dependency::{Call, Dependency};
use crate::payment::books::{Account, State};
use crate::store::intents::Intent;

/// How long one call may take (R4).
pub const CALL: Duration = Duration::from_millis(400);
/// How long all tries of one capture may take together; less than a request may.
const ALL_TRIES: Duration = Duration::from_millis(1_300);
/// Tries at most.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(40);

/// What is known of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The money was taken.
    Taken,
    /// It was not, and will not be.
    Declined,
    /// It was given back, or its taking called off.
    GivenBack,
    /// Nobody knows: it may have been taken, or may still be.
    Unclear(String),
}

/// The way to the payment dependency.
pub struct Payments {
    dependency: Dependency,
    budget: Budget,
}

impl Payments {
    /// Payments through this dependency.
    pub fn new(dependency: Dependency) -> Self {
        Self { dependency, budget: Budget::default() }
    }

    /// Whether the dependency is not asked for anything at this moment.
    pub fn is_cut_off(&self) -> bool {
        self.dependency.is_cut_off()
    }

    /// Takes the money for an order, once, however often it is asked for.
    pub async fn capture(&self, intent: &Intent) -> Capture {
        let end = Instant::now() + ALL_TRIES;
        let mut last = self.try_capture(intent).await;
        self.budget.earn();
        for _ in 1..TRIES {
            let Capture::Unclear(_) = &last else { return last };
            if Instant::now() + PAUSE + CALL > end || !self.budget.spend() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            last = self.try_capture(intent).await;
        }
        match last {
            Capture::Unclear(why) if Instant::now() < end => self.look_up(intent, why).await,
            clear => clear,
        }
    }

    async fn try_capture(&self, intent: &Intent) -> Capture {
        let body = json!({"order": intent.order.to_string(), "amount_cents": intent.amount_cents}).to_string();
        let headers = [("idempotency-key", intent.key.as_str()), ("content-type", "application/json")];
        let call = Call { method: Method::POST, path: "/captures", headers: &headers, body: Bytes::from(body) };
        // That nothing was sent just now says nothing of the tries before, perhaps by somebody else: it is unclear as ever.
        match self.dependency.call(call, CALL, |status, body| meaning(intent, status, body)).await {
            Ok((_, Some(clear))) => clear,
            Ok((status, None)) => Capture::Unclear(format!("a reply that makes no sense, with status {status}")),
            Err(error) => Capture::Unclear(error.to_string()),
        }
    }

    /// Asks what became of a capture. That there is none now does not mean that there will be none: it may be on its way.
    async fn look_up(&self, intent: &Intent, why: String) -> Capture {
        let path = format!("/captures?key={}", intent.key);
        let call = Call { method: Method::GET, path: &path, headers: &[], body: Bytes::new() };
        // Any other status than 200 makes sense, and tells nothing.
        let read = |status, body: &[u8]| match status {
            200 => account(intent, body).map(|account| Some(told(&account))),
            _ => Some(None),
        };
        match self.dependency.call(call, CALL, read).await {
            Ok((_, Some(Some(clear)))) => clear,
            _ => Capture::Unclear(why),
        }
    }

    /// Gives the money back, or has its taking called off; says whether that is certain.
    pub async fn refund(&self, intent: &Intent) -> Result<(), String> {
        let body = Bytes::from(json!({"key": intent.key}).to_string());
        let headers = [("content-type", "application/json")];
        let call = Call { method: Method::POST, path: "/refunds", headers: &headers, body };
        let read = |status, body: &[u8]| is_back(intent, status, body).then_some(());
        match self.dependency.call(call, CALL, read).await {
            Ok((_, Some(()))) => Ok(()),
            Ok((status, None)) => Err(format!("a reply to a refund that makes no sense, with status {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether a reply to a refund says that the money is not with us. What was called off before it came carries neither order
/// nor amount.
fn is_back(intent: &Intent, status: u16, body: &[u8]) -> bool {
    let said: Option<Account> = serde_json::from_slice(body).ok();
    said.is_some_and(|account| status == 200 && account.key == intent.key && account.state != State::Captured)
}

/// What a reply to a capture means: status and body have to say the same, or it makes no sense.
fn meaning(intent: &Intent, status: u16, body: &[u8]) -> Option<Capture> {
    let account = account(intent, body)?;
    let fits = match account.state {
        State::Captured | State::Refunded => matches!(status, 200 | 201),
        State::Declined => status == 402,
        State::Voided => status == 409,
    };
    fits.then(|| told(&account))
}

/// The account that a reply tells of, if it is this intent's.
fn account(intent: &Intent, body: &[u8]) -> Option<Account> {
    let account: Account = serde_json::from_slice(body).ok()?;
    let ours = account.order == intent.order.to_string() && account.amount_cents == intent.amount_cents;
    (account.key == intent.key && (ours || account.state == State::Voided)).then_some(account)
}

fn told(account: &Account) -> Capture {
    match account.state {
        State::Captured => Capture::Taken,
        State::Declined => Capture::Declined,
        State::Refunded | State::Voided => Capture::GivenBack,
    }
}

/// Retries are at most a fifth of the first tries, and a few more: a dependency in trouble must not be asked three times as
/// much because of it.
#[derive(Debug)]
struct Budget {
    tokens: AtomicU32,
}

/// Each first try earns one token.
const RETRY_COSTS: u32 = 5;
const MOST_TOKENS: u32 = 100;

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: AtomicU32::new(MOST_TOKENS) }
    }
}

impl Budget {
    fn earn(&self) {
        let more = |tokens: u32| (tokens < MOST_TOKENS).then_some(tokens + 1);
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn spend(&self) -> bool {
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(RETRY_COSTS)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::intents::IntentState;

    fn intent() -> Intent {
        let (key, user) = ("order-17-1".into(), "u1".into());
        Intent { key, order: 17, user, amount_cents: 9_900, asked_at: 0, state: IntentState::Capturing }
    }

    fn said(status: u16, key: &str, amount_cents: i64, state: &str) -> Option<Capture> {
        let body = json!({"key": key, "order": "17", "amount_cents": amount_cents, "state": state, "type": "x"});
        meaning(&intent(), status, body.to_string().as_bytes())
    }

    #[test]
    fn a_reply_counts_only_if_it_speaks_of_this_payment() {
        assert_eq!(said(201, "order-17-1", 9_900, "captured"), Some(Capture::Taken));
        assert_eq!(said(200, "order-17-1", 9_900, "captured"), Some(Capture::Taken));
        assert_eq!(said(402, "order-17-1", 9_900, "declined"), Some(Capture::Declined));
        assert_eq!(said(409, "order-17-1", 0, "voided"), Some(Capture::GivenBack));
        assert_eq!(said(200, "order-17-1", 9_900, "refunded"), Some(Capture::GivenBack));
        let unclear = [
            said(201, "order-18-1", 9_900, "captured"),
            said(201, "order-17-1", 1, "captured"),
            said(500, "order-17-1", 9_900, "captured"),
            said(200, "order-17-1", 9_900, "declined"),
            said(201, "order-17-1", 9_900, "fine"),
            meaning(&intent(), 200, b"<html>It works!</html>"),
            meaning(&intent(), 402, b""),
            meaning(&intent(), 404, br#"{"type":"not-found"}"#),
        ];
        for reply in unclear {
            assert_eq!(reply, None);
        }
    }

    #[test]
    fn retries_have_a_budget() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 20);
        (0..10).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 2);
    }
}
