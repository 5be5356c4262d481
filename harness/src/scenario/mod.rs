//! Scenario files: TOML in, a validated [`Scenario`] out. Nothing else in the harness reads TOML.
//!
//! Every mistake is reported with the file, the line, the key, what is accepted and how to mend it; several at once
//! where they are independent. A [`Scenario`] that exists is valid: later code need not look again.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::check::{Expectations, ItemRules, Rules};
use crate::history::{Micros, OrderState, Role};
use crate::load::arrival::{Arrivals, Crowd, Plan};
use crate::measure::slo::SloSpec;

pub mod catalogue;
pub(crate) mod diagnose;
pub mod external;
pub mod forecast;
pub mod gate;
pub mod journey;
pub mod outcome;
pub mod pause;
pub mod reading;
mod retry;
pub mod steady;
pub mod template;
pub mod timeline;
pub mod topology;
mod traces;
mod validate;
pub mod value;

use catalogue::Catalogue;
pub use diagnose::{ScenarioError, pointing_at};
pub use external::External;
use outcome::OutcomeRule;
use pause::Pause;
pub use retry::{Retry, RetryPolicy};
pub use steady::{SteadyState, Stop};
pub use timeline::{Chaos, Fault, Planned};
pub use traces::Attached;
pub use validate::About;
use value::{BugChoice, ClockSkew, Dur, Size, Toggle};

/// An experiment, as read from its file and checked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name: letters, digits and dashes. It names the run folder.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub title: String,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What is rehearsed.
    pub target: Target,
    /// The items on sale.
    #[schemars(with = "Vec<Item>")]
    pub item: Vec<Item>,
    /// The load as a whole.
    pub load: Load,
    /// The requests that journeys are made of, by name.
    #[schemars(with = "BTreeMap<String, Step>")]
    pub step: BTreeMap<String, Spanned<Step>>,
    /// What replies mean, where the status does not tell. Tried after the rules of the step; the first that holds decides.
    #[serde(default)]
    #[schemars(with = "Vec<OutcomeRule>")]
    pub outcome: Vec<Spanned<OutcomeRule>>,
    /// Kinds of buyers, by name.
    #[schemars(with = "BTreeMap<String, Cohort>")]
    pub cohort: BTreeMap<String, Spanned<Cohort>>,
    /// Named parts of the timeline, for reporting.
    #[serde(default)]
    pub phase: Vec<Phase>,
    /// What breaks, and when.
    #[serde(default)]
    #[schemars(with = "Vec<Fault>")]
    pub fault: Vec<Spanned<Fault>>,
    /// What breaks at random, within bounds.
    #[serde(default)]
    #[schemars(with = "Vec<Chaos>")]
    pub chaos: Vec<Spanned<Chaos>>,
    /// What it means that the system is well.
    pub steady_state: SteadyState,
    /// What ends the run before its time.
    #[serde(default)]
    #[schemars(with = "Vec<Stop>")]
    pub stop: Vec<Spanned<Stop>>,
    /// What must have happened for the run to mean anything; otherwise its verdict is unknown.
    #[serde(default)]
    pub expect: Expect,
    /// How the final state is judged.
    #[serde(default)]
    pub audit: Audit,
    /// Objectives.
    #[serde(default)]
    #[schemars(with = "Vec<SloSpec>")]
    pub slo: Vec<Spanned<SloSpec>>,
    /// Variants of this experiment, run in turns and compared: strategies, mechanisms on and off, two builds.
    #[serde(default)]
    pub variant: Vec<Variant>,
    /// How they are compared.
    #[serde(default)]
    pub compare: Compare,
    /// What counts as a regression in `seckill gate`.
    #[serde(default)]
    pub gate: gate::Gate,
}

/// The experiment with some values changed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Short name: letters, digits and dashes.
    pub name: String,
    /// What is different, for people.
    #[serde(default)]
    pub title: String,
    /// What is changed, as with `--set`: `"target.strategy=batch"`.
    #[serde(default)]
    pub set: Vec<String>,
}

/// How variants are compared.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compare {
    /// How often each variant is run. They take turns, each round with a seed of its own, the same for all.
    pub rounds: u32,
    /// The step whose latency speaks for a variant. Without it, of all steps that order, the slowest.
    pub order: Option<String>,
    /// Steps whose TP99 is shown beside: what the variants do to others.
    pub beside: Vec<String>,
}

