//! The command line: parse, dispatch, exit code. Results go to stdout, everything else to stderr.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::baseline::command as baseline;
use crate::capacity::{self, Asked, CapacityError};
use crate::compare::{self, CompareError, Comparison};
use crate::fault::{Inject, catalogue};
use crate::gate::{command as gate, power};
use crate::load::clock::unix_us;
use crate::load::slice::Slice;
use crate::progress::Progress;
use crate::report::{self, Render, Terminal};
use crate::run::{self, RunError};
use crate::scenario::forecast::LoadedPlan;
use crate::scenario::{self, Loaded, ScenarioError};
use crate::shard::{self, Part, StartAt};
use crate::stack::StackError;
use crate::summary::Summary;
use crate::{
    adapt, bench, calibrate, doctor, drill, dry_run, exit, forecast, history, judge, kill_soak, manual, merge, mutants,
    stack, stdout, toxiproxy,
};

/// Rehearse a flash sale before it opens: load it, break it, and know.
#[derive(Debug, Parser)]
#[command(name = "seckill", version, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 pass, 1 internal, 2 usage, 10 SLO missed, 11 consistency violated, 12 unknown, \
    13 regression, 20 no stack. Several at once: the first of 11, 12, 10, 13 that applies.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: only JSON on stdout.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario: provision, load, break, audit, judge, report.
    Run {
        /// The scenario file.
        scenario: PathBuf,
        /// The run folder; by default reports/runs/<time>-<scenario>.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Overrides the scenario's seed.
        #[arg(long)]
        seed: Option<u64>,
        /// Overrides a value of the scenario: PATH=VALUE, such as target.bug=4 or load.virtual_buyers=500.
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
        /// Only this variant of the scenario; all of them are run in turns and compared unless given.
        #[arg(long, value_name = "NAME")]
        variant: Option<String>,
        /// What to run on: what the scenario's target says, unless given.
        #[arg(long, value_enum)]
        stack: Option<StackKind>,
        /// How the summary is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
        /// No progress on stderr.
        #[arg(long)]
        quiet: bool,
        /// Start nothing: print what would be done, to whom, when and how much.
        #[arg(long, conflicts_with = "shard")]
        dry_run: bool,
        #[command(flatten)]
        sharing: Sharing,
    },
    /// Check an adapter: one buyer of each cohort walks its journey against the live service, and each reply is explained.
    Adapt {
        /// The scenario file.
        scenario: PathBuf,
        /// Overrides a value of the scenario.
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
        /// How the report is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Put the shards of a run together, judge and report it.
    Merge {
        /// The folders that the shards recorded.
        #[arg(required = true, value_name = "DIR")]
        shards: Vec<PathBuf>,
        /// The run folder to make.
        #[arg(long)]
        out: PathBuf,
        /// How the summary is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Judge a recorded run again, from its evidence.
    Check {
        /// The run folder.
        run: PathBuf,
        /// How the summary is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Render the reports of a recorded run again.
    Report {
        /// The run folder.
        run: PathBuf,
        /// How the summary is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// What is missing on this machine, and the command that mends it.
    Doctor {
        /// Install what is missing, as root.
        #[arg(long)]
        install: bool,
        /// How the findings are printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// What can be broken: every kind of fault, its parameters, and what it needs.
    Faults {
        /// Only this kind.
        kind: Option<String>,
        /// How the catalogue is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Keep the figures of runs, and hold them against each other.
    Baseline {
        #[command(subcommand)]
        command: baseline::Command,
    },
    /// How the figures of a scenario went over the builds, and where they changed for good.
    Trend(baseline::TrendArguments),
    /// The gate on trial: how often it accuses a build of being worse than itself, and finds what was made slower.
    GatePower {
        /// Comparisons of a build with itself.
        #[arg(long, value_name = "N", default_value_t = 200)]
        aa: usize,
        /// Comparisons with each slow-down.
        #[arg(long, value_name = "N", default_value_t = 100)]
        power: usize,
        /// Go on from the figures that there are.
        #[arg(long)]
        more: bool,
        /// Trials at most this time.
        #[arg(long, value_name = "N")]
        at_most: Option<usize>,
        /// The scenario that is compared.
        #[arg(long, value_name = "FILE", default_value = power::SCENARIO)]
        scenario: PathBuf,
        /// Overrides a value of the scenario.
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
        /// How the table is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Burns processor time at random; not for people.
    #[command(name = power::BURNER, hide = true)]
    BurnCpu,
    /// Is the new build worse than the old one? Runs both side by side and in turns, and says what got worse, and where.
    Gate(gate::Arguments),
    /// Rehearse with people: a scenario, a release checklist, a live page, a runbook, and a review of who noticed what, how soon.
    Drill(drill::Arguments),
    /// Print the JSON Schema of a file.
    Schema {
        /// Which file.
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Print what a shell completes commands and options by: bash, zsh, fish and others.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for every command into a folder.
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Only provision a stack.
    Stack {
        #[command(subcommand)]
        command: StackCommand,
    },
    /// A proxy that disturbs what passes, with Toxiproxy's HTTP API, for tests that have a client for it.
    Proxy {
        /// Where the API listens; port 0 lets the kernel choose.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8474")]
        listen: SocketAddr,
        /// Proxies to begin with: the JSON file that Toxiproxy's server takes.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A private network that upstreams may be in, and that proxies and the API may listen in; may be repeated.
        #[arg(long, value_name = "NETWORK", value_parser = scenario::value::network)]
        allow: Vec<IpNet>,
        /// Chooses the connections that a toxic with a toxicity below 1 strikes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Rehearse the correct target and every seeded bug under their faults; print the detection table.
    Mutants {
        /// Each bug is tried under the seeds 1 to N.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        seeds: u64,
        /// Only this bug; may be repeated; 0 is the correct target.
        #[arg(long, value_name = "NUMBER")]
        bug: Vec<u32>,
        /// Runs side by side; as many as there are processors unless given.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
        jobs: Option<u16>,
        /// Keep the evidence of every run, to judge it again: seckill check FOLDER.
        #[arg(long)]
        keep: bool,
        /// The catalogue of triggers.
        #[arg(long, value_name = "FILE", default_value = mutants::CATALOGUE)]
        catalogue: PathBuf,
        /// How the table is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Measure the harness itself, and write the figures to reports/bench/latest.json.
    Bench {
        /// One measurement, or one of its figures; all of them unless given.
        name: Option<String>,
        /// How the figures are printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Hold the harness and other tools against a server whose latencies are known; is this machine to be trusted?
    Calibrate {
        /// Length of each turn in seconds; below 10 there are too few requests for TP999.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        seconds: u32,
        /// Only this mode of the server, or only this tool beside the harness (ours: none); may be repeated.
        #[arg(long, value_enum, value_name = "NAME")]
        only: Vec<calibrate::Name>,
        /// How the table is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
        /// A mistake made on purpose, to see that it is found.
        #[arg(long, value_enum, hide = true)]
        mistake: Option<calibrate::Mistake>,
    },
    /// Find the highest rate at which every objective and invariant holds, and what gives out first.
    Capacity {
        /// The scenario file. What has to hold are its [[slo]], its invariants, and that nobody is dropped.
        scenario: PathBuf,
        /// The lowest load.scale to look at: every rate of the scenario is multiplied by it.
        #[arg(long, value_name = "SCALE", default_value_t = 0.25)]
        from: f64,
        /// The highest.
        #[arg(long, value_name = "SCALE", default_value_t = 8.0)]
        to: f64,
        /// Probes at most; each is a rehearsal.
        #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=100))]
        probes: u32,
        /// Time at most.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = scenario::value::parse_duration)]
        within: Duration,
        /// How closely it has to be known: half the width of the 95% interval, in percent.
        #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
        precision: f64,
        /// Instead of the search, set a value of the scenario to each of these numbers, and fit how throughput scales with it:
        /// target.reference.pool=1,2,4,8,16.
        #[arg(long, value_name = "PATH=N,N,...")]
        sweep: Option<capacity::Sweep>,
        /// Then a forecast for this plan; rates below the capacity are probed as well, for it to be fitted to and held against.
        #[arg(long, value_name = "PLAN", conflicts_with = "sweep")]
        forecast: Option<PathBuf>,
        /// Overrides a value of the scenario.
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
        /// Overrides the scenario's seed; each probe has the next one.
        #[arg(long)]
        seed: Option<u64>,
        /// The folder of the report and of every probe; by default reports/runs/<time>-<scenario>-capacity.
        #[arg(long)]
        out: Option<PathBuf>,
        /// How the report is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// How many nodes for so many buyers: a plan with its cost, from the probes of `seckill capacity`.
    Forecast {
        /// The folder that `seckill capacity` made.
        folder: PathBuf,
        /// The plan: who is expected, what it may run on, what that costs.
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
        /// Overrides a value of the plan: KEY=VALUE, such as buyers=2000000 or node.service.cpus=8.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// A folder of `seckill capacity --sweep`: how much more shards, or connections, do.
        #[arg(long, value_name = "DIR")]
        sweep: Option<PathBuf>,
        /// How the forecast is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Kill rehearsals at random moments, and see that nothing is left a second later.
    SoakKill {
        /// How often.
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        times: u64,
        /// From which the moments follow.
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Rehearsals side by side.
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
        jobs: u16,
        /// Add to the counts of earlier ones.
        #[arg(long)]
        more: bool,
        /// The scenario that is rehearsed.
        #[arg(long, value_name = "FILE", default_value = kill_soak::SCENARIO)]
        scenario: PathBuf,
        /// How the counts are printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// The server with known latencies; not for people.
    #[command(name = calibrate::server::SUBCOMMAND, hide = true)]
    CalibrationServer {
        /// The processor it runs on.
        core: usize,
        /// How it answers, as JSON.
        mode: String,
    },
    /// Goose by itself; not for people.
    #[command(name = calibrate::goose::SUBCOMMAND, hide = true)]
    CalibrationGoose {
        /// The server.
        host: String,
        /// The schedule, as JSON.
        plan: String,
    },
    /// The server that the generator is measured against; not for people.
    #[command(name = bench::server::SUBCOMMAND, hide = true)]
    BenchServer {
        /// The processor it runs on.
        core: usize,
    },
    /// The bare server that refusals are measured against; not for people.
    #[command(name = bench::sold_out::SUBCOMMAND, hide = true)]
    BenchRefuser {
        /// The processor that a server of a measurement runs on; this one runs where the service would.
        core: usize,
    },
    /// The servers behind the proxy that is measured; not for people.
    #[command(name = bench::proxy::server::SUBCOMMAND, hide = true)]
    BenchProxyServer {
        /// The processor it runs on.
        core: usize,
        /// Which of them.
        mode: String,
    },
    /// A process that draws the timeline of a scenario; not for people.
    #[command(name = bench::timeline::SUBCOMMAND, hide = true)]
    BenchTimeline {
        /// The scenario file.
        scenario: PathBuf,
        /// The seed.
        seed: u64,
    },
    /// The process whose judging is measured; not for people.
    #[command(name = bench::checker::SUBCOMMAND, hide = true)]
    BenchCheck {
        /// The run's folder.
        folder: PathBuf,
    },
    /// The guard of a run; not for people.
    #[command(name = stack::guard::SUBCOMMAND, hide = true)]
    Guard {
        /// The run's private folder, and the programs that may be ended in it.
        arguments: Vec<String>,
    },
}

/// How one run is shared by several generators.
#[derive(Debug, clap::Args)]
struct Sharing {
    /// Drive one shard of several, which `seckill merge` puts together: its number and how many there are.
    #[arg(long, value_name = "I/N", requires = "start_at")]
    shard: Option<Slice>,
    /// When the schedule begins, the same for all shards: 2026-11-22T21:00:00Z, or @ and the seconds since 1970.
    #[arg(long, value_name = "TIME", requires = "shard")]
    start_at: Option<StartAt>,
    /// The run's id, the same for all shards; follows from scenario and start unless given.
    #[arg(long, value_name = "ID", requires = "shard", value_parser = shard::run_id)]
    run_id: Option<String>,
}

#[derive(Debug, Subcommand)]
enum StackCommand {
    /// Provision what a scenario asks for, print the addresses, and wait for Ctrl-C.
    Up {
        /// The scenario file.
        scenario: PathBuf,
        /// Overrides a value of the scenario.
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
        /// What its databases run as: what the scenario's target says, unless given.
        #[arg(long, value_enum)]
        stack: Option<StackKind>,
        /// Where buyers find it: an address of this machine, loopback or in a private network, for generators elsewhere.
        #[arg(long, value_name = "ADDRESS", value_parser = listen, default_value = "127.0.0.1")]
        listen: IpAddr,
    },
}

/// Nobody but generators in a private network is to find a stack.
fn listen(text: &str) -> Result<IpAddr, String> {
    let own = |address: &IpAddr| {
        address.is_loopback() || scenario::value::network(&IpNet::from(*address).to_string()).is_ok()
    };
    text.parse().ok().filter(own).ok_or_else(|| {
        "give an IP address of this machine, loopback or in a private network, such as 10.99.0.1".to_owned()
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StackKind {
    /// A private Postgres and the reference service, as processes of this machine.
    Embedded,
    /// The same with the databases as containers of this machine's Docker engine.
    Containers,
    /// A service that is already running.
    External,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaOf {
    /// Scenario files.
    Scenario,
    /// Drill files.
    Drill,
    /// summary.json.
    Summary,
    /// The history: run.json and the lines of events.jsonl.
    History,
}

/// Parses the command line and does what it says; returns the exit code.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::PASS };
        }
    };
    if let Command::Guard { arguments } = &cli.command {
        return stack::guard::main(arguments);
    }
    if let Command::BurnCpu = &cli.command {
        return power::burn();
    }
    if let Command::BenchServer { core } = cli.command {
        return bench::server::main(core);
    }
    if let Command::BenchRefuser { .. } = cli.command {
        return bench::sold_out::main();
    }
    if let Command::BenchCheck { folder } = cli.command {
        return bench::checker::main(&folder);
    }
    raise_file_limit();
    if let Command::CalibrationServer { core, mode } = &cli.command {
        return calibrate::server::main(*core, mode);
    }
    if let Command::CalibrationGoose { host, plan } = &cli.command {
        return calibrate::goose::main(host, plan);
    }
    if let Command::BenchTimeline { scenario, seed } = &cli.command {
        return bench::timeline::main(scenario, *seed);
    }
    if let Command::BenchProxyServer { core, mode } = &cli.command {
        return bench::proxy::server::main(*core, mode);
    }
    log_to_stderr();
    match cli.command {
        Command::Run { scenario, out, seed, set, variant, stack, output, quiet, dry_run, sharing } => {
            let chosen = choose_stack(set, stack, |set| load(&scenario, set, seed, variant.as_deref()));
            let checked = chosen.and_then(|(loaded, set)| match &variant {
                Some(_) => Ok((loaded, set)),
                None => each_variant_fits(&loaded, &set, seed).map(|()| (loaded, set)),
            });
            match checked {
                Ok((loaded, _)) if dry_run => {
                    let plan = dry_run::Plan::of(&loaded.scenario);
                    print_result(&plan, || plan.text(), output);
                    exit::PASS
                }
                Ok((loaded, _)) if sharing.shard.is_some() => run_shard(&loaded, sharing, out, output, quiet),
                Ok((loaded, set)) if !loaded.scenario.variant.is_empty() => {
                    compare_variants(&loaded, &set, out, output, quiet)
                }
                Ok((loaded, _)) => run_scenario(&loaded, out, output, quiet),
                Err(error) => refuse(&error),
            }
        }
        Command::Adapt { scenario, set, output } => match load(&scenario, &set, None, None) {
            Ok(loaded) => check_adapter(&loaded, output),
            Err(error) => refuse(&error),
        },
        Command::Merge { shards, out, output } => match merge::merge(&shards, &out) {
            Ok(()) => finish(judge::judge_and_report(&out), &out, output),
            Err(error) => complain(&error.to_string(), exit::USAGE),
        },
        Command::Check { run, output } => {
            let judged = judge::judge_and_report(&run);
            match judged {
                Ok(summary) if run.join(drill::FILE).exists() => {
                    finish_drill(drill::review(&run, &summary, None).map(|score| (score, summary)), &run, output)
                }
                judged => finish(judged, &run, output),
            }
        }
        Command::Report { run, output } => {
            match compare::KEPT.read(&run) {
                Ok(None) => {}
                Ok(Some(comparison)) => {
                    return finish_comparison(compare::save(&run, &comparison), comparison, &run, output);
                }
                Err(error) => return complain(&error.to_string(), exit::USAGE),
            }
            match capacity::KEPT.read(&run) {
                Ok(None) => {}
                Ok(Some(report)) => return finish_capacity(capacity::save(&run, &report), report, &run, output),
                Err(error) => return complain(&error.to_string(), exit::USAGE),
            }
            match drill::render(&run) {
                Ok(None) => {}
                Ok(Some(rendered)) => return finish_drill(Ok(rendered), &run, output),
                Err(error) => return finish_drill(Err(error), &run, output),
            }
            let summary = judge::read_summary(&run).and_then(|s| judge::report(&run, &s).map(|()| s));
            finish(summary, &run, output)
        }
        Command::Baseline { command } => baseline::main(&command),
        Command::Trend(arguments) => baseline::trend(&arguments),
        Command::GatePower { aa, power, more, at_most, scenario, set, output } => {
            let asked = power::Asked { aa, power, more, at_most, scenario, set };
            power::run(&asked, output == Output::Json, &on_interrupt())
        }
        Command::Gate(arguments) => {
            let Some(runtime) = runtime() else { return exit::INTERNAL };
            gate::main(&arguments, &runtime, &on_interrupt())
        }
        Command::Drill(arguments) => {
            let Some(runtime) = runtime() else { return exit::INTERNAL };
            drill::main(&arguments, &runtime, &on_interrupt())
        }
        Command::Doctor { install, output } => doctor::run(install, output == Output::Json),
        Command::Faults { kind, output } => print_faults(kind.as_deref(), output),
        Command::Schema { of } => print_schema(of),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { out } => manual::pages(out.as_deref()),
        Command::Stack { command: StackCommand::Up { scenario, set, stack, listen } } => {
            match choose_stack(set, stack, |set| load(&scenario, set, None, None)) {
                Ok((loaded, _)) => stack_up(&loaded, listen),
                Err(error) => refuse(&error),
            }
        }
        Command::Proxy { listen, config, allow, seed } => {
            let Some(runtime) = runtime() else { return exit::INTERNAL };
            let service = toxiproxy::Service { listen, config, allowed: allow, seed };
            toxiproxy::run(service, &runtime, &on_interrupt())
        }
        Command::Mutants { seeds, bug, jobs, keep, catalogue, output } => {
            let jobs = jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, Into::into), usize::from);
            let trial = mutants::Trial { catalogue, seeds, bugs: bug, jobs, keep };
            let Some(runtime) = runtime() else { return exit::INTERNAL };
            mutants::run(&trial, output == Output::Json, &runtime, &on_interrupt())
        }
        Command::Bench { name, output } => {
            let Some(runtime) = runtime() else { return exit::INTERNAL };
            bench::run(name.as_deref(), output == Output::Json, &runtime, &on_interrupt())
        }
        Command::Calibrate { seconds, only, output, mistake } => {
            let Some(runtime) = runtime() else { return exit::INTERNAL };
            let asked = calibrate::Asked { seconds, only, mistake };
            calibrate::run(&asked, output == Output::Json, &runtime, &on_interrupt())
        }
        Command::Capacity {
            scenario,
            from,
            to,
            probes,
            within,
            precision,
            sweep,
            forecast,
            set,
            seed,
            out,
            output,
        } => {
            let ladder = forecast.is_some();
            let asked = Asked { set, between: [from, to], probes, within, precision: precision / 100.0, sweep, ladder };
            // A mistake in the plan is told before anything is measured for it.
            let plan = forecast.map(|path| scenario::forecast::load(&path, &[])).transpose();
            match plan.and_then(|plan| Ok((load(&scenario, &asked.set, seed, None)?, plan))) {
                Ok((loaded, plan)) => find_capacity(&loaded, &asked, plan.as_ref(), out, output),
                Err(error) => refuse(&error),
            }
        }
        Command::Forecast { folder, plan, set, sweep, output } => match scenario::forecast::load(&plan, &set) {
            Ok(plan) => make_forecast(&folder, &plan, sweep.as_deref(), output),
            Err(error) => refuse(&error),
        },
        Command::SoakKill { times, seed, jobs, more, scenario, output } => {
            let asked = kill_soak::Asked { times, seed, jobs: usize::from(jobs), scenario, more };
            kill_soak::run(&asked, output == Output::Json, &on_interrupt())
        }
        Command::Guard { .. }
        | Command::BurnCpu
        | Command::BenchServer { .. }
        | Command::BenchRefuser { .. }
        | Command::BenchProxyServer { .. }
        | Command::BenchTimeline { .. }
        | Command::BenchCheck { .. }
        | Command::CalibrationServer { .. }
        | Command::CalibrationGoose { .. } => exit::INTERNAL,
    }
}

/// A scenario that is about to be run, checked as far as that can be done before anything is made.
pub(crate) fn load(
    path: &Path,
    sets: &[String],
    seed: Option<u64>,
    variant: Option<&str>,
) -> Result<Loaded, ScenarioError> {
    let ask =
        |reference: &scenario::Reference| stack::embedded::catalogue(reference).map_err(|error| error.to_string());
    scenario::load_to_run(path, sets, seed, variant, ask)
}

/// A mistake in any variant is told before the first one is run.
fn each_variant_fits(loaded: &Loaded, sets: &[String], seed: Option<u64>) -> Result<(), ScenarioError> {
    let mut names = loaded.scenario.variant.iter().map(|variant| variant.name.as_str());
    names.try_for_each(|name| load(&loaded.path, sets, seed, Some(name)).map(drop))
}

/// Runs all variants in turns, and prints what they came to side by side.
fn compare_variants(loaded: &Loaded, sets: &[String], out: Option<PathBuf>, output: Output, quiet: bool) -> i32 {
    let folder = out.clone().unwrap_or_else(|| default_folder(&loaded.scenario.name));
    let Some(runtime) = runtime() else { return exit::INTERNAL };
    let cancel = on_interrupt();
    let say = |line: &str| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    match runtime.block_on(compare::run(loaded, sets, &folder, say, &cancel)) {
        Ok(comparison) => {
            if out.is_none() {
                point_latest_at(&folder);
            }
            finish_comparison(Ok(()), comparison, &folder, output)
        }
        Err(error) => {
            let code = match &error {
                CompareError::Kept(error) => error.exit_code(),
                CompareError::Interrupted(_) => exit::UNKNOWN,
                _ => exit::INTERNAL,
            };
            complain(&error.to_string(), code)
        }
    }
}

fn finish_comparison(saved: Result<(), CompareError>, comparison: Comparison, folder: &Path, output: Output) -> i32 {
    if let Err(error) = saved {
        return complain(&error.to_string(), exit::INTERNAL);
    }
    print_kept(&comparison, || report::comparison::markdown(&comparison), folder, output);
    comparison.exit_code
}

/// Walks each journey once against the live service, and prints what its replies were taken for.
fn check_adapter(loaded: &Loaded, output: Output) -> i32 {
    let Some(runtime) = runtime() else { return exit::INTERNAL };
    let run_id = Part::whole().run_id;
    let logs = std::env::temp_dir().join(format!("seckill-{run_id}-logs"));
    if let Err(error) = std::fs::create_dir(&logs) {
        return complain(
            &format!("cannot make {}: {error}; TMPDIR names another place", logs.display()),
            exit::NO_STACK,
        );
    }
    let provision = stack::Provision { run_id, logs: logs.clone(), listen: stack::LOCAL };
    let cancel = on_interrupt();
    let result = runtime.block_on(adapt::run(&loaded.scenario, &provision, &cancel));
    let _ = std::fs::remove_dir_all(&logs);
    match result {
        Ok(None) => complain("interrupted", exit::UNKNOWN),
        Err(error) => complain_of_stack(loaded, &error),
        Ok(Some(report)) => {
            print_result(&report, || adapt::text(&report), output);
            if report.complete { exit::PASS } else { exit::UNKNOWN }
        }
    }
}

/// Prints a result for programs or for people.
pub(crate) fn print_result(result: &impl Serialize, text: impl FnOnce() -> String, output: Output) {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(result).unwrap_or_default()),
        Output::Text => println!("{}", text()),
    }
}

/// Prints what is kept in a folder: for programs, or for people with the place of its page.
fn print_kept(result: &impl Serialize, text: impl FnOnce() -> String, folder: &Path, output: Output) {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(result).unwrap_or_default()),
        Output::Text => println!("{}\nreport: {}", text(), folder.join("report.html").display()),
    }
}

/// Makes a forecast from a folder of probes, and prints it.
fn make_forecast(folder: &Path, plan: &LoadedPlan, sweep: Option<&Path>, output: Output) -> i32 {
    match forecast::run(folder, plan, sweep) {
        Ok(made) => {
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&made).unwrap_or_default()),
                Output::Text => {
                    println!(
                        "{}\nforecast: {}",
                        report::forecast::markdown(&made),
                        folder.join("forecast.html").display()
                    );
                }
            }
            made.exit_code
        }
        Err(error) => complain(&error.to_string(), error.exit_code()),
    }
}

/// Looks for the capacity, or sweeps, and prints the report; then the forecast, if there is a plan for one.
fn find_capacity(
    loaded: &Loaded,
    asked: &Asked,
    plan: Option<&LoadedPlan>,
    out: Option<PathBuf>,
    output: Output,
) -> i32 {
    let folder = out.clone().unwrap_or_else(|| default_folder(&format!("{}-capacity", loaded.scenario.name)));
    let Some(runtime) = runtime() else { return exit::INTERNAL };
    let cancel = on_interrupt();
    match runtime.block_on(capacity::run(loaded, asked, &folder, |line| eprintln!("{line}"), &cancel)) {
        Ok(report) => {
            if out.is_none() {
                point_latest_at(&folder);
            }
            let Some(plan) = plan else { return finish_capacity(Ok(()), report, &folder, output) };
            // For programs there is one document, and this one is kept.
            let found = match output {
                Output::Json => report.exit_code,
                Output::Text => finish_capacity(Ok(()), report, &folder, output),
            };
            let made = make_forecast(&folder, plan, None, output);
            if exit::severity(found) > exit::severity(made) { found } else { made }
        }
        Err(error) => {
            let code = match &error {
                CapacityError::Kept(error) => error.exit_code(),
                CapacityError::Interrupted(_) => exit::UNKNOWN,
                CapacityError::Probe { .. } | CapacityError::Report(_) => exit::INTERNAL,
                _ => exit::USAGE,
            };
            complain(&error.to_string(), code)
        }
    }
}

fn finish_capacity(saved: Result<(), CapacityError>, report: capacity::Report, folder: &Path, output: Output) -> i32 {
    if let Err(error) = saved {
        return complain(&error.to_string(), exit::INTERNAL);
    }
    print_kept(&report, || report::capacity::markdown(&report), folder, output);
    report.exit_code
}

fn finish_drill(
    reviewed: Result<(drill::score::Score, Summary), drill::ReviewError>,
    folder: &Path,
    output: Output,
) -> i32 {
    match reviewed {
        Ok((score, summary)) => {
            drill::print(&score, &summary, folder, output);
            score.exit_code
        }
        Err(error) => complain(&error.to_string(), exit::USAGE),
    }
}

pub(crate) fn refuse(error: &ScenarioError) -> i32 {
    let code = if matches!(error, ScenarioError::NoTarget(_)) { exit::NO_STACK } else { exit::USAGE };
    complain(&error.to_string(), code)
}

/// Loads a scenario with the stack that was asked for, which is a setting of it like any other; returns it with all settings.
fn choose_stack(
    sets: Vec<String>,
    stack: Option<StackKind>,
    load: impl Fn(&[String]) -> Result<Loaded, ScenarioError>,
) -> Result<(Loaded, Vec<String>), ScenarioError> {
    let runs = match stack {
        None | Some(StackKind::External) => return Ok((fits(load(&sets)?, stack)?, sets)),
        Some(StackKind::Embedded) => "embedded",
        Some(StackKind::Containers) => "containers",
    };
    let mut all = sets.clone();
    all.push(format!("target.reference.stack={runs}"));
    match load(&all) {
        Ok(loaded) => Ok((loaded, all)),
        // Whoever has another target hears of that, and not of a setting that is none of it.
        Err(error) => match load(&sets) {
            Ok(loaded) => fits(loaded, stack).and(Err(error)),
            Err(_) => Err(error),
        },
    }
}

fn fits(loaded: Loaded, stack: Option<StackKind>) -> Result<Loaded, ScenarioError> {
    let is_external = matches!(loaded.scenario.target, scenario::Target::External(_));
    match stack {
        Some(kind) if (kind == StackKind::External) != is_external => {
            let has = if is_external { "external" } else { "reference" };
            let asked = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            Err(ScenarioError::Invalid(format!(
                "--stack {asked} does not fit {}: its target is [target.{has}]\nhelp: give the other section, \
                 or leave --stack out",
                loaded.path.display()
            )))
        }
        _ => Ok(loaded),
    }
}

/// Drives one shard and says where it was recorded. It is not judged: alone, it proves nothing.
fn run_shard(loaded: &Loaded, sharing: Sharing, out: Option<PathBuf>, output: Output, quiet: bool) -> i32 {
    let Sharing { shard: Some(slice), start_at: Some(start), run_id } = sharing else { return exit::USAGE };
    let part = match Part::of_shard(loaded, slice, start, run_id) {
        Ok(part) => part,
        Err(why) => return complain(&why, exit::USAGE),
    };
    let name = || default_folder(&format!("{}-{}-of-{}", loaded.scenario.name, slice.index(), slice.count()));
    let folder = out.unwrap_or_else(name);
    let Some(runtime) = runtime() else { return exit::INTERNAL };
    let cancel = on_interrupt();
    let progress = Progress::new(quiet);
    let recording = run::record(loaded, &part, &folder, &progress, &cancel);
    match stdout::kept_for_results(|| runtime.block_on(recording)) {
        Ok(how) => {
            match (output, history::reader::read_info(&folder)) {
                (Output::Json, Ok(info)) => println!("{}", serde_json::to_string_pretty(&info).unwrap_or_default()),
                _ => println!(
                    "shard {slice} {how}: {}\n`seckill merge DIR... --out RUN` puts the shards together and judges them",
                    folder.display()
                ),
            }
            if how == "completed" { exit::PASS } else { exit::UNKNOWN }
        }
        Err(error) => complain_of_run(loaded, &error),
    }
}

fn run_scenario(loaded: &Loaded, out: Option<PathBuf>, output: Output, quiet: bool) -> i32 {
    let folder = out.clone().unwrap_or_else(|| default_folder(&loaded.scenario.name));
    let Some(runtime) = runtime() else { return exit::INTERNAL };
    let cancel = on_interrupt();
    let progress = Progress::new(quiet);
    let result = stdout::kept_for_results(|| runtime.block_on(run::run(loaded, &folder, &progress, &cancel)));
    match result {
        Ok(finished) => {
            if out.is_none() {
                point_latest_at(&finished.folder);
            }
            print_summary(&finished.summary, &finished.folder, output);
            finished.summary.exit_code
        }
        Err(error) => complain_of_run(loaded, &error),
    }
}

pub(crate) fn complain_of_run(loaded: &Loaded, error: &RunError) -> i32 {
    let code = match error {
        RunError::Stack(error) => return complain_of_stack(loaded, error),
        RunError::Taken { .. } | RunError::Unwritable { .. } => exit::USAGE,
        RunError::Interrupted => exit::UNKNOWN,
        _ => exit::INTERNAL,
    };
    complain(&error.to_string(), code)
}

fn complain_of_stack(loaded: &Loaded, error: &StackError) -> i32 {
    let message = match error {
        StackError::Setting { key, what, help } => scenario::pointing_at(loaded, key, what, help),
        error => format!("the stack could not be provisioned: {error}"),
    };
    complain(&message, exit::NO_STACK)
}

fn stack_up(loaded: &Loaded, listen: IpAddr) -> i32 {
    let Some(runtime) = runtime() else { return exit::INTERNAL };
    let cancel = on_interrupt();
    let run_id = format!("up{}", std::process::id());
    let logs = std::env::temp_dir().join(format!("seckill-{run_id}-logs"));
    if let Err(error) = std::fs::create_dir(&logs) {
        return complain(
            &format!("cannot make {}: {error}; TMPDIR names another place", logs.display()),
            exit::NO_STACK,
        );
    }
    let provision = stack::Provision { run_id, logs: logs.clone(), listen: (listen, 0).into() };
    let code = runtime.block_on(async {
        match stack::up(&loaded.scenario, &provision).await {
            Ok(stack) => {
                let stack = Arc::new(stack);
                let api = match set_up(loaded, &stack).await {
                    Ok(api) => api,
                    Err(error) => {
                        taken_down(stack).await;
                        return complain_of_stack(loaded, &error);
                    }
                };
                eprintln!("the stack is up, and the sale is set up as if the load began now; Ctrl-C takes it down");
                if let Some(target) = stack.as_external() {
                    eprintln!(
                        "to rehearse on it from elsewhere on this machine: seckill run SCENARIO --set '{target}'"
                    );
                }
                cancel.cancelled().await;
                api.end().await;
                if let Some(cleaned) = stack.clean_up().await {
                    eprintln!("{}", cleaned.unwrap_or_else(|why| why));
                }
                taken_down(stack).await;
                exit::PASS
            }
            Err(error) => complain_of_stack(loaded, &error),
        }
    });
    let _ = std::fs::remove_dir_all(&logs);
    code
}

/// Sets the sale up, opens the API for the stack's proxies, and prints where everything is.
async fn set_up(loaded: &Loaded, stack: &Arc<stack::Stack>) -> Result<toxiproxy::Beside, StackError> {
    let api = toxiproxy::Beside::start(stack.clone()).await.map_err(StackError::Other)?;
    let toxics = ("toxiproxy API of its proxies".to_owned(), api.address.to_string());
    let addresses = || stack.addresses.iter().chain([&toxics]);
    let width = addresses().map(|(what, _)| what.len()).max().unwrap_or(0);
    for (what, address) in addresses() {
        println!("{what:width$}  {address}");
    }
    if let Err(error) = run::set_up_sale(&loaded.scenario, stack, unix_us()).await {
        api.end().await;
        return Err(error);
    }
    Ok(api)
}

/// Takes a stack down of which nobody else holds on to a part; the guard does it where somebody does.
async fn taken_down(stack: Arc<stack::Stack>) {
    if let Some(stack) = Arc::into_inner(stack) {
        stack.down().await;
    }
}

fn runtime() -> Option<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| complain(&format!("cannot make the runtime: {error}"), exit::INTERNAL)).ok()
}

/// Ctrl-C and SIGTERM end a run in order; the second one ends the harness at once, and the guard cleans up.
///
/// This is registered before goose starts: goose's own handler then finds the place taken and leaves it alone.
fn on_interrupt() -> CancellationToken {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let registered = ctrlc::set_handler(move || {
        if token.is_cancelled() {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: ending in order; once more to end at once");
        token.cancel();
    });
    if let Err(error) = registered {
        tracing::warn!("cannot watch for Ctrl-C: {error}");
    }
    cancel
}

fn finish(result: Result<Summary, judge::JudgeError>, folder: &Path, output: Output) -> i32 {
    match result {
        Ok(summary) => {
            print_summary(&summary, folder, output);
            summary.exit_code
        }
        Err(error) => complain(&error.to_string(), exit::USAGE),
    }
}

fn print_summary(summary: &Summary, folder: &Path, output: Output) {
    let mut stdout = std::io::stdout().lock();
    let printed = match output {
        Output::Json => serde_json::to_vec_pretty(summary).map_err(|e| e.to_string()),
        Output::Text => {
            let color = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            Terminal { color, width: 110 }.render(summary).map_err(|e| e.to_string())
        }
    };
    match printed {
        Ok(bytes) => {
            let _ = stdout.write_all(&bytes);
            let _ = writeln!(stdout);
            if output == Output::Text {
                let _ = writeln!(stdout, "report: {}", folder.join("report.html").display());
            }
        }
        Err(error) => eprintln!("cannot print the summary: {error}"),
    }
}

fn print_faults(kind: Option<&str>, output: Output) -> i32 {
    let mut all = catalogue::catalogue();
    if let Some(kind) = kind {
        all.retain(|entry| entry.kind == kind);
        if all.is_empty() {
            let what = format!("there is no kind of fault \"{kind}\"\nhelp: one of {}", Inject::KINDS.join(", "));
            return complain(&what, exit::USAGE);
        }
    }
    let told = match output {
        Output::Json => format!("{:#}\n", serde_json::json!({ "faults": all })),
        Output::Text => all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    stdout::print(told.as_bytes());
    exit::PASS
}

fn print_schema(of: SchemaOf) -> i32 {
    let schema = match of {
        SchemaOf::Scenario => scenario::json_schema(),
        SchemaOf::Drill => drill::file::json_schema(),
        SchemaOf::Summary => schemars::schema_for!(Summary).to_value(),
        SchemaOf::History => serde_json::json!({
            "run.json": schemars::schema_for!(crate::history::RunInfo).to_value(),
            "events.jsonl": schemars::schema_for!(crate::history::Event).to_value(),
            "audit.json": schemars::schema_for!(crate::history::FinalState).to_value(),
            "ledger.jsonl": schemars::schema_for!(crate::history::LedgerEntry).to_value(),
        }),
    };
    stdout::print(format!("{schema:#}\n").as_bytes());
    exit::PASS
}

pub(crate) fn complain(message: &str, code: i32) -> i32 {
    let prefix = if message.starts_with("error") { "" } else { "error: " };
    eprintln!("{prefix}{message}");
    code
}

/// `reports/runs/<time>-<scenario>`, with a number behind it if that is taken.
pub(crate) fn default_folder(name: &str) -> PathBuf {
    folder_in(Path::new("reports/runs"), name)
}

/// `<base>/<time>-<name>`, with a number behind it if that is taken.
pub(crate) fn folder_in(base: &Path, name: &str) -> PathBuf {
    let time = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let first = base.join(format!("{time}-{name}"));
    if !first.exists() {
        return first;
    }
    (2..).map(|n| base.join(format!("{time}-{name}-{n}"))).find(|p| !p.exists()).unwrap_or(first)
}

pub(crate) fn point_latest_at(folder: &Path) {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return };
    // Made beside and moved over, so that runs side by side never leave it dangling.
    let fresh = parent.join(format!(".latest-{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    if std::os::unix::fs::symlink(name, &fresh).is_ok() {
        let _ = std::fs::rename(&fresh, parent.join("latest"));
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SECKILL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,goose=error"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        // It would be told on stderr, and panic where nobody reads that.
        .log_internal_errors(false)
        .try_init();
}

/// Descriptors for which a privileged harness raises the hard limit, too: some tens of thousands of buyers.
const DESCRIPTORS: u64 = 1 << 16;

/// Each buyer costs a few descriptors; the limits are defaults for programs that need few.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most = hard.max(DESCRIPTORS);
        if soft < most && setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}
