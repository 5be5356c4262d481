//! How well a step of the rate is sent as it was planned: from 500 to 10,000 requests per second at once, by bins of 100 ms
//! of the recorded history, the first one after the step included.

use std::time::Duration;

use super::send_lag::BUYERS;
use super::{Context, Figure, Unmeasured, server};
use crate::history::{Micros, reader};
use crate::measure::load::RATE_BIN_US;
use crate::workbench::drive::{Shot, Steady, drive};

/// Turns; the figure is that of the worst one, and each is told.
const TURNS: usize = 3;
/// When the rate steps up.
const STEP_AT: Duration = Duration::from_secs(2);
/// When the load ends.
const END: Duration = Duration::from_secs(5);

/// The largest relative difference between requests sent and requests planned in any bin from a second before the step.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let server = server::start(&context.cores)?;
    let low = Steady { rate: 500.0, from: Duration::ZERO, lasts: STEP_AT };
    let high = Steady { rate: 10_000.0, from: STEP_AT, lasts: END - STEP_AT };
    let shot = Shot { arrivals: vec![low, high], buyers: BUYERS };
    let mut turns = Vec::new();
    for turn in 1..=TURNS {
        context.goes_on()?;
        context.say(&format!("a step from 500 to 10,000 requests per second, turn {turn}"));
        let driven = drive(context, server.address, &shot)?;
        let ops = reader::read(&driven.folder)?.ops;
        driven.forget();
        let errors = rate_errors(ops.iter().map(|op| (op.intended_us, op.invoked_us)), bin(END));
        let worst = errors[bin(STEP_AT) - 10..].iter().copied().fold(0.0, f64::max);
        turns.push((worst, errors[bin(STEP_AT)]));
    }
    let told: Vec<String> = turns.iter().map(|(worst, first)| format!("{worst:.4} ({first:.4})")).collect();
    let detail = format!(
        "worst of all bins of 100 ms of {TURNS} turns, from a second before a step from 500 to 10,000 per second; each turn, \
         with the first bin after the step: {}",
        told.join(", ")
    );
    let value = turns.iter().map(|(worst, _)| *worst).fold(0.0, f64::max);
    Ok(vec![Figure::new("rate_error_step", value, "fraction").detail(&detail)])
}

fn bin(at: Duration) -> usize {
    (at.as_micros() / RATE_BIN_US as u128) as usize
}

/// The relative error of each bin, given when each request was planned and when it was sent.
fn rate_errors(requests: impl Iterator<Item = (Micros, Micros)>, bins: usize) -> Vec<f64> {
    let mut counts = vec![(0_i64, 0_i64); bins];
    for (intended, invoked) in requests {
        let place = |at: Micros| usize::try_from(at.div_euclid(RATE_BIN_US)).ok().filter(|bin| *bin < bins);
        if let Some(bin) = place(intended) {
            counts[bin].0 += 1;
        }
        if let Some(bin) = place(invoked) {
            counts[bin].1 += 1;
        }
    }
    counts.iter().map(|(planned, sent)| (sent - planned).abs() as f64 / (*planned).max(1) as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_in_the_next_bin_is_missing_in_one_and_too_much_in_the_other() {
        // Ten requests in each of three bins; the last two of the first bin leave in the second.
        let planned = (0..30).map(|n| n * 10_000);
        let sent = |at: Micros| if (80_000..100_000).contains(&at) { 100_001 } else { at };
        let errors = rate_errors(planned.map(|at| (at, sent(at))), 3);
        assert_eq!(errors, [0.2, 0.2, 0.0]);
    }
}