impl Default for Compare {
    fn default() -> Self {
        Compare { rounds: 3, order: None, beside: Vec::new() }
    }
}

fn default_seed() -> u64 {
    1
}

/// What is rehearsed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "a scenario has one of them")]
pub enum Target {
    /// The reference service that comes with the harness.
    Reference(Reference),
    /// Any other service, on this machine or in a private network that is named.
    External(External),
}

/// The reference service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reference {
    /// How stock is deducted.
    pub strategy: String,
    /// Shards of each item with `strategy = "shards"`; 16 unless given.
    pub shards: Option<u16>,
    /// Buyers of one item that wait in the service at once, where the strategy has them wait there (`item-queue`, `batch`); further
    /// ones are told to come back later. As many as the service takes by itself unless given.
    pub queue: Option<u32>,
    /// When stock is deducted.
    pub deduct: Deduct,
    /// Connections from the service to Postgres at most.
    pub pool: u32,
    /// Runtime threads of the service.
    pub workers: u32,
    /// A seeded bug; naming one is the permission to run with it.
    pub bug: Option<BugChoice>,
    /// A planted slow-down, such as `"sleep=3ms"`; naming one is the permission to run with it.
    pub slow: Option<String>,
    /// The program of the service, another build of `seckill-target`; the one beside the harness unless given. Databases and the
    /// other roles stay as they are, so that two builds of the service can be compared: in variants, or by the gate.
    pub program: Option<PathBuf>,
    /// Mechanisms by their ID: `on` or `off`.
    pub switches: BTreeMap<String, Toggle>,
    /// Whether the service is reached with TLS only. Its certificate is made for the run, and no other is trusted.
    pub tls: bool,
    /// What its databases run as: processes of this machine, or containers. The service itself is a process.
    pub stack: Runs,
    /// The images of the containers, with `stack = "containers"`.
    pub containers: Images,
    /// Which roles have a host of their own (a network namespace), so that a `partition` can lose packets on the way to and
    /// from them: `true` for all of them, or a list such as `["postgres", "redis"]`. It takes root, iproute2 and nftables.
    pub hosts: Hosts,
    /// A second Postgres that follows the first, as the role `standby` over the link `standby→postgres`: `async` acknowledges
    /// an order before the standby has it, `sync` after.
    pub standby: Option<Replication>,
    /// A disk of this size for the database alone, so that it can be full: `"256MiB"`. Only root can mount one.
    pub small_disk: Option<Size>,
    /// Whether there is a Redis, as the role `redis` over the link `service→redis`. The strategy `redis-lua` needs it.
    pub redis: bool,
    /// What that Redis keeps on disk, and how soon; `everysec` unless given.
    pub redis_aof: Option<Aof>,
    /// Whether a second Redis follows the first, as the role `redis-replica` over the link `redis-replica→redis`.
    pub redis_replica: bool,
    /// Processes of the access layer in front of the service, which the buyers' connections are dealt out to; the service
    /// is reached straight without any.
    pub access: u32,
    /// Whether orders are paid through a payment dependency of its own, whose books are audited.
    pub payment: bool,
    /// The share of payments that it declines, from 0 to 1.
    pub payment_declines: f64,
    /// Whether there is a user-profile dependency, which item states are dressed with.
    pub profile: bool,
}

/// Shards of each item, where a scenario does not say.
const USUAL_SHARDS: u16 = 16;

impl Reference {
    /// Shards of each item, where the strategy has any.
    pub fn shards(&self) -> u16 {
        self.shards.unwrap_or(USUAL_SHARDS)
    }

    /// What its Redis keeps on disk.
    pub fn redis_aof(&self) -> Aof {
        self.redis_aof.unwrap_or_default()
    }
}

/// Roles that have a host of their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "true, false or a list of roles, such as [\"postgres\", \"redis\"], was expected")]
pub enum Hosts {
    /// All roles of the stack, or none.
    All(bool),
    /// These.
    Of(Vec<String>),
}

impl Default for Hosts {
    fn default() -> Self {
        Hosts::All(false)
    }
}

