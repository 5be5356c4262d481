//! Drill files: TOML in, a validated [`Drill`] out, with the scenario that it puts people around.
//!
//! A mistake is reported as one of a scenario is: with the line, the key, what is accepted, and the remedy. What a drill changes
//! of its scenario (surprise, stop conditions) is written into the scenario that goes into the folder, so that the run is judged,
//! and played again, like any other.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::fault::Inject;
use crate::scenario::diagnose::{Mistake, Place, help_for, render};
use crate::scenario::value::{Drawn, Dur};
use crate::scenario::{Loaded, Scenario, ScenarioError, Stop, Target};

/// In the place of a fault: every one.
pub const ANY: &str = "any";
/// What the faults that a surprise draws are called, followed by their number.
const SURPRISE: &str = "surprise";

/// A pre-sale rehearsal: a scenario, and what people have to show around it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// Short name: letters, digits and dashes. Drills of one name are compared with each other.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub title: String,
    /// The scenario's file, from the folder of the drill's file on.
    #[schemars(with = "String")]
    pub scenario: Spanned<String>,
    /// The variant of the scenario, where it has some: a drill is one run.
    #[schemars(with = "Option<String>")]
    pub variant: Option<Spanned<String>>,
    /// Seed of everything random; the scenario's own unless given.
    pub seed: Option<u64>,
    /// The largest share of requests without an answer, from 0 to 1, at which nothing is being lost.
    #[serde(default = "default_loss_limit")]
    pub loss_limit: f64,
    /// Who is there.
    #[serde(default)]
    pub role: Vec<Role>,
    /// The release checklist. The drill does not start while one of its lines is blank.
    #[serde(default)]
    pub check: Vec<Check>,
    /// What is expected to be seen, and for how long.
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// What people do, and acknowledge.
    #[serde(default)]
    pub runbook: Vec<Step>,
    /// Faults that nobody knows beforehand, in the place of those of the scenario.
    pub surprise: Option<Surprise>,
    /// What ends the drill before its time, besides what the scenario says.
    #[serde(default)]
    pub stop: Vec<Stop>,
}

fn default_loss_limit() -> f64 {
    0.01
}

/// Somebody who takes part.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What they are here.
    pub name: String,
    /// Who they are.
    pub person: String,
}

/// A line of the release checklist: `done` tells the evidence, or a `command` gives it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Unique in the drill.
    pub id: String,
    /// What has to be so.
    pub text: String,
    /// The role that answers for it.
    pub owner: String,
    /// The evidence that it is so; blank is not done.
    #[serde(default)]
    pub done: String,
    /// A command of the shell that has to end with 0; the last line that it prints is the evidence. It may take 30 seconds.
    pub command: Option<String>,
}

/// What is expected to be seen after a fault. Exactly one of `degrade_level`, `unsteady`, `breaker`, `errors` and `alert`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expectation {
    /// Unique in the drill.
    pub id: String,
    /// In words.
    pub text: String,
    /// The fault, by its id or its kind; `any` is every fault.
    pub after: String,
    /// The service says that it is degraded so much at least (`X-Degrade-Level`, `seckill_degrade_level`).
    pub degrade_level: Option<i64>,
    /// The steady state does not hold.
    pub unsteady: bool,
    /// The breaker before this dependency is open, as the service's meters say (`seckill_breaker_state`).
    pub breaker: Option<String>,
    /// More than a share of a step's requests has no answer, over a quarter of a second.
    pub errors: Option<Errors>,
    /// An alert of this name came from the monitoring.
    pub alert: Option<String>,
    /// It is seen within this time of the fault's injection.
    pub within: Dur,
    /// It has gone within this time of the fault's healing.
    pub back_within: Option<Dur>,
}

/// A share of a step's requests without an answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// The step.
    pub step: String,
    /// From 0 to 1.
    pub above: f64,
}

/// Something that somebody has to do, and acknowledges when it is done. When is said by one of `at` and `after`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Unique in the drill.
    pub id: String,
    /// What is to be done.
    pub text: String,
    /// The role that does it.
    pub owner: String,
    /// When it is due, counted from the start of the load.
    pub at: Option<Dur>,
    /// The fault after whose injection it is due, by its id or its kind; `any` is the first of all.
    pub after: Option<String>,
    /// How long it may take.
    pub within: Dur,
    /// Whether acknowledging it means that the fault's cause was found.
    pub locates: bool,
}

