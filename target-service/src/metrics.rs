//! Counters and gauges, in OpenMetrics text.
//!
//! HTTP and pool names follow OpenTelemetry. The buckets are too coarse for the percentiles that matter in
//! a rehearsal; those are measured by the client.

use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::degrade::breaker::State as BreakerState;
use crate::degrade::levels::Level;
use crate::inventory::Strategy;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Where a request that goes no further was stopped, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Dropped {
    /// `access`, `service` or `data`.
    pub stage: &'static str,
    /// The rule.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    dependency: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    dependency: &'static str,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Probed {
    dependency: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Crossed {
    level: u8,
    way: &'static str,
}

/// What circuit breakers are shown by.
#[derive(Clone, Debug, Default)]
pub struct BreakerMeters {
    state: Family<Of, Gauge>,
    transitions: Family<To, Counter>,
    probes: Family<Probed, Counter>,
    refused: Family<Of, Counter>,
}

impl BreakerMeters {
    fn register(&self, registry: &mut Registry) {
        registry.register("seckill_breaker_state", "0: closed, 1: half-open, 2: open", self.state.clone());
        registry.register("seckill_breaker_transitions", "Changes of breakers", self.transitions.clone());
        registry.register("seckill_breaker_probes", "Calls through half-open breakers", self.probes.clone());
        registry.register("seckill_breaker_refused", "Calls that were not made", self.refused.clone());
    }

    /// Shows where a breaker stands.
    pub fn state(&self, dependency: &'static str, state: BreakerState) {
        self.state.get_or_create(&Of { dependency }).set(match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        });
    }

    /// Counts a change.
    pub fn changed(&self, dependency: &'static str, to: BreakerState) {
        self.state(dependency, to);
        self.transitions.get_or_create(&To { dependency, to: to.as_str() }).inc();
    }

    /// Counts a probe.
    pub fn probed(&self, dependency: &'static str, bad: bool) {
        self.probes.get_or_create(&Probed { dependency, outcome: if bad { "bad" } else { "good" } }).inc();
    }

    /// Counts a call that was not made.
    pub fn refused(&self, dependency: &'static str) {
        self.refused.get_or_create(&Of { dependency }).inc();
    }
}

/// What the level of degrading is shown by.
#[derive(Clone, Debug, Default)]
pub struct DegradeMeters {
    level: Gauge,
    crossed: Family<Crossed, Counter>,
}

impl DegradeMeters {
    fn register(&self, registry: &mut Registry) {
        registry.register("seckill_degrade_level", "0: everything works", self.level.clone());
        registry.register("seckill_degrade_transitions", "Levels that were entered and left", self.crossed.clone());
    }

    /// Shows the level, and counts that it was entered, or the one before was left for a lower one.
    pub fn changed(&self, from: Level, to: Level) {
        self.level.set(to.number().into());
        let (level, way) = if to > from { (to, "entered") } else { (from, "left") };
        self.crossed.get_or_create(&Crossed { level: level.number(), way }).inc();
    }
}

/// Units of stock by state, over all items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockUnits {
    /// Not spoken for.
    pub available: i64,
    /// In unpaid orders.
    pub held: i64,
    /// In paid orders.
    pub sold: i64,
}

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Mutex<Registry>,
    orders: Family<Outcome, Counter>,
    reservations: Family<Outcome, Histogram, fn() -> Histogram>,
    payments: Family<Outcome, Counter>,
    dropped: Family<Dropped, Counter>,
    stock: Family<State, Gauge>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    active: Gauge,
    connections: Family<State, Gauge>,
    connections_max: Gauge,
    connections_pending: Gauge,
    degrade: DegradeMeters,
    breakers: BreakerMeters,
    statements: Gauge,
    expired: Counter,
}

/// What refusals per rule are shown by, in every layer: name and meaning.
pub const FUNNEL_DROPPED: (&str, &str) = ("seckill_funnel_dropped", "Requests that went no further, by stage and rule");

