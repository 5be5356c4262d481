//! Committed orders per second of the reference target on one hot row: through HTTP, on the embedded stack, counted by the
//! audit.
//!
//! 128 buyers are busy all the time, since more arrive than can be served. Each logs in and then orders one unit after the
//! other. There is no fault, stock never ends, and holds do not run out, so that nothing but ordering is measured. Generator, proxies, service and database share the machine, as they do in a rehearsal. The forms that are
//! compared take turns, so that what the machine does meanwhile hits all of them.

use super::{Context, Figure, Unmeasured, median, sale};
use crate::check::Verdict;

/// Buyers of the crowd.
const CROWD: u32 = 128;
/// Orders of one buyer after his login.
const ORDERS: usize = 15;
/// Turns of each form.
const TURNS: usize = 3;
/// Pools of which the best one for the plain form is looked for.
const POOLS: [u32; 4] = [1, 2, 4, 8];
/// Connections that the batches use: one carries the batch, the others pay, expire and audit.
const BATCH_POOL: u32 = 4;

const PLAIN: &str = "conditional-update";
const BATCH: &str = "batch";

/// What one run came to.
#[derive(Debug, Clone, Copy)]
struct Measured {
    per_second: f64,
    order_us_p50: f64,
}

/// The plain form with a pool as large as the crowd and with its best one, and the batches.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let mut best = (0.0, POOLS[0]);
    for pool in POOLS {
        let measured = orders(context, PLAIN, pool, CROWD)?;
        if measured.per_second > best.0 {
            best = (measured.per_second, pool);
        }
    }
    let best = best.1;
    let (mut large, mut small, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        large.push(orders(context, PLAIN, CROWD, CROWD)?);
        small.push(orders(context, PLAIN, best, CROWD)?);
        batch.push(orders(context, BATCH, BATCH_POOL, CROWD)?);
    }
    let mut figures = vec![
        rate("committed_orders_per_second_pool_128", &large, &format!("{PLAIN}, a pool of {CROWD}")),
        rate(
            "committed_orders_per_second_best_pool",
            &small,
            &format!("{PLAIN}, a pool of {best}, the best of {POOLS:?}"),
        ),
        rate("committed_orders_per_second_batch", &batch, &format!("{BATCH}, a pool of {BATCH_POOL}")),
        ratio("hot_row_vs_conditional_128", &batch, &large, |m| m.per_second)
            .against(&format!("{PLAIN} with a pool of {CROWD}")),
        ratio("hot_row_vs_conditional_best_pool", &batch, &small, |m| m.per_second)
            .against(&format!("{PLAIN} with a pool of {best}")),
        ratio("hot_row_latency_vs_conditional_128", &batch, &large, |m| m.order_us_p50)
            .against(&format!("{PLAIN} with a pool of {CROWD}"))
            .detail("median time of an order, from its intended start"),
        ratio("hot_row_latency_vs_conditional_best_pool", &batch, &small, |m| m.order_us_p50)
            .against(&format!("{PLAIN} with a pool of {best}"))
            .detail("median time of an order, from its intended start"),
    ];
    let (mut plain, mut batch) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        plain.push(orders(context, PLAIN, BATCH_POOL, 1)?);
        batch.push(orders(context, BATCH, BATCH_POOL, 1)?);
    }
    figures.push(
        ratio("lone_buyer_latency_vs_conditional", &batch, &plain, |m| m.order_us_p50)
            .against(PLAIN)
            .detail("median time of an order while nobody else orders"),
    );
    Ok(figures)
}

fn rate(name: &str, turns: &[Measured], form: &str) -> Figure {
    let (value, _) = median(turns.iter().map(|m| m.per_second).collect());
    let (p50, _) = median(turns.iter().map(|m| m.order_us_p50).collect());
    Figure::new(name, value, "orders per second").detail(&format!(
        "{form}; {CROWD} buyers; by the audit, from first to last commit; median of {TURNS} turns; an order takes {:.1} ms \
         at the median",
        p50 / 1e3
    ))
}

/// A ratio of two forms that took turns, so far without the name of the other.
struct Ratio(Figure, [f64; 2]);

impl Ratio {
    fn against(self, other: &str) -> Figure {
        self.0.against(other, self.1)
    }
}

fn ratio(name: &str, ours: &[Measured], other: &[Measured], value: fn(&Measured) -> f64) -> Ratio {
    let (middle, interval) = median(ours.iter().zip(other).map(|(a, b)| value(a) / value(b)).collect());
    Ratio(Figure::new(name, middle, "ratio"), interval)
}

/// One run of so many buyers who are always busy.
fn orders(context: &Context<'_>, strategy: &str, pool: u32, buyers: u32) -> Result<Measured, Unmeasured> {
    let text = format!(
        r#"
name = "bench-orders"
target.reference = {{ strategy = "{strategy}", pool = {pool}, deduct = "order" }}
item = [{{ id = 1, price_cents = 100, stock = 10000000, per_user_limit = 100, closes_at = "10m", hold = "5s" }}]
load = {{ duration = "4s", virtual_buyers = {buyers}, request_timeout = "5s", patience = "200ms" }}
steady_state = {{ step = "state", within = "2s", every = "500ms" }}
audit.drain_probe = false
{sale}"#,
        sale = sale::buyers(ORDERS, 2_000),
    );
    let summary = sale::rehearse(context, &text)?;
    let order = summary.latency.steps.get("order").and_then(|stats| stats.us_p50);
    let Some(order_us_p50) = order.filter(|_| !summary.partial && summary.verdict != Verdict::Fail) else {
        return Err(Unmeasured::Failed(format!("the run is not worth measuring: {}", summary.verdict_reason)));
    };
    let measured = Measured { per_second: summary.goodput.per_second, order_us_p50: order_us_p50 as f64 };
    context.say(&format!(
        "{strategy}, a pool of {pool}, {buyers} buyers: {:.0} orders per second, {:.2} ms each",
        measured.per_second,
        measured.order_us_p50 / 1e3
    ));
    Ok(measured)
}
