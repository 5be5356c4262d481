//! What happened, as evidence.
//!
//! This module owns the vocabulary of a recorded run: operations, events, the audited final state, and the facts
//! about the run itself. Everything right of it (checks, measurement, reports) reads only these types; nothing here
//! knows how the load was made or what counts as a violation.
//!
//! Times are microseconds relative to the **epoch** of the run (the moment at which the load's schedule starts), on
//! the monotonic clock of the harness. [`RunInfo::epoch_unix_us`] anchors them to wall-clock time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod audit;
mod error;
mod lenient;
mod part;
pub mod reader;
pub mod recorder;
mod shards;

pub use error::HistoryError;
pub use shards::{MergedShard, ShardInfo, assemble};

/// Microseconds since the epoch of the run; negative before the load starts.
pub type Micros = i64;

/// How one operation ended, as far as the client can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Outcome {
    /// A success reply arrived whole.
    Ok,
    /// The service definitely refused, or the client provably sent no byte.
    Fail,
    /// Indeterminate: timeout, reset, early end of stream, 5xx. It may or may not have taken effect.
    Info,
    /// A planned arrival that was never sent.
    Dropped,
}

impl Outcome {
    /// All outcomes, in the order of their codes.
    pub const ALL: [Outcome; 4] = [Outcome::Ok, Outcome::Fail, Outcome::Info, Outcome::Dropped];

    /// The name used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Info => "info",
            Outcome::Dropped => "dropped",
        }
    }
}

/// What a step means to the checks, whatever the scenario calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Role {
    /// Anything that takes nothing from the stock: pages, login, polling.
    #[default]
    Read,
    /// Takes stock: an order under an idempotency key.
    Order,
    /// Pays an order.
    Pay,
    /// Cancels an order.
    Cancel,
    /// Asks what became of an order by its idempotency key.
    Lookup,
    /// Asks what became of an order that was accepted and not decided yet, by the ticket that stands for it.
    Ticket,
}

impl Role {
    /// All roles, in the order of their codes.
    pub const ALL: [Role; 6] = [Role::Read, Role::Order, Role::Pay, Role::Cancel, Role::Lookup, Role::Ticket];

    /// The name used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Order => "order",
            Role::Pay => "pay",
            Role::Cancel => "cancel",
            Role::Lookup => "lookup",
            Role::Ticket => "ticket",
        }
    }
}

/// The state of an order, as a reply or the audit reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum OrderState {
    /// Not said.
    #[default]
    Unknown,
    /// Stock is reserved until the hold expires.
    Held,
    /// Paid: the stock is sold.
    Paid,
    /// Released by the buyer.
    Cancelled,
    /// Released because the hold's time was up.
    Expired,
    /// Paid, then refunded.
    Refunded,
    /// Accepted, and not decided yet: there may or may not come to be an order.
    Pending,
    /// Decided: there is no order, and there will be none. Only a ticket is answered with it.
    Refused,
    /// Ordered, and nothing is reserved before it is paid.
    Placed,
}

impl OrderState {
    /// All states, in the order of their codes.
    pub const ALL: [OrderState; 9] = [
        OrderState::Unknown,
        OrderState::Held,
        OrderState::Paid,
        OrderState::Cancelled,
        OrderState::Expired,
        OrderState::Refunded,
        OrderState::Pending,
        OrderState::Refused,
        OrderState::Placed,
    ];

    /// The name used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            OrderState::Unknown => "unknown",
            OrderState::Held => "held",
            OrderState::Paid => "paid",
            OrderState::Cancelled => "cancelled",
            OrderState::Expired => "expired",
            OrderState::Refunded => "refunded",
            OrderState::Pending => "pending",
            OrderState::Refused => "refused",
            OrderState::Placed => "placed",
        }
    }

    /// Words for [`OrderState::Pending`].
    pub const PENDING: [&str; 4] = ["accepted", "pending", "queued", "processing"];

    /// Reads a state as a service names it; anything unrecognised is [`OrderState::Unknown`].
    pub fn parse(text: &str) -> OrderState {
        let lower = text.to_ascii_lowercase();
        if OrderState::PENDING.contains(&lower.as_str()) {
            return OrderState::Pending;
        }
        OrderState::ALL.into_iter().find(|s| s.name() == lower).unwrap_or_default()
    }

    /// Whether the units of such an order are still taken from the stock.
    pub fn is_live(self) -> bool {
        matches!(self, OrderState::Held | OrderState::Paid)
    }
}