fn latency_buckets() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            orders: Family::default(),
            reservations: Family::new_with_constructor(latency_buckets),
            payments: Family::default(),
            dropped: Family::default(),
            stock: Family::default(),
            durations: Family::new_with_constructor(latency_buckets),
            active: Gauge::default(),
            connections: Family::default(),
            connections_max: Gauge::default(),
            connections_pending: Gauge::default(),
            degrade: DegradeMeters::default(),
            breakers: BreakerMeters::default(),
            statements: Gauge::default(),
            expired: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = lock(&self.registry);
        registry.register("seckill_orders", "Attempts to order, by outcome", self.orders.clone());
        registry.register(
            "seckill_reserve_duration_seconds",
            "Time that the strategy took to decide, by outcome",
            self.reservations.clone(),
        );
        registry.register(
            "seckill_payments",
            "Attempts to pay through the dependency, by outcome",
            self.payments.clone(),
        );
        registry.register(FUNNEL_DROPPED.0, FUNNEL_DROPPED.1, self.dropped.clone());
        registry.register("seckill_stock_units", "Units of stock over all items", self.stock.clone());
        registry.register("seckill_holds_expired", "Holds released by the sweeper", self.expired.clone());
        registry.register(
            "seckill_database_statements",
            "Statements sent over pooled connections since the start",
            self.statements.clone(),
        );
        self.degrade.register(&mut registry);
        self.breakers.register(&mut registry);
        registry.register(
            "http_server_request_duration_seconds",
            "Time to answer a request on the public listener",
            self.durations.clone(),
        );
        registry.register("http_server_active_requests", "Requests being worked on", self.active.clone());
        registry.register("db_client_connection_count", "Pooled connections by state", self.connections.clone());
        registry.register(
            "db_client_connection_max",
            "Most connections the pool may open",
            self.connections_max.clone(),
        );
        registry.register(
            "db_client_connection_pending_requests",
            "Requests waiting for a connection",
            self.connections_pending.clone(),
        );
    }

    /// What the level of degrading is shown by.
    pub fn degrade(&self) -> DegradeMeters {
        self.degrade.clone()
    }

    /// What circuit breakers are shown by.
    pub fn breakers(&self) -> BreakerMeters {
        self.breakers.clone()
    }

    /// Says by which strategy all of this came about.
    pub fn strategy(&self, strategy: Strategy) {
        let name = Info::new([("strategy", strategy.to_string())]);
        lock(&self.registry).register("seckill_strategy", "How stock is deducted", name);
    }

    /// Lets somebody else show counters and gauges of his own.
    pub fn register_more(&self, more: impl FnOnce(&mut Registry)) {
        more(&mut lock(&self.registry));
    }

    /// Counts an attempt to order, which took so long.
    pub fn order(&self, outcome: &'static str, took: Duration) {
        self.orders.get_or_create(&Outcome { outcome }).inc();
        self.reservations.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// Counts an attempt to pay through the payment dependency.
    pub fn payment(&self, outcome: &'static str) {
        self.payments.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts an order that was refused, by where and by which rule.
    pub fn dropped(&self, stage: &'static str, reason: &'static str) {
        self.dropped.get_or_create(&Dropped { stage, reason }).inc();
    }

    /// Counts holds that the sweeper released.
    pub fn expired(&self, holds: usize) {
        self.expired.inc_by(holds as u64);
    }

    /// Counts an answered request.
    pub fn request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let route =
            Route { http_request_method: method, http_route: route.to_owned(), http_response_status_code: status };
        self.durations.get_or_create(&route).observe(took.as_secs_f64());
    }

    /// How many requests are being worked on.
    pub fn set_active(&self, requests: usize) {
        self.active.set(requests as i64);
    }

    /// How the pool is doing.
    pub fn set_pool(&self, status: &deadpool_postgres::Status) {
        let idle = status.available;
        let used = status.size.saturating_sub(idle);
        self.connections.get_or_create(&State { state: "idle" }).set(idle as i64);
        self.connections.get_or_create(&State { state: "used" }).set(used as i64);
        self.connections_max.set(status.max_size as i64);
        self.connections_pending.set(status.waiting as i64);
    }

    /// How many statements were sent over pooled connections so far.
    pub fn set_statements(&self, statements: u64) {
        self.statements.set(statements as i64);
    }

    /// How much stock there is.
    pub fn set_stock(&self, units: StockUnits) {
        for (state, units) in [("available", units.available), ("held", units.held), ("sold", units.sold)] {
            self.stock.get_or_create(&State { state }).set(units);
        }
    }

    /// The whole of it as OpenMetrics text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &lock(&self.registry))?;
        Ok(text)
    }
}

fn lock(registry: &Mutex<Registry>) -> std::sync::MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones() {
        let metrics = Metrics::default();
        metrics.strategy(Strategy::Batch);
        metrics.order("sold-out", Duration::from_millis(3));
        metrics.set_stock(StockUnits { available: 3, held: 2, sold: 1 });
        metrics.request("POST", "/items/{id}/orders", 201, Duration::from_millis(3));
        let text = metrics.render().unwrap();
        for line in [
            r#"seckill_orders_total{outcome="sold-out"} 1"#,
            r#"seckill_strategy_info{strategy="batch"} 1"#,
            r#"seckill_reserve_duration_seconds_count{outcome="sold-out"} 1"#,
            r#"seckill_stock_units{state="held"} 2"#,
            r#"http_server_request_duration_seconds_count{http_request_method="POST",http_route="/items/{id}/orders",http_response_status_code="201"} 1"#,
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }
}
