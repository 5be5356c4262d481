//! Another process that the service asks, behind a circuit breaker (L7): one that does not answer in time, or nothing that makes
//! sense, is left alone for a while, and then asked by a few counted probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use hyper::http::Method;

use crate::config::Address;
use crate::degrade::breaker::{Breaker, Limits, Permit, State};
use crate::degrade::window::Window;
use crate::metrics::BreakerMeters;
use crate::outbound::{CallError, Outbound};
use crate::switches::{SwitchId, Switches};

/// The same for every dependency.
const LIMITS: Limits = Limits {
    window: Duration::from_secs(2),
    least_calls: 8,
    bad_share: 0.5,
    cool_down: Duration::from_millis(500),
    probes: 3,
};
/// How far back it is looked for how the dependency is.
const RECENT: Duration = Duration::from_secs(1);
/// Fewer calls than these say nothing of it.
const LEAST_CALLS: u64 = 4;

/// A call to make: method, path, headers, body.
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body.
    pub body: Bytes,
}

/// A dependency.
pub struct Dependency {
    name: &'static str,
    outbound: Outbound,
    /// A reply that takes longer is a bad one, also if it is waited for.
    slow: Duration,
    switches: Arc<Switches>,
    meters: BreakerMeters,
    epoch: Instant,
    watched: Mutex<Watched>,
}

struct Watched {
    breaker: Breaker,
    recent: Window,
}

impl Dependency {
    /// The dependency at this address. Connects to nothing yet.
    pub fn new(
        name: &'static str,
        address: Address,
        slow: Duration,
        switches: &Arc<Switches>,
        meters: &BreakerMeters,
    ) -> Self {
        meters.state(name, State::Closed);
        Self {
            name,
            outbound: Outbound::new(address),
            slow,
            switches: Arc::clone(switches),
            meters: meters.clone(),
            epoch: Instant::now(),
            watched: Mutex::new(Watched { breaker: Breaker::new(LIMITS), recent: Window::new(RECENT) }),
        }
    }

    /// Sends a small request and reads the whole reply within a limit, unless the breaker is open. `read` makes something of a
    /// reply; nothing if it makes no sense, which counts as a bad reply. Beside what was read stands the status.
    ///
    /// # Errors
    /// There is no reply, or nothing was asked.
    pub async fn call<T>(
        &self,
        call: Call<'_>,
        limit: Duration,
        read: impl FnOnce(u16, &[u8]) -> Option<T>,
    ) -> Result<(u16, Option<T>), CallError> {
        let under_way = self.begin()?;
        let began = Instant::now();
        let outcome = self.outbound.call(call.method, call.path, call.headers, call.body, limit).await;
        let outcome = outcome.map(|(status, body)| (status, read(status, &body)));
        let good = matches!(&outcome, Ok((status, Some(_))) if *status < 500);
        under_way.ended(!good || began.elapsed() > self.slow);
        outcome
    }

    /// How much of what was asked of late went wrong; all of it while the breaker is not closed. Nothing if too little was asked.
    pub fn illness(&self) -> Option<f64> {
        let now = self.epoch.elapsed();
        let watched = self.lock();
        if self.is_guarded() && watched.breaker.state() != State::Closed {
            return Some(1.0);
        }
        watched.recent.tally(now).share(LEAST_CALLS)
    }

    /// Whether the breaker is not closed, so that somebody has to try.
    pub fn is_troubled(&self) -> bool {
        self.is_guarded() && self.lock().breaker.state() != State::Closed
    }

    /// Whether a call would be refused at this moment.
    pub fn is_cut_off(&self) -> bool {
        self.is_guarded() && self.lock().breaker.would_refuse(self.epoch.elapsed())
    }

    fn is_guarded(&self) -> bool {
        self.switches.is_on(SwitchId::L7)
    }

    fn begin(&self) -> Result<UnderWay<'_>, CallError> {
        let mut watched = self.lock();
        if !self.is_guarded() {
            let period = watched.breaker.period();
            watched.breaker.close();
            self.tell_change(&mut watched, period);
            return Ok(UnderWay { dependency: self, permit: None });
        }
        let period = watched.breaker.period();
        let permit = watched.breaker.ask(self.epoch.elapsed());
        self.tell_change(&mut watched, period);
        match permit {
            Some(permit) => Ok(UnderWay { dependency: self, permit: Some(permit) }),
            None => {
                self.meters.refused(self.name);
                Err(CallError::CutOff)
            }
        }
    }

    fn tell_change(&self, watched: &mut Watched, period: u64) {
        if watched.breaker.period() == period {
            return;
        }
        let state = watched.breaker.state();
        if state == State::Closed {
            watched.recent.clear();
        }
        self.meters.changed(self.name, state);
        tracing::info!(dependency = self.name, state = state.as_str(), "the breaker changed");
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that was let through. Given up on, it gives its place back.
struct UnderWay<'a> {
    dependency: &'a Dependency,
    permit: Option<Permit>,
}

impl UnderWay<'_> {
    fn ended(mut self, bad: bool) {
        let (permit, dependency) = (self.permit.take(), self.dependency);
        let now = dependency.epoch.elapsed();
        let mut watched = dependency.lock();
        watched.recent.note(now, bad);
        if let Some(permit) = permit {
            if permit.is_probe() {
                dependency.meters.probed(dependency.name, bad);
            }
            let period = watched.breaker.period();
            watched.breaker.tell(permit, now, bad);
            dependency.tell_change(&mut watched, period);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.dependency.lock().breaker.forget(permit);
        }
    }
}
