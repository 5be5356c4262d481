//! How fast a history is judged.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Context, Figure, Unmeasured};
use crate::check::sim::{Run, Size, simulate};
use crate::check::{Evidence, Rules, Verdict, judge, merged};
use crate::history::audit::write_audit;
use crate::history::recorder::{NameId, OpSink, RawOp, Recorder};
use crate::history::{Event, FinalState, LoadTotals, Micros, Op};
use crate::workbench::process_cpu_s;
use crate::{exit, measure};

/// The hidden subcommand that judges a folder in a process of its own, so that its memory can be told.
pub const SUBCOMMAND: &str = "__bench-check";

/// Purchases that give a history of about a million ops.
const PURCHASES: u64 = 850_000;
/// Such sales, each of an item of its own and one after the other, that make a run of ten million ops.
const SALES: i64 = 10;
/// Ops that may wait for the writer; with more it would throw some away.
const AHEAD: u64 = 300_000;

/// Ops per processor second of all checks over a simulated sale of about a million ops; then reading and judging a
/// recorded run of ten times as many.
pub(super) fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context.say("judging a simulated sale of about a million ops");
    let run = simulate(7, None, &Size::large(PURCHASES));
    let ops = run.history.ops.len();
    let begun = process_cpu_s();
    let findings = judge(&run.evidence());
    let cpu_s = process_cpu_s() - begun;
    if merged(&findings) == Verdict::Fail {
        return Err(Unmeasured::Failed("the checks fail a correct sale".into()));
    }
    let detail = format!("{ops} ops and {} ledger rows judged once in {cpu_s:.2} s of CPU", run.audit.ledger.len());
    let mut figures =
        vec![Figure::new("checker_ops_per_second", ops as f64 / cpu_s, "ops per CPU-second").detail(&detail)];
    context.say("recording a run of ten such sales");
    let folder = context.fresh_folder()?;
    record(&run, &folder)?;
    drop(run);
    context.say("reading and judging it in a process of its own");
    figures.extend(judged_apart(&folder)?);
    Ok(figures)
}

/// Writes a run of [`SALES`] sales, each like the one given but of an item, buyers and orders of its own.
fn record(sale: &Run, folder: &Path) -> Result<(), Unmeasured> {
    let history = &sale.history;
    let length = history.ops.iter().map(|op| op.completed_us).max().unwrap_or(0) + 1_000_000;
    let mut rules = Rules { items: Vec::new(), ..sale.rules.clone() };
    let mut audit = FinalState { taken_unix_us: sale.audit.taken_unix_us + SALES * length, ..FinalState::default() };
    let recorder = Recorder::create(folder, &history.info)?;
    let mut sink = recorder.sink();
    let names: Vec<NameId> = ["buyers", "order"].into_iter().map(|name| sink.intern(name)).collect();
    let mut given = 0;
    for n in 0..SALES {
        let item = n + 1;
        for op in &history.ops {
            // The recorder never lets a generator wait, and would throw away what comes too fast.
            while given - recorder.health().ops_written() > AHEAD * 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            put(&mut sink, history.names.get(op.order), history.names.get(op.reason), op, (n, length), &names);
            given += 1;
        }
        for rule in &sale.rules.items {
            let (opens_us, closes_us) = (rule.opens_us + n * length, rule.closes_us + n * length);
            rules.items.push(crate::check::ItemRules { item, opens_us, closes_us, ..rule.clone() });
        }
        audit.stock.extend(sale.audit.stock.iter().cloned().map(|row| crate::history::StockRow { item, ..row }));
        audit.probes.extend(sale.audit.probes.iter().cloned().map(|p| crate::history::DrainProbe { item, ..p }));
        for row in &sale.audit.ledger {
            let mut row = row.clone();
            row.seq = audit.ledger.len() as i64 + 1;
            (row.item, row.at_unix_us) = (item, row.at_unix_us + n * length);
            row.expires_at_unix_us = row.expires_at_unix_us.map(|at| at + n * length);
            row.order = format!("{}-{n}", row.order);
            row.user = renumbered(&row.user, "u", n);
            row.key = row.key.map(|key| renumbered(&key, "k", n));
            audit.ledger.push(row);
        }
    }
    drop(sink);
    for event in &history.events {
        recorder.event(event);
    }
    recorder.event(&Event::LoadTotals(LoadTotals::default()));
    let closed = recorder.close("completed")?;
    if closed.ops_lost > 0 {
        return Err(Unmeasured::Failed(format!("{} ops were lost while recording", closed.ops_lost)));
    }
    write_audit(folder, &audit)?;
    std::fs::write(folder.join("rules.json"), serde_json::to_vec(&rules).map_err(std::io::Error::from)?)?;
    Ok(())
}

