//! Latency distributions: a histogram, its percentiles, and how sure one can be of them.

use hdrhistogram::Histogram;
use statrs::distribution::{Beta, Binomial, ContinuousCDF, Discrete};

use crate::summary::LatencyStats;

/// Largest latency told apart, in microseconds: one day.
const HIGHEST_US: u64 = 86_400_000_000;
/// Significant digits of the histogram. Three give buckets of 1/1024 of their value, an error below 0.1%.
const DIGITS: u8 = 3;
/// Probability that an interval misses the true percentile on one given side: 95% intervals.
const TAIL: f64 = 0.025;

/// A percentile that is reported: its name for people, the quantile, and the samples that it takes.
///
/// Ten samples beyond the percentile are the least from which it can be told at all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile {
    /// As people write it: `TP99`.
    pub name: &'static str,
    /// As a fraction: 0.99.
    pub quantile: f64,
    /// Samples below which it is not reported.
    pub needs: u64,
}

/// The median.
pub const P50: Percentile = Percentile { name: "TP50", quantile: 0.5, needs: 1 };
/// The 90th percentile.
pub const P90: Percentile = Percentile { name: "TP90", quantile: 0.9, needs: 100 };
/// The 99th percentile.
pub const P99: Percentile = Percentile { name: "TP99", quantile: 0.99, needs: 1_000 };
/// The 99.9th percentile.
pub const P999: Percentile = Percentile { name: "TP999", quantile: 0.999, needs: 10_000 };

impl Percentile {
    /// Why it is absent, if `count` samples are too few.
    pub fn missing(self, count: u64) -> Option<String> {
        self.missing_of(self.name, count)
    }

    /// The same of a percentile that goes by a name of its own, such as that of one phase.
    pub fn missing_of(self, name: &str, count: u64) -> Option<String> {
        let told = || format!("not enough samples for {name} ({} of {} needed)", grouped(count), grouped(self.needs));
        (count < self.needs).then(told)
    }
}

/// Latencies in microseconds.
///
/// An HdrHistogram that quantizes by less than 0.1%, with the exact largest value and sum beside it.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    counts: Histogram<u32>,
    sum_us: u128,
    max_us: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        let counts = Histogram::new_with_bounds(1, HIGHEST_US, DIGITS).expect("the bounds are constants");
        LatencyHistogram { counts, sum_us: 0, max_us: 0 }
    }
}

impl LatencyHistogram {
    /// Adds a sample; one beyond a day counts as a day.
    pub fn record(&mut self, us: u64) {
        let us = us.min(HIGHEST_US);
        self.counts.saturating_record(us);
        self.sum_us += u128::from(us);
        self.max_us = self.max_us.max(us);
    }

    /// Adds all samples of another.
    pub fn merge(&mut self, other: &LatencyHistogram) {
        self.counts.add(&other.counts).expect("both have the same bounds");
        self.sum_us += other.sum_us;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Adds the samples of a plain histogram of microseconds, as near as it tells them.
    pub fn add_counts(&mut self, counts: &Histogram<u32>) {
        for bucket in counts.iter_recorded() {
            let (us, n) = (bucket.value_iterated_to().min(HIGHEST_US), bucket.count_at_value());
            self.counts.saturating_record_n(us, n);
            self.sum_us += u128::from(us) * u128::from(n);
            self.max_us = self.max_us.max(us);
        }
    }

    /// Samples so far.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The largest sample, exactly; 0 if there is none.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The histogram itself, for writing it out.
    pub fn as_hdr(&self) -> &Histogram<u32> {
        &self.counts
    }

    /// Forgets all samples and keeps the memory.
    pub fn clear(&mut self) {
        self.counts.reset();
        self.sum_us = 0;
        self.max_us = 0;
    }

    /// The samples of the given ranks, counted from 1, in one pass. Ranks beyond the last sample give the largest.
    ///
    /// `ranks` must be sorted.
    pub fn at_ranks(&self, ranks: &[u64]) -> Vec<u64> {
        let mut values = Vec::with_capacity(ranks.len());
        let mut seen = 0;
        for bucket in self.counts.iter_recorded() {
            seen += u64::from(bucket.count_at_value());
            while values.len() < ranks.len() && ranks[values.len()] <= seen {
                values.push(bucket.value_iterated_to().min(self.max_us));
            }
        }
        values.resize(ranks.len(), self.max_us);
        values
    }

    /// A percentile, if there are samples enough for it.
    pub fn percentile_us(&self, percentile: Percentile) -> Option<u64> {
        percentile.missing(self.count()).is_none().then(|| self.quantile_us(percentile.quantile))
    }

    /// The sample at a quantile, however few there are; 0 if there are none. It says what these samples were, and too
    /// little of what others would be to be reported as a percentile: see [`LatencyHistogram::percentile_us`].
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        self.at_ranks(&[rank(self.count(), quantile)])[0]
    }

