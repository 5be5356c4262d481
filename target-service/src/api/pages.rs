//! Static item pages, as data and as HTML, encoded once and kept in memory.
//!
//! Nothing on a page changes during a sale, so a page lives until the next reset. Everything that does
//! change is in the item's state, which is not kept here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{assets, view};
use crate::store::{Store, StoreError};

/// More items than a sale has. Beyond it pages are made for each request.
const MAX_PAGES: usize = 1024;

const ITEM: &str = "SELECT title, price_cents, stock_initial, per_user_limit, opens_at_us, closes_at_us, hold_ms \
                    FROM item WHERE id = $1";

/// A page, ready to be sent.
pub struct Page {
    body: Bytes,
    etag: HeaderValue,
    /// What its content is, and what may be done with it.
    content: HeaderMap,
}

/// An item's page in both forms.
pub struct Printed {
    /// As JSON.
    pub data: Page,
    /// As HTML.
    pub view: Page,
}

/// The pages made so far.
#[derive(Default)]
pub struct Pages {
    made: RwLock<HashMap<i64, Arc<Printed>>>,
}

impl Pages {
    /// An item's page, from memory if allowed, or nothing when there is no such item.
    pub async fn get(&self, store: &Store, id: i64, cached: bool) -> Result<Option<Arc<Printed>>, StoreError> {
        if let Some(page) = self.kept(id).filter(|_| cached) {
            return Ok(Some(page));
        }
        let Some(page) = load(store, id).await?.map(Arc::new) else {
            return Ok(None);
        };
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        if cached && made.len() < MAX_PAGES {
            made.insert(id, Arc::clone(&page));
        }
        Ok(Some(page))
    }

    /// An item's page, if it is in memory.
    pub fn kept(&self, id: i64) -> Option<Arc<Printed>> {
        self.made.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone)
    }

    /// Forgets every page.
    pub fn clear(&self) {
        self.made.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Page {
    fn new(body: String, content: HeaderMap) -> Self {
        let digest = Sha256::digest(body.as_bytes());
        let etag = format!("\"{}\"", BASE64.encode(&digest[..12]));
        let etag = HeaderValue::from_str(&etag).expect("base64 in quotes is a header value");
        Self { body: body.into(), etag, content }
    }

    /// The page, or 304 when the client has it already.
    pub fn reply(&self, request: &HeaderMap) -> Response {
        let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let matches = known.flat_map(|list| list.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.etag.as_bytes()
        });
        let validators = [
            (header::ETAG, self.etag.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
        ];
        if matches {
            return (StatusCode::NOT_MODIFIED, validators).into_response();
        }
        (validators, self.content.clone(), self.body.clone()).into_response()
    }
}

fn json_content() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// Of every page for people, kept or not.
pub fn html_content() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(view::POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ])
}

async fn load(store: &Store, id: i64) -> Result<Option<Printed>, StoreError> {
    let mut lease = store.lease().await?;
    let Some(row) = lease.query_opt(ITEM, &[&id]).await? else {
        return Ok(None);
    };
    let title: String = row.get("title");
    let item = view::Item {
        id,
        title: &title,
        price_cents: row.get("price_cents"),
        stock: row.get("stock_initial"),
        limit: row.get("per_user_limit"),
        opens_at_us: row.get("opens_at_us"),
        closes_at_us: row.get("closes_at_us"),
        hold_ms: row.get("hold_ms"),
    };
    let data = json!({
        "item": id,
        "description": describe(&title),
        "title": title,
        "price_cents": item.price_cents,
        "stock_initial": item.stock,
        "per_user_limit": item.limit,
        "opens_at": item.opens_at_us,
        "closes_at": item.closes_at_us,
        "hold_ms": item.hold_ms,
        "images": [assets::art().address()],
    });
    Ok(Some(Printed {
        data: Page::new(data.to_string(), json_content()),
        view: Page::new(view::page(&item), html_content()),
    }))
}

/// A page's bulk. Its size matters more to a rehearsal than its wording.
fn describe(title: &str) -> String {
    const PARAGRAPH: &str = "One of a limited run, sold once and in order of arrival. The price holds for this sale \
        only; the number of units is what the page says and will not be raised. An order holds its units until it \
        is paid or the time to pay runs out, after which they go back on sale. ";
    let mut text = format!("{title}. ");
    while text.len() < 3_400 {
        text.push_str(PARAGRAPH);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_page_is_not_sent_again() {
        let page = Page::new("{}".into(), json_content());
        let tag = page.etag.to_str().unwrap().to_owned();
        let status = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            page.reply(&headers).status().as_u16()
        };
        assert_eq!(status(&tag), 304);
        assert_eq!(status(&format!("\"other\", W/{tag}")), 304);
        assert_eq!(status("*"), 304);
        assert_eq!(status("\"other\""), 200);
        assert_eq!(page.reply(&HeaderMap::new()).status().as_u16(), 200);
    }
}
