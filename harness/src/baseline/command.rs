//! `seckill baseline` and `seckill trend`: the command line of what is kept of runs.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{diff, of_runs, read, save, text};
use crate::cli::{Output, complain};
use crate::exit;
use crate::trend::{self, TrendError};

/// What is done with baselines.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep the figures of recorded runs in reports/baselines/, to be committed.
    Save {
        /// The run folders: several of one scenario tell how much runs differ.
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<PathBuf>,
        /// Its name, or the path of a file; the scenario's name unless given.
        #[arg(long)]
        name: Option<String>,
        /// Write over the baseline of that name.
        #[arg(long)]
        replace: bool,
        /// How it is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Print a baseline.
    Show {
        /// Its name, its path, or a run folder.
        name: String,
        /// How it is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// What is different between two baselines or runs, what matters first.
    Diff {
        /// The first: a name, a path, or a run folder.
        old: String,
        /// The second.
        new: String,
        /// End with 13 if a hop is new or has more calls: what no noise can bring about.
        #[arg(long)]
        strict: bool,
        /// How it is printed.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
}

/// Arguments of `seckill trend`.
#[derive(Debug, clap::Args)]
pub struct TrendArguments {
    /// Run folders, baselines, or folders of them; reports/runs and reports/baselines unless given.
    places: Vec<PathBuf>,
    /// The scenario; the one that most runs are of, unless given.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Where the page with the charts is written.
    #[arg(long, value_name = "FILE", default_value = "reports/trend.html")]
    html: PathBuf,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn print(output: Output, json: &impl serde::Serialize, text: impl FnOnce() -> String) -> i32 {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(json).unwrap_or_default()),
        Output::Text => println!("{}", text()),
    }
    exit::PASS
}

/// Does what it says; returns the exit code.
pub fn main(command: &Command) -> i32 {
    let result = match command {
        Command::Save { runs, name, replace, output } => of_runs(runs, name.as_deref()).and_then(|baseline| {
            let path = save(&baseline, *replace)?;
            Ok(print(*output, &baseline, || format!("{}\nsaved: {}", text::show(&baseline), path.display())))
        }),
        Command::Show { name, output } => {
            read(name).map(|baseline| print(*output, &baseline, || text::show(&baseline)))
        }
        Command::Diff { old, new, strict, output } => read(old).and_then(|old| {
            let difference = diff::diff(&old, &read(new)?);
            let code = print(*output, &difference, || text::diff(&difference));
            let more = difference.topology.iter().any(|said| diff::is_more(said));
            Ok(if *strict && more { exit::REGRESSION } else { code })
        }),
    };
    result.unwrap_or_else(|error| complain(&error.to_string(), exit::USAGE))
}

/// Prints the trend, and writes its page.
pub fn trend(arguments: &TrendArguments) -> i32 {
    let page = |trend: &trend::Trend| {
        let fail = |path: &Path, source| TrendError::File { path: path.to_owned(), source };
        if let Some(folder) = arguments.html.parent() {
            std::fs::create_dir_all(folder).map_err(|source| fail(folder, source))?;
        }
        std::fs::write(&arguments.html, trend::html(trend)?).map_err(|source| fail(&arguments.html, source))
    };
    let mut places = arguments.places.clone();
    if places.is_empty() {
        places =
            ["reports/runs", super::FOLDER].map(PathBuf::from).into_iter().filter(|place| place.exists()).collect();
    }
    let trend = trend::read(&places, arguments.scenario.as_deref()).and_then(|trend| page(&trend).map(|()| trend));
    match trend {
        Ok(trend) => {
            let written = format!("charts: {}", arguments.html.display());
            print(arguments.output, &trend, || format!("{}\n{written}", trend::markdown(&trend)))
        }
        Err(error) => complain(&error.to_string(), exit::USAGE),
    }
}
