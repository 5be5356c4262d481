//! Puts the shards of a run together: from the folders that several generators recorded to one run folder like any other.
//!
//! Folders that do not belong together are refused. A shard that is missing, was killed or was cut short is no mistake but
//! a declared gap: the merged run says how many planned arrivals it does not tell of, and its verdict is at best unknown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::history::INTENTS_PER_ARRIVAL;
use crate::history::audit::{AUDIT_FILE, LEDGER_FILE, PAYMENTS_FILE, read_audit};
use crate::history::{
    self, Closed, Event, FinalState, History, HistoryError, LoadTotals, MergedShard, Outcome, RunInfo, ShardInfo,
    reader,
};
use crate::load::slice::Slice;
use crate::scenario::{self, Loaded, Scenario, ScenarioError};

mod clocks;
pub mod events;

/// The scenario as it was run, in every run folder.
const SCENARIO_FILE: &str = "scenario.toml";

/// Why shards cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A folder holds no shard.
    #[error("{} is a run by one generator, not a shard\nhelp: give the folders that `seckill run --shard` recorded", path.display())]
    NotAShard {
        /// Its `run.json`.
        path: PathBuf,
    },
    /// Two folders are of different runs.
    #[error(
        "{} and {} do not belong together: {what} is {there} in the one and {here} in the other\nhelp: give the folders \
         of one run",
        first.display(),
        path.display()
    )]
    Different {
        /// The file that the others are held against.
        first: PathBuf,
        /// The file that differs.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As the first file says it.
        there: String,
        /// As the other one does.
        here: String,
    },
    /// Two folders hold the same shard.
    #[error("{} and {} both hold shard {index}\nhelp: give each shard once", first.display(), path.display())]
    Twice {
        /// The one folder.
        first: PathBuf,
        /// The other.
        path: PathBuf,
        /// The shard's number.
        index: u32,
    },
    /// A shard holds what is not of its slice, or this version plans the scenario differently.
    #[error("{}: {why}\nhelp: {help}", path.display())]
    OffPlan {
        /// The folder.
        path: PathBuf,
        /// What does not fit.
        why: String,
        /// The remedy.
        help: &'static str,
    },
    /// A file cannot be read, copied or written.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The scenario cannot be read.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Another file cannot be read.
    #[error("{}: {source}\nhelp: is this a run folder?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A folder with one shard of the run.
struct Shard {
    folder: PathBuf,
    index: u32,
    info: RunInfo,
}

/// What the shards came to together.
struct Together {
    merged: Vec<MergedShard>,
    events: Vec<events::OfShard>,
    totals: LoadTotals,
    ops: u64,
    ops_lost: u64,
}

/// Makes one run folder of the folders of its shards. The verdict is not among what it writes: see [`crate::judge`].
///
/// # Errors
/// The folders do not belong together, or a file cannot be read or written. Nothing that could be taken for a run is left.
pub fn merge(folders: &[PathBuf], out: &Path) -> Result<(), MergeError> {
    let shards = belonging_together(folders)?;
    let first = &shards[0];
    let Loaded { scenario, attached, .. } = planned_scenario(first)?;
    let leader = shards.iter().find(|shard| shard.index == 1);
    let audit = leader.and_then(|leader| read_audit(&leader.folder).ok().flatten());
    let mut together = put_together(&shards, &scenario, audit.as_ref())?;

    let count = together.merged.len();
    let note = format!("merged from {} of {count} shards", shards.len());
    let cut_short = together.merged.iter().find(|shard| shard.ended != "completed");
    let how = cut_short.map_or("completed".to_owned(), |shard| format!("shard {} {}", shard.index, shard.ended));
    let mut events = events::merge(&together.events, together.totals);
    events.push(Event::Note { at_us: first.info.duration_us, text: note });
    let info = RunInfo {
        closed: Some(Closed { how, ops: together.ops, ops_lost: together.ops_lost, events: Some(events.len() as u64) }),
        shard: None,
        merged: std::mem::take(&mut together.merged),
        ..first.info.clone()
    };
    // The leader's audit is copied as it is, whatever is wrong with it: judging will tell.
    let mut copies = vec![first.folder.join(SCENARIO_FILE)];
    copies.extend(attached.iter().map(|file| first.folder.join(&file.name)));
    let audits = leader
        .into_iter()
        .flat_map(|leader| [LEDGER_FILE, PAYMENTS_FILE, AUDIT_FILE].map(|name| leader.folder.join(name)));
    copies.extend(audits.filter(|file| file.exists()));
    Ok(history::assemble(out, &info, &events, &in_turns(&shards), &copies)?)
}

