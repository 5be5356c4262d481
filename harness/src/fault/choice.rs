//! Which of the calls that could be struck are, as scenarios say it.

use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::toxic::Pick;
use crate::scenario::About;

/// What the first calls are counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// The first calls on the link since the injection.
    #[default]
    Link,
    /// The first calls of each connection since the injection.
    Connection,
}

/// Which of the matching calls are struck: every n-th, a share, or the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) every: u32,
    pub(super) share: Option<f64>,
    pub(super) first: Option<u64>,
    pub(super) of: Of,
}

impl Choice {
    pub(super) fn every(every: u32) -> Self {
        Self { every, share: None, first: None, of: Of::Link }
    }

    pub(super) fn pick(&self) -> Pick {
        match (self.first, self.share, self.of) {
            (Some(first), _, Of::Link) => Pick::First(first),
            (Some(first), _, Of::Connection) => Pick::FirstOfEach(first),
            (None, Some(share), _) => Pick::Share(share),
            (None, None, _) => NonZeroU64::new(self.every.into()).map_or(Pick::All, Pick::Every),
        }
    }

    /// The same in words: `1 request in 3`.
    pub(super) fn words(&self, what: &str, many: &str) -> String {
        match self.pick() {
            Pick::First(1) => format!("the first {what}"),
            Pick::First(n) => format!("the first {n} {many}"),
            Pick::FirstOfEach(1) => format!("the first {what} of each connection"),
            Pick::FirstOfEach(n) => format!("the first {n} {many} of each connection"),
            Pick::Share(share) => format!("{:.0}% of the {many}", share * 100.0),
            Pick::Every(n) if n.get() > 1 => format!("1 {what} in {n}"),
            Pick::Every(_) | Pick::All => format!("each {what}"),
        }
    }

    /// Says what is wrong with it.
    pub(super) fn check(&self, about: &mut About<'_>) {
        if self.every == 0 {
            about.parameter("every", "`every` is 0", "1 strikes each, 2 every second one");
        }
        if let Some(share) = self.share {
            about.share("share", share);
        }
        if self.first == Some(0) {
            about.parameter("first", "`first` is 0, which strikes nobody", "how many are struck, at least 1");
        }
        let given = [("every", self.every > 1), ("share", self.share.is_some()), ("first", self.first.is_some())];
        let mut given = given.iter().filter(|(_, given)| *given).map(|(key, _)| *key);
        if let (Some(one), Some(other)) = (given.next(), given.next()) {
            let what = format!("`{one}` and `{other}` both say which calls are struck");
            about.parameter(other, &what, "keep one of `every`, `share` and `first`");
        }
        if self.of == Of::Connection && self.first.is_none() {
            about.parameter(
                "of",
                "`of` is about `first`, which is not given",
                "add first = 3, for instance, or remove `of`",
            );
        }
    }
}

/// What `every` is where a scenario does not say.
pub(super) fn one_in_one() -> u32 {
    1
}
