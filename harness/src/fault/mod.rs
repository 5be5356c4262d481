//! Faults: what the nemesis can break, one file per kind.
//!
//! This module owns how a fault is declared, made and healed. It knows nothing about timelines, loads or verdicts: when a
//! fault starts and ends is the nemesis's business, and what it did to the sale is the checks' business.
//!
//! - [`link`] is what faults of a link have in common, [`process`] what those of a process do, `database` those of a Postgres;
//! - [`proxy`] stands between two roles of the stack and forwards bytes;
//! - [`toxic`] is what can be done to the bytes and connections inside a proxy.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::history::ClockError;
use crate::scenario::About;
use crate::scenario::value::normal_link;
use crate::stack::{Stack, StackError};

pub mod bandwidth;
pub mod black_hole;
pub mod catalogue;
pub mod checkpoint_storm;
pub mod choice;
pub mod clock_skew;
pub mod clock_step;
pub mod connect_latency;
pub mod crash_loop;
pub mod cut_after_command;
pub mod cut_after_commit;
pub mod cut_reply;
mod database;
pub mod disconnect;
pub mod disk_full;
pub mod duplicate_request;
pub mod exhaust_connections;
pub mod flapping;
pub mod garbage_body;
pub mod hit;
pub mod hold;
pub mod http_status;
pub mod kill;
pub mod latency;
pub mod limit_data;
pub mod link;
pub mod lock_row;
pub mod partition;
mod pattern;
pub mod pause;
pub mod process;
pub mod promote_replica;
pub mod promote_standby;
pub mod proxy;
pub mod read_only;
pub mod redis_flush;
pub mod refuse;
pub mod reset;
pub mod rolling_restart;
pub mod slicer;
pub mod slow_close;
pub mod slow_command;
pub mod slow_request;
pub mod slow_statement;
pub mod stop;
pub mod terminate_backends;
pub mod throttle;
pub mod timeout;
pub mod toxic;

pub use hit::Hit;
pub use hold::Hold;

/// What a fault is done to.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A link: `service→postgres`.
    Link(&'a Spanned<String>),
    /// The processes of a role: `postgres`.
    Role(&'a Spanned<String>),
}

/// A kind of fault, with its parameters as they stand in a scenario.
pub trait Fault: Send + Sync + Debug {
    /// What it is done to.
    fn place(&self) -> Place<'_>;

    /// What has to be there for it, for the catalogue of kinds.
    fn needs() -> String
    where
        Self: Sized,
    {
        "a process that the harness has started".to_owned()
    }

    /// What it does, in one line for people: `replies +8ms ±4ms`.
    fn detail(&self) -> String;

    /// Says what is wrong with its parameters, before anything is started.
    fn check(&self, about: &mut About<'_>);

    /// What of its role it holds while it lasts, so that no other fault may that holds the same: healing one would end the other.
    fn holds(&self) -> &'static [Hold] {
        &[]
    }

    /// How it sets the service's clock wrong, if it does: the checks then do not take the service at the clock's word.
    fn clock_error(&self) -> Option<ClockError> {
        None
    }

    /// Makes the fault; when this returns, it is in effect.
    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>>;

    /// Takes away what an injection has done that failed, or was given up half-way: it may have come to any point, or to nothing.
    /// What goes away with the injection itself, such as a session, needs nothing more. It may be asked again where it failed.
    fn undo<'a>(&'a self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A fault in effect. It must be healed; nothing heals it by itself but the end of the run.
#[must_use = "a fault that is in effect has to be healed"]
pub trait ActiveFault: Send {
    /// Takes the fault away and says what it really hit; when this returns, the stack's part is done. It may be asked
    /// again where it failed or took too long, so it has to bear that.
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>>;
}

/// The one place that knows all kinds: the name in scenario files, and the type that holds the parameters.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:literal => $variant:ident($fault:ty),)*) => {
        /// What a fault does.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub enum Inject {
            $($(#[doc = $doc])* #[serde(rename = $kind)] $variant($fault),)*
        }

        impl Inject {
            /// The names of all kinds.
            pub const KINDS: &'static [&'static str] = &[$($kind,)*];

            /// Each kind with what it needs.
            fn needs() -> Vec<(&'static str, String)> {
                vec![$(($kind, <$fault as Fault>::needs()),)*]
            }

            /// The kind's name as it stands in scenario files.
            pub fn kind(&self) -> &'static str {
                match self { $(Inject::$variant(_) => $kind,)* }
            }

            /// The fault itself.
            pub fn fault(&self) -> &dyn Fault {
                match self { $(Inject::$variant(fault) => fault,)* }
            }
        }
    };
}

