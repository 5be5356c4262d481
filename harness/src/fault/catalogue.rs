//! The catalogue of kinds of faults, for people and programs: made from the types that scenarios are read into and from their
//! comments, so that it cannot say anything else than they do.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Inject;

/// A kind of fault.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its name: `inject.NAME = { ... }`.
    pub kind: String,
    /// What it does.
    pub does: String,
    /// What it is done to.
    pub needs: String,
    /// Its parameters: first those that have to be given, then those that may.
    pub parameters: Vec<Parameter>,
}

/// A parameter of a kind.
#[derive(Debug, Serialize)]
pub struct Parameter {
    /// Its key.
    pub name: String,
    /// What its value is: `text`, `duration`, `number`, `whole number`, `yes or no`, or a list of words.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it has to be given.
    pub required: bool,
    /// What it is where it is not given; nothing if it has no effect then.
    pub default: Option<Value>,
    /// What it means.
    pub meaning: String,
    /// What each word means, where its value is one of a list.
    pub words: Vec<Word>,
}

/// One value of a parameter that is one of a list.
#[derive(Debug, Serialize)]
pub struct Word {
    /// As it is written.
    pub word: String,
    /// What it means.
    pub meaning: String,
}

/// All kinds, in the order of their declaration.
pub fn catalogue() -> Vec<Entry> {
    let schema = schemars::schema_for!(Inject).to_value();
    let variants = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let needs = Inject::needs();
    let entry = |(variant, (kind, needs)): (&Value, (&str, String))| {
        let fields = resolve(&schema, &variant["properties"][kind]);
        Entry { kind: kind.to_owned(), does: text_of(variant), needs, parameters: parameters(&schema, fields) }
    };
    variants.iter().zip(needs).map(entry).collect()
}

fn parameters(schema: &Value, fields: &Value) -> Vec<Parameter> {
    let required = fields["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parameter = |(name, field): (&String, &Value)| {
        let (type_, words) = type_of(schema, field);
        let default = field.get("default").filter(|default| !default.is_null()).cloned();
        let required = required.iter().any(|key| key == name);
        Parameter { name: name.clone(), type_, required, default, meaning: text_of(field), words }
    };
    let mut all: Vec<Parameter> = fields["properties"].as_object().into_iter().flatten().map(parameter).collect();
    all.sort_by_key(|p| (!p.required, !["link", "role"].contains(&p.name.as_str()), p.name.clone()));
    all
}

/// A comment as one line.
fn text_of(value: &Value) -> String {
    value["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a reference stands for.
fn resolve<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|target| schema.pointer(target.strip_prefix('#')?));
    target.unwrap_or(value)
}

/// What a value is in words, and the words it is one of, if it is.
fn type_of(schema: &Value, field: &Value) -> (String, Vec<Word>) {
    // What may be left out stands beside a null.
    let some = field["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null")).unwrap_or(field);
    if some["$ref"].as_str().is_some_and(|target| target.ends_with("/Dur")) {
        return ("duration".to_owned(), Vec::new());
    }
    let resolved = resolve(schema, some);
    if let Some(list) = resolved["oneOf"].as_array() {
        let word = |one: &Value| Some(Word { word: one["const"].as_str()?.to_owned(), meaning: text_of(one) });
        let words: Vec<Word> = list.iter().filter_map(word).collect();
        let names: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
        return (names.join(" | "), words);
    }
    let kind = match &resolved["type"] {
        Value::Array(several) => several.iter().find(|one| *one != "null").and_then(Value::as_str),
        one => one.as_str(),
    };
    let words = match kind {
        Some("string") => "text",
        Some("integer") => "whole number",
        Some("number") => "number",
        Some("boolean") => "yes or no",
        Some("array") => "list",
        _ => "table",
    };
    (words.to_owned(), Vec::new())
}

/// For people.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.kind, self.does)?;
        writeln!(f, "  needs {}", self.needs)?;
        let width = self.parameters.iter().map(|parameter| parameter.name.len()).max().unwrap_or(0);
        for parameter in &self.parameters {
            let Parameter { name, type_, default, meaning, .. } = parameter;
            let given = match default {
                _ if parameter.required => ", required".to_owned(),
                Some(default) => format!(", {default} unless given"),
                None => String::new(),
            };
            writeln!(f, "  {name:width$}  {meaning} ({type_}{given})")?;
            for Word { word, meaning } in &parameter.words {
                writeln!(f, "  {:width$}    {word}: {meaning}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_catalogue_and_explained() {
        let catalogue = catalogue();
        let kinds: Vec<&str> = catalogue.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, Inject::KINDS);
        for Entry { kind, does, needs, parameters } in &catalogue {
            assert!(does.ends_with('.') && !needs.is_empty(), "{kind}: {does:?}, {needs:?}");
            let place = parameters.first().unwrap_or_else(|| panic!("{kind} has no parameters"));
            let is_place = place.required || place.name == "role";
            assert!(is_place, "{kind}: what it is done to is said first");
            for Parameter { name, type_, required, default, meaning, words } in parameters {
                assert!(meaning.ends_with(['.', '`']), "{kind}.{name} is not explained: {meaning:?}");
                assert!(type_ != "table", "{kind}.{name} has no type that a person could be told");
                assert!(!required || default.is_none(), "{kind}.{name} is required and has a default");
                assert!(words.iter().all(|word| word.meaning.ends_with('.')), "{kind}.{name}: {words:?}");
            }
        }
    }

    #[test]
    fn every_fault_in_a_proxy_can_be_limited_to_a_share_of_the_connections() {
        // Those of a partition are lost outside of any proxy, packet by packet.
        let of_links =
            catalogue().into_iter().filter(|entry| entry.parameters[0].name == "link" && entry.kind != "partition");
        for Entry { kind, parameters, .. } in of_links {
            let fraction = parameters.iter().find(|parameter| parameter.name == "fraction");
            let fraction = fraction.unwrap_or_else(|| panic!("{kind} has no `fraction`"));
            assert_eq!((&fraction.default, fraction.required), (&Some(1.0.into()), false), "{kind}");
        }
    }

    #[test]
    fn what_a_kind_takes_can_be_read_off() {
        let catalogue = catalogue();
        let latency = catalogue.iter().find(|entry| entry.kind == "latency").unwrap();
        let find = |name: &str| latency.parameters.iter().find(|parameter| parameter.name == name).unwrap();
        assert_eq!((find("delay").type_.as_str(), find("delay").required), ("duration", true));
        assert_eq!(find("fraction").default, Some(1.0.into()));
        assert_eq!(find("direction").type_, "up | down | both");
        assert_eq!(find("direction").default, Some("down".into()));
        assert!(latency.to_string().contains("pareto: Never less than `delay`"), "{latency}");
        let needs = |kind: &str| catalogue.iter().find(|entry| entry.kind == kind).unwrap().needs.clone();
        assert_eq!(needs("slow-command"), "a link that speaks Redis");
        assert_eq!(needs("latency"), "a link");
        assert_eq!(needs("kill"), "a process that the harness has started");
    }
}