/// When the reference service deducts stock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deduct {
    /// At the order, for good (C1): only its buyer gives it back, or a payment that is declined.
    Order,
    /// At the payment (C2): an order sets nothing aside, and its buyer may find it sold out when they pay.
    Payment,
    /// At the order, for the time of the item's `hold` (C3).
    #[default]
    Hold,
}

impl Deduct {
    /// As the service is told it.
    pub fn name(self) -> &'static str {
        match self {
            Deduct::Order => "order",
            Deduct::Payment => "payment",
            Deduct::Hold => "hold",
        }
    }
}

/// What is deducted for good is a hold that outlasts everybody, in microseconds: a hundred years.
const FOR_EVER_US: Micros = 100 * 365 * 24 * 3_600 * 1_000_000;

/// What the databases of the reference service run as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Runs {
    /// Processes of this machine.
    #[default]
    Embedded,
    /// Containers of this machine's Docker engine.
    Containers,
}

/// The images that containers are made of. Without a name it is the public image or, where that is not to be had, the one
/// that `make images` makes of this machine's packages.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// Of Postgres: `postgres:17`.
    #[schemars(with = "Option<String>")]
    pub postgres: Option<Spanned<String>>,
    /// Of Redis: `redis:7`.
    #[schemars(with = "Option<String>")]
    pub redis: Option<Spanned<String>>,
}

/// How soon Redis has on disk what it was told (its append-only file, AOF).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aof {
    /// Before it answers.
    Always,
    /// Once in a second: so much is lost with a machine that loses its power, nothing with a process that is killed.
    #[default]
    Everysec,
    /// When the kernel gets round to it.
    No,
    /// Never: whoever kills it takes its memory away.
    Off,
}

/// When a commit is acknowledged of which there is a copy elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Replication {
    /// When it is safe here.
    Async,
    /// When the standby has it safe, too.
    Sync,
}

impl Default for Reference {
    fn default() -> Self {
        let (strategy, switches) = ("conditional-update".into(), BTreeMap::new());
        let (stack, containers) = (Runs::default(), Images::default());
        Reference {
            strategy,
            shards: None,
            queue: None,
            deduct: Deduct::default(),
            pool: 8,
            workers: 2,
            bug: None,
            slow: None,
            program: None,
            switches,
            tls: false,
            stack,
            containers,
            hosts: Hosts::default(),
            standby: None,
            small_disk: None,
            redis: false,
            redis_aof: None,
            redis_replica: false,
            access: 0,
            payment: false,
            payment_declines: 0.0,
            profile: false,
        }
    }
}

/// An item on sale.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its number.
    pub id: i64,
    /// For people.
    #[serde(default)]
    pub title: String,
    /// Price of one unit in the currency's smallest unit.
    pub price_cents: i64,
    /// Units at the start.
    pub stock: i64,
    /// Units that one user may hold or own.
    pub per_user_limit: i64,
    /// When the sale opens, counted from the start of the load.
    #[serde(default)]
    pub opens_at: Dur,
    /// When it closes.
    pub closes_at: Dur,
    /// How long a hold lasts before its stock is released.
    pub hold: Dur,
    /// Whether there is more of it than anybody will ask for, so that `expect.sell_out` does not mean this item.
    #[serde(default)]
    pub plentiful: bool,
}

/// The load as a whole.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// How long arrivals are planned for at most.
    pub duration: Dur,
    /// Virtual buyers in the pool.
    pub virtual_buyers: u32,
    /// A request without its whole reply after this time is given up: indeterminate.
    #[serde(default = "default_timeout")]
    pub request_timeout: Dur,
    /// An arrival that no virtual buyer could take within this time is dropped.
    #[serde(default = "default_patience")]
    pub patience: Dur,
    /// Largest p99 of the send lag at which the measurement is still trusted.
    #[serde(default = "default_lag_limit")]
    pub send_lag_limit: Dur,
    /// When and how a buyer tries again.
    #[serde(default)]
    pub retry: Retry,
    /// How connections to the service are made.
    #[serde(default)]
    pub connection: Connection,
    /// Whether each buyer keeps the cookies that replies set, and sends them with the later requests of the journey.
    #[serde(default)]
    pub cookies: bool,
    /// What the rate of all arrivals, those of the cohorts too, is multiplied by: 2 sends twice as many buyers in the same
    /// time. `seckill capacity` looks for the highest at which the objectives are met.
    #[serde(default = "one")]
    pub scale: f64,
    /// Arrivals of the crowd as a whole: each is a buyer of one of the cohorts that have a `share`. Components are summed.
    #[serde(default)]
    pub arrivals: Vec<Arrivals>,
}

