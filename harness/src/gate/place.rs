//! Where something got worse: which step, phase, hop and resource, from what both sides counted in each round.
//!
//! Calls, bytes and hops are counted, not sampled, so they need no statistics but that every round says the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Judged, Metric};
use crate::history::HARNESS_ROLES;
use crate::measure::stats::{median, text_us};
use crate::scenario::gate::Effects;
use crate::scenario::topology;
use crate::summary::Summary;

/// Memory that a role must have grown by to be named: less is how an allocator rounds.
const LEAST_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Orders of a round from which log bytes are compared: below, the database's own records are most of them.
const LEAST_ORDERS: f64 = 100.0;
/// A cause explains a change if it accounts for this share of it.
const EXPLAINS: f64 = 0.4;

/// What one side of one round counted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counts {
    /// Purchases tried, or journeys where nothing is bought: what everything is held against.
    pub units: f64,
    /// Whether those are orders.
    pub orders: bool,
    /// By link: calls, none where they cannot be read, and microseconds waited for their answers.
    pub links: BTreeMap<String, (Option<f64>, f64)>,
    /// CPU-seconds by role.
    pub cpu_s: BTreeMap<String, f64>,
    /// Largest memory by role, in bytes.
    pub rss: BTreeMap<String, f64>,
    /// Bytes of write-ahead log.
    pub wal: Option<f64>,
    /// Requests.
    pub requests: f64,
}

impl Counts {
    /// What a run's summary says.
    pub fn of(summary: &Summary) -> Counts {
        let (orders, tried) = (summary.goodput.committed_orders, summary.outcomes.intents.total);
        let units = if tried > 0 { tried } else { summary.load.sent } as f64;
        // What the harness costs says nothing of a build.
        let theirs = |role: &&String| !HARNESS_ROLES.contains(&role.as_str());
        let link = |link: &crate::summary::LinkSummary| {
            let calls = link.calls.map(|calls| calls as f64);
            let waited = calls.unwrap_or(0.0) * link.us_per_call.unwrap_or(0.0);
            (format!("{}→{}", link.from, link.to), (calls, waited))
        };
        Counts {
            units: units.max(1.0),
            orders: tried > 0,
            links: summary.links.iter().map(link).collect(),
            cpu_s: summary.cost.cpu_s.iter().filter(|(role, _)| theirs(role)).map(|(r, s)| (r.clone(), *s)).collect(),
            rss: summary
                .cost
                .rss_peak_bytes
                .iter()
                .filter(|(r, _)| theirs(r))
                .map(|(r, b)| (r.clone(), *b as f64))
                .collect(),
            wal: summary.cost.wal_bytes_per_order.map(|bytes| bytes * orders as f64),
            requests: summary.load.requests as f64,
        }
    }

    fn unit(&self) -> &'static str {
        if self.orders { "order" } else { "journey" }
    }
}

/// What is worse by counting alone, and what is only worth reading.
pub fn counted(rounds: &[[Counts; 2]], effects: &Effects) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut notices) = (Vec::new(), Vec::new());
    let Some([first, _]) = rounds.first() else { return (findings, notices) };
    let links: BTreeSet<&String> = rounds.iter().flatten().flat_map(|counts| counts.links.keys()).collect();
    for link in links {
        let calls = |counts: &Counts| counts.links.get(link).map_or(Some(0.0), |(calls, _)| *calls);
        let all: Option<Vec<[f64; 2]>> =
            rounds.iter().map(|[old, new]| Some([calls(old)? / old.units, calls(new)? / new.units])).collect();
        let Some(all) = all else { continue };
        let old = median(all.iter().map(|[old, _]| *old).collect()).0;
        let new = median(all.iter().map(|[_, new]| *new).collect()).0;
        let more = all.iter().map(|[old, new]| new - old).fold(f64::INFINITY, f64::min);
        let fewer = all.iter().map(|[old, new]| old - new).fold(f64::INFINITY, f64::min);
        let unit = first.unit();
        let finding = |what: String, severity| Finding {
            what,
            r#where: format!("hop {link}"),
            metric: "calls".to_owned(),
            step: None,
            phase: None,
            hop: Some(link.clone()),
            resource: Some("calls".to_owned()),
            severity,
        };
        if all.iter().all(|[old, new]| *old == 0.0 && *new > 0.0) {
            findings.push(finding(
                format!("a new hop: {new:.2} calls for each {unit} on {link}, where there were none"),
                2.0 + new,
            ));
        } else if all.iter().all(|[old, new]| *old > 0.0 && *new == 0.0) {
            notices.push(format!(
                "a hop vanished: there were {old:.2} calls for each {unit} on {link}, and there are none"
            ));
        } else if more >= effects.calls {
            let what = format!("{:.2} calls more for each {unit} on {link}: {new:.2} instead of {old:.2}", new - old);
            findings.push(finding(what, more / effects.calls));
        } else if fewer >= effects.calls {
            notices
                .push(format!("{:.2} calls fewer for each {unit} on {link}: {new:.2} instead of {old:.2}", old - new));
        }
    }
    findings.extend(bytes(rounds, effects));
    (findings, notices)
}

