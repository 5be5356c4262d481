//! Plan files of `seckill forecast`: who is expected, what there is to sell, what it may run on and what that costs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ScenarioError;
use super::diagnose::{self, Mistake, Place};
use super::value::Dur;

/// What is planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Buyers who come.
    pub buyers: u64,
    /// Units that there are to sell.
    pub stock: u64,
    /// When the sale opens, for people: `"20:00"`.
    #[serde(default)]
    pub opens: String,
    /// The time within which all of them come, from the opening.
    pub within: Dur,
    /// The time within which half of them come: at most half of `within`, when they come evenly.
    pub half_within: Dur,
    /// TP99 that must hold, by step.
    pub limits: BTreeMap<String, Dur>,
    /// So many more may come than expected, as a share, and the limits still hold.
    #[serde(default = "default_headroom")]
    pub headroom: f64,
    /// How long the nodes are paid for, in hours.
    #[serde(default = "one_hour")]
    pub hours: f64,
    /// What prices are in.
    #[serde(default = "default_currency")]
    pub currency: String,
    /// What each role runs on, by the role's name in the reports.
    pub node: BTreeMap<String, Node>,
    /// Up to so many nodes of a role are taken to do as many times as much as one. That is an assumption, which a
    /// sweep over the number of nodes would replace.
    #[serde(default = "default_linear")]
    pub linear_to: u32,
}

/// A node of a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Processors of each.
    pub cpus: u32,
    /// How much one of its processors does against one of the machine that was measured.
    #[serde(default = "one_hour")]
    pub speed: f64,
    /// What one costs, in `currency`.
    #[serde(default)]
    pub price_per_hour: f64,
    /// How many there may be; a database is one.
    pub at_most: Option<u32>,
}

fn default_headroom() -> f64 {
    0.3
}
fn one_hour() -> f64 {
    1.0
}
fn default_linear() -> u32 {
    16
}
fn default_currency() -> String {
    "USD".to_owned()
}

/// A plan together with the text it came from.
#[derive(Debug, Clone)]
pub struct LoadedPlan {
    /// The valid plan.
    pub plan: Plan,
    path: PathBuf,
    original: String,
    resolved: String,
    overrides: Vec<String>,
}

impl LoadedPlan {
    /// A message that points at the value of a key: for what only shows once the plan meets what was measured.
    pub fn pointing_at(&self, key: &str, what: String, help: String) -> ScenarioError {
        self.told(&[Mistake { at: Place::key(key), what, help }])
    }

    fn told(&self, mistakes: &[Mistake]) -> ScenarioError {
        diagnose::render(&self.path, &self.original, &self.resolved, &self.overrides, mistakes)
    }
}

/// Reads and checks a plan, with values replaced as by `--set`.
///
/// # Errors
/// The file cannot be read, or has mistakes.
pub fn load(path: &Path, sets: &[String]) -> Result<LoadedPlan, ScenarioError> {
    let original = std::fs::read_to_string(path).map_err(|source| {
        let what = format!(
            "cannot read the plan {}: {source}\nhelp: scenarios/plans/million.toml is one to begin with",
            path.display()
        );
        ScenarioError::Invalid(what)
    })?;
    let resolved = if sets.is_empty() { original.clone() } else { diagnose::with_overrides(path, &original, sets)? };
    let overrides = sets.to_vec();
    let plan: Plan = toml::from_str(&resolved).map_err(|error| {
        let help = "scenarios/plans/million.toml has every key, with its unit and what it means".to_owned();
        let at = error.span().unwrap_or(0..0).into();
        let mistake = Mistake { at, what: error.message().to_owned(), help };
        diagnose::render(path, &original, &resolved, &overrides, &[mistake])
    })?;
    let loaded = LoadedPlan { plan, path: path.to_owned(), original, resolved, overrides };
    let mistakes = mistakes(&loaded.plan);
    if mistakes.is_empty() { Ok(loaded) } else { Err(loaded.told(&mistakes)) }
}