fn default_timeout() -> Dur {
    Dur::millis(2_000)
}
fn default_patience() -> Dur {
    Dur::millis(1_000)
}
fn default_lag_limit() -> Dur {
    Dur::millis(20)
}

/// How connections to the service are made: those of the buyers, and of everybody else who asks it something.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// The version of HTTP. HTTP/2 without TLS is spoken without asking whether the service can (prior knowledge).
    pub http: HttpVersion,
    /// Whether a connection serves many requests. Otherwise each request has one of its own, and making it is a part of the
    /// latency.
    pub reuse: bool,
    /// Encrypts the connections to an external service. The reference service is asked for TLS by `target.reference.tls`.
    #[schemars(with = "Option<Tls>")]
    pub tls: Option<Spanned<Tls>>,
}

impl Default for Connection {
    fn default() -> Self {
        Connection { http: HttpVersion::One, reuse: true, tls: None }
    }
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2.
    #[serde(rename = "2")]
    Two,
}

/// How connections are encrypted.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A file in PEM with the certificates to trust, from the folder that the harness is started in.
    #[schemars(with = "Option<String>")]
    pub ca: Option<Spanned<String>>,
    /// The name that the service's certificate must have, which is sent as the host, too; its address if absent.
    #[schemars(with = "Option<String>")]
    pub name: Option<Spanned<String>>,
    /// Whether the certificate is verified at all.
    pub verify: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Tls { ca: None, name: None, verify: true }
    }
}

/// One request of a journey.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What the request means to the checks.
    #[serde(default)]
    pub role: Role,
    /// The HTTP method.
    #[serde(default = "default_method")]
    #[schemars(with = "String")]
    pub method: Spanned<String>,
    /// The path, with `${variables}`.
    #[schemars(with = "String")]
    pub path: Spanned<String>,
    /// Headers, with `${variables}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, Spanned<String>>,
    /// A JSON body, with `${variables}`.
    #[schemars(with = "Option<String>")]
    pub json: Option<Spanned<String>>,
    /// The fields of a form as its body, with `${variables}`, encoded as `application/x-www-form-urlencoded`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub form: BTreeMap<String, Spanned<String>>,
    /// Values kept for later steps: name = place in the reply. A place is a JSON pointer (`/token`), a header
    /// (`header:etag`; of `header:location` the last part of the path), a cookie that is set (`cookie:sid`), or what the one
    /// group of an expression matches in the body (`regex:name="csrf" value="([^"]+)"`). A later step that needs a value which
    /// no reply has given is not sent: it fails as `missing-NAME`, and the journey ends. The value called `ticket` is the
    /// ticket of an order that is accepted and not decided at once.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub capture: BTreeMap<String, Spanned<String>>,
    /// What a successful reply must hold beyond its status. One that does not is no success: a page fails with the reason
    /// `check-...`; an order, payment, cancel, look-up or ticket is indeterminate with that reason, and acknowledges nothing.
    #[serde(default)]
    pub check: ReplyCheck,
    /// What the step's replies mean, where the status does not tell; the first rule that holds decides.
    #[serde(default)]
    #[schemars(with = "Vec<OutcomeRule>")]
    pub outcome: Vec<Spanned<OutcomeRule>>,
    /// Where a reply names the order, and which words it uses; those of the reference target by default.
    #[serde(default)]
    pub reply: ReplyPointers,
    /// The captured value, as `${name}`, that an order spends as a single-use token.
    #[schemars(with = "Option<String>")]
    pub token: Option<Spanned<String>>,
    /// How often a ticket is asked about; 200ms if absent. Only for steps with the role "ticket".
    pub every: Option<Dur>,
    /// Whether the reply is a stream of events (`text/event-stream`), and one of them is waited for. A ticket is followed by
    /// them until one says what became of it; a page waits for one `event`, and its latency is the time until that came.
    #[serde(default)]
    pub sse: bool,
    /// The type of the events that are waited for with `sse`; a ticket is followed by all of them if it is absent.
    pub event: Option<String>,
    /// For how long after its acceptance a ticket is asked about at most; until its deadline is surely over if absent.
    /// Of a page with `sse`, how long its event is waited for; load.request_timeout if absent. Only for these.
    pub until: Option<Dur>,
    /// How often a ticket with a result is asked about again when the journey has ended, to see whether the result stays;
    /// once if absent. Only for steps with the role "ticket".
    pub again: Option<u16>,
    /// Only made when an order's fate is unknown after its last attempt.
    #[serde(default)]
    pub only_unsettled: bool,
    /// Share of the buyers who make this step, and those after it, from 0 to 1.
    #[serde(default = "one")]
    pub share: f64,
}