    /// What is reported of it: percentiles with enough samples behind them, their intervals, and what is missing.
    pub fn stats(&self) -> LatencyStats {
        let count = self.count();
        let mut stats = LatencyStats { count, us_max: self.max_us, ..LatencyStats::default() };
        if count > 0 {
            stats.us_mean = self.sum_us as f64 / count as f64;
        }
        stats.us_p50 = self.percentile_us(P50);
        stats.us_p90 = self.percentile_us(P90);
        stats.us_p99 = self.percentile_us(P99);
        stats.us_p999 = self.percentile_us(P999);
        stats.us_p99_interval = self.interval_us(P99);
        stats.us_p999_interval = self.interval_us(P999);
        stats.missing = [P50, P90, P99, P999].iter().filter_map(|p| p.missing(count)).collect();
        stats
    }

    /// The 95% confidence interval of a percentile, if there are samples enough.
    pub fn interval_us(&self, percentile: Percentile) -> Option<[u64; 2]> {
        let count = self.count();
        if percentile.missing(count).is_some() {
            return None;
        }
        let (low, high) = interval_ranks(count, percentile.quantile)?;
        let values = self.at_ranks(&[low, high]);
        Some([values[0], values[1]])
    }
}

/// The rank, counted from 1, of the sample that estimates a quantile of `count` samples: the smallest sample with at
/// least that fraction of all at or below it.
pub fn rank(count: u64, quantile: f64) -> u64 {
    // Products such as 0.99 * 1000 come out a hair too large in binary.
    let exact = count as f64 * quantile;
    ((exact - exact.abs() * 1e-12).ceil() as u64).clamp(1, count.max(1))
}

/// The ranks of the two samples between which the true quantile lies with a probability of at least 95%; none where
/// there are too few samples for such a pair.
///
/// Whatever the distribution, the number of samples below its quantile `q` is binomial with parameters `count` and
/// `q`, so the tails of that binomial say how far off a rank can be. See W. J. Conover, *Practical Nonparametric
/// Statistics*, 3rd ed. (1999), section 3.2, and H. A. David and H. N. Nagaraja, *Order Statistics*, 3rd ed. (2003),
/// section 7.1. Samples are taken for independent, which those of one overloaded moment are not quite: the interval is
/// about the noise of sampling, not about that of the machine.
pub fn interval_ranks(count: u64, quantile: f64) -> Option<(u64, u64)> {
    if count == 0 || !(quantile > 0.0 && quantile < 1.0) {
        return None;
    }
    let mode = ((count + 1) as f64 * quantile).floor().min(count as f64) as u64;
    let at_mode = Binomial::new(quantile, count).ok()?.ln_pmf(mode).exp();
    let odds = quantile / (1.0 - quantile);

    // P(B = k) for k = mode, mode - 1, ... and k = mode + 1, ... from the ratio of neighbours, until it is nothing.
    let downwards = chain(at_mode, (1..=mode).rev().map(|k| k as f64 / ((count - k + 1) as f64 * odds)));
    let up = chain(at_mode, (mode..count).map(|k| (count - k) as f64 * odds / (k + 1) as f64));

    // The largest rank l with P(B < l) <= 2.5%: sum from the far end while it stays below.
    let outside = tail_length(&downwards);
    let low = mode + 1 - (downwards.len() - outside) as u64;
    // The smallest rank u with P(B >= u) <= 2.5%. The first of `up` is the mode itself.
    let outside = tail_length(&up);
    let high = mode + (up.len() - outside) as u64;
    (low >= 1 && high <= count).then_some((low, high))
}

