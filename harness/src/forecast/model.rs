//! What was measured, as points at some rate; the queue that explains them; and whether it predicts points that it
//! was not fitted to.
//!
//! A point's latency is what its steps take with nobody in the way, as the lowest point saw it, and what is waited at
//! the resource that gives out first. Three numbers are fitted to the points: that resource's capacity, how much its
//! service times vary, and a factor of the undisturbed latency. The fit minimises the sum of the absolute logarithms
//! of predicted over measured, which one odd point does not decide, by the method of Nelder and Mead (*A simplex
//! method for function minimization*, 1965).

use super::queue::{self, Demand, Station, Step};
use crate::measure::line::student;

/// Goodput has to be predicted this closely, as a share.
pub const GOODPUT_WITHIN: f64 = 0.10;
/// TP99 has to be predicted this closely, as a share.
pub const TP99_WITHIN: f64 = 0.20;
/// So many points have to be held back and predicted, or nothing was shown.
pub const FEWEST: usize = 3;
/// A run tells its goodput so much more closely than its TP99.
const GOODPUT_WEIGHT: f64 = 4.0;
/// Simulations whose mean is a prediction. A fit makes do with one: it has many points, and many predictions to make.
pub const REPLICAS: u64 = 4;
/// Steps of the search.
const ITERATIONS: usize = 35;
/// A fit simulates no more probes of a point once it has so many arrivals: it has to be made for each point held back.
const FIT_ARRIVALS: usize = 6_000;

/// A step as it was measured at one point.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSeen {
    /// Its name.
    pub name: String,
    /// How often it was made for each arrival.
    pub times: f64,
    /// Whether it orders.
    pub order: bool,
    /// Its latencies.
    pub latency: Latencies,
}

/// A distribution of latencies as far as its percentiles tell it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Latencies {
    /// Quantiles, as `−ln(1 − q)` and seconds, in order. Between them it is taken to be exponential, which is a
    /// straight line here.
    pub knots: Vec<(f64, f64)>,
    /// The 99th percentile in seconds, if there were enough samples.
    pub p99_s: Option<f64>,
    /// The mean in seconds.
    pub mean_s: f64,
}

impl Latencies {
    /// The latency at which `−ln(1 − q)` is this.
    fn at(&self, e: f64) -> f64 {
        let mut before = (0.0, self.knots.first().map_or(0.0, |knot| knot.1 * 0.6));
        for knot in &self.knots {
            if e <= knot.0 {
                let share = if knot.0 > before.0 { (e - before.0) / (knot.0 - before.0) } else { 1.0 };
                return before.1 + share * (knot.1 - before.1);
            }
            before = *knot;
        }
        before.1
    }
}

/// Probes at about one rate, together.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Arrivals per second in the busiest second.
    pub rate: f64,
    /// Moments of arrival in seconds, of each of its probes.
    pub arrivals: Vec<Vec<f64>>,
    /// The steps in the order of the journey.
    pub steps: Vec<StepSeen>,
    /// Committed orders for each arrival.
    pub orders: f64,
    /// Committed orders per second.
    pub goodput: f64,
    /// Whether it lies below the capacity: fits and judgements of TP99 are about these, whatever a single probe came
    /// to.
    pub holds: bool,
    /// Its probes.
    pub probes: Vec<String>,
}

/// Which kind of resource gives out first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many processors, which all requests share.
    Processors(usize),
    /// One thing after the other, for orders only: a row lock, or a log that is written in turns.
    Serial,
}

/// What was fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// Arrivals per second at which the resource is used up.
    pub capacity: f64,
    /// How much its service times vary (see [`queue::variation`]).
    pub variability: f64,
    /// The factor of the undisturbed latency.
    pub factor: f64,
    /// What is left of the sum that was minimised, for each point.
    pub left: f64,
}

/// What is expected of a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// TP99 by step, in seconds.
    pub p99_s: Vec<f64>,
    /// Committed orders per second.
    pub goodput: f64,
    /// The mean wait at each station, in seconds.
    pub by_station: Vec<f64>,
}

/// A point that was held back, predicted from the others.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldBack {
    /// Its place among the points.
    pub point: usize,
    /// What was predicted.
    pub predicted: Predicted,
    /// Logarithms of measured over predicted: goodput, and TP99 of the step in question.
    pub off: [f64; 2],
    /// Whether it lies where predictions are judged.
    pub judged: bool,
}

impl HeldBack {
    /// Whether the prediction is as close as it has to be: goodput, TP99.
    pub fn close(&self) -> [bool; 2] {
        // The error of the prediction, as a share of what was measured.
        let [goodput, p99] = self.off.map(|off| ((-off).exp() - 1.0).abs());
        [goodput <= GOODPUT_WITHIN, p99 <= TP99_WITHIN]
    }
}