/// A name in the history's [`Names`] table: a step, a cohort, a reason, or an order id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sym(pub u32);

/// Interned names. [`Sym`] 0 is always the empty name, which means "none".
#[derive(Debug, Clone)]
pub struct Names {
    texts: Vec<Arc<str>>,
    index: HashMap<Arc<str>, Sym>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Names { texts: Vec::new(), index: HashMap::new() };
        names.intern("");
        names
    }
}

impl Names {
    /// The symbol of a name, made if it is new.
    pub fn intern(&mut self, text: &str) -> Sym {
        if let Some(sym) = self.index.get(text) {
            return *sym;
        }
        let sym = Sym(u32::try_from(self.texts.len()).expect("fewer than 2^32 distinct names"));
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.index.insert(text, sym);
        sym
    }

    /// The symbol of a name, if it was ever seen.
    pub fn find(&self, text: &str) -> Option<Sym> {
        self.index.get(text).copied()
    }

    /// How many names there are, the empty one included. Every [`Sym`] of this table is below it.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no name but the empty one.
    pub fn is_empty(&self) -> bool {
        self.texts.len() <= 1
    }

    /// The name of a symbol.
    pub fn get(&self, sym: Sym) -> &str {
        &self.texts[sym.0 as usize]
    }
}

/// One HTTP exchange of a buyer, or a planned arrival that could not be sent ([`Outcome::Dropped`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// The logical purchase that this exchange belongs to: unique per arrival and order step; retries share it.
    pub intent: u64,
    /// The buyer: the number behind [`RunInfo::user_prefix`].
    pub user: u64,
    /// 1 for the first try, counting up with each retry of the same step.
    pub attempt: u16,
    /// HTTP status, 0 where no reply came.
    pub status: u16,
    /// What the step means.
    pub role: Role,
    /// How it ended.
    pub outcome: Outcome,
    /// The state of the order named in the reply.
    pub state: OrderState,
    /// The cohort's name.
    pub cohort: Sym,
    /// The step's name.
    pub step: Sym,
    /// Why it failed or is indeterminate: `sold-out`, `timeout`, ...; empty when ok.
    pub reason: Sym,
    /// The order's id as the service gave it; empty if none.
    pub order: Sym,
    /// The ticket that the reply gave, or that was asked about; empty if none.
    pub ticket: Sym,
    /// The single-use token that an order spent, or that the reply of another step gave; empty if none.
    pub token: Sym,
    /// The item asked for; 0 if the step names none.
    pub item: i64,
    /// Units that the purchase asks for, on orders and tickets; 0 if the step is not about stock.
    pub quantity: i32,
    /// Amount in the currency's smallest unit as the reply states it; -1 if it does not.
    pub amount_cents: i64,
    /// When it should have started. Latency counts from here.
    pub intended_us: Micros,
    /// When the first byte was handed to the socket, or the attempt to connect began.
    pub invoked_us: Micros,
    /// When the reply was complete, or the attempt given up.
    pub completed_us: Micros,
}

impl Op {
    /// Whether the reply tells the buyer that there is an order. One that was accepted and not decided is none yet, and a
    /// lookup has to name what it found.
    pub fn acknowledges(&self) -> bool {
        let role = match self.role {
            Role::Order | Role::Ticket => true,
            Role::Lookup => self.order != Sym(0),
            Role::Read | Role::Pay | Role::Cancel => false,
        };
        role && self.outcome == Outcome::Ok && self.state != OrderState::Pending
    }

    /// Whether the reply tells the buyer that the order was accepted, and that what becomes of it is not decided yet.
    pub fn is_pending(&self) -> bool {
        let role = matches!(self.role, Role::Order | Role::Lookup | Role::Ticket);
        role && self.outcome == Outcome::Ok && self.state == OrderState::Pending
    }

    /// Whether the reply says that a ticket's order was decided against. That a ticket could not be asked about is
    /// another thing.
    pub fn ticket_refused(&self) -> bool {
        self.role == Role::Ticket && self.outcome == Outcome::Fail && self.state == OrderState::Refused
    }

