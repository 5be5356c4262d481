//! What the reference service can be asked for, as it says itself: strategies, switches and seeded bugs.
//!
//! The service is the only one to know them, so a scenario's choices are held against its own list, before anything is
//! started.

use serde::Deserialize;

use super::diagnose::{Mistake, Place};
use super::{Deduct, Reference, Replication};

/// The one strategy by which stock is deducted at payment.
const DEDUCTS_AT_PAYMENT: &str = "conditional-update";
/// The one strategy whose stock lies in shards.
const LIES_IN_SHARDS: &str = "shards";

/// Everything that the reference service can be asked for.
#[derive(Debug, Clone, Deserialize)]
pub struct Catalogue {
    /// Ways to deduct stock.
    pub strategies: Vec<Strategy>,
    /// Mechanisms that can be turned off.
    pub switches: Vec<Switch>,
    /// Mistakes that can be planted.
    pub bugs: Vec<SeededBug>,
    /// Slow-downs that can be planted.
    #[serde(default)]
    pub slow_downs: Vec<SlowDown>,
}

/// A slow-down that can be planted.
#[derive(Debug, Clone, Deserialize)]
pub struct SlowDown {
    /// What it is called before the `=`.
    pub kind: String,
    /// What an order takes longer by, in one line.
    pub meaning: String,
    /// One with its size.
    pub example: String,
}

/// A way to deduct stock.
#[derive(Debug, Clone, Deserialize)]
pub struct Strategy {
    /// Its name.
    pub name: String,
    /// What it does, in one line.
    pub meaning: String,
    /// Whether it works with a Redis beside the database.
    #[serde(default)]
    pub needs_redis: bool,
}

/// A mechanism that can be turned off.
#[derive(Debug, Clone, Deserialize)]
pub struct Switch {
    /// Its name.
    pub id: String,
    /// What works while it is on, in one line.
    pub meaning: String,
}

/// A mistake that can be planted.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct SeededBug {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Why it cannot be planted yet.
    pub pending: Option<String>,
    /// Whether it is a mistake that is made with a Redis beside the database.
    #[serde(default)]
    pub needs_redis: bool,
    /// Whether only a payment dependency can bring it out.
    #[serde(default)]
    pub needs_payment: bool,
    /// Whether it is made by who runs the databases, with a standby that lags behind.
    #[serde(default)]
    pub needs_lagging_standby: bool,
    /// The strategy in whose place it is planted, so that no other would run; any goes with it if absent.
    pub strategy: Option<String>,
}

impl SeededBug {
    /// What keeps it from having any effect as the service is asked for: the key, what is wrong, and the remedy.
    fn without_effect(&self, asked: &Reference) -> Option<(&'static str, String, String)> {
        let SeededBug { number, name, .. } = self;
        let says = |what: &str| format!("target: the seeded bug {number} ({name}) {what}");
        let add = |line: &str| format!("add {line} to [target.reference]");
        if self.needs_redis && !asked.redis {
            return Some(("bug", says("needs a Redis"), add("redis = true")));
        }
        if self.needs_payment && !asked.payment {
            let what = says("needs a payment dependency, which may decline a payment");
            return Some(("bug", what, add("payment = true and payment_declines = 0.3")));
        }
        if self.needs_lagging_standby && asked.standby != Some(Replication::Async) {
            let what = says("needs a standby that may lag behind, and the fault `promote-standby`");
            return Some(("bug", what, add("standby = \"async\"")));
        }
        let place = self.strategy.as_ref()?;
        if asked.strategy == *place || asked.strategy == Reference::default().strategy {
            return None;
        }
        let what =
            format!("is planted in the place of the strategy \"{place}\", and \"{}\" would not run", asked.strategy);
        let help =
            format!("leave `strategy` out or set it to \"{place}\"; or choose a bug that goes with any strategy");
        Some(("strategy", says(&what), help))
    }

    fn is_called(&self, text: &str) -> bool {
        self.name == text || text.parse() == Ok(self.number)
    }
}