fn default_method() -> Spanned<String> {
    Spanned::new(0..0, "GET".into())
}
fn one() -> f64 {
    1.0
}

/// What a successful reply must hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplyCheck {
    /// The statuses that are a success, from 200 to 399; 2xx and 304 if absent.
    #[schemars(with = "Vec<u16>")]
    pub status: Option<Vec<Spanned<u16>>>,
    /// Values in the JSON of the body: pointer = value.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub json: BTreeMap<String, Spanned<serde_json::Value>>,
    /// Headers: name = an expression that one of its values must match somewhere.
    #[schemars(with = "BTreeMap<String, String>")]
    pub header: BTreeMap<String, Spanned<String>>,
    /// An expression that must match somewhere in the body.
    #[schemars(with = "Option<String>")]
    pub body: Option<Spanned<String>>,
    /// An expression that must match nowhere in the body.
    #[schemars(with = "Option<String>")]
    pub not_body: Option<Spanned<String>>,
}

/// JSON pointers to what a reply says of an order, and the words in which a ticket says it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplyPointers {
    /// The order's id: a JSON pointer, or any other place that a value can be captured from; `/id` if absent, and `/order` in
    /// replies about tickets.
    #[schemars(with = "Option<String>")]
    pub order: Option<Spanned<String>>,
    /// Its state.
    pub state: String,
    /// Its amount in the currency's smallest unit.
    pub amount_cents: String,
    /// Its amount in another unit, as a number or a decimal text such as `"999.00"`; instead of `amount_cents`.
    #[schemars(with = "Option<String>")]
    pub amount: Option<Spanned<String>>,
    /// How many of the smallest unit one of `amount`'s is: 100 if absent.
    #[schemars(with = "Option<u32>")]
    pub scale: Option<Spanned<u32>>,
    /// The service's words for the states of an order: `{ WAIT_PAY = "held", "20" = "paid" }`. A word that is not here is taken as
    /// it stands.
    #[schemars(with = "BTreeMap<String, OrderState>")]
    pub states: BTreeMap<String, OrderState>,
    /// Why a ticket's order was decided against.
    pub reason: String,
    /// States that say of a ticket that nothing is decided yet.
    pub pending: Vec<String>,
    /// States that say of a ticket that there is an order.
    pub done: Vec<String>,
    /// States, or types of problems, that say of a ticket that there is no order and will be none.
    pub failed: Vec<String>,
}

impl Default for ReplyPointers {
    fn default() -> Self {
        let TicketWords { pending, done, failed } = TicketWords::default();
        let (state, amount_cents, reason) = ("/state".into(), "/amount_cents".into(), "/reason".into());
        let states = BTreeMap::new();
        ReplyPointers {
            order: None,
            state,
            amount_cents,
            amount: None,
            scale: None,
            states,
            reason,
            pending,
            done,
            failed,
        }
    }
}

/// The words in which replies say what became of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketWords {
    /// Nothing is decided yet.
    pub pending: Vec<String>,
    /// There is an order.
    pub done: Vec<String>,
    /// There is none and will be none.
    pub failed: Vec<String>,
}

impl TicketWords {
    /// A word as it is compared: `SOLD_OUT` is `sold-out`.
    pub fn plain(word: &str) -> String {
        word.trim().to_ascii_lowercase().replace(['_', ' '], "-")
    }
}

