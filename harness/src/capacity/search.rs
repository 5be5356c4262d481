//! Which rate to probe next, and where the capacity lies, as pure functions of the probes so far.
//!
//! A probe near the capacity may come out either way: a run is short, and machines are noisy. So no bracket is believed.
//! What is kept is a posterior over the capacity θ (of the logarithm of the scale) and over the width w of the region in
//! which chance decides: a probe at x holds with probability
//!
//! ```text
//! P(holds | x) = ε₁ + (1 − ε₀ − ε₁) / (1 + exp(−(θ − x) / w))
//! ```
//!
//! where ε₀ is the chance that noise spoils a probe far below the capacity, and ε₁ that one far above it slips through.
//! The next probe is where its outcome is expected to tell most about θ (mutual information; Lindley, *On a Measure of the
//! Information Provided by an Experiment*, 1956; for a steep psychometric curve, Kontsevich and Tyler, *Bayesian adaptive
//! estimation of psychometric slope and threshold*, 1999).

/// Distance of two neighbours on the grid of logarithms: a fifth of the 2% that is asked for would be 0.4%.
const STEP: f64 = 0.002;
/// How far beyond the bounds the grid goes; mass out there says that the capacity is not between them.
const BEYOND: f64 = 0.2;
/// Widths that are taken into account, as fractions of the rate.
const WIDTHS: [f64; 5] = [0.002, 0.006, 0.02, 0.06, 0.15];
/// Chance that a probe below the capacity fails for another reason (ε₀).
const SPOILED: f64 = 0.03;
/// Chance that one above it holds for another reason (ε₁).
const SLIPPED: f64 = 0.005;
/// The 95% interval leaves so much on either side.
const TAIL: f64 = 0.025;
/// How much a hint is believed.
const HINT_TRUST: f64 = 0.7;
/// Its standard deviation, as a fraction of the rate.
const HINT_SPREAD: f64 = 0.12;
/// Scales that are considered for the next probe.
const CANDIDATES: usize = 41;

/// Where the capacity lies, as far as the probes tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The median of the posterior, as a scale.
    pub scale: f64,
    /// Its 95% credible interval.
    pub interval: [f64; 2],
    /// The probability that it lies below the lower bound.
    pub below: f64,
    /// The probability that it lies above the upper one.
    pub above: f64,
}

impl Estimate {
    /// Half the width of the interval, as a fraction of the estimate.
    pub fn half_width(&self) -> f64 {
        let [low, high] = self.interval;
        (high / low).ln() / 2.0
    }
}

/// The search between two scales.
#[derive(Debug, Clone)]
pub struct Search {
    low: f64,
    high: f64,
    /// Logarithms of the capacity.
    grid: Vec<f64>,
    /// For each of them, the weight of each width. They sum to 1.
    weights: Vec<[f64; WIDTHS.len()]>,
}

impl Search {
    /// Nothing is known but the bounds, `0 < low < high`.
    pub fn new(low: f64, high: f64) -> Search {
        let (from, to) = (low.ln() - BEYOND, high.ln() + BEYOND);
        let points = ((to - from) / STEP).ceil() as usize + 1;
        let grid: Vec<f64> = (0..points).map(|n| from + n as f64 * STEP).collect();
        let each = 1.0 / (points * WIDTHS.len()) as f64;
        Search { low: low.ln(), high: high.ln(), weights: vec![[each; WIDTHS.len()]; points], grid }
    }

    /// Takes the outcome of a probe into account.
    pub fn saw(&mut self, scale: f64, holds: bool) {
        let x = scale.ln();
        self.reweigh(|theta, width| {
            let p = chance(theta, x, width);
            if holds { p } else { 1.0 - p }
        });
    }

    /// Takes into account that an overloaded service still served as much as would come at this scale.
    pub fn hint(&mut self, scale: f64) {
        let x = scale.ln();
        let flat = (1.0 - HINT_TRUST) / (self.high - self.low + 2.0 * BEYOND);
        self.reweigh(|theta, _| {
            let z = (theta - x) / HINT_SPREAD;
            flat + HINT_TRUST * (-z * z / 2.0).exp() / (HINT_SPREAD * (std::f64::consts::TAU).sqrt())
        });
    }

    fn reweigh(&mut self, likelihood: impl Fn(f64, f64) -> f64) {
        let mut sum = 0.0;
        for (theta, weights) in self.grid.iter().zip(&mut self.weights) {
            for (weight, width) in weights.iter_mut().zip(WIDTHS) {
                *weight *= likelihood(*theta, width);
                sum += *weight;
            }
        }
        self.weights.iter_mut().flatten().for_each(|weight| *weight /= sum);
    }

