//! Turns mistakes in scenario files into messages that a person can act on.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::traces::{self, Renamed, Traces};
use super::{Ask, Scenario, Target, validate};

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {}: {source}\nhelp: `ls scenarios/` lists those that come with the project", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An override cannot be applied.
    #[error("--set {set}: {why}")]
    Override {
        /// As given on the command line.
        set: String,
        /// What is wrong with it and what is accepted.
        why: String,
    },
    /// The file has mistakes; the text is ready to be printed.
    #[error("{0}")]
    Invalid(String),
    /// The reference service cannot be asked what it has; the text says why, and the remedy.
    #[error("the stack could not be provisioned: {0}")]
    NoTarget(String),
}

/// One mistake, at a place in the text.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// Where.
    pub at: Place,
    /// What is wrong.
    pub what: String,
    /// What is accepted, and the remedy.
    pub help: String,
}

/// Where a mistake is.
#[derive(Debug)]
pub(crate) enum Place {
    /// At these bytes of the text.
    Span(Range<usize>),
    /// At the value of this key: `item.0.stock`.
    Key(String),
}

impl Place {
    /// The value of a key; tables by name, elements of arrays by number.
    pub fn key(path: &str) -> Place {
        Place::Key(path.to_owned())
    }

    /// The bytes of the text; of the nearest table around it for a key that is not written there.
    fn span(&self, text: &str) -> Range<usize> {
        let path = match self {
            Place::Span(span) => return span.clone(),
            Place::Key(path) => path,
        };
        let Ok(document) = toml_edit::Document::parse(text) else { return 0..0 };
        let mut item = document.as_item();
        let mut span = 0..0;
        for key in path.split('.') {
            let next = match key.parse::<usize>() {
                Ok(index) => item.get(index),
                Err(_) => item.get(key),
            };
            let Some(found) = next else { break };
            item = found;
            span = item.span().unwrap_or(span);
        }
        span
    }
}

impl From<Range<usize>> for Place {
    fn from(span: Range<usize>) -> Place {
        Place::Span(span)
    }
}

/// Applies `--set PATH=VALUE` to the text, keeping its comments and layout.
pub(super) fn with_overrides(path: &Path, text: &str, sets: &[String]) -> Result<String, ScenarioError> {
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| syntax(path, text, &error))?;
    for set in sets {
        let fail = |why: String| ScenarioError::Override { set: set.clone(), why };
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| fail("write PATH=VALUE, such as --set target.reference.pool=16".to_owned()))?;
        let value: toml_edit::Value =
            value.trim().parse().unwrap_or_else(|_| toml_edit::Value::from(value.trim().to_owned()));
        let keys = expand(key.trim(), &document);
        put(document.as_item_mut(), &keys, value).map_err(fail)?;
    }
    Ok(document.to_string())
}

/// What a variant changes.
pub(super) fn sets_of_variant(path: &Path, text: &str, name: &str) -> Result<Vec<String>, ScenarioError> {
    let document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| syntax(path, text, &error))?;
    let variants = document.get("variant").and_then(|item| item.as_array_of_tables());
    let named = |table: &&toml_edit::Table| table.get("name").and_then(|n| n.as_str()) == Some(name);
    let Some(found) = variants.into_iter().flatten().find(named) else {
        let known: Vec<&str> = variants.into_iter().flatten().filter_map(|table| table.get("name")?.as_str()).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("one of {}", known.join(", ")) };
        let what = format!("--variant {name}: {} has no such variant\nhelp: {known}", path.display());
        return Err(ScenarioError::Invalid(what));
    };
    let sets = found.get("set").and_then(|set| set.as_array());
    Ok(sets.into_iter().flatten().filter_map(|set| set.as_str().map(str::to_owned)).collect())
}

/// The scenario as one run of a variant repeats it: without the list of variants.
pub(super) fn without_variants(path: &Path, text: &str) -> Result<String, ScenarioError> {
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| syntax(path, text, &error))?;
    document.remove("variant");
    document.remove("compare");
    Ok(document.to_string())
}

/// The scenario as it goes into the run folder: the files that it names are beside it there.
pub(super) fn with_files_beside(path: &Path, text: String, files: &[Renamed]) -> Result<String, ScenarioError> {
    if files.is_empty() {
        return Ok(text);
    }
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| syntax(path, &text, &error))?;
    for file in files {
        let fail = |why: String| ScenarioError::Override { set: file.keys.join("."), why };
        put(document.as_item_mut(), &file.keys, file.name.as_str().into()).map_err(fail)?;
    }
    Ok(document.to_string())
}

/// `target.bug` is short for `target.reference.bug`: people think of the target, not of its kind.
fn expand(key: &str, document: &toml_edit::DocumentMut) -> Vec<String> {
    let mut keys: Vec<String> = key.split('.').map(|k| k.trim().to_owned()).collect();
    let kinds = ["reference", "external"];
    if keys.len() > 1 && keys[0] == "target" && !kinds.contains(&keys[1].as_str()) {
        let external = document.get("target").is_some_and(|t| t.get("external").is_some());
        keys.insert(1, if external { "external" } else { "reference" }.to_owned());
    }
    keys
}

