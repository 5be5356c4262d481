//! What is answered instead while ordering is closed (L3) and while everything but static pages is (L4): never an error of the
//! server, and never a promise. A request that is refused here has done nothing.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::levels::Level;
use crate::api::pages::html_content;
use crate::api::{assets, fresh, user_of, view};
use crate::app::App;
use crate::extras;
use crate::problem::{Kind, Problem};

/// What a request is for.
enum Asked {
    Page(i64),
    /// The page for people.
    View(i64),
    State(i64),
    /// A part of it, which is in the program.
    Asset,
    /// What needs no database.
    Light,
    Other,
}

fn asked(request: &Request) -> Asked {
    let path = request.uri().path();
    let get = request.method() == Method::GET;
    let item = path.strip_prefix("/items/").filter(|_| get);
    if let Some(id) = item.and_then(|item| item.parse().ok()) {
        return Asked::Page(id);
    }
    if let Some(id) = item.and_then(|item| item.strip_suffix("/page")?.parse().ok()) {
        return Asked::View(id);
    }
    if assets::is_asset(path) && get {
        return Asked::Asset;
    }
    if let Some(id) = item.and_then(|item| item.strip_suffix("/state")?.parse().ok()) {
        return Asked::State(id);
    }
    if path == "/time" || path == "/sessions" || path.starts_with("/challenges") { Asked::Light } else { Asked::Other }
}

/// What to answer instead of serving a request.
pub struct Instead {
    /// The reply.
    pub reply: Response,
    /// Whether to serve the request all the same, and to give this reply only if that fails: somebody has to try whether it
    /// works again.
    pub is_probe: bool,
}

impl Instead {
    /// Of a request at this level; none if it is to be served.
    pub fn of(app: &App, level: Level, request: &Request) -> Option<Self> {
        if level < Level::Closed {
            return None;
        }
        let asked = asked(request);
        let looks = matches!(asked, Asked::Page(_) | Asked::View(_) | Asked::State(_));
        let is_probe = level == Level::Static && looks && app.degrade.is_probe();
        Some(Self { reply: reply(app, level, request, asked)?, is_probe })
    }
}

fn reply(app: &App, level: Level, request: &Request, asked: Asked) -> Option<Response> {
    match asked {
        Asked::Page(id) => Some(match app.pages.kept(id) {
            Some(page) => page.data.reply(request.headers()),
            None => static_page(id),
        }),
        Asked::View(id) => Some(match app.pages.kept(id) {
            Some(page) => page.view.reply(request.headers()),
            None => static_view(),
        }),
        Asked::Asset => None,
        Asked::State(id) => Some(match app.shelves.last_known(id) {
            Some(seen) => {
                let mut state = seen.state(app.clock.now_us());
                state["on_sale"] = false.into();
                if app.profiles.is_some() && user_of(app, request.headers()).is_ok() {
                    state["you"] = json!(extras::DEFAULT);
                }
                aged(fresh(StatusCode::OK, &state), seen.age().as_secs())
            }
            None => Problem::new(Kind::Degraded).into_response(),
        }),
        Asked::Light if level == Level::Closed => None,
        Asked::Light | Asked::Other => Some(Problem::new(Kind::Degraded).into_response()),
    }
}

/// The page of an item that nobody has looked at yet.
fn static_page(item: i64) -> Response {
    let notice = "The sale is paused; please come back in a moment. 活动暂停，请稍后再试。";
    fresh(StatusCode::OK, &json!({"item": item, "notice": notice}))
}

/// The same for people.
fn static_view() -> Response {
    let not_kept = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (html_content(), not_kept, view::paused()).into_response()
}

/// Says how old a reply is (RFC 9111 5.1).
pub fn aged(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::AGE, HeaderValue::from(seconds));
    response
}
