//! `seckill forecast` through the binary, on folders of probes whose shop is known: what they measured was simulated.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::forecast::queue::{self, Demand, Station, Step};
use serde_json::{Value, json};

const SUMMARY: &str = include_str!("forecast/summary.json");
const SCENARIO: &str = include_str!("../../../scenarios/capacity.toml");
const PLAN: &str = r#"
buyers = 100_000
stock = 10_000
opens = "20:00"
within = "2h"
half_within = "6m"
headroom = 0.3
hours = 2
currency = "EUR"

[limits]
order = "200ms"

[node.service]
cpus = 2
price_per_hour = 0.5

[node.postgres]
cpus = 8
price_per_hour = 3

[node.generator]
cpus = 1
price_per_hour = 0.1
"#;
/// Arrivals per second of the probes; the last is beyond the capacity.
const RATES: [f64; 8] = [100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 700.0];
const SECONDS: usize = 20;

/// Two milliseconds for each order, one after the other: 500 per second.
fn row() -> Station {
    Station { nodes: 1, servers: 1, mean_s: 0.002, variability: 1.0, orders_only: true }
}

/// Numbers that look random, from 0 to 1, and are the same everywhere.
fn shares(count: usize, start: f64) -> impl Iterator<Item = f64> {
    (0..count).scan(start, |x, _| {
        *x = (*x + 0.754_877_666_246_693).fract();
        // Mixed, since arrivals that are evenly spread would wait for nobody.
        Some(((*x * 12_345.678_9).sin() * 43_758.545_3).fract().abs())
    })
}

/// The summary of a probe at this rate, in a shop with these stations.
fn probed(rate: f64, stations: &[Station], seed: u64) -> Value {
    let count = (rate * SECONDS as f64) as usize;
    let mut arrivals: Vec<f64> = shares(count, seed as f64 / 10.0).map(|share| share * SECONDS as f64).collect();
    arrivals.sort_by(f64::total_cmp);
    let steps = [Step { times: 1.0, order: false, then_s: 1e-3 }, Step { times: 1.0, order: true, then_s: 9e-3 }];
    let seen = queue::simulate(&Demand { arrivals: &arrivals, steps: &steps, stock: u64::MAX }, stations, seed);
    let mut summary: Value = serde_json::from_str(SUMMARY).unwrap();
    for (index, (name, mean_s)) in [("login", 0.5e-3), ("order", 8e-3)].into_iter().enumerate() {
        let alone = shares(count, 0.3).map(|share| 1e-3 - mean_s * (1.0 - share).ln());
        let mut all: Vec<f64> = seen.waits[index].iter().zip(alone).map(|(wait, alone)| (wait + alone) * 1e6).collect();
        let mean = all.iter().sum::<f64>() / count as f64;
        let mut at = |q: f64| queue::quantile(&mut all, q) as u64;
        let stats = &mut summary["latency"]["steps"][name];
        for (key, q) in [("us_p50", 0.5), ("us_p90", 0.9), ("us_p99", 0.99), ("us_max", 1.0)] {
            stats[key] = json!(at(q));
        }
        stats["count"] = json!(count);
        stats["us_mean"] = json!(mean);
    }
    let mut planned = vec![0u32; SECONDS * 10];
    arrivals.iter().for_each(|at| planned[((at * 10.0) as usize).min(SECONDS * 10 - 1)] += 1);
    summary["series"]["planned"] = json!(planned);
    for key in ["planned", "sent"] {
        summary["load"][key] = json!(count);
    }
    let [first, last] = seen.ordered_s;
    summary["goodput"]["committed_orders"] = json!(count);
    summary["goodput"]["units_sold"] = json!(count / 2);
    summary["goodput"]["per_second"] = json!(count as f64 / (last - first));
    for (role, at_rest, each) in [("generator", 0.3, 2e-4), ("service", 0.2, 8e-4), ("postgres", 0.4, 1e-3)] {
        summary["cost"]["cpu_s"][role] = json!(at_rest + each * count as f64);
    }
    summary
}

