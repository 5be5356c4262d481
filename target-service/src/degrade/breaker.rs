//! The circuit breaker (L7) as a state machine: closed, open, half-open. Pure: whoever asks says what time it is.
//!
//! **Closed**, every call goes through, and the outcomes of the last moments are counted. When too many of them are bad it
//! **opens**: nothing goes through for a time. Then it is **half-open**: a counted few go through as probes. If all of them
//! turn out well it closes and has forgotten what was; the first that does not opens it again.
//!
//! Each permit knows the period in which it was given, so that a call that began before a change says nothing about what is
//! now. One that is given up on, and whose outcome nobody will ever hear of, gives its place as a probe back.

use std::time::Duration;

use super::window::Window;

/// When a breaker opens, and how it closes again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far back outcomes count.
    pub window: Duration,
    /// Fewer calls than these say nothing.
    pub least_calls: u64,
    /// The part of bad calls at which it opens.
    pub bad_share: f64,
    /// How long nothing goes through before it is tried again.
    pub cool_down: Duration,
    /// Probes that have to turn out well, all of them.
    pub probes: u32,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed,
    /// A few calls go through, as probes.
    HalfOpen,
    /// No call goes through.
    Open,
}

impl State {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Leave to make one call. Its outcome is to be told, or that there will be none.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    period: u64,
    probe: bool,
}

impl Permit {
    /// Whether the call is a probe.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

#[derive(Debug)]
enum Phase {
    Closed(Window),
    Open { until: Duration },
    HalfOpen { given: u32, good: u32 },
}

/// A breaker. Each change of its state begins another period.
#[derive(Debug)]
pub struct Breaker {
    limits: Limits,
    phase: Phase,
    period: u64,
}

impl Breaker {
    /// A closed one.
    pub fn new(limits: Limits) -> Self {
        Self { phase: Phase::Closed(Window::new(limits.window)), limits, period: 0 }
    }

