//! Which calls a toxic is about, in each of the protocols that are read.

use std::sync::Arc;

use super::RequestPattern;
use crate::fault::proxy::Protocol;

/// Which calls of a protocol a toxic is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallPattern {
    /// HTTP: requests.
    Request(RequestPattern),
    /// Postgres: statements.
    Statement(StatementPattern),
    /// Redis: commands.
    Command(CommandPattern),
}

/// Which statements of Postgres a toxic is about; the default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatementPattern {
    /// The word that the statement begins with, such as `COMMIT`, in any case.
    pub verb: Option<String>,
    /// A text that it contains, case-sensitive, within its first kilobyte.
    pub contains: Option<String>,
}

/// Which commands of Redis a toxic is about; the default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandPattern {
    /// The command, such as `EVALSHA`, in any case.
    pub name: Option<String>,
    /// A text that command and arguments contain, case-sensitive, within the first kilobyte.
    pub contains: Option<String>,
}

/// Whether a text begins with this word and contains that text.
fn fits(text: &str, word: Option<&str>, contains: Option<&str>) -> bool {
    let first = || text.split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| !word.is_empty());
    word.is_none_or(|word| first().is_some_and(|first| first.eq_ignore_ascii_case(word)))
        && contains.is_none_or(|contains| text.contains(contains))
}

impl StatementPattern {
    pub(super) fn fits(&self, text: &str) -> bool {
        fits(text, self.verb.as_deref(), self.contains.as_deref())
    }
}

impl CommandPattern {
    pub(super) fn fits(&self, text: &str) -> bool {
        fits(text, self.name.as_deref(), self.contains.as_deref())
    }
}

impl CallPattern {
    /// What a link must speak for such calls to exist.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Request(_) => Protocol::Http,
            Self::Statement(_) => Protocol::Postgres,
            Self::Command(_) => Protocol::Redis,
        }
    }

    /// Whether one of these calls is meant; they travel together.
    pub(super) fn matches(&self, texts: &[Arc<str>]) -> bool {
        texts.iter().any(|text| match self {
            Self::Request(request) => request.fits(text),
            Self::Statement(statement) => statement.fits(text),
            Self::Command(command) => command.fits(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_patterns_of_statements_and_commands() {
        let commit = StatementPattern { verb: Some("commit".into()), contains: None };
        assert!(commit.fits("COMMIT") && commit.fits(" Commit;") && !commit.fits("COMMIT_LOG") && !commit.fits(""));
        let insert = StatementPattern { verb: Some("INSERT".into()), contains: Some("orders".into()) };
        assert!(insert.fits("INSERT INTO orders VALUES (1)") && !insert.fits("INSERT INTO items VALUES (1)"));
        assert!(StatementPattern::default().fits(""));
        let decr = CommandPattern { name: Some("decr".into()), contains: Some("stock:".into()) };
        assert!(decr.fits("DECR stock:1") && !decr.fits("DECR price:1") && !decr.fits("DECRBY stock:1 2"));
    }
}
