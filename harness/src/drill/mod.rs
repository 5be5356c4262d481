//! Pre-sale rehearsals: a run with people around it. A drill's file says what has to be ready, what is expected to be seen and who
//! does what; the page and the terminal ask for it meanwhile, and the review tells what came of it.
//!
//! A drill is [`crate::run`] with a [`desk::Desk`] as its audience. Its folder is a run folder with more in it, and everything
//! right of the run (`score`, the review) can be made again from that folder, on another machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::{Output, complain, complain_of_run, folder_in, load, point_latest_at, print_result, refuse};
use crate::dry_run::Plan;
use crate::judge::{self, JudgeError};
use crate::kept::{Kept, KeptError};
use crate::progress::Progress;
use crate::report::{self, ReportError};
use crate::run;
use crate::scenario::{self, ScenarioError};
use crate::summary::Summary;
use crate::{exit, stdout};

pub mod desk;
pub mod file;
pub mod flow;
pub mod log;
pub mod page;
pub mod score;
pub mod screen;
pub mod terminal;

use desk::{Checked, Desk};
use file::{Check, Drill};
use page::Page;
use score::Score;
use screen::Screen;

/// The scores that a drill's folder holds.
pub const KEPT: Kept = Kept { file: "drill.json", maker: "seckill drill" };
/// The drill as it was held, in its folder.
pub const FILE: &str = "drill.toml";
/// Where the folders of drills are.
const HOME: &str = "reports/drills";
/// How long a command of the checklist may take.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
/// So much of what it prints is kept as evidence.
const MOST_EVIDENCE: usize = 200;

/// Arguments of `seckill drill`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The drill's file; or drill.toml in the folder of a drill, which is then held again.
    drill: PathBuf,
    /// The drill's folder; by default reports/drills/<time>-<drill>.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Overrides the seed: of the load, of the faults, and of a surprise.
    #[arg(long)]
    seed: Option<u64>,
    /// Overrides a value of the scenario: PATH=VALUE, such as target.bug=4.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Nobody is asked to acknowledge anything.
    #[arg(long)]
    unattended: bool,
    /// Where the live page is; elsewhere than on loopback its address has a token. Port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The folder of the drill that this one is compared with; the latest of the same name beside it unless given.
    #[arg(long, value_name = "DIR")]
    previous: Option<PathBuf>,
    /// How the review is printed: text, or json for only JSON on stdout.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
    /// Says what the drill would do, checks its file and its scenario, and starts nothing: no command of the checklist either.
    #[arg(long)]
    dry_run: bool,
}

