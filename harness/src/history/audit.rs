//! The audited final state in the run folder: `audit.json`, and beside it the ledger and the books of the payment dependency,
//! one JSON line per row.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::recorder::{replace, write_json};
use super::{FinalState, HistoryError};

/// The file with everything of the audit but the ledger.
pub const AUDIT_FILE: &str = "audit.json";
/// The file with the ledger.
pub const LEDGER_FILE: &str = "ledger.jsonl";
/// The file with the books of the payment dependency, where there is one.
pub const PAYMENTS_FILE: &str = "payments.jsonl";

const REMEDY: &str = "without its audit, the run can only be judged in part; make it again for the rest";

/// `audit.json`: how many rows the ledger must have, since a ledger cut short would look like lost orders.
#[derive(Serialize)]
struct AuditOut<'a> {
    ledger_rows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_rows: Option<usize>,
    state: &'a FinalState,
}

/// The same when reading; files made by hand may leave the count out.
#[derive(Deserialize)]
struct AuditIn {
    ledger_rows: Option<usize>,
    payment_rows: Option<usize>,
    state: FinalState,
}

/// Writes the audit into a run folder: the rows first, so that an `audit.json` vouches for whole files of them. Each file
/// gets its name only when it is whole.
pub fn write_audit(run_dir: &Path, state: &FinalState) -> Result<(), HistoryError> {
    let write = |name: &str, rows: &dyn Fn(&File) -> io::Result<()>| {
        let path = run_dir.join(name);
        replace(&path, |file| rows(file)).map_err(|e| HistoryError::write(&path, e))
    };
    write(LEDGER_FILE, &|file| write_rows(file, &state.ledger))?;
    if let Some(payments) = &state.payments {
        write(PAYMENTS_FILE, &|file| write_rows(file, payments))?;
    }
    let payment_rows = state.payments.as_ref().map(Vec::len);
    write_json(&run_dir.join(AUDIT_FILE), &AuditOut { ledger_rows: state.ledger.len(), payment_rows, state })
}

fn write_rows<T: Serialize>(file: &File, rows: &[T]) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    for row in rows {
        serde_json::to_writer(&mut file, row)?;
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
    let audit: AuditIn = serde_json::from_slice(&text).map_err(|e| malformed(&path, 0, e.to_string()))?;
    let mut state = audit.state;
    state.ledger = read_rows(&run_dir.join(LEDGER_FILE), audit.ledger_rows)?;
    if let Some(rows) = audit.payment_rows {
        state.payments = Some(read_rows(&run_dir.join(PAYMENTS_FILE), Some(rows))?);
    }
    Ok(Some(state))
}

fn malformed(path: &Path, line: usize, why: String) -> HistoryError {
    HistoryError::Malformed { path: path.into(), line, why, remedy: REMEDY }
}

/// The rows of a file, which has to have as many as were counted when it was written.
fn read_rows<T: DeserializeOwned>(path: &Path, counted: Option<usize>) -> Result<Vec<T>, HistoryError> {
    let file = File::open(path).map_err(|e| HistoryError::read(path, e))?;
    let mut rows = Vec::new();
    for (index, line) in BufReader::with_capacity(1 << 20, file).split(b'\n').enumerate() {
        let line = line.map_err(|e| HistoryError::read(path, e))?;
        if line.is_empty() {
            continue;
        }
        rows.push(serde_json::from_slice(&line).map_err(|e| malformed(path, index + 1, e.to_string()))?);
    }
    match counted {
        Some(counted) if counted != rows.len() => {
            let why = format!("it has {} rows where {AUDIT_FILE} counts {counted}", rows.len());
            Err(malformed(path, 0, why))
        }
        _ => Ok(rows),
    }
}
