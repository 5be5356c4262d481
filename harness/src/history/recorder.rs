//! Writes the ops of a run as they happen.
//!
//! The generator must never wait for its own evidence: an [`OpSink`] copies an op into a batch of its own thread, and
//! hands full batches over a bounded channel to one writer thread. When the writer is so far behind that the channel is
//! full, the batch is thrown away and counted, which makes the verdict of the run unknown.
//!
//! The writer makes one Parquet part about every second, each written under another name and renamed when it is whole:
//! whenever the harness is killed, what was recorded until about a second before can be read.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parquet::data_type::ByteArray;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::part::{Batch, PackedOp, PartEncoder, TextTables};
use super::{Closed, Event, HistoryError, Micros, OrderState, Outcome, Role, RunInfo};

/// The file with the facts about the run.
pub const RUN_FILE: &str = "run.json";
/// The file with the events.
pub const EVENTS_FILE: &str = "events.jsonl";
/// The folder with the ops.
pub const HISTORY_DIR: &str = "history";
/// What a part is called until it is whole: its name followed by this.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// Ops encoded together. Small enough that encoding them does not keep a processor from the generator for long.
const ROW_GROUP_OPS: usize = 16_384;
/// Text of one batch after which it is handed over however few ops it has.
const BATCH_TEXT_BYTES: usize = 1 << 20;
/// How long a sink that is dropped waits for room, since nothing else will bring its last ops to the writer.
const LAST_BATCH_PATIENCE: Duration = Duration::from_secs(5);

/// The sizes of a recorder. The defaults are for use; tests choose others to reach the limits.
#[derive(Debug, Clone)]
pub struct RecorderOptions {
    /// Ops that a sink collects before it hands them over.
    pub batch_ops: usize,
    /// Batches that may wait for the writer; more are thrown away and counted.
    pub channel_batches: usize,
    /// Ops after which a part is finished.
    pub part_ops: u64,
    /// Time after which a part is finished.
    pub part_every: Duration,
    /// Rests the writer after each batch, so that tests can overflow the channel. Zero in use.
    pub writer_rest: Duration,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        RecorderOptions {
            batch_ops: 1024,
            channel_batches: 1024,
            part_ops: 250_000,
            part_every: Duration::from_secs(1),
            writer_rest: Duration::ZERO,
        }
    }
}

/// A cohort's or a step's name, given out by [`Recorder::intern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameId(u32);

/// An op as the generator knows it; the fields mean what those of [`super::Op`] mean.
///
/// The texts are copied by [`OpSink::record`], so they may borrow from a buffer that is used again; they are empty where
/// there is none. Beyond 65,535 bytes they are cut off.
#[derive(Debug, Clone, Copy)]
pub struct RawOp<'a> {
    /// The logical purchase.
    pub intent: u64,
    /// The buyer's number.
    pub user: u64,
    /// 1 for the first try.
    pub attempt: u16,
    /// HTTP status, 0 where no reply came.
    pub status: u16,
    /// What the step means.
    pub role: Role,
    /// How it ended.
    pub outcome: Outcome,
    /// The state of the order named in the reply.
    pub state: OrderState,
    /// The cohort.
    pub cohort: NameId,
    /// The step.
    pub step: NameId,
    /// Why it failed or is indeterminate.
    pub reason: &'a str,
    /// The order's id as the service gave it.
    pub order: &'a str,
    /// The ticket that the reply gave, or that was asked about.
    pub ticket: &'a str,
    /// The single-use token that was spent or given.
    pub token: &'a str,
    /// The item asked for, 0 if none.
    pub item: i64,
    /// Units asked for.
    pub quantity: i32,
    /// Amount as the reply states it, -1 if it does not.
    pub amount_cents: i64,
    /// When it should have started.
    pub intended_us: Micros,
    /// When it did.
    pub invoked_us: Micros,
    /// When it ended.
    pub completed_us: Micros,
}