/// Steps as the simulation takes them.
pub fn steps(seen: &[StepSeen]) -> Vec<Step> {
    seen.iter().map(|step| Step { times: step.times, order: step.order, then_s: step.latency.mean_s }).collect()
}

/// The station that gives out first, at this capacity.
pub fn station(limit: Limit, fitted: &Fitted, steps: &[StepSeen]) -> Station {
    let of = |only: bool| steps.iter().filter(|step| step.order || !only).map(|step| step.times).sum::<f64>().max(1e-9);
    let (servers, orders_only) = match limit {
        Limit::Processors(cpus) => (cpus.max(1), false),
        Limit::Serial => (1, true),
    };
    let mean_s = servers as f64 / (fitted.capacity * of(orders_only));
    Station { nodes: 1, servers, mean_s, variability: fitted.variability, orders_only }
}

/// What is to be expected where these arrive, with this undisturbed latency.
pub fn predict(
    arrivals: &[Vec<f64>],
    undisturbed: &[StepSeen],
    factor: f64,
    stations: &[Station],
    stock: u64,
    replicas: u64,
) -> Predicted {
    let steps = steps(undisturbed);
    let mut p99_s = vec![0.0; steps.len()];
    let mut by_station = vec![0.0; stations.len()];
    let mut goodput = 0.0;
    let runs = arrivals.len() as f64 * replicas as f64;
    for (number, arrivals) in arrivals.iter().flat_map(|arrivals| (0..replicas).map(move |n| (n, arrivals))) {
        let demand = Demand { arrivals, steps: &steps, stock };
        let mut seen = queue::simulate(&demand, stations, number + 1);
        for (index, waits) in seen.waits.iter_mut().enumerate() {
            // The golden ratio spreads the quantiles evenly and mixes them well, without a second source of chance.
            let mut share: f64 = 0.5;
            for wait in waits.iter_mut() {
                share = (share + 0.618_033_988_749_895).fract();
                *wait += factor * undisturbed[index].latency.at(-(1.0 - share).ln());
            }
            p99_s[index] += queue::quantile(waits, 0.99) / runs;
        }
        let [first, last] = seen.ordered_s;
        goodput += seen.orders as f64 / (last - first).max(1e-3) / runs;
        by_station.iter_mut().zip(&seen.by_station).for_each(|(sum, wait)| *sum += wait / runs);
    }
    Predicted { p99_s, goodput, by_station }
}

/// Logarithms of measured over predicted: goodput, and TP99 of a step.
fn off(point: &Point, predicted: &Predicted, step: usize) -> [f64; 2] {
    let goodput = (point.goodput.max(1e-9) / predicted.goodput.max(1e-9)).ln();
    let p99 = point.steps[step].latency.p99_s.map_or(0.0, |seen| (seen / predicted.p99_s[step].max(1e-9)).ln());
    [goodput, p99]
}

/// As many probes as a fit takes.
fn enough(probes: &[Vec<f64>]) -> &[Vec<f64>] {
    let mut arrivals = 0;
    let fewer = probes.iter().position(|probe| {
        arrivals += probe.len();
        arrivals >= FIT_ARRIVALS
    });
    &probes[..fewer.map_or(probes.len(), |last| last + 1)]
}

/// How far the queue is off its points, the first of which is the one with the lowest rate.
fn misfit(points: &[&Point], limit: Limit, step: usize, fitted: &Fitted) -> f64 {
    let mut sum = 0.0;
    for point in points {
        let station = [station(limit, fitted, &point.steps)];
        let arrivals = enough(&point.arrivals);
        let predicted = predict(arrivals, &points[0].steps, fitted.factor, &station, u64::MAX, 1);
        let [goodput, p99] = off(point, &predicted, step);
        // Beyond the capacity, what is served tells it; latency only tells for how long that went on.
        sum += GOODPUT_WEIGHT * goodput.abs() + if point.holds { p99.abs() } else { 0.0 };
    }
    sum / points.len() as f64
}

