//! When the buyers of a sale come: at once most of them, then ever fewer. The rate falls as `exp(−k·t)`, where `k`
//! follows from the time within which half of them are there.

use rand::RngExt;

use crate::random;

/// The curve, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    buyers: f64,
    within_s: f64,
    /// The decay k; 0 if they come evenly.
    decay: f64,
}

impl Curve {
    /// So many buyers within a time, half of them within `half_s`, which is at most half of it.
    pub fn new(buyers: f64, within_s: f64, half_s: f64) -> Curve {
        // The share that has come by the half-time falls from 1 for a fast decay to half_s / within_s for none.
        let share = |decay: f64| -(-decay * half_s).exp_m1() / -(-decay * within_s).exp_m1();
        if half_s >= within_s / 2.0 * (1.0 - 1e-9) {
            return Curve { buyers, within_s, decay: 0.0 };
        }
        let (mut low, mut high) = (1e-9 / within_s, 2.0 / half_s);
        for _ in 0..100 {
            let middle = (low + high) / 2.0;
            if share(middle) < 0.5 { low = middle } else { high = middle }
        }
        Curve { buyers, within_s, decay: (low + high) / 2.0 }
    }

    /// Arrivals per second at the beginning, when most come.
    pub fn peak(&self) -> f64 {
        if self.decay == 0.0 {
            return self.buyers / self.within_s;
        }
        self.buyers * self.decay / -(-self.decay * self.within_s).exp_m1()
    }

    /// When so many have come, in seconds; none if so many never come.
    pub fn when(&self, count: f64) -> Option<f64> {
        if count > self.buyers {
            return None;
        }
        let share = count / self.buyers;
        if self.decay == 0.0 {
            return Some(share * self.within_s);
        }
        Some(-(share * (-self.decay * self.within_s).exp_m1()).ln_1p() / self.decay)
    }

    /// The moments of the first `most` arrivals, drawn by the seed: those of a Poisson process along the curve,
    /// `times` as dense.
    pub fn first(&self, most: usize, times: f64, seed: u64) -> Vec<f64> {
        let mut rng = random::stream(seed, 2);
        let mut count = 0.0;
        let mut next = || {
            count -= (1.0 - rng.random::<f64>()).ln() / times;
            self.when(count)
        };
        (0..most).map_while(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_them_are_there_when_they_should_be() {
        let curve = Curve::new(1_000_000.0, 1_800.0, 240.0);
        assert!((curve.when(500_000.0).unwrap() - 240.0).abs() < 0.01);
        assert!((curve.when(1_000_000.0).unwrap() - 1_800.0).abs() < 0.01);
        assert_eq!(curve.when(1_000_001.0), None);
        // Close to ln 2 / half-time, since nearly all come within seven half-times.
        assert!((curve.peak() / (1e6 * 2f64.ln() / 240.0) - 1.0).abs() < 0.02, "{}", curve.peak());
        let even = Curve::new(600.0, 60.0, 30.0);
        assert_eq!((even.peak(), even.when(300.0)), (10.0, Some(30.0)));
    }

    #[test]
    fn arrivals_follow_the_curve() {
        let curve = Curve::new(20_000.0, 100.0, 20.0);
        let all = curve.first(usize::MAX, 1.0, 7);
        assert!((all.len() as f64 - 20_000.0).abs() < 600.0, "{}", all.len());
        let early = all.iter().filter(|at| **at < 20.0).count() as f64;
        assert!((early / all.len() as f64 - 0.5).abs() < 0.02, "{early}");
        assert!(all.windows(2).all(|pair| pair[0] <= pair[1]));
        let dense = curve.first(1_000, 2.0, 7);
        assert!((dense[999] * 2.0 / all[999] - 1.0).abs() < 0.1, "{} {}", dense[999], all[999]);
    }
}
