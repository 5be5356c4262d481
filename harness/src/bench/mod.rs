//! Measures the harness itself: `make bench`. One file per measurement; the figures go to `reports/bench/latest.json`, each with when
//! it was measured: one that is measured alone takes the place of its predecessor, and the others stay as they are.
//!
//! Nothing here is asserted: a machine that is busy or slow gives worse figures, not a failure. What fails is a figure
//! that could not be measured.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::history::Machine;
use crate::measure::stats::median;
use crate::workbench::{Absent, Context, Unmeasured, publish_of};
use crate::{exit, stdout};

mod capacity_error;
pub mod checker;
mod committed_orders;
mod generator;
mod messages;
pub mod proxy;
mod rate_error;
mod rss_slope;
mod sale;
mod send_lag;
pub mod server;
pub mod sold_out;
pub mod timeline;
mod virtual_buyers;

/// Where the figures are written.
const LATEST: &str = "reports/bench/latest.json";

/// A measurement.
struct Bench {
    name: &'static str,
    /// The figures it gives, each of which also names it on the command line.
    figures: &'static [&'static str],
    /// Whether it needs something that not every machine has; then its absence is told but is no failure.
    optional: bool,
    run: fn(&Context<'_>) -> Result<Vec<Figure>, Unmeasured>,
}

/// All measurements, in the order in which they are made.
const BENCHES: [Bench; 16] = [
    Bench {
        name: "generator_vs_oha",
        figures: &["generator_with_history_vs_oha", "generator_on_schedule_vs_oha", "oha_requests_per_cpu_second"],
        optional: false,
        run: generator::against_oha,
    },
    Bench {
        name: "generator_vs_wrk",
        figures: &["generator_with_history_vs_wrk", "generator_on_schedule_vs_wrk", "wrk_requests_per_cpu_second"],
        optional: true,
        run: generator::against_wrk,
    },
    Bench { name: "send_lag", figures: &["send_lag_us_p99", "send_lag_us_p999"], optional: false, run: send_lag::run },
    Bench { name: "rate_error", figures: &["rate_error_step"], optional: false, run: rate_error::run },
    Bench {
        name: "virtual_buyers",
        figures: &[
            "virtual_buyers_20000",
            "virtual_buyers_20000_ready_s",
            "virtual_buyers_20000_rss_bytes",
            "virtual_buyers_20000_send_lag_us_p99",
            "virtual_buyers_20000_send_lag_us_p999",
        ],
        optional: false,
        run: virtual_buyers::run,
    },
    Bench { name: "rss_slope", figures: &[], optional: false, run: rss_slope::run },
    Bench {
        name: "committed_orders",
        figures: &[
            "committed_orders_per_second_pool_128",
            "committed_orders_per_second_best_pool",
            "committed_orders_per_second_batch",
            "hot_row_vs_conditional_128",
            "hot_row_vs_conditional_best_pool",
            "hot_row_latency_vs_conditional_128",
            "hot_row_latency_vs_conditional_best_pool",
            "lone_buyer_latency_vs_conditional",
        ],
        optional: false,
        run: committed_orders::run,
    },
    Bench {
        name: "sold_out",
        figures: &[
            "sold_out_per_cpu_second",
            "sold_out_per_cpu_second_chain",
            "bare_hyper_per_cpu_second",
            "sold_out_vs_bare_hyper",
            "sold_out_chain_vs_bare_hyper",
        ],
        optional: false,
        run: sold_out::run,
    },
    Bench {
        name: "json_vs_protobuf",
        figures: &[
            "json_vs_protobuf_order_encode",
            "json_vs_protobuf_order_decode",
            "json_vs_protobuf_order_bytes",
            "json_vs_protobuf_reply_encode",
            "json_vs_protobuf_reply_decode",
            "json_vs_protobuf_reply_bytes",
        ],
        optional: false,
        run: messages::run,
    },
    Bench {
        name: "capacity_error",
        figures: &["capacity_error_percent", "capacity_probes", "capacity_search_s"],
        optional: false,
        run: capacity_error::run,
    },
    Bench {
        name: "checker",
        figures: &["checker_ops_per_second", "checker_10m_seconds", "checker_10m_rss_bytes"],
        optional: false,
        run: checker::run,
    },
    Bench {
        name: "proxy_added",
        figures: &["proxy_added_us_p50", "proxy_added_us_p99"],
        optional: false,
        run: proxy::added,
    },
    Bench {
        name: "proxy_carried",
        figures: &[
            "proxy_bytes_per_second",
            "proxy_http_bytes_per_second",
            "proxy_vs_bare_copy",
            "proxy_vs_bare_splice",
        ],
        optional: false,
        run: proxy::carried,
    },
    Bench { name: "proxy_delays", figures: &["delay_error_us_p99"], optional: false, run: proxy::delays },
    Bench {
        name: "zero_fault",
        figures: &["zero_fault_errors", "zero_fault_p99_ratio"],
        optional: false,
        run: proxy::zero,
    },
    Bench { name: "timeline", figures: &["timeline_hash_same"], optional: false, run: timeline::run },
];

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name; baselines refer to it.
    pub name: String,
    /// Its value, in `unit`.
    pub value: f64,
    /// The unit; `ratio` for a ratio.
    pub unit: &'static str,
    /// What a ratio compares with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// The 95% confidence interval of a ratio, a slope or a percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// How it was measured, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When it was measured, in Unix seconds.
    pub measured_unix_s: u64,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            name: name.into(),
            value,
            unit,
            against: None,
            interval: None,
            detail: String::new(),
            measured_unix_s: 0,
        }
    }

    fn against(self, other: &str, interval: [f64; 2]) -> Figure {
        Figure { against: Some(other.to_owned()), interval: Some(interval), ..self }
    }

    fn detail(self, detail: &str) -> Figure {
        Figure { detail: detail.to_owned(), ..self }
    }
}