    /// Whether its buyer got no answer: it is indeterminate, was never sent, or never reached the service. A refusal such
    /// as "sold out" is an answer.
    pub fn is_unanswered(&self) -> bool {
        match self.outcome {
            Outcome::Ok => false,
            Outcome::Fail => self.status == 0,
            Outcome::Info | Outcome::Dropped => true,
        }
    }

    /// Latency from the intended start, in microseconds.
    pub fn latency_us(&self) -> u64 {
        u64::try_from(self.completed_us.saturating_sub(self.intended_us)).unwrap_or(0)
    }

    /// How late it was sent, in microseconds.
    pub fn send_lag_us(&self) -> u64 {
        u64::try_from(self.invoked_us.saturating_sub(self.intended_us)).unwrap_or(0)
    }
}

/// Facts about a run that its evidence cannot be read without; `run.json` in the run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunInfo {
    /// Unique to this run; it also tags the traffic.
    pub run_id: String,
    /// The scenario's name.
    pub scenario: String,
    /// The seed of everything random.
    pub seed: u64,
    /// A hash of the planned arrivals: the same seed gives the same hash.
    pub schedule_hash: String,
    /// A hash of the timeline of faults as the seed drew it; empty in a run of before it was told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timeline_hash: String,
    /// Wall-clock time of the epoch, in Unix microseconds.
    pub epoch_unix_us: i64,
    /// Buyers are called this followed by a number.
    pub user_prefix: String,
    /// Idempotency keys are this followed by the number of the intent.
    pub key_prefix: String,
    /// Planned length of the load in microseconds.
    pub duration_us: Micros,
    /// The machine that drove the load.
    pub machine: Machine,
    /// Set when the load ended and the history was closed properly; absent after a crash.
    pub closed: Option<Closed>,
    /// Which of several generators recorded this, if it is one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardInfo>,
    /// The shards that were merged into this run, all that there should be; empty if it was driven by one generator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<MergedShard>,
}

/// How a run ended that came to its planned end.
pub const COMPLETED: &str = "completed";
/// How a run ended that a stop condition of its scenario ended: healed, drained and audited like one that was completed.
pub const STOPPED: &str = "stopped";
/// How soon everything is to be healed when a run is stopped, in microseconds.
pub const HEALED_WITHIN_US: Micros = 2_000_000;

/// Written when a history is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Closed {
    /// Why the run ended: `completed`, `stopped` by a condition of the scenario, `interrupted`, or an error.
    pub how: String,
    /// Ops written over all parts.
    pub ops: u64,
    /// Ops that the recorder had to throw away because the writer was behind. Anything but 0 makes the run unknown.
    pub ops_lost: u64,
    /// Lines of events; absent from runs of before they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
}

/// The machine's fingerprint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Logical processors available.
    pub cpus: u32,
    /// The processor's name.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// `seckill` version.
    pub harness: String,
}