/// A folder as `seckill capacity` leaves it.
fn measured(folder: &Path, resource: &str, stations: impl Fn(f64) -> Vec<Station>) {
    let mut probes = Vec::new();
    for (number, rate) in RATES.into_iter().enumerate() {
        let name = format!("probe-{:02}", number + 1);
        std::fs::create_dir_all(folder.join(&name)).unwrap();
        let summary = probed(rate, &stations(rate), number as u64 + 1);
        std::fs::write(folder.join(&name).join("scenario.toml"), SCENARIO).unwrap();
        let outcome = if rate < 460.0 { "holds" } else { "fails" };
        probes.push(json!({
            "scale": rate / 100.0, "rate": rate, "outcome": outcome, "why": [], "requests_per_second": 2.0 * rate,
            "served_peak": 2.0 * rate, "offered_peak": 2.0 * rate, "orders_per_second": summary["goodput"]["per_second"],
            "us_p99": null, "us_p999": null, "us_mean": 5_000.0, "concurrency": 1.0, "dropped": 0.0, "cores": {}, "waits": {},
            "buyers": [10, 2_000], "generator_cpu_s": 1.0, "requests": 5_000, "unjudged": [], "folder": name, "exit_code": 0,
            "took_s": 20.0,
        }));
        std::fs::write(folder.join(&name).join("summary.json"), summary.to_string()).unwrap();
    }
    let machine: Value = serde_json::from_str::<Value>(SUMMARY).unwrap()["machine"].clone();
    let report = json!({
        "format": 1, "scenario": "known", "title": "A shop of known capacity", "set": [], "seed": 1, "base_rate": 100.0,
        "between": [0.5, 8.0], "probes": probes, "knee": null, "sweep": null, "requests_per_generator_cpu_s": 5_000.0,
        "found": {"kind": "found", "scale": 4.7, "scale_interval": [4.6, 4.8], "rate": 470.0, "rate_interval": [460.0, 480.0],
            "highest_held": 400.0},
        "bottlenecks": [{"resource": resource, "role": "postgres", "evidence": "planted"}],
        "took_s": 100.0, "exit_code": 0, "machine": machine,
    });
    std::fs::write(folder.join("capacity.json"), report.to_string()).unwrap();
}

/// The folder of a sweep over shards, of which so many do that much.
fn swept(folder: &Path, does: &[(u32, f64)]) {
    measured(folder, "row lock", |_| vec![row()]);
    let path = folder.join("capacity.json");
    let mut report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    report["found"] = Value::Null;
    let law = json!({"one": does[0].1, "contention": 0.02, "coherency": 0.0, "explained": 0.99});
    report["sweep"] = json!({"path": "target.reference.shards", "points": does, "law": law});
    std::fs::write(path, report.to_string()).unwrap();
}

