//! One file of ops: its columns, how they are encoded, and the seal that tells a whole file from a damaged one.
//!
//! A part is an ordinary Parquet file with one column per field of [`super::Op`], so that people open a history with
//! their own tools. Its footer carries a checksum of the whole file, because Parquet itself notices few flipped bits,
//! and evidence with a flipped bit is worse than none.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use super::{Micros, OrderState, Outcome, Role};

/// The columns of a part, in file order.
const SCHEMA: &str = "message op {
    required int64 intent (integer(64,false));
    required int64 user (integer(64,false));
    required int32 attempt (integer(16,false));
    required int32 status (integer(16,false));
    required binary role (string);
    required binary outcome (string);
    required binary state (string);
    required binary cohort (string);
    required binary step (string);
    optional binary reason (string);
    optional binary order (string);
    required int64 item;
    required int32 quantity;
    required int64 amount_cents;
    required int64 intended_us;
    required int64 invoked_us;
    required int64 completed_us;
    optional binary ticket (string);
    optional binary token (string);
}";

/// Columns of the first histories. Those after them were added later and may be missing.
pub(super) const FIRST_COLUMNS: usize = 17;

/// Name, kind and highest definition level of the columns in file order; the reader refuses a part with others.
pub(super) const COLUMNS: [(&str, Type, i16); 19] = [
    ("intent", Type::INT64, 0),
    ("user", Type::INT64, 0),
    ("attempt", Type::INT32, 0),
    ("status", Type::INT32, 0),
    ("role", Type::BYTE_ARRAY, 0),
    ("outcome", Type::BYTE_ARRAY, 0),
    ("state", Type::BYTE_ARRAY, 0),
    ("cohort", Type::BYTE_ARRAY, 0),
    ("step", Type::BYTE_ARRAY, 0),
    ("reason", Type::BYTE_ARRAY, 1),
    ("order", Type::BYTE_ARRAY, 1),
    ("item", Type::INT64, 0),
    ("quantity", Type::INT32, 0),
    ("amount_cents", Type::INT64, 0),
    ("intended_us", Type::INT64, 0),
    ("invoked_us", Type::INT64, 0),
    ("completed_us", Type::INT64, 0),
    ("ticket", Type::BYTE_ARRAY, 1),
    ("token", Type::BYTE_ARRAY, 1),
];

/// Columns of ever new but close numbers, for which differences are far smaller than a dictionary.
const DELTA_COLUMNS: [&str; 5] = ["intent", "user", "intended_us", "invoked_us", "completed_us"];

/// The key of the seal in the footer's metadata, and what its value looks like before the checksum is known.
const SEAL_KEY: &str = "seckill.seal";
const SEAL_PREFIX: &[u8] = b"crc32:";
const SEAL_BLANK: &[u8; 8] = b"00000000";

static SCHEMA_TYPE: LazyLock<TypePtr> =
    LazyLock::new(|| Arc::new(parse_message_type(SCHEMA).expect("the schema is a constant")));

static PROPERTIES: LazyLock<WriterPropertiesPtr> = LazyLock::new(|| {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("seckill ", env!("CARGO_PKG_VERSION")).to_string())
        // Parts are small, and a reader that looks for something reads them all.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    for name in DELTA_COLUMNS {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    Arc::new(builder.build())
});

/// An op on its way from a sink to a part. Its texts lie in the batch, so that handing it over allocates nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedOp {
    pub intent: u64,
    pub user: u64,
    pub item: i64,
    pub amount_cents: i64,
    pub intended_us: Micros,
    pub invoked_us: Micros,
    pub completed_us: Micros,
    pub cohort: u32,
    pub step: u32,
    pub quantity: i32,
    /// Where in [`Batch::text`] the reason begins; the ids of order, ticket and token follow it.
    pub text_at: u32,
    pub reason_len: u16,
    pub order_len: u16,
    pub ticket_len: u16,
    pub token_len: u16,
    pub attempt: u16,
    pub status: u16,
    pub role: Role,
    pub outcome: Outcome,
    pub state: OrderState,
}

/// Ops of one sink, handed to the writer together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub ops: Vec<PackedOp>,
    pub text: Vec<u8>,
}

impl Batch {
    /// An empty batch whose memory has been touched, so that filling it takes no page faults.
    pub fn warm(ops: usize) -> Batch {
        let mut batch = Batch { ops: Vec::with_capacity(ops), text: vec![1; ops * 8] };
        for slot in batch.ops.spare_capacity_mut() {
            // The compiler must not see that nobody reads these.
            std::hint::black_box(slot.write(PackedOp::BLANK));
        }
        batch.text.clear();
        batch
    }

    /// Forgets the ops and keeps the memory.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.text.clear();
    }
}

impl PackedOp {
    /// Where one of the texts lies in [`Batch::text`], and how long it is: reason, order, ticket, token.
    fn text(&self, which: usize) -> (usize, usize) {
        let lengths = [self.reason_len, self.order_len, self.ticket_len, self.token_len].map(usize::from);
        (self.text_at as usize + lengths[..which].iter().sum::<usize>(), lengths[which])
    }

