//! From the histories of a round to paired differences: each metric in each stretch of turns, on both sides.

use std::collections::BTreeMap;

use crate::history::{Event, History, Micros, Op, Outcome, Role};
use crate::load::turns::{Side, Turns};
use crate::measure::phases;
use crate::measure::stats::{LatencyHistogram, P50, P99, P999, Percentile, rank};
use crate::summary::PhaseSummary;

/// Pairs of turns at the beginning of a round that count for nothing: connections, caches and plans are cold.
const WARM_UP: u64 = 1;
/// The shortest stretch over which processor time is compared: the kernel counts it in steps of 10 ms.
const CPU_STRETCH_US: Micros = 2_000_000;
/// Orders in a pair of turns from which their rate is compared.
const LEAST_ORDERS: u64 = 10;
/// Ops in a stretch from which shares of them are compared.
const LEAST_OPS: u64 = 50;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// A percentile of latency, from the intended start.
    P50,
    /// The 99th percentile.
    P99,
    /// The 99.9th percentile.
    P999,
    /// Orders acknowledged per second of the side's own turns, where it has more to do than it can.
    Throughput,
    /// Share of ops without an answer.
    Unanswered,
    /// CPU-seconds of a role for each 1,000 requests.
    Cpu,
}

impl Measure {
    /// The percentile, with what the whole of a gate needs of each side, and a stretch at the least.
    pub fn percentile(self) -> Option<(Percentile, u64, u64)> {
        match self {
            // A stretch has enough samples to have a few beyond the percentile, and all together as many as any report asks for.
            Measure::P50 => Some((P50, 100, 20)),
            Measure::P99 => Some((P99, P99.needs, 200)),
            Measure::P999 => Some((P999, P999.needs, 1_000)),
            Measure::Throughput | Measure::Unanswered | Measure::Cpu => None,
        }
    }

    /// The name in reports and settings: unit and qualifier last, as in a summary.
    pub fn name(self) -> &'static str {
        match self {
            Measure::P50 => "us_p50",
            Measure::P99 => "us_p99",
            Measure::P999 => "us_p999",
            Measure::Throughput => "orders_per_second",
            Measure::Unanswered => "unanswered_share",
            Measure::Cpu => "cpu_s_per_1000_requests",
        }
    }
}

/// A metric: what is measured, and of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What is measured.
    pub measure: Measure,
    /// In which phase; none over the whole load.
    pub phase: Option<String>,
    /// Of which step; none over all of them.
    pub step: Option<String>,
    /// Of which role.
    pub role: Option<String>,
}

/// What a round says of a metric.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// The paired differences, worse above 0: logarithms of ratios, or differences of shares.
    pub differences: Vec<f64>,
    /// What was measured on each side, over all pairs.
    pub totals: [Total; 2],
}

/// One side of a metric.
#[derive(Debug, Clone, Default)]
pub struct Total {
    /// Latencies.
    pub latencies: LatencyHistogram,
    /// What is divided: orders, unanswered ops, CPU-seconds.
    pub amount: f64,
    /// By what: seconds, ops, thousands of requests.
    pub of: f64,
}

impl Total {
    /// Adds another round's.
    pub fn add(&mut self, other: &Total) {
        self.latencies.merge(&other.latencies);
        self.amount += other.amount;
        self.of += other.of;
    }
}

/// One side of a stretch of turns.
#[derive(Debug, Clone, Default)]
struct Stretch {
    us: Vec<u32>,
    ops: u64,
    unanswered: u64,
    orders_in_turn: u64,
}

/// For each pair of turns both sides.
type Cells = BTreeMap<u64, [Stretch; 2]>;

/// Compares the two histories of a round: that of the old side, and that of the new one. `saturated` names the phases in which
/// there is more to do than can be done.
pub fn compare(sides: [&History; 2], turns: Turns, saturated: &[String]) -> BTreeMap<Key, Compared> {
    let announced = phases::phases(sides[0]);
    let mut cells: BTreeMap<(Option<String>, Option<String>), Cells> = BTreeMap::new();
    for (side, history) in sides.into_iter().enumerate() {
        collect(history, side, turns, &announced, &mut cells);
    }
    let mut compared = BTreeMap::new();
    for ((phase, step), pairs) in &cells {
        let key = |measure| Key { measure, phase: phase.clone(), step: step.clone(), role: None };
        if step.is_some() {
            for measure in [Measure::P50, Measure::P99, Measure::P999] {
                compared.insert(key(measure), latencies(pairs, measure));
            }
        } else {
            compared.insert(key(Measure::Unanswered), unanswered(pairs));
            if phase.as_ref().is_some_and(|phase| saturated.contains(phase)) {
                compared.insert(key(Measure::Throughput), throughput(pairs, turns));
            }
        }
    }
    for (role, cpu) in processors(sides) {
        compared.insert(Key { measure: Measure::Cpu, phase: None, step: None, role: Some(role) }, cpu);
    }
    compared
}

