//! What the handlers of both listeners share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::abuse::Abuse;
use crate::admin::audit::Snapshots;
use crate::admin::probe::Probe;
use crate::api::items::Shelves;
use crate::api::pages::Pages;
use crate::bugs::Bug;
use crate::challenge::Challenges;
use crate::clock::Clock;
use crate::deduct::Deduct;
use crate::degrade::Degrade;
use crate::extras::Profiles;
use crate::gateway::Admission;
use crate::idempotency::InFlight;
use crate::inventory::Inventory;
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::session::Sessions;
use crate::settle::client::Payments;
use crate::slow::{SlowOrders, SlowPages};
use crate::store::Store;
use crate::switches::Switches;

/// The service's state. It is shared, and every part of it looks after its own concurrency.
pub struct App {
    /// The database.
    pub store: Store,
    /// How stock is deducted.
    pub inventory: Arc<dyn Inventory>,
    /// When stock is deducted.
    pub deduct: Deduct,
    /// Who may not order.
    pub abuse: Abuse,
    /// The service's notion of now.
    pub clock: Clock,
    /// Who is who.
    pub sessions: Sessions,
    /// Who has answered a challenge, and what came of it.
    pub challenges: Challenges,
    /// Keys being worked on.
    pub in_flight: InFlight,
    /// Keys that were refused.
    pub refusals: Refusals,
    /// Static pages.
    pub pages: Pages,
    /// States of items as they were seen last.
    pub shelves: Shelves,
    /// How much is given up, so that the rest works.
    pub degrade: Degrade,
    /// The bound on requests.
    pub admission: Arc<Admission>,
    /// Mechanisms on and off.
    pub switches: Arc<Switches>,
    /// The payment dependency; without one, an order is paid by saying so.
    pub payments: Option<Arc<Payments>>,
    /// The user-profile dependency; without one, nothing about a buyer is shown.
    pub profiles: Option<Profiles>,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Open audit snapshots.
    pub snapshots: Snapshots,
    /// The connection that asks whether the database is there.
    pub probe: Probe,
    /// The planted bug, if any.
    pub bug: Option<Bug>,
    /// Pages that are slow on purpose, if they are.
    pub slow_pages: Option<SlowPages>,
    /// What a planted slow-down does to orders.
    pub slow_orders: Option<SlowOrders>,
    /// Whether the data breaks rules that the service relies on, so that no order may be made on it.
    pub damaged: AtomicBool,
    /// The time limit on a request.
    pub request_timeout: Duration,
    /// Whether requests get tracing spans.
    pub trace_requests: bool,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
}
