//! The arithmetic of a plan: nodes, rows, funnel, cost, generators; and where it would go beyond what was measured.

use super::curve::Curve;
use super::evidence::{Evidence, WORK};
use super::model::{self, Fitted, Limit, Predicted};
use super::queue::{Station, variation};
use super::{CurvePoint, Demand, Fleet, Forecast, Funnel, Latency, Model, Nodes, Refusal, fleet};
use crate::capacity::{Kind, SweepReport};
use crate::measure::line::Line;
use crate::report::format;
use crate::scenario::forecast::Plan;

/// Roles of which there is one, whatever the plan says.
const ONE_OF_A_KIND: [&str; 4] = ["postgres", "standby", "redis", "redis-replica"];
/// Of what there is one of, processors are taken to scale up to so many times the orders that were measured.
const BEYOND: f64 = 4.0;
/// The first arrivals are simulated, when most come: for so many seconds at the highest rate.
const BUSIEST_S: f64 = 30.0;
/// But at least, and at most, so many arrivals.
const SIMULATED: [f64; 2] = [5_000.0, 200_000.0];
/// Nodes are added so often.
const ROUNDS: usize = 24;

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// What is planned.
    pub plan: &'a Plan,
    /// What was measured.
    pub evidence: &'a Evidence,
    /// The queue that was fitted.
    pub fitted: Fitted,
    /// The step that was judged.
    pub step: usize,
    /// Factors of the 95% intervals of goodput and TP99.
    pub doubt: Option<[f64; 2]>,
    /// Throughput with more of what gave out first, if that was measured.
    pub sweep: Option<&'a SweepReport>,
}

/// A role and what it has to run on.
struct Sized {
    role: String,
    /// CPU-seconds of each arrival on a processor of the measured machine.
    cpu_s: f64,
    cpus: u32,
    speed: f64,
    nodes: u32,
    most: u32,
}

impl Basis<'_> {
    fn curve(&self) -> Curve {
        let plan = self.plan;
        Curve::new(plan.buyers as f64, plan.within.0.as_secs_f64(), plan.half_within.0.as_secs_f64())
    }

    /// Orders of each arrival, where there is stock.
    fn orders(&self) -> f64 {
        let held = self.evidence.points.iter().filter(|point| point.holds);
        let (sum, count) = held.fold((0.0, 0.0), |(sum, count), point| (sum + point.orders, count + 1.0));
        if count > 0.0 { sum / count } else { self.evidence.points[0].orders }
    }

    fn requests(&self) -> f64 {
        self.evidence.points[0].steps.iter().map(|step| step.times).sum::<f64>().max(1e-9)
    }

    /// The share of the measured machine's processors that was of use when they gave out; otherwise what usually is.
    fn efficiency(&self) -> f64 {
        match self.evidence.limit {
            Limit::Serial => WORK,
            Limit::Processors(cpus) => {
                let all: f64 = self.evidence.cpu.values().map(|line| line.slope.max(0.0)).sum();
                (self.fitted.capacity * all / cpus as f64).clamp(0.2, 1.0)
            }
        }
    }

    fn roles(&self, with_headroom: f64) -> Vec<Sized> {
        let efficiency = self.efficiency();
        let sized = |(role, line): (&String, &Line)| {
            let node = &self.plan.node[role];
            let cpu_s = line.slope.max(1e-7);
            let one = ONE_OF_A_KIND.contains(&role.as_str());
            let most = if one { 1 } else { node.at_most.unwrap_or(u32::MAX) };
            let needed = with_headroom * cpu_s / (f64::from(node.cpus) * node.speed * efficiency);
            let nodes = (needed.ceil().max(1.0) as u32).min(most);
            Sized { role: role.clone(), cpu_s, cpus: node.cpus, speed: node.speed, nodes, most }
        };
        self.evidence.roles().map(sized).collect()
    }

    /// Orders per second that one row takes, as far as it is known.
    fn row(&self) -> Option<f64> {
        match self.evidence.limit {
            Limit::Serial => Some(self.fitted.capacity * self.orders()),
            Limit::Processors(_) => self.evidence.row_orders,
        }
    }

    fn stations(&self, roles: &[Sized], rows: u32) -> Vec<Station> {
        let (requests, efficiency) = (self.requests(), self.efficiency());
        let fitted_to = |processors: bool| {
            if matches!(self.evidence.limit, Limit::Processors(_)) == processors {
                self.fitted.variability
            } else {
                1.0
            }
        };
        let mut out: Vec<Station> = roles
            .iter()
            .map(|role| Station {
                nodes: role.nodes as usize,
                servers: role.cpus as usize,
                mean_s: role.cpu_s / role.speed / efficiency / requests,
                variability: fitted_to(true),
                orders_only: false,
            })
            .collect();
        out.extend(self.row().map(|orders| Station {
            nodes: rows as usize,
            servers: 1,
            mean_s: 1.0 / orders,
            variability: fitted_to(false),
            orders_only: true,
        }));
        out
    }

    /// What is to be expected in the busiest time if so many times as many come.
    fn expect(&self, times: f64, stations: &[Station]) -> Predicted {
        let curve = self.curve();
        // Once the stock is sold, waiting is over: that would dilute what those who find some of it wait.
        let buyers = self.plan.stock as f64 / self.orders().max(1e-9);
        let most = (curve.peak() * times * BUSIEST_S).min(buyers).clamp(SIMULATED[0], SIMULATED[1]);
        let arrivals = vec![curve.first(most as usize, times, 21)];
        let steps = &self.evidence.points[0].steps;
        model::predict(&arrivals, steps, self.fitted.factor, stations, self.plan.stock, 2)
    }

    /// Whether all limits hold, with the doubt there is.
    fn holds(&self, predicted: &Predicted) -> bool {
        self.limits()
            .all(|(index, limit_s)| predicted.p99_s[index] * self.doubt.map_or(1.0, |doubt| doubt[1]) <= limit_s)
    }

    fn limits(&self) -> impl Iterator<Item = (usize, f64)> {
        let steps = self.evidence.points[0].steps.iter().enumerate();
        steps.filter_map(|(index, step)| Some((index, self.plan.limits.get(&step.name)?.0.as_secs_f64())))
    }
}