/// Something that happened beside the ops; one JSON line each in `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A named part of the timeline, for reporting.
    Phase {
        /// Its name.
        name: String,
        /// Its start.
        from_us: Micros,
        /// Its end.
        until_us: Micros,
    },
    /// A fault as planned.
    FaultPlanned(FaultPlan),
    /// The event came for which a fault had waited.
    FaultTriggered {
        /// The fault's id.
        id: String,
        /// When it came.
        at_us: Micros,
        /// When the fault is therefore to be injected.
        due_us: Micros,
    },
    /// A fault was not injected: the event for which it waited did not come in time, or another fault lasted that it would have ended.
    FaultSkipped {
        /// The fault's id.
        id: String,
        /// When it was given up.
        at_us: Micros,
        /// Why, for people.
        why: String,
    },
    /// A fault took effect.
    FaultInjected {
        /// The fault's id.
        id: String,
        /// When its injection was complete.
        at_us: Micros,
    },
    /// A fault was taken away again.
    FaultHealed {
        /// The fault's id.
        id: String,
        /// When healing was complete.
        at_us: Micros,
        /// What it really hit, in the fault's own words: connections, bytes, processes.
        hit: String,
        /// How many of what it is about it really hit; 0 if it might as well not have been there. Absent from runs of before it was
        /// counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// The steady-state hypothesis held again after a fault was healed.
    FaultRecovered {
        /// The fault's id.
        id: String,
        /// The first moment from which it held.
        at_us: Micros,
        /// The probe that was the last to hold again, where there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_probe: Option<String>,
    },
    /// A fault could not be injected or healed.
    FaultFailed {
        /// The fault's id.
        id: String,
        /// When.
        at_us: Micros,
        /// Why.
        error: String,
    },
    /// A periodic look at the stack.
    Sample(Sample),
    /// A stop condition was met: everything was healed and the load ended.
    Stopped {
        /// The condition's name.
        stop: String,
        /// When it was met.
        at_us: Micros,
        /// What was measured, against which limit.
        why: String,
    },
    /// Something that makes the harness distrust its own measurement; the verdict is then at best unknown.
    Distrust {
        /// When it was noticed.
        at_us: Micros,
        /// What, and what to do about it.
        why: String,
    },
    /// The traces of the run were to be taken out of the shop.
    CleanedUp {
        /// When that was over.
        at_us: Micros,
        /// Whether nothing is left.
        clean: bool,
        /// For people.
        text: String,
    },
    /// Worth reading, with no bearing on the verdict.
    Note {
        /// When.
        at_us: Micros,
        /// What.
        text: String,
    },
    /// What the roles of the stack had consumed so far, four times a second.
    Used {
        /// When it was looked at.
        at_us: Micros,
        /// The roles.
        roles: Vec<RoleUse>,
    },
    /// Totals of the load, written once when it ended.
    LoadTotals(LoadTotals),
    /// What the run cost, written once after the drain.
    #[serde(with = "as_roles")]
    #[schemars(with = "RolesLine")]
    Cost(Vec<RoleCost>),
    /// Calls over each link, written once after the drain.
    #[serde(with = "as_links")]
    #[schemars(with = "LinksLine")]
    Links(Vec<LinkCalls>),
}

/// A line of events is an object, so a bare list needs a name in it: `{"event":"cost","roles":[...]}`.
#[derive(Serialize, Deserialize, JsonSchema)]
struct RolesLine {
    roles: Vec<RoleCost>,
}

/// The same for links: `{"event":"links","links":[...]}`.
#[derive(Serialize, Deserialize, JsonSchema)]
struct LinksLine {
    links: Vec<LinkCalls>,
}

mod as_roles {
    use super::{Deserialize, RoleCost, RolesLine, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(roles: &[RoleCost], to: S) -> Result<S::Ok, S::Error> {
        RolesLine { roles: roles.to_vec() }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<RoleCost>, D::Error> {
        Ok(RolesLine::deserialize(from)?.roles)
    }
}

mod as_links {
    use super::{Deserialize, LinkCalls, LinksLine, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(links: &[LinkCalls], to: S) -> Result<S::Ok, S::Error> {
        LinksLine { links: links.to_vec() }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<LinkCalls>, D::Error> {
        Ok(LinksLine::deserialize(from)?.links)
    }
}

/// A fault of the timeline.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FaultPlan {
    /// Unique in the scenario.
    pub id: String,
    /// Which kind, e.g. `latency`, `kill`.
    pub kind: String,
    /// The link it is on, if it is a network fault.
    pub link: Option<String>,
    /// The role it is on, if it is a process fault.
    pub role: Option<String>,
    /// In one line for people: `10ms ±5ms`.
    pub detail: String,
    /// When it should be injected; of one with a trigger, when at the latest.
    pub at_us: Micros,
    /// When it should be healed.
    pub until_us: Micros,
    /// The event after which it is injected, for people; none if its time was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Whether the run means something if that event never came.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// How it sets the service's clock wrong, if that is what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockError>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How a clock is set wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClockError {
    /// By how much it is off at once, in microseconds; negative is behind.
    pub step_us: Micros,
    /// Microseconds that it gains in each second from then on; negative for a clock that is slow.
    pub gain_ppm: i64,
}

impl ClockError {
    /// By how much the clock can be off at most after so many microseconds.
    pub fn most_after(&self, us: Micros) -> Micros {
        let gained = i128::from(self.gain_ppm.unsigned_abs()) * i128::from(us.max(0)) / 1_000_000;
        self.step_us.saturating_abs().saturating_add(Micros::try_from(gained).unwrap_or(Micros::MAX))
    }
}

/// A periodic look at the stack.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// When.
    pub at_us: Micros,
    /// Units that the service says can still be bought, by item; none while it does not answer.
    pub available: Option<i64>,
    /// The item the stock is of.
    pub item: i64,
    /// Whether the steady-state probe held.
    pub steady: bool,
    /// How long the probe took, in microseconds.
    pub probe_us: u64,
    /// Why the probe did not hold.
    pub why_not: Option<String>,
    /// How degraded the service says it is, in the header `X-Degrade-Level` of the first probe's reply; 0 is not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade_level: Option<i64>,
}

/// Purchases of one arrival at most: those of arrival `n` are numbered from `n` times this.
pub const INTENTS_PER_ARRIVAL: u64 = 16;

/// Totals of the load as the generator counted them, to be held against the history.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LoadTotals {
    /// Arrivals in the schedule.
    pub planned: u64,
    /// Arrivals whose first request was sent.
    pub sent: u64,
    /// Arrivals that could not be sent.
    pub dropped: u64,
    /// CPU-seconds of the generator's threads.
    pub generator_cpu_s: f64,
    /// Seconds for which the generator was runnable and waited for a processor.
    pub generator_wait_s: f64,
    /// Most virtual buyers busy at once.
    pub busy_max: u64,
    /// Virtual buyers there are.
    pub buyers: u64,
    /// Retries that were not made for want of budget, by cohort; cohorts without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retries_suppressed: BTreeMap<String, u64>,
}

/// Roles of [`RoleCost`] that are the harness's own: its threads that make the load, those of the proxies, and the rest of it.
pub const HARNESS_ROLES: [&str; 3] = ["generator", "proxy", "harness"];

/// What one role of the stack consumed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RoleCost {
    /// `generator`, `proxy`, `harness`, `service`, `postgres`, ...
    pub role: String,
    /// CPU-seconds, user and system.
    pub cpu_s: f64,
    /// Largest memory in use, in bytes.
    pub rss_peak_bytes: u64,
    /// Bytes of write-ahead log, for a database.
    pub wal_bytes: Option<u64>,
    /// Processors in use in its busiest second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores_peak: Option<f64>,
    /// For a database that was asked (`audit.waits`): its sessions at work in the second in which most were, in the mean, by
    /// what they waited for. `cpu` waited for nothing, or for a processor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits: BTreeMap<String, f64>,
}