impl Default for TicketWords {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        TicketWords {
            pending: words(&OrderState::PENDING),
            done: words(&["done", "ordered", "succeeded", "held", "paid", "cancelled", "expired", "refunded"]),
            failed: words(&["failed", "refused", "rejected", "sold-out", "limit-reached", "too-early", "ended"]),
        }
    }
}

/// One kind of buyer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// The steps in order.
    #[schemars(with = "Vec<String>")]
    pub journey: Vec<Spanned<String>>,
    /// The item wanted.
    #[serde(default = "first_item")]
    #[schemars(with = "i64")]
    pub item: Spanned<i64>,
    /// Units wanted; a negative number is what a tampering client sends, and must be refused.
    #[serde(default = "one_unit")]
    pub quantity: i32,
    /// Wait between steps: `"2s"`; `["1s", "3s"]`, drawn from the seed for each buyer and step; or as people take it,
    /// `{ median = "2s", sigma = 0.5 }`.
    #[serde(default)]
    pub think: Pause,
    /// Whether and how often the same buyer walks the journey again, for a new purchase each time, as a hoarder does.
    #[schemars(with = "Option<Repeat>")]
    pub repeat: Option<Spanned<Repeat>>,
    /// Whether they get their single-use token only once and spend it again in every repeat, as bots try to. A service
    /// that lets it buy twice is convicted.
    #[serde(default)]
    pub replay_token: bool,
    /// Accounts that the cohort has; each arrival uses one of them, by chance. Without it, each arrival is somebody else.
    pub users: Option<NonZeroU32>,
    /// What is different from `load.retry` for them, key by key.
    #[serde(default)]
    pub retry: Retry,
    /// Whether they are hoarders, bots or the like: what they get is told apart, and how well the service knows them.
    #[serde(default)]
    pub abusive: bool,
    /// Whether they click twice: an order's first attempt is sent at once over two connections, under the same key.
    #[serde(default)]
    pub double_click: bool,
    /// When they come, besides those of `load.arrivals` that are theirs; components are summed.
    #[serde(default)]
    pub arrivals: Vec<Arrivals>,
    /// How many of `load.arrivals` are theirs, against the other cohorts' shares: 100 and 1 make a hundred readers for one
    /// writer. Whose each arrival is, the seed draws.
    #[schemars(range(min = 0))]
    pub share: Option<f64>,
    /// How far their clocks are off, so that each comes that much early or late: `["-800ms", "800ms"]`. The seed draws it
    /// for each; nobody comes before the load starts.
    #[serde(default)]
    pub clock_skew: ClockSkew,
}

/// How often a buyer walks its journey.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// Walks at most, the first included. Whose order was refused walks no more.
    pub times: u16,
    /// From the start of one walk to the start of the next; a walk that takes longer is followed at once.
    pub every: Dur,
}

fn first_item() -> Spanned<i64> {
    Spanned::new(0..0, 0)
}
fn one_unit() -> i32 {
    1
}

/// A named part of the timeline.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Its start.
    pub from: Dur,
    /// Its end.
    pub until: Dur,
}

/// What must have happened.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// A buyer was told "sold out".
    pub sell_out: bool,
    /// Some order, payment, cancel or look-up was indeterminate; pages and logins do not count.
    pub indeterminate: bool,
    /// A hold expired.
    pub expiry: bool,
    /// Some order, payment, cancel or look-up was tried more than once; pages and logins do not count.
    pub retries: bool,
}

/// How the final state is judged.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Wait after the last hold must have ended.
    pub grace: Dur,
    /// Bound on the difference between the harness's clock and the service's (ε).
    pub epsilon: Dur,
    /// How long after it was accepted, or after the last fault was healed, a ticket may stay undecided.
    pub ticket_deadline: Dur,
    /// Whether fresh buyers buy what is left, and one unit more, after the audit.
    pub drain_probe: bool,
    /// Whether the databases are asked, 20 times a second, what their sessions wait for: evidence of what gives out first.
    pub waits: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Audit {
            grace: Dur::millis(500),
            epsilon: Dur::millis(100),
            ticket_deadline: Dur::millis(5_000),
            drain_probe: true,
            waits: false,
        }
    }
}

