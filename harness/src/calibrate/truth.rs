//! The true latencies of a schedule: what requests take from the moment at which they are due, if nothing but the server
//! and the number of connections delays them. Closed forms, one for each request, and their exact quantiles.

use super::mode::{Mode, Plan};
use crate::measure::stats::rank;

/// The latency of every request in microseconds, by its number.
///
/// - **fixed** and **bimodal**: the service time. The connections are enough for all that are under way at once.
/// - **stall** of length S after which service takes D: the j-th request that comes in or after it, at `x` from its start,
///   finds a connection among the C at once if `j < C`, and is answered at the end, S - x later. The others are sent in
///   rounds of C when connections come free, at the end, D later, and so on: `max(S - x + D⌊j/C⌋, D)`, as long as
///   connections come free faster than requests come, `D < C/λ`.
/// - **queue**: Lindley's recursion `W(n+1) = max(0, W(n) + D - 1/λ)` for the wait in front of one server (D. V. Lindley,
///   "The theory of queues with a single server", Proc. Camb. Phil. Soc. 48 (1952) 277-289). With even arrivals above its
///   capacity, `D > 1/λ`, it sums to `n(D - 1/λ)`, and the latency is that and D. Where requests wait, behind the connections or at the
///   server, makes no difference, since both are first come, first served.
pub fn latencies_us(mode: Mode, plan: &Plan) -> Vec<f64> {
    let gap = plan.gap_us();
    let numbers = 0..plan.count();
    match mode {
        Mode::Fixed { service_us } => numbers.map(|_| service_us as f64).collect(),
        Mode::Bimodal { fast_us, slow_us, every } => {
            numbers.map(|n| if (n + 1).is_multiple_of(every) { slow_us as f64 } else { fast_us as f64 }).collect()
        }
        Mode::Stall { service_us, from_us, lasts_us } => {
            let service = service_us as f64;
            let stalled = |n: u64| {
                let x = n as f64 * gap - from_us as f64;
                let j = n - plan.first_stalled();
                let rounds = (j / u64::from(plan.connections)) as f64;
                (lasts_us as f64 - x + service * rounds).max(service)
            };
            numbers.map(|n| if n < plan.first_stalled() { service } else { stalled(n) }).collect()
        }
        Mode::Queue { service_us } => {
            let service = service_us as f64;
            numbers.map(|n| service + n as f64 * (service - gap).max(0.0)).collect()
        }
    }
}

/// Quantiles of the truth, by the same definition as those of a summary.
#[derive(Debug, Clone)]
pub struct Truth {
    sorted_us: Vec<f64>,
}

impl Truth {
    /// Of a server's way to answer a schedule.
    pub fn of(mode: Mode, plan: &Plan) -> Truth {
        Truth::from(latencies_us(mode, plan))
    }

    /// A quantile in microseconds; the largest latency is the one at 1.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.sorted_us[rank(self.sorted_us.len() as u64, quantile) as usize - 1]
    }
}

impl From<Vec<f64>> for Truth {
    fn from(mut latencies_us: Vec<f64>) -> Truth {
        latencies_us.sort_by(f64::total_cmp);
        Truth { sorted_us: latencies_us }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::super::mode::Shop;
    use super::*;

    /// The same by simulating every request: each is due at its time, takes the first connection that is free, and is
    /// answered when the server's own rule says.
    fn simulated_us(mode: Mode, plan: &Plan) -> Vec<f64> {
        let mut shop = Shop::new(mode);
        let mut free: BinaryHeap<Reverse<i64>> = (0..plan.connections).map(|_| Reverse(0)).collect();
        (0..plan.count())
            .map(|n| {
                let due = (n as f64 * plan.gap_us() * 1e3).round() as i64;
                let Reverse(connection) = free.pop().unwrap();
                let answered = shop.due_ns(due.max(connection));
                free.push(Reverse(answered));
                (answered - due) as f64 / 1e3
            })
            .collect()
    }

    fn agree(mode: Mode, plan: &Plan) -> Result<(), TestCaseError> {
        let (formula, simulation) = (latencies_us(mode, plan), simulated_us(mode, plan));
        for (n, (a, b)) in formula.iter().zip(&simulation).enumerate() {
            prop_assert!((a - b).abs() < 0.01, "request {n} of {plan:?}, {mode:?}: {a} by formula, {b} simulated");
        }
        let (a, b) = (Truth::from(formula), Truth::from(simulation));
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            prop_assert!((a.quantile_us(quantile) - b.quantile_us(quantile)).abs() < 0.01);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn fixed_and_bimodal(rate in 100_u32..2_000, seconds in 1_u32..4, fast_us in 1_u64..20_000, every in 2_u64..100) {
            // As many connections as can be busy at once.
            let slow_us = fast_us * 10;
            let connections = (u64::from(rate) * slow_us / 1_000_000 + 2) as u32;
            let plan = Plan { rate, seconds, connections };
            agree(Mode::Fixed { service_us: fast_us }, &plan)?;
            agree(Mode::Bimodal { fast_us, slow_us, every }, &plan)?;
        }

        #[test]
        fn stalls(rate in 100_u32..2_000, seconds in 2_u32..6, connections in 2_u32..300, share in 0.05_f64..0.9, part in 0.02_f64..0.3) {
            let plan = Plan { rate, seconds, connections };
            let gap = plan.gap_us();
            // Connections come free faster than requests come.
            let service_us = (share * gap * f64::from(connections)) as u64;
            let from_us = ((plan.first_stalled() as f64 - 0.5) * gap) as u64;
            let lasts_us = (part * f64::from(seconds) * 1e6) as u64;
            agree(Mode::Stall { service_us, from_us, lasts_us }, &plan)?;
        }

        #[test]
        fn queues_above_their_capacity(rate in 100_u32..2_000, seconds in 1_u32..6, connections in 2_u32..300, more in 0.01_f64..1.0) {
            let plan = Plan { rate, seconds, connections };
            let service_us = (plan.gap_us() * (1.0 + more)).ceil() as u64;
            agree(Mode::Queue { service_us }, &plan)?;
        }
    }

    #[test]
    fn a_stall_by_hand() {
        // One second in ten at 1,000 per second: a tenth of all wait from 999.5 ms down to half a millisecond.
        let plan = Plan { rate: 1_000, seconds: 10, connections: 10_000 };
        let truth = Truth::of(Mode::Stall { service_us: 20_000, from_us: 3_999_500, lasts_us: 1_000_000 }, &plan);
        let at = |quantile| truth.quantile_us(quantile);
        assert_eq!((at(0.5), at(0.99), at(0.999), at(1.0)), (20_000.0, 899_500.0, 989_500.0, 999_500.0));
    }
}
