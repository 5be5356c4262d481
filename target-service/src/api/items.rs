//! What a buyer reads before ordering: the static page, the small dynamic state, and the server's time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::pages::Printed;
use super::{fresh, parse_id, user_of};
use crate::app::App;
use crate::degrade::instead::aged;
use crate::degrade::levels::Level;
use crate::extras;
use crate::order::Refusal;
use crate::problem::{Kind, Problem};
use crate::store::orders::spread_stock;
use crate::store::{Store, StoreError};
use crate::switches::SwitchId;

const STATE: &str = concat!("SELECT ", spread_stock!(), ", opens_at_us, closes_at_us, id FROM item i WHERE id = $1");
const STATES: &str =
    concat!("SELECT ", spread_stock!(), ", opens_at_us, closes_at_us, id FROM item i WHERE id = ANY($1)");

/// The item's page as data, for programs.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(printed(&app, &id).await?.data.reply(&headers))
}

/// The item's page as HTML, for buyers.
pub(super) async fn view(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(printed(&app, &id).await?.view.reply(&headers))
}

async fn printed(app: &App, id: &str) -> Result<Arc<Printed>, Problem> {
    let id = parse_id(id)?;
    if let Some(slow) = &app.slow_pages {
        slow.wait().await;
    }
    let printed = app.pages.get(&app.store, id, app.switches.is_on(SwitchId::P5)).await?;
    printed.ok_or_else(|| Problem::because(Kind::NotFound, "no such item"))
}

/// What is left of an item, and when it is sold.
#[derive(Clone, Copy, Debug)]
pub struct Shelf {
    item: i64,
    available: i64,
    pub(super) opens_at: i64,
    pub(super) closes_at: i64,
}

impl Shelf {
    /// As the database has it.
    pub(super) async fn read(app: &App, item: i64) -> Result<Self, Problem> {
        let (began, sale) = (Instant::now(), app.shelves.sale());
        let read = Self::read_all(&app.store, &[item]).await;
        app.degrade.core(began.elapsed(), read.is_err());
        let shelf = read?.pop().ok_or_else(|| Problem::because(Kind::NotFound, "no such item"))?;
        app.shelves.keep(shelf, app.clock.now_us(), sale);
        Ok(shelf)
    }

    /// Several at once, as the database has them; those that there are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_all(store: &Store, items: &[i64]) -> Result<Vec<Self>, StoreError> {
        let mut lease = store.lease().await?;
        let rows = match items {
            [item] => lease.query(STATE, &[item]).await?,
            items => lease.query(STATES, &[&items]).await?,
        };
        let shelf =
            |row: &Row| Self { item: row.get(3), available: row.get(0), opens_at: row.get(1), closes_at: row.get(2) };
        Ok(rows.iter().map(shelf).collect())
    }

    /// Why nobody can order at this time, whatever is left.
    pub(super) fn closed(&self, now: i64) -> Option<Refusal> {
        match now {
            _ if now < self.opens_at => Some(Refusal::TooEarly),
            _ if now >= self.closes_at => Some(Refusal::Ended),
            _ => None,
        }
    }

    /// Whether there are so many units.
    pub(super) fn has(&self, quantity: i32) -> bool {
        self.available >= i64::from(quantity)
    }

    /// As a buyer sees it at this time.
    pub(super) fn state(&self, now: i64) -> Value {
        json!({
            "item": self.item,
            "available": self.available,
            "as_of": now,
            "stale": false,
            "opens_at": self.opens_at,
            "closes_at": self.closes_at,
            "on_sale": self.available > 0 && (self.opens_at..self.closes_at).contains(&now),
        })
    }
}

/// More items than a sale has.
const MOST_SHELVES: usize = 1_024;
/// How old a state may be that is shown instead of the present one (L2).
const MOST_AGE: Duration = Duration::from_secs(2);
/// How old a state may be that orders are held against before they go to the data layer (V3).
const RECENT: Duration = Duration::from_secs(1);

/// A state as it was seen once.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    shelf: Shelf,
    as_of: i64,
    since: Instant,
}

impl Seen {
    /// As a buyer sees it now, who is told of when it is.
    pub fn state(&self, now: i64) -> Value {
        let mut state = self.shelf.state(now);
        (state["as_of"], state["stale"]) = (self.as_of.into(), true.into());
        state
    }

    /// How old it is.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// The states of items as they were seen last.
#[derive(Default)]
pub struct Shelves {
    seen: RwLock<HashMap<i64, Seen>>,
    /// How many sales there were before this one.
    sale: AtomicU64,
    /// Held by whoever reads a state for all others.
    turn: tokio::sync::Mutex<()>,
}

impl Shelves {
    /// The sale whose states are read from now on.
    pub fn sale(&self) -> u64 {
        self.sale.load(Ordering::Acquire)
    }

    /// Keeps what was read at this time, if the sale is still the one that it was when reading began.
    pub fn keep(&self, shelf: Shelf, as_of: i64, sale: u64) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if sale == self.sale() && (seen.len() < MOST_SHELVES || seen.contains_key(&shelf.item)) {
            seen.insert(shelf.item, Seen { shelf, as_of, since: Instant::now() });
        }
    }

    /// What was seen last of an item, however old.
    pub fn last_known(&self, item: i64) -> Option<Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).get(&item).copied()
    }

    /// The items that somebody has looked at.
    pub fn known(&self) -> Vec<i64> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Forgets every state: another sale begins.
    pub fn clear(&self) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        self.sale.fetch_add(1, Ordering::AcqRel);
        seen.clear();
    }

    /// What was seen of an item a moment ago. One of those who come too late for it looks again, and the others do without.
    pub(super) async fn recent(app: &App, item: i64) -> Option<Shelf> {
        let known = app.shelves.last_known(item).filter(|seen| seen.age() <= RECENT);
        if let Some(seen) = known {
            return Some(seen.shelf);
        }
        let _turn = app.shelves.turn.try_lock().ok()?;
        Shelf::read(app, item).await.ok()
    }
}

/// The small part of a page that changes; with what the shop knows of the buyer, if he shows who he is.
pub(super) async fn state(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let level = app.degrade.level();
    // A token that is not ours is no reason not to show the state.
    let extras = match (&app.profiles, user_of(&app, &headers)) {
        (Some(_), Ok(_)) if level >= Level::ExtrasOff => Some(extras::DEFAULT),
        (Some(profiles), Ok(user)) => Some(profiles.of(&user).await),
        _ => None,
    };
    let snapshot = if level >= Level::Snapshot { app.shelves.last_known(id) } else { None };
    let snapshot = snapshot.filter(|seen| seen.age() <= MOST_AGE);
    let mut state = match &snapshot {
        Some(seen) => seen.state(app.clock.now_us()),
        None => Shelf::read(&app, id).await?.state(app.clock.now_us()),
    };
    if let Some(extras) = extras {
        state["you"] = json!(extras);
    }
    let reply = fresh(StatusCode::OK, &state);
    Ok(match snapshot {
        Some(seen) => aged(reply, seen.age().as_secs()),
        None => reply,
    })
}

pub(super) async fn time(State(app): State<Arc<App>>) -> Response {
    fresh(StatusCode::OK, &json!({"unix_us": app.clock.now_us()}))
}
