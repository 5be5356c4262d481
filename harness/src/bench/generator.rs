//! The generator against other clients: requests per processor second, side by side in one run.
//!
//! What is compared: our whole load path (schedule, pool, goose's users, exchange, three times of each request recorded)
//! on its thread, against the whole process of a closed-loop client. Both run on one and the same processor, one after
//! the other, with 64 keep-alive connections to the same server on another processor. The other client sends whenever a
//! connection is free. So does ours when its schedule plans more than it can send, and that is the like for like. A second
//! figure is for a schedule that it can keep, a little below what it sustains, where every request also costs its share of
//! waking up in time. All take turns, so that what the machine does meanwhile hits all, and each turn gives one ratio.

use std::path::Path;
use std::time::Duration;

use super::{Context, Figure, Unmeasured, median, server};
use crate::workbench::clients::{self, OHA_REMEDY, WRK_REMEDY};
use crate::workbench::drive::{Shot, drive};
use crate::workbench::serve::Server;

/// Connections of every client.
pub const CONNECTIONS: u32 = 64;
/// Turns of each client. Six are the fewest for which the extremes enclose the median with 95% confidence.
const TURNS: usize = 7;
/// Length of a turn in seconds.
const TURN_S: u64 = 5;
/// The rate of a schedule that the generator can keep, to what it sustains.
const KEPT: f64 = 0.9;
/// The same of one that keeps it always busy.
const OVERDUE: f64 = 1.5;
/// A client to be compared with.
struct Client {
    name: &'static str,
    remedy: &'static str,
    arguments: fn(&str) -> Vec<String>,
    /// Requests answered, from what it prints.
    answered: fn(&str) -> Option<u64>,
}

const OHA: Client = Client {
    name: "oha",
    remedy: OHA_REMEDY,
    arguments: |url| {
        let fixed = format!("-z {TURN_S}s -c {CONNECTIONS} --no-tui --output-format json");
        fixed.split(' ').map(str::to_owned).chain([url.to_owned()]).collect()
    },
    answered: |text| {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        json.get("statusCodeDistribution")?.get("200")?.as_u64()
    },
};

const WRK: Client = Client {
    name: "wrk",
    remedy: WRK_REMEDY,
    arguments: |url| vec!["-t1".into(), format!("-c{CONNECTIONS}"), format!("-d{TURN_S}s"), url.to_owned()],
    answered: |text| {
        // "  912345 requests in 5.00s, 100.00MB read"
        let line = text.lines().find(|line| line.contains(" requests in "))?;
        line.split_whitespace().next()?.parse().ok()
    },
};

/// Against oha, the measure of a good Rust client.
pub fn against_oha(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    against(context, &OHA)
}

/// Against wrk, a C client that sends prebuilt bytes and records next to nothing.
pub fn against_wrk(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    against(context, &WRK)
}

/// One turn of both: requests per processor second.
struct Turn {
    generator: f64,
    generator_and_history: f64,
    /// On a schedule that it keeps.
    on_schedule: f64,
    other: f64,
}

fn against(context: &Context<'_>, client: &Client) -> Result<Vec<Figure>, Unmeasured> {
    let program = clients::find(client.name)
        .ok_or_else(|| Unmeasured::Missing(format!("{} is not installed ({})", client.name, client.remedy)))?;
    let server = server::start(&context.cores)?;
    let sustained = sustained(context, &server)?;
    context.say(&format!(
        "{TURNS} turns of the generator, which sustains {sustained:.0} per second, and of {}",
        client.name
    ));
    let turn_s = Duration::from_secs(TURN_S);
    let always_busy = Shot::constant(OVERDUE * sustained, turn_s.div_f64(OVERDUE), CONNECTIONS);
    let kept = Shot::constant(KEPT * sustained, turn_s, CONNECTIONS);
    let mut turns = Vec::new();
    for number in 1..=TURNS {
        context.goes_on()?;
        let ours = drive(context, server.address, &always_busy)?;
        ours.forget();
        let other = other_client(context, client, &program, &server)?;
        let on_schedule = drive(context, server.address, &kept)?;
        on_schedule.forget();
        let turn = Turn {
            generator: ours.requests as f64 / ours.totals.generator_cpu_s,
            generator_and_history: ours.requests as f64 / ours.process_cpu_s,
            on_schedule: on_schedule.requests as f64 / on_schedule.totals.generator_cpu_s,
            other,
        };
        context.say(&format!(
            "  {number}: generator {:.0} per CPU-second ({:.0} with the history's writer, {:.0} on a schedule that it \
             keeps), {} {:.0}",
            turn.generator, turn.generator_and_history, turn.on_schedule, client.name, turn.other
        ));
        turns.push(turn);
    }
    Ok(figures(client, &turns))
}