/// An op as it is shown to an onlooker.
#[derive(Debug, Clone, Copy)]
pub struct Glimpse<'a> {
    /// The step.
    pub step: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP status, 0 where no reply came.
    pub status: u16,
    /// Why it failed or is indeterminate; empty when ok.
    pub reason: &'a str,
    /// When it ended.
    pub completed_us: Micros,
    /// From the intended start.
    pub latency_us: u64,
}

/// Who looks on while a run is recorded. Ops are shown on the writer's thread, in batches of up to 100 ms, and events where they
/// happen: an onlooker has to be quick. What it does changes nothing of what is written.
pub trait Onlooker: Send + Sync + std::fmt::Debug {
    /// Sees a batch of ops.
    fn ops(&self, ops: &mut dyn Iterator<Item = Glimpse<'_>>);

    /// Sees an event.
    fn event(&self, event: &Event);
}

/// Locks without regard to poison: every value behind a lock here is whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the evidence is reaching the disk; shared with whoever can stop the run.
#[derive(Debug, Clone, Default)]
pub struct RecorderHealth {
    inner: Arc<HealthInner>,
}

#[derive(Debug, Default)]
struct HealthInner {
    ops_written: AtomicU64,
    ops_lost: AtomicU64,
    first_error: Mutex<Option<String>>,
    failed: CancellationToken,
}

impl RecorderHealth {
    /// Ops that are safely in finished parts.
    pub fn ops_written(&self) -> u64 {
        self.inner.ops_written.load(Ordering::Relaxed)
    }

    /// Ops thrown away so far, because the writer was behind or could not write.
    pub fn ops_lost(&self) -> u64 {
        self.inner.ops_lost.load(Ordering::Relaxed)
    }

    /// The first write error, with the file and the remedy, if there was one.
    pub fn error(&self) -> Option<String> {
        lock(&self.inner.first_error).clone()
    }

    /// Waits until something could not be written; for ever if all goes well.
    pub async fn failed(&self) {
        self.inner.failed.cancelled().await;
    }

    fn lose(&self, ops: u64) {
        self.inner.ops_lost.fetch_add(ops, Ordering::Relaxed);
    }