fn put(root: &mut toml_edit::Item, keys: &[String], value: toml_edit::Value) -> Result<(), String> {
    let (last, parents) = keys.split_last().ok_or("the path is empty")?;
    let mut at = root;
    for key in parents {
        at = if let Ok(index) = key.parse::<usize>() {
            element(at, index).ok_or_else(|| format!("there is no element {index} there"))?
        } else {
            let table = at.as_table_like_mut().ok_or_else(|| format!("`{key}` is looked for in a plain value"))?;
            if table.get(key).is_none() {
                let mut fresh = toml_edit::Table::new();
                fresh.set_implicit(true);
                table.insert(key, toml_edit::Item::Table(fresh));
            }
            table.get_mut(key).ok_or("not a table")?
        };
    }
    if let Ok(index) = last.parse::<usize>() {
        *element(at, index).ok_or_else(|| format!("there is no element {index} there"))? =
            toml_edit::Item::Value(value);
        return Ok(());
    }
    let table = at.as_table_like_mut().ok_or_else(|| format!("`{last}` cannot be set in a plain value"))?;
    table.insert(last, toml_edit::Item::Value(value));
    Ok(())
}

fn element(item: &mut toml_edit::Item, index: usize) -> Option<&mut toml_edit::Item> {
    item.get_mut(index)
}

/// Parses and validates the resolved text, and reads the traces that it names. What overrides brought in is reported as
/// theirs.
pub(super) fn parse(
    path: &Path,
    original: &str,
    resolved: &str,
    overrides: &[String],
    ask: Ask<'_>,
) -> Result<(Scenario, Traces), ScenarioError> {
    let mut scenario: Scenario = toml::from_str(resolved).map_err(|error| {
        let what = error.message().to_owned();
        let help = help_for(&what, "scenario");
        let at = error.span().unwrap_or(0..0).into();
        render(path, original, resolved, overrides, &[Mistake { at, what, help }])
    })?;
    let mut traces = traces::read(path, &mut scenario);
    let mut mistakes = validate::validate(&scenario);
    mistakes.append(&mut traces.mistakes);
    if let Target::Reference(asked) = &scenario.target {
        match ask(asked) {
            Ok(catalogue) => mistakes.extend(catalogue.iter().flat_map(|catalogue| catalogue.mistakes(asked))),
            // A mistake in the file can be mended without the service, so it is told first.
            Err(why) if mistakes.is_empty() => return Err(ScenarioError::NoTarget(why)),
            Err(_) => {}
        }
    }
    if mistakes.is_empty() {
        Ok((scenario, traces))
    } else {
        Err(render(path, original, resolved, overrides, &mistakes))
    }
}

/// A message that points at the value of a key: for what only shows once the scenario meets the world.
pub fn pointing_at(loaded: &super::Loaded, key: &str, what: &str, help: &str) -> String {
    let mistake = Mistake { at: Place::key(key), what: format!("{key}: {what}"), help: help.to_owned() };
    // The text as it is run: with its overrides, if there were any.
    render(&loaded.path, &loaded.resolved, &loaded.resolved, &[], &[mistake]).to_string()
}

/// What is accepted instead, and where it is told: in the schema of that name.
pub(crate) fn help_for(what: &str, schema: &str) -> String {
    if what.starts_with("unknown field") {
        format!("correct the key or remove it; `seckill schema {schema}` prints everything that is accepted")
    } else if what.starts_with("missing field") {
        format!("add the key here; `seckill schema {schema}` prints what each section needs")
    } else if what.starts_with("wanted exactly 1 element") {
        "give one kind and not several: a target is [target.reference] or [target.external], and each `inject` and each element of \
         `arrivals` is of one kind"
            .into()
    } else if what.starts_with("unknown variant") {
        "use one of the names listed".into()
    } else {
        format!("`seckill schema {schema}` prints every key with its type and unit")
    }
}

fn syntax(path: &Path, text: &str, error: &toml_edit::TomlError) -> ScenarioError {
    let mistake = Mistake {
        at: error.span().unwrap_or(0..0).into(),
        what: format!("this is not TOML: {}", error.message().trim()),
        help: "text values stand in quotes, sections in [brackets]".into(),
    };
    render(path, text, text, &[], &[mistake])
}

/// The message with all mistakes, each with its line, what is accepted, and the remedy.
pub(crate) fn render(
    path: &Path,
    original: &str,
    text: &str,
    overrides: &[String],
    mistakes: &[Mistake],
) -> ScenarioError {
    let mut out = String::new();
    let origin = path.display().to_string();
    let renderer = Renderer::plain();
    for mistake in mistakes {
        let span = mistake.at.span(text);
        let end = span.end.min(text.len());
        let at = span.start.min(end)..end;
        let group = Group::with_title(Level::ERROR.primary_title(mistake.what.as_str()))
            .element(Snippet::source(text).path(origin.as_str()).annotation(AnnotationKind::Primary.span(at)))
            .element(Level::HELP.message(mistake.help.as_str()));
        if !out.is_empty() {
            out.push_str("\n\n");
        }
        out.push_str(&renderer.render(&[group]));
    }
    if original != text {
        out.push_str(&format!("\n\nnote: the text above is {origin} after --set {}", overrides.join(" --set ")));
    }
    ScenarioError::Invalid(out)
}