/// The parts of all shards, the first of each, then the second of each: about in the order in which they were recorded.
fn in_turns(shards: &[Shard]) -> Vec<PathBuf> {
    let mut parts: Vec<(usize, u32, PathBuf)> = Vec::new();
    for shard in shards {
        let own = reader::parts(&shard.folder).into_iter().enumerate();
        parts.extend(own.map(|(position, path)| (position, shard.index, path)));
    }
    parts.sort();
    parts.into_iter().map(|(.., path)| path).collect()
}

/// The shards in the order of their numbers, if they are shards of one run and each is there once.
fn belonging_together(folders: &[PathBuf]) -> Result<Vec<Shard>, MergeError> {
    let mut shards: Vec<Shard> = Vec::new();
    for folder in folders {
        let info = reader::read_info(folder)?;
        let path = folder.join(history::recorder::RUN_FILE);
        let Some(ShardInfo { index, .. }) = info.shard else { return Err(MergeError::NotAShard { path }) };
        if let Some(first) = shards.first() {
            same_run(first, &Shard { folder: folder.clone(), index, info: info.clone() })?;
        }
        if let Some(twin) = shards.iter().find(|shard| shard.index == index) {
            return Err(MergeError::Twice { first: twin.folder.clone(), path: folder.clone(), index });
        }
        shards.push(Shard { folder: folder.clone(), index, info });
    }
    shards.sort_by_key(|shard| shard.index);
    Ok(shards)
}

/// Whether two shards are of one run.
fn same_run(first: &Shard, other: &Shard) -> Result<(), MergeError> {
    let facts = |info: &RunInfo| {
        [
            ("the scenario", info.scenario.clone()),
            ("the seed", info.seed.to_string()),
            ("the schedule's hash", info.schedule_hash.clone()),
            ("the start (in Unix microseconds)", info.epoch_unix_us.to_string()),
            ("the number of shards", info.shard.as_ref().map_or(0, |shard| shard.count).to_string()),
            ("the run's id", info.run_id.clone()),
        ]
    };
    for ((what, there), (_, here)) in facts(&first.info).into_iter().zip(facts(&other.info)) {
        if there != here {
            let file = |shard: &Shard| shard.folder.join(history::recorder::RUN_FILE);
            return Err(MergeError::Different { first: file(first), path: file(other), what, there, here });
        }
    }
    let read = |shard: &Shard| {
        let path = shard.folder.join(SCENARIO_FILE);
        std::fs::read_to_string(&path).map_err(|source| MergeError::File { path, source })
    };
    let (there, here) = (read(first)?, read(other)?);
    if there == here {
        return Ok(());
    }
    // Where one text is only the beginning of the other, the line after it is what differs.
    let line = there.lines().zip(here.lines()).take_while(|(there, here)| there == here).count();
    let quoted = |text: &str| format!("`{}`", text.lines().nth(line).unwrap_or("(nothing)"));
    Err(MergeError::Different {
        first: first.folder.join(format!("{SCENARIO_FILE}:{}", line + 1)),
        path: other.folder.join(format!("{SCENARIO_FILE}:{}", line + 1)),
        what: "the line",
        there: quoted(&there),
        here: quoted(&here),
    })
}

/// The scenario of the run, if this version plans it as the one that ran it did.
fn planned_scenario(shard: &Shard) -> Result<Loaded, MergeError> {
    let loaded = scenario::load(&shard.folder.join(SCENARIO_FILE), &[], None)?;
    if loaded.scenario.plan().count_and_hash().1 != shard.info.schedule_hash {
        return Err(MergeError::OffPlan {
            path: shard.folder.join(SCENARIO_FILE),
            why: "its schedule is not the one whose hash is in run.json, so what is missing cannot be told".to_owned(),
            help: "merge with the version of seckill that ran the shards",
        });
    }
    Ok(loaded)
}