/// Fits the queue to points, of which the first is the one with the lowest rate. `step` is the one whose TP99 matters.
pub fn fit(points: &[&Point], limit: Limit, step: usize) -> Option<Fitted> {
    let lowest = points.first()?;
    let highest = points.iter().filter(|point| point.holds).map(|point| point.rate).fold(lowest.rate, f64::max);
    let left = |x: &[f64; 3]| {
        let fitted = Fitted { capacity: x[0].exp(), variability: x[1], factor: x[2].exp(), left: 0.0 };
        // Nobody's service varies like that; and below what was served there is no capacity.
        if !(0.0..=3.0).contains(&fitted.variability) || x[2].abs() > 1.0 || fitted.capacity < 0.5 * highest {
            return f64::INFINITY;
        }
        misfit(points, limit, step, &fitted)
    };
    let mut starts: Vec<(f64, [f64; 3])> = Vec::new();
    for beyond in [1.02, 1.15, 1.4] {
        for variability in [0.7, 1.6] {
            let x = [(highest * beyond).ln(), variability, -0.05];
            starts.push((left(&x), x));
        }
    }
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (value, x) = nelder_mead(&left, starts.first()?.1, [0.08, 0.4, 0.1]);
    value.is_finite().then(|| Fitted { capacity: x[0].exp(), variability: x[1], factor: x[2].exp(), left: value })
}

/// Minimises a function of three numbers from a start, with first steps of this size.
fn nelder_mead(f: &impl Fn(&[f64; 3]) -> f64, start: [f64; 3], size: [f64; 3]) -> (f64, [f64; 3]) {
    let mut simplex = vec![(f(&start), start)];
    for axis in 0..3 {
        let mut x = start;
        x[axis] += size[axis];
        simplex.push((f(&x), x));
    }
    for _ in 0..ITERATIONS {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst = simplex[3];
        let centre: [f64; 3] = std::array::from_fn(|i| (0..3).map(|n| simplex[n].1[i]).sum::<f64>() / 3.0);
        let towards = |far: f64| {
            let x: [f64; 3] = std::array::from_fn(|i| centre[i] + far * (worst.1[i] - centre[i]));
            (f(&x), x)
        };
        let reflected = towards(-1.0);
        simplex[3] = if reflected.0 < simplex[0].0 {
            let expanded = towards(-2.0);
            if expanded.0 < reflected.0 { expanded } else { reflected }
        } else if reflected.0 < simplex[2].0 {
            reflected
        } else {
            let contracted = towards(if reflected.0 < worst.0 { -0.5 } else { 0.5 });
            if contracted.0 < worst.0.min(reflected.0) {
                contracted
            } else {
                let best = simplex[0].1;
                for corner in &mut simplex[1..] {
                    let x: [f64; 3] = std::array::from_fn(|i| (corner.1[i] + best[i]) / 2.0);
                    *corner = (f(&x), x);
                }
                continue;
            }
        };
    }
    simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
    simplex[0]
}

/// Holds back one point after the other, fits the queue to the others, and predicts it. The lowest is always needed,
/// since it tells the undisturbed latency. Points are ordered by rate; those that do not hold are predicted and not
/// judged.
pub fn hold_back(points: &[Point], limit: Limit, step: usize) -> Vec<HeldBack> {
    let one = |index: usize| {
        let others: Vec<&Point> =
            points.iter().enumerate().filter(|(n, _)| *n != index).map(|(_, point)| point).collect();
        let fitted = fit(&others, limit, step)?;
        let point = &points[index];
        let station = [station(limit, &fitted, &point.steps)];
        let predicted = predict(&point.arrivals, &points[0].steps, fitted.factor, &station, u64::MAX, REPLICAS);
        let off = off(point, &predicted, step);
        let judged = point.holds && point.steps[step].latency.p99_s.is_some();
        Some(HeldBack { point: index, predicted, off, judged })
    };
    // Each takes seconds, and they do not depend on each other.
    std::thread::scope(|scope| {
        let under_way: Vec<_> = (1..points.len()).map(|index| scope.spawn(move || one(index))).collect();
        under_way.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    })
}

/// Whether the model was shown to predict what it had not seen.
pub fn validated(held: &[HeldBack]) -> bool {
    let judged: Vec<&HeldBack> = held.iter().filter(|held| held.judged).collect();
    judged.len() >= FEWEST && judged.iter().all(|held| held.close() == [true, true])
}

