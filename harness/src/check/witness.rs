//! Shows a violation to a person: ops, ledger rows, counters and faults as lines of text, few and in time order.

use super::index::FaultWindow;
use super::tally::{count, seconds};
use super::{Case, WitnessLine};
use crate::history::{
    DrainProbe, EntryKind, FinalState, LedgerEntry, Micros, Op, OrderState, Outcome, PaymentEntry, Role, StockRow, Sym,
};

/// Lines that a witness may have, faults and the remark on what was left out apart.
const LINES: usize = 10;
/// Faults that are shown with it.
const FAULTS: usize = 3;

/// A witness being put together.
#[derive(Debug, Default)]
pub struct Witness {
    lines: Vec<WitnessLine>,
}

impl Witness {
    /// An op that leads up to the violation.
    pub fn op(&mut self, case: &Case<'_>, op: u32) {
        self.push(op_line(case, &case.history.ops[op as usize], false));
    }

    /// An op that shows the violation.
    pub fn bad_op(&mut self, case: &Case<'_>, op: u32) {
        self.push(op_line(case, &case.history.ops[op as usize], true));
    }

    /// A ledger row that leads up to the violation.
    pub fn row(&mut self, case: &Case<'_>, row: &LedgerEntry) {
        self.push(row_line(case, row, false));
    }

    /// A ledger row that shows the violation.
    pub fn bad_row(&mut self, case: &Case<'_>, row: &LedgerEntry) {
        self.push(row_line(case, row, true));
    }

    /// An entry in the books of the payment dependency that shows the violation.
    pub fn bad_payment(&mut self, case: &Case<'_>, entry: &PaymentEntry) {
        self.push(payment_line(case, entry, true));
    }

    /// One that leads up to it.
    pub fn payment(&mut self, case: &Case<'_>, entry: &PaymentEntry) {
        self.push(payment_line(case, entry, false));
    }

    /// The ops of an intent; a purchase with many retries is shown by its first and last ones.
    pub fn intent(&mut self, case: &Case<'_>, intent: u32) {
        let ops = case.index.ops_of(&case.index.intents[intent as usize]);
        for (n, op) in ops.iter().enumerate() {
            if n < 3 || n + 2 >= ops.len() {
                self.op(case, *op);
            }
        }
    }

    /// An item's counters at the audit.
    pub fn stock(&mut self, case: &Case<'_>, row: &StockRow, offending: bool) {
        let mut text = format!(
            "item {} at the audit: {} available, {} held, {} sold, of {}",
            row.item, row.available, row.held, row.sold, row.initial
        );
        if !row.shards.is_empty() {
            text.push_str(&format!("; shards {:?}", row.shards));
        }
        for (cache, units) in &row.caches {
            text.push_str(&format!("; cache {cache} says {units}"));
        }
        let at = case.audit.map(|audit: &FinalState| case.since_epoch(audit.taken_unix_us));
        self.push(line(at, None, "stock", String::new(), text, offending));
    }

    /// A drain probe.
    pub fn probe(&mut self, probe: &DrainProbe) {
        let mut text = format!(
            "drain probe of item {}: {} left; {} fresh buyers; {} sold, {} told sold out, {} other",
            probe.item, probe.available, probe.buyers, probe.sold, probe.sold_out, probe.other
        );
        if !probe.detail.is_empty() {
            text.push_str(&format!(" ({})", probe.detail));
        }
        self.push(line(None, None, "probe", String::new(), text, true));
    }

    /// A sum or a remark.
    pub fn note(&mut self, text: impl Into<String>) {
        self.push(line(None, None, "note", String::new(), text.into(), false));
    }

    /// The lines: no doubles, about ten of them, in time order, with the faults that were active meanwhile.
    pub fn finish(mut self, case: &Case<'_>) -> Vec<WitnessLine> {
        self.shrink();
        let from = self.lines.iter().filter_map(|line| line.at_us).min();
        let until = self.lines.iter().filter_map(|line| line.until_us.or(line.at_us)).max();
        if let (Some(from), Some(until)) = (from, until) {
            let active = case.index.faults.iter().filter(|fault| overlaps(fault, from, until));
            self.lines.extend(active.take(FAULTS).map(fault_line));
        }
        // What has no time is about the whole, and stands last. The sort is stable: rows at one instant keep their order.
        self.lines.sort_by_key(|line| (line.at_us.is_none(), line.at_us));
        self.lines
    }

    fn push(&mut self, line: WitnessLine) {
        match self.lines.iter_mut().find(|known| known.at_us == line.at_us && known.text == line.text) {
            Some(known) => known.offending |= line.offending,
            None => self.lines.push(line),
        }
    }

    /// Leaves out what leads up to the violation, earliest first, until the rest can be read at a glance.
    fn shrink(&mut self) {
        let excess = self.lines.len().saturating_sub(LINES);
        if excess == 0 {
            return;
        }
        let mut order: Vec<usize> = (0..self.lines.len()).filter(|n| self.lines[*n].source != "note").collect();
        order.sort_by_key(|n| (self.lines[*n].offending, self.lines[*n].at_us, *n));
        let mut gone: Vec<usize> = order.into_iter().take(excess).collect();
        gone.sort_unstable();
        for n in gone.iter().rev() {
            self.lines.remove(*n);
        }
        self.note(format!("{} left out", count(gone.len() as i64, "more line")));
    }
}