kinds! {
    /// Replies over a link are delayed, or requests.
    "latency" => Latency(latency::Latency),
    /// New connections over a link take longer to be made.
    "connect-latency" => ConnectLatency(connect_latency::ConnectLatency),
    /// Each connection carries only so many bytes per second.
    "bandwidth" => Bandwidth(bandwidth::Bandwidth),
    /// What is written at once arrives in small pieces, with pauses between them.
    "slicer" => Slicer(slicer::Slicer),
    /// Bytes over a link are swallowed; healing resets the connections.
    "black-hole" => BlackHole(black_hole::BlackHole),
    /// Bytes over a link are swallowed, and after a while the connection is closed.
    "timeout" => Timeout(timeout::Timeout),
    /// Connections over a link are reset, and new ones, too: at once or after a while.
    "reset" => Reset(reset::Reset),
    /// New connections over a link are reset at once; existing ones go on.
    "refuse" => Refuse(refuse::Refuse),
    /// A connection is closed when it has carried so many bytes.
    "limit-data" => LimitData(limit_data::LimitData),
    /// The end of a stream arrives later than its bytes.
    "slow-close" => SlowClose(slow_close::SlowClose),
    /// A link goes down and comes up again, over and over.
    "flapping" => Flapping(flapping::Flapping),
    /// Requests are answered with a status, and the service never sees them.
    "http-status" => HttpStatus(http_status::HttpStatus),
    /// The service sees a request twice, and the client gets one reply.
    "duplicate-request" => DuplicateRequest(duplicate_request::DuplicateRequest),
    /// Status and headers of a reply arrive, and something else in the place of its body.
    "garbage-body" => GarbageBody(garbage_body::GarbageBody),
    /// Requests of one kind reach the service later.
    "slow-request" => SlowRequest(slow_request::SlowRequest),
    /// Statements of one kind, such as COMMIT, reach Postgres later.
    "slow-statement" => SlowStatement(slow_statement::SlowStatement),
    /// Commands of one kind reach Redis later.
    "slow-command" => SlowCommand(slow_command::SlowCommand),
    /// Redis carries a command out, and its reply is cut.
    "cut-after-command" => CutAfterCommand(cut_after_command::CutAfterCommand),
    /// Postgres commits, and its reply is cut.
    "cut-after-commit" => CutAfterCommit(cut_after_commit::CutAfterCommit),
    /// The service answers, and its reply is cut.
    "cut-reply" => CutReply(cut_reply::CutReply),
    /// A process is killed with SIGKILL; healing starts it again on the same data.
    "kill" => Kill(kill::Kill),
    /// A process is stopped with SIGSTOP; healing lets it go on.
    "pause" => Pause(pause::Pause),
    /// A container is cut off from its network; healing connects it again.
    "disconnect" => Disconnect(disconnect::Disconnect),
    /// Packets between hosts are lost, without an error and without a reset.
    "partition" => Partition(partition::Partition),
    /// A process ends in order; healing starts it again on the same data.
    "stop" => Stop(stop::Stop),
    /// A process gets less of the processors than it wants.
    "throttle" => Throttle(throttle::Throttle),
    /// A process is killed and started over and over.
    "crash-loop" => CrashLoop(crash_loop::CrashLoop),
    /// The service's clock jumps; healing sets it right.
    "clock-step" => ClockStep(clock_step::ClockStep),
    /// The service's clock runs too fast or too slow; healing sets it right.
    "clock-skew" => ClockSkew(clock_skew::ClockSkew),
    /// The processes of a role are restarted in order, one after the other.
    "rolling-restart" => RollingRestart(rolling_restart::RollingRestart),
    /// Postgres ends the service's sessions.
    "terminate-backends" => TerminateBackends(terminate_backends::TerminateBackends),
    /// The lock of the hot row is held by somebody else.
    "lock-row" => LockRow(lock_row::LockRow),
    /// Postgres has no connections left to give.
    "exhaust-connections" => ExhaustConnections(exhaust_connections::ExhaustConnections),
    /// Postgres refuses to write.
    "read-only" => ReadOnly(read_only::ReadOnly),
    /// Postgres writes checkpoints all the time, and much else.
    "checkpoint-storm" => CheckpointStorm(checkpoint_storm::CheckpointStorm),
    /// The disk of a Postgres is full.
    "disk-full" => DiskFull(disk_full::DiskFull),
    /// The primary is killed, and its standby takes over with what it has.
    "promote-standby" => PromoteStandby(promote_standby::PromoteStandby),
    /// Redis is killed, and its replica takes over with what it has.
    "promote-replica" => PromoteReplica(promote_replica::PromoteReplica),
    /// Redis loses its memory.
    "redis-flush" => RedisFlush(redis_flush::RedisFlush),
}

impl Inject {
    /// The link it is on, in its one spelling.
    pub fn link(&self) -> Option<String> {
        match self.fault().place() {
            Place::Link(link) => Some(normal_link(link.get_ref())),
            Place::Role(_) => None,
        }
    }

    /// The role it is on.
    pub fn role(&self) -> Option<&str> {
        match self.fault().place() {
            Place::Role(role) => Some(role.get_ref()),
            Place::Link(_) => None,
        }
    }
}
