//! What the buyer's page is made of beside its text: style, script and picture, built into the program. The address of each has a
//! digest of its content, so that whoever has it never has to ask for it again (P6).

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest, Sha256};

use crate::problem::{Kind, Problem};

/// Where they are.
const FOLDER: &str = "/assets/";

/// Each part of the script looks after one thing; together they are one file, which shares no name with anything else.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("../../page/words.js"),
    include_str!("../../page/http.js"),
    include_str!("../../page/clock.js"),
    include_str!("../../page/watch.js"),
    include_str!("../../page/purchase.js"),
    include_str!("../../page/view.js"),
    include_str!("../../page/start.js"),
    "})();\n",
);

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("page.css", "text/css; charset=utf-8", include_str!("../../page/page.css")));
static CODE: LazyLock<Asset> = LazyLock::new(|| Asset::new("page.js", "text/javascript; charset=utf-8", SCRIPT));
static ART: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("art.svg", "image/svg+xml", include_str!("../../page/art.svg")));

/// A file that never changes under its address.
pub struct Asset {
    address: String,
    content_type: HeaderValue,
    body: &'static str,
}

impl Asset {
    fn new(name: &str, content_type: &'static str, body: &'static str) -> Self {
        let digest = Sha256::digest(body.as_bytes());
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { address: format!("{FOLDER}{digest}.{name}"), content_type: HeaderValue::from_static(content_type), body }
    }

    /// Its path on this server.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The file. Nobody who has it asks again, so nothing is said about how to ask.
    pub fn reply(&self) -> Response {
        let head = [
            (header::CONTENT_TYPE, self.content_type.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        (head, Bytes::from_static(self.body.as_bytes())).into_response()
    }
}

/// How the page looks.
pub fn style() -> &'static Asset {
    &STYLE
}

/// What the page does.
pub fn script() -> &'static Asset {
    &CODE
}

/// The picture.
pub fn art() -> &'static Asset {
    &ART
}

/// Whether this is the address of an asset, of this build or another.
pub fn is_asset(path: &str) -> bool {
    path.starts_with(FOLDER)
}

/// The asset of this build that has this address. Another build's has another digest, and is not here.
pub fn find(path: &str) -> Option<&'static Asset> {
    [style(), script(), art()].into_iter().find(|asset| asset.address == path)
}

/// The route by which the service gives them.
pub(super) async fn get(Path(name): Path<String>) -> Result<Response, Problem> {
    let asset = find(&format!("{FOLDER}{name}"));
    asset.map(Asset::reply).ok_or_else(|| Problem::because(Kind::NotFound, "no such asset in this build"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_one_content() {
        let (one, other) = (Asset::new("a.js", "text/javascript", "1"), Asset::new("a.js", "text/javascript", "2"));
        assert_ne!(one.address(), other.address());
        assert!(is_asset(one.address()) && find(one.address()).is_none());
        for asset in [style(), script(), art()] {
            assert!(find(asset.address()).is_some_and(|found| std::ptr::eq(found, asset)));
            let reply = asset.reply();
            assert!(reply.headers()[header::CACHE_CONTROL].to_str().unwrap().ends_with("immutable"));
        }
    }

    /// Whatever is not built in would be asked of somebody else.
    #[test]
    fn nothing_is_taken_from_elsewhere() {
        for text in [style().body, script().body, include_str!("../../page/page.html")] {
            assert!(!text.contains("://") && !text.contains("@import") && !text.contains("src=\"//"), "{text}");
        }
        assert!(!script().body.contains("innerHTML"), "text is set as text");
    }
}
