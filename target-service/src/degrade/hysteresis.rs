//! When a level of degrading is entered and left: a threshold with hysteresis in height and in time. Pure: whoever asks says
//! what time it is.
//!
//! A signal has to stand at the upper threshold for a while before the level is entered, and below the lower one for longer
//! before it is left. In between nothing changes. Whoever falls back soon after he has left stays twice as long the next time.

use std::time::Duration;

/// The two thresholds. `leave` lies below `enter`, and `leave_for` is the longer.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// At or above this it is entered,
    pub enter: f64,
    /// after the signal has stood there for so long.
    pub enter_for: Duration,
    /// At or below this it is left,
    pub leave: f64,
    /// after the signal has stood there for so long.
    pub leave_for: Duration,
}

/// Doublings at most of the time before it is left.
const MOST_DOUBLINGS: u32 = 3;
/// Falling back within so many times of the time before leaving is a relapse.
const SOON: u32 = 4;

/// Whether a level's condition holds.
#[derive(Clone, Debug)]
pub struct Trigger {
    thresholds: Thresholds,
    active: bool,
    /// Since when the signal has stood beyond the threshold that would change it.
    beyond_since: Option<Duration>,
    left_at: Option<Duration>,
    doublings: u32,
}

impl Trigger {
    /// One that is not active.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, active: false, beyond_since: None, left_at: None, doublings: 0 }
    }

    /// Whether it holds, as of the last look.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Looks at the signal, and says whether the condition holds now. Where nothing is known, nothing changes.
    pub fn see(&mut self, now: Duration, signal: Option<f64>) -> bool {
        let t = self.thresholds;
        let beyond = signal.is_some_and(|signal| if self.active { signal <= t.leave } else { signal >= t.enter });
        if !beyond {
            self.beyond_since = None;
            return self.active;
        }
        let since = *self.beyond_since.get_or_insert(now);
        let patience = if self.active { self.leave_for() } else { t.enter_for };
        if now.saturating_sub(since) >= patience {
            self.turn(now);
        }
        self.active
    }

    /// Forgets everything: nobody wants to know any more.
    pub fn reset(&mut self) {
        *self = Self::new(self.thresholds);
    }

    fn leave_for(&self) -> Duration {
        self.thresholds.leave_for * 2_u32.pow(self.doublings)
    }

    fn turn(&mut self, now: Duration) {
        if self.active {
            self.left_at = Some(now);
        } else {
            let soon = self.left_at.is_some_and(|left| now.saturating_sub(left) < self.leave_for() * SOON);
            self.doublings = if soon { (self.doublings + 1).min(MOST_DOUBLINGS) } else { 0 };
        }
        (self.active, self.beyond_since) = (!self.active, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: Thresholds = Thresholds {
        enter: 0.5,
        enter_for: Duration::from_millis(300),
        leave: 0.1,
        leave_for: Duration::from_millis(1_000),
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Shows the same signal every 50 ms for a time.
    fn show(trigger: &mut Trigger, from: u64, to: u64, signal: f64) -> bool {
        (from..=to).step_by(50).map(|ms| trigger.see(at(ms), Some(signal))).last().unwrap()
    }

    #[test]
    fn it_is_entered_after_a_while_and_left_after_a_longer_one() {
        let mut trigger = Trigger::new(T);
        assert!(!show(&mut trigger, 0, 250, 1.0));
        assert!(!show(&mut trigger, 300, 300, 0.4), "a spike is no state");
        assert!(!show(&mut trigger, 350, 600, 1.0));
        assert!(show(&mut trigger, 650, 650, 1.0));
        assert!(show(&mut trigger, 700, 1_600, 0.0));
        assert!(!show(&mut trigger, 1_650, 1_700, 0.0));
    }

    #[test]
    fn who_falls_back_soon_stays_longer_and_who_was_well_for_long_does_not() {
        let mut trigger = Trigger::new(T);
        let mut ms = 0;
        let mut stays = Vec::new();
        for well_for in [0, 0, 0, 0, 60_000, 0] {
            while !trigger.see(at(ms), Some(1.0)) {
                ms += 50;
            }
            let entered = ms;
            while trigger.see(at(ms), Some(0.0)) {
                ms += 50;
            }
            stays.push((ms - entered) / 1_000);
            ms += 50 + well_for;
        }
        assert_eq!(stays, [1, 2, 4, 8, 8, 1]);
    }

    proptest! {
        #[test]
        fn a_signal_within_the_band_changes_nothing(
            signals in proptest::collection::vec((0.100_001_f64..0.499_999, 1_u64..5_000), 1..200),
            active: bool,
        ) {
            let mut trigger = Trigger::new(T);
            if active {
                show(&mut trigger, 0, 300, 1.0);
            }
            let mut ms = 300;
            for (signal, wait) in signals {
                ms += wait;
                prop_assert_eq!(trigger.see(at(ms), Some(signal)), active);
            }
        }

        #[test]
        fn no_signal_whatever_makes_it_flap(
            signals in proptest::collection::vec((proptest::option::of(0.0_f64..1.0), 1_u64..200), 1..600),
        ) {
            let (mut trigger, mut ms) = (Trigger::new(T), 0);
            let (mut entered_at, mut left_at) = (None, None);
            for (signal, wait) in signals {
                ms += wait;
                let before = trigger.is_active();
                match (before, trigger.see(at(ms), signal)) {
                    (false, true) => {
                        prop_assert!(signal.unwrap() >= T.enter);
                        prop_assert!(left_at.is_none_or(|left| at(ms) >= left + T.enter_for));
                        entered_at = Some(at(ms));
                    }
                    (true, false) => {
                        prop_assert!(signal.unwrap() <= T.leave);
                        prop_assert!(at(ms) >= entered_at.unwrap() + T.leave_for);
                        left_at = Some(at(ms));
                    }
                    _ => {}
                }
            }
        }
    }
}