/// What `reports/bench/latest.json` holds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine the figures are of.
    pub machine: Machine,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was not.
    pub missing: Vec<Absent>,
    /// What to keep in mind when reading the figures.
    pub notes: Vec<String>,
}

/// Makes all measurements, or the one of that name; prints the figures and writes them down. Returns the exit code.
pub fn run(name: Option<&str>, json: bool, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) -> i32 {
    let wanted: Vec<&Bench> = BENCHES.iter().filter(|b| name.is_none_or(|n| b.is_called(n))).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|b| b.name).collect();
        eprintln!("error: there is no measurement \"{}\"\nhelp: one of {}", name.unwrap_or(""), names.join(", "));
        return exit::USAGE;
    }
    let context = match Context::new("bench", runtime, cancel) {
        Ok(context) => context,
        Err(error) => {
            eprintln!("error: {error}");
            return exit::INTERNAL;
        }
    };
    let (report, code) = stdout::kept_for_results(|| measure(&context, &wanted, name.is_some()));
    let before = if name.is_some() { std::fs::read(LATEST).ok() } else { None };
    let before = before.and_then(|text| serde_json::from_slice(&text).ok());
    publish_of(LATEST, &together(before, &report), &report, (!json).then_some(text), code)
}

/// What was measured now, in the place of what was measured of the same name before, and whatever else was measured before on this
/// machine.
fn together(before: Option<Value>, report: &Report) -> Value {
    let mut kept = json!(report);
    let same_machine =
        |before: &Value| ["cpus", "cpu_model"].iter().all(|key| before["machine"][key] == kept["machine"][key]);
    let Some(before) = before.filter(same_machine) else { return kept };
    for list in ["figures", "missing"] {
        let tried = |name: &Value| {
            let measured = kept[list].as_array().into_iter().flatten().any(|now| now["name"] == *name);
            // A measurement that was not made before was made now, if any of its figures is there.
            let bench = BENCHES.iter().find(|bench| *name == bench.name);
            measured || bench.is_some_and(|bench| report.figures.iter().any(|figure| bench.is_called(&figure.name)))
        };
        let others = before[list].as_array().into_iter().flatten().filter(|old| !tried(&old["name"]));
        let all: Vec<Value> = others.chain(kept[list].as_array().into_iter().flatten()).cloned().collect();
        kept[list] = Value::Array(all);
    }
    kept
}

impl Bench {
    /// By its own name, or by that of one of its figures or what it begins with: `hot_row` for all of the hot row.
    fn is_called(&self, name: &str) -> bool {
        let begins =
            |figure: &&str| figure.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        self.name == name || self.figures.iter().any(begins)
    }
}

/// Makes the measurements one after the other; one that cannot be made does not keep the others from it.
fn measure(context: &Context<'_>, wanted: &[&Bench], by_name: bool) -> (Report, i32) {
    let mut report =
        Report { machine: crate::run::machine(), figures: Vec::new(), missing: Vec::new(), notes: Vec::new() };
    if context.cores.shared() {
        let note = "there is one processor only: client and server share it, so the figures say little";
        report.notes.push(note.to_owned());
    }
    let mut code = exit::PASS;
    for bench in wanted {
        match context.goes_on().and_then(|()| (bench.run)(context)) {
            Ok(figures) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                report.figures.extend(figures.into_iter().map(|figure| Figure { measured_unix_s: now, ..figure }));
            }
            Err(error) => {
                context.say(&format!("{} was not measured: {error}", bench.name));
                code = match (&error, code) {
                    (Unmeasured::Missing(_), code) if bench.optional && !by_name => code,
                    (Unmeasured::Missing(_), exit::PASS) => exit::NO_STACK,
                    (Unmeasured::Missing(_), code) => code,
                    _ => exit::INTERNAL,
                };
                report.missing.push(Absent { name: bench.name.to_owned(), why: error.to_string() });
            }
        }
    }
    (report, code)
}