/// Traffic over one link.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LinkCalls {
    /// Caller.
    pub from: String,
    /// Callee.
    pub to: String,
    /// Requests or statements; none where what passes cannot be read, as with TLS or HTTP/2.
    pub calls: Option<u64>,
    /// Connections opened.
    pub connections: u64,
    /// Bytes from caller to callee.
    pub bytes_up: u64,
    /// Bytes from callee to caller.
    pub bytes_down: u64,
    /// Microseconds that callers waited for their answers, over all connections; 0 in a run of before it was measured.
    #[serde(default)]
    pub waited_us: u64,
}

/// What a role had consumed by some moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RoleUse {
    /// The role: that of a process of the stack.
    pub role: String,
    /// CPU-seconds since watching began, all its processes together.
    pub cpu_s: f64,
}

/// A whole recorded run but for the audit.
#[derive(Debug, Clone)]
pub struct History {
    /// Facts about the run.
    pub info: RunInfo,
    /// Every op, ordered by completion within each part.
    pub ops: Vec<Op>,
    /// Everything else, ordered by time of writing.
    pub events: Vec<Event>,
    /// The names that the ops refer to.
    pub names: Names,
    /// What could not be read: missing or corrupt parts. Not empty means that absence proves nothing.
    pub damage: Vec<String>,
}

/// The kind of a ledger entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// Stock was taken for an order.
    Reserve,
    /// The order was paid.
    Pay,
    /// The order's stock was given back.
    Release,
    /// The payment was given back.
    Refund,
    /// An order was made that takes no stock before it is paid.
    Place,
}

impl EntryKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [EntryKind; 5] =
        [EntryKind::Reserve, EntryKind::Pay, EntryKind::Release, EntryKind::Refund, EntryKind::Place];

    /// The name used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Reserve => "reserve",
            EntryKind::Pay => "pay",
            EntryKind::Release => "release",
            EntryKind::Refund => "refund",
            EntryKind::Place => "place",
        }
    }
}

