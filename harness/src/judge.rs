//! From a recorded run to its verdict and reports. Everything here can be done again, months later, on another machine.

use std::path::{Path, PathBuf};

use crate::check::{self, Evidence};
use crate::history::audit::read_audit;
use crate::history::{FinalState, History, HistoryError, reader};
use crate::measure;
use crate::report::{Html, Junit, Markdown, Render, ReportError};
use crate::scenario::{self, ScenarioError};
use crate::summary::Summary;

/// Why a recorded run cannot be judged or rendered.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Its history cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Its scenario cannot be read.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A report cannot be rendered.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file of the run folder cannot be read or written.
    #[error("{}: {source}\nhelp: is this a run folder, and is there space left?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The summary is not one of ours.
    #[error("{}: {source}\nhelp: `seckill check RUN` writes it anew from the history", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
}

/// The history and the audit of a run, read side by side. An audit that cannot be used is noted among the damage, and the
/// run judged without it: half a ledger would accuse the service of having lost orders.
///
/// # Errors
/// There is no history that can be read.
pub fn read(folder: &Path) -> Result<(History, Option<FinalState>), HistoryError> {
    let (history, audit) = std::thread::scope(|scope| {
        let audit = scope.spawn(|| read_audit(folder));
        (reader::read(folder), audit.join().expect("reading an audit does not panic"))
    });
    let mut history = history?;
    let audit = audit.unwrap_or_else(|error| {
        history.damage.push(format!("the audit cannot be used: {error}"));
        None
    });
    Ok((history, audit))
}

/// Judges the recorded run in `folder`, whose history and audit were read, from its evidence alone.
///
/// # Errors
/// The evidence cannot be read at all; damage to parts of it is no error but makes the verdict unknown.
pub fn judge(folder: &Path, history: &History, audit: Option<FinalState>) -> Result<Summary, JudgeError> {
    let scenario = scenario::load(&folder.join("scenario.toml"), &[], None)?.scenario;
    let rules = scenario.rules();
    let evidence = Evidence { history, audit: audit.as_ref(), rules: &rules };
    let findings = check::judge(&evidence);
    let slos: Vec<_> = scenario.slo.iter().map(|slo| slo.get_ref().clone()).collect();
    let mut summary = measure::summarize(history, audit.as_ref(), &rules, findings, &slos, &scenario.title);
    summary.latency.step_order = scenario.step_order();
    Ok(summary)
}

/// Judges a run, and writes its summary and all reports into its folder.
///
/// # Errors
/// The evidence cannot be read, or a file cannot be written.
pub fn judge_and_report(folder: &Path) -> Result<Summary, JudgeError> {
    let (history, audit) = read(folder)?;
    let summary = judge(folder, &history, audit)?;
    let json = serde_json::to_vec_pretty(&summary)
        .map_err(|source| JudgeError::Summary { path: folder.join("summary.json"), source })?;
    write(&folder.join("summary.json"), &json)?;
    measure::hlog::save(folder, &history)?;
    report(folder, &summary)?;
    Ok(summary)
}

/// Renders the reports of a summary into its folder.
///
/// # Errors
/// A file cannot be written.
pub fn report(folder: &Path, summary: &Summary) -> Result<(), JudgeError> {
    write(&folder.join("report.html"), &Html.render(summary)?)?;
    write(&folder.join("report.md"), &Markdown.render(summary)?)?;
    write(&folder.join("junit.xml"), &Junit.render(summary)?)
}

/// The summary that a run folder holds.
///
/// # Errors
/// It is missing or not one of ours.
pub fn read_summary(folder: &Path) -> Result<Summary, JudgeError> {
    let path = folder.join("summary.json");
    let bytes = std::fs::read(&path).map_err(|source| JudgeError::File { path: path.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| JudgeError::Summary { path, source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), JudgeError> {
    std::fs::write(path, bytes).map_err(|source| JudgeError::File { path: path.to_owned(), source })
}
