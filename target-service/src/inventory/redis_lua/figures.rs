//! What is shown of the way between Redis and the database: how far behind it is, and how often the two were put right.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Quantile {
    quantile: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

const QUANTILES: [(&str, f64); 4] = [("0.5", 0.5), ("0.99", 0.99), ("0.999", 0.999), ("1", 1.0)];

/// Why Redis was set up from the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    /// The service has started, or Redis is not what it was: it forgot, or was started again.
    NotKnown,
    /// The sale was reset.
    Reset,
    /// It and the ledger stayed apart.
    Apart,
}

/// Counters and gauges, which all their copies share.
#[derive(Clone)]
pub(super) struct Figures {
    /// Milliseconds from acknowledging an order until it was committed.
    lags: Arc<Mutex<Histogram<u64>>>,
    lag: Family<Quantile, Gauge<f64, AtomicU64>>,
    behind: Gauge,
    set_ups: Family<Reason, Counter>,
    apart: Gauge,
}

impl Default for Figures {
    fn default() -> Self {
        // Two digits; longer lags than an hour count as that.
        let mut lags = Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are possible"));
        lags.auto(true);
        Self {
            lags: Arc::new(Mutex::new(lags)),
            lag: Family::default(),
            behind: Gauge::default(),
            set_ups: Family::default(),
            apart: Gauge::default(),
        }
    }
}

impl Figures {
    pub(super) fn register(&self, registry: &mut Registry) {
        let what = "Time from acknowledging an order until the database had it";
        registry.register("seckill_persist_lag_seconds", what, self.lag.clone());
        let what = "Orders on their way to the database when it was looked at last";
        registry.register("seckill_persist_behind", what, self.behind.clone());
        let what = "How often Redis was set up from the ledger, by reason";
        registry.register("seckill_redis_set_ups", what, self.set_ups.clone());
        let what = "Units by which Redis and the ledger differed when they were compared last";
        registry.register("seckill_redis_apart_units", what, self.apart.clone());
    }

    /// So many orders are on their way.
    pub(super) fn behind(&self, orders: i64) {
        self.behind.set(orders);
    }

    /// Orders were committed so long after they had been acknowledged.
    pub(super) fn persisted(&self, lags: impl Iterator<Item = Duration>) {
        let mut all = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        for lag in lags {
            all.saturating_record(lag.as_millis() as u64);
        }
        for (name, quantile) in QUANTILES {
            let seconds = all.value_at_quantile(quantile) as f64 / 1_000.0;
            self.lag.get_or_create(&Quantile { quantile: name }).set(seconds);
        }
    }

    /// Redis was set up from the ledger.
    pub(super) fn set_up(&self, why: Why) {
        let reason = match why {
            Why::NotKnown => "not-known",
            Why::Reset => "reset",
            Why::Apart => "apart",
        };
        self.set_ups.get_or_create(&Reason { reason }).inc();
    }

    /// The two differ by so many units.
    pub(super) fn apart(&self, units: i64) {
        self.apart.set(units);
    }
}
