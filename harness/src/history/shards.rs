//! What a run folder says of the shards that drove the run together: which one it holds, or which ones were merged in it.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recorder::{EVENTS_FILE, HISTORY_DIR, RUN_FILE, replace, write_json};
use super::{Event, HistoryError, Machine, RunInfo};

/// Which of several generators recorded this folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardInfo {
    /// Its number, from 1. The first one is the leader: it alone sets up the sale and audits it.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// What became of one shard in a merged run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MergedShard {
    /// Its number, from 1.
    pub index: u32,
    /// How it ended: as [`super::Closed::how`] says, else `killed`, or `missing` where no folder was given.
    pub ended: String,
    /// Arrivals in its slice of the schedule.
    pub planned: u64,
    /// How many of those its history tells of, sent or dropped.
    pub recorded: u64,
    /// What was wrong with its history.
    #[serde(default)]
    pub damage: Vec<String>,
    /// The machine that drove it; none if it is missing.
    pub machine: Option<Machine>,
}

impl MergedShard {
    /// Arrivals of its slice that the history does not tell of: the gap.
    pub fn gap(&self) -> u64 {
        self.planned.saturating_sub(self.recorded)
    }
}

/// What a history cannot tell because of its shards; each line is a kind of damage, and absence then proves nothing.
pub(super) fn untold(info: &RunInfo) -> Vec<String> {
    let mut untold = Vec::new();
    if let Some(ShardInfo { index, count }) = info.shard {
        untold.push(format!(
            "it is that of shard {index} of {count} alone: `seckill merge DIR... --out RUN` puts the shards together"
        ));
    }
    for shard in &info.merged {
        let (index, count, gap) = (shard.index, info.merged.len(), shard.gap());
        untold.extend(shard.damage.iter().map(|damage| format!("shard {index} of {count}: {damage}")));
        if gap > 0 {
            untold.push(format!(
                "shard {index} of {count} is {}, and {gap} of its {} planned arrivals are not in the history",
                if shard.ended == "missing" { "missing".to_owned() } else { format!("incomplete ({})", shard.ended) },
                shard.planned
            ));
        }
    }
    untold
}

/// Makes a run folder of files that were recorded elsewhere: `copies` by their names, parts of the history in their order,
/// and events. What is copied stays as it is, so that the seals of the parts go on holding; `run.json` comes last, so that a
/// folder that was not finished is no run.
///
/// # Errors
/// The folder holds a run already, or a file cannot be copied or written.
pub fn assemble(
    run_dir: &Path,
    info: &RunInfo,
    events: &[Event],
    parts: &[PathBuf],
    copies: &[PathBuf],
) -> Result<(), HistoryError> {
    let history = run_dir.join(HISTORY_DIR);
    for taken in [run_dir.join(RUN_FILE), run_dir.join(EVENTS_FILE), history.clone()] {
        if taken.exists() {
            return Err(HistoryError::Occupied { path: taken });
        }
    }
    fs::create_dir_all(&history).map_err(|e| HistoryError::write(&history, e))?;
    for (from, name) in copies.iter().filter_map(|from| Some((from, from.file_name()?))) {
        let to = run_dir.join(name);
        fs::copy(from, &to).map_err(|e| HistoryError::write(&to, e))?;
    }
    for (part, number) in parts.iter().zip(1_u32..) {
        let to = history.join(format!("ops-{number:05}.parquet"));
        fs::copy(part, &to).map_err(|e| HistoryError::write(&to, e))?;
    }
    let path = run_dir.join(EVENTS_FILE);
    let written = replace(&path, |file| {
        let mut file = BufWriter::new(file);
        for event in events {
            serde_json::to_writer(&mut file, event)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    });
    written.map_err(|e| HistoryError::write(&path, e))?;
    write_json(&run_dir.join(RUN_FILE), info)
}
