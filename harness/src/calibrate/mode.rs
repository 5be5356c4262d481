//! What the calibration server does to each request, as pure arithmetic on its clock, and the schedule that it is asked on.

use serde::{Deserialize, Serialize};

/// A schedule of evenly spaced requests, the same for every tool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Requests per second.
    pub rate: u32,
    /// Seconds.
    pub seconds: u32,
    /// Connections, and so the most requests that are under way at once.
    pub connections: u32,
}

impl Plan {
    /// Requests of the whole schedule.
    pub fn count(&self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }

    /// Microseconds between two requests.
    pub fn gap_us(&self) -> f64 {
        1e6 / f64::from(self.rate)
    }

    /// The first request that comes during a stall: 40% of the schedule are over by then.
    pub fn first_stalled(&self) -> u64 {
        self.count() * 2 / 5
    }
}

/// A way to answer whose latencies are known beforehand. All times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Mode {
    /// Every request takes the same time.
    Fixed {
        /// This.
        service_us: u64,
    },
    /// Every request takes the same time, but those that come during one stall are answered no sooner than at its end.
    Stall {
        /// What requests take otherwise.
        service_us: u64,
        /// When the stall begins, counted from the first request.
        from_us: u64,
        /// How long it lasts.
        lasts_us: u64,
    },
    /// One request in so many is slow.
    Bimodal {
        /// What most requests take.
        fast_us: u64,
        /// What the slow ones take.
        slow_us: u64,
        /// Every request whose number is a multiple of this is slow.
        every: u64,
    },
    /// One request is served after the other, in the order in which they come.
    Queue {
        /// What one takes when it is its turn.
        service_us: u64,
    },
}

/// The server's state between requests.
#[derive(Debug, Clone)]
pub struct Shop {
    mode: Mode,
    first_ns: Option<i64>,
    requests: u64,
    free_at_ns: i64,
}

impl Shop {
    /// A server that nobody has asked yet.
    pub fn new(mode: Mode) -> Shop {
        Shop { mode, first_ns: None, requests: 0, free_at_ns: i64::MIN }
    }

    /// When the reply to a request that came at `came_ns` is due, in nanoseconds of the same clock.
    pub fn due_ns(&mut self, came_ns: i64) -> i64 {
        self.requests += 1;
        let first = *self.first_ns.get_or_insert(came_ns);
        let after = |us: u64| came_ns + ns(us);
        match self.mode {
            Mode::Fixed { service_us } => after(service_us),
            Mode::Stall { service_us, from_us, lasts_us } => {
                let (from, end) = (first + ns(from_us), first + ns(from_us + lasts_us));
                let stalled = (from..end).contains(&came_ns);
                if stalled { after(service_us).max(end) } else { after(service_us) }
            }
            Mode::Bimodal { fast_us, slow_us, every } => {
                let slow = self.requests.is_multiple_of(every);
                after(if slow { slow_us } else { fast_us })
            }
            Mode::Queue { service_us } => {
                self.free_at_ns = self.free_at_ns.max(came_ns) + ns(service_us);
                self.free_at_ns
            }
        }
    }
}

fn ns(us: u64) -> i64 {
    us as i64 * 1_000
}

impl Mode {
    /// The same with every time a tenth longer: what a server would do that does not keep to what it says.
    pub fn a_tenth_slower(self) -> Mode {
        let longer = |us: u64| us + us / 10;
        match self {
            Mode::Fixed { service_us } => Mode::Fixed { service_us: longer(service_us) },
            Mode::Stall { service_us, from_us, lasts_us } => {
                Mode::Stall { service_us: longer(service_us), from_us, lasts_us: longer(lasts_us) }
            }
            Mode::Bimodal { fast_us, slow_us, every } => {
                Mode::Bimodal { fast_us: longer(fast_us), slow_us: longer(slow_us), every }
            }
            Mode::Queue { service_us } => Mode::Queue { service_us: longer(service_us) },
        }
    }

    /// Whether connections are enough for every request to be sent when it is due, so that one that leaves late was sent
    /// late by the generator.
    pub fn sends_at_once(self) -> bool {
        matches!(self, Mode::Fixed { .. } | Mode::Bimodal { .. })
    }
}
