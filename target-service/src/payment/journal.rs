//! Keeps the books in a file that is only appended to, and synced before anybody is told anything.
//!
//! One thread owns books and file. It works off whatever has come in meanwhile and syncs once for all of it, so that many
//! captures at once wait for one disk access together.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::sync::{mpsc, oneshot};

use super::books::{Books, Entry};

/// Questions that may wait; further ones are told to come back later.
const QUEUE: usize = 4_096;
/// Questions worked off before the file is synced.
const BATCH: usize = 256;

/// Something to be done with the books; it hands its answer over when it is told that the books are safe.
type Question = Box<dyn FnOnce(&mut Books) -> Box<dyn FnOnce() + Send> + Send>;

enum Order {
    Ask(Question),
    Reset(oneshot::Sender<()>),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// The way to the books.
#[derive(Clone)]
pub struct Journal {
    orders: mpsc::Sender<Order>,
}

impl Journal {
    /// Reads the file, if there is one, and starts the thread. `failed` is called when the file cannot be written any more.
    pub fn open(path: &Path, failed: impl FnOnce() + Send + 'static) -> Result<Self> {
        let (file, books) = load(path)?;
        let (orders, received) = mpsc::channel(QUEUE);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                if let Err(error) = keep(file, books, received) {
                    tracing::error!(%error, path = %path.display(), "the books cannot be written, so nothing is captured any more");
                    failed();
                }
            })
            .context("starting the thread of the books")?;
        Ok(Self { orders })
    }

    /// Does something with the books, and gives the answer when everything that it rests on is on disk.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Books) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Ask(Box::new(move |books| {
            let said = question(books);
            Box::new(move || {
                // Whoever asked may have gone.
                let _ = answer.send(said);
            })
        }));
        self.orders.try_send(order).map_err(|_| Unavailable)?;
        answered.await.map_err(|_| Unavailable)
    }

    /// Forgets everything, on disk, too.
    pub async fn reset(&self) -> Result<(), Unavailable> {
        let (done, answered) = oneshot::channel();
        self.orders.send(Order::Reset(done)).await.map_err(|_| Unavailable)?;
        answered.await.map_err(|_| Unavailable)
    }
}

/// Opens the file and takes in its entries. What was being written when the process was killed was never answered for.
fn load(path: &Path) -> Result<(File, Books)> {
    let named = |what: &str| format!("{what} {}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| named("opening the books"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| named("reading the books"))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    if whole < bytes.len() {
        tracing::warn!(bytes = bytes.len() - whole, "the last entry was cut off, and is forgotten");
        file.set_len(whole as u64).with_context(|| named("mending the books"))?;
    }
    let mut books = Books::default();
    for (number, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Entry>(line) {
            Ok(entry) => books.replay(entry),
            Err(error) => bail!(
                "{}:{}: {error}; these are not books of captures, or they are damaged: move the file away to begin anew",
                path.display(),
                number + 1
            ),
        }
    }
    sync_folder(path).with_context(|| named("syncing the folder of"))?;
    Ok((file, books))
}

/// A file that was just made is only there after a power cut if its folder was synced as well.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.map_or_else(|| PathBuf::from("."), Path::to_path_buf))?.sync_all()
}

fn keep(mut file: File, mut books: Books, mut received: mpsc::Receiver<Order>) -> io::Result<()> {
    while let Some(first) = received.blocking_recv() {
        let mut next = Some(first);
        let (known, mut answers, mut lines) = (books.len(), Vec::new(), Vec::new());
        while let Some(order) = next {
            match order {
                Order::Ask(question) => answers.push(question(&mut books)),
                Order::Reset(done) => {
                    write(&mut file, &mut lines, books.since(known))?;
                    answers.drain(..).for_each(|answer| answer());
                    books = Books::default();
                    file.set_len(0)?;
                    file.sync_data()?;
                    let _ = done.send(());
                    break;
                }
            }
            next = if answers.len() < BATCH { received.try_recv().ok() } else { None };
        }
        if !answers.is_empty() {
            write(&mut file, &mut lines, books.since(known))?;
            answers.into_iter().for_each(|answer| answer());
        }
    }
    Ok(())
}

fn write(file: &mut File, lines: &mut Vec<u8>, entries: &[Entry]) -> io::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    for entry in entries {
        serde_json::to_writer(&mut *lines, entry)?;
        lines.push(b'\n');
    }
    file.write_all(lines)?;
    lines.clear();
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::super::books::{Answer, State};
    use super::*;

    fn capture(key: &'static str) -> impl FnOnce(&mut Books) -> Answer + Send + 'static {
        move |books| books.capture(key, "17", 100, false, 1)
    }

    #[tokio::test]
    async fn the_books_survive_their_process_and_a_line_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books.jsonl");
        let journal = Journal::open(&path, || {}).unwrap();
        assert!(matches!(journal.ask(capture("a")).await, Ok(Answer::New(_))));
        assert!(matches!(journal.ask(capture("b")).await, Ok(Answer::New(_))));
        drop(journal);
        let mut text = std::fs::read(&path).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 2);
        text.extend_from_slice(b"{\"seq\":3,\"at\":1,\"kin");
        std::fs::write(&path, text).unwrap();

        let journal = Journal::open(&path, || {}).unwrap();
        assert!(matches!(journal.ask(capture("a")).await, Ok(Answer::Again(_))), "known from before");
        assert!(matches!(journal.ask(capture("c")).await, Ok(Answer::New(_))));
        let state = journal.ask(|books| books.refund("b", 2).state).await;
        assert_eq!(state, Ok(State::Refunded));
        let seqs: Vec<i64> =
            journal.ask(|books| books.page(0, 9).0.iter().map(|entry| entry.seq).collect()).await.unwrap();
        assert_eq!(seqs, [1, 2, 3, 4]);
        journal.reset().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert!(matches!(journal.ask(capture("a")).await, Ok(Answer::New(_))));
    }

    #[test]
    fn what_are_no_books_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books.jsonl");
        std::fs::write(&path, "hello\n").unwrap();
        let complaint = format!("{:#}", Journal::open(&path, || {}).err().unwrap());
        assert!(complaint.contains("books.jsonl:1") && complaint.contains("move the file away"), "{complaint}");
    }
}