/// Puts every op where it belongs: into the pair of turns of its intended start. Where there are phases, each for itself.
fn collect(
    history: &History,
    side: usize,
    turns: Turns,
    announced: &[PhaseSummary],
    cells: &mut BTreeMap<(Option<String>, Option<String>), Cells>,
) {
    let mine = if side == 0 { Side::Old } else { Side::New };
    for op in &history.ops {
        let Some(pair) = turns.pair(op.intended_us).filter(|pair| *pair >= WARM_UP) else { continue };
        let inside = |phase: &&PhaseSummary| phase.from_us <= op.intended_us && op.intended_us < phase.until_us;
        let phase = announced.iter().find(inside).map(|phase| phase.name.clone());
        if phase.is_none() && !announced.is_empty() {
            continue;
        }
        let step = history.names.get(op.step).to_owned();
        for step in [Some(step), None] {
            let stretch = &mut cells.entry((phase.clone(), step)).or_default().entry(pair).or_default()[side];
            stretch.add(op, turns, mine);
        }
    }
}

impl Stretch {
    fn add(&mut self, op: &Op, turns: Turns, mine: Side) {
        self.ops += 1;
        self.unanswered += u64::from(op.is_unanswered());
        if op.outcome != Outcome::Dropped {
            self.us.push(u32::try_from(op.latency_us()).unwrap_or(u32::MAX));
        }
        let in_turn = turns.pair(op.completed_us) == turns.pair(op.intended_us) && turns.whose(op.completed_us) == mine;
        let ordered = op.role == Role::Order && op.acknowledges();
        self.orders_in_turn += u64::from(ordered && in_turn);
    }

    fn append(&mut self, other: &Stretch) {
        self.us.extend_from_slice(&other.us);
        self.ops += other.ops;
        self.unanswered += other.unanswered;
        self.orders_in_turn += other.orders_in_turn;
    }
}

/// Neighbouring pairs together, until both sides of each have enough. Exchanging the sides of all pairs of a stretch
/// exchanges those of the stretch, so what holds for pairs holds for it, too.
fn stretches(pairs: &Cells, enough: impl Fn(&Stretch) -> bool) -> Vec<[Stretch; 2]> {
    let mut all = Vec::new();
    let mut current: [Stretch; 2] = Default::default();
    for pair in pairs.values() {
        for (sum, one) in current.iter_mut().zip(pair) {
            sum.append(one);
        }
        if current.iter().all(&enough) {
            all.push(std::mem::take(&mut current));
        }
    }
    all
}

fn quantile(us: &mut [u32], quantile: f64) -> f64 {
    let at = rank(us.len() as u64, quantile) as usize - 1;
    // Below a microsecond nothing was measured.
    f64::from((*us.select_nth_unstable(at).1).max(1))
}

fn latencies(pairs: &Cells, measure: Measure) -> Compared {
    let mut compared = Compared::default();
    let Some((percentile, _, least)) = measure.percentile() else { return compared };
    for pair in pairs.values() {
        for (total, stretch) in compared.totals.iter_mut().zip(pair) {
            stretch.us.iter().for_each(|us| total.latencies.record(u64::from(*us)));
        }
    }
    for [mut old, mut new] in stretches(pairs, |stretch| stretch.us.len() as u64 >= least) {
        let [old, new] = [&mut old.us, &mut new.us].map(|us| quantile(us, percentile.quantile));
        compared.differences.push((new / old).ln());
    }
    compared
}

fn unanswered(pairs: &Cells) -> Compared {
    let mut compared = Compared::default();
    for stretch in stretches(pairs, |stretch| stretch.ops >= LEAST_OPS) {
        let share = |stretch: &Stretch| stretch.unanswered as f64 / stretch.ops as f64;
        compared.differences.push(share(&stretch[1]) - share(&stretch[0]));
        for (total, stretch) in compared.totals.iter_mut().zip(&stretch) {
            total.amount += stretch.unanswered as f64;
            total.of += stretch.ops as f64;
        }
    }
    compared
}

fn throughput(pairs: &Cells, turns: Turns) -> Compared {
    let mut compared = Compared::default();
    for stretch in stretches(pairs, |stretch| stretch.orders_in_turn >= LEAST_ORDERS) {
        let [old, new] = [&stretch[0], &stretch[1]].map(|stretch| stretch.orders_in_turn as f64);
        compared.differences.push((old / new).ln());
    }
    for pair in pairs.values() {
        for (total, stretch) in compared.totals.iter_mut().zip(pair) {
            total.amount += stretch.orders_in_turn as f64;
            total.of += turns.every_us as f64 / 1e6;
        }
    }
    compared
}

/// What the roles had used by when.
fn used(history: &History) -> BTreeMap<String, Vec<(Micros, f64)>> {
    let mut roles: BTreeMap<String, Vec<(Micros, f64)>> = BTreeMap::new();
    for event in &history.events {
        if let Event::Used { at_us, roles: used } = event {
            for role in used {
                roles.entry(role.role.clone()).or_default().push((*at_us, role.cpu_s));
            }
        }
    }
    roles
}

