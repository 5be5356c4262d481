//! What is different between two baselines, as figures with their doubt.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Baseline, Figures, Latencies, same_machine};
use crate::measure::stats::median;

/// A call is counted as one more or fewer from this on: retries and look-ups make calls per journey vary.
const CALL: f64 = 0.5;

/// Two baselines, held against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The first.
    pub old: String,
    /// The second.
    pub new: String,
    /// Why figures of one may not hold for the other: another machine, another scenario. Empty if they do.
    pub caveats: Vec<String>,
    /// Hops and calls that are different, in sentences.
    pub topology: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Its name, unit last.
    pub name: String,
    /// Of what: step, role, link.
    pub of: String,
    /// The phase, if it is of one.
    pub phase: Option<String>,
    /// In the first: the median of its runs.
    pub old: Value,
    /// In the second.
    pub new: Value,
    /// New over old, less 1.
    pub change: Option<f64>,
    /// Whether that is a change for certain, as far as sampling and the spread of the runs go: the intervals do not overlap. None without intervals.
    pub certain: Option<bool>,
}

/// A figure with its doubt.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Value {
    /// The median of the runs.
    pub value: Option<f64>,
    /// What encloses the 95% intervals of all runs, or without such the runs themselves.
    pub interval: Option<[f64; 2]>,
    /// Samples, where it has some.
    pub count: Option<u64>,
}

impl Value {
    /// From the figures of the runs, with the intervals that they have.
    pub fn of(all: impl IntoIterator<Item = Option<(f64, Option<[f64; 2]>)>>, count: Option<u64>) -> Value {
        let known: Option<Vec<(f64, Option<[f64; 2]>)>> = all.into_iter().collect();
        let Some(known) = known.filter(|known| !known.is_empty()) else { return Value { count, ..Value::default() } };
        let value = median(known.iter().map(|(value, _)| *value).collect()).0;
        let several = known.len() > 1;
        let ends = known.iter().map(|(value, interval)| interval.unwrap_or([*value, *value]));
        let interval = ends.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]).filter(|_| several || known[0].1.is_some());
        Value { value: Some(value), interval, count }
    }
}

/// Holds two baselines against each other.
pub fn diff(old: &Baseline, new: &Baseline) -> Difference {
    Difference {
        old: old.name.clone(),
        new: new.name.clone(),
        caveats: caveats(old, new),
        topology: topology(old, new),
        rows: rows(old, new),
    }
}

/// Why figures of one baseline may not hold for the other.
pub fn caveats(old: &Baseline, new: &Baseline) -> Vec<String> {
    let mut caveats = Vec::new();
    if old.scenario_hash != new.scenario_hash {
        caveats.push(format!(
            "the scenarios are different ({} {} and {} {}): every figure may be the scenario's doing",
            old.scenario, old.scenario_hash, new.scenario, new.scenario_hash
        ));
    }
    let machines = same_machine(&old.machine, &new.machine);
    if !machines.is_empty() {
        caveats.push(format!(
            "the machines are different ({}): times and processor seconds cannot be compared, and are not judged; calls, hops, and \
             bytes of log can",
            machines.join("; ")
        ));
    }
    caveats
}

fn links<'a>(baseline: &'a Baseline) -> impl Iterator<Item = String> + 'a {
    baseline.runs.iter().flat_map(|run| &run.links).map(super::Link::name)
}

/// Calls on a link for each purchase, or for each journey where nothing is bought, in the median of the runs; nothing where the
/// link is not, or cannot be read.
fn calls(baseline: &Baseline, link: &str, of: fn(&super::Link) -> Option<f64>) -> Option<f64> {
    let of = |run: &Figures| run.links.iter().find(|known| known.name() == link).and_then(of);
    let all: Vec<f64> = baseline.runs.iter().filter_map(of).collect();
    (!all.is_empty()).then(|| median(all).0)
}

