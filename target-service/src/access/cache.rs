//! What the access layer keeps in memory for a short time: pages in both forms (P5) and states (M2) of items, and how old they are.
//!
//! Only what the service answered with success is kept. Of those who ask at once for something that is not there, one asks
//! the service, and the others wait for his reply. What was seen last stays, for when no service answers any more (L4).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use moka::future::Cache as Kept;
use serde_json::Value;

use crate::degrade::levels::Level;
use crate::gateway::DEGRADE_LEVEL;
use crate::switches::SwitchId;

/// More items than a sale has.
const MOST_ITEMS: u64 = 4_096;

/// What can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// An item's page, which is the same for everybody and changes with the sale only.
    Page,
    /// The same for people, as HTML.
    View,
    /// An item's state, which is old as soon as it is known.
    State,
}

impl What {
    pub(super) fn switch(self) -> SwitchId {
        match self {
            What::Page | What::View => SwitchId::P5,
            What::State => SwitchId::M2,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            What::Page => "page",
            What::View => "view",
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
            What::Page | What::View => fetched.body.clone(),
            What::State => declared_stale(&fetched.body),
        };
        Copy { fetched, stale, since: Instant::now() }
    }

    /// The reply while the service does not answer: as it was, with nothing on sale.
    pub(super) fn without_service(&self, what: What) -> Response {
        let mut headers = self.fetched.headers.clone();
        let body = match what {
            What::Page | What::View => self.fetched.body.clone(),
            What::State => said(&self.stale, "on_sale", false),
        };
        headers.insert(header::AGE, HeaderValue::from(self.since.elapsed().as_secs()));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(DEGRADE_LEVEL, HeaderValue::from(u16::from(Level::Static.number())));
        Fetched { status: self.fetched.status, headers, body }.reply()
    }

    /// The reply to a request with these headers: to the one that it was fetched for as the service gave it, and to every other
    /// one with its age.
    pub(super) fn reply(&self, request: &HeaderMap, is_fresh: bool) -> Response {
        let mut headers = self.fetched.headers.clone();
        if !is_fresh {
            headers.insert(header::AGE, HeaderValue::from(self.since.elapsed().as_secs()));
        }
        let body = if is_fresh { &self.fetched.body } else { &self.stale };
        let known = request.get(header::IF_NONE_MATCH).zip(headers.get(header::ETAG));
        let (status, body) = match known {
            Some((known, etag)) if known == etag => {
                headers.remove(header::CONTENT_LENGTH);
                headers.remove(header::CONTENT_TYPE);
                (StatusCode::NOT_MODIFIED, Bytes::new())
            }
            _ => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
                (self.fetched.status, body.clone())
            }
        };
        Fetched { status, headers, body }.reply()
    }
}

/// The state with `stale` set: `as_of` stays what the service said. What is no state stays what it is.
fn declared_stale(body: &Bytes) -> Bytes {
    said(body, "stale", true)
}

/// The body with one more thing said, if it is a JSON object.
fn said(body: &Bytes, what: &str, is_so: bool) -> Bytes {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut state)) => {
            state.insert(what.to_owned(), Value::Bool(is_so));
            Value::Object(state).to_string().into()
        }
        _ => body.clone(),
    }
}

/// An item, and how often everything had been forgotten when it was asked for. What was on its way from the service at a purge is then
/// kept where nobody looks any more.
type Key = (u64, i64);

/// Every kind, each with its own age limit, and what was seen last of all.
pub(super) struct Cache {
    pages: Kept<Key, Arc<Copy>>,
    views: Kept<Key, Arc<Copy>>,
    states: Kept<Key, Arc<Copy>>,
    last: Kept<(What, Key), Arc<Copy>>,
    /// How often everything was to be forgotten.
    purges: AtomicU64,
}

impl Cache {
    pub(super) fn new(page_ttl: Duration, state_ttl: Duration) -> Cache {
        let kept = |ttl| Kept::builder().max_capacity(MOST_ITEMS).time_to_live(ttl).build();
        let last = Kept::builder().max_capacity(3 * MOST_ITEMS).build();
        Cache { pages: kept(page_ttl), views: kept(page_ttl), states: kept(state_ttl), last, purges: AtomicU64::new(0) }
    }

