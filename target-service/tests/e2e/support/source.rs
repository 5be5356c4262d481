//! The statements that stand in the service's own source, so that a test can tell which of them it has never seen run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Not what the service sells by: wrong on purpose, slow on purpose, and what prepares the schema before anything is sold.
const NOT_OF_A_SALE: [&str; 3] = ["bugs/", "slow.rs", "store/schema.rs"];
/// What makes a text a piece of a statement.
const WORDS: [&str; 5] = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "FROM "];
/// A shorter piece is in many statements, and tells none of them from the others.
const SHORTEST: usize = 12;

/// Pieces of statements in the sources of the service, each with its file. A statement that is put together from several pieces has
/// all of them.
pub fn statements() -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    for file in files(&root) {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if NOT_OF_A_SALE.iter().any(|not| name.starts_with(not)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let sold = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for literal in literals(sold) {
            let piece = plain(&literal);
            if piece.len() >= SHORTEST && WORDS.iter().any(|word| piece.contains(word)) {
                found.insert((name.clone(), piece));
            }
        }
    }
    found
}

/// A text in one line, however it was laid out.
pub fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The text literals of a piece of Rust; comments and characters are none.
fn literals(source: &str) -> Vec<String> {
    let (mut rest, mut found) = (source, Vec::new());
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("r#\"") {
            let end = rest[3..].find("\"#").map_or(rest.len(), |end| end + 3);
            found.push(rest[3..end].to_owned());
            rest = rest.get(end + 2..).unwrap_or_default();
        } else if first == '"' {
            let (literal, after) = quoted(&rest[1..]);
            found.push(literal);
            rest = after;
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            rest = &rest[3..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// A literal from behind its opening quote, and what follows the closing one.
fn quoted(source: &str) -> (String, &str) {
    let (mut literal, mut characters) = (String::new(), source.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (literal, &source[at + 1..]),
            '\\' => match characters.next() {
                // The line goes on, and its layout is no part of it.
                Some((_, '\n')) => {
                    let layout = characters.clone().take_while(|(_, more)| more.is_whitespace()).count();
                    (0..layout).for_each(|_| {
                        characters.next();
                    });
                }
                Some((_, 'n' | 't')) => literal.push(' '),
                Some((_, other)) => literal.push(other),
                None => break,
            },
            other => literal.push(other),
        }
    }
    (literal, "")
}