/// Hops that are new or gone, and calls that are more or fewer.
pub fn topology(old: &Baseline, new: &Baseline) -> Vec<String> {
    let all: BTreeSet<String> = links(old).chain(links(new)).collect();
    let has = |baseline: &Baseline, link: &str| links(baseline).any(|known| known == link);
    let bought = |baseline: &Baseline| baseline.runs.iter().all(|run| run.purchases > 0);
    let (unit, of): (_, fn(&super::Link) -> Option<f64>) = if bought(old) && bought(new) {
        ("purchase", |link| link.calls_per_purchase)
    } else {
        ("journey", |link| link.calls_per_journey)
    };
    let mut said = Vec::new();
    for link in all {
        let (was, is) = (calls(old, &link, of), calls(new, &link, of));
        let used = |calls: Option<f64>, there: bool| there && calls.is_none_or(|calls| calls > 0.0);
        match (used(was, has(old, &link)), used(is, has(new, &link))) {
            (false, true) => said.push(format!("new hop {link}, with {:.2} calls for each {unit}", is.unwrap_or(0.0))),
            (true, false) => {
                said.push(format!("vanished hop {link}, which had {:.2} calls for each {unit}", was.unwrap_or(0.0)));
            }
            _ => {
                if let (Some(was), Some(is)) = (was, is)
                    && (is - was).abs() >= CALL
                {
                    let direction = if is > was { "more" } else { "fewer" };
                    let by = (is - was).abs();
                    said.push(format!(
                        "{by:.2} calls {direction} for each {unit} on {link}: {is:.2} instead of {was:.2}"
                    ));
                }
            }
        }
    }
    said
}

/// Whether what was said of the topology is that there is more of it, which is a regression; less is only worth reading.
pub fn is_more(said: &str) -> bool {
    said.starts_with("new hop") || said.contains("calls more")
}

fn row(name: &str, of: &str, phase: Option<&str>, sides: [Value; 2]) -> Row {
    let [old, new] = sides;
    let change = old.value.zip(new.value).filter(|(old, _)| *old > 0.0).map(|(old, new)| new / old - 1.0);
    let certain = old.interval.zip(new.interval).map(|(old, new)| new[0] > old[1] || new[1] < old[0]);
    Row { name: name.to_owned(), of: of.to_owned(), phase: phase.map(str::to_owned), old, new, change, certain }
}