/// Faults at random, as `[[chaos]]` of a scenario: which, when and for how long is drawn from the seed. They are called
/// `surprise-1`, `surprise-2` and so on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Surprise {
    /// How many there are.
    pub faults: u32,
    /// None is injected earlier than this after the start of the load.
    pub from: Dur,
    /// All are to be healed by then.
    pub until: Dur,
    /// How long each lasts: the shortest and the longest.
    pub lasts: Drawn,
    /// Between a healing and the next injection.
    #[serde(default)]
    pub gap: Dur,
    /// How many are planned to be in effect at once at most; one if absent.
    pub concurrent: Option<u32>,
    /// The candidates.
    pub inject: Vec<Inject>,
}

/// A drill that was read, and its scenario as it will be run.
#[derive(Debug)]
pub struct Read {
    /// The valid drill.
    pub drill: Drill,
    /// The scenario, with what the drill changes of it.
    pub loaded: Loaded,
    /// The drill's text as it goes into its folder: with its seed, and with the scenario beside it.
    pub resolved: String,
}

/// JSON Schema of drill files (draft 07).
pub fn json_schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    generator.into_root_schema_for::<Drill>().to_value()
}

/// Reads a drill and its scenario; `load` reads the latter with overrides, a seed, and the variant that is meant.
///
/// # Errors
/// Names the file, the line, the key, what is accepted and the remedy.
pub fn read(
    path: &Path,
    sets: &[String],
    seed: Option<u64>,
    load: impl Fn(&Path, &[String], Option<u64>, Option<&str>) -> Result<Loaded, ScenarioError>,
) -> Result<Read, ScenarioError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot read the drill {}: {error}", path.display());
        ScenarioError::Invalid(format!("{what}\nhelp: `ls drills/` lists those that come with the project"))
    })?;
    let told = |mistakes: &[Mistake]| render(path, &text, &text, &[], mistakes);
    let drill: Drill = toml::from_str(&text).map_err(|error| {
        let what = error.message().to_owned();
        let help = help_for(&what, "drill");
        told(&[Mistake { at: error.span().unwrap_or(0..0).into(), what, help }])
    })?;
    let scenario = path.parent().unwrap_or(Path::new("")).join(drill.scenario.get_ref());
    if !scenario.is_file() {
        return Err(told(&[Mistake {
            at: drill.scenario.span().into(),
            what: format!("`scenario`: there is no file {}", scenario.display()),
            help: "give its path from the drill's own folder on, such as \"../scenarios/spike.toml\"".into(),
        }]));
    }
    let theirs = table_of(&scenario)?;
    if let Some(wanted) = &drill.variant
        && let Some(mistake) = not_among(wanted, &variants(&theirs))
    {
        return Err(told(&[mistake]));
    }
    let mut all = sets.to_vec();
    all.extend(changes(&text, &theirs, &drill)?);
    let variant = drill.variant.as_ref().map(|name| name.get_ref().as_str());
    let loaded = load(&scenario, &all, seed.or(drill.seed), variant)?;
    let mistakes = validate(&drill, &loaded.scenario);
    if !mistakes.is_empty() {
        return Err(told(&mistakes));
    }
    let resolved = resolved(&text, loaded.scenario.seed);
    Ok(Read { drill, loaded, resolved })
}

/// The scenario as it is written. What is no TOML is told with its line when the scenario itself is read.
fn table_of(scenario: &Path) -> Result<toml::Table, ScenarioError> {
    let read = std::fs::read_to_string(scenario)
        .map_err(|source| ScenarioError::Unreadable { path: scenario.to_owned(), source })?;
    Ok(read.parse().unwrap_or_default())
}

/// The names of its variants.
fn variants(scenario: &toml::Table) -> Vec<&str> {
    let all = scenario.get("variant").and_then(toml::Value::as_array).into_iter().flatten();
    all.filter_map(|variant| variant.get("name")?.as_str()).collect()
}

/// What is wrong with a variant that the scenario does not have.
fn not_among(wanted: &Spanned<String>, known: &[&str]) -> Option<Mistake> {
    let name = wanted.get_ref();
    let help = if known.is_empty() { "it has none: leave `variant` out".to_owned() } else { one_of(known) };
    let what = format!("`variant`: the scenario has none called \"{name}\"");
    (!known.contains(&name.as_str())).then(|| Mistake { at: wanted.span().into(), what, help })
}

