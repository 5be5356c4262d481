//! Reads a recorded run back.
//!
//! Whatever is wrong inside a history (a part missing, cut short, or with a flipped bit; a torn line of events) is
//! described in [`History::damage`], and the rest is read. Only a part whose seal holds is decoded at all.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use bytes::Bytes;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;

pub use super::audit::read_audit;
use super::part::{COLUMNS, FIRST_COLUMNS, verify};
use super::recorder::{EVENTS_FILE, HISTORY_DIR, PARTIAL_SUFFIX, RUN_FILE};
use super::{Event, History, HistoryError, Names, Op, OrderState, Outcome, Role, RunInfo, Sym};

/// Lines of events that are quoted before the rest is only counted.
const TORN_LINES_QUOTED: usize = 3;
/// Size of an op in a part as it commonly is; only a guess for reserving memory.
const TYPICAL_BYTES_PER_OP: u64 = 16;
/// Slots of the cache of texts; more distinct texts than that only cost time.
const KNOWN_TEXTS: usize = 64;

/// Reads the history of a run.
///
/// The only error is a `run.json` that is missing or unreadable: without it, nothing else can be interpreted.
pub fn read(run_dir: &Path) -> Result<History, HistoryError> {
    let mut history = read_shard(run_dir)?;
    if !history.info.merged.is_empty() {
        // The parts of several shards overlap; one generator would have recorded their ops in the order of completion.
        history.ops.sort_by_key(|op| op.completed_us);
    }
    history.damage.extend(super::shards::untold(&history.info));
    Ok(history)
}

/// The same for a folder that is to be merged with others: that it is only a shard is no damage then.
pub fn read_shard(run_dir: &Path) -> Result<History, HistoryError> {
    let info = read_info(run_dir)?;
    let mut damage = Vec::new();
    let expected = info.closed.as_ref().map(|c| c.ops);
    let (ops, names) = read_ops(&run_dir.join(HISTORY_DIR), expected, &mut damage);
    let events = read_events(&run_dir.join(EVENTS_FILE), &mut damage);
    match &info.closed {
        None => damage.push(format!(
            "{RUN_FILE} does not say that the history was closed: the harness was killed, and about the last second \
             before that is missing"
        )),
        Some(closed) => {
            if closed.ops != ops.len() as u64 {
                damage.push(format!("{RUN_FILE} counts {} ops where {} could be read", closed.ops, ops.len()));
            }
            if let Some(written) = closed.events.filter(|written| (events.len() as u64) < *written) {
                damage.push(format!("{RUN_FILE} counts {written} events where {} could be read", events.len()));
            }
            if closed.ops_lost > 0 {
                damage.push(format!(
                    "the recorder lost {} ops, because it was behind or could not write",
                    closed.ops_lost
                ));
            }
        }
    }
    Ok(History { info, ops, events, names, damage })
}

/// Reads the facts about a run.
pub fn read_info(run_dir: &Path) -> Result<RunInfo, HistoryError> {
    let path = run_dir.join(RUN_FILE);
    let text = fs::read(&path).map_err(|source| HistoryError::NotARun { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|e| HistoryError::NotARun { path, source: e.into() })
}

fn read_events(path: &Path, damage: &mut Vec<String>) -> Vec<Event> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) => {
            damage.push(format!("{EVENTS_FILE} cannot be read: {e}"));
            return Vec::new();
        }
    };
    let mut events = Vec::new();
    let mut torn = 0;
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(event) => events.push(event),
            Err(e) => {
                torn += 1;
                if torn <= TORN_LINES_QUOTED {
                    damage.push(format!("{EVENTS_FILE}, line {}: {e}", index + 1));
                }
            }
        }
    }
    if torn > TORN_LINES_QUOTED {
        damage.push(format!("{EVENTS_FILE}: {} more lines cannot be read", torn - TORN_LINES_QUOTED));
    }
    events
}

/// Reads all parts in the order of their numbers.
fn read_ops(dir: &Path, expected: Option<u64>, damage: &mut Vec<String>) -> (Vec<Op>, Names) {
    let mut names = Names::default();
    let mut ops = Vec::new();
    let parts = list_parts(dir, damage);
    ops.reserve_exact(plausible_ops(dir, &parts, expected));
    let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(parts.len());
    std::thread::scope(|scope| {
        let mut lanes: Vec<Lane> = (0..lanes)
            .map(|lane| {
                let own: Vec<_> = parts.iter().skip(lane).step_by(lanes).map(|(_, name)| dir.join(name)).collect();
                // One part ahead of what is taken, so that what lies ready stays small.
                let (to, decoded) = sync_channel(1);
                let (spare, spares) = channel();
                scope.spawn(move || decode_all(&own, &to, &spares));
                Lane { decoded, spare, symbols: vec![Sym(0)] }
            })
            .collect();
        let in_turn = (0..lanes.len()).cycle();
        for ((_, name), lane) in parts.iter().zip(in_turn) {
            // A decoder that panicked has nothing more to give, and the scope passes its panic on.
            let Ok(part) = lanes[lane].decoded.recv() else { break };
            lanes[lane].learn(&part.new_names, &mut names);
            match part.ops {
                Ok(mut decoded) => {
                    ops.extend(decoded.drain(..).map(|op| lanes[lane].translated(op)));
                    // The thread may have decoded its last part already.
                    let _ = lanes[lane].spare.send(decoded);
                }
                Err(why) => damage.push(format!("{HISTORY_DIR}/{name} cannot be used: {why}")),
            }
        }
    });
    (ops, names)
}