/// Makes the plan. What was held back is not in it yet.
pub fn size(basis: &Basis<'_>) -> Forecast {
    let Basis { plan, evidence, fitted, .. } = *basis;
    let curve = basis.curve();
    let (peak, orders, requests) = (curve.peak(), basis.orders(), basis.requests());
    let more = 1.0 + plan.headroom;
    let mut refusals = not_understood(evidence);
    let needed_orders = peak * more * orders;
    let (rows, refused) = rows(basis, needed_orders);
    refusals.extend(refused);
    let mut roles = basis.roles(peak * more);
    let mut predicted = basis.expect(more, &basis.stations(&roles, rows));
    for _ in 0..ROUNDS {
        // Where most is waited and there may be more nodes, one in eight is added.
        let stations = basis.stations(&roles, rows);
        let waits = |index: usize| predicted.by_station[index];
        let widest = (0..roles.len())
            .filter(|index| roles[*index].nodes < roles[*index].most && waits(*index) > 1e-6)
            .max_by(|a, b| waits(*a).total_cmp(&waits(*b)));
        let Some(index) = widest.filter(|_| !basis.holds(&predicted) && stations.len() >= roles.len()) else { break };
        let nodes = roles[index].nodes;
        roles[index].nodes = (nodes + (nodes / 8).max(1)).min(roles[index].most);
        predicted = basis.expect(more, &basis.stations(&roles, rows));
    }
    refusals.extend(too_small(basis, &roles, peak * more));
    if refusals.is_empty() {
        refusals.extend(too_slow(basis, &predicted));
    }
    let stations = basis.stations(&roles, rows);
    let expected = basis.expect(1.0, &stations);
    let nodes: Vec<Nodes> = roles.iter().map(|role| nodes(basis, role, peak)).collect();
    let fleet = generators(basis, peak * more * requests);
    let cost = nodes.iter().map(|nodes| nodes.cost).sum();
    let sellable = plan.stock as f64 / orders.max(1e-9);
    let sold_out = curve.when(sellable).filter(|_| orders > 0.0);
    Forecast {
        format: 1,
        scenario: evidence.report.scenario.clone(),
        title: evidence.report.title.clone(),
        plan: plan.clone(),
        validated: false,
        validation: Vec::new(),
        model: Model {
            resource: evidence.resource.clone().unwrap_or_else(|| "processors".to_owned()),
            capacity: fitted.capacity,
            variation: variation(fitted.variability),
            factor: fitted.factor,
            off: fitted.left.min(10.0).exp(),
            step: evidence.points[0].steps[basis.step].name.clone(),
        },
        demand: demand(evidence),
        peak_arrivals_per_second: peak,
        peak_requests_per_second: peak * requests,
        peak_orders_per_second: peak * orders,
        // The last unit is sold when its buyer comes, or when the row is through with all of them.
        sold_out_after_s: sold_out
            .map(|at| at.max(basis.row().map_or(0.0, |row| plan.stock as f64 / row / f64::from(rows)))),
        latency: latency(basis, &expected, &predicted),
        funnel: funnel(basis, orders),
        assumptions: assumptions(basis, &nodes, rows),
        curve: points(basis, &roles, rows, peak),
        shards: rows,
        nodes,
        cost,
        fleet,
        refusals,
        exit_code: 0,
    }
}