/// Why a drill's folder cannot be reviewed.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It has no drill that can be read.
    #[error(transparent)]
    Drill(#[from] ScenarioError),
    /// Its evidence cannot be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The scores cannot be kept, or not be read.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The review cannot be rendered.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// What people did cannot be read.
    #[error("{}: {source}\nhelp: is this the folder of a drill?", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Holds a drill; the exit code.
pub fn main(arguments: &Arguments, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) -> i32 {
    let read = match file::read(&arguments.drill, &arguments.set, arguments.seed, load) {
        Ok(read) => read,
        Err(error) => return refuse(&error),
    };
    if arguments.dry_run {
        let planned = Planned::of(&read);
        print_result(&planned, || planned.text(), arguments.output);
        return exit::PASS;
    }
    let checklist = match runtime.block_on(checked(&read.drill)) {
        Ok(checklist) => checklist,
        Err(blank) => return complain(&not_ready(&arguments.drill, &blank), exit::USAGE),
    };
    let folder = arguments.out.clone().unwrap_or_else(|| folder_in(Path::new(HOME), &read.drill.name));
    let held = stdout::kept_for_results(|| runtime.block_on(hold(arguments, &read, checklist, &folder, cancel)));
    match held {
        Ok((score, summary)) => {
            if arguments.out.is_none() {
                point_latest_at(&folder);
            }
            print(&score, &summary, &folder, arguments.output);
            score.exit_code
        }
        Err(code) => code,
    }
}

/// What a drill would do.
#[derive(Debug, serde::Serialize)]
struct Planned {
    drill: String,
    checklist: Vec<String>,
    expectations: Vec<String>,
    runbook: Vec<String>,
    /// Whether the faults are kept from those who take part.
    surprise: bool,
    run: Plan,
}

impl Planned {
    fn of(read: &file::Read) -> Planned {
        let drill = &read.drill;
        let check = |check: &Check| {
            let shown = match &check.command {
                Some(command) => format!("by `{command}`"),
                None if check.done.trim().is_empty() => "BLANK".to_owned(),
                None => format!("\"{}\"", check.done),
            };
            format!("{} ({}): {}: {shown}", check.id, check.owner, check.text)
        };
        let expect = |expect: &file::Expectation| {
            let back =
                expect.back_within.map_or(String::new(), |within| format!(", gone within {within} of its healing"));
            format!("{}: {} within {} of {}{back}", expect.id, expect.signal(), expect.within, expect.after)
        };
        let step = |step: &file::Step| {
            let due = step
                .at
                .map_or_else(|| format!("after {}", step.after.as_deref().unwrap_or("-")), |at| format!("at {at}"));
            format!("{} ({}): {due}, within {}: {}", step.id, step.owner, step.within, step.text)
        };
        Planned {
            drill: drill.name.clone(),
            checklist: drill.check.iter().map(check).collect(),
            expectations: drill.expect.iter().map(expect).collect(),
            runbook: drill.runbook.iter().map(step).collect(),
            surprise: drill.surprise.is_some(),
            run: Plan::of(&read.loaded.scenario),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("drill {}", self.drill)];
        for (title, list) in
            [("checklist", &self.checklist), ("expected", &self.expectations), ("runbook", &self.runbook)]
        {
            lines.push(format!("{title}:"));
            lines.extend(list.iter().map(|line| format!("  {line}")));
        }
        if self.surprise {
            lines.push("The faults below are a surprise: those who take part should not read on.".to_owned());
        }
        lines.push(String::new());
        lines.push(self.run.text());
        lines.join("\n")
    }
}

/// Runs the scenario before the desk, and reviews what came of it; or gives the exit code of what kept it from that.
async fn hold(
    arguments: &Arguments,
    read: &file::Read,
    checklist: Vec<Checked>,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<(Score, Summary), i32> {
    let file::Read { drill, loaded, resolved } = read;
    let attended = !arguments.unattended;
    // One that failed to start has left its drill there, and no run.
    if folder.join("run.json").exists() {
        return Err(complain_of_run(loaded, &run::RunError::Taken { path: folder.to_owned() }));
    }
    // Before anything is written: another port, and the same command works.
    let unheard = |error| {
        let what = format!("cannot listen on {}: {error}", arguments.listen);
        complain(&format!("{what}\nhelp: --listen 127.0.0.1:0 lets the kernel choose a port"), exit::NO_STACK)
    };
    let listener = TcpListener::bind(arguments.listen).await.map_err(unheard)?;
    let unwritable = |source| complain_of_run(loaded, &run::RunError::Unwritable { path: folder.to_owned(), source });
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    std::fs::write(folder.join(FILE), resolved).map_err(unwritable)?;
    let desk = Desk::open(drill, &loaded.scenario, checklist, attended, folder).map_err(unwritable)?;
    let desk = Arc::new(desk);
    let page = Page::serve(desk.clone(), listener).map_err(unheard)?;
    // Whoever holds it cannot do without the address, however quiet it is to be.
    eprintln!("live page: {}", page.url);
    if attended {
        terminal::listen(desk.clone());
    }
    let screen = if arguments.quiet { None } else { Screen::open() };
    let progress = Progress::new(arguments.quiet || screen.is_some()).before(desk.clone());
    let drawing = async {
        match &screen {
            Some(screen) => screen.keep_drawing(&desk).await,
            None => std::future::pending().await,
        }
    };
    let notice = |line: &str| eprintln!("{line}");
    let finished = tokio::select! {
        finished = run::run(loaded, folder, &progress, cancel) => finished,
        () = desk.keep_ticking(notice) => unreachable!("the desk ticks until it is dropped"),
        () = desk.keep_reading() => unreachable!("so does its look at the meters"),
        () = drawing => unreachable!("so does the screen"),
    };
    drop(screen);
    let reviewed = match finished {
        Ok(finished) => {
            let previous = previous(arguments.previous.as_deref(), folder, &drill.name);
            let score = review(folder, &finished.summary, previous.as_ref());
            score.map(|score| (score, finished.summary)).map_err(|error| complain(&error.to_string(), exit::INTERNAL))
        }
        Err(error) => Err(complain_of_run(loaded, &error)),
    };
    desk.judged(match &reviewed {
        Ok((score, _)) => format!("{}: exit code {}", verdict(score), score.exit_code),
        Err(code) => format!("not judged: exit code {code}"),
    });
    page.end().await;
    reviewed
}

fn verdict(score: &Score) -> &'static str {
    use crate::check::Verdict;
    match score.verdict {
        Verdict::Pass => "passed",
        Verdict::Unknown => "unknown",
        Verdict::Fail => "failed",
    }
}

/// Scores the drill in a folder, whose run was judged, and writes its review there.
///
/// # Errors
/// Its evidence cannot be read, or a file cannot be written.
pub fn review(folder: &Path, summary: &Summary, previous: Option<&Score>) -> Result<Score, ReviewError> {
    let drill = file::read(&folder.join(FILE), &[], None, scenario::load_variant)?.drill;
    let path = folder.join(log::FILE);
    let entries = log::read(folder).map_err(|source| ReviewError::Log { path, source })?;
    let (history, _) = judge::read(folder).map_err(JudgeError::from)?;
    // What it was compared with when it was held is kept, wherever the folder is now.
    let kept = KEPT.read::<Score>(folder)?.and_then(|score| score.previous);
    let mut score = score::score(&drill, &entries, &history, summary, previous);
    score.previous = score.previous.or(kept);
    save(folder, &score, summary)?;
    Ok(score)
}

/// Renders the review of a drill's folder again, from its scores; none if it is not the folder of a drill.
///
/// # Errors
/// A file cannot be read or written.
pub fn render(folder: &Path) -> Result<Option<(Score, Summary)>, ReviewError> {
    let Some(score) = KEPT.read::<Score>(folder)? else { return Ok(None) };
    let summary = judge::read_summary(folder)?;
    judge::report(folder, &summary)?;
    save(folder, &score, &summary)?;
    Ok(Some((score, summary)))
}

fn save(folder: &Path, score: &Score, summary: &Summary) -> Result<(), ReviewError> {
    let markdown = report::drill::markdown(score, summary);
    let html = report::drill::html(score, summary)?;
    Ok(KEPT.write(folder, score, &[("review.md", markdown.into_bytes()), ("review.html", html.into_bytes())])?)
}

/// Prints the review.
pub fn print(score: &Score, summary: &Summary, folder: &Path, output: Output) {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(score).unwrap_or_default()),
        Output::Text => {
            println!("{}", report::drill::markdown(score, summary));
            println!("review: {}", folder.join("review.html").display());
        }
    }
}