fn mistakes(plan: &Plan) -> Vec<Mistake> {
    let mut out = Vec::new();
    let mut check = |good: bool, key: &str, value: &dyn std::fmt::Display, accepted: &str| {
        if !good {
            out.push(Mistake { at: Place::key(key), what: format!("`{key}` is {value}"), help: accepted.to_owned() });
        }
    };
    check((1..=1_000_000_000).contains(&plan.buyers), "buyers", &plan.buyers, "from 1 to 1000000000");
    check(plan.stock > 0, "stock", &plan.stock, "at least 1; who has nothing to sell needs no plan");
    let (within, half) = (plan.within.micros(), plan.half_within.micros());
    check(within >= 1_000_000, "within", &plan.within, "at least 1s, such as \"30m\"");
    check(
        half >= 100_000 && half <= within / 2,
        "half_within",
        &plan.half_within,
        "from 100ms to half of `within`, which means that they come evenly",
    );
    check((0.0..=10.0).contains(&plan.headroom), "headroom", &plan.headroom, "from 0 to 10, such as 0.3 for 30% more");
    check(plan.hours > 0.0 && plan.hours <= 10_000.0, "hours", &plan.hours, "above 0 and at most 10000");
    check((1..=1_000).contains(&plan.linear_to), "linear_to", &plan.linear_to, "from 1 to 1000");
    check(!plan.limits.is_empty(), "limits", &"empty", "at least one step with its TP99, such as order = \"200ms\"");
    for (step, limit) in &plan.limits {
        check(limit.micros() > 0, &format!("limits.{step}"), limit, "a TP99 above 0, such as \"200ms\"");
    }
    for (role, node) in &plan.node {
        let key = |name: &str| format!("node.{role}.{name}");
        check((1..=1_024).contains(&node.cpus), &key("cpus"), &node.cpus, "from 1 to 1024");
        check(
            node.speed > 0.0 && node.speed <= 100.0,
            &key("speed"),
            &node.speed,
            "above 0 and at most 100: 1 is as fast as the machine that was measured",
        );
        check(
            (0.0..=1e9).contains(&node.price_per_hour),
            &key("price_per_hour"),
            &node.price_per_hour,
            "0 or more, for one node",
        );
        check(node.at_most != Some(0), &key("at_most"), &0, "at least 1, or leave it out");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = include_str!("../../../scenarios/plans/million.toml");

    fn told(replace: (&str, &str), sets: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        assert!(PLAN.contains(replace.0), "{replace:?}");
        std::fs::write(&path, PLAN.replacen(replace.0, replace.1, 1)).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        load(&path, &sets).map_or_else(|error| error.to_string(), |loaded| format!("{:?}", loaded.plan))
    }

    #[test]
    fn the_plan_that_comes_with_the_project_is_valid_and_can_be_changed() {
        assert!(told(("", ""), &[]).contains("buyers: 1000000"), "{}", told(("", ""), &[]));
        assert!(told(("", ""), &["buyers=5", "node.service.cpus=7"]).contains("cpus: 7"));
    }

    #[test]
    fn each_mistake_is_shown_with_its_place_and_what_is_accepted() {
        let says = |replace, sets: &[&str], texts: &[&str]| {
            let said = told(replace, sets);
            texts.iter().for_each(|text| assert!(said.contains(text), "{text} is missing from\n{said}"));
        };
        says(("buyers = 1_000_000", "buyers = 0"), &[], &["plan.toml:", "`buyers` is 0", "from 1 to"]);
        says(("stock = 10_000", "stok = 10_000"), &[], &["unknown field `stok`", "million.toml"]);
        says(("", ""), &["half_within=3h"], &["`half_within` is", "evenly", "after --set"]);
        says(("[limits]", "[limits]\nstate = \"0s\""), &[], &["limits.state", "a TP99 above 0"]);
        says(("cpus = ", "cpus = 0 # "), &[], &["cpus` is 0", "from 1 to 1024"]);
        says(("", ""), &["headroom=-1"], &["`headroom` is -1"]);
        says(("", ""), &["node.service.speed=0"], &["`node.service.speed` is 0", "as fast as the machine"]);
        assert!(load(Path::new("nowhere.toml"), &[]).unwrap_err().to_string().contains("million.toml is one to begin"));
    }
}
