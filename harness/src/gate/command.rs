//! `seckill gate`: the command line of the gate.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use super::sides::{self, Builder, Named};
use super::{Build, GateError, KEPT, Report, duet, outputs, stored};
use crate::baseline;
use crate::cli::{complain, default_folder, load, point_latest_at};
use crate::scenario::{Loaded, ScenarioError};
use crate::stdout;

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: only JSON on stdout.
    Json,
    /// For GitHub's runner: annotations, then the text.
    Github,
}

/// Arguments of `seckill gate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The scenario file, or the folder of a gate that is to be printed again.
    scenario: PathBuf,
    /// Hold it against this stored baseline, by its name or path, instead of another build.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["old", "old_set"])]
    baseline: Option<String>,
    /// The old build: a program, git:REV, image:NAME, http://ADDRESS or variant:NAME; the one beside this harness unless given.
    #[arg(long, value_name = "BUILD")]
    old: Option<String>,
    /// The new build, likewise.
    #[arg(long, value_name = "BUILD")]
    new: Option<String>,
    /// Overrides a value of the scenario on both sides.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The same on the old side alone.
    #[arg(long, value_name = "PATH=VALUE")]
    old_set: Vec<String>,
    /// The same on the new side alone, such as target.switches.P5=off.
    #[arg(long, value_name = "PATH=VALUE")]
    new_set: Vec<String>,
    /// Overrides the scenario's seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Rounds at most; what the scenario's [gate] says, unless given.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// The command that builds a revision, run in its worktree.
    #[arg(long, value_name = "COMMAND", default_value = sides::BUILD)]
    build: String,
    /// The program that it makes, from the worktree's folder on.
    #[arg(long, value_name = "FILE", default_value = sides::PROGRAM)]
    program: PathBuf,
    /// Where everything is written; by default reports/runs/<time>-gate-<scenario>.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep the run folders of all rounds.
    #[arg(long)]
    keep: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

/// Runs the gate, or prints a recorded one again; returns the exit code.
pub fn main(arguments: &Arguments, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) -> i32 {
    let result = match KEPT.read(&arguments.scenario) {
        Ok(Some(report)) => Ok((report, arguments.scenario.clone())),
        Ok(None) => stdout::kept_for_results(|| runtime.block_on(run(arguments, cancel))),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok((report, folder)) => {
            print(&report, &folder, arguments.output);
            report.exit_code
        }
        Err(GateError::Scenario(error)) => crate::cli::refuse(&error),
        Err(error) => complain(&error.to_string(), error.exit_code()),
    }
}

/// Prints a result.
fn print(report: &Report, folder: &Path, output: Output) {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(report).unwrap_or_default()),
        Output::Github => println!("{}{}", outputs::annotations(report), outputs::markdown(report)),
        Output::Text => {
            println!("{}", outputs::markdown(report));
            println!("report: {}", folder.join("gate.md").display());
        }
    }
}

async fn run(arguments: &Arguments, cancel: &CancellationToken) -> Result<(Report, PathBuf), GateError> {
    let say = |line: &str| {
        if !arguments.quiet {
            eprintln!("{line}");
        }
    };
    let builder =
        Builder { command: arguments.build.clone(), program: arguments.program.clone(), ..Builder::default() };
    if let Some(name) = &arguments.baseline {
        return against(arguments, name, &builder, &say, cancel).await;
    }
    let named = [sides::named("old", arguments.old.as_deref())?, sides::named("new", arguments.new.as_deref())?];
    let loaded = read(arguments, &named[1], &[], arguments.seed)?;
    let folder = arguments.out.clone().unwrap_or_else(|| default_folder(&format!("gate-{}", loaded.scenario.name)));
    let sets = [&arguments.old_set, &arguments.new_set];
    let mut builds = Vec::new();
    for (named, set) in named.iter().zip(sets) {
        builds.push(named.make(&builder, set, &say)?);
    }
    let [old, new] = <[Build; 2]>::try_from(builds).unwrap_or_default();
    // A mistake of either side is told before anything is started.
    let load = |build: &Build, seed: u64| {
        let side = if *build == old { &named[0] } else { &named[1] };
        read(arguments, side, &build.set, Some(seed))
    };
    let seed = loaded.scenario.seed;
    load(&old, seed)?;
    load(&new, seed)?;
    let duet = duet::Duet {
        loaded: &loaded,
        builds: [old.clone(), new.clone()],
        load: &load,
        folder: &folder,
        keep: arguments.keep,
        say: &say,
    };
    let report = duet.run(cancel).await?;
    if arguments.out.is_none() {
        point_latest_at(&folder);
    }
    Ok((report, folder))
}

/// The gate against a stored baseline.
async fn against(
    arguments: &Arguments,
    name: &str,
    builder: &Builder,
    say: &(dyn Fn(&str) + Sync),
    cancel: &CancellationToken,
) -> Result<(Report, PathBuf), GateError> {
    let named = sides::named("new", arguments.new.as_deref())?;
    let baseline = baseline::read(name)?;
    let build = named.make(builder, &arguments.new_set, say)?;
    let loaded = read(arguments, &named, &build.set, arguments.seed)?;
    stored::fits(&baseline, &loaded)?;
    let folder = arguments.out.clone().unwrap_or_else(|| default_folder(&format!("gate-{}", loaded.scenario.name)));
    let runs = arguments.rounds.unwrap_or(stored::RUNS);
    let gate = stored::Stored {
        loaded: &loaded,
        build,
        variant: named.variant().map(str::to_owned),
        set: &arguments.set,
        baseline,
        runs,
        folder: &folder,
        say,
    };
    let report = gate.run(cancel).await?;
    if arguments.out.is_none() {
        point_latest_at(&folder);
    }
    Ok((report, folder))
}

/// The scenario as one side runs it.
fn read(arguments: &Arguments, side: &Named, own: &[String], seed: Option<u64>) -> Result<Loaded, ScenarioError> {
    let rounds = arguments.rounds.map(|rounds| format!("gate.rounds={rounds}"));
    let sets: Vec<String> =
        rounds.into_iter().chain(arguments.set.iter().cloned()).chain(own.iter().cloned()).collect();
    let loaded = load(&arguments.scenario, &sets, seed, side.variant())?;
    if side.variant().is_none() && !loaded.scenario.variant.is_empty() {
        let names: Vec<&str> = loaded.scenario.variant.iter().map(|variant| variant.name.as_str()).collect();
        return Err(ScenarioError::Invalid(format!(
            "{} has variants, and a side of a gate is one experiment\nhelp: name them with --old variant:NAME --new variant:NAME; \
             there are {}",
            arguments.scenario.display(),
            names.join(", ")
        )));
    }
    Ok(loaded)
}
