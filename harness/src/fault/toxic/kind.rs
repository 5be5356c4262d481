//! What a toxic can do: every kind with its parameters, and the one place that knows what carries it out.

use std::time::{Duration, Instant};

use super::pick::{Pick, Picker};
use super::{
    ArmedToxic, CallPattern, CommandPattern, CutPoint, Direction, Distribution, Down, Garbage, RequestPattern,
    bandwidth, black_hole, connect_latency, cut_reply, flapping, http_body, http_cut_reply, http_duplicate,
    http_status, latency, limit_data, redis_cut_reply, refuse, reset, slicer, slow_call, slow_close, timeout,
};

#[cfg(doc)]
use crate::fault::proxy::Protocol;

/// What a toxic does.
#[derive(Debug, Clone, PartialEq)]
pub enum ToxicKind {
    /// Delays every chunk of the struck directions.
    Latency {
        /// The delay that the others are spread around, or, for [`Distribution::Pareto`], that they begin at.
        delay: Duration,
        /// How far they are spread; none is spread by zero, and none is negative.
        jitter: Duration,
        /// How they are spread.
        distribution: Distribution,
    },
    /// Lets new connections reach the upstream later; spread as by [`ToxicKind::Latency`].
    ConnectLatency {
        /// The delay that the others are spread around, or begin at.
        delay: Duration,
        /// How far they are spread.
        jitter: Duration,
        /// How they are spread.
        distribution: Distribution,
    },
    /// Swallows everything, the ends of streams included. New connections are accepted but, unless only `Down` is struck,
    /// never reach the upstream. When it is disarmed, the connections on which something was swallowed are reset.
    BlackHole,
    /// Swallows everything, and closes the connection on both sides so long after it was armed, or after the connection
    /// was made if that is later. When it is disarmed before, the connections on which something was swallowed are reset.
    Timeout {
        /// How long bytes are swallowed before the connection is closed.
        after: Duration,
    },
    /// Resets existing connections so long after it was armed, and new ones so long after they came.
    Reset {
        /// How long a connection works before; zero resets at once.
        after: Duration,
    },
    /// Resets new connections and leaves existing ones alone.
    Refuse,
    /// Lets each struck direction of each connection carry so many bytes per second.
    Bandwidth {
        /// The rate.
        bytes_per_second: u64,
    },
    /// Lets the end of each struck direction arrive later than its bytes.
    SlowClose {
        /// By how much.
        delay: Duration,
    },
    /// Cuts what was written at once into small pieces, with a pause between two of them.
    Slicer {
        /// The mean size of a piece in bytes.
        size: u32,
        /// The largest deviation from it, uniform on both sides; less than `size`.
        variation: u32,
        /// The least time between two pieces.
        delay: Duration,
    },
    /// Closes the connection on both sides when a struck direction has carried so many bytes since it was armed.
    LimitData {
        /// How many it still carries.
        bytes: u64,
    },
    /// Goes down when it is armed, and comes up again, over and over.
    Flapping {
        /// How long it is down each time; at least a millisecond.
        down: Duration,
        /// How long it is up in between; likewise.
        up: Duration,
        /// What happens meanwhile.
        how: Down,
    },
    /// Delays the chosen calls on their way up, or their replies on the way down, and whatever follows them on their connection.
    /// Needs the protocol of the calls.
    SlowCall {
        /// Which calls.
        calls: CallPattern,
        /// The delay that the others are spread around, or begin at.
        delay: Duration,
        /// How far they are spread.
        jitter: Duration,
        /// How they are spread.
        distribution: Distribution,
        /// Which of them.
        pick: Pick,
    },
    /// HTTP only: answers a request with this status; the upstream never sees it. A request that is pipelined behind another
    /// is left alone. Needs [`Protocol::Http`].
    HttpStatus {
        /// From 200 to 599.
        status: u16,
        /// Which requests.
        request: RequestPattern,
        /// Which of them.
        pick: Pick,
    },
    /// HTTP only: delivers a request to the upstream once more, on a connection of its own, and throws that reply away. Needs
    /// [`Protocol::Http`].
    HttpDuplicate {
        /// How long after the request itself; zero sends both at the same time.
        after: Duration,
        /// Which requests; those of more than a megabyte are left alone.
        request: RequestPattern,
        /// Which of them.
        pick: Pick,
    },
    /// HTTP only: keeps status and headers of a reply, and puts something else in the place of its body. Needs
    /// [`Protocol::Http`].
    HttpBody {
        /// What.
        garbage: Garbage,
        /// The replies to which requests; those without a body, or of more than a megabyte, are left alone.
        request: RequestPattern,
        /// Which of them.
        pick: Pick,
    },
    /// Redis only: lets a command take effect, withholds its reply and resets the connection on both sides. Needs
    /// [`Protocol::Redis`].
    RedisCutReply {
        /// Which commands; those that failed, or wait for `EXEC`, took no effect and are left alone.
        command: CommandPattern,
        /// Which of them.
        pick: Pick,
    },
    /// Postgres only: lets a statement take effect, withholds its whole reply and resets the connection on both sides once
    /// the server has said that it is ready again. Needs [`Protocol::Postgres`].
    CutReply {
        /// Which replies.
        after: CutPoint,
        /// Which of them.
        pick: Pick,
    },
    /// HTTP only: lets a request be carried out, withholds its whole reply and resets the connection on both sides once the
    /// reply is complete. Needs [`Protocol::Http`].
    HttpCutReply {
        /// Which requests.
        request: RequestPattern,
        /// Which of them.
        pick: Pick,
    },
}