/// A scenario together with the text it came from, as it goes into the run folder.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The valid scenario.
    pub scenario: Scenario,
    /// The text with its overrides and seed applied: running it again repeats the run.
    pub resolved: String,
    /// Files that it names, as they go into the run folder beside it.
    pub attached: Vec<Attached>,
    /// Where it was read from.
    pub path: PathBuf,
}

/// Reads a scenario file, applies overrides (`--set PATH=VALUE`) and the seed, and checks everything but whether the
/// reference service has what is asked of it.
///
/// # Errors
/// Names the file, the line, the key, what is accepted and the remedy.
pub fn load(path: &Path, sets: &[String], seed: Option<u64>) -> Result<Loaded, ScenarioError> {
    load_variant(path, sets, seed, None)
}

/// The same for one of its variants.
///
/// # Errors
/// As [`load`]; or it has no such variant.
pub fn load_variant(
    path: &Path,
    sets: &[String],
    seed: Option<u64>,
    variant: Option<&str>,
) -> Result<Loaded, ScenarioError> {
    read(path, sets, seed, variant, &|_| Ok(None))
}

/// The same for a scenario that is about to be run: what it asks of the reference service is held against what the
/// service says that it has. `ask` is called once, and only if the target is the reference service.
///
/// # Errors
/// As [`load`]; or the service cannot be asked.
pub fn load_to_run(
    path: &Path,
    sets: &[String],
    seed: Option<u64>,
    variant: Option<&str>,
    ask: impl Fn(&Reference) -> Result<Catalogue, String>,
) -> Result<Loaded, ScenarioError> {
    read(path, sets, seed, variant, &|reference| ask(reference).map(Some))
}

/// Asks the reference service what it has; nothing where that is not to be checked.
type Ask<'a> = &'a dyn Fn(&Reference) -> Result<Option<Catalogue>, String>;

fn read(
    path: &Path,
    sets: &[String],
    seed: Option<u64>,
    variant: Option<&str>,
    ask: Ask<'_>,
) -> Result<Loaded, ScenarioError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable { path: path.to_owned(), source })?;
    let mut overrides = match variant {
        None => Vec::new(),
        Some(name) => diagnose::sets_of_variant(path, &text, name)?,
    };
    overrides.extend_from_slice(sets);
    if let Some(seed) = seed {
        overrides.push(format!("seed={seed}"));
    }
    let mut resolved = diagnose::with_overrides(path, &text, &overrides)?;
    if variant.is_some() {
        resolved = diagnose::without_variants(path, &resolved)?;
    }
    let (scenario, traces) = diagnose::parse(path, &text, &resolved, &overrides, ask)?;
    let resolved = diagnose::with_files_beside(path, resolved, &traces.renamed)?;
    Ok(Loaded { scenario, resolved, attached: traces.files, path: path.to_owned() })
}

/// A hash of a scenario file, but for what may differ between runs that are compared: the seed, the program of the service, variants,
/// and what counts as a regression.
///
/// # Errors
/// The file cannot be read, or is no TOML.
pub fn fingerprint(path: &Path) -> Result<String, ScenarioError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable { path: path.to_owned(), source })?;
    fingerprint_of(&text, path)
}

/// The same of a text that was read from `path`.
///
/// # Errors
/// It is no TOML.
pub fn fingerprint_of(text: &str, path: &Path) -> Result<String, ScenarioError> {
    let mut table: toml::Table =
        text.parse().map_err(|error| ScenarioError::Invalid(format!("{}: {error}", path.display())))?;
    for key in ["seed", "variant", "compare", "gate", "title"] {
        table.remove(key);
    }
    if let Some(reference) =
        table.get_mut("target").and_then(|t| t.get_mut("reference")).and_then(toml::Value::as_table_mut)
    {
        reference.remove("program");
    }
    // Written anew, so that comments and layout are no part of it; tables are sorted by their keys.
    Ok(format!("{:08x}", crc32fast::hash(table.to_string().as_bytes())))
}