/// What the drill changes of its scenario, as overrides.
fn changes(text: &str, scenario: &toml::Table, drill: &Drill) -> Result<Vec<String>, ScenarioError> {
    let own: toml::Table = text.parse().map_err(|error| ScenarioError::Invalid(format!("{error}")))?;
    let mut out = Vec::new();
    if let Some(toml::Value::Table(surprise)) = own.get("surprise") {
        let mut chaos = surprise.clone();
        chaos.insert("id".into(), SURPRISE.into());
        out.push("fault=[]".to_owned());
        out.push(format!("chaos={}", toml::Value::Array(vec![chaos.into()])));
    }
    if let Some(toml::Value::Array(stops)) = own.get("stop") {
        let named = |stop: &toml::Value| stop.get("name").and_then(toml::Value::as_str).map(str::to_owned);
        let ours: BTreeSet<&str> = drill.stop.iter().map(|stop| stop.name.as_str()).collect();
        let theirs = scenario.get("stop").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        // Played again, the scenario has them already.
        let theirs = theirs.into_iter().filter(|stop| !named(stop).is_some_and(|name| ours.contains(name.as_str())));
        out.push(format!("stop={}", toml::Value::Array(theirs.chain(stops.iter().cloned()).collect())));
    }
    Ok(out)
}

fn resolved(text: &str, seed: u64) -> String {
    let Ok(mut document) = text.parse::<toml_edit::DocumentMut>() else { return text.to_owned() };
    document["scenario"] = toml_edit::value("scenario.toml");
    // The scenario beside it is that variant and nothing else.
    document.remove("variant");
    document["seed"] = toml_edit::value(i64::try_from(seed).unwrap_or(i64::MAX));
    document.to_string()
}

impl Drill {
    /// Whether a fault of that id and kind is meant by an `after`.
    pub fn is_meant(after: &str, id: &str, kind: &str) -> bool {
        after == ANY || after == id || after == kind
    }

    /// Who plays a role.
    pub fn person(&self, role: &str) -> &str {
        self.role.iter().find(|known| known.name == role).map_or("", |known| known.person.as_str())
    }
}

impl Expectation {
    /// The signal in words.
    pub fn signal(&self) -> String {
        match self {
            Expectation { degrade_level: Some(level), .. } => format!("degrade level {level} or more"),
            Expectation { breaker: Some(dependency), .. } => format!("breaker before {dependency} open"),
            Expectation { errors: Some(errors), .. } => {
                format!("more than {}% of `{}` without an answer", errors.above * 100.0, errors.step)
            }
            Expectation { alert: Some(name), .. } => format!("alert {name}"),
            _ => "no steady state".to_owned(),
        }
    }

    fn signals(&self) -> usize {
        let named = [
            self.degrade_level.is_some(),
            self.unsteady,
            self.breaker.is_some(),
            self.errors.is_some(),
            self.alert.is_some(),
        ];
        named.into_iter().filter(|named| *named).count()
    }
}

/// Everything that is wrong with a drill, given the scenario that it is about.
fn validate(drill: &Drill, scenario: &Scenario) -> Vec<Mistake> {
    let mut found = Found::default();
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_name(&drill.name) {
        found.tell(
            "name",
            &format!("`name` is \"{}\"", drill.name),
            "use letters, digits and dashes, such as \"presale\"",
        );
    }
    if !(0.0..1.0).contains(&drill.loss_limit) {
        found.tell(
            "loss_limit",
            &format!("`loss_limit` is {}", drill.loss_limit),
            "give a share from 0 to below 1: 0.01 is 1%",
        );
    }
    if !scenario.variant.is_empty() {
        found.tell(
            "scenario",
            "the scenario has variants, and a drill is one run",
            &format!("say which: variant = \"{}\"", scenario.variant[0].name),
        );
    }
    if drill.check.is_empty() {
        let help = "add [[check]] with id, text, owner and done: what has to be so before a release";
        found.tell("name", "there is no release checklist", help);
    }
    found.unique("role", "name", drill.role.iter().map(|role| role.name.as_str()));
    found.unique("check", "id", drill.check.iter().map(|check| check.id.as_str()));
    found.unique("expect", "id", drill.expect.iter().map(|expect| expect.id.as_str()));
    found.unique("runbook", "id", drill.runbook.iter().map(|step| step.id.as_str()));
    let owners = drill.check.iter().map(|check| &check.owner).enumerate().map(|(n, owner)| ("check", n, owner));
    let steps = drill.runbook.iter().map(|step| &step.owner).enumerate().map(|(n, owner)| ("runbook", n, owner));
    let roles: Vec<&str> = drill.role.iter().map(|role| role.name.as_str()).collect();
    for (section, number, owner) in owners.chain(steps).filter(|(.., owner)| !roles.contains(&owner.as_str())) {
        let help = if roles.is_empty() { "add [[role]] with name and person".into() } else { one_of(&roles) };
        found.tell(&format!("{section}.{number}.owner"), &format!("there is no role \"{owner}\""), &help);
    }
    for (number, expect) in drill.expect.iter().enumerate() {
        found.expectation(number, expect, scenario);
    }
    for (number, step) in drill.runbook.iter().enumerate() {
        found.step(number, step, scenario);
    }
    found.0
}