    fn key(&self, item: i64) -> Key {
        (self.purges.load(Ordering::SeqCst), item)
    }

    /// Forgets everything, and says how often that was done.
    pub(super) fn purge(&self) -> u64 {
        let purges = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        // Only the room that it takes is left to give back.
        for kept in [&self.pages, &self.views, &self.states] {
            kept.invalidate_all();
        }
        self.last.invalidate_all();
        purges
    }

    /// What is kept of an item, or what the service says now, and whether it says it for this very request; its refusals are not
    /// kept.
    pub(super) async fn get(
        &self,
        what: What,
        item: i64,
        fetch: impl Future<Output = Fetched>,
    ) -> Result<(Arc<Copy>, bool), Arc<Fetched>> {
        let kept = match what {
            What::Page => &self.pages,
            What::View => &self.views,
            What::State => &self.states,
        };
        let load = async {
            let fetched = fetch.await;
            if fetched.status == StatusCode::OK { Ok(Arc::new(Copy::new(what, fetched))) } else { Err(fetched) }
        };
        let key = self.key(item);
        let entry = kept.entry(key).or_try_insert_with(load).await?;
        let is_fresh = entry.is_fresh();
        if is_fresh {
            self.last.insert((what, key), Arc::clone(entry.value())).await;
        }
        Ok((entry.into_value(), is_fresh))
    }

    /// What was seen last of an item, however old.
    pub(super) async fn last(&self, what: What, item: i64) -> Option<Arc<Copy>> {
        self.last.get(&(what, self.key(item))).await
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
        let (first, fresh) = state(r#"{"available":5,"as_of":7,"stale":false}"#).await.unwrap();
        assert!(fresh && !first.reply(&HeaderMap::new(), fresh).headers().contains_key("age"), "it is no copy yet");
        let (again, fresh) = state(r#"{"available":4,"as_of":8,"stale":false}"#).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again) && !fresh, "within its time");
        let shown: Value = serde_json::from_slice(&again.stale).unwrap();
        assert_eq!(shown, serde_json::json!({"available": 5, "as_of": 7, "stale": true}));
        let reply = again.reply(&HeaderMap::new(), false);
        assert_eq!((reply.status(), reply.headers()["age"].to_str().unwrap()), (StatusCode::OK, "0"));
        tokio::time::sleep(Duration::from_millis(60)).await;
        let (later, fresh) = state(r#"{"available":4}"#).await.unwrap();
        assert!(fresh && later.stale.starts_with(br#"{"available":4"#), "past its time");
    }

    #[tokio::test]
    async fn a_refusal_is_not_kept() {
        let cache = Cache::new(Duration::from_secs(60), Duration::from_secs(60));
        let refused = cache.get(What::Page, 1, async { says(StatusCode::SERVICE_UNAVAILABLE, "") }).await;
        assert_eq!(refused.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        let (found, _) = cache.get(What::Page, 1, async { says(StatusCode::OK, "page") }).await.unwrap();
        assert_eq!(found.stale, Bytes::from_static(b"page"));
    }

    #[tokio::test]
    async fn what_was_on_its_way_at_a_purge_is_not_kept() {
        let cache = Arc::new(Cache::new(Duration::from_secs(60), Duration::from_secs(60)));
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let slow = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move {
                let load = async {
                    told.await.unwrap();
                    says(StatusCode::OK, "old")
                };
                cache.get(What::View, 1, load).await.map(|(kept, _)| kept.stale.clone())
            })
        };
        tokio::task::yield_now().await;
        cache.purge();
        tell.send(()).unwrap();
        assert_eq!(slow.await.unwrap().unwrap(), Bytes::from_static(b"old"), "it was asked for before");
        let (found, _) = cache.get(What::View, 1, async { says(StatusCode::OK, "new") }).await.unwrap();
        assert_eq!(found.stale, Bytes::from_static(b"new"));
    }
}
