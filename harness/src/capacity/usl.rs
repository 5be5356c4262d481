//! The Universal Scalability Law: how throughput grows with something that there is more of (buyers at once, shards,
//! replicas), and where more of it is of no use.
//!
//! X(n) = γn / (1 + α(n − 1) + βn(n − 1)), Gunther, *Guerrilla Capacity Planning*, 2007: γ is what one alone gets done, α the
//! share that has to wait for one another (contention), β what it costs that each keeps up with each (coherency). For β > 0
//! throughput falls again beyond n* = √((1 − α) / β).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The law with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Law {
    /// Throughput of one (γ), per second.
    pub one: f64,
    /// Contention (α).
    pub contention: f64,
    /// Coherency (β).
    pub coherency: f64,
    /// The share of the variance that the law explains (R²).
    pub explained: f64,
}

impl Law {
    /// Throughput with `n`.
    pub fn at(&self, n: f64) -> f64 {
        self.one * n / (1.0 + self.contention * (n - 1.0) + self.coherency * n * (n - 1.0))
    }

    /// Beyond this many, more of it makes it slower; none if that never comes.
    pub fn peak(&self) -> Option<f64> {
        (self.coherency > 1e-12).then(|| ((1.0 - self.contention).max(0.0) / self.coherency).sqrt().max(1.0))
    }
}

/// Fits the law to pairs of how many there were and what was got done, with α, β ≥ 0, by least squares on the logarithms (so
/// that an error of 10% weighs the same everywhere). None with fewer than four different `n`, which three parameters would
/// fit whatever they are.
pub fn fit(points: &[(f64, f64)]) -> Option<Law> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|(n, x)| *n > 0.0 && *x > 0.0).collect();
    let mut different: Vec<f64> = points.iter().map(|(n, _)| *n).collect();
    different.sort_by(f64::total_cmp);
    different.dedup_by(|a, b| (*a / *b - 1.0).abs() < 0.02);
    if different.len() < 4 {
        return None;
    }
    // Smooth, but with a long bent valley, in which α stands in for β: so a fine net first, and then a smaller one around its
    // best point again and again.
    let mut best = (f64::INFINITY, [-12.0, -12.0]);
    let look = |at: [f64; 2], best: &mut (f64, [f64; 2])| {
        let (alpha, beta) = (parameter(at[0]), parameter(at[1]));
        if alpha <= 1.0 && beta <= 1.0 {
            let error = residual(&points, alpha, beta).0;
            if error < best.0 {
                *best = (error, at);
            }
        }
    };
    for i in 0..=60 {
        for j in 0..=60 {
            look([f64::from(i) / -5.0, f64::from(j) / -5.0], &mut best);
        }
    }
    let mut span = 0.4;
    while span > 1e-5 {
        let middle = best.1;
        for i in -3..=3 {
            for j in -3..=3 {
                look([middle[0] + span * f64::from(i) / 3.0, middle[1] + span * f64::from(j) / 3.0], &mut best);
            }
        }
        span *= 0.8;
    }
    let (contention, coherency) = (parameter(best.1[0]), parameter(best.1[1]));
    let (error, one) = residual(&points, contention, coherency);
    let logs: Vec<f64> = points.iter().map(|(_, x)| x.ln()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let all: f64 = logs.iter().map(|x| (x - mean).powi(2)).sum();
    let explained = if all > 0.0 { 1.0 - error / all } else { 0.0 };
    Some(Law { one, contention, coherency, explained })
}

/// What is as good as nothing is nothing.
fn parameter(exponent: f64) -> f64 {
    if exponent < -12.0 { 0.0 } else { 10f64.powf(exponent) }
}

/// The squared error of the logarithms, and the γ for which it is least.
fn residual(points: &[(f64, f64)], alpha: f64, beta: f64) -> (f64, f64) {
    let shape = Law { one: 1.0, contention: alpha, coherency: beta, explained: 0.0 };
    let logs: Vec<f64> = points.iter().map(|(n, x)| x.ln() - shape.at(*n).ln()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    (logs.iter().map(|log| (log - mean).powi(2)).sum(), mean.exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(law: &Law, noise: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
            .into_iter()
            .enumerate()
            .map(|(i, n)| (n, law.at(n) * noise(i)))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_parameters_are_found_again(one in 10.0f64..5_000.0, a in -3.0f64..-0.3, b in -5.0f64..-2.0) {
            let law = Law { one, contention: 10f64.powf(a), coherency: 10f64.powf(b), explained: 1.0 };
            let found = fit(&points(&law, |_| 1.0)).unwrap();
            for n in [1.0, 3.0, 20.0, 100.0] {
                prop_assert!((found.at(n) / law.at(n) - 1.0).abs() < 0.01, "{found:?} for {law:?} at {n}");
            }
            prop_assert!(found.explained > 0.99);
        }
    }

    #[test]
    fn the_hot_row_has_a_peak_and_noise_does_not_hide_it() {
        // As a row lock behaves: 128 at once get less done than eight.
        let law = Law { one: 3_000.0, contention: 0.3, coherency: 0.005, explained: 1.0 };
        let found = fit(&points(&law, |i| if i % 2 == 0 { 1.05 } else { 0.95 })).unwrap();
        let (peak, true_peak) = (found.peak().unwrap(), law.peak().unwrap());
        assert!((0.6..1.6).contains(&(peak / true_peak)), "{peak} for {true_peak}: {found:?}");
    }

    #[test]
    fn what_grows_in_a_straight_line_has_no_peak_in_sight() {
        let found = fit(&points(&Law { one: 50.0, contention: 0.0, coherency: 0.0, explained: 1.0 }, |_| 1.0)).unwrap();
        assert!(found.contention < 1e-3 && found.peak().is_none_or(|peak| peak > 1_000.0), "{found:?}");
    }

    #[test]
    fn too_few_points_are_refused() {
        assert_eq!(fit(&[(1.0, 10.0), (2.0, 19.0), (3.0, 27.0)]), None);
        assert_eq!(fit(&[(1.0, 10.0), (1.0, 11.0), (1.01, 9.0), (2.0, 19.0), (4.0, 30.0)]), None);
    }
}