fn one_of(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

#[derive(Default)]
struct Found(Vec<Mistake>);

impl Found {
    fn tell(&mut self, key: &str, what: &str, help: &str) {
        self.0.push(Mistake { at: Place::key(key), what: what.to_owned(), help: help.to_owned() });
    }

    fn unique<'a>(&mut self, section: &str, key: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (number, name) in names.enumerate() {
            let at = format!("{section}.{number}.{key}");
            if name.is_empty() || name.contains(char::is_whitespace) {
                self.tell(&at, &format!("`{key}` of [[{section}]] is \"{name}\""), "give a short name without blanks");
            } else if !seen.insert(name) {
                self.tell(
                    &at,
                    &format!("there are two [[{section}]] called \"{name}\""),
                    "give each a name of its own",
                );
            }
        }
    }

    fn expectation(&mut self, number: usize, expect: &Expectation, scenario: &Scenario) {
        let at = |key: &str| format!("expect.{number}.{key}");
        if expect.signals() != 1 {
            let what = format!("\"{}\" names {} signals", expect.id, expect.signals());
            let help = "give exactly one of degrade_level = 2, unsteady = true, breaker = \"profile\", alert = \"NAME\" and \
                        errors = { step = \"order\", above = 0.05 }";
            self.tell(&at("id"), &what, help);
        }
        if expect.breaker.is_some()
            && let Target::External(external) = &scenario.target
            && external.audit.is_none()
            && external.metrics.is_none()
        {
            let help = "say where the shop's meters are: target.external.metrics = { at = \"127.0.0.1:9100/metrics\" }";
            self.tell(&at("breaker"), "`breaker`: nothing tells what the breakers of this shop do", help);
        }
        self.fault(&at("after"), &expect.after, scenario);
        self.length(&at("within"), "within", expect.within);
        let Some(errors) = &expect.errors else { return };
        let steps: Vec<&str> = scenario.step.keys().map(String::as_str).collect();
        if !steps.contains(&errors.step.as_str()) {
            self.tell(&at("errors"), &format!("the scenario has no step \"{}\"", errors.step), &one_of(&steps));
        }
        if !(0.0..1.0).contains(&errors.above) {
            self.tell(
                &at("errors"),
                &format!("`above` is {}", errors.above),
                "give a share from 0 to below 1: 0.05 is 5%",
            );
        }
    }

    fn step(&mut self, number: usize, step: &Step, scenario: &Scenario) {
        let at = |key: &str| format!("runbook.{number}.{key}");
        match (&step.at, &step.after) {
            (None, Some(after)) => self.fault(&at("after"), after, scenario),
            (Some(due), None) if due.0 > scenario.load.duration.0 => {
                let what = format!("`at` is {due}, and the load ends after {}", scenario.load.duration);
                self.tell(&at("at"), &what, "give a time before that");
            }
            (Some(_), None) => {}
            _ => {
                let what = format!("\"{}\" says when it is due by neither or both of `at` and `after`", step.id);
                self.tell(&at("id"), &what, "give at = \"5s\", or after = \"FAULT\"");
            }
        }
        self.length(&at("within"), "within", step.within);
    }

    fn length(&mut self, at: &str, key: &str, length: Dur) {
        if length.0.is_zero() {
            self.tell(at, &format!("`{key}` is missing or 0s"), "say how long it may take, such as \"10s\"");
        }
    }

    /// Whether the timeline has such a fault. Of a surprise, the candidates are known and not the draw.
    fn fault(&mut self, at: &str, after: &str, scenario: &Scenario) {
        let planned = scenario.timeline().into_iter().map(|fault| (fault.id.clone(), fault.inject.kind()));
        let mut known: BTreeSet<String> = planned.flat_map(|(id, kind)| [id, kind.to_owned()]).collect();
        known.extend(scenario.fault.iter().map(|fault| fault.get_ref().id.clone()));
        known
            .extend(scenario.chaos.iter().flat_map(|chaos| chaos.get_ref().inject.iter().map(|i| i.kind().to_owned())));
        known.insert(ANY.to_owned());
        if !known.contains(after) {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            self.tell(at, &format!("`after`: the scenario breaks nothing called \"{after}\""), &one_of(&names));
        }
    }
}