impl Case<'_> {
    /// A moment of the service's clock, relative to the epoch.
    pub fn since_epoch(&self, unix_us: i64) -> Micros {
        unix_us.saturating_sub(self.history.info.epoch_unix_us)
    }

    /// A buyer's name.
    pub fn user(&self, user: u64) -> String {
        format!("{}{user}", self.history.info.user_prefix)
    }

    /// An order's id, or words for one that was not named.
    pub fn order(&self, order: Sym) -> String {
        if order == Sym(0) {
            "an order without an id".to_owned()
        } else {
            format!("order {}", self.history.names.get(order))
        }
    }
}

fn line(at: Option<Micros>, until: Option<Micros>, source: &str, user: String, text: String, bad: bool) -> WitnessLine {
    WitnessLine { at_us: at, until_us: until, source: source.to_owned(), user, text, offending: bad }
}

fn op_line(case: &Case<'_>, op: &Op, offending: bool) -> WitnessLine {
    let at = Some(op.invoked_us);
    line(at, Some(op.completed_us), "op", case.user(op.user), op_text(case, op), offending)
}

/// An op in words: `order ok: 201, order 17 held, 1 unit of item 1 (purchase 4, attempt 2)`.
pub fn op_text(case: &Case<'_>, op: &Op) -> String {
    let outcome = match op.outcome {
        Outcome::Ok => "ok",
        Outcome::Fail => "refused",
        Outcome::Info => "indeterminate",
        Outcome::Dropped => "never sent",
    };
    let mut parts = Vec::new();
    if op.status != 0 {
        parts.push(op.status.to_string());
    }
    if op.reason != Sym(0) {
        parts.push(case.history.names.get(op.reason).to_owned());
    }
    let state = if op.state == OrderState::Unknown { String::new() } else { format!(" {}", op.state.name()) };
    let undecided = matches!(op.state, OrderState::Pending | OrderState::Refused);
    if op.order != Sym(0) && !undecided {
        parts.push(format!("{}{state}", case.order(op.order)));
    }
    if op.ticket != Sym(0) {
        let state = if undecided { state.as_str() } else { "" };
        parts.push(format!("ticket {}{state}", case.history.names.get(op.ticket)));
    } else if undecided {
        parts.push(op.state.name().to_owned());
    }
    if op.token != Sym(0) {
        parts.push(format!("token {}", short(case.history.names.get(op.token))));
    }
    if op.role == Role::Order {
        parts.push(format!("{} of item {}", count(i64::from(op.quantity), "unit"), op.item));
    }
    if op.amount_cents >= 0 {
        parts.push(format!("{} cents", op.amount_cents));
    }
    let retry = if op.attempt > 1 { format!(", attempt {}", op.attempt) } else { String::new() };
    format!("{} {outcome}: {} (purchase {}{retry})", op.role.name(), parts.join(", "), op.intent)
}

/// A token as it can be told from others at a glance; signed ones are long.
fn short(token: &str) -> String {
    if token.chars().count() <= 24 {
        return token.to_owned();
    }
    let tail = token.chars().count() - 8;
    format!("{}…{}", token.chars().take(8).collect::<String>(), token.chars().skip(tail).collect::<String>())
}

fn row_line(case: &Case<'_>, row: &LedgerEntry, offending: bool) -> WitnessLine {
    let at = Some(case.since_epoch(row.at_unix_us));
    line(at, None, "ledger", row.user.clone(), row_text(row), offending)
}

fn payment_line(case: &Case<'_>, entry: &PaymentEntry, offending: bool) -> WitnessLine {
    let at = Some(case.since_epoch(entry.at_unix_us));
    let order = if entry.order.is_empty() { String::new() } else { format!(", order {}", entry.order) };
    let PaymentEntry { seq, kind, amount_cents, key, .. } = entry;
    let text = format!("payment {seq}: {}{order}, {amount_cents} cents, key {key}", kind.name());
    line(at, None, "payment", String::new(), text, offending)
}

/// A ledger row in words: `row 9: reserve, order 17, 1 unit of item 1, key k4, held at the audit`.
pub fn row_text(row: &LedgerEntry) -> String {
    let mut text = format!(
        "row {}: {}, order {}, {} of item {}",
        row.seq,
        row.kind.name(),
        row.order,
        count(row.quantity, "unit"),
        row.item
    );
    if let Some(amount) = row.amount_cents {
        text.push_str(&format!(", {amount} cents"));
    }
    if let Some(reason) = &row.reason {
        text.push_str(&format!(", {reason}"));
    }
    if row.kind == EntryKind::Reserve {
        if let Some(key) = &row.key {
            text.push_str(&format!(", key {key}"));
        }
        if let Some(state) = row.state.filter(|state| *state != OrderState::Unknown) {
            text.push_str(&format!(", {} at the audit", state.name()));
        }
    }
    text
}

fn overlaps(fault: &FaultWindow<'_>, from: Micros, until: Micros) -> bool {
    fault.injected.is_some_and(|at| at <= until) && fault.healed.is_none_or(|healed| healed >= from)
}

fn fault_line(fault: &FaultWindow<'_>) -> WitnessLine {
    let what = match fault.plan {
        Some(plan) => {
            let place =
                plan.link.as_deref().or(plan.role.as_deref()).map(|place| format!(" on {place}")).unwrap_or_default();
            format!("{}: {}{place} {}", fault.id, plan.kind, plan.detail)
        }
        None => fault.id.to_owned(),
    };
    let until = fault.healed.map_or(", never healed".to_owned(), |healed| format!(", until {}", seconds(healed)));
    line(fault.injected, fault.healed, "fault", String::new(), format!("{}{until}", what.trim_end()), false)
}