/// A part as a thread decoded it, in symbols of that thread's own.
struct DecodedPart {
    ops: Result<Vec<Op>, String>,
    /// Names that the thread had not met before, in the order of their symbols.
    new_names: Vec<Arc<str>>,
}

/// A thread that decodes every n-th part. The parts are taken in their order, so that a name gets the same symbol however
/// many threads there are.
struct Lane {
    decoded: Receiver<DecodedPart>,
    /// Memory on its way back: asking the system for it anew takes longer than decoding.
    spare: Sender<Vec<Op>>,
    /// What the thread's symbols are called in the history.
    symbols: Vec<Sym>,
}

impl Lane {
    fn learn(&mut self, new_names: &[Arc<str>], names: &mut Names) {
        self.symbols.extend(new_names.iter().map(|name| names.intern(name)));
    }

    fn translated(&self, op: Op) -> Op {
        let known = |sym: Sym| self.symbols[sym.0 as usize];
        Op {
            cohort: known(op.cohort),
            step: known(op.step),
            reason: known(op.reason),
            order: known(op.order),
            ticket: known(op.ticket),
            token: known(op.token),
            ..op
        }
    }
}

/// Decodes parts one after the other, until nobody wants them any more.
fn decode_all(parts: &[PathBuf], to: &SyncSender<DecodedPart>, spares: &Receiver<Vec<Op>>) {
    let mut decoder = Decoder::default();
    // One to fill, one that lies ready and one that is being taken; then those come back.
    let mut fresh = vec![Vec::new(); 3];
    for path in parts {
        let known = decoder.names.len();
        let Some(mut ops) = fresh.pop().or_else(|| spares.recv().ok()) else { return };
        let decoded = match decoder.read_part(path, &mut ops) {
            Ok(()) => {
                // Batches of several generator threads lie one after the other; the sort only has to merge their runs.
                ops.sort_by_key(|op| op.completed_us);
                Ok(ops)
            }
            Err(why) => {
                ops.clear();
                fresh.push(ops);
                Err(why)
            }
        };
        let new_names = decoder.names.texts[known..].to_vec();
        if to.send(DecodedPart { ops: decoded, new_names }).is_err() {
            return;
        }
    }
}

/// How many ops to make room for, so that a long history is not copied while it grows.
///
/// `run.json` says it, but is not believed beyond what the files could hold; without it, their size gives a guess.
fn plausible_ops(dir: &Path, parts: &[(u32, String)], expected: Option<u64>) -> usize {
    let bytes: u64 = parts.iter().filter_map(|(_, name)| fs::metadata(dir.join(name)).ok()).map(|m| m.len()).sum();
    let ops = expected.map_or(bytes / TYPICAL_BYTES_PER_OP, |ops| ops.min(bytes));
    usize::try_from(ops).unwrap_or(0)
}

/// The files with the ops of a run, in their order.
pub fn parts(run_dir: &Path) -> Vec<PathBuf> {
    let dir = run_dir.join(HISTORY_DIR);
    // What is missing among them was told when the history was read.
    list_parts(&dir, &mut Vec::new()).into_iter().map(|(_, name)| dir.join(name)).collect()
}

/// The parts there are, by number; gaps and leftovers are noted as damage.
fn list_parts(dir: &Path, damage: &mut Vec<String>) -> Vec<(u32, String)> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => {
            damage.push(format!("the folder {HISTORY_DIR} cannot be read: {e}"));
            return Vec::new();
        }
    };
    let mut parts = Vec::new();
    let mut leftovers = Vec::new();
    for entry in entries {
        let name = match entry {
            Ok(entry) => entry.file_name().to_string_lossy().into_owned(),
            Err(e) => {
                damage.push(format!("the folder {HISTORY_DIR} cannot be read to its end: {e}"));
                break;
            }
        };
        if name.ends_with(PARTIAL_SUFFIX) {
            leftovers.push(name);
        } else if let Some(number) = part_number(&name) {
            parts.push((number, name));
        }
    }
    parts.sort();
    leftovers.sort();
    let mut expected = 1;
    for (number, _) in &parts {
        if *number > expected {
            damage.push(missing_parts(expected, number - 1));
        }
        expected = number.saturating_add(1);
    }
    for name in leftovers {
        damage.push(format!("{HISTORY_DIR}/{name} was never finished: the harness was killed while it wrote it"));
    }
    parts
}