/// One row of the target's ledger, as audited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerEntry {
    /// Position in the ledger: entries of one item are in the order in which they took effect.
    pub seq: i64,
    /// The service's clock, in Unix microseconds.
    #[serde(rename = "at")]
    pub at_unix_us: i64,
    /// What happened.
    #[serde(deserialize_with = "lenient::kind")]
    pub kind: EntryKind,
    /// The order's id.
    #[serde(deserialize_with = "lenient::text")]
    pub order: String,
    /// The item.
    pub item: i64,
    /// The buyer.
    #[serde(deserialize_with = "lenient::text")]
    pub user: String,
    /// Units.
    pub quantity: i64,
    /// Amount in the currency's smallest unit, where the row carries one.
    #[serde(default)]
    pub amount_cents: Option<i64>,
    /// The idempotency key under which the order was made; on reserve rows.
    #[serde(default, deserialize_with = "lenient::text_or_nothing")]
    pub key: Option<String>,
    /// The order's state at the time of the audit; on reserve rows.
    #[serde(default, deserialize_with = "lenient::state")]
    pub state: Option<OrderState>,
    /// Why stock was released.
    #[serde(default)]
    pub reason: Option<String>,
    /// When the hold ends, in Unix microseconds; on reserve rows.
    #[serde(default, rename = "expires_at")]
    pub expires_at_unix_us: Option<i64>,
}

/// The kind of an entry in the books of the payment dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentKind {
    /// Money was taken.
    Capture,
    /// Money was not taken.
    Decline,
    /// What was taken was given back.
    Refund,
    /// The taking was called off before it happened.
    Void,
}

impl PaymentKind {
    /// The name used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            PaymentKind::Capture => "capture",
            PaymentKind::Decline => "decline",
            PaymentKind::Refund => "refund",
            PaymentKind::Void => "void",
        }
    }
}

/// One entry in the books that the payment dependency keeps itself; one JSON line each in `payments.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentEntry {
    /// Position in the books.
    pub seq: i64,
    /// The dependency's clock, in Unix microseconds.
    #[serde(rename = "at")]
    pub at_unix_us: i64,
    /// What happened.
    pub kind: PaymentKind,
    /// The idempotency key of the capture that it is about.
    pub key: String,
    /// The order that the money is for; empty where nothing was taken.
    #[serde(default)]
    pub order: String,
    /// Amount in the currency's smallest unit.
    pub amount_cents: i64,
}

/// One item's counters, as audited.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StockRow {
    /// The item.
    pub item: i64,
    /// Units at the start.
    pub initial: i64,
    /// Units that can still be bought.
    pub available: i64,
    /// Units reserved and not paid.
    pub held: i64,
    /// Units paid.
    pub sold: i64,
    /// Available units by shard, where the stock is sharded.
    #[serde(default)]
    pub shards: Vec<i64>,
    /// Available units as each cache says at rest, where there are caches: (cache, units).
    #[serde(default)]
    pub caches: Vec<(String, i64)>,
}

/// What happened when fresh buyers tried to buy everything that was left, and one unit more.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DrainProbe {
    /// The item.
    pub item: i64,
    /// Units that the audit said were left.
    pub available: i64,
    /// Fresh buyers who tried to buy one unit each.
    pub buyers: i64,
    /// Units sold to them.
    pub sold: i64,
    /// Buyers who were told that it is sold out.
    pub sold_out: i64,
    /// Buyers who were refused for another reason, or got no clear answer; with examples in `detail`.
    pub other: i64,
    /// For people.
    pub detail: String,
    /// Whether it took longer than a hold lasts without paying for what it bought, which may then have been sold again.
    #[serde(default)]
    pub outlasted_its_holds: bool,
}

/// The target's state after heal, drain and TTL plus grace; `audit.json` and `ledger.jsonl` in the run folder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FinalState {
    /// When the snapshot was taken, in Unix microseconds.
    pub taken_unix_us: i64,
    /// Where it was read from: `http`, `sql`.
    pub source: String,
    /// Counters by item, from the one snapshot.
    pub stock: Vec<StockRow>,
    /// The ledger, from the same snapshot, by `seq`. It is kept in a file of its own.
    #[serde(skip)]
    pub ledger: Vec<LedgerEntry>,
    /// The drain probes, made after the snapshot.
    pub probes: Vec<DrainProbe>,
    /// The books of the payment dependency by `seq`, read right after the snapshot; none if there is no such thing. They are
    /// kept in a file of their own.
    #[serde(skip)]
    pub payments: Option<Vec<PaymentEntry>>,
}