/// Every figure that either has.
pub fn rows(old: &Baseline, new: &Baseline) -> Vec<Row> {
    let both = |value: &dyn Fn(&Baseline) -> Value| [value(old), value(new)];
    let mut rows = Vec::new();
    let runs = || old.runs.iter().chain(&new.runs);
    let steps: BTreeSet<(&String, &String)> = runs()
        .flat_map(|run| run.latency.iter().flat_map(|(phase, steps)| steps.keys().map(move |step| (phase, step))))
        .collect();
    type Part = fn(&Latencies) -> Option<(u64, Option<[u64; 2]>)>;
    let percentiles: [(&str, Part); 3] = [
        ("us_p50", |l| l.us_p50.map(|us| (us, None))),
        ("us_p99", |l| l.us_p99.map(|us| (us, l.us_p99_interval))),
        ("us_p999", |l| l.us_p999.map(|us| (us, l.us_p999_interval))),
    ];
    for (phase, step) in steps {
        for (name, part) in percentiles {
            let value = |baseline: &Baseline| {
                let of = |run: &Figures| run.latency.get(phase).and_then(|steps| steps.get(step)).cloned();
                let count = baseline.runs.iter().filter_map(of).map(|l| l.count).sum();
                let figure = |run: &Figures| {
                    let (us, interval) = part(&of(run)?)?;
                    Some((us as f64, interval.map(|ends| ends.map(|us| us as f64))))
                };
                Value::of(baseline.runs.iter().map(figure), Some(count))
            };
            rows.push(row(name, step, Some(phase), both(&value)));
        }
    }
    let plain = |of: fn(&Figures) -> Option<f64>| {
        move |b: &Baseline| Value::of(b.runs.iter().map(|run| Some((of(run)?, None))), None)
    };
    rows.push(row("orders_per_second", "orders", None, both(&plain(|run| Some(run.orders_per_second)))));
    let roles: BTreeSet<&String> = runs().flat_map(|run| run.cost_per_1000_orders.keys()).collect();
    for role in roles {
        type Of = fn(&super::Cost) -> Option<f64>;
        let costs: [(&str, Of); 3] = [
            ("cpu_s_per_1000_orders", |cost| Some(cost.cpu_s)),
            ("rss_bytes_per_1000_orders", |cost| cost.rss_bytes_per_1000_orders),
            ("wal_bytes_per_1000_orders", |cost| cost.wal_bytes),
        ];
        for (name, of) in costs {
            let figure = |run: &Figures| Some((of(run.cost_per_1000_orders.get(role)?)?, None));
            let value = |baseline: &Baseline| Value::of(baseline.runs.iter().map(figure), None);
            let sides = both(&value);
            if sides.iter().any(|side| side.value.is_some()) {
                rows.push(row(name, role, None, sides));
            }
        }
    }
    let all: BTreeSet<String> = links(old).chain(links(new)).collect();
    for link in &all {
        type Of = fn(&super::Link) -> Option<f64>;
        let units: [(&str, Of); 2] = [
            ("calls_per_journey", |link| link.calls_per_journey),
            ("calls_per_purchase", |link| link.calls_per_purchase),
        ];
        for (name, of) in units {
            let calls = |baseline: &Baseline| {
                let figure = |run: &Figures| Some((of(run.links.iter().find(|known| known.name() == *link)?)?, None));
                Value::of(baseline.runs.iter().map(figure), None)
            };
            rows.push(row(name, link, None, both(&calls)));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::baseline::{Cost, Link};
    use crate::check::Verdict;
    use crate::history::Machine;

    fn baseline(name: &str, p99: u64, links: &[(&str, f64)]) -> Baseline {
        let latencies = Latencies {
            count: 5_000,
            us_p50: Some(900),
            us_p99: Some(p99),
            us_p99_interval: Some([p99 - 50, p99 + 60]),
            ..Latencies::default()
        };
        let link = |(to, calls): &(&str, f64)| Link {
            from: "service".into(),
            to: (*to).into(),
            calls_per_journey: Some(*calls / 2.0),
            calls_per_purchase: Some(*calls),
            ..Link::default()
        };
        let run = Figures {
            run_id: "r".into(),
            started_at: "2026-11-28T10:00:00Z".into(),
            seed: 1,
            verdict: Verdict::Pass,
            latency: BTreeMap::from([("spike".to_owned(), BTreeMap::from([("order".to_owned(), latencies)]))]),
            orders_per_second: 300.0,
            committed_orders: 1_000,
            journeys: 2_000,
            purchases: 1_000,
            cost_per_1000_orders: BTreeMap::from([("service".to_owned(), Cost { cpu_s: 0.4, ..Cost::default() })]),
            links: links.iter().map(link).collect(),
        };
        let machine = Machine { cpus: 2, ..Machine::default() };
        Baseline {
            format: 1,
            name: name.into(),
            scenario: "s".into(),
            title: String::new(),
            scenario_hash: "h".into(),
            revision: None,
            machine,
            runs: vec![run],
        }
    }

    #[test]
    fn hops_and_calls_are_named() {
        let old = baseline("a", 2_000, &[("postgres", 4.0), ("redis", 1.0)]);
        let new = baseline("b", 2_000, &[("postgres", 5.0), ("payment", 1.0)]);
        let said = topology(&old, &new);
        assert_eq!(
            said,
            [
                "new hop service→payment, with 1.00 calls for each purchase",
                "1.00 calls more for each purchase on service→postgres: 5.00 instead of 4.00",
                "vanished hop service→redis, which had 1.00 calls for each purchase",
            ]
        );
        assert!(topology(&old, &old).is_empty());
        // Where nobody buys, journeys count.
        let readers = |baseline: &Baseline| {
            let mut readers = baseline.clone();
            readers.runs[0].purchases = 0;
            readers
        };
        assert!(topology(&readers(&old), &readers(&new))[1].contains("0.50 calls more for each journey"));
    }

    #[test]
    fn a_change_is_certain_if_the_intervals_part() {
        let of = |p99| {
            let rows = rows(&baseline("a", 2_000, &[]), &baseline("b", p99, &[]));
            rows.into_iter().find(|row| row.name == "us_p99").unwrap()
        };
        let row = of(2_200);
        assert_eq!((row.certain, row.phase.as_deref()), (Some(true), Some("spike")));
        assert!((row.change.unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(of(2_080).certain, Some(false));
    }

    #[test]
    fn another_machine_or_scenario_is_said_with_what_it_means() {
        let old = baseline("a", 2_000, &[]);
        let mut new = baseline("b", 2_000, &[]);
        assert!(caveats(&old, &new).is_empty());
        new.machine.cpus = 8;
        new.scenario_hash = "other".into();
        let said = caveats(&old, &new);
        assert!(
            said[0].contains("the scenarios are different")
                && said[1].contains("processors: 2 and 8")
                && said[1].contains("not judged"),
            "{said:?}"
        );
    }
}
