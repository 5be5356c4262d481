//! The audited final state in the run folder: `audit.json`, and beside it the ledger, one JSON line per row.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::recorder::{replace, write_json};
use super::{FinalState, HistoryError, LedgerEntry};

/// The file with everything of the audit but the ledger.
pub const AUDIT_FILE: &str = "audit.json";
/// The file with the ledger.
pub const LEDGER_FILE: &str = "ledger.jsonl";

const REMEDY: &str = "without its audit, the run can only be judged in part; make it again for the rest";

/// `audit.json`: how many rows the ledger must have, since a ledger cut short would look like lost orders.
#[derive(Serialize)]
struct AuditOut<'a> {
    ledger_rows: usize,
    state: &'a FinalState,
}

/// The same when reading; files made by hand may leave the count out.
#[derive(Deserialize)]
struct AuditIn {
    ledger_rows: Option<usize>,
    state: FinalState,
}

/// Writes the audit into a run folder: the ledger first, so that an `audit.json` vouches for a whole ledger. Each file
/// gets its name only when it is whole.
pub fn write_audit(run_dir: &Path, state: &FinalState) -> Result<(), HistoryError> {
    let path = run_dir.join(LEDGER_FILE);
    replace(&path, |file| write_ledger(file, &state.ledger)).map_err(|e| HistoryError::write(&path, e))?;
    write_json(&run_dir.join(AUDIT_FILE), &AuditOut { ledger_rows: state.ledger.len(), state })
}

fn write_ledger(file: &File, ledger: &[LedgerEntry]) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    for entry in ledger {
        serde_json::to_writer(&mut file, entry)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// Reads the audit of a run; none if there was none.
///
/// Unlike a damaged history, a damaged audit is an error: a ledger with rows missing would accuse the service of
/// having lost orders.
pub fn read_audit(run_dir: &Path) -> Result<Option<FinalState>, HistoryError> {
    let path = run_dir.join(AUDIT_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(HistoryError::read(&path, e)),
    };
    let malformed = |path: &Path, line, why| HistoryError::Malformed { path: path.into(), line, why, remedy: REMEDY };
    let audit: AuditIn = serde_json::from_slice(&text).map_err(|e| malformed(&path, 0, e.to_string()))?;
    let mut state = audit.state;

    let path = run_dir.join(LEDGER_FILE);
    let file = File::open(&path).map_err(|e| HistoryError::read(&path, e))?;
    for (index, line) in BufReader::with_capacity(1 << 20, file).split(b'\n').enumerate() {
        let line = line.map_err(|e| HistoryError::read(&path, e))?;
        if line.is_empty() {
            continue;
        }
        let entry = serde_json::from_slice(&line).map_err(|e| malformed(&path, index + 1, e.to_string()))?;
        state.ledger.push(entry);
    }
    if let Some(rows) = audit.ledger_rows
        && rows != state.ledger.len()
    {
        let why = format!("it has {} rows where {AUDIT_FILE} counts {rows}", state.ledger.len());
        return Err(malformed(&path, 0, why));
    }
    Ok(Some(state))
}