    const BLANK: PackedOp = PackedOp {
        intent: 0,
        user: 0,
        item: 0,
        amount_cents: 0,
        intended_us: 0,
        invoked_us: 0,
        completed_us: 0,
        cohort: 0,
        step: 0,
        quantity: 0,
        text_at: 0,
        reason_len: 0,
        order_len: 0,
        ticket_len: 0,
        token_len: 0,
        attempt: 0,
        status: 0,
        role: Role::Read,
        outcome: Outcome::Ok,
        state: OrderState::Unknown,
    };
}

/// Builds one part in memory.
///
/// Batches become row groups as they come, which spreads the work over the part's second; the bytes reach the disk at
/// once when the part is finished, since a Parquet file without its footer could not be read anyway.
pub(super) struct PartEncoder {
    file: SerializedFileWriter<Vec<u8>>,
    scratch: Scratch,
    /// Ops encoded so far.
    pub ops: u64,
}

/// Columns under construction, kept between row groups.
#[derive(Default)]
struct Scratch {
    longs: Vec<i64>,
    ints: Vec<i32>,
    texts: Vec<ByteArray>,
    levels: Vec<i16>,
}

/// The texts behind small codes, ready for the encoder.
pub(super) struct TextTables {
    roles: Vec<ByteArray>,
    outcomes: Vec<ByteArray>,
    states: Vec<ByteArray>,
    /// Cohorts and steps by [`super::recorder::NameId`].
    pub names: Vec<ByteArray>,
}

impl TextTables {
    pub fn new() -> TextTables {
        let fixed = |text: &'static str| ByteArray::from(Bytes::from_static(text.as_bytes()));
        TextTables {
            roles: Role::ALL.iter().map(|r| fixed(r.name())).collect(),
            outcomes: Outcome::ALL.iter().map(|o| fixed(o.name())).collect(),
            states: OrderState::ALL.iter().map(|s| fixed(s.name())).collect(),
            names: Vec::new(),
        }
    }

    /// A name by its id. One that this recorder never gave out becomes a visible oddity rather than a panic.
    fn name(&self, id: u32) -> ByteArray {
        match self.names.get(id as usize) {
            Some(name) => name.clone(),
            None => ByteArray::from(Bytes::from_static(b"?")),
        }
    }
}

impl PartEncoder {
    /// Starts a part.
    pub fn new() -> Result<PartEncoder> {
        let file = SerializedFileWriter::new(Vec::new(), SCHEMA_TYPE.clone(), PROPERTIES.clone())?;
        Ok(PartEncoder { file, scratch: Scratch::default(), ops: 0 })
    }

    /// Adds the ops of some batches as one row group.
    pub fn add(&mut self, batches: &[Batch], texts: &TextTables) -> Result<()> {
        let rows: usize = batches.iter().map(|b| b.ops.len()).sum();
        if rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        let mut columns = Columns { group: &mut group, scratch: &mut self.scratch, batches };
        columns.longs(|op| op.intent.cast_signed())?;
        columns.longs(|op| op.user.cast_signed())?;
        columns.ints(|op| i32::from(op.attempt))?;
        columns.ints(|op| i32::from(op.status))?;
        columns.texts(|op| texts.roles[op.role as usize].clone())?;
        columns.texts(|op| texts.outcomes[op.outcome as usize].clone())?;
        columns.texts(|op| texts.states[op.state as usize].clone())?;
        columns.texts(|op| texts.name(op.cohort))?;
        columns.texts(|op| texts.name(op.step))?;
        columns.optional_texts(|op| op.text(0))?;
        columns.optional_texts(|op| op.text(1))?;
        columns.longs(|op| op.item)?;
        columns.ints(|op| op.quantity)?;
        columns.longs(|op| op.amount_cents)?;
        columns.longs(|op| op.intended_us)?;
        columns.longs(|op| op.invoked_us)?;
        columns.longs(|op| op.completed_us)?;
        columns.optional_texts(|op| op.text(2))?;
        columns.optional_texts(|op| op.text(3))?;
        group.close()?;
        self.ops += rows as u64;
        Ok(())
    }

    /// The bytes of the finished file, sealed.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        let blank = [SEAL_PREFIX, SEAL_BLANK].concat();
        let blank = String::from_utf8(blank).map_err(|e| ParquetError::General(e.to_string()))?;
        self.file.append_key_value_metadata(KeyValue::new(SEAL_KEY.to_string(), blank));
        let mut bytes = self.file.into_inner()?;
        let at = seal_position(&bytes).ok_or_else(|| ParquetError::General("the footer has no seal".to_string()))?;
        let checksum = format!("{:08x}", crc32fast::hash(&bytes));
        bytes[at..at + SEAL_BLANK.len()].copy_from_slice(checksum.as_bytes());
        Ok(bytes)
    }
}