impl Reference {
    /// Whether this bug is asked for.
    fn plants(&self, known: &SeededBug) -> bool {
        self.bug.as_ref().is_some_and(|bug| known.is_called(&bug.0))
    }
}

impl Catalogue {
    /// What a scenario asks of the service that it does not have.
    pub(super) fn mistakes(&self, asked: &Reference) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut add = |key: &str, what: String, help: String| {
            mistakes.push(Mistake { at: Place::key(&format!("target.reference.{key}")), what, help });
        };
        if !self.strategies.iter().any(|known| known.name == asked.strategy) {
            let what = format!("target: there is no strategy \"{}\"", asked.strategy);
            add("strategy", what, one_of(self.strategies.iter().map(|s| format!("\"{}\" ({})", s.name, s.meaning))));
        }
        if !asked.redis && self.strategies.iter().any(|known| known.name == asked.strategy && known.needs_redis) {
            let what = format!("target: the strategy \"{}\" needs a Redis", asked.strategy);
            add(
                "strategy",
                what,
                "add redis = true to [target.reference]; redis_aof says what it keeps on disk".to_owned(),
            );
        }
        if let Some(bug) = &asked.bug {
            match self.bugs.iter().find(|known| known.is_called(&bug.0)) {
                None => add("bug", format!("target: there is no seeded bug \"{}\"", bug.0), self.bugs_there_are()),
                Some(SeededBug { number, name, pending: Some(why), .. }) => {
                    let what = format!("target: the seeded bug {number} ({name}) cannot be planted yet: {why}");
                    add("bug", what, self.bugs_there_are());
                }
                Some(known) => {
                    if let Some((key, what, help)) = known.without_effect(asked) {
                        add(key, what, help);
                    }
                }
            }
        }
        if let Some(shards) = asked.shards
            && asked.strategy != LIES_IN_SHARDS
            && !self.bugs.iter().any(|known| known.strategy.as_deref() == Some(LIES_IN_SHARDS) && asked.plants(known))
        {
            let what = format!("target: `shards` is {shards}, and \"{}\" keeps no stock in shards", asked.strategy);
            add("shards", what, format!("remove it, or set strategy = \"{LIES_IN_SHARDS}\""));
        }
        if let Some(slow) = &asked.slow {
            let kind = slow.split_once('=').map(|(kind, _)| kind);
            if !self.slow_downs.iter().any(|known| kind == Some(known.kind.as_str())) {
                let what = format!("target: there is no slow-down \"{slow}\"");
                add("slow", what, one_of(self.slow_downs.iter().map(|s| format!("\"{}\" ({})", s.example, s.meaning))));
            }
        }
        if asked.deduct == Deduct::Payment && asked.strategy != DEDUCTS_AT_PAYMENT {
            let what = format!("target: deduct = \"payment\" does not go with the strategy \"{}\"", asked.strategy);
            add(
                "deduct",
                what,
                format!(
                    "leave `strategy` out or set it to \"{DEDUCTS_AT_PAYMENT}\"; or deduct = \"hold\" or \"order\""
                ),
            );
        }
        for id in asked.switches.keys() {
            if !self.switches.iter().any(|known| known.id == *id) {
                let what = format!("target: there is no switch \"{id}\"");
                let known = self.switches.iter().map(|s| format!("{} ({})", s.id, s.meaning));
                add(&format!("switches.{id}"), what, one_of(known));
            }
        }
        mistakes
    }

    fn bugs_there_are(&self) -> String {
        let ready = self.bugs.iter().filter(|bug| bug.pending.is_none());
        let list = one_of(ready.map(|bug| format!("{}={}", bug.number, bug.name)));
        format!("a number or a name, {list}; or leave `bug` out for the correct service")
    }
}

fn one_of(known: impl Iterator<Item = String>) -> String {
    format!("one of {}", known.collect::<Vec<_>>().join(", "))
}
