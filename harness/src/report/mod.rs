//! What a run looks like to people and to other tools: bytes out of a [`Summary`], nothing else.
//!
//! The summary is the only input and a `Vec<u8>` the only output: no clock, no files, no printing. So a recorded run can
//! be rendered again months later, on another machine, and gives the same report. One format is one type.

use crate::summary::Summary;

mod blast;
pub mod capacity;
pub(crate) mod chart;
pub mod comparison;
mod curves;
pub mod drill;
pub mod forecast;
pub(crate) mod format;
mod html;
mod junit;
mod markdown;
mod shares;
mod terminal;
mod words;

pub use html::Html;
pub use junit::Junit;
pub use markdown::Markdown;
pub use terminal::Terminal;

/// A format of report.
pub trait Render {
    /// The report of a run, as the bytes of a file or of a terminal.
    ///
    /// # Errors
    /// Only if the format's own writer fails; nothing that a summary can contain makes it.
    fn render(&self, summary: &Summary) -> Result<Vec<u8>, ReportError>;
}

/// Why a report could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The page's template failed.
    #[error("the page could not be rendered: {0}")]
    Template(#[from] askama::Error),
    /// A chart could not be drawn.
    #[error("a chart could not be drawn: {0}")]
    Chart(String),
    /// The JUnit document could not be written.
    #[error("the JUnit document could not be written: {0}")]
    Junit(#[from] quick_junit::SerializeError),
}