/// Memory and log that grew in every round.
fn bytes(rounds: &[[Counts; 2]], effects: &Effects) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mib = |bytes: f64| bytes / 1024.0 / 1024.0;
    let links = || rounds.iter().flatten().flat_map(|counts| counts.links.keys());
    let mut add = |role: &str, name: &str, resource: &str, text: String, severity: f64| {
        let to = format!("→{role}");
        findings.push(Finding {
            what: text,
            r#where: format!("role {role}"),
            metric: name.to_owned(),
            step: None,
            phase: None,
            // The one that the role is reached by.
            hop: links().find(|link| link.ends_with(&to)).cloned(),
            resource: Some(resource.to_owned()),
            severity,
        });
    };
    let roles: BTreeSet<&String> = rounds.iter().flatten().flat_map(|counts| counts.rss.keys()).collect();
    for role in roles {
        let all: Option<Vec<[f64; 2]>> =
            rounds.iter().map(|[old, new]| Some([*old.rss.get(role)?, *new.rss.get(role)?])).collect();
        let Some(all) = all else { continue };
        let growth = all.iter().map(|[old, new]| new / old - 1.0).fold(f64::INFINITY, f64::min);
        if growth >= effects.bytes && all.iter().all(|[old, new]| new - old >= LEAST_BYTES) {
            let (old, new) =
                (median(all.iter().map(|p| p[0]).collect()).0, median(all.iter().map(|p| p[1]).collect()).0);
            let text = format!("{role} takes {:.0} MiB of memory at its peak, and took {:.0} MiB", mib(new), mib(old));
            add(role, "rss_peak_bytes", "memory", text, growth / effects.bytes);
        }
    }
    let wal: Option<Vec<[f64; 2]>> = rounds
        .iter()
        .map(|[old, new]| {
            let enough = old.units.min(new.units) >= LEAST_ORDERS && old.orders && new.orders;
            enough.then_some([old.wal? / old.units, new.wal? / new.units])
        })
        .collect();
    if let Some(all) = wal {
        let growth = all.iter().map(|[old, new]| new / old - 1.0).fold(f64::INFINITY, f64::min);
        if growth >= effects.bytes {
            let (old, new) =
                (median(all.iter().map(|p| p[0]).collect()).0, median(all.iter().map(|p| p[1]).collect()).0);
            let text = format!("{new:.0} bytes of write-ahead log for each order, instead of {old:.0}");
            add(topology::POSTGRES, "wal_bytes_per_order", "disk", text, growth / effects.bytes);
        }
    }
    findings
}

/// A cause of longer latencies, with how many microseconds it accounts for in each order.
struct Cause {
    us: f64,
    hop: Option<String>,
    resource: &'static str,
    text: String,
}

/// The findings of metrics that are certainly worse, each with its place.
pub fn findings(metrics: &[Metric], rounds: &[[Counts; 2]], counted: &[Finding]) -> Vec<Finding> {
    let worse = metrics.iter().filter(|metric| metric.judged == Judged::Worse);
    worse.map(|metric| finding(metric, metrics, rounds, counted)).collect()
}

fn finding(metric: &Metric, metrics: &[Metric], rounds: &[[Counts; 2]], counted: &[Finding]) -> Finding {
    let cause = if metric.role.is_some() { None } else { cause(metric, metrics, rounds, counted) };
    let mut at: Vec<String> = Vec::new();
    at.extend(metric.step.as_ref().map(|step| format!("step {step}")));
    at.extend(metric.phase.as_ref().map(|phase| format!("phase {phase}")));
    at.extend(metric.role.as_ref().map(|role| format!("role {role}")));
    at.extend(cause.as_ref().map(|cause| cause.text.clone()));
    let resource = match &cause {
        Some(cause) => Some(cause.resource.to_owned()),
        None => metric.role.as_ref().map(|_| "cpu".to_owned()),
    };
    Finding {
        what: sentence(metric),
        r#where: at.join(", "),
        metric: metric.name.clone(),
        step: metric.step.clone(),
        phase: metric.phase.clone(),
        hop: cause.and_then(|cause| cause.hop),
        resource,
        severity: metric.worse_by.unwrap_or(0.0) / metric.effect,
    }
}