fn figures(client: &Client, turns: &[Turn]) -> Vec<Figure> {
    let name = client.name;
    let middle = |value: fn(&Turn) -> f64| median(turns.iter().map(value).collect()).0;
    let ratio = |value: fn(&Turn) -> f64| median(turns.iter().map(value).collect());
    let detail = format!(
        "median of {} turns of {TURN_S} s on one processor, {CONNECTIONS} connections, all always busy; every request of \
         the generator recorded",
        turns.len(),
    );
    let unit = "requests per CPU-second";
    let (value, interval) = ratio(|t| t.generator / t.other);
    let (with_history, history_interval) = ratio(|t| t.generator_and_history / t.other);
    let (on_schedule, schedule_interval) = ratio(|t| t.on_schedule / t.other);
    vec![
        Figure::new(format!("generator_vs_{name}"), value, "ratio").against(name, interval).detail(&detail),
        Figure::new(format!("generator_with_history_vs_{name}"), with_history, "ratio")
            .against(name, history_interval)
            .detail(
                "the same with the whole process: start of the buyers, and the history's writer until all is on disk",
            ),
        Figure::new(format!("generator_on_schedule_vs_{name}"), on_schedule, "ratio")
            .against(name, schedule_interval)
            .detail(&format!("the same for {KEPT} of the requests that it sustains, each sent when it is due")),
        Figure::new(format!("generator_beside_{name}_requests_per_cpu_second"), middle(|t| t.generator), unit),
        Figure::new(format!("{name}_requests_per_cpu_second"), middle(|t| t.other), unit),
    ]
}

/// Requests per second that the generator sustains: the whole plan is due almost at once, and is worked off.
pub fn sustained(context: &Context<'_>, server: &Server) -> Result<f64, Unmeasured> {
    context.say("finding the rate that the generator sustains");
    let shot = Shot::constant(1_000_000.0, Duration::from_millis(200), CONNECTIONS);
    let driven = drive(context, server.address, &shot)?;
    driven.forget();
    Ok(driven.requests as f64 / driven.wall_s)
}

/// One turn of another client: requests per processor second of its whole process.
fn other_client(context: &Context<'_>, client: &Client, program: &Path, server: &Server) -> Result<f64, Unmeasured> {
    let url = format!("http://{}/items/1/state", server.address);
    let ended = clients::run(&context.cores, program, &(client.arguments)(&url))?;
    match (client.answered)(&ended.stdout) {
        Some(requests) if ended.status == 0 && requests > 0 && ended.cpu_s > 0.0 => Ok(requests as f64 / ended.cpu_s),
        _ => Err(Unmeasured::Failed(format!(
            "{} ended with status {} and printed: {}",
            client.name,
            ended.status,
            ended.stdout.chars().take(300).collect::<String>()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_clients_print() {
        let oha = r#"{"summary":{"total":5.0},"statusCodeDistribution":{"200":512345}}"#;
        assert_eq!((OHA.answered)(oha), Some(512_345));
        assert_eq!((OHA.answered)("not json"), None);
        let wrk =
            "Running 5s test @ http://x\n  1 threads and 64 connections\n  912345 requests in 5.00s, 99.00MB read\n";
        assert_eq!((WRK.answered)(wrk), Some(912_345));
    }

    #[test]
    fn the_interval_of_a_median_is_made_of_order_statistics() {
        let (middle, interval) = median(vec![7.0, 1.0, 3.0, 2.0, 6.0, 4.0, 5.0]);
        assert_eq!((middle, interval), (4.0, [1.0, 7.0]));
        assert_eq!(median(vec![2.0, 1.0]).0, 1.5);
    }
}
