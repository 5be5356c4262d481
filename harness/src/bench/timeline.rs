//! Whether a seed says all about the timeline of faults: it is drawn a hundred times, each time by a process of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{Context, Figure, Unmeasured};
use crate::{exit, scenario};

/// The hidden subcommand that reads a scenario and prints the hash of its timeline.
pub const SUBCOMMAND: &str = "__bench-timeline";

/// How often the timeline of one seed is drawn, and of how many seeds it is.
const TIMES: u64 = 100;
/// The seed that is drawn again and again.
const SEED: u64 = 1;

/// Everything that can be left to the seed: moments, lengths, chances, and what is chosen.
const SCENARIO: &str = r#"
name = "bench-timeline"
target.reference = { strategy = "conditional-update" }
item = [{ id = 1, price_cents = 100, stock = 1, per_user_limit = 1, closes_at = "10m", hold = "1s" }]
load = { duration = "60s", virtual_buyers = 1 }
step.state.path = "/items/${item}/state"
steady_state = { step = "state", within = "1s" }

[cohort.buyers]
journey = ["state"]
arrivals = [{ constant = { rate = 1, lasts = "10s" } }]

[[fault]]
id = "moved"
at = ["5s", "9s"]
lasts = ["1s", "3s"]
inject.latency = { link = "service→postgres", delay = "8ms", jitter = "4ms" }

[[fault]]
id = "perhaps"
at = "14s"
lasts = "1s"
chance = 0.5
inject.black-hole = { link = "client→service" }

[[chaos]]
id = "storm"
faults = 5
from = "20s"
until = "50s"
lasts = ["500ms", "3s"]
gap = "1s"
inject = [{ kill = { role = "service" } }, { pause = { role = "postgres" } }, { reset = { link = "client→service" } }]
"#;

/// How many of a hundred times the same seed gave the timeline that it gave first.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context.say(&format!("drawing the timeline of one seed {TIMES} times"));
    let path = context.folder.join("timeline.toml");
    std::fs::write(&path, SCENARIO)?;
    let first = hash_apart(&path, SEED)?;
    let mut same = 0;
    for _ in 0..TIMES {
        context.goes_on()?;
        same += u64::from(hash_apart(&path, SEED)? == first);
    }
    let others = (SEED..SEED + TIMES).map(|seed| hash(&path, seed)).collect::<Result<BTreeSet<String>, _>>()?;
    let detail = format!(
        "of {TIMES} processes that draw it; the hash is {first}, and {TIMES} seeds from {SEED} on give {} timelines",
        others.len()
    );
    Ok(vec![Figure::new("timeline_hash_same", same as f64, "times").detail(&detail)])
}

fn hash(path: &Path, seed: u64) -> Result<String, Unmeasured> {
    Ok(scenario::load(path, &[], Some(seed))?.scenario.timeline_hash())
}

fn hash_apart(path: &Path, seed: u64) -> Result<String, Unmeasured> {
    let output = Command::new(std::env::current_exe()?).arg(SUBCOMMAND).arg(path).arg(seed.to_string()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(Unmeasured::Failed("a timeline could not be drawn".into())) }
}

/// The process that draws one; returns its exit code.
pub fn main(path: &Path, seed: u64) -> i32 {
    match hash(path, seed) {
        Ok(hash) => {
            println!("{hash}");
            exit::PASS
        }
        Err(error) => {
            eprintln!("error: {error}");
            exit::INTERNAL
        }
    }
}
