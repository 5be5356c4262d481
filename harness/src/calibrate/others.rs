//! What other tools report of the same server on the same schedule: oha, wrk and goose, each called as people call it, and
//! each with its own figures read from what it prints.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::goose;
use super::mode::{Mode, Plan};
use super::server;
use crate::workbench::clients::{self, OHA_REMEDY, WRK_REMEDY};
use crate::workbench::{Context, Unmeasured};

/// What a tool says, in microseconds; none where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    pub p999: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// Another tool, in one way to call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// oha at a rate.
    Oha,
    /// The same with its correction for coordinated omission.
    OhaCorrected,
    /// wrk, which knows no rate.
    Wrk,
    /// Goose with a throttle, by its own metrics.
    Goose,
}

impl Tool {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Tool; 4] = [Tool::Oha, Tool::OhaCorrected, Tool::Wrk, Tool::Goose];

    /// What the column is called.
    pub fn title(self) -> &'static str {
        match self {
            Tool::Oha => "oha -q",
            Tool::OhaCorrected => "oha corrected",
            Tool::Wrk => "wrk",
            Tool::Goose => "goose",
        }
    }

    /// Its key in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Tool::Oha => "oha",
            Tool::OhaCorrected => "oha_corrected",
            Tool::Wrk => "wrk",
            Tool::Goose => "goose",
        }
    }

    fn program(self) -> Result<PathBuf, Unmeasured> {
        let (name, remedy) = match self {
            Tool::Goose => return Ok(std::env::current_exe()?),
            Tool::Wrk => ("wrk", WRK_REMEDY),
            Tool::Oha | Tool::OhaCorrected => ("oha", OHA_REMEDY),
        };
        clients::find(name).ok_or_else(|| Unmeasured::Missing(format!("{name} is not installed ({remedy})")))
    }

    fn arguments(self, host: &str, plan: &Plan) -> Result<Vec<String>, Unmeasured> {
        let Plan { rate, seconds, connections } = plan;
        let line = match self {
            Tool::Goose => {
                let plan = serde_json::to_string(plan).map_err(std::io::Error::from)?;
                return Ok(vec![goose::SUBCOMMAND.into(), host.into(), plan]);
            }
            Tool::Wrk => format!("-t1 -c{connections} -d{seconds}s --latency --timeout 30s {host}/calibration"),
            Tool::Oha | Tool::OhaCorrected => {
                let corrected = if self == Tool::OhaCorrected { " --latency-correction" } else { "" };
                let count = plan.count();
                format!(
                    "-n {count} -c {connections} -q {rate}{corrected} --no-tui --output-format json {host}/calibration"
                )
            }
        };
        Ok(line.split(' ').map(str::to_owned).collect())
    }

    fn read(self, printed: &str) -> Option<Reading> {
        match self {
            Tool::Oha | Tool::OhaCorrected => read_oha(printed),
            Tool::Wrk => read_wrk(printed),
            Tool::Goose => serde_json::from_str(printed).ok(),
        }
    }
}

/// Lets a tool load a server of its own, and reads its figures.
///
/// # Errors
/// The tool is not there, or did not end well.
pub fn measure(context: &Context<'_>, tool: Tool, mode: Mode, plan: &Plan) -> Result<Reading, Unmeasured> {
    let program = tool.program()?;
    let server = server::start(&context.cores, mode)?;
    let host = format!("http://{}", server.address);
    let ended = clients::run(&context.cores, &program, &tool.arguments(&host, plan)?)?;
    // An interruption ends the other processes, too.
    context.goes_on()?;
    let told = server::end(server)?;
    match tool.read(&ended.stdout).filter(|_| ended.status == 0 && told.replies > 0) {
        Some(reading) => Ok(reading),
        None => Err(Unmeasured::Failed(format!(
            "{} ended with status {} after {} replies and printed: {}",
            tool.title(),
            ended.status,
            told.replies,
            ended.stdout.chars().take(300).collect::<String>()
        ))),
    }
}

fn read_oha(printed: &str) -> Option<Reading> {
    let json: serde_json::Value = serde_json::from_str(printed).ok()?;
    let us = |value: &serde_json::Value| value.as_f64().map(|seconds| seconds * 1e6);
    let percentiles = json.get("latencyPercentiles")?;
    let at = |name: &str| percentiles.get(name).and_then(us);
    let max = json.get("summary")?.get("slowest").and_then(us);
    Some(Reading { p50: at("p50"), p99: at("p99"), p999: at("p99.9"), max })
}

/// wrk prints `    Latency    20.5ms    4.3ms   1.0s    98%` (mean, deviation, largest) and `     99%   20.9ms`.
fn read_wrk(printed: &str) -> Option<Reading> {
    let words = |start: &str| {
        let line = printed.lines().find(|line| line.split_whitespace().next() == Some(start))?;
        Some(line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>())
    };
    let at = |start: &str| words(start).and_then(|words| wrk_time_us(words.first()?));
    let max = printed.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.len() == 5 && words[0] == "Latency").then(|| wrk_time_us(words[3]))?
    });
    max.is_some().then_some(Reading { p50: at("50%"), p99: at("99%"), p999: None, max })
}

fn wrk_time_us(text: &str) -> Option<f64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_oha_prints() {
        let printed = r#"{"summary":{"slowest":1.0625,"fastest":0.02},"latencyPercentiles":{"p50":0.03125,"p99":0.5,"p99.9":1.0}}"#;
        let reading = Reading { p50: Some(31_250.0), p99: Some(500_000.0), p999: Some(1e6), max: Some(1_062_500.0) };
        assert_eq!(read_oha(printed), Some(reading));
        assert_eq!(read_oha("not json"), None);
    }

    #[test]
    fn reads_what_wrk_prints() {
        let printed = "Running 10s test @ http://127.0.0.1:1/calibration
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    22.41ms   46.13ms   1.00s    99.77%
    Req/Sec     2.88k   500.00     3.20k    95.00%
  Latency Distribution
     50%   20.12ms
     75%   20.20ms
     90%   20.31ms
     99%  850.00us
  28700 requests in 10.00s, 2.68MB read
";
        let reading = Reading { p50: Some(20_120.0), p99: Some(850.0), p999: None, max: Some(1e6) };
        assert_eq!(read_wrk(printed), Some(reading));
        assert_eq!(read_wrk("unable to connect"), None);
    }
}
