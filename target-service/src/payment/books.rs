//! The books of the payment dependency: what was captured, declined, given back or barred, by idempotency key.
//!
//! Pure: an order of what happened in, the answer and at most one new entry out. Whoever calls it writes the entry down before
//! he gives the answer away.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What happened under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Money was taken.
    Capture,
    /// Money was not taken, and never will be under this key.
    Decline,
    /// What was taken was given back.
    Refund,
    /// A refund was asked for before the capture came: the capture will be refused when it does.
    Void,
}

/// One line of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, counting up from 1.
    pub seq: i64,
    /// Unix microseconds.
    pub at: i64,
    /// What happened.
    pub kind: Kind,
    /// The idempotency key of the capture.
    pub key: String,
    /// What the money is for; empty if that is not known yet.
    pub order: String,
    /// How much.
    pub amount_cents: i64,
}

/// Where the money under a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Taken, and not given back.
    Captured,
    /// Refused.
    Declined,
    /// Taken and given back.
    Refunded,
    /// Never taken, and barred.
    Voided,
}

/// What a client is told of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The key.
    pub key: String,
    /// What the money is for.
    pub order: String,
    /// How much.
    pub amount_cents: i64,
    /// Where it stands.
    pub state: State,
}

/// What to say to a request to take money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done just now.
    New(Account),
    /// Done before: nothing happened now.
    Again(Account),
    /// The key belongs to another order or amount.
    Reused,
}

/// All entries, and where each key stands.
#[derive(Debug, Default)]
pub struct Books {
    entries: Vec<Entry>,
    accounts: HashMap<String, Account>,
}

impl Books {
    /// Takes in an entry that was written down.
    pub fn replay(&mut self, entry: Entry) {
        let Entry { key, order, amount_cents, kind, .. } = &entry;
        let state = match kind {
            Kind::Capture => State::Captured,
            Kind::Decline => State::Declined,
            Kind::Refund => State::Refunded,
            Kind::Void => State::Voided,
        };
        let account = Account { key: key.clone(), order: order.clone(), amount_cents: *amount_cents, state };
        self.accounts.insert(key.clone(), account);
        self.entries.push(entry);
    }

    fn write(&mut self, at: i64, kind: Kind, key: &str, order: &str, amount_cents: i64) -> Account {
        let seq = self.entries.last().map_or(0, |last| last.seq) + 1;
        self.replay(Entry { seq, at, kind, key: key.to_owned(), order: order.to_owned(), amount_cents });
        self.accounts[key].clone()
    }

    /// Takes money, or declines to; the second time a key comes, it only says what became of it the first time.
    pub fn capture(&mut self, key: &str, order: &str, amount_cents: i64, decline: bool, at: i64) -> Answer {
        match self.accounts.get(key) {
            Some(known) if known.state == State::Voided => Answer::Again(known.clone()),
            Some(known) if known.order != order || known.amount_cents != amount_cents => Answer::Reused,
            Some(known) => Answer::Again(known.clone()),
            None => {
                let kind = if decline { Kind::Decline } else { Kind::Capture };
                Answer::New(self.write(at, kind, key, order, amount_cents))
            }
        }
    }

    /// Gives back what was taken under a key, once. If nothing was taken yet, nothing will be.
    pub fn refund(&mut self, key: &str, at: i64) -> Account {
        match self.accounts.get(key).cloned() {
            Some(Account { state: State::Captured, order, amount_cents, .. }) => {
                self.write(at, Kind::Refund, key, &order, amount_cents)
            }
            Some(settled) => settled,
            None => self.write(at, Kind::Void, key, "", 0),
        }
    }

    /// Where a key stands.
    pub fn find(&self, key: &str) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// So many entries after that number, and the number to go on after if there are more.
    pub fn page(&self, after: i64, limit: usize) -> (Vec<Entry>, Option<i64>) {
        let start = self.entries.partition_point(|entry| entry.seq <= after);
        let end = start.saturating_add(limit).min(self.entries.len());
        let page = self.entries[start..end].to_vec();
        let next = page.last().filter(|_| end < self.entries.len()).map(|last| last.seq);
        (page, next)
    }

    /// The entries from that place on.
    pub fn since(&self, place: usize) -> &[Entry] {
        &self.entries[place..]
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(answer: Answer) -> State {
        match answer {
            Answer::New(account) | Answer::Again(account) => account.state,
            Answer::Reused => panic!("reused"),
        }
    }

    #[test]
    fn a_key_takes_money_once() {
        let mut books = Books::default();
        assert!(matches!(books.capture("k", "17", 100, false, 1), Answer::New(_)));
        assert!(matches!(books.capture("k", "17", 100, true, 2), Answer::Again(a) if a.state == State::Captured));
        assert_eq!(books.capture("k", "18", 100, false, 3), Answer::Reused);
        assert_eq!(books.capture("k", "17", 200, false, 3), Answer::Reused);
        assert_eq!(books.len(), 1);
        assert_eq!(state(books.capture("d", "19", 100, true, 4)), State::Declined);
        assert_eq!(state(books.capture("d", "19", 100, false, 5)), State::Declined, "the same key, the same result");
    }

    #[test]
    fn a_refund_comes_once_and_bars_what_comes_too_late() {
        let mut books = Books::default();
        books.capture("k", "17", 100, false, 1);
        assert_eq!(books.refund("k", 2).state, State::Refunded);
        assert_eq!(books.refund("k", 3).state, State::Refunded);
        assert_eq!(state(books.capture("k", "17", 100, false, 4)), State::Refunded);
        assert_eq!(books.refund("late", 5).state, State::Voided);
        assert_eq!(state(books.capture("late", "18", 100, false, 6)), State::Voided, "overtaken by its refund");
        let kinds: Vec<Kind> = books.since(0).iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Capture, Kind::Refund, Kind::Void]);
    }

    #[test]
    fn books_are_read_in_pages() {
        let mut books = Books::default();
        for n in 0..5 {
            books.capture(&format!("k{n}"), "1", 1, false, n);
        }
        let (first, next) = books.page(0, 3);
        assert_eq!((first.len(), next), (3, Some(3)));
        let (rest, next) = books.page(3, 3);
        assert_eq!((rest[0].seq, rest.len(), next), (4, 2, None));
        assert_eq!(books.page(5, 3), (Vec::new(), None));
    }
}
