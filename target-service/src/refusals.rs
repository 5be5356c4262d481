//! Refused keys stay refused (R6).
//!
//! An order answers for its key by itself: whoever repeats the request finds it. A refusal leaves nothing in the database, so
//! a copy of the request that arrives after units came back would be granted, for a buyer who was told "no" long ago. So the
//! service remembers whom it refused, and tells him the same again. Nothing of this asks the database: refusing has to be cheap.
//!
//! **What a restart does.** Each refusal is appended to a file before it is told, and a process that starts reads the file.
//! What was written survives the process, however that ends; a machine that loses its power may forget the last moments.
//!
//! **Bounds.** A refusal is 16 bytes in the file, and about as many in memory. They are kept in two generations: when the young
//! one is full it becomes the old one, and what was old is forgotten. So at least the last [`MOST`] refusals are known. Keys are
//! remembered as the first 64 bits of a SHA-256, of which two million collide with a new one once in 10¹³ times.
//!
//! It is the memory of one process. Where several serve a sale, all requests under a key have to reach the same one.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::order::{Refusal, Wanted};

/// Refusals of a generation.
pub const MOST: usize = 1_000_000;
/// Bytes of a refusal in the file.
const RECORD: usize = 16;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--refusals {}: {source}; name a file in a folder that can be written to", path.display())]
pub struct BadFile {
    path: PathBuf,
    source: io::Error,
}

/// Whom the service refused.
pub struct Refusals {
    inner: Mutex<Inner>,
    most: usize,
}

#[derive(Default)]
struct Inner {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    journal: Option<Journal>,
}

/// What a key was used for, and what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    purchase: u32,
    refusal: u8,
}

/// The file of the young generation; that of the old one lies beside it.
struct Journal {
    path: PathBuf,
    file: File,
}

/// The refusals that a repetition gets again, and their numbers in the file. One that names an order is not among them: the
/// order answers for itself. Nor is the one that says when to come back (7 in older files): who does is judged anew.
const KEPT: [(Refusal, u8); 7] = [
    (Refusal::SoldOut, 1),
    (Refusal::TooEarly, 2),
    (Refusal::Ended, 3),
    (Refusal::LimitReached, 4),
    (Refusal::UnknownItem, 5),
    (Refusal::NonPayer, 6),
    (Refusal::Risky, 8),
];

impl Refusals {
    /// In memory, and in the file if there is one: what it holds already is known from the start.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: Option<&Path>) -> Result<Self, BadFile> {
        Self::with_most(path, MOST)
    }

    fn with_most(path: Option<&Path>, most: usize) -> Result<Self, BadFile> {
        let mut inner = Inner::default();
        if let Some(path) = path {
            let bad = |source| BadFile { path: path.to_owned(), source };
            inner.old = read(&beside(path)).map_err(bad)?;
            inner.young = read(path).map_err(bad)?;
            inner.journal = Some(Journal::append_to(path).map_err(bad)?);
        }
        Ok(Self { inner: Mutex::new(inner), most })
    }

    /// What was said to the same request before, if it was refused.
    pub fn recall(&self, wanted: &Wanted) -> Option<Refusal> {
        let inner = self.lock();
        let key = key_of(wanted);
        let entry = inner.young.get(&key).or_else(|| inner.old.get(&key))?;
        if entry.purchase != purchase_of(wanted) {
            return Some(Refusal::KeyReused);
        }
        KEPT.iter().find(|(_, number)| *number == entry.refusal).map(|(refusal, _)| *refusal)
    }

    /// Remembers a refusal, before it is told.
    ///
    /// # Errors
    /// It cannot be written down, and must not be told therefore.
    pub fn remember(&self, wanted: &Wanted, refusal: Refusal) -> io::Result<()> {
        let Some((_, number)) = KEPT.iter().find(|(kept, _)| *kept == refusal) else { return Ok(()) };
        let (key, entry) = (key_of(wanted), Entry { purchase: purchase_of(wanted), refusal: *number });
        let mut inner = self.lock();
        if inner.young.len() >= self.most {
            inner.turn()?;
        }
        if let Some(journal) = &mut inner.journal {
            journal.file.write_all(&record(key, entry))?;
        }
        inner.young.insert(key, entry);
        Ok(())
    }

    /// Forgets everything: another sale begins.
    ///
    /// # Errors
    /// The file cannot be emptied.
    pub fn clear(&self) -> io::Result<()> {
        let mut inner = self.lock();
        (inner.young, inner.old) = Default::default();
        let Some(journal) = &mut inner.journal else { return Ok(()) };
        journal.file.set_len(0)?;
        remove(&beside(&journal.path))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The young generation becomes the old one.
    fn turn(&mut self) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            std::fs::rename(&journal.path, beside(&journal.path))?;
            *journal = Journal::append_to(&journal.path)?;
        }
        self.old = std::mem::take(&mut self.young);
        Ok(())
    }
}

