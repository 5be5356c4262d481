//! The `Idempotency-Key` header, and the keys that this process is working on right now.
//!
//! The database has the last word on which key owns which order; the set here only keeps twins of one
//! request from racing each other within a process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

const MAX_KEY_BYTES: usize = 200;

/// Why a key is not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "an idempotency key is 1 to {MAX_KEY_BYTES} visible ASCII characters, bare or as a quoted structured-field string"
)]
pub struct BadKey;

/// Reads a key: a quoted structured-field string (RFC 9651), or the bare characters.
pub fn parse_key(raw: &str) -> Result<String, BadKey> {
    let raw = raw.trim_matches([' ', '\t']);
    let key = if raw.starts_with('"') { unquote(raw)? } else { raw.to_owned() };
    let allowed = |c: char| c.is_ascii_graphic() || c == ' ';
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.chars().all(allowed) {
        return Err(BadKey);
    }
    Ok(key)
}

fn unquote(raw: &str) -> Result<String, BadKey> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(BadKey)?;
    let mut key = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Err(BadKey),
            '\\' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(BadKey),
            },
            _ => key.push(c),
        }
    }
    Ok(key)
}

/// The keys being worked on in this process.
#[derive(Clone, Debug)]
pub struct InFlight {
    keys: Arc<Mutex<HashMap<String, Stage>>>,
    capacity: usize,
}

/// How far the work on a key has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A request is working on it.
    Busy,
    /// The request is answered that it is not known what came of it, and its statement may yet take effect. An order under
    /// the key is certain; that there is none is not.
    Doubtful,
}

/// What became of an attempt to enter a key.
#[derive(Debug)]
pub enum Entry {
    /// The key is ours until the guard is dropped.
    Entered(InFlightGuard),
    /// Another request has the same key, and has come so far.
    Taken(Stage),
    /// Too many keys are being worked on.
    Full,
}

/// Keeps a key entered, and takes it out when dropped, also when the request is cancelled or panics.
#[derive(Debug)]
pub struct InFlightGuard {
    keys: Arc<Mutex<HashMap<String, Stage>>>,
    entry: String,
}

impl InFlight {
    /// A set that holds at most `capacity` keys.
    pub fn new(capacity: usize) -> Self {
        Self { keys: Arc::default(), capacity }
    }

    /// Enters a user's key.
    pub fn enter(&self, user: &str, key: &str) -> Entry {
        let entry = entry(user, key);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = keys.get(&entry) {
            return Entry::Taken(*stage);
        }
        if keys.len() >= self.capacity {
            return Entry::Full;
        }
        keys.insert(entry.clone(), Stage::Busy);
        Entry::Entered(InFlightGuard { keys: Arc::clone(&self.keys), entry })
    }

    /// How far the work on this key has come, if it is not at its end.
    pub fn stage(&self, user: &str, key: &str) -> Option<Stage> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&entry(user, key)).copied()
    }
}

impl InFlightGuard {
    /// Says that the request has no certain answer. The key stays entered until the guard is dropped.
    pub fn doubt(&self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(self.entry.clone(), Stage::Doubtful);
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.entry);
    }
}

/// A line feed cannot occur in a user or a key, so the pair cannot be confused with another.
fn entry(user: &str, key: &str) -> String {
    format!("{user}\n{key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoted_and_bare_keys_are_the_same_key() {
        assert_eq!(parse_key("abc-1").unwrap(), "abc-1");
        assert_eq!(parse_key("\"abc-1\"").unwrap(), "abc-1");
        assert_eq!(parse_key(" \"a\\\"b\\\\c\" ").unwrap(), "a\"b\\c");
    }

    #[test]
    fn broken_keys_are_refused() {
        let long = "x".repeat(201);
        for raw in ["", "\"\"", "\"open", "\"a\"b\"", "\"a\\n\"", "\"", "tab\tinside", "鍵", long.as_str()] {
            assert_eq!(parse_key(raw), Err(BadKey), "{raw:?}");
        }
    }

    #[test]
    fn a_key_is_busy_until_its_guard_is_dropped() {
        let set = InFlight::new(2);
        let Entry::Entered(first) = set.enter("u", "k") else { panic!("free key refused") };
        assert!(matches!(set.enter("u", "k"), Entry::Taken(Stage::Busy)));
        first.doubt();
        assert!(matches!(set.enter("u", "k"), Entry::Taken(Stage::Doubtful)));
        let Entry::Entered(_second) = set.enter("u", "k2") else { panic!("free key refused") };
        assert!(matches!(set.enter("v", "k"), Entry::Full));
        drop(first);
        assert_eq!(set.stage("u", "k"), None);
        assert!(matches!(set.enter("v", "k"), Entry::Entered(_)));
    }

    proptest! {
        #[test]
        fn quoting_any_key_gives_it_back(key in "[ -~]{1,60}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse_key(&quoted), Ok(key));
        }
    }
}