fn missing_parts(from: u32, until: u32) -> String {
    if from == until {
        format!("{HISTORY_DIR}/ops-{from:05}.parquet is missing")
    } else {
        format!("{HISTORY_DIR}/ops-{from:05}.parquet to ops-{until:05}.parquet are missing")
    }
}

fn part_number(name: &str) -> Option<u32> {
    name.strip_prefix("ops-")?.strip_suffix(".parquet")?.parse().ok()
}

/// Decodes parts column by column; names and buffers are kept from part to part.
#[derive(Default)]
struct Decoder {
    names: Names,
    longs: Vec<i64>,
    ints: Vec<i32>,
    texts: Vec<ByteArray>,
    levels: Vec<i16>,
}

type RowGroup<'a> = Box<dyn RowGroupReader + 'a>;

impl Decoder {
    /// Appends the ops of a part, or says why it cannot be used.
    fn read_part(&mut self, path: &Path, ops: &mut Vec<Op>) -> Result<(), String> {
        let bytes = fs::read(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => "it vanished while the history was read".to_string(),
            _ => e.to_string(),
        })?;
        verify(&bytes)?;
        self.decode(Bytes::from(bytes), ops).map_err(|e| e.to_string())
    }

    fn decode(&mut self, bytes: Bytes, ops: &mut Vec<Op>) -> ParquetResult<()> {
        let file = SerializedFileReader::new(bytes)?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let same = [FIRST_COLUMNS, COLUMNS.len()].contains(&schema.num_columns())
            && schema.columns().iter().zip(COLUMNS).all(|(column, (name, kind, levels))| {
                column.name() == name && column.physical_type() == kind && column.max_def_level() == levels
            });
        if !same {
            return Err(ParquetError::General("its columns are not those of this version of seckill".to_string()));
        }
        for index in 0..file.num_row_groups() {
            let group = file.get_row_group(index)?;
            let rows =
                usize::try_from(group.metadata().num_rows()).map_err(|e| ParquetError::General(e.to_string()))?;
            let from = ops.len();
            ops.resize(from + rows, BLANK);
            self.decode_group(&group, &mut ops[from..])?;
        }
        Ok(())
    }

    /// Fills the ops of one row group, column by column in file order.
    fn decode_group(&mut self, group: &RowGroup<'_>, ops: &mut [Op]) -> ParquetResult<()> {
        self.longs(group, 0, ops, |op, v| op.intent = v.cast_unsigned())?;
        self.longs(group, 1, ops, |op, v| op.user = v.cast_unsigned())?;
        self.ints(group, 2, ops, |op, v| op.attempt = v as u16)?;
        self.ints(group, 3, ops, |op, v| op.status = v as u16)?;
        self.texts(group, 4, ops, |_, text| find(&Role::ALL, Role::name, text), |op, v| op.role = v)?;
        self.texts(group, 5, ops, |_, text| find(&Outcome::ALL, Outcome::name, text), |op, v| op.outcome = v)?;
        self.texts(group, 6, ops, |_, text| find(&OrderState::ALL, OrderState::name, text), |op, v| op.state = v)?;
        self.texts(group, 7, ops, Names::symbol, |op, v| op.cohort = v)?;
        self.texts(group, 8, ops, Names::symbol, |op, v| op.step = v)?;
        self.texts(group, 9, ops, Names::symbol, |op, v| op.reason = v)?;
        self.texts(group, 10, ops, Names::symbol, |op, v| op.order = v)?;
        self.longs(group, 11, ops, |op, v| op.item = v)?;
        self.ints(group, 12, ops, |op, v| op.quantity = v)?;
        self.longs(group, 13, ops, |op, v| op.amount_cents = v)?;
        self.longs(group, 14, ops, |op, v| op.intended_us = v)?;
        self.longs(group, 15, ops, |op, v| op.invoked_us = v)?;
        self.longs(group, 16, ops, |op, v| op.completed_us = v)?;
        if group.num_columns() > FIRST_COLUMNS {
            self.texts(group, 17, ops, Names::symbol, |op, v| op.ticket = v)?;
            self.texts(group, 18, ops, Names::symbol, |op, v| op.token = v)?;
        }
        Ok(())
    }

    fn longs(
        &mut self,
        group: &RowGroup<'_>,
        at: usize,
        ops: &mut [Op],
        set: impl Fn(&mut Op, i64),
    ) -> ParquetResult<()> {
        self.longs.clear();
        read_column::<Int64Type>(group, at, ops.len(), &mut self.longs, None)?;
        ops.iter_mut().zip(&self.longs).for_each(|(op, value)| set(op, *value));
        Ok(())
    }

    fn ints(
        &mut self,
        group: &RowGroup<'_>,
        at: usize,
        ops: &mut [Op],
        set: impl Fn(&mut Op, i32),
    ) -> ParquetResult<()> {
        self.ints.clear();
        read_column::<Int32Type>(group, at, ops.len(), &mut self.ints, None)?;
        ops.iter_mut().zip(&self.ints).for_each(|(op, value)| set(op, *value));
        Ok(())
    }

    /// A column of texts. Null keeps the blank op's value.
    fn texts<V: Copy>(
        &mut self,
        group: &RowGroup<'_>,
        at: usize,
        ops: &mut [Op],
        mut meaning: impl FnMut(&mut Names, &str) -> ParquetResult<V>,
        set: impl Fn(&mut Op, V),
    ) -> ParquetResult<()> {
        self.texts.clear();
        self.levels.clear();
        let optional = COLUMNS[at].2 > 0;
        read_column::<ByteArrayType>(group, at, ops.len(), &mut self.texts, optional.then_some(&mut self.levels))?;
        let mut known = KnownTexts::new();
        let mut values = self.texts.iter();
        for (row, op) in ops.iter_mut().enumerate() {
            if optional && self.levels[row] == 0 {
                continue;
            }
            let text =
                values.next().ok_or_else(|| ParquetError::General("a column of texts is too short".to_string()))?;
            let value = known.get_or(text, |text| meaning(&mut self.names, text))?;
            set(op, value);
        }
        Ok(())
    }
}