impl Journal {
    fn append_to(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        // A record that was cut short by a full disk would shift those behind it.
        let whole = file.metadata()?.len() / RECORD as u64 * RECORD as u64;
        file.set_len(whole)?;
        Ok(Self { path: path.to_owned(), file })
    }
}

/// The file of the old generation.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn record(key: u64, entry: Entry) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&key.to_le_bytes());
    record[8..12].copy_from_slice(&entry.purchase.to_le_bytes());
    record[12] = entry.refusal;
    record
}

fn read(path: &Path) -> io::Result<HashMap<u64, Entry>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let entry = |record: &[u8; RECORD]| {
        let [k0, k1, k2, k3, k4, k5, k6, k7, p0, p1, p2, p3, refusal, ..] = *record;
        let key = u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]);
        (key, Entry { purchase: u32::from_le_bytes([p0, p1, p2, p3]), refusal })
    };
    let (records, _) = bytes.as_chunks::<RECORD>();
    Ok(records.iter().map(entry).collect())
}

/// A line feed cannot occur in a user or a key, so the pair cannot be confused with another.
fn key_of(wanted: &Wanted) -> u64 {
    first_bits(&[wanted.user.as_bytes(), b"\n", wanted.key.as_bytes()])
}

fn purchase_of(wanted: &Wanted) -> u32 {
    first_bits(&[&wanted.item.to_le_bytes(), &wanted.quantity.to_le_bytes()]) as u32
}

fn first_bits(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let hash = hash.finalize();
    hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(key: &str, quantity: i32) -> Wanted {
        Wanted { item: 1, user: "u".into(), key: key.into(), quantity, now: 0 }
    }

    #[test]
    fn a_refusal_is_repeated_and_a_key_is_for_one_purchase() {
        let refusals = Refusals::open(None).unwrap();
        assert_eq!(refusals.recall(&wanted("k", 1)), None);
        refusals.remember(&wanted("k", 1), Refusal::SoldOut).unwrap();
        assert_eq!(refusals.recall(&wanted("k", 1)), Some(Refusal::SoldOut));
        assert_eq!(refusals.recall(&wanted("k", 2)), Some(Refusal::KeyReused));
        assert_eq!(refusals.recall(&wanted("other", 1)), None);
        // The order answers for itself.
        refusals.remember(&wanted("bought", 1), Refusal::KeyReused).unwrap();
        assert_eq!(refusals.recall(&wanted("bought", 1)), None);
        // Whoever was told when to come back may.
        refusals.remember(&wanted("early", 1), Refusal::CoolingDown).unwrap();
        assert_eq!(refusals.recall(&wanted("early", 1)), None);
        refusals.clear().unwrap();
        assert_eq!(refusals.recall(&wanted("k", 1)), None);
    }

    #[test]
    fn what_was_told_is_known_to_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refusals");
        let all = KEPT.map(|(refusal, _)| refusal);
        let first = Refusals::with_most(Some(&path), 5).unwrap();
        for (n, refusal) in all.iter().enumerate() {
            first.remember(&wanted(&format!("k{n}"), 1), *refusal).unwrap();
        }
        // It is killed in the middle of a record, with two generations.
        File::options().append(true).open(&path).unwrap().write_all(&[7; 5]).unwrap();
        let second = Refusals::with_most(Some(&path), 5).unwrap();
        for (n, refusal) in all.iter().enumerate() {
            assert_eq!(second.recall(&wanted(&format!("k{n}"), 1)), Some(*refusal), "{n}");
        }
        second.remember(&wanted("after", 1), Refusal::Ended).unwrap();
        let third = Refusals::with_most(Some(&path), 5).unwrap();
        assert_eq!(third.recall(&wanted("after", 1)), Some(Refusal::Ended));
        third.clear().unwrap();
        assert_eq!(Refusals::open(Some(&path)).unwrap().recall(&wanted("k0", 1)), None);
    }

    #[test]
    fn memory_is_bounded_and_the_last_ones_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refusals");
        let refusals = Refusals::with_most(Some(&path), 10).unwrap();
        for n in 0..95 {
            refusals.remember(&wanted(&format!("k{n}"), 1), Refusal::SoldOut).unwrap();
        }
        let known = |n: i32| refusals.recall(&wanted(&format!("k{n}"), 1)).is_some();
        assert!((80..95).all(known));
        assert!(!(0..80).any(known));
        let bytes = [path.clone(), beside(&path)].map(|path| std::fs::metadata(path).unwrap().len());
        assert_eq!(bytes, [5 * 16, 10 * 16]);
    }
}
