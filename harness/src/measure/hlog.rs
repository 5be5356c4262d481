//! `latency.hlog`: the latencies as an HdrHistogram interval log, for HdrHistogram's own tools.
//!
//! One histogram of microseconds for each step and second of completion, tagged with the step. Latency counts from the
//! intended start, as everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, IntervalLogWriterError, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use super::phases::Numbering;
use super::stats::LatencyHistogram;
use crate::history::{History, HistoryError, Micros, Outcome, Sym};

/// The log's file name in the run folder.
pub const HLOG_FILE: &str = "latency.hlog";

const SECOND_US: Micros = 1_000_000;
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// Latencies of one step by second of completion, in microseconds.
///
/// Ops come nearly ordered by completion, so the second is mostly that of the step's op before.
#[derive(Default)]
struct StepSeconds {
    seconds: BTreeMap<i64, usize>,
    latencies: Vec<Vec<u32>>,
    last: Option<(i64, usize)>,
}

impl StepSeconds {
    fn add(&mut self, second: i64, us: u64) {
        let index = match self.last {
            Some((last, index)) if last == second => index,
            _ => *self.seconds.entry(second).or_insert_with(|| {
                self.latencies.push(Vec::new());
                self.latencies.len() - 1
            }),
        };
        self.last = Some((second, index));
        self.latencies[index].push(u32::try_from(us).unwrap_or(u32::MAX));
    }
}

/// Writes the log of a history into its run folder.
pub fn save(run_dir: &Path, history: &History) -> Result<(), HistoryError> {
    let path = run_dir.join(HLOG_FILE);
    let saved = fs::File::create(&path).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(history, &mut file)?;
        file.flush()
    });
    saved.map_err(|source| HistoryError::Write { path, source })
}

/// Writes the log of a history.
pub fn write<W: Write>(history: &History, out: &mut W) -> io::Result<()> {
    let mut numbers = Numbering::new(history.names.len());
    let mut steps: Vec<StepSeconds> = Vec::new();
    for op in history.ops.iter().filter(|op| op.outcome != Outcome::Dropped) {
        let step = numbers.number(op.step.0);
        if step == steps.len() {
            steps.push(StepSeconds::default());
        }
        steps[step].add(op.completed_us.div_euclid(SECOND_US), op.latency_us());
    }
    let tags: Vec<String> = numbers.seen.iter().map(|step| tag_text(history.names.get(Sym(*step)))).collect();

    let mut intervals: Vec<(i64, usize, usize)> = Vec::new();
    for (step, seconds) in steps.iter().enumerate() {
        intervals.extend(seconds.seconds.iter().map(|(second, index)| (*second, step, *index)));
    }
    // By the name of the step, so that the order in which ops were recorded makes no difference.
    intervals.sort_unstable_by_key(|(second, step, _)| (*second, &tags[*step]));
    // Readers know no negative time, so what completed before the epoch moves the base.
    let base = intervals.first().map_or(0, |(second, ..)| (*second).min(0));
    write_header(history, base, out)?;

    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new().begin_log_with(out, &mut serializer)?;
    let mut histogram = LatencyHistogram::default();
    for (second, step, index) in intervals {
        histogram.clear();
        steps[step].latencies[index].iter().for_each(|us| histogram.record(u64::from(*us)));
        let start = Duration::from_secs(second.saturating_sub(base).unsigned_abs());
        log.write_histogram(histogram.as_hdr(), start, Duration::from_secs(1), Tag::new(&tags[step])).map_err(|e| {
            match e {
                IntervalLogWriterError::IoError(e) => e,
                IntervalLogWriterError::SerializeError(e) => io::Error::other(e),
            }
        })?;
    }
    Ok(())
}

fn write_header<W: Write>(history: &History, base: i64, out: &mut W) -> io::Result<()> {
    let at = |unix_us: i64| -> SystemTime { UNIX_EPOCH + Duration::from_micros(u64::try_from(unix_us).unwrap_or(0)) };
    let epoch = history.info.epoch_unix_us;
    let based = epoch.saturating_add(base.saturating_mul(SECOND_US));
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[Latencies of run {} in microseconds, one tag per step]", history.info.run_id))
        .with_start_time(at(epoch))
        .with_base_time(at(based))
        .begin_log_with(out, &mut serializer)?;
    out.write_all(LEGEND.as_bytes())
}

/// All latencies of a step that a run's log has. None where the log has none of it, or cannot be read.
pub fn read(run_dir: &Path, step: &str) -> Option<LatencyHistogram> {
    let text = fs::read(run_dir.join(HLOG_FILE)).ok()?;
    let tag = tag_text(step);
    let (mut deserializer, mut all) = (Deserializer::new(), LatencyHistogram::default());
    for entry in IntervalLogIterator::new(&text) {
        let LogEntry::Interval(interval) = entry.ok()? else { continue };
        if interval.tag().is_none_or(|found| found.as_str() != tag) {
            continue;
        }
        let compressed = BASE64.decode(interval.encoded_histogram()).ok()?;
        let counts: Histogram<u32> = deserializer.deserialize(&mut compressed.as_slice()).ok()?;
        all.add_counts(&counts);
    }
    (all.count() > 0).then_some(all)
}

/// A step's name without the characters that a tag cannot have.
fn tag_text(step: &str) -> String {
    if step.is_empty() {
        return "unnamed".to_string();
    }
    step.replace([',', ' ', '\r', '\n'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_step_by_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut serializer = V2DeflateSerializer::new();
        let mut out = fs::File::create(folder.path().join(HLOG_FILE)).unwrap();
        let mut log = IntervalLogWriterBuilder::new().begin_log_with(&mut out, &mut serializer).unwrap();
        let second = Duration::from_secs(1);
        for (at, step, values) in [(0, "order", 1..=500), (1, "order", 501..=1_000), (1, "page", 9..=9)] {
            let mut histogram = LatencyHistogram::default();
            values.for_each(|us| histogram.record(us));
            log.write_histogram(histogram.as_hdr(), at * second, second, Tag::new(&tag_text(step))).unwrap();
        }
        let order = read(folder.path(), "order").unwrap();
        assert_eq!((order.count(), order.quantile_us(0.5), order.max_us()), (1_000, 500, 1_000));
        assert_eq!(read(folder.path(), "page").unwrap().count(), 1);
        assert!(read(folder.path(), "pay").is_none() && read(&folder.path().join("none"), "order").is_none());
    }
}
