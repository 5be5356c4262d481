//! Which resource gives out first, from the evidence of a probe.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::probe::Probe;

/// Above this share of the machine's processors there is no more to be had: the rest goes to interrupts and switching.
const ALL_CORES: f64 = 0.85;
/// A process with one thread that does the work has that much of a processor when it is the limit.
const ONE_CORE: f64 = 0.92;
/// Fewer sessions than these waiting say nothing.
const FEW_SESSIONS: f64 = 1.5;
/// A pool of which so much is in use is exhausted.
const WHOLE_POOL: f64 = 0.9;

/// A resource that was used up, and how that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bottleneck {
    /// `processors`, `generator`, `row lock`, `write-ahead log`, `connection pool`, `virtual buyers`, ...
    pub resource: String,
    /// The role whose it is or who uses most of it.
    pub role: String,
    /// The numbers.
    pub evidence: String,
}

/// What was used up in this probe, the most telling first; nothing if nothing was. `cpus` are the machine's, `pool` is the
/// service's connections to its database where that is known.
pub fn find(probe: &Probe, cpus: usize, pool: Option<u32>) -> Vec<Bottleneck> {
    let mut found = Vec::new();
    found.extend(waits(probe, pool));
    found.extend(processors(probe, cpus));
    let [busy, buyers] = probe.buyers;
    if busy >= buyers && buyers > 0 {
        found.push(Bottleneck {
            resource: "virtual buyers".into(),
            role: "generator".into(),
            evidence: format!("all {buyers} were busy at once, so arrivals waited for one: raise load.virtual_buyers"),
        });
    }
    found
}

fn processors(probe: &Probe, cpus: usize) -> Vec<Bottleneck> {
    let all: f64 = probe.cores.values().sum();
    let shares = || {
        let mut roles: Vec<(&String, &f64)> = probe.cores.iter().filter(|(_, cores)| **cores >= 0.05).collect();
        roles.sort_by(|a, b| b.1.total_cmp(a.1));
        roles
    };
    let mut found = Vec::new();
    let generator = probe.cores.get("generator").copied().unwrap_or(0.0);
    if generator > ONE_CORE {
        found.push(Bottleneck {
            resource: "generator".into(),
            role: "generator".into(),
            evidence: format!("its thread used {generator:.2} of one processor: drive it in several shards"),
        });
    }
    if let Some((most, _)) = shares().first().filter(|_| all >= ALL_CORES * cpus as f64) {
        let list: Vec<String> = shares().iter().map(|(role, cores)| format!("{role} {cores:.2}")).collect();
        found.push(Bottleneck {
            resource: "processors".into(),
            role: (*most).clone(),
            evidence: format!("{all:.2} of {cpus} in the busiest seconds: {}", list.join(", ")),
        });
    }
    found
}

/// What most sessions of a database waited for, if most of them waited for one thing.
fn waits(probe: &Probe, pool: Option<u32>) -> Vec<Bottleneck> {
    let mut found = Vec::new();
    for (role, waits) in &probe.waits {
        let all: f64 = waits.values().sum();
        if all < FEW_SESSIONS {
            continue;
        }
        let Some((class, sessions)) = waits.iter().max_by(|a, b| a.1.total_cmp(b.1)) else { continue };
        let resource = match class.as_str() {
            "lock" => Some("row lock"),
            "wal" => Some("write-ahead log"),
            "io" => Some("disk"),
            "latch" => Some("latches of the database"),
            _ => None,
        };
        if let Some(resource) = resource.filter(|_| *sessions >= all / 2.0) {
            found.push(Bottleneck {
                resource: resource.into(),
                role: role.clone(),
                evidence: format!("{sessions:.1} of {all:.1} sessions at work waited for it in the busiest second"),
            });
        }
        if let Some(pool) = pool.filter(|pool| all >= WHOLE_POOL * f64::from(*pool)) {
            found.push(Bottleneck {
                resource: "connection pool".into(),
                role: "service".into(),
                evidence: format!("{all:.1} of its {pool} connections were at work in the busiest second"),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::capacity::probe::Outcome;

    fn probe(cores: &[(&str, f64)], waits: &[(&str, f64)], buyers: [u64; 2]) -> Probe {
        let map = |list: &[(&str, f64)]| list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Probe {
            scale: 1.0,
            rate: 100.0,
            outcome: Outcome::Fails,
            why: vec![],
            requests_per_second: 100.0,
            served_peak: 100.0,
            offered_peak: 100.0,
            orders_per_second: 10.0,
            us_p99: None,
            us_p999: None,
            us_mean: 1_000.0,
            concurrency: 1.0,
            dropped: 0.0,
            cores: map(cores),
            waits: BTreeMap::from([("postgres".to_owned(), map(waits))]),
            buyers,
            generator_cpu_s: 1.0,
            requests: 1_000,
            unjudged: vec![],
            folder: String::new(),
            exit_code: 10,
            took_s: 1.0,
        }
    }

    fn first(probe: &Probe) -> Option<String> {
        find(probe, 2, Some(16)).first().map(|found| format!("{} of {}", found.resource, found.role))
    }

    #[test]
    fn each_resource_is_named_by_its_own_evidence() {
        let idle = [("service", 0.3), ("postgres", 0.4), ("generator", 0.2)];
        let busy = [("service", 0.6), ("postgres", 0.9), ("generator", 0.3)];
        let few = [10, 500];
        assert_eq!(first(&probe(&idle, &[("cpu", 1.0)], few)), None, "nothing was used up");
        assert_eq!(first(&probe(&busy, &[("cpu", 1.2)], few)).unwrap(), "processors of postgres");
        assert_eq!(first(&probe(&busy, &[("lock", 14.0), ("cpu", 1.0)], few)).unwrap(), "row lock of postgres");
        assert_eq!(first(&probe(&idle, &[("wal", 6.0), ("cpu", 1.0)], few)).unwrap(), "write-ahead log of postgres");
        assert_eq!(first(&probe(&idle, &[("client", 15.0), ("cpu", 1.0)], few)).unwrap(), "connection pool of service");
        assert_eq!(first(&probe(&idle, &[], [500, 500])).unwrap(), "virtual buyers of generator");
        let late = [("generator", 0.97), ("service", 0.2)];
        assert_eq!(first(&probe(&late, &[], few)).unwrap(), "generator of generator");
    }
}