impl Names {
    fn symbol(&mut self, text: &str) -> ParquetResult<Sym> {
        Ok(self.intern(text))
    }
}

/// Reads exactly `rows` rows of a column.
fn read_column<T: DataType>(
    group: &RowGroup<'_>,
    at: usize,
    rows: usize,
    values: &mut Vec<T::T>,
    levels: Option<&mut Vec<i16>>,
) -> ParquetResult<()> {
    let mut column: ColumnReaderImpl<T> = get_typed_column_reader(group.get_column_reader(at)?);
    let (records, _, _) = column.read_records(rows, levels, None, values)?;
    if records != rows {
        return Err(ParquetError::General(format!("column {} has {records} of {rows} rows", COLUMNS[at].0)));
    }
    Ok(())
}

/// The value of a fixed set that has this name.
fn find<V: Copy>(all: &[V], name: impl Fn(V) -> &'static str, text: &str) -> ParquetResult<V> {
    let found = all.iter().copied().find(|v| name(*v) == text);
    found.ok_or_else(|| ParquetError::General(format!("{text:?} is not a name that this version of seckill knows")))
}

/// What the texts of a dictionary mean, by where they lie in memory.
///
/// All rows with the same dictionary entry share its bytes, which the column's values keep alive: comparing an address
/// spares hashing the text again for every row.
struct KnownTexts<V> {
    slots: [Option<(*const u8, usize, V)>; KNOWN_TEXTS],
}

impl<V: Copy> KnownTexts<V> {
    fn new() -> Self {
        KnownTexts { slots: [None; KNOWN_TEXTS] }
    }

    fn get_or(&mut self, text: &ByteArray, meaning: impl FnOnce(&str) -> ParquetResult<V>) -> ParquetResult<V> {
        let bytes = text.data();
        let (at, len) = (bytes.as_ptr(), bytes.len());
        // Entries lie next to each other, each with a length of four bytes before it.
        let slot = &mut self.slots[((at as usize) / 4 + len) % KNOWN_TEXTS];
        if let Some((known_at, known_len, value)) = slot
            && *known_at == at
            && *known_len == len
        {
            return Ok(*value);
        }
        let text = std::str::from_utf8(bytes).map_err(|e| ParquetError::General(e.to_string()))?;
        let value = meaning(text)?;
        *slot = Some((at, len, value));
        Ok(value)
    }
}

/// An op before its columns are filled in.
pub(crate) const BLANK: Op = Op {
    intent: 0,
    user: 0,
    attempt: 0,
    status: 0,
    role: Role::Read,
    outcome: Outcome::Ok,
    state: OrderState::Unknown,
    cohort: Sym(0),
    step: Sym(0),
    reason: Sym(0),
    order: Sym(0),
    ticket: Sym(0),
    token: Sym(0),
    item: 0,
    quantity: 0,
    amount_cents: 0,
    intended_us: 0,
    invoked_us: 0,
    completed_us: 0,
};
