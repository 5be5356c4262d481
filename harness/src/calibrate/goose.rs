//! Goose's own metrics, as somebody gets them who uses goose by itself: users, a throttle, a time to run. In a process of its
//! own, since goose's switches are global.

use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Scenario, TransactionResult};
use goose::metrics::GooseRequestMetricAggregate;
use goose::prelude::{Transaction, transaction};
use goose::{GooseAttack, GooseError};

use super::mode::Plan;
use super::others::Reading;
use crate::{exit, stdout};

/// The hidden subcommand of that process.
pub const SUBCOMMAND: &str = "__calibration-goose";

/// What the process does: loads the server and prints goose's figures as JSON. Returns its exit code.
pub fn main(host: &str, plan: &str) -> i32 {
    let result = serde_json::from_str(plan).map_err(|error| error.to_string()).and_then(|plan| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        stdout::kept_for_results(|| runtime.block_on(measure(host, &plan)).map_err(|error| error.to_string()))
    });
    match result {
        Ok(reading) => {
            println!("{}", serde_json::to_string(&reading).unwrap_or_default());
            exit::PASS
        }
        Err(error) => {
            eprintln!("error: {error}");
            exit::INTERNAL
        }
    }
}

async fn measure(host: &str, plan: &Plan) -> Result<Reading, GooseError> {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(host.to_owned());
    configuration.users = Some(plan.connections as usize);
    configuration.increase_rate = Some("100000".into());
    configuration.run_time = Some(format!("{}s", plan.seconds));
    configuration.throttle_requests = Some(plan.rate as usize);
    configuration.quiet = 3;
    configuration.no_print_metrics = true;
    configuration.no_error_summary = true;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    let attack = GooseAttack::initialize_with_config(configuration)?
        .register_scenario(Scenario::new("calibration").register_transaction(transaction!(ask)));
    let metrics = attack.execute().await?;
    Ok(metrics.requests.values().next().map(reading).unwrap_or_default())
}

async fn ask(user: &mut GooseUser) -> TransactionResult {
    user.get("/calibration").await?;
    Ok(())
}

/// The figures that goose prints in its tables.
fn reading(request: &GooseRequestMetricAggregate) -> Reading {
    let times = &request.raw_data;
    let at = |percent: f32| (times.counter > 0).then(|| times.percentile_us(percent) as f64);
    let slowest = (times.counter > 0).then_some(times.maximum_time_us as f64);
    Reading { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: slowest }
}