/// The scores of a drill to compare with: that of the folder, or of the latest one of the same name beside this one.
fn previous(named: Option<&Path>, folder: &Path, name: &str) -> Option<Score> {
    if let Some(named) = named {
        return KEPT.read(named).unwrap_or_else(|error| {
            tracing::warn!("{error}; this drill is compared with none");
            None
        });
    }
    let here = Path::new(".").join(folder);
    let beside = std::fs::read_dir(here.parent()?).ok()?.flatten().map(|entry| entry.path());
    let others = beside.filter(|path| *path != here && !path.is_symlink());
    let scores = others.filter_map(|path| KEPT.read::<Score>(&path).ok().flatten());
    scores.filter(|score| score.drill == name).max_by(|a, b| a.started_at.cmp(&b.started_at))
}

/// A line of the checklist without evidence, and why.
struct Blank<'a> {
    check: &'a Check,
    why: String,
}

/// Goes through the checklist; gives every line that is blank, if one is.
async fn checked(drill: &Drill) -> Result<Vec<Checked>, Vec<Blank<'_>>> {
    let (mut done, mut blank) = (Vec::new(), Vec::new());
    for check in &drill.check {
        let evidence = match &check.command {
            Some(command) => shown_by(command).await,
            None if check.done.trim().is_empty() => Err("`done` is blank".to_owned()),
            None => Ok(check.done.clone()),
        };
        match evidence {
            Ok(evidence) => done.push(Checked {
                id: check.id.clone(),
                text: check.text.clone(),
                owner: check.owner.clone(),
                evidence,
            }),
            Err(why) => blank.push(Blank { check, why }),
        }
    }
    if blank.is_empty() { Ok(done) } else { Err(blank) }
}

/// Runs a command of the checklist; the last line that it prints, or why it shows nothing.
async fn shown_by(command: &str) -> Result<String, String> {
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CHECK_LIMIT, shell.output()).await;
    let output = output.map_err(|_| format!("`{command}` took longer than {CHECK_LIMIT:?}"))?;
    let output = output.map_err(|error| format!("`{command}` cannot be run: {error}"))?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.trim().chars().filter(|c| !c.is_control()).take(MOST_EVIDENCE).collect::<String>()
    };
    if !output.status.success() {
        return Err(format!("`{command}` ended with {}: {}", output.status, last(&output.stderr)));
    }
    let said = last(&output.stdout);
    Ok(if said.is_empty() { format!("`{command}` ended with 0") } else { format!("`{command}`: {said}") })
}

/// What is told of a checklist with blanks.
fn not_ready(path: &Path, blank: &[Blank<'_>]) -> String {
    let mut out = format!("{}: the release checklist is not done, so the drill does not start", path.display());
    for Blank { check, why } in blank {
        out.push_str(&format!("\n  {} ({}): {}\n    {why}", check.id, check.owner, check.text));
    }
    out.push_str(
        "\nhelp: write into `done` of each [[check]] what shows that it is so, or mend what its `command` looks at",
    );
    out
}