    /// Where it stands. An open one stays so until somebody asks for a permit after its time.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Open { .. } => State::Open,
        }
    }

    /// How often its state has changed.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// Whether it would refuse a call now; asking this changes nothing.
    pub fn would_refuse(&self, now: Duration) -> bool {
        match self.phase {
            Phase::Closed(_) => false,
            Phase::Open { until } => now < until,
            Phase::HalfOpen { given, .. } => given >= self.limits.probes,
        }
    }

    /// Leave to make a call, or none.
    pub fn ask(&mut self, now: Duration) -> Option<Permit> {
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.enter(Phase::HalfOpen { given: 0, good: 0 });
        }
        let probe = match &mut self.phase {
            Phase::Closed(_) => false,
            Phase::HalfOpen { given, .. } if *given < self.limits.probes => {
                *given += 1;
                true
            }
            Phase::HalfOpen { .. } | Phase::Open { .. } => return None,
        };
        Some(Permit { period: self.period, probe })
    }

    /// Hears how a call turned out.
    pub fn tell(&mut self, permit: Permit, now: Duration, bad: bool) {
        if permit.period != self.period {
            return;
        }
        let next = match &mut self.phase {
            Phase::Closed(window) => {
                window.note(now, bad);
                let share = window.tally(now).share(self.limits.least_calls);
                (bad && share.is_some_and(|share| share >= self.limits.bad_share)).then(|| self.opened(now))
            }
            Phase::HalfOpen { .. } if bad => Some(self.opened(now)),
            Phase::HalfOpen { good, .. } => {
                *good += 1;
                (*good >= self.limits.probes).then(|| Phase::Closed(Window::new(self.limits.window)))
            }
            Phase::Open { .. } => None,
        };
        if let Some(next) = next {
            self.enter(next);
        }
    }

    /// Closes it, whatever was: nobody wants it any more.
    pub fn close(&mut self) {
        if self.state() != State::Closed {
            self.enter(Phase::Closed(Window::new(self.limits.window)));
        }
    }

    /// Hears that a call will have no outcome.
    pub fn forget(&mut self, permit: Permit) {
        if permit.period == self.period
            && let Phase::HalfOpen { given, .. } = &mut self.phase
        {
            *given -= 1;
        }
    }

    fn opened(&self, now: Duration) -> Phase {
        Phase::Open { until: now + self.limits.cool_down }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.period += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        window: Duration::from_millis(1_000),
        least_calls: 4,
        bad_share: 0.5,
        cool_down: Duration::from_millis(500),
        probes: 3,
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn call(breaker: &mut Breaker, ms: u64, bad: bool) -> bool {
        let Some(permit) = breaker.ask(at(ms)) else { return false };
        breaker.tell(permit, at(ms), bad);
        true
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        (0..4).for_each(|n| assert!(call(&mut breaker, n, true)));
        breaker
    }

    #[test]
    fn it_opens_when_half_of_enough_calls_are_bad() {
        let mut breaker = Breaker::new(LIMITS);
        for (ms, bad) in [(0, true), (1, true), (2, true)] {
            assert!(call(&mut breaker, ms, bad));
        }
        assert_eq!(breaker.state(), State::Closed, "three say nothing");
        assert!(call(&mut breaker, 3, false), "three of four, and yet a good one opens nothing");
        assert_eq!(breaker.state(), State::Closed);
        assert!(call(&mut breaker, 4, true));
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.would_refuse(at(503)) && breaker.ask(at(503)).is_none());
        // Spread over a longer time, as many are no reason.
        let mut breaker = Breaker::new(LIMITS);
        assert!((0..10).all(|n| call(&mut breaker, n * 400, true)));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn it_closes_after_as_many_good_probes() {
        let mut breaker = opened();
        let probes: Vec<Permit> = (0..3).map(|_| breaker.ask(at(600)).unwrap()).collect();
        assert!(probes.iter().all(Permit::is_probe));
        assert_eq!((breaker.state(), breaker.ask(at(600))), (State::HalfOpen, None), "no fourth one");
        for (n, probe) in probes.into_iter().enumerate() {
            assert_eq!(breaker.state(), State::HalfOpen, "{n} of them are back");
            breaker.tell(probe, at(610), false);
        }
        assert_eq!((breaker.state(), breaker.period()), (State::Closed, 3));
        assert!((0..3).all(|n| call(&mut breaker, 620 + n, true)), "what was before is forgotten");
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn one_bad_probe_opens_it_again_for_the_whole_time() {
        let mut breaker = opened();
        assert!(call(&mut breaker, 700, false) && call(&mut breaker, 701, true));
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.would_refuse(at(1_200)) && !breaker.would_refuse(at(1_201)));
    }

    #[test]
    fn what_began_before_says_nothing_and_a_lost_probe_gives_its_place_back() {
        let mut breaker = Breaker::new(LIMITS);
        let early = breaker.ask(at(0)).unwrap();
        (0..4).for_each(|n| assert!(call(&mut breaker, n, true)));
        let probe = breaker.ask(at(600)).unwrap();
        breaker.tell(early, at(601), true);
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.forget(probe);
        assert!((0..3).all(|n| call(&mut breaker, 610 + n, false)));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Tell(usize, bool),
        Forget(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Ask),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(n, bad)| Step::Tell(n, bad)),
            1 => any::<usize>().prop_map(Step::Forget),
            2 => (1_u64..700).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_goes_round_one_way_and_lets_no_more_probes_through_than_counted(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let (mut breaker, mut now, mut out) = (Breaker::new(LIMITS), at(0), Vec::new());
            let (mut opened_at, mut probes_of_period) = (None, 0);
            for step in steps {
                let (before, period) = (breaker.state(), breaker.period());
                let refuses = breaker.would_refuse(now);
                match step {
                    Step::Ask => {
                        let permit = breaker.ask(now);
                        prop_assert_eq!(permit.is_none(), refuses);
                        if let (Some(permit), Some(opened_at)) = (&permit, opened_at) {
                            prop_assert!(permit.is_probe() && now >= opened_at + LIMITS.cool_down);
                        }
                        if before != State::HalfOpen {
                            probes_of_period = 0;
                        }
                        probes_of_period += u32::from(permit.as_ref().is_some_and(Permit::is_probe));
                        prop_assert!(probes_of_period <= LIMITS.probes);
                        out.extend(permit);
                    }
                    Step::Tell(n, bad) if !out.is_empty() => {
                        let permit = out.swap_remove(n % out.len());
                        let old = permit.period != breaker.period();
                        breaker.tell(permit, now, bad);
                        prop_assert!(!old || breaker.period() == period, "an old outcome changed something");
                    }
                    Step::Forget(n) if !out.is_empty() => {
                        let permit = out.swap_remove(n % out.len());
                        probes_of_period -= u32::from(permit.is_probe() && permit.period == breaker.period());
                        breaker.forget(permit);
                    }
                    Step::Wait(ms) => now += at(ms),
                    Step::Tell(..) | Step::Forget(_) => {}
                }
                let after = breaker.state();
                if after != before {
                    use State::{Closed, HalfOpen, Open};
                    prop_assert!(matches!(
                        (before, after),
                        (Closed | HalfOpen, Open) | (Open, HalfOpen) | (HalfOpen, Closed)
                    ));
                    prop_assert_eq!(breaker.period(), period + 1);
                    opened_at = match after {
                        Open => Some(now),
                        HalfOpen => opened_at,
                        Closed => None,
                    };
                }
            }
        }

        #[test]
        fn a_dependency_that_is_well_is_always_called(waits in proptest::collection::vec(0_u64..500, 0..200)) {
            let (mut breaker, mut ms) = (Breaker::new(LIMITS), 0);
            for wait in waits {
                ms += wait;
                prop_assert!(call(&mut breaker, ms, false));
            }
            prop_assert_eq!((breaker.state(), breaker.period()), (State::Closed, 0));
        }
    }
}