impl Scenario {
    /// The constants of the invariants.
    pub fn rules(&self) -> Rules {
        Rules {
            items: self
                .item
                .iter()
                .map(|item| ItemRules {
                    item: item.id,
                    stock: item.stock,
                    per_user_limit: item.per_user_limit,
                    price_cents: item.price_cents,
                    hold_us: self.hold_us(item),
                    opens_us: item.opens_at.micros(),
                    closes_us: item.closes_at.micros(),
                    plentiful: item.plentiful,
                })
                .collect(),
            epsilon_us: self.audit.epsilon.micros(),
            ticket_deadline_us: self.audit.ticket_deadline.micros(),
            expect: Expectations {
                sell_out: self.expect.sell_out,
                indeterminate: self.expect.indeterminate,
                expiry: self.expect.expiry,
                retries: self.expect.retries,
            },
            send_lag_limit_us: self.load.send_lag_limit.0.as_micros() as u64,
            abusive_cohorts: {
                let abusive = self.cohort.iter().filter(|(_, cohort)| cohort.get_ref().abusive);
                abusive.map(|(name, _)| name.clone()).collect()
            },
            set_up: !matches!(&self.target, Target::External(external) if !external.is_set_up()),
        }
    }

    /// The planned arrivals of all cohorts, by the cohorts' order of name.
    pub fn plan(&self) -> Plan {
        let crowd = |cohort: &Spanned<Cohort>| {
            let Cohort { arrivals, share, clock_skew, .. } = cohort.get_ref();
            Crowd { arrivals: arrivals.clone(), share: share.unwrap_or(0.0), clock_skew: *clock_skew }
        };
        let cohorts: Vec<Crowd> = self.cohort.values().map(crowd).collect();
        Plan::scaled(&cohorts, &self.load.arrivals, self.seed, self.load.scale)
    }

    /// The steps in the order in which buyers make them.
    pub fn step_order(&self) -> Vec<String> {
        let journey =
            |cohort: &'_ Spanned<Cohort>| cohort.get_ref().journey.iter().map(|s| s.get_ref().clone()).collect();
        in_one_order(self.cohort.values().map(journey))
    }

    /// Whether somebody who listens on the way to the service can read what buyers say: plain HTTP/1.1.
    pub fn is_readable(&self) -> bool {
        let encrypted = match &self.target {
            Target::Reference(reference) => reference.tls,
            Target::External(_) => self.load.connection.tls.is_some(),
        };
        !encrypted && self.load.connection.http == HttpVersion::One
    }

    /// When the service deducts stock, as far as that is known.
    fn deduct(&self) -> Deduct {
        match &self.target {
            Target::Reference(reference) => reference.deduct,
            Target::External(_) => Deduct::default(),
        }
    }

    /// How long units stay set aside for an order that nobody pays, in microseconds.
    fn hold_us(&self, item: &Item) -> Micros {
        match self.deduct() {
            Deduct::Order => FOR_EVER_US,
            Deduct::Payment | Deduct::Hold => item.hold.micros(),
        }
    }

    /// The longest that anything is held without being paid, and is given back at the end of it.
    pub fn longest_hold(&self) -> Dur {
        match self.deduct() {
            Deduct::Order => Dur::default(),
            Deduct::Payment | Deduct::Hold => self.item.iter().map(|item| item.hold).max().unwrap_or_default(),
        }
    }

    /// The item of that number.
    pub fn find_item(&self, id: i64) -> Option<&Item> {
        self.item.iter().find(|item| item.id == id)
    }
}

/// JSON Schema of scenario files (draft 07), so that editors complete and check them.
pub fn json_schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    generator.into_root_schema_for::<Scenario>().to_value()
}

/// Journeys laid over each other: each keeps its order as far as the earlier ones allow, and a step that none of those
/// makes comes right after the step before it.
fn in_one_order(journeys: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for journey in journeys {
        let mut at = 0;
        for step in journey {
            at = 1 + order.iter().position(|known| *known == step).unwrap_or_else(|| {
                order.insert(at, step);
                at
            });
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journeys_are_laid_over_each_other() {
        let order = |journeys: &[&[&str]]| {
            in_one_order(journeys.iter().map(|j| j.iter().map(|s| (*s).to_owned()).collect())).join(" ")
        };
        assert_eq!(order(&[]), "");
        assert_eq!(order(&[&["page", "order", "pay"], &["page", "captcha", "order", "cancel"]]), {
            "page captcha order cancel pay"
        });
        assert_eq!(order(&[&["login", "page", "page"], &["peek"]]), "peek login page");
    }
}