/// What the command said, and its exit code.
fn forecast(folder: &Path, plan: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let file = folder.parent().unwrap().join("plan.toml");
    std::fs::write(&file, plan).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_seckill"));
    let output = command.arg("forecast").arg(folder).arg("--plan").arg(&file).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The same as JSON.
fn made(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, said, complained) = forecast(folder, PLAN, &[arguments, &["--output", "json"]].concat());
    (code, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{complained}")))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn nodes(forecast: &Value, role: &str) -> (u64, f64) {
    let rows = forecast["nodes"].as_array().unwrap();
    let row = rows.iter().find(|row| row["role"] == role).unwrap();
    (row["count"].as_u64().unwrap(), number(&row["cost"]))
}

fn folder(there: &tempfile::TempDir, name: &str) -> PathBuf {
    let folder = there.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_plan_within_what_was_measured_is_validated_and_adds_up() {
    let there = tempfile::tempdir().unwrap();
    let probes = folder(&there, "probes");
    measured(&probes, "row lock", |_| vec![row()]);
    let (code, said, complained) = forecast(&probes, PLAN, &[]);
    assert_eq!(code, Some(0), "{said}{complained}");
    assert!(said.lines().nth(2).unwrap().starts_with("100,000 buyers at 20:00, "), "the answer comes first\n{said}");
    let kept: Value = serde_json::from_slice(&std::fs::read(probes.join("forecast.json")).unwrap()).unwrap();
    assert_eq!((&kept["validated"], &kept["exit_code"]), (&json!(true), &json!(0)));
    // Half of them within six minutes, of which most at once.
    let peak = number(&kept["peak_arrivals_per_second"]);
    assert!((peak / (100_000.0 * 2f64.ln() / 360.0) - 1.0).abs() < 0.001, "{peak}");
    let capacity = number(&kept["model"]["capacity"]);
    assert!((capacity / 500.0 - 1.0).abs() < 0.08, "{capacity} for a planted 500");
    let service = kept["demand"].as_array().unwrap().iter().find(|row| row["role"] == "service").unwrap();
    assert!(
        (number(&service["cpu_s_per_1000"]) - 0.8).abs() < 1e-6 && (number(&service["at_rest"]) - 0.2).abs() < 1e-6
    );
    assert_eq!((nodes(&kept, "service"), nodes(&kept, "postgres")), ((1, 1.0), (1, 6.0)));
    assert!((number(&kept["cost"]) - 7.0).abs() < 1e-9);
    // 193 arrivals with two requests each, a third more of them; a generator makes 5,000 with a CPU-second.
    assert_eq!(kept["fleet"]["shards"], 1);
    let judged = kept["validation"].as_array().unwrap().iter().filter(|row| row["judged"] == true).count();
    assert_eq!(judged, 6, "all but the lowest and the one beyond the capacity");
    let funnel: Vec<(&str, Option<u64>)> = kept["funnel"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["buyers"].as_u64()))
        .collect();
    assert_eq!(funnel[0], ("come", Some(100_000)));
    assert_eq!(funnel[funnel.len() - 3], ("order", Some(10_000)));
    assert_eq!(funnel[funnel.len() - 2], ("are told that it is sold out", Some(90_000)));
    let paid = funnel[funnel.len() - 1].1.unwrap();
    assert!((4_990..=5_000).contains(&paid), "half of them pay: {paid}");
    let sold_out = number(&kept["sold_out_after_s"]);
    assert!((50.0..60.0).contains(&sold_out), "10,000 at 193 a second, and ever fewer: {sold_out}");
    let page = std::fs::read_to_string(probes.join("forecast.html")).unwrap();
    assert!(
        page.contains("100,000 buyers") && page.matches("<svg").count() >= 2 && page.contains("What would break it")
    );
    let fleet = std::fs::read_to_string(probes.join("fleet/kustomization.yaml")).unwrap();
    assert!(fleet.contains("- shards=1\n") && probes.join("fleet/base/generators.yaml").exists(), "{fleet}");
    assert!(std::fs::read_to_string(probes.join("forecast.md")).unwrap().contains("| service "));

    // What if: slower nodes take more of them, and each costs as much.
    let (code, slow) = made(&probes, &["--set", "node.service.speed=0.05", "--set", "hours=1"]);
    let (count, cost) = nodes(&slow, "service");
    // 250 arrivals a second, 0.8 ms each, on twentieths of processors of which 85% are of use, in pairs.
    assert_eq!((code, (3..=5).contains(&count), cost), (Some(0), true, count as f64 * 0.5), "{slow:#}");
    // A limit that is lower than what it takes with nobody in the way cannot be kept by any number of nodes.
    let (code, tight) = made(&probes, &["--set", "limits.order=10ms"]);
    assert_eq!(code, Some(12));
    assert!(tight["refusals"][0]["why"].as_str().unwrap().contains("TP99 of order"), "{tight:#}");
    let (code, small) = made(&probes, &["--set", "node.postgres.speed=0.01"]);
    assert_eq!(code, Some(12));
    assert!(
        small["refusals"][0]["why"].as_str().unwrap().contains("postgres takes"),
        "there is one database: {small:#}"
    );
}

#[test]
fn a_lock_is_not_multiplied_by_nodes_unless_that_was_measured() {
    let there = tempfile::tempdir().unwrap();
    let probes = folder(&there, "probes");
    measured(&probes, "row lock", |_| vec![row()]);
    let (code, said, _) = forecast(&probes, PLAN, &["--set", "buyers=1000000"]);
    assert_eq!(code, Some(12), "{said}");
    let first = said.lines().nth(2).unwrap();
    assert!(first.starts_with("**Refused: ") && first.contains("row lock") && first.contains("--sweep"), "{first}");
    let sweep = folder(&there, "sweep");
    swept(&sweep, &[(1, 400.0), (2, 780.0), (4, 1_500.0), (8, 2_800.0), (16, 5_000.0)]);
    let arguments = ["--set", "buyers=1000000", "--sweep", sweep.to_str().unwrap()];
    let (code, divided) = made(&probes, &arguments);
    assert_eq!(code, Some(0), "{:#}", divided["refusals"]);
    // 2,500 orders a second, where 400 are known to hold: so many rows as do 6.3 times as much, with 2% of contention.
    assert_eq!(divided["shards"], 8, "{:#}", divided["latency"]);
    let arguments = ["--set", "buyers=6000000", "--sweep", sweep.to_str().unwrap()];
    let (code, beyond) = made(&probes, &arguments);
    assert_eq!(code, Some(12), "no more rows than were measured: {:#}", beyond["shards"]);
    // The generator says nothing of the service.
    measured(&probes, "generator", |_| vec![row()]);
    let (code, blind) = made(&probes, &[]);
    assert_eq!(code, Some(12));
    assert!(blind["refusals"][0]["why"].as_str().unwrap().contains("the generator that gave out first"), "{blind:#}");
}

#[test]
fn a_change_of_regime_among_the_probes_is_said_first() {
    let there = tempfile::tempdir().unwrap();
    let probes = folder(&there, "probes");
    // At some rates, something is in the way that the others know nothing of.
    measured(&probes, "row lock", |rate| {
        let other = Station { nodes: 1, servers: 1, mean_s: 0.000_9, variability: 2.0, orders_only: false };
        if rate > 220.0 && rate < 360.0 { vec![row(), other] } else { vec![row()] }
    });
    let (code, said, _) = forecast(&probes, PLAN, &[]);
    assert_eq!(code, Some(12), "{said}");
    assert!(said.lines().nth(2).unwrap().starts_with("**Not validated: "), "{said}");
    let page = std::fs::read_to_string(probes.join("forecast.html")).unwrap();
    assert!(page.contains("Not validated: "));
}

#[test]
fn mistakes_are_told_with_their_place_and_nothing_is_written() {
    let there = tempfile::tempdir().unwrap();
    let probes = folder(&there, "probes");
    measured(&probes, "row lock", |_| vec![row()]);
    let refused = |folder: &Path, plan: &str, arguments: &[&str], says: &[&str]| {
        let (code, _, said) = forecast(folder, plan, arguments);
        assert_eq!(code, Some(2), "{said}");
        says.iter().for_each(|text| assert!(said.contains(text), "{text} is missing from\n{said}"));
        assert!(!folder.join("forecast.json").exists(), "nothing is written");
    };
    let with = |from: &str, to: &str| PLAN.replacen(from, to, 1);
    refused(
        &probes,
        &with("order = \"200ms\"", "ordr = \"200ms\""),
        &[],
        &["plan.toml:12", "no step `ordr`", "login, order"],
    );
    refused(&probes, &with("[node.service]", "[node.servce]"), &[], &["no role `servce`", "one of postgres, service"]);
    refused(
        &probes,
        &PLAN[..PLAN.find("[node.postgres]").unwrap()],
        &[],
        &["role `postgres` was measured", "add [node.postgres]"],
    );
    refused(&probes, &with("hours = 2", "hours = 0"), &[], &["plan.toml:8", "`hours` is 0", "above 0"]);
    refused(&probes, PLAN, &["--set", "half_within=2h"], &["`half_within` is", "come evenly", "after --set"]);
    refused(&folder(&there, "empty"), PLAN, &[], &["there is no capacity.json", "help: name the folder"]);
    let sweep = folder(&there, "sweep");
    swept(&sweep, &[(1, 400.0)]);
    refused(&sweep, PLAN, &[], &["that is a sweep", "--sweep"]);
    refused(&probes, PLAN, &["--sweep", probes.to_str().unwrap()], &["no sweep to which a law could be fitted"]);
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let there = tempfile::tempdir().unwrap();
    let (probes, sweep) = (folder(&there, "probes"), folder(&there, "sweep"));
    measured(&probes, "row lock", |_| vec![row()]);
    swept(&sweep, &[(1, 400.0), (2, 780.0), (4, 1_500.0), (8, 2_800.0), (16, 5_000.0)]);
    let page = std::fs::read_to_string(root.join("docs/forecast.md")).unwrap();
    let mut seen = [0, 0];
    for line in page.lines().filter(|line| line.starts_with("target/release/seckill ")) {
        let (command, comment) = line.split_once('#').unwrap_or((line, ""));
        let place = |word: &str| match word {
            "DIR" => probes.display().to_string(),
            "SWEEP" => sweep.display().to_string(),
            _ => word.to_owned(),
        };
        let mut words: Vec<String> = command.split_whitespace().skip(1).map(place).collect();
        let measures = words[0] == "capacity";
        if measures {
            // Everything is read, and nothing is started between such bounds.
            words.extend(["--from", "3", "--to", "2"].map(str::to_owned));
        }
        let output = Command::new(env!("CARGO_BIN_EXE_seckill")).args(&words).current_dir(&root).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let expected = if measures {
            Some(2)
        } else {
            comment.trim().strip_prefix("exit code ").and_then(|code| code.parse().ok())
        };
        assert!(expected.is_some(), "{line}");
        assert_eq!(output.status.code(), expected, "{line}\n{said}");
        assert!(!measures || said.contains("the first below the second"), "{line}\n{said}");
        seen[usize::from(measures)] += 1;
    }
    assert_eq!(seen, [3, 2]);
}
