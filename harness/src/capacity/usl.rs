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

/// Fits the law to pairs of how many there were and what was got done, with α, β ≥ 0, by least squares on the relative errors (so
/// that an error of 10% weighs the same everywhere). None with fewer than four different `n`, which three parameters would
/// fit whatever they are.
///
/// The law is linear in 1/γ, α/γ and β/γ: n / X = 1/γ + α/γ · (n − 1) + β/γ · n(n − 1). So the least squares have a closed form, and
/// where one of α and β would be negative, the best point is one with it, or both, at zero.
pub fn fit(points: &[(f64, f64)]) -> Option<Law> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|(n, x)| *n > 0.0 && *x > 0.0).collect();
    let mut different: Vec<f64> = points.iter().map(|(n, _)| *n).collect();
    different.sort_by(f64::total_cmp);
    different.dedup_by(|a, b| (*a / *b - 1.0).abs() < 0.02);
    if different.len() < 4 {
        return None;
    }
    let fits = [[true, true], [true, false], [false, true], [false, false]];
    let fitted = fits.iter().filter_map(|kept| solve(&points, *kept));
    let mut law = fitted.min_by(|a, b| squares(&points, a).total_cmp(&squares(&points, b)))?;
    let mean = points.iter().map(|(_, x)| x.ln()).sum::<f64>() / points.len() as f64;
    let all: f64 = points.iter().map(|(_, x)| (x.ln() - mean).powi(2)).sum();
    let left: f64 = points.iter().map(|(n, x)| (x.ln() - law.at(*n).ln()).powi(2)).sum();
    law.explained = if all > 0.0 { 1.0 - left / all } else { 0.0 };
    Some(law)
}

/// The sum of the squared relative errors.
fn squares(points: &[(f64, f64)], law: &Law) -> f64 {
    points.iter().map(|(n, x)| (1.0 - x / law.at(*n)).powi(2)).sum()
}

/// The least squares with α, β, both or none of them; none if the result is no law.
fn solve(points: &[(f64, f64)], [with_alpha, with_beta]: [bool; 2]) -> Option<Law> {
    // Rows of the weighted equations: 1 = X/n · (1/γ + ...). A column that is left out is zero, and its unknown with it.
    let (mut matrix, mut right) = ([[0.0f64; 3]; 3], [0.0f64; 3]);
    for (n, x) in points {
        let weight = x / n;
        let keep = |kept: bool, value: f64| if kept { value * weight } else { 0.0 };
        let row = [weight, keep(with_alpha, n - 1.0), keep(with_beta, n * (n - 1.0))];
        for i in 0..3 {
            right[i] += row[i];
            for j in 0..3 {
                matrix[i][j] += row[i] * row[j];
            }
        }
    }
    for (i, kept) in [(1, with_alpha), (2, with_beta)] {
        if !kept {
            matrix[i][i] = 1.0;
        }
    }
    let [inverse, alpha, beta] = eliminate(matrix, right)?;
    (inverse > 0.0 && alpha >= 0.0 && beta >= 0.0).then(|| Law {
        one: 1.0 / inverse,
        contention: alpha / inverse,
        coherency: beta / inverse,
        explained: 0.0,
    })
}

/// Solves three equations by elimination with pivots, each equation scaled by its largest coefficient; none if they depend on
/// each other.
fn eliminate(mut matrix: [[f64; 3]; 3], mut right: [f64; 3]) -> Option<[f64; 3]> {
    // Columns differ by powers of the largest n: they are brought to one size first.
    let scale: [f64; 3] = std::array::from_fn(|i| matrix[i][i].sqrt());
    for i in 0..3 {
        right[i] /= scale[i];
        for j in 0..3 {
            matrix[i][j] /= scale[i] * scale[j];
        }
    }
    for column in 0..3 {
        let pivot = (column..3).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        if matrix[column][column].abs() < 1e-13 {
            return None;
        }
        for row in column + 1..3 {
            let factor = matrix[row][column] / matrix[column][column];
            let above = matrix[column];
            matrix[row].iter_mut().zip(above).for_each(|(value, above)| *value -= factor * above);
            right[row] -= factor * right[column];
        }
    }
    let mut solved = [0.0; 3];
    for row in (0..3).rev() {
        let known: f64 = (row + 1..3).map(|k| matrix[row][k] * solved[k]).sum();
        solved[row] = (right[row] - known) / matrix[row][row];
    }
    Some(std::array::from_fn(|i| solved[i] / scale[i]))
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