/// CPU-seconds by a moment, in a straight line between two looks.
fn at(looks: &[(Micros, f64)], moment: Micros) -> Option<f64> {
    let after = looks.partition_point(|(at, _)| *at < moment);
    let (next_at, next) = *looks.get(after)?;
    if next_at == moment {
        return Some(next);
    }
    let (at, value) = *looks.get(after.checked_sub(1)?)?;
    Some(value + (next - value) * (moment - at) as f64 / (next_at - at) as f64)
}

/// Processor time of each role that both sides have. It is no matter of turns: a side's processes work for that side alone.
fn processors(sides: [&History; 2]) -> BTreeMap<String, Compared> {
    let [old, new] = sides.map(used);
    let duration = sides[0].info.duration_us;
    let edges: Vec<Micros> = (0..).map(|n| n * CPU_STRETCH_US).take_while(|at| *at <= duration).collect();
    let requests = sides.map(|history| {
        let mut counts = vec![0_u64; edges.len()];
        let stretch = |op: &Op| usize::try_from(op.completed_us / CPU_STRETCH_US).ok();
        let answered = history.ops.iter().filter(|op| op.outcome != Outcome::Dropped && op.completed_us >= 0);
        for at in answered.filter_map(stretch).filter(|at| *at < edges.len()) {
            counts[at] += 1;
        }
        counts
    });
    let mut roles = BTreeMap::new();
    for (role, looks) in old {
        let Some(others) = new.get(&role) else { continue };
        let mut compared = Compared::default();
        for (stretch, edge) in edges.windows(2).enumerate() {
            let cost = |looks: &[(Micros, f64)], requests: u64| {
                let cpu_s = at(looks, edge[1])? - at(looks, edge[0])?;
                (requests >= LEAST_OPS && cpu_s > 0.02).then_some((cpu_s, requests as f64 / 1_000.0))
            };
            let pair = (cost(&looks, requests[0][stretch]), cost(others, requests[1][stretch]));
            if let (Some(old), Some(new)) = pair {
                compared.differences.push(((new.0 / new.1) / (old.0 / old.1)).ln());
                for (total, (cpu_s, requests)) in compared.totals.iter_mut().zip([old, new]) {
                    total.amount += cpu_s;
                    total.of += requests;
                }
            }
        }
        roles.insert(role, compared);
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing::{history, op};
    use crate::history::RoleUse;

    const TURNS: Turns = Turns { every_us: 100_000, seed: 1 };

    fn sides(slower: u64) -> [History; 2] {
        [(Side::Old, 1_000), (Side::New, 1_000 + slower)].map(|(side, us)| {
            let mine = (0..40_000).map(|n| n * 100).filter(|at| TURNS.whose(*at) == side);
            history("order", mine.map(|at| op(at, us)).collect())
        })
    }

    fn key(measure: Measure) -> Key {
        let step = measure.percentile().map(|_| "order".to_owned());
        Key { measure, phase: None, step, role: None }
    }

    #[test]
    fn each_stretch_gives_the_logarithm_of_its_ratio() {
        let [old, new] = sides(100);
        let compared = compare([&old, &new], TURNS, &[]);
        for measure in [Measure::P50, Measure::P99, Measure::P999] {
            let metric = &compared[&key(measure)];
            assert!(!metric.differences.is_empty(), "{measure:?}");
            assert!(metric.differences.iter().all(|d| (d - 1.1_f64.ln()).abs() < 1e-3), "{:?}", metric.differences);
        }
        // 20 pairs, of which the first is not counted, with 1,000 ops of each side.
        assert_eq!(compared[&key(Measure::P99)].differences.len(), 19);
        assert_eq!(compared[&key(Measure::P99)].totals[0].latencies.count(), 19_000);
        assert!(compared[&key(Measure::Unanswered)].differences.iter().all(|d| *d == 0.0));
    }

    #[test]
    fn processor_time_is_compared_where_both_sides_were_looked_at() {
        let [mut old, mut new] = sides(0);
        for (history, per_second) in [(&mut old, 0.2), (&mut new, 0.3)] {
            history.info.duration_us = 4_000_000;
            history.events = (0..20)
                .map(|n| {
                    let roles = vec![RoleUse { role: "service".into(), cpu_s: f64::from(n) * 0.25 * per_second }];
                    Event::Used { at_us: i64::from(n) * 250_000 + 7, roles }
                })
                .collect();
        }
        let cpu = &compare([&old, &new], TURNS, &[])
            [&Key { measure: Measure::Cpu, phase: None, step: None, role: Some("service".into()) }];
        assert_eq!(cpu.differences.len(), 1, "nobody had looked before the first two seconds began");
        assert!((cpu.differences[0] - 1.5_f64.ln()).abs() < 0.15, "{:?}", cpu.differences);
    }
}
