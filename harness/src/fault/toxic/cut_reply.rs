//! Cut reply, for Postgres: the statement takes effect and its reply never arrives.

use rand_chacha::ChaCha8Rng;

use super::cutter::{Cutter, Judge};
use super::pick::Picker;
use super::{ArmedToxic, Direction, LinkToxic, Wrong};
use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::ReplyPart;

/// Which replies of Postgres are to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutPoint {
    /// Those that say that something was committed: of a `COMMIT` that did commit, and of a statement outside a transaction
    /// that wrote at least one row. A function called by `SELECT` cannot be told from a query; name it with `Statement`.
    Commit,
    /// Those of calls with a statement whose text contains this (of the first kilobyte of it), unless they report an error.
    /// Within a transaction nothing is committed by then.
    Statement {
        /// The text to look for, case-sensitive.
        contains: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct CutReply {
    pub(super) after: CutPoint,
    pub(super) picker: Picker,
}

impl ArmedToxic for CutReply {
    fn name(&self) -> &'static str {
        "cut_reply"
    }

    fn validate(&self) -> Result<(), Wrong> {
        self.picker.pick().validate()
    }

    fn needs(&self) -> Option<Protocol> {
        Some(Protocol::Postgres)
    }

    fn direction(&self, _asked: Direction) -> Direction {
        Direction::Down
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(Cutter::new(self.after.clone(), self.picker.clone(), rng))
    }
}

impl Judge for CutPoint {
    fn may_match(&self, reply: &ReplyPart) -> bool {
        match self {
            Self::Commit => true,
            Self::Statement { contains } => reply.texts.iter().any(|text| text.contains(contains.as_str())),
        }
    }

    fn matches(&self, reply: &ReplyPart) -> bool {
        match self {
            Self::Commit => reply.committed,
            Self::Statement { .. } => !reply.failed && self.may_match(reply),
        }
    }
}