/// Reasons that lie in the probes.
fn not_understood(evidence: &Evidence) -> Vec<Refusal> {
    let refusal = |why: &str, remedy: &str| vec![Refusal { why: why.to_owned(), remedy: remedy.to_owned() }];
    match (evidence.found.kind, evidence.resource.as_deref()) {
        (Kind::AtLeast, _) => refusal(
            "every rate that was probed held, so nobody saw what gives out first",
            "probe higher: seckill capacity SCENARIO --to with a larger scale",
        ),
        (Kind::Below, _) => refusal(
            "not even the lowest rate that was probed held",
            "probe lower with --from, or loosen the scenario's [[slo]]",
        ),
        (Kind::GeneratorLimit, _) | (_, Some("generator" | "virtual buyers")) => refusal(
            "it was the generator that gave out first, and what the service does beyond that was not seen",
            "drive the probes in several shards, or raise load.virtual_buyers, and measure again",
        ),
        _ => Vec::new(),
    }
}

/// Into how many rows the stock is divided, and why that cannot be told from what was measured.
fn rows(basis: &Basis<'_>, needed: f64) -> (u32, Option<Refusal>) {
    let evidence = basis.evidence;
    let held = evidence.orders_held;
    let served = evidence.points.iter().map(|point| point.goodput).fold(0.0, f64::max);
    // What was measured to hold is in the regime that was measured; so is what leaves the row room, if rates up to it
    // were probed.
    let row_has_room = evidence.limit == Limit::Serial && basis.row().is_some_and(|row| needed <= row * WORK);
    if needed <= held * 1.001 || (row_has_room && needed <= served) {
        return (1, None);
    }
    let resource = evidence.resource.as_deref().unwrap_or("nothing that was seen");
    let rates = format!(
        "the plan takes {} orders per second while there is stock, and {} were measured to hold",
        format::number(needed),
        format::number(held)
    );
    let row = basis.row();
    let divided = row.map_or(1, |row| (needed / (row * WORK)).ceil().max(2.0) as u32);
    if let Some((count, times)) = swept(basis, needed / held.max(1e-9)) {
        if times >= needed / held.max(1e-9) {
            return (count, None);
        }
        let why = format!(
            "{rates}; by the sweep, {count} of {} do {times:.1} times as much and more of it does less",
            path(basis)
        );
        let remedy = "let fewer in at once, by admission or by a longer `half_within`, or deduct otherwise";
        return (count, Some(Refusal { why, remedy: remedy.to_owned() }));
    }
    match (evidence.limit, row) {
        (Limit::Processors(_), row) if row.is_none_or(|row| needed <= row * WORK) && needed <= held * BEYOND => {
            (1, None)
        }
        (Limit::Processors(_), Some(row)) if needed > row * WORK => {
            let why = format!(
                "{rates}; processors gave out first there, but by the sessions that waited, the lock of the item's \
                 row gives out at about {}: another regime, of which nothing was measured",
                format::number(row)
            );
            (divided, Some(Refusal { why, remedy: shard_remedy(divided) }))
        }
        (Limit::Processors(_), _) => {
            let why = format!("{rates}: more than {BEYOND} times as many, with one database");
            let remedy = "measure on a machine as large as the planned database, or let fewer in at once";
            (divided, Some(Refusal { why, remedy: remedy.to_owned() }))
        }
        (Limit::Serial, _) => {
            let why = format!("{rates}; what gave out first is: {resource}. Nodes do not multiply that");
            let remedy = match resource {
                "connection pool" => "measure with more connections: seckill capacity SCENARIO --sweep \
                 target.reference.pool=4,8,16,32, and give its folder to seckill forecast --sweep"
                    .to_owned(),
                _ => shard_remedy(divided),
            };
            (divided, Some(Refusal { why, remedy }))
        }
    }
}

fn shard_remedy(divided: u32) -> String {
    format!(
        "divide the stock, into {divided} rows if each did as much as this one, and measure that: seckill capacity \
         SCENARIO --set target.strategy=shards --sweep target.reference.shards=1,2,4,8, and give its folder to \
         seckill forecast --sweep; or let fewer in at once"
    )
}