/// A first value and those after it by the given ratios, as far as they matter.
fn chain(first: f64, ratios: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values = vec![first];
    let mut value = first;
    for ratio in ratios {
        value *= ratio;
        if value < 1e-17 {
            break;
        }
        values.push(value);
    }
    values
}

/// How many values at the end of a list sum to no more than one tail.
fn tail_length(values: &[f64]) -> usize {
    let mut sum = 0.0;
    values
        .iter()
        .rev()
        .take_while(|p| {
            sum += **p;
            sum <= TAIL
        })
        .count()
}

/// A count with thousands separators: `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time for people: `850 µs`, `12.3 ms`, `1.25 s`.
pub fn text_us(us: u64) -> String {
    let (value, unit) = match us {
        0..1_000 => return format!("{us} µs"),
        1_000..1_000_000 => (us as f64 / 1e3, "ms"),
        _ => (us as f64 / 1e6, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// The 95% confidence interval of a share, from how often something happened (Clopper and Pearson, *Biometrika* 26, 1934).
pub fn interval_of_share(hits: u64, of: u64) -> [f64; 2] {
    let beta = |a: u64, b: u64, at: f64| Beta::new(a as f64, b as f64).map_or(0.0, |beta| beta.inverse_cdf(at));
    let low = if hits == 0 { 0.0 } else { beta(hits, of - hits + 1, TAIL) };
    let high = if hits >= of { 1.0 } else { beta(hits + 1, of - hits, 1.0 - TAIL) };
    [low, high]
}

/// The median of some values, and the order statistics that enclose the true one with 95% confidence; the extremes if there are too few.
///
/// # Panics
/// If there are no values.
pub fn median(mut values: Vec<f64>) -> (f64, [f64; 2]) {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let middle = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
    let (low, high) = interval_ranks(count as u64, 0.5).unwrap_or((1, count as u64));
    (middle, [values[low as usize - 1], values[high as usize - 1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use statrs::distribution::DiscreteCDF;

    use super::*;

    fn histogram(samples: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        samples.into_iter().for_each(|us| histogram.record(us));
        histogram
    }

    #[test]
    fn ranks_of_known_intervals() {
        // n = 1000, p = 0.99: P(B <= 982) = 0.0138 and P(B <= 983) = 0.0264 bound the lower rank; P(B >= 997) = 0.0101
        // and P(B >= 996) = 0.0287 bound the upper one.
        assert_eq!(interval_ranks(1_000, 0.99), Some((983, 997)));
        // n = 10, p = 0.5 is the textbook interval of the median from the 2nd to the 9th sample.
        assert_eq!(interval_ranks(10, 0.5), Some((2, 9)));
        assert_eq!(interval_ranks(5, 0.5), None, "five samples cannot bound a median at 95%");
        assert_eq!(interval_ranks(0, 0.5), None);
    }

    proptest! {
        #[test]
        fn ranks_are_the_tightest_with_95_percent(count in 1_u64..3_000, quantile in 0.01_f64..0.999) {
            let binomial = Binomial::new(quantile, count).unwrap();
            let below = |k: u64| if k == 0 { 0.0 } else { binomial.cdf(k - 1) };
            if let Some((low, high)) = interval_ranks(count, quantile) {
                let slack = 1e-9;
                prop_assert!(below(low) <= TAIL + slack);
                prop_assert!(below(low + 1) > TAIL - slack);
                prop_assert!(1.0 - below(high) <= TAIL + slack);
                prop_assert!(1.0 - below(high - 1) > TAIL - slack);
                let estimate = rank(count, quantile);
                prop_assert!(low <= estimate && estimate <= high);
            } else {
                prop_assert!(below(1) > TAIL - 1e-9 || 1.0 - below(count) > TAIL - 1e-9);
            }
        }

        #[test]
        fn quantization_stays_below_a_thousandth(us in 0_u64..HIGHEST_US) {
            let value = histogram([us, HIGHEST_US]).at_ranks(&[1])[0];
            prop_assert!(value >= us && (value - us) as f64 <= us as f64 * 0.001);
        }

        #[test]
        fn the_interval_contains_the_estimate(samples in proptest::collection::vec(0_u64..5_000_000, 1_000..1_500)) {
            let stats = histogram(samples).stats();
            let [low, high] = stats.us_p99_interval.unwrap();
            let p99 = stats.us_p99.unwrap();
            prop_assert!(low <= p99 && p99 <= high && high <= stats.us_max);
        }
    }

    #[test]
    fn large_counts_agree_with_the_normal_distribution() {
        let (low, high) = interval_ranks(10_000_000, 0.999).unwrap();
        // The mean is 9,990,000 and the standard deviation 99.95; 1.96 of them are 195.9.
        assert!((9_989_803..=9_989_807).contains(&low), "{low}");
        assert!((9_990_194..=9_990_199).contains(&high), "{high}");
    }

    #[test]
    fn intervals_cover_the_truth_in_95_of_100_cases() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for (percentile, count) in [(P99, 1_000), (P99, 5_000), (P999, 10_000)] {
            let rounds = 1_000;
            let covered = (0..rounds)
                .filter(|_| {
                    // Exponential latencies with a mean of 10 ms.
                    let sample = |_| (-(1.0 - rng.random::<f64>()).ln() * 10_000.0) as u64;
                    let [low, high] = histogram((0..count).map(sample)).interval_us(percentile).unwrap();
                    let truth = -(1.0 - percentile.quantile).ln() * 10_000.0;
                    low as f64 <= truth && truth <= high as f64
                })
                .count();
            let share = covered as f64 / f64::from(rounds);
            // It is conservative, since ranks are whole numbers; three standard errors are 0.02.
            assert!((0.93..=0.99).contains(&share), "{} of {count} samples: {share}", percentile.name);
        }
    }

    #[test]
    fn percentiles_of_a_small_set_by_hand() {
        let stats = histogram(1..=1_000).stats();
        assert_eq!((stats.count, stats.us_max, stats.us_mean), (1_000, 1_000, 500.5));
        assert_eq!((stats.us_p50, stats.us_p90, stats.us_p99, stats.us_p999), (Some(500), Some(900), Some(990), None));
        assert_eq!(stats.us_p99_interval, Some([983, 997]));
        assert_eq!(stats.missing, ["not enough samples for TP999 (1,000 of 10,000 needed)"]);
    }

    #[test]
    fn shares_of_few_have_wide_intervals() {
        // Tables: 0 of 200 is at most 1.83%, and 95 of 100 lies between 88.7% and 98.4%.
        let [low, high] = interval_of_share(0, 200);
        assert!(low == 0.0 && (high - 0.0183).abs() < 1e-4, "{high}");
        let [low, high] = interval_of_share(95, 100);
        assert!((low - 0.8872).abs() < 1e-3 && (high - 0.9836).abs() < 1e-3, "{low} {high}");
        assert_eq!(interval_of_share(5, 5)[1], 1.0);
    }

    #[test]
    fn one_sample_and_none() {
        let stats = histogram([7]).stats();
        assert_eq!((stats.count, stats.us_p50, stats.us_p90, stats.us_max), (1, Some(7), None, 7));
        let stats = histogram([]).stats();
        assert_eq!((stats.count, stats.us_p50, stats.us_max, stats.us_mean), (0, None, 0, 0.0));
        assert_eq!(stats.missing.len(), 4);
    }

    #[test]
    fn times_for_people() {
        let cases = [(0, "0 µs"), (850, "850 µs"), (12_340, "12.3 ms"), (250_000, "250 ms"), (1_250_000, "1.25 s")];
        for (us, text) in cases {
            assert_eq!(text_us(us), text);
        }
    }
}
