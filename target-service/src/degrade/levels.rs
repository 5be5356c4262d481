//! The levels of degrading (L1 to L4), and which of them holds (L5), as a state machine. Pure: whoever asks says what time it
//! is and what is seen.

use std::time::Duration;

use super::hysteresis::{Thresholds, Trigger};
use crate::switches::SwitchId;

/// How much is given up, so that the rest works. Each level gives up what the ones before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Whole,
    /// Extras of a buyer.
    ExtrasOff,
    /// The stock as it is at this moment: it is shown as it was a moment ago.
    Snapshot,
    /// Ordering: pages are static.
    Closed,
    /// Everything that is not static.
    Static,
}

impl Level {
    /// Every level there is.
    pub const ALL: [Self; 5] = [Self::Whole, Self::ExtrasOff, Self::Snapshot, Self::Closed, Self::Static];

    /// Its number, as headers and metrics have it.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The level with this number.
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Levels that have a trigger.
pub const TRIGGERS: usize = 4;

/// Their switches, in order.
pub const SWITCHES: [SwitchId; TRIGGERS] = [SwitchId::L1, SwitchId::L2, SwitchId::L3, SwitchId::L4];

/// What is seen of the condition of each level: the part of what was tried that went wrong, if anything is known.
pub type Signals = [Option<f64>; TRIGGERS];

const fn thresholds(enter: f64, enter_ms: u64, leave: f64, leave_ms: u64) -> Thresholds {
    Thresholds { enter, enter_for: Duration::from_millis(enter_ms), leave, leave_for: Duration::from_millis(leave_ms) }
}

/// When each level is entered and left.
pub const THRESHOLDS: [Thresholds; TRIGGERS] = [
    // Half of the calls to a dependency that is not needed are slow or fail.
    thresholds(0.5, 300, 0.1, 1_500),
    // Half of the reads and orders take longer than the core may.
    thresholds(0.5, 300, 0.1, 1_500),
    // The database does not answer.
    thresholds(1.0, 600, 0.0, 1_000),
    // Half of all requests are turned away or fail.
    thresholds(0.5, 500, 0.05, 2_000),
];

/// The triggers of all levels, and what a person has decided.
#[derive(Debug)]
pub struct Levels {
    triggers: [Trigger; TRIGGERS],
    forced: Option<Level>,
    level: Level,
}

impl Default for Levels {
    fn default() -> Self {
        Self { triggers: THRESHOLDS.map(Trigger::new), forced: None, level: Level::Whole }
    }
}

impl Levels {
    /// The level that holds.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The level that a person has decided on, if one has.
    pub fn forced(&self) -> Option<Level> {
        self.forced
    }

    /// Fixes the level, whatever is seen, or leaves it to what is seen again.
    pub fn force(&mut self, forced: Option<Level>) {
        self.forced = forced;
        self.settle();
    }

    /// Looks at what is seen. A level that is not allowed is not entered, and is left at once.
    pub fn see(&mut self, now: Duration, signals: Signals, allowed: [bool; TRIGGERS]) {
        for ((trigger, signal), allowed) in self.triggers.iter_mut().zip(signals).zip(allowed) {
            if allowed {
                trigger.see(now, signal);
            } else {
                trigger.reset();
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        let highest = self.triggers.iter().rposition(Trigger::is_active);
        let seen = highest.map_or(Level::Whole, |n| Level::ALL[n + 1]);
        self.level = self.forced.unwrap_or(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WELL: Signals = [Some(0.0); TRIGGERS];
    const ALL: [bool; TRIGGERS] = [true; TRIGGERS];

    fn show(levels: &mut Levels, from: u64, to: u64, signals: Signals) -> u8 {
        (from..to).step_by(50).for_each(|ms| levels.see(Duration::from_millis(ms), signals, ALL));
        levels.level().number()
    }

    fn ill(which: &[usize]) -> Signals {
        std::array::from_fn(|n| Some(if which.contains(&n) { 1.0 } else { 0.0 }))
    }

    #[test]
    fn the_highest_level_whose_condition_holds_is_the_level() {
        let mut levels = Levels::default();
        assert_eq!(show(&mut levels, 0, 1_000, ill(&[0, 2])), 3);
        assert_eq!(show(&mut levels, 1_000, 2_500, ill(&[0])), 1, "the database is back, the dependency is not");
        assert_eq!(show(&mut levels, 2_500, 3_500, ill(&[1])), 2);
        assert_eq!(show(&mut levels, 3_500, 4_500, ill(&[3])), 4);
        assert_eq!(show(&mut levels, 4_500, 8_000, WELL), 0);
        for level in Level::ALL {
            assert_eq!(Level::numbered(level.number()), Some(level));
        }
        assert_eq!(Level::numbered(5), None);
    }

    #[test]
    fn what_is_not_allowed_is_left_at_once_and_what_is_forced_stays() {
        let mut levels = Levels::default();
        show(&mut levels, 0, 1_000, ill(&[3]));
        levels.see(Duration::from_millis(1_000), ill(&[3]), [true, true, true, false]);
        assert_eq!(levels.level(), Level::Whole);
        levels.force(Some(Level::Snapshot));
        assert_eq!(show(&mut levels, 1_050, 3_000, ill(&[3])), 2);
        levels.force(None);
        assert_eq!(levels.level(), Level::Static);
    }

    #[test]
    fn each_level_has_a_band_and_is_left_later_than_entered() {
        for t in THRESHOLDS {
            assert!(t.leave < t.enter && t.leave_for > t.enter_for, "{t:?}");
        }
    }

    proptest! {
        #[test]
        fn signals_within_their_bands_change_nothing(
            steps in proptest::collection::vec((proptest::array::uniform4(0.01_f64..0.99), 1_u64..3_000), 1..100),
            start in 0_usize..=TRIGGERS,
        ) {
            let mut levels = Levels::default();
            let seen: Vec<usize> = (0..start).collect();
            let level = show(&mut levels, 0, 1_000, ill(&seen));
            let mut ms = 1_000;
            for (shares, wait) in steps {
                ms += wait;
                let band = std::array::from_fn(|n| {
                    let t = THRESHOLDS[n];
                    Some(t.leave + shares[n] * (t.enter - t.leave))
                });
                levels.see(Duration::from_millis(ms), band, ALL);
                prop_assert_eq!(levels.level().number(), level);
            }
        }
    }
}