/// Reads the shards one after the other, and keeps what the merged run says of them.
fn put_together(shards: &[Shard], scenario: &Scenario, audit: Option<&FinalState>) -> Result<Together, MergeError> {
    let count = shards[0].info.shard.as_ref().map_or(1, |shard| shard.count);
    let stamps = audit.map(|audit| clocks::Stamps::of(audit, &shards[0].info));
    let mut together =
        Together { merged: Vec::new(), events: Vec::new(), totals: LoadTotals::default(), ops: 0, ops_lost: 0 };
    for slice in (1..=count).filter_map(|index| Slice::new(index, count)) {
        let index = slice.index();
        let planned = slice.of(scenario.plan()).count() as u64;
        together.totals.planned += planned;
        let Some(shard) = shards.iter().find(|shard| shard.index == index) else {
            let ended = "missing".to_owned();
            let missing = MergedShard { index, ended, planned, recorded: 0, damage: Vec::new(), machine: None };
            together.merged.push(missing);
            continue;
        };
        let mut history = reader::read_shard(&shard.folder)?;
        let arrivals = Recorded::of(&history, slice, &shard.folder)?;
        together.add_totals(&history, &arrivals);
        if let Some(stamps) = &stamps {
            let why = stamps.too_late(&history, scenario).into_iter().chain(stamps.clock_off(&history, scenario));
            let why: Vec<Event> = why.map(|why| Event::Distrust { at_us: shard.info.duration_us, why }).collect();
            history.events.extend(why);
        }
        let closed = history.info.closed.as_ref();
        together.ops += history.ops.len() as u64;
        together.ops_lost += closed.map_or(0, |closed| closed.ops_lost);
        together.merged.push(MergedShard {
            index,
            ended: closed.map_or("killed".to_owned(), |closed| closed.how.clone()),
            planned,
            recorded: arrivals.sent + arrivals.dropped,
            damage: history.damage,
            machine: Some(history.info.machine),
        });
        together.events.push((index, history.events));
    }
    Ok(together)
}

impl Together {
    /// Adds what a shard's generator counted; where it was killed before it could, what its history tells.
    ///
    /// Processor time is that of the busiest generator: it tells whether one of them was too busy to be on time. What all
    /// of them used together is among the costs.
    fn add_totals(&mut self, history: &History, arrivals: &Recorded) {
        let counted = LoadTotals { sent: arrivals.sent, dropped: arrivals.dropped, ..LoadTotals::default() };
        let own = events::totals(&history.events).unwrap_or(&counted);
        let sum = &mut self.totals;
        sum.sent += own.sent;
        sum.dropped += own.dropped;
        sum.generator_cpu_s = sum.generator_cpu_s.max(own.generator_cpu_s);
        sum.generator_wait_s = sum.generator_wait_s.max(own.generator_wait_s);
        sum.busy_max += own.busy_max;
        sum.buyers += own.buyers;
        for (cohort, suppressed) in &own.retries_suppressed {
            *sum.retries_suppressed.entry(cohort.clone()).or_default() += suppressed;
        }
    }
}

/// Arrivals that a shard's history tells of.
struct Recorded {
    sent: u64,
    dropped: u64,
}

impl Recorded {
    fn of(history: &History, slice: Slice, folder: &Path) -> Result<Recorded, MergeError> {
        let (mut sent, mut dropped) = (BTreeSet::new(), BTreeSet::new());
        for op in &history.ops {
            let arrival = op.intent / INTENTS_PER_ARRIVAL;
            if !slice.has_number(arrival) {
                return Err(MergeError::OffPlan {
                    path: folder.to_owned(),
                    why: format!("it holds arrival {arrival}, which is not of shard {slice}"),
                    help: "give the folder as the shard recorded it",
                });
            }
            let of = if op.outcome == Outcome::Dropped { &mut dropped } else { &mut sent };
            of.insert(arrival);
        }
        Ok(Recorded { sent: sent.len() as u64, dropped: dropped.len() as u64 })
    }
}
