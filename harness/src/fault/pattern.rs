//! Which calls a fault is about, as scenarios say it: patterns that no call could ever fit are mistakes.

use crate::scenario::About;

/// A path has to be one, from its beginning on and without a query.
pub(super) fn check_path(pattern: Option<&String>, about: &mut About<'_>) {
    let Some(pattern) = pattern else { return };
    if !pattern.starts_with(['/', '*']) || pattern.contains(['?', ' ']) {
        about.parameter(
            "match",
            &format!("`match` is \"{pattern}\", which no path fits"),
            "a path without its query, where `*` stands for any text: \"/items/*/orders\"; or leave it out for all",
        );
    }
}

/// A text that is looked for has to be something: an empty one is in every call.
pub(super) fn check_text(pattern: Option<&String>, about: &mut About<'_>) {
    if pattern.is_some_and(String::is_empty) {
        about.parameter(
            "match",
            "`match` is empty, which says nothing",
            "a text that the call contains; or leave it out",
        );
    }
}

/// What a call begins with is one word: `POST`, `COMMIT`, `EVALSHA`.
pub(super) fn check_word(key: &str, word: Option<&String>, example: &str, about: &mut About<'_>) {
    let fits = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(word) = word.filter(|word| word.is_empty() || !word.chars().all(fits)) {
        about.parameter(
            key,
            &format!("`{key}` is \"{word}\", with which no call begins"),
            format!("one word, such as \"{example}\"; or leave it out for all"),
        );
    }
}
