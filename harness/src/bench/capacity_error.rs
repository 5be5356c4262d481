//! How far the capacity that `seckill capacity` finds is from the truth, on a server whose capacity is known.
//!
//! The server takes one request after the other, two milliseconds each: 500 in a second. With even arrivals at a rate r above that
//! the wait grows all the time, and after T seconds it has come to T (r / 500 - 1). So an objective of TP99 <= 50 ms over 20 s
//! is missed from 0.05 / (0.99 · 20) = 0.25% above 500 on, and that rate is the truth.

use std::process::Command;
use std::time::Instant;

use super::{Context, Figure, Unmeasured};
use crate::calibrate::mode::Mode;
use crate::calibrate::server;
use crate::capacity::{Found, Kind, Report};

const SERVICE_US: u64 = 2_000;
const LOAD_S: f64 = 20.0;
const LIMIT_S: f64 = 0.05;
/// What is looked for has to be found with so many probes.
const PROBES: u32 = 12;

fn truth() -> f64 {
    let served = 1e6 / SERVICE_US as f64;
    served * (1.0 + LIMIT_S / (0.99 * LOAD_S))
}

fn scenario(address: std::net::SocketAddr) -> String {
    format!(
        r#"
name = "known-capacity"
title = "A queue of known capacity"
target.external.address = "{address}"
item = [{{ id = 1, price_cents = 100, stock = 1, per_user_limit = 1, closes_at = "10m", hold = "100ms" }}]
load = {{ duration = "21s", virtual_buyers = 2500, request_timeout = "1s", patience = "5s", send_lag_limit = "50ms" }}
audit = {{ grace = "0s" }}
step.state.path = "/items/${{item}}/state"
steady_state = {{ step = "state", within = "5s" }}
cohort.buyers.journey = ["state"]
cohort.buyers.arrivals = [{{ constant = {{ rate = 100, from = "500ms", lasts = "{LOAD_S}s" }} }}]
slo = [{{ p99 = "{}ms" }}]
"#,
        LIMIT_S * 1e3
    )
}

/// The error in percent of the truth, the probes it took and the time.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context.say(&format!("looking for a capacity that is known: {:.1} per second", truth()));
    let mode = Mode::Queue { service_us: SERVICE_US };
    let server = server::start(&context.cores, mode)?;
    let folder = context.fresh_folder()?;
    let path = folder.join("known-capacity.toml");
    std::fs::write(&path, scenario(server.address))?;
    let started = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("capacity").arg(&path).args(["--from", "1", "--to", "20", "--probes", &PROBES.to_string()]);
    command.args(["--output", "json", "--out"]).arg(folder.join("out"));
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    let took_s = started.elapsed().as_secs_f64();
    context.goes_on()?;
    let report: Report = serde_json::from_slice(&output.stdout)
        .map_err(|error| Unmeasured::Failed(format!("seckill capacity ended with {}: {error}", output.status)))?;
    let _ = std::fs::remove_dir_all(&folder);
    let Some(found @ Found { kind: Kind::Found, .. }) = report.found else {
        return Err(Unmeasured::Failed(format!("no capacity was found: {:?}", report.found)));
    };
    let percent = |rate: f64| (rate / truth() - 1.0) * 100.0;
    let [low, high] = found.rate_interval.map(percent);
    let detail = format!(
        "{:.1} per second found ({:.1} to {:.1}), {:.1} are the truth; between 100 and 2,000 was looked",
        found.rate,
        found.rate_interval[0],
        found.rate_interval[1],
        truth()
    );
    let of_it = "of the same search";
    Ok(vec![
        Figure::new("capacity_error_percent", percent(found.rate).abs(), "%")
            .detail(&format!("{detail}; the interval is {low:+.2}% to {high:+.2}%")),
        Figure::new("capacity_probes", report.probes.len() as f64, "probes").detail(of_it),
        Figure::new("capacity_search_s", took_s, "s").detail(of_it),
    ])
}