fn path<'a>(basis: &Basis<'a>) -> &'a str {
    basis.sweep.map_or("", |sweep| sweep.path.as_str())
}

/// How many of what was swept, and how many times as much as one that does: as few as do `times` as much, or as many
/// as do most. No more than were measured.
fn swept(basis: &Basis<'_>, times: f64) -> Option<(u32, f64)> {
    let sweep = basis.sweep?;
    let of = match basis.evidence.resource.as_deref() {
        Some("connection pool") => "pool",
        _ => "shards",
    };
    let law = sweep.law.filter(|_| sweep.path.ends_with(of))?;
    let most = sweep.points.iter().map(|(count, _)| *count).max()?;
    let does = |count: u32| law.at(f64::from(count)) / law.one;
    (1..=most)
        .find(|count| does(*count) >= times)
        .or_else(|| (1..=most).max_by(|a, b| does(*a).total_cmp(&does(*b))))
        .map(|count| (count, does(count)))
}

/// Roles that cannot carry it with as many nodes as there may be.
fn too_small(basis: &Basis<'_>, roles: &[Sized], rate: f64) -> Vec<Refusal> {
    let efficiency = basis.efficiency();
    let mut out = Vec::new();
    for role in roles {
        let cpus = rate * role.cpu_s / role.speed / efficiency;
        let have = f64::from(role.nodes) * f64::from(role.cpus);
        if cpus > have {
            let nodes = format::plural(u64::from(role.nodes), "node");
            out.push(Refusal {
                why: format!(
                    "{} takes {} processors at the peak, and {nodes} of {} have {have}",
                    role.role,
                    format::number(cpus),
                    role.cpus
                ),
                remedy: format!(
                    "give it larger nodes: --set node.{}.cpus={}",
                    role.role,
                    (cpus / f64::from(role.nodes)).ceil()
                ),
            });
        }
        if role.nodes > basis.plan.linear_to {
            out.push(Refusal {
                why: format!(
                    "{} nodes of {} would be needed, and more than {} are not taken to do as many times as much as one",
                    role.nodes, role.role, basis.plan.linear_to
                ),
                remedy: format!(
                    "measure how it scales with nodes and raise linear_to, or take larger nodes: --set \
                     node.{}.cpus={}",
                    role.role,
                    role.cpus * 2
                ),
            });
        }
    }
    out
}

/// Limits that no number of nodes keeps.
fn too_slow(basis: &Basis<'_>, predicted: &Predicted) -> Vec<Refusal> {
    let doubt = basis.doubt.map_or(1.0, |doubt| doubt[1]);
    let micros = |s: f64| format::micros((s * 1e6) as u64);
    let over = basis.limits().filter(|(index, limit_s)| predicted.p99_s[*index] * doubt > *limit_s);
    over.map(|(index, limit_s)| {
        let step = &basis.evidence.points[0].steps[index];
        let alone = step.latency.p99_s.unwrap_or(0.0);
        Refusal {
            why: format!(
                "TP99 of {} would be {} with {}% more buyers, by its 95% interval up to {}, and {} is the limit; {}",
                step.name,
                micros(predicted.p99_s[index]),
                (basis.plan.headroom * 100.0).round(),
                micros(predicted.p99_s[index] * doubt),
                micros(limit_s),
                match alone > 0.0 {
                    true => format!("with hardly anybody there it is {}", micros(alone)),
                    false => "more nodes do not help".to_owned(),
                },
            ),
            remedy: "let fewer in at once, make the step faster, loosen its limit, or measure longer for a narrower interval"
                .to_owned(),
        }
    })
    .collect()
}

fn nodes(basis: &Basis<'_>, role: &Sized, rate: f64) -> Nodes {
    let node = &basis.plan.node[&role.role];
    let have = f64::from(role.nodes) * f64::from(role.cpus) * role.speed * basis.efficiency();
    Nodes {
        role: role.role.clone(),
        count: role.nodes,
        cpus: role.cpus,
        used: rate * role.cpu_s / have,
        cost: f64::from(role.nodes) * node.price_per_hour * basis.plan.hours,
    }
}

/// Generators of a rehearsal at this many requests per second.
fn generators(basis: &Basis<'_>, requests_per_second: f64) -> Option<Fleet> {
    let node = basis.plan.node.get("generator");
    let requests_per_cpu_s = basis.evidence.report.requests_per_generator_cpu_s? * node.map_or(1.0, |node| node.speed);
    // A generator that uses all of its processor is late, so it gets no more than it can do with the headroom to spare.
    let each = requests_per_cpu_s / (1.0 + basis.plan.headroom);
    let shards = (requests_per_second / each).ceil().clamp(1.0, fleet::MOST as f64);
    let price = node.map_or(0.0, |node| node.price_per_hour) * basis.plan.hours;
    Some(Fleet { shards: shards as u32, requests_per_second, requests_per_cpu_s, cost: price * shards })
}