/// Writes the columns of one row group, one after the other in file order.
struct Columns<'a, 'g> {
    group: &'a mut SerializedRowGroupWriter<'g, Vec<u8>>,
    scratch: &'a mut Scratch,
    batches: &'a [Batch],
}

impl Columns<'_, '_> {
    fn longs(&mut self, value: impl Fn(&PackedOp) -> i64) -> Result<()> {
        self.scratch.longs.clear();
        self.scratch.longs.extend(self.batches.iter().flat_map(|b| &b.ops).map(value));
        write_column::<Int64Type>(self.group, &self.scratch.longs, None)
    }

    fn ints(&mut self, value: impl Fn(&PackedOp) -> i32) -> Result<()> {
        self.scratch.ints.clear();
        self.scratch.ints.extend(self.batches.iter().flat_map(|b| &b.ops).map(value));
        write_column::<Int32Type>(self.group, &self.scratch.ints, None)
    }

    fn texts(&mut self, value: impl Fn(&PackedOp) -> ByteArray) -> Result<()> {
        self.scratch.texts.clear();
        self.scratch.texts.extend(self.batches.iter().flat_map(|b| &b.ops).map(value));
        write_column::<ByteArrayType>(self.group, &self.scratch.texts, None)
    }

    /// A column of texts that lie in the batches; an empty text is written as null.
    fn optional_texts(&mut self, place: impl Fn(&PackedOp) -> (usize, usize)) -> Result<()> {
        self.scratch.texts.clear();
        self.scratch.levels.clear();
        for batch in self.batches {
            let text = ByteArray::from(batch.text.as_slice());
            for op in &batch.ops {
                let (from, len) = place(op);
                self.scratch.levels.push(i16::from(len > 0));
                if len > 0 {
                    self.scratch.texts.push(text.slice(from, len));
                }
            }
        }
        write_column::<ByteArrayType>(self.group, &self.scratch.texts, Some(&self.scratch.levels))
    }
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<()> {
    let mut column =
        group.next_column()?.ok_or_else(|| ParquetError::General("more columns than the schema has".to_string()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Whether a part is whole: what is wrong with it, if it is not.
pub(super) fn verify(bytes: &[u8]) -> std::result::Result<(), String> {
    if bytes.len() < 12 || !bytes.starts_with(b"PAR1") {
        return Err("it is not a Parquet file, or only the beginning of one".to_string());
    }
    if !bytes.ends_with(b"PAR1") {
        return Err("its end is missing".to_string());
    }
    let at = seal_position(bytes).ok_or_else(|| "its seal is missing or damaged".to_string())?;
    let end = at + SEAL_BLANK.len();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(SEAL_BLANK);
    hasher.update(&bytes[end..]);
    // Digit by digit: read as a number, an `a` that was flipped to an `A` would go unnoticed.
    if bytes[at..end] != *format!("{:08x}", hasher.finalize()).as_bytes() {
        return Err("its checksum does not match its content".to_string());
    }
    Ok(())
}

/// Where the eight digits of the checksum stand, if the file has a footer with a seal.
fn seal_position(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.len().checked_sub(8)?;
    let footer_len = u32::from_le_bytes(bytes.get(tail..tail + 4)?.try_into().ok()?);
    let footer_at = tail.checked_sub(usize::try_from(footer_len).ok()?)?;
    let footer = &bytes[footer_at..tail];
    let found = footer.windows(SEAL_PREFIX.len()).rposition(|window| window == SEAL_PREFIX)?;
    let at = footer_at + found + SEAL_PREFIX.len();
    (at + SEAL_BLANK.len() <= tail).then_some(at)
}

#[cfg(test)]
mod tests {
    use parquet::schema::types::SchemaDescriptor;

    use super::*;

    #[test]
    fn the_schema_has_the_columns_that_the_reader_expects() {
        let schema = SchemaDescriptor::new(SCHEMA_TYPE.clone());
        let columns: Vec<_> =
            schema.columns().iter().map(|c| (c.name(), c.physical_type(), c.max_def_level())).collect();
        assert_eq!(columns, COLUMNS);
    }

    #[test]
    fn codes_are_positions_in_all() {
        for (code, role) in Role::ALL.iter().enumerate() {
            assert_eq!(*role as usize, code);
        }
        for (code, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, code);
        }
        for (code, state) in OrderState::ALL.iter().enumerate() {
            assert_eq!(*state as usize, code);
        }
    }

    #[test]
    fn any_flipped_bit_breaks_the_seal() {
        let mut encoder = PartEncoder::new().unwrap();
        let batch = Batch { ops: vec![PackedOp::BLANK; 3], text: Vec::new() };
        encoder.add(&[batch], &TextTables::new()).unwrap();
        let whole = encoder.finish().unwrap();
        assert_eq!(verify(&whole), Ok(()));
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(verify(&damaged).is_err(), "byte {at} of {}", whole.len());
        }
        for len in 0..whole.len() {
            assert!(verify(&whole[..len]).is_err());
        }
    }
}
