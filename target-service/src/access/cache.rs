//! What the access layer keeps in memory for a short time: pages (P5) and states (M2) of items, and how old they are.
//!
//! Only what the service answered with success is kept. Of those who ask at once for something that is not there, one asks
//! the service, and the others wait for his reply.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use moka::future::Cache as Kept;
use serde_json::Value;

use crate::switches::SwitchId;

/// More items than a sale has.
const MOST_ITEMS: u64 = 4_096;

/// What can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An item's page, which is the same for everybody and changes with the sale only.
    Page,
    /// An item's state, which is old as soon as it is known.
    State,
}

impl What {
    pub(super) fn switch(self) -> SwitchId {
        match self {
            What::Page => SwitchId::P5,
            What::State => SwitchId::M2,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            What::Page => "page",
            What::State => "state",
        }
    }
}

/// A reply of the service, whole.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Fetched {
    /// The reply as it came.
    pub(super) fn reply(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers.clone());
        response
    }
}

/// A reply that is kept.
#[derive(Debug)]
pub(super) struct Copy {
    fetched: Fetched,
    /// The body for everybody but the first: a state that says that it may be old.
    stale: Bytes,
    since: Instant,
}

impl Copy {
    fn new(what: What, fetched: Fetched) -> Copy {
        let stale = match what {
            What::Page => fetched.body.clone(),
            What::State => declared_stale(&fetched.body),
        };
        Copy { fetched, stale, since: Instant::now() }
    }

    /// The reply to a request with these headers, with its age.
    pub(super) fn reply(&self, request: &HeaderMap) -> Response {
        let mut headers = self.fetched.headers.clone();
        headers.insert(header::AGE, HeaderValue::from(self.since.elapsed().as_secs()));
        let known = request.get(header::IF_NONE_MATCH).zip(headers.get(header::ETAG));
        let (status, body) = match known {
            Some((known, etag)) if known == etag => {
                headers.remove(header::CONTENT_LENGTH);
                headers.remove(header::CONTENT_TYPE);
                (StatusCode::NOT_MODIFIED, Bytes::new())
            }
            _ => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.stale.len()));
                (self.fetched.status, self.stale.clone())
            }
        };
        Fetched { status, headers, body }.reply()
    }
}

/// The state with `stale` set: `as_of` stays what the service said. What is no state stays what it is.
fn declared_stale(body: &Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut state)) => {
            state.insert("stale".to_owned(), Value::Bool(true));
            Value::Object(state).to_string().into()
        }
        _ => body.clone(),
    }
}

/// Both kinds, each with its own age limit.
pub(super) struct Cache {
    pages: Kept<i64, Arc<Copy>>,
    states: Kept<i64, Arc<Copy>>,
}

impl Cache {
    pub(super) fn new(page_ttl: Duration, state_ttl: Duration) -> Cache {
        let kept = |ttl| Kept::builder().max_capacity(MOST_ITEMS).time_to_live(ttl).build();
        Cache { pages: kept(page_ttl), states: kept(state_ttl) }
    }

    /// What is kept of an item, or what the service says now; its refusals are not kept.
    pub(super) async fn get(
        &self,
        what: What,
        item: i64,
        fetch: impl Future<Output = Fetched>,
    ) -> Result<Arc<Copy>, Arc<Fetched>> {
        let kept = match what {
            What::Page => &self.pages,
            What::State => &self.states,
        };
        let load = async {
            let fetched = fetch.await;
            if fetched.status == StatusCode::OK { Ok(Arc::new(Copy::new(what, fetched))) } else { Err(fetched) }
        };
        kept.try_get_with(item, load).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(status: StatusCode, body: &'static str) -> Fetched {
        Fetched { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[tokio::test]
    async fn a_state_is_kept_for_its_time_and_says_that_it_may_be_old() {
        let cache = Cache::new(Duration::from_secs(60), Duration::from_millis(40));
        let state = |body| cache.get(What::State, 1, async move { says(StatusCode::OK, body) });
        let first = state(r#"{"available":5,"as_of":7,"stale":false}"#).await.unwrap();
        let again = state(r#"{"available":4,"as_of":8,"stale":false}"#).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "within its time");
        let shown: Value = serde_json::from_slice(&again.stale).unwrap();
        assert_eq!(shown, serde_json::json!({"available": 5, "as_of": 7, "stale": true}));
        let reply = again.reply(&HeaderMap::new());
        assert_eq!((reply.status(), reply.headers()["age"].to_str().unwrap()), (StatusCode::OK, "0"));
        tokio::time::sleep(Duration::from_millis(60)).await;
        let later = state(r#"{"available":4}"#).await.unwrap();
        assert!(later.stale.starts_with(br#"{"available":4"#), "past its time");
    }

    #[tokio::test]
    async fn a_refusal_is_not_kept() {
        let cache = Cache::new(Duration::from_secs(60), Duration::from_secs(60));
        let refused = cache.get(What::Page, 1, async { says(StatusCode::SERVICE_UNAVAILABLE, "") }).await;
        assert_eq!(refused.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        let found = cache.get(What::Page, 1, async { says(StatusCode::OK, "page") }).await.unwrap();
        assert_eq!(found.stale, Bytes::from_static(b"page"));
    }
}