impl ToxicKind {
    /// The one place that knows all kinds.
    pub(crate) fn arm(&self, direction: Direction) -> Box<dyn ArmedToxic> {
        match self.clone() {
            Self::Latency { delay, jitter, distribution } => {
                Box::new(latency::Latency(latency::Delays { delay, jitter, distribution }))
            }
            Self::ConnectLatency { delay, jitter, distribution } => {
                Box::new(connect_latency::ConnectLatency(latency::Delays { delay, jitter, distribution }))
            }
            Self::Flapping { down, up, how } => Box::new(flapping::Flapping { down, up, how, since: Instant::now() }),
            Self::SlowCall { calls, delay, jitter, distribution, pick } => Box::new(slow_call::SlowCall {
                calls,
                delays: latency::Delays { delay, jitter, distribution },
                picker: Picker::new(pick),
            }),
            Self::HttpStatus { status, request, pick } => {
                Box::new(http_status::HttpStatus { status, request, picker: Picker::new(pick) })
            }
            Self::HttpDuplicate { after, request, pick } => {
                Box::new(http_duplicate::HttpDuplicate { after, request, picker: Picker::new(pick) })
            }
            Self::HttpBody { garbage, request, pick } => {
                Box::new(http_body::HttpBody { garbage, request, picker: Picker::new(pick) })
            }
            Self::RedisCutReply { command, pick } => {
                Box::new(redis_cut_reply::RedisCutReply { command, picker: Picker::new(pick) })
            }
            Self::BlackHole => Box::new(black_hole::BlackHole { direction }),
            Self::Timeout { after } => Box::new(timeout::Timeout { after, direction }),
            Self::Reset { after } => Box::new(reset::Reset { after }),
            Self::Refuse => Box::new(refuse::Refuse),
            Self::Bandwidth { bytes_per_second } => Box::new(bandwidth::Bandwidth { bytes_per_second }),
            Self::SlowClose { delay } => Box::new(slow_close::SlowClose { delay }),
            Self::Slicer { size, variation, delay } => Box::new(slicer::Slicer { size, variation, delay }),
            Self::LimitData { bytes } => Box::new(limit_data::LimitData { bytes }),
            Self::CutReply { after, pick } => Box::new(cut_reply::CutReply { after, picker: Picker::new(pick) }),
            Self::HttpCutReply { request, pick } => {
                Box::new(http_cut_reply::HttpCutReply { request, picker: Picker::new(pick) })
            }
        }
    }
}