    /// The scale of the next probe: the one from which most is to be learnt.
    pub fn next(&self) -> f64 {
        let (low, high) = (self.quantile(0.02), self.quantile(0.98));
        let step = (high - low) / (CANDIDATES - 1) as f64;
        let candidates = (0..CANDIDATES).map(|n| (low + n as f64 * step).clamp(self.low, self.high));
        let best = candidates.map(|x| (self.information(x), x)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(self.low, |(_, x)| x).exp()
    }

    /// The mutual information between a probe's outcome and the capacity, in nats.
    fn information(&self, x: f64) -> f64 {
        let (mut holds, mut known) = (0.0, 0.0);
        for (theta, weights) in self.grid.iter().zip(&self.weights) {
            let mass: f64 = weights.iter().sum();
            if mass <= 0.0 {
                continue;
            }
            let p = weights.iter().zip(WIDTHS).map(|(weight, width)| weight * chance(*theta, x, width)).sum::<f64>();
            holds += p;
            known += mass * entropy(p / mass);
        }
        entropy(holds) - known
    }

    /// Where the capacity lies.
    pub fn estimate(&self) -> Estimate {
        let mass = |inside: &dyn Fn(f64) -> bool| {
            let all = self.grid.iter().zip(&self.weights).filter(|(theta, _)| inside(**theta));
            all.map(|(_, weights)| weights.iter().sum::<f64>()).sum::<f64>()
        };
        Estimate {
            scale: self.quantile(0.5).exp(),
            interval: [self.quantile(TAIL).exp(), self.quantile(1.0 - TAIL).exp()],
            below: mass(&|theta| theta < self.low),
            above: mass(&|theta| theta > self.high),
        }
    }

    fn quantile(&self, share: f64) -> f64 {
        let mut sum = 0.0;
        for (theta, weights) in self.grid.iter().zip(&self.weights) {
            sum += weights.iter().sum::<f64>();
            if sum >= share {
                return *theta;
            }
        }
        *self.grid.last().expect("the grid has points")
    }
}

/// The probability that a probe holds.
fn chance(theta: f64, x: f64, width: f64) -> f64 {
    SLIPPED + (1.0 - SPOILED - SLIPPED) / (1.0 + (-(theta - x) / width).exp())
}

/// The entropy of a coin, in nats.
fn entropy(p: f64) -> f64 {
    let part = |p: f64| if p <= 0.0 { 0.0 } else { -p * p.ln() };
    part(p) + part(1.0 - p)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::random;

    /// A search against a service whose capacity is known, where chance decides in a region of this width, and where one
    /// probe in so many is spoiled by the machine.
    fn simulate(seed: u64, capacity: f64, width: f64, spoiled: f64, probes: usize) -> Search {
        let mut rng = random::stream(seed, 0);
        let mut search = Search::new(0.1, 10.0);
        for _ in 0..probes {
            let scale = search.next();
            let p = (1.0 - spoiled) / (1.0 + (-(capacity / scale).ln() / width).exp());
            search.saw(scale, rng.random::<f64>() < p);
        }
        search
    }

    #[test]
    fn a_sharp_capacity_is_found_within_one_percent_by_twelve_probes() {
        for n in 0..40 {
            let capacity = 0.12 * 1.12f64.powi(n);
            if capacity > 9.5 {
                break;
            }
            let found = simulate(n as u64, capacity, 0.001, 0.0, 12).estimate();
            assert!((found.scale / capacity - 1.0).abs() < 0.012, "{capacity}: {found:?}");
        }
    }

    #[test]
    fn the_interval_keeps_its_promise_in_noise() {
        let (mut inside, searches) = (0, 60);
        for seed in 0..searches {
            let capacity = 0.3 + 5.0 * (seed as f64 / searches as f64);
            let [low, high] = simulate(seed, capacity, 0.02, 0.02, 14).estimate().interval;
            inside += usize::from((low..=high).contains(&capacity));
        }
        // 95% are promised, and 57 of 60 expected: 50 are four standard errors below that.
        assert!(inside >= 50, "{inside} of {searches} intervals hold the true capacity");
    }

    #[test]
    fn one_spoiled_probe_does_not_decide() {
        let mut search = Search::new(0.1, 10.0);
        search.saw(1.0, true);
        search.saw(0.5, false);
        for _ in 0..12 {
            let scale = search.next();
            search.saw(scale, scale < 2.0);
        }
        let found = search.estimate();
        assert!((found.scale / 2.0 - 1.0).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn a_hint_saves_probes_and_a_wrong_one_is_survived() {
        let after = |hint: Option<f64>, probes: usize| {
            let mut search = Search::new(0.1, 10.0);
            search.saw(9.0, false);
            if let Some(hint) = hint {
                search.hint(hint);
            }
            for _ in 0..probes {
                let scale = search.next();
                search.saw(scale, scale < 1.5);
            }
            search.estimate()
        };
        let (told, untold) = (after(Some(1.45), 4), after(None, 4));
        assert!(told.interval[0] < 1.5 && 1.5 < told.interval[1], "{told:?}");
        assert!(told.half_width() < 0.5 * untold.half_width(), "{told:?} against {untold:?}");
        let misled = after(Some(6.0), 14);
        assert!((misled.scale / 1.5 - 1.0).abs() < 0.02, "{misled:?}");
    }

    #[test]
    fn a_capacity_beyond_the_bounds_is_said_to_be_there() {
        let search = |holds: bool| {
            let mut search = Search::new(0.5, 2.0);
            for _ in 0..8 {
                let scale = search.next();
                assert!((0.499..=2.001).contains(&scale), "{scale}");
                search.saw(scale, holds);
            }
            search.estimate()
        };
        assert!(search(true).above > 0.5, "{:?}", search(true));
        assert!(search(false).below > 0.5, "{:?}", search(false));
    }
}
