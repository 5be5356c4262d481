//! What became of the requests so far, by step: counted from the batches that the recorder's writer shows, so that the generator
//! pays nothing for being watched.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::history::recorder::Glimpse;
use crate::history::{Micros, Outcome};
use crate::load::live::{Seen, Window};

/// How far back percentiles look.
pub const LOOK_BACK: Duration = Duration::from_secs(5);
/// Fewer requests within that time have no TP99, or no TP999, that one could show.
const FEWEST_P99: u64 = 100;
const FEWEST_P999: u64 = 1_000;

/// Counts by step.
#[derive(Debug, Default)]
pub struct Flow {
    steps: BTreeMap<String, Counts>,
    /// Of all steps together.
    all: Option<Window>,
}

#[derive(Debug)]
struct Counts {
    window: Window,
    ok: u64,
    refused: BTreeMap<String, u64>,
    unclear: BTreeMap<String, u64>,
}

/// A step as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepView {
    /// Its name.
    pub step: String,
    /// Requests within the last five seconds.
    pub recent: u64,
    /// 99th percentile of those from the intended start, in microseconds; none if they are too few.
    pub us_p99: Option<u64>,
    /// 99.9th percentile; none if they are too few.
    pub us_p999: Option<u64>,
    /// The share of those without an answer, from 0 to 1.
    pub errors: Option<f64>,
    /// Successes so far.
    pub ok: u64,
    /// Refusals so far, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Indeterminate so far, by reason.
    pub unclear: BTreeMap<String, u64>,
}

/// What all steps came to within the last second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Recent {
    /// 99th percentile, in microseconds.
    pub us_p99: Option<u64>,
    /// The share without an answer, from 0 to 1.
    pub errors: Option<f64>,
}

impl Flow {
    /// Counts an op.
    pub fn count(&mut self, op: &Glimpse<'_>) {
        if !self.steps.contains_key(op.step) {
            let (ok, refused, unclear) = (0, BTreeMap::new(), BTreeMap::new());
            self.steps.insert(op.step.to_owned(), Counts { window: Window::new(LOOK_BACK), ok, refused, unclear });
        }
        let Some(counts) = self.steps.get_mut(op.step) else { return };
        let answered = match op.outcome {
            Outcome::Ok => true,
            Outcome::Fail => op.status != 0,
            Outcome::Info | Outcome::Dropped => false,
        };
        let (outcome, at_us, latency_us, reason) = (op.outcome, op.completed_us, op.latency_us, op.reason);
        let seen = Seen { cohort: 0, outcome, answered, reason, at_us, latency_us };
        counts.window.record(seen);
        self.all.get_or_insert_with(|| Window::new(LOOK_BACK)).record(seen);
        let by_reason = match op.outcome {
            Outcome::Ok => {
                counts.ok += 1;
                return;
            }
            Outcome::Fail => &mut counts.refused,
            Outcome::Info | Outcome::Dropped => &mut counts.unclear,
        };
        match by_reason.get_mut(op.reason) {
            Some(count) => *count += 1,
            None => drop(by_reason.insert(op.reason.to_owned(), 1)),
        }
    }

    /// The steps in an order, those that it does not name last.
    pub fn view(&self, order: &[String], now_us: Micros) -> Vec<StepView> {
        let place = |step: &str| order.iter().position(|known| known == step).unwrap_or(order.len());
        let mut views: Vec<StepView> = self.steps.iter().map(|(step, counts)| counts.view(step, now_us)).collect();
        views.sort_by_key(|view| place(&view.step));
        views
    }

    /// All steps within the last second.
    pub fn recent(&self, now_us: Micros) -> Recent {
        let Some(window) = &self.all else { return Recent::default() };
        let view = window.last(now_us, Duration::from_secs(1));
        Recent { us_p99: view.percentile_us(0.99), errors: view.error_fraction() }
    }
}

impl Counts {
    fn view(&self, step: &str, now_us: Micros) -> StepView {
        let view = self.window.last(now_us, LOOK_BACK);
        let percentile = |share: f64, fewest: u64| view.percentile_us(share).filter(|_| view.samples() >= fewest);
        StepView {
            step: step.to_owned(),
            recent: view.ops,
            us_p99: percentile(0.99, FEWEST_P99),
            us_p999: percentile(0.999, FEWEST_P999),
            errors: view.error_fraction(),
            ok: self.ok,
            refused: self.refused.clone(),
            unclear: self.unclear.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(step: &str, outcome: Outcome, status: u16, at_ms: i64) -> Glimpse<'_> {
        let reason = match outcome {
            Outcome::Ok => "",
            Outcome::Fail => "sold-out",
            _ => "timeout",
        };
        Glimpse { step, outcome, status, reason, completed_us: at_ms * 1_000, latency_us: at_ms as u64 }
    }

    #[test]
    fn steps_come_in_the_buyers_order_and_a_refusal_is_an_answer() {
        let mut flow = Flow::default();
        for ms in 0..200 {
            flow.count(&op("page", Outcome::Ok, 200, ms));
        }
        flow.count(&op("order", Outcome::Fail, 409, 100));
        flow.count(&op("order", Outcome::Info, 0, 150));
        let order = ["page".to_owned(), "order".to_owned()];
        let [page, orders] = &flow.view(&order, 200_000)[..] else { panic!("two steps") };
        assert_eq!((page.step.as_str(), page.ok, page.errors), ("page", 200, Some(0.0)));
        assert!(page.us_p99.is_some() && page.us_p999.is_none(), "200 are enough for the one and not for the other");
        assert_eq!((orders.refused["sold-out"], orders.unclear["timeout"], orders.errors), (1, 1, Some(0.5)));
        assert_eq!(orders.us_p99, None, "two requests have no TP99");
        assert_eq!(flow.view(&order, 60_000_000)[0].recent, 0, "what is older than five seconds is not recent");
        assert_eq!(flow.recent(60_000_000), Recent::default());
    }
}