fn demand(evidence: &Evidence) -> Vec<Demand> {
    let demand = |(role, line): (&String, &Line)| Demand {
        role: role.clone(),
        cpu_s_per_1000: line.slope * 1e3,
        interval: line.slope_interval.map(|slope| slope * 1e3),
        at_rest: line.at_rest,
    };
    evidence.cpu.iter().map(demand).collect()
}

fn latency(basis: &Basis<'_>, expected: &Predicted, with_headroom: &Predicted) -> Vec<Latency> {
    let steps = basis.evidence.points[0].steps.iter().enumerate();
    let of = |(index, step): (usize, &model::StepSeen)| {
        let us = expected.p99_s[index] * 1e6;
        Latency {
            step: step.name.clone(),
            us_p99: us,
            interval: basis.doubt.map(|doubt| [us / doubt[1], us * doubt[1]]),
            us_p99_with_headroom: with_headroom.p99_s[index] * 1e6,
            limit_us: basis.plan.limits.get(&step.name).map(|limit| limit.0.as_secs_f64() * 1e6),
        }
    };
    steps.map(of).collect()
}

/// How many get how far: by the share of the measured arrivals that made each step, and by the stock.
fn funnel(basis: &Basis<'_>, orders: f64) -> Vec<Funnel> {
    let buyers = basis.plan.buyers as f64;
    let row =
        |name: &str, buyers: Option<f64>| Funnel { name: name.to_owned(), buyers: buyers.map(|n| n.round() as u64) };
    let mut out = vec![row("come", Some(buyers))];
    for step in &basis.evidence.points[0].steps {
        out.push(row(&format!("make the step {}", step.name), Some(buyers * step.times.min(1.0))));
    }
    let ordered = (buyers * orders).min(basis.plan.stock as f64);
    out.push(row("order", Some(ordered)));
    out.push(row("are told that it is sold out", Some((buyers * orders - ordered).max(0.0))));
    out.push(row("pay", basis.evidence.paid.map(|paid| ordered * paid)));
    out
}

fn assumptions(basis: &Basis<'_>, nodes: &[Nodes], rows: u32) -> Vec<String> {
    let mut out = Vec::new();
    for nodes in nodes.iter().filter(|nodes| nodes.count > 1) {
        out.push(format!(
            "{} nodes of {} do {} times as much as one, each with a line of its own that requests are dealt out to in \
             turns. Up to {} that is taken to be so.",
            nodes.count, nodes.role, nodes.count, basis.plan.linear_to
        ));
    }
    out.push(
        "Processors of the planned nodes do what their speed in the plan says against those of the measured machine, and the network \
         between them adds nothing to the undisturbed latency."
            .to_owned(),
    );
    if basis.plan.stock < basis.plan.buyers {
        out.push(
            "Whoever comes after the stock is sold costs as many processors as a buyer, and does not wait for the \
             item's row. A refusal is usually cheaper, so there will be some to spare."
                .to_owned(),
        );
    }
    match (basis.evidence.limit, basis.row()) {
        (Limit::Processors(_), None) => {
            out.push("The lock of the item's row was hardly waited for, so it is left out.".to_owned())
        }
        (Limit::Processors(_), Some(row)) => out.push(format!(
            "One row takes {} orders per second, by the sessions that waited for its lock at the highest rate that \
             holds.",
            format::number(row)
        )),
        (Limit::Serial, _) => out.push(format!(
            "Processors had room when {} gave out, so {:.0}% of them are taken to be of use, with exponential service \
             times.",
            basis.evidence.resource.as_deref().unwrap_or("it"),
            WORK * 100.0
        )),
    }
    if rows > 1 {
        out.push(format!("The item's stock is divided into {rows} rows, which orders are dealt out to in turns."));
    }
    out
}

/// TP99 of the judged step against the rate, up to half more than planned.
fn points(basis: &Basis<'_>, roles: &[Sized], rows: u32, peak: f64) -> Vec<CurvePoint> {
    let stations = basis.stations(roles, rows);
    let at = |share: f64| {
        let predicted = basis.expect(share, &stations);
        CurvePoint { rate: peak * share, us_p99: predicted.p99_s[basis.step] * 1e6 }
    };
    [0.25, 0.5, 0.75, 0.9, 1.0, 1.15, 1.3, 1.5].into_iter().map(at).collect()
}