/// How much more the new side has for each unit: the median over the rounds, or nothing if not every round says more.
fn more(rounds: &[[Counts; 2]], of: impl Fn(&Counts) -> f64) -> f64 {
    let all: Vec<f64> = rounds.iter().map(|[old, new]| of(new) / new.units - of(old) / old.units).collect();
    if all.is_empty() || all.iter().any(|more| *more <= 0.0) { 0.0 } else { median(all).0 }
}

/// How much longer a unit takes by itself, in microseconds: by the median of the step in the phase where that changed the least,
/// since queues make it more in the others. None if no median changed, as where only a tail did.
fn longer(metric: &Metric, metrics: &[Metric]) -> Option<f64> {
    let mut by_step: BTreeMap<&str, f64> = BTreeMap::new();
    for median in
        metrics.iter().filter(|other| other.name == "us_p50" && (metric.step.is_none() || other.step == metric.step))
    {
        if let (Some(step), Some(old), Some(new)) = (&median.step, median.old, median.new) {
            let least = by_step.entry(step).or_insert(f64::INFINITY);
            *least = least.min(new - old);
        }
    }
    by_step.into_values().filter(|us| *us > 0.0 && us.is_finite()).reduce(f64::max)
}

/// What explains that a step takes longer: of what was counted, that which accounts for most of it. What nothing accounts for was
/// waited for within the service.
fn cause(metric: &Metric, metrics: &[Metric], rounds: &[[Counts; 2]], counted: &[Finding]) -> Option<Cause> {
    if let Some(calls) = counted.iter().find(|finding| finding.resource.as_deref() == Some("calls")) {
        let hop = calls.hop.clone();
        let text = format!("hop {}: more calls", hop.as_deref().unwrap_or_default());
        return Some(Cause { us: f64::INFINITY, hop, resource: "calls", text });
    }
    let links: BTreeSet<&String> = rounds.iter().flatten().flat_map(|counts| counts.links.keys()).collect();
    let waited = |link: &str| more(rounds, |counts| counts.links.get(link).map_or(0.0, |(_, waited)| *waited));
    let entrance = links.iter().find(|link| link.starts_with("client→"))?;
    let longer = longer(metric, metrics).unwrap_or_else(|| waited(entrance));
    let inner = links.iter().filter(|link| **link != *entrance);
    let slowest = inner.map(|link| (waited(link), (*link).clone())).max_by(|a, b| a.0.total_cmp(&b.0));
    let cpu = |role: &str| 1e6 * more(rounds, |counts| counts.cpu_s.get(role).copied().unwrap_or(0.0));
    let text = |us: f64| text_us(us.max(0.0) as u64);
    let mut causes = Vec::new();
    if let Some((us, link)) = slowest {
        let role = link.split_once('→').map_or("", |(_, to)| to);
        // What the callee does not compute, it waits for.
        let (resource, what) =
            if cpu(role) > EXPLAINS * us { ("cpu", "computes") } else { ("lock", "waits, as for a lock") };
        let text = format!("hop {link}: {} more for each order, in which {role} {what}", text(us));
        causes.push(Cause { us, hop: Some(link), resource, text });
    }
    let service = entrance.split_once('→').map_or("service", |(_, to)| to);
    let grown = counted.iter().any(|finding| finding.resource.as_deref() == Some("memory"));
    let computed = cpu(service);
    let said = format!("hop {entrance}: {service} computes {} more for each order", text(computed));
    let resource = if grown { "memory" } else { "cpu" };
    causes.push(Cause { us: computed, hop: Some((*entrance).clone()), resource, text: said });
    let best = causes.into_iter().max_by(|a, b| a.us.total_cmp(&b.us))?;
    if best.us > 0.0 && best.us >= EXPLAINS * longer {
        return Some(best);
    }
    let text = format!("hop {entrance}: {} more for each order, in which {service} waits", text(longer));
    Some(Cause { us: longer, hop: Some((*entrance).clone()), resource: "waiting", text })
}