/// The table for people.
fn text(report: &Report) -> String {
    let mut out = String::new();
    let width = report.figures.iter().map(|f| f.name.len()).max().unwrap_or(0);
    for figure in &report.figures {
        let digits = match figure.value.abs() {
            0.0..0.1 => 5,
            0.1..100.0 => 2,
            _ => 0,
        };
        let _ = write!(out, "{:width$}  {:>10.digits$} {}", figure.name, figure.value, figure.unit);
        if let Some(against) = &figure.against {
            let _ = write!(out, " to {against}");
        }
        if let Some([low, high]) = figure.interval {
            let digits = if figure.against.is_some() { 2 } else { 0 };
            let _ = write!(out, ", 95% interval {low:.digits$} to {high:.digits$}");
        }
        out.push('\n');
        if !figure.detail.is_empty() {
            let _ = writeln!(out, "{:width$}  {}", "", figure.detail);
        }
    }
    for absent in &report.missing {
        let _ = writeln!(out, "{:width$}  MISSING: {}", absent.name, absent.why);
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_names_its_measurement() {
        let called = |name: &str| BENCHES.iter().filter(|b| b.is_called(name)).map(|b| b.name).collect::<Vec<_>>();
        assert_eq!(called("generator_vs_oha"), ["generator_vs_oha"]);
        assert_eq!(called("send_lag_us_p999"), ["send_lag"]);
        assert!(called("nonsense").is_empty());
    }

    #[test]
    fn a_figure_that_is_measured_alone_takes_the_place_of_its_predecessor_and_leaves_the_others() {
        let machine = Machine { cpus: 2, cpu_model: "x".into(), ..Machine::default() };
        let at = |name: &str, value: f64, when: u64| Figure { measured_unix_s: when, ..Figure::new(name, value, "us") };
        let absent = |name: &str| Absent { name: name.into(), why: "not installed".into() };
        let report = |figures: Vec<Figure>, missing: Vec<Absent>, machine: &Machine| Report {
            machine: machine.clone(),
            figures,
            missing,
            notes: Vec::new(),
        };
        let first = report(
            vec![at("send_lag_us_p99", 80.0, 1), at("rate_error_step", 0.2, 1)],
            vec![absent("generator_vs_wrk"), absent("timeline")],
            &machine,
        );
        let before = together(None, &first);
        let now = report(
            vec![at("send_lag_us_p99", 70.0, 9), at("timeline_hash_same", 100.0, 9)],
            vec![absent("checker")],
            &machine,
        );
        let kept = together(Some(before.clone()), &now);
        let told = |kept: &Value| {
            let figures = kept["figures"].as_array().unwrap().iter();
            let told =
                figures.map(|f| format!("{} {} at {}", f["name"], f["value"], f["measured_unix_s"]).replace('"', ""));
            told.collect::<Vec<_>>()
        };
        let all = ["rate_error_step 0.2 at 1", "send_lag_us_p99 70.0 at 9", "timeline_hash_same 100.0 at 9"];
        assert_eq!(told(&kept), all);
        let missing: Vec<&str> =
            kept["missing"].as_array().unwrap().iter().filter_map(|m| m["name"].as_str()).collect();
        assert_eq!(
            missing,
            ["generator_vs_wrk", "checker"],
            "what was missing and is there now is not missing any more"
        );
        // Figures of two machines are no report.
        let elsewhere = report(vec![at("send_lag_us_p99", 70.0, 9)], Vec::new(), &Machine { cpus: 8, ..machine });
        assert_eq!(told(&together(Some(before), &elsewhere)), ["send_lag_us_p99 70.0 at 9"]);
    }

    #[test]
    fn a_ratio_says_against_what_and_within_which_interval() {
        let figure = Figure::new("a_vs_b", 1.5, "ratio").against("b", [1.4, 1.6]).detail("told");
        let absent = Absent { name: "c".into(), why: "not installed".into() };
        let report = Report {
            machine: Machine::default(),
            figures: vec![figure, Figure::new("n", 12_345.6, "us")],
            missing: vec![absent],
            notes: Vec::new(),
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["figures"][0]["against"], "b");
        assert_eq!(json["figures"][0]["interval"], serde_json::json!([1.4, 1.6]));
        assert!(json["figures"][1].get("against").is_none());
        let text = text(&report);
        assert!(text.contains("to b, 95% interval 1.40 to 1.60") && text.contains("MISSING: not installed"), "{text}");
    }
}
