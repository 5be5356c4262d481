//! Putting an item's state into its page on the way to the buyer (P9, edge side includes): he sees all of it at once, and no cache on the
//! way may keep it any more.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use crate::gateway::{DEGRADE_LEVEL, MAX_BODY_BYTES};

/// Where the state belongs. Whoever knows nothing of such includes takes it for a comment.
const BEGIN: &str = "<!--esi ";
const END: &str = "-->";

/// The page with the state in it; as it is, without one or without a place for it, since its script asks for what is not there.
pub(super) async fn assembled(page: Response, state: Option<Response>) -> Response {
    let Some(state) = state.filter(|state| state.status() == StatusCode::OK && page.status() == StatusCode::OK) else {
        return page;
    };
    let level = state.headers().get(DEGRADE_LEVEL).and_then(|level| level.to_str().ok()?.parse::<u16>().ok());
    let (mut head, body) = page.into_parts();
    // Both are in memory already.
    let page = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let state = to_bytes(state.into_body(), MAX_BODY_BYTES).await.unwrap_or_default();
    let Some(whole) = included(&page, &state, level.unwrap_or(0)) else {
        return Response::from_parts(head, Body::from(page));
    };
    for name in [header::ETAG, header::AGE] {
        head.headers.remove(name);
    }
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    Response::from_parts(head, Body::from(whole))
}

fn included(page: &[u8], state: &[u8], level: u16) -> Option<Bytes> {
    let (page, state) = (std::str::from_utf8(page).ok()?, std::str::from_utf8(state).ok()?);
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    // A script element ends at the first thing that looks like its end, whatever quotes it stands in.
    let state = state.replace('<', "\\u003c");
    let script = format!("<script type=\"application/json\" id=\"state\" data-level=\"{level}\">{state}</script>");
    Some([before, &script, after].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_takes_the_place_that_is_kept_for_it() {
        let page = b"<p>a</p><!--esi <esi:include src=\"/items/1/state\"/> --><p>b</p>";
        let whole = included(page, br#"{"x":"</script>"}"#, 2).unwrap();
        let wanted = r#"<p>a</p><script type="application/json" id="state" data-level="2">{"x":"\u003c/script>"}</script><p>b</p>"#;
        assert_eq!(whole, wanted);
        assert!(included(b"<p>a</p>", b"{}", 0).is_none(), "there is no place for it");
    }
}