/// Numbers of buyers and purchases of one sale, apart from those of the others.
fn apart(number: u64, sale: i64) -> u64 {
    number + sale.unsigned_abs() * PURCHASES * 2
}

fn renumbered(text: &str, prefix: &str, sale: i64) -> String {
    let number = text.strip_prefix(prefix).and_then(|digits| digits.parse().ok());
    number.map_or_else(|| text.to_owned(), |number| format!("{prefix}{}", apart(number, sale)))
}

fn put(sink: &mut OpSink, order: &str, reason: &str, op: &Op, (sale, length): (i64, Micros), names: &[NameId]) {
    let order = if order.is_empty() { String::new() } else { format!("{order}-{sale}") };
    sink.record(RawOp {
        intent: apart(op.intent, sale),
        user: apart(op.user, sale),
        attempt: op.attempt,
        status: op.status,
        role: op.role,
        outcome: op.outcome,
        state: op.state,
        cohort: names[0],
        step: names[1],
        reason,
        order: &order,
        ticket: "",
        token: "",
        item: sale + 1,
        quantity: op.quantity,
        amount_cents: op.amount_cents,
        intended_us: op.intended_us + sale * length,
        invoked_us: op.invoked_us + sale * length,
        completed_us: op.completed_us + sale * length,
    });
}

/// What the judging process says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    ops: usize,
    rows: usize,
    verdict: Verdict,
    read_s: f64,
    judge_s: f64,
    summarize_s: f64,
    /// When it had judged.
    rss_bytes: u64,
}

fn judged_apart(folder: &Path) -> Result<Vec<Figure>, Unmeasured> {
    let output = Command::new(std::env::current_exe()?).arg(SUBCOMMAND).arg(folder).output()?;
    let told: Told = serde_json::from_slice(&output.stdout)
        .map_err(|error| Unmeasured::Failed(format!("the judging process said nothing sensible: {error}")))?;
    if told.verdict == Verdict::Fail {
        return Err(Unmeasured::Failed("the checks fail a correct run".into()));
    }
    let detail = format!(
        "from the run folder to the findings, on all processors: {} ops and {} ledger rows, read in {:.1} s and judged in \
         {:.1} s by the clock; the summary's measurements take another {:.1} s",
        told.ops, told.rows, told.read_s, told.judge_s, told.summarize_s
    );
    let scale = 10_000_000.0 / told.ops.max(1) as f64;
    let seconds = (told.read_s + told.judge_s) * scale;
    let memory = "largest memory of the process that read and judged, summary included";
    Ok(vec![
        Figure::new("checker_10m_seconds", seconds, "s").detail(&detail),
        Figure::new("checker_10m_rss_bytes", told.rss_bytes as f64 * scale, "bytes").detail(memory),
    ])
}

/// The judging process.
pub fn main(folder: &Path) -> i32 {
    match told(folder) {
        Ok(told) => {
            println!("{}", serde_json::to_string(&told).unwrap_or_default());
            exit::PASS
        }
        Err(error) => {
            eprintln!("error: {error}");
            exit::INTERNAL
        }
    }
}

fn told(folder: &Path) -> Result<Told, Unmeasured> {
    let mut begun = Instant::now();
    let mut lap = || std::mem::replace(&mut begun, Instant::now()).elapsed().as_secs_f64();
    let (history, audit) = crate::judge::read(folder)?;
    let audit = audit.unwrap_or_default();
    let rules: Rules =
        serde_json::from_slice(&std::fs::read(folder.join("rules.json"))?).map_err(std::io::Error::from)?;
    let read_s = lap();
    let findings = judge(&Evidence { history: &history, audit: Some(&audit), rules: &rules });
    let judge_s = lap();
    let verdict = merged(&findings);
    let summary = measure::summarize(&history, Some(&audit), &rules, findings, &[], "");
    let summarize_s = lap();
    drop(summary);
    let peak = procfs::process::Process::myself().and_then(|me| me.status()).ok().and_then(|status| status.vmhwm);
    let rss_bytes = peak.unwrap_or(0) * 1024;
    let (ops, rows) = (history.ops.len(), audit.ledger.len());
    Ok(Told { ops, rows, verdict, read_s, judge_s, summarize_s, rss_bytes })
}