/// Factors between which a figure lies with 95% for what was predicted: goodput, TP99. They rest on how far off the
/// predictions of points held back were (Quenouille's and Tukey's jackknife as it is used for prediction); none with
/// too few of them.
pub fn doubt(held: &[HeldBack]) -> Option<[f64; 2]> {
    let judged: Vec<&HeldBack> = held.iter().filter(|held| held.judged).collect();
    let n = judged.len();
    (n >= FEWEST).then(|| {
        [0, 1].map(|which| {
            let squares: f64 = judged.iter().map(|held| held.off[which].powi(2)).sum();
            (student(n) * (squares / n as f64 * (1.0 + 1.0 / n as f64)).sqrt()).exp()
        })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use rand::RngExt;

    use super::*;
    use crate::random;

    /// A point as a shop with these stations would have given it.
    pub fn synthetic(rate: f64, stations: &[Station], seed: u64) -> Point {
        let mut rng = random::stream(seed, 9);
        let mut arrivals = Vec::new();
        let mut at = 0.0;
        while at < 20.0 {
            at -= (1.0 - rng.random::<f64>()).ln() / rate;
            arrivals.push(at);
        }
        let steps = [Step { times: 1.0, order: false, then_s: 1e-3 }, Step { times: 1.0, order: true, then_s: 8e-3 }];
        let seen = queue::simulate(&Demand { arrivals: &arrivals, steps: &steps, stock: u64::MAX }, stations, seed);
        let step = |index: usize, name: &str, order: bool, mean_s: f64| {
            let mut all: Vec<f64> =
                seen.waits[index].iter().map(|wait| wait - mean_s * (1.0 - rng.random::<f64>()).ln() + 1e-3).collect();
            let knots = [0.5, 0.9, 0.99, 0.999].map(|q: f64| (-(1.0 - q).ln(), queue::quantile(&mut all, q))).to_vec();
            let mean_s = all.iter().sum::<f64>() / all.len() as f64;
            let latency = Latencies { p99_s: Some(knots[2].1), knots, mean_s };
            StepSeen { name: name.into(), times: 1.0, order, latency }
        };
        let mut step = step;
        let steps = vec![step(0, "login", false, 1e-3), step(1, "order", true, 8e-3)];
        let [first, last] = seen.ordered_s;
        let goodput = seen.orders as f64 / (last - first);
        let holds = rate < 450.0;
        Point { rate, arrivals: vec![arrivals], steps, orders: 1.0, goodput, holds, probes: vec![format!("at {rate}")] }
    }

    fn row(mean_s: f64, variability: f64) -> Station {
        Station { nodes: 1, servers: 1, mean_s, variability, orders_only: true }
    }

    fn points(stations: impl Fn(f64) -> Vec<Station>) -> Vec<Point> {
        [100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 650.0]
            .iter()
            .enumerate()
            .map(|(n, rate)| synthetic(*rate, &stations(*rate), n as u64 + 1))
            .collect()
    }

    #[test]
    fn a_planted_capacity_is_found_again() {
        let points = points(|_| vec![row(0.002, 1.0)]);
        let fitted = fit(&points.iter().collect::<Vec<_>>(), Limit::Serial, 1).unwrap();
        assert!((fitted.capacity / 500.0 - 1.0).abs() < 0.06, "{fitted:?}");
        assert!(fitted.left < 0.2, "{fitted:?}");
    }

    #[test]
    fn points_held_back_are_predicted_and_a_change_of_regime_is_noticed() {
        let held = hold_back(&points(|_| vec![row(0.002, 1.0)]), Limit::Serial, 1);
        let off: Vec<_> = held.iter().map(|held| (held.judged, held.off)).collect();
        assert!(validated(&held), "{off:?}");
        let [goodput, p99] = doubt(&held).unwrap();
        assert!(goodput < 1.1 && p99 < 1.5, "{goodput} {p99}");
        // From a rate on, something else is in the way that the points below it know nothing of.
        let broken = points(|rate| {
            let slower = Station { nodes: 1, servers: 1, mean_s: 0.0021, variability: 2.0, orders_only: false };
            if rate > 220.0 && rate < 360.0 {
                vec![row(0.002, 1.0), Station { mean_s: 0.0009, ..slower }]
            } else {
                vec![row(0.002, 1.0)]
            }
        });
        let held = hold_back(&broken, Limit::Serial, 1);
        assert!(!validated(&held), "{:?}", held.iter().map(|held| held.off).collect::<Vec<_>>());
        assert!(!validated(&held[..2]), "too few");
    }

    #[test]
    fn processors_are_shared_by_all_requests() {
        let cpu = Station { nodes: 1, servers: 2, mean_s: 0.002, variability: 1.0, orders_only: false };
        let points = points(|_| vec![cpu.clone()]);
        let fitted = fit(&points.iter().collect::<Vec<_>>(), Limit::Processors(2), 1).unwrap();
        assert!((fitted.capacity / 500.0 - 1.0).abs() < 0.06, "{fitted:?}");
        let again = station(Limit::Processors(2), &fitted, &points[0].steps);
        assert!((again.mean_s / 0.002 - 1.0).abs() < 0.06 && again.servers == 2, "{again:?}");
    }
}