    fn report(&self, error: &HistoryError) {
        tracing::error!("{error}");
        lock(&self.inner.first_error).get_or_insert_with(|| error.to_string());
        self.inner.failed.cancel();
    }
}

/// What sinks and writer share.
#[derive(Debug)]
struct Shared {
    names: Mutex<NameTable>,
    /// Emptied batches on their way back to the sinks.
    pool: Mutex<Vec<Batch>>,
    health: RecorderHealth,
    /// How many ops each sink was given, so that closing can tell exactly how many are missing.
    tallies: Mutex<Vec<Arc<Tally>>>,
    live_sinks: AtomicUsize,
    onlooker: OnceLock<Arc<dyn Onlooker>>,
}

#[derive(Debug, Default)]
struct NameTable {
    texts: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, NameId>,
}

impl Shared {
    fn intern(&self, text: &str) -> NameId {
        let mut names = lock(&self.names);
        if let Some(id) = names.ids.get(text) {
            return *id;
        }
        let id = NameId(u32::try_from(names.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        names.texts.push(text.clone());
        names.ids.insert(text, id);
        id
    }
}

/// A counter with a cache line of its own, since each sink bumps its own one at every op.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Tally(AtomicU64);

enum Message {
    Batch(Batch),
    Close,
}

/// Writes the history of one run into its folder.
#[derive(Debug)]
pub struct Recorder {
    run_dir: PathBuf,
    info: RunInfo,
    options: RecorderOptions,
    shared: Arc<Shared>,
    events: EventSink,
    to_writer: SyncSender<Message>,
    writer: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Opens the history of a run: writes `run.json` at once and starts the writer.
    ///
    /// The folder is made if it is not there; one that already holds a run is refused, since evidence is never
    /// written over.
    pub fn create(run_dir: &Path, info: &RunInfo) -> Result<Recorder, HistoryError> {
        Recorder::with_options(run_dir, info, RecorderOptions::default())
    }

    /// The same with other sizes.
    pub fn with_options(run_dir: &Path, info: &RunInfo, options: RecorderOptions) -> Result<Recorder, HistoryError> {
        let history_dir = run_dir.join(HISTORY_DIR);
        for taken in [run_dir.join(RUN_FILE), run_dir.join(EVENTS_FILE), history_dir.clone()] {
            if taken.exists() {
                return Err(HistoryError::Occupied { path: taken });
            }
        }
        fs::create_dir_all(&history_dir).map_err(|e| HistoryError::write(&history_dir, e))?;
        write_json(&run_dir.join(RUN_FILE), info)?;
        let health = RecorderHealth::default();
        let events = EventSink::open(run_dir.join(EVENTS_FILE), health.clone())?;
        let shared = Arc::new(Shared {
            names: Mutex::default(),
            pool: Mutex::default(),
            health,
            tallies: Mutex::default(),
            live_sinks: AtomicUsize::new(0),
            onlooker: OnceLock::new(),
        });
        let (to_writer, inbox) = sync_channel(options.channel_batches.max(1));
        let writer = Writer::new(history_dir.clone(), options.clone(), shared.clone());
        let writer = std::thread::Builder::new()
            .name("history".to_string())
            .spawn(move || writer.run(&inbox))
            .map_err(|source| HistoryError::Thread { path: history_dir, source })?;
        let run_dir = run_dir.to_path_buf();
        Ok(Recorder { run_dir, info: info.clone(), options, shared, events, to_writer, writer: Some(writer) })
    }

    /// The id of a cohort's or a step's name, made if it is new. For set-up, not for the hot path.
    pub fn intern(&self, name: &str) -> NameId {
        self.shared.intern(name)
    }

    /// A sink for one generator thread. It holds some 100 kB: one per thread, not one per buyer.
    pub fn sink(&self) -> OpSink {
        let tally = Arc::new(Tally::default());
        lock(&self.shared.tallies).push(tally.clone());
        self.shared.live_sinks.fetch_add(1, Ordering::Relaxed);
        let batch_ops = self.options.batch_ops.max(1);
        lock(&self.shared.pool).push(Batch::warm(batch_ops));
        OpSink {
            batch: Batch::warm(batch_ops),
            batch_ops,
            recorded: 0,
            tally,
            shared: self.shared.clone(),
            to_writer: self.to_writer.clone(),
        }
    }

    /// A sink for events, for any number of tasks.
    pub fn events(&self) -> EventSink {
        self.events.clone()
    }

    /// Writes an event; see [`EventSink::event`].
    pub fn event(&self, event: &Event) {
        self.events.event(event);
    }

    /// Whether the evidence is reaching the disk.
    pub fn health(&self) -> RecorderHealth {
        self.shared.health.clone()
    }

    /// Shows everything from now on to somebody, too. There is one onlooker at most: a second one sees nothing.
    pub fn show_to(&self, onlooker: Arc<dyn Onlooker>) {
        let _ = self.events.inner.onlooker.set(onlooker.clone());
        let _ = self.shared.onlooker.set(onlooker);
    }

    /// Drains what the sinks handed over, finishes the last part, and notes in `run.json` that the history is whole.
    ///
    /// Drop the sinks before: what is still in their batches counts as lost. Write errors met on the way are in
    /// [`Recorder::health`] and in the count of lost ops; an error from here means that `run.json` itself could not be
    /// written.
    pub fn close(mut self, how: &str) -> Result<Closed, HistoryError> {
        let live = self.shared.live_sinks.load(Ordering::Relaxed);
        if live > 0 {
            tracing::warn!("the history is closed while {live} sinks are in use; what they still hold is lost");
        }
        self.stop_writer();
        let recorded: u64 = lock(&self.shared.tallies).iter().map(|t| t.0.load(Ordering::Acquire)).sum();
        let ops = self.shared.health.ops_written();
        let events = Some(self.events.inner.written.load(Ordering::Relaxed));
        let closed = Closed { how: how.to_string(), ops, ops_lost: recorded.saturating_sub(ops), events };
        self.info.closed = Some(closed.clone());
        write_json(&self.run_dir.join(RUN_FILE), &self.info)?;
        Ok(closed)
    }

    fn stop_writer(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // An error here means that the writer has ended already, which the join below tells better.
        let _ = self.to_writer.send(Message::Close);
        if writer.join().is_err() {
            let path = self.run_dir.join(HISTORY_DIR);
            self.shared.health.report(&HistoryError::write(&path, io::Error::other("the writer panicked")));
        }
    }
}

impl Drop for Recorder {
    /// Saves what there is when a run ends without [`Recorder::close`]; `run.json` then says so by its silence.
    fn drop(&mut self) {
        self.stop_writer();
    }
}

/// Where one generator thread leaves its ops.
#[derive(Debug)]
pub struct OpSink {
    batch: Batch,
    batch_ops: usize,
    recorded: u64,
    tally: Arc<Tally>,
    shared: Arc<Shared>,
    to_writer: SyncSender<Message>,
}

impl OpSink {
    /// Records an op: some tens of nanoseconds, no allocation, never waiting.
    #[inline]
    pub fn record(&mut self, op: RawOp<'_>) {
        if self.batch.ops.len() >= self.batch_ops || self.batch.text.len() > BATCH_TEXT_BYTES {
            self.flush();
        }
        let [reason, order, ticket, token] = [op.reason, op.order, op.ticket, op.token].map(clip);
        let text_at = self.batch.text.len() as u32;
        for text in [reason, order, ticket, token] {
            self.batch.text.extend_from_slice(text);
        }
        self.batch.ops.push(PackedOp {
            intent: op.intent,
            user: op.user,
            item: op.item,
            amount_cents: op.amount_cents,
            intended_us: op.intended_us,
            invoked_us: op.invoked_us,
            completed_us: op.completed_us,
            cohort: op.cohort.0,
            step: op.step.0,
            quantity: op.quantity,
            text_at,
            reason_len: reason.len() as u16,
            order_len: order.len() as u16,
            ticket_len: ticket.len() as u16,
            token_len: token.len() as u16,
            attempt: op.attempt,
            status: op.status,
            role: op.role,
            outcome: op.outcome,
            state: op.state,
        });
        self.recorded += 1;
        self.tally.0.store(self.recorded, Ordering::Release);
    }

    /// Hands over what was recorded. To be called about every 100 ms, so that little is lost when the harness is killed.
    pub fn flush(&mut self) {
        if self.batch.ops.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        match self.to_writer.try_send(Message::Batch(batch)) {
            Err(TrySendError::Full(Message::Batch(batch)) | TrySendError::Disconnected(Message::Batch(batch))) => {
                self.lose(batch);
            }
            _ => self.batch = self.empty_batch(),
        }
    }

    /// The id of a name, as [`Recorder::intern`] gives it. It takes a lock: keep the id.
    pub fn intern(&self, name: &str) -> NameId {
        self.shared.intern(name)
    }

    fn lose(&mut self, mut batch: Batch) {
        self.shared.health.lose(batch.ops.len() as u64);
        batch.clear();
        self.batch = batch;
    }

    /// A batch that the writer gave back, else a new one. It never waits for the pool.
    fn empty_batch(&self) -> Batch {
        let pooled = self.shared.pool.try_lock().ok().and_then(|mut pool| pool.pop());
        pooled.unwrap_or_else(|| Batch::warm(self.batch_ops))
    }
}

impl Drop for OpSink {
    /// The load has ended for this thread, so it may wait a little for its last batch to be taken.
    fn drop(&mut self) {
        let give_up = Instant::now() + LAST_BATCH_PATIENCE;
        let mut batch = std::mem::take(&mut self.batch);
        while !batch.ops.is_empty() {
            match self.to_writer.try_send(Message::Batch(batch)) {
                Err(TrySendError::Full(Message::Batch(back))) if Instant::now() < give_up => {
                    batch = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TrySendError::Full(Message::Batch(back)) | TrySendError::Disconnected(Message::Batch(back))) => {
                    self.lose(back);
                    break;
                }
                _ => break,
            }
        }
        self.shared.live_sinks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a text, cut off where its length would not fit.
fn clip(text: &str) -> &[u8] {
    let max = usize::from(u16::MAX);
    if text.len() <= max {
        return text.as_bytes();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text.as_bytes()[..end]
}

/// Where any task leaves events; clones write to the same file.
#[derive(Debug, Clone)]
pub struct EventSink {
    inner: Arc<EventFile>,
}

#[derive(Debug)]
struct EventFile {
    path: PathBuf,
    file: Mutex<File>,
    written: AtomicU64,
    health: RecorderHealth,
    onlooker: OnceLock<Arc<dyn Onlooker>>,
}

impl EventSink {
    fn open(path: PathBuf, health: RecorderHealth) -> Result<EventSink, HistoryError> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = Mutex::new(file.map_err(|e| HistoryError::write(&path, e))?);
        let (written, onlooker) = (AtomicU64::new(0), OnceLock::new());
        Ok(EventSink { inner: Arc::new(EventFile { path, file, written, health, onlooker }) })
    }

    /// Writes an event as one line, at once. An error is told to the [`RecorderHealth`].
    pub fn event(&self, event: &Event) {
        if let Some(onlooker) = self.inner.onlooker.get() {
            onlooker.event(event);
        }
        let written = serde_json::to_vec(event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            lock(&self.inner.file).write_all(&line)
        });
        match written {
            Ok(()) => drop(self.inner.written.fetch_add(1, Ordering::Relaxed)),
            Err(source) => self.inner.health.report(&HistoryError::write(&self.inner.path, source)),
        }
    }
}

/// The thread that turns batches into parts.
struct Writer {
    history_dir: PathBuf,
    options: RecorderOptions,
    shared: Arc<Shared>,
    texts: TextTables,
    /// Batches that wait to become a row group.
    waiting: Vec<Batch>,
    waiting_ops: usize,
    part: Option<PartEncoder>,
    part_due: Option<Instant>,
    part_number: u32,
}

impl Writer {
    fn new(history_dir: PathBuf, options: RecorderOptions, shared: Arc<Shared>) -> Writer {
        Writer {
            history_dir,
            options,
            shared,
            texts: TextTables::new(),
            waiting: Vec::new(),
            waiting_ops: 0,
            part: None,
            part_due: None,
            part_number: 0,
        }
    }

    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let patience = match self.part_due {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            match inbox.recv_timeout(patience) {
                Ok(Message::Batch(batch)) => self.take(batch),
                Ok(Message::Close) => {
                    while let Ok(Message::Batch(batch)) = inbox.try_recv() {
                        self.take(batch);
                    }
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.part_due.is_some_and(|due| due <= Instant::now()) {
                self.finish_part();
            }
        }
        self.finish_part();
    }

    fn take(&mut self, batch: Batch) {
        self.part_due.get_or_insert_with(|| Instant::now() + self.options.part_every);
        self.waiting_ops += batch.ops.len();
        if let Some(onlooker) = self.shared.onlooker.get() {
            let names = lock(&self.shared.names).texts.clone();
            onlooker.ops(&mut batch.ops.iter().map(|op| glimpse(op, &batch.text, &names)));
        }
        self.waiting.push(batch);
        if self.waiting_ops >= ROW_GROUP_OPS {
            self.encode_waiting();
        }
        if self.part.as_ref().map_or(0, |p| p.ops) + self.waiting_ops as u64 >= self.options.part_ops {
            self.finish_part();
        }
        if !self.options.writer_rest.is_zero() {
            std::thread::sleep(self.options.writer_rest);
        }
    }

    /// Turns the waiting batches into a row group of the current part, and gives their memory back.
    fn encode_waiting(&mut self) {
        self.learn_names();
        let mut part = self.part.take();
        let encoded = match &mut part {
            Some(part) => part.add(&self.waiting, &self.texts),
            None => PartEncoder::new().and_then(|mut new| {
                new.add(&self.waiting, &self.texts)?;
                part = Some(new);
                Ok(())
            }),
        };
        match encoded {
            Ok(()) => self.part = part,
            Err(error) => {
                let ops = part.map_or(0, |p| p.ops) + self.waiting_ops as u64;
                self.part_number += 1;
                self.lose_part(ops, io::Error::other(error));
            }
        }
        self.waiting_ops = 0;
        let mut pool = lock(&self.shared.pool);
        for mut batch in self.waiting.drain(..) {
            // Beyond what a burst needs, memory goes back to the system.
            if pool.len() < 64 {
                batch.clear();
                pool.push(batch);
            }
        }
    }

    /// Copies names that were interned since the last look.
    fn learn_names(&mut self) {
        let names = lock(&self.shared.names);
        let known = self.texts.names.len();
        let new = names.texts[known..].iter().map(|text| ByteArray::from(Bytes::copy_from_slice(text.as_bytes())));
        self.texts.names.extend(new);
    }

    fn finish_part(&mut self) {
        self.part_due = None;
        if !self.waiting.is_empty() {
            self.encode_waiting();
        }
        let Some(part) = self.part.take() else { return };
        self.part_number += 1;
        let ops = part.ops;
        let saved = part
            .finish()
            .map_err(io::Error::other)
            .and_then(|bytes| replace(&self.part_path(), |mut file| file.write_all(&bytes)));
        match saved {
            Ok(()) => {
                self.shared.health.inner.ops_written.fetch_add(ops, Ordering::Release);
            }
            Err(error) => self.lose_part(ops, error),
        }
    }

    fn part_path(&self) -> PathBuf {
        self.history_dir.join(format!("ops-{:05}.parquet", self.part_number))
    }

    /// Gives up a part. Its number stays unused, so that the reader sees the gap even if the run is never closed; nothing
    /// is left of what was written of it, so that the next part may fit on a full disk.
    fn lose_part(&mut self, ops: u64, error: io::Error) {
        self.shared.health.lose(ops);
        self.shared.health.report(&HistoryError::write(&partial_path(&self.part_path()), error));
    }
}

fn glimpse<'a>(op: &PackedOp, text: &'a [u8], names: &'a [Arc<str>]) -> Glimpse<'a> {
    let at = op.text_at as usize;
    Glimpse {
        step: names.get(op.step as usize).map_or("", |name| &**name),
        outcome: op.outcome,
        status: op.status,
        // Cut off at a character's end, if at all.
        reason: std::str::from_utf8(&text[at..at + usize::from(op.reason_len)]).unwrap_or_default(),
        completed_us: op.completed_us,
        latency_us: u64::try_from(op.completed_us.saturating_sub(op.intended_us)).unwrap_or(0),
    }
}

/// Writes a small file so that at every moment either the old one or the new one is there.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HistoryError> {
    replace_json(path, value).map_err(|e| HistoryError::write(path, e))
}

/// The same for files that are no part of a history.
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    replace(path, |mut file| file.write_all(&bytes))
}

/// What a file is called until it is whole.
fn partial_path(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(PARTIAL_SUFFIX);
    partial.into()
}

/// Writes a file under another name, and gives it its own when it is whole. Nothing is left of one that failed.
pub(super) fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = partial_path(path);
    let written = File::create(&temporary).and_then(|file| write(&file)).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
