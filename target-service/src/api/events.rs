//! What an open page waits for: the opening of the sale, as server-sent events (the HTML standard, section 9.2).
//!
//! The first event shows the item's state, and the last one, `open` or `ended`, ends the stream. The sale's times are read
//! once for each stream, so thousands of open pages do not ask the database again and again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use futures_util::stream::{Stream, unfold};

use super::items::Shelf;
use super::parse_id;
use crate::app::App;
use crate::problem::Problem;

/// How long a client waits before it asks for a broken stream again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the clock is looked at: it may be set while somebody waits.
const LOOK: Duration = Duration::from_millis(100);

/// The ids of the two events.
const STATE: &str = "1";
const LAST: &str = "2";

/// What comes next in a stream.
enum Next {
    State,
    Last,
    Nothing,
}

/// The events of an item, after the one that the client has seen last.
pub(super) async fn item(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let shelf = Shelf::read(&app, parse_id(&id)?).await?;
    let next = match headers.get("last-event-id").and_then(|id| id.to_str().ok()) {
        Some(STATE) => Next::Last,
        Some(LAST) => Next::Nothing,
        _ => Next::State,
    };
    let events = unfold((app, shelf, next), async |(app, shelf, next)| {
        let (event, id, next) = match next {
            Next::State => ("state", STATE, Next::Last),
            Next::Last => (last(&app, &shelf).await?, LAST, Next::Nothing),
            Next::Nothing => return None,
        };
        let data = shelf.state(app.clock.now_us()).to_string();
        Some((Ok(Event::default().event(event).id(id).retry(RETRY).data(data)), (app, shelf, next)))
    });
    Ok(Sse::new(events))
}

/// Waits for the opening, and gives the name of the last event; none if the process ends before.
async fn last(app: &App, shelf: &Shelf) -> Option<&'static str> {
    loop {
        let now = app.clock.now_us();
        if now >= shelf.closes_at {
            return Some("ended");
        }
        let Ok(left) = u64::try_from(shelf.opens_at - now) else { return Some("open") };
        if left == 0 {
            return Some("open");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK.min(Duration::from_micros(left))) => {}
            () = app.shutdown.cancelled() => return None,
        }
    }
}