/// A metric in a sentence.
pub fn sentence(metric: &Metric) -> String {
    let number = |value: f64| match metric.name.as_str() {
        name if name.starts_with("us_") => text_us(value.max(0.0) as u64),
        "unanswered_share" => format!("{:.2}%", value * 100.0),
        "orders_per_second" => format!("{value:.0} per second"),
        _ => format!("{value:.3}"),
    };
    let name = match metric.name.as_str() {
        "us_p50" => "TP50",
        "us_p99" => "TP99",
        "us_p999" => "TP999",
        "orders_per_second" => "throughput",
        "unanswered_share" => "share without an answer",
        "cpu_s_per_1000_requests" => "CPU-seconds per 1,000 requests",
        other => other,
    };
    let of = metric.step.as_ref().or(metric.role.as_ref()).map_or(String::new(), |of| format!(" of {of}"));
    let phase = metric.phase.as_ref().map_or(String::new(), |phase| format!(" in phase {phase}"));
    let values = match (metric.old, metric.new) {
        (Some(old), Some(new)) => format!(": {} instead of {}", number(new), number(old)),
        _ => String::new(),
    };
    let by = metric.worse_by.map_or(String::new(), |by| {
        let percent = |share: f64| format!("{:+.1}%", share * 100.0);
        let interval = metric
            .interval
            .map_or(String::new(), |[low, high]| format!(", 95% from {} to {}", percent(low), percent(high)));
        let direction = if by < 0.0 { "which is better" } else { "worse" };
        format!(" ({} {direction}{interval})", percent(by))
    });
    format!("{name}{of}{phase}{values}{by}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing::metric;

    const ENTRANCE: &str = "client→service";
    const DATABASE: &str = "service→postgres";

    /// 1,000 orders of which each took so many microseconds on the links, so many calls of the database, and so much CPU.
    fn side(entrance: f64, database: f64, calls: f64, service: f64, postgres: f64, mib: f64) -> Counts {
        let links = [(ENTRANCE, 3.0, entrance), (DATABASE, calls, database)];
        Counts {
            units: 1_000.0,
            orders: true,
            links: links.map(|(link, calls, us)| (link.to_owned(), (Some(calls * 1_000.0), us * 1_000.0))).into(),
            cpu_s: [("service", service), ("postgres", postgres)]
                .map(|(role, us)| (role.to_owned(), us / 1_000.0))
                .into(),
            rss: [("service".to_owned(), mib * 1024.0 * 1024.0)].into(),
            wal: Some(300_000.0),
            requests: 3_000.0,
        }
    }

    /// The hop and the resource that a change of the new side is put down to.
    fn place(new: Counts) -> (String, String) {
        let rounds = [
            [side(12_000.0, 10_000.0, 2.0, 300.0, 200.0, 20.0), new.clone()],
            [side(12_100.0, 10_050.0, 2.0, 310.0, 210.0, 21.0), new],
        ];
        let (counted, _) = counted(&rounds, &Effects::default());
        let found = findings(&[metric()], &rounds, &counted);
        assert_eq!((found[0].step.as_deref(), found[0].phase.as_deref()), (Some("order"), Some("rush")));
        (found[0].hop.clone().unwrap_or_default(), found[0].resource.clone().unwrap_or_default())
    }

    #[test]
    fn each_cause_is_put_where_it_is() {
        let at = |hop: &str, resource: &str| (hop.to_owned(), resource.to_owned());
        assert_eq!(place(side(15_000.0, 10_000.0, 2.0, 310.0, 200.0, 20.0)), at(ENTRANCE, "waiting"));
        assert_eq!(place(side(15_000.0, 10_000.0, 2.0, 3_100.0, 200.0, 20.0)), at(ENTRANCE, "cpu"));
        assert_eq!(place(side(15_000.0, 10_000.0, 2.0, 3_100.0, 200.0, 60.0)), at(ENTRANCE, "memory"));
        assert_eq!(place(side(15_000.0, 13_000.0, 2.0, 310.0, 200.0, 20.0)), at(DATABASE, "lock"));
        assert_eq!(place(side(15_000.0, 13_000.0, 2.0, 310.0, 3_000.0, 20.0)), at(DATABASE, "cpu"));
        assert_eq!(place(side(15_000.0, 13_000.0, 3.0, 310.0, 200.0, 20.0)), at(DATABASE, "calls"));
    }

    #[test]
    fn hops_and_calls_are_named_if_every_round_says_so() {
        let old = side(12_000.0, 10_000.0, 2.0, 300.0, 200.0, 20.0);
        let mut redis = old.clone();
        redis.links.insert("service→redis".into(), (Some(1_000.0), 5.0));
        let say = |rounds: &[[Counts; 2]]| {
            let (findings, notices) = counted(rounds, &Effects::default());
            (findings.into_iter().map(|f| f.what).collect::<Vec<_>>().join("; "), notices.join("; "))
        };
        let both = |a: &Counts, b: &Counts| [a.clone(), b.clone()];
        assert!(say(&[both(&old, &redis)]).0.contains("a new hop: 1.00 calls for each order on service→redis"));
        assert!(say(&[both(&redis, &old)]).1.contains("a hop vanished"));
        let more = side(12_000.0, 10_000.0, 3.0, 300.0, 200.0, 20.0);
        assert!(
            say(&[both(&old, &more)])
                .0
                .contains("1.00 calls more for each order on service→postgres: 3.00 instead of 2.00")
        );
        assert_eq!(say(&[both(&old, &more), both(&old, &old)]), (String::new(), String::new()), "once is a retry");
        assert_eq!(say(&[both(&old, &old)]), (String::new(), String::new()));
    }
}
