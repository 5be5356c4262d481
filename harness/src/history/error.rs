//! What can go wrong with the files of a history.

use std::io;
use std::path::{Path, PathBuf};

/// An error of writing or reading the files of a run.
///
/// Damage inside a history is not an error: the reader describes it in [`super::History::damage`].
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder already holds a run.
    #[error(
        "{path} already exists: the folder holds the evidence of another run; choose another folder with --out, or remove this one"
    )]
    Occupied {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}; {}", write_remedy(.source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The history's writer could not be started, or ended by itself.
    #[error("cannot start the writer of {path}: {source}; raise the limit of threads (ulimit -u)")]
    Thread {
        /// The folder of the history.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `run.json` is missing or unreadable, without which nothing else can be interpreted.
    #[error(
        "cannot read {path}: {source}; give the folder of a run, as `seckill run` printed it (by default reports/runs/latest)"
    )]
    NotARun {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}; check that the file exists and that its permissions allow it to be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there but does not hold what it should.
    #[error("{path}{}: {why}; {remedy}", line_suffix(*.line))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, where the file has lines; 0 otherwise.
        line: usize,
        /// What is wrong.
        why: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl HistoryError {
    /// A failure to write `path`.
    pub(crate) fn write(path: &Path, source: io::Error) -> HistoryError {
        HistoryError::Write { path: path.to_path_buf(), source }
    }

    /// A failure to read `path`.
    pub(crate) fn read(path: &Path, source: io::Error) -> HistoryError {
        HistoryError::Read { path: path.to_path_buf(), source }
    }
}

fn line_suffix(line: usize) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

/// What a person can do about a failure to write.
fn write_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on that file system, or choose a folder on another one with --out"
        }
        io::ErrorKind::FileTooLarge => "raise the limit of file sizes (ulimit -f), or choose another folder with --out",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "make the folder writable, or choose another one with --out"
        }
        _ => "check the folder and its file system, or choose another one with --out",
    }
}
