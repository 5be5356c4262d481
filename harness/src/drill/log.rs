//! `drill.jsonl`: what people and their monitoring did during a drill, one [`Entry`] in each line. With the run's own evidence
//! it is all that the scores rest on.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The file's name.
pub const FILE: &str = "drill.jsonl";

/// Something that happened. Times are wall-clock, in Unix microseconds; `run.json` tells when the load began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// The drill began.
    Opened {
        /// When.
        unix_us: i64,
        /// Whether people take part.
        attended: bool,
    },
    /// A line of the checklist was done.
    Checked {
        /// When.
        unix_us: i64,
        /// Its id.
        id: String,
        /// What shows it.
        evidence: String,
    },
    /// Somebody acknowledged a step of the runbook.
    Acknowledged {
        /// When.
        unix_us: i64,
        /// The step's id.
        id: String,
        /// Who, as they said; may be empty.
        by: String,
        /// `page` or `terminal`.
        via: String,
    },
    /// An alert came from the monitoring.
    Alert {
        /// When it was received.
        unix_us: i64,
        /// Its name.
        name: String,
        /// `firing` or `resolved`.
        status: String,
        /// What it says, for people.
        #[serde(default)]
        summary: String,
    },
    /// A meter of the service changed: `degrade_level`, or `breaker:DEPENDENCY`.
    Meter {
        /// When it was seen.
        unix_us: i64,
        /// Which.
        name: String,
        /// Its value.
        value: f64,
    },
    /// Somebody pressed stop.
    StopPressed {
        /// When.
        unix_us: i64,
        /// `page` or `terminal`.
        via: String,
    },
}

impl Entry {
    /// When it happened.
    pub fn unix_us(&self) -> i64 {
        match self {
            Entry::Opened { unix_us, .. }
            | Entry::Checked { unix_us, .. }
            | Entry::Acknowledged { unix_us, .. }
            | Entry::Alert { unix_us, .. }
            | Entry::Meter { unix_us, .. }
            | Entry::StopPressed { unix_us, .. } => *unix_us,
        }
    }
}

/// The file, open for writing.
#[derive(Debug)]
pub struct Log(Mutex<File>);

impl Log {
    /// Makes the file in a folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(folder: &Path) -> std::io::Result<Log> {
        Ok(Log(Mutex::new(File::create(folder.join(FILE))?)))
    }

    /// Writes an entry at once.
    pub fn write(&self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        if let Err(error) = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line) {
            tracing::error!("{FILE} cannot be written: {error}; acknowledgements are lost");
        }
    }
}

/// The entries of a drill's folder. What is no entry, such as a line that a killed harness left half, is left out.
///
/// # Errors
/// What the system says.
pub fn read(folder: &Path) -> std::io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(folder.join(FILE))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
