//! How much of what was tried of late went wrong, in slices of time. Pure: whoever asks says what time it is.

use std::collections::VecDeque;
use std::time::Duration;

/// Slices that a window is made of.
const SLICES: u32 = 10;

/// What went well and what did not within the last moments.
#[derive(Clone, Debug)]
pub struct Window {
    slice: Duration,
    slices: VecDeque<Slice>,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    number: u128,
    tally: Tally,
}

/// How many there were, and how many of them went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub all: u64,
    /// Those that failed, or took too long.
    pub bad: u64,
}

impl Tally {
    /// The part that went wrong; nothing where there are fewer than `least`.
    pub fn share(self, least: u64) -> Option<f64> {
        (self.all >= least.max(1)).then(|| self.bad as f64 / self.all as f64)
    }
}

impl Window {
    /// A window that reaches back so far, and up to a tenth of it less.
    pub fn new(span: Duration) -> Self {
        Self { slice: (span / SLICES).max(Duration::from_nanos(1)), slices: VecDeque::new() }
    }

    /// Notes one more. Times that go back count as the latest there was.
    pub fn note(&mut self, now: Duration, bad: bool) {
        let number = self.number(now);
        match self.slices.back_mut() {
            Some(last) if last.number >= number => last.tally.add(bad),
            _ => {
                let mut tally = Tally::default();
                tally.add(bad);
                self.slices.push_back(Slice { number, tally });
            }
        }
        while self.slices.front().is_some_and(|first| first.number + u128::from(SLICES) <= number) {
            self.slices.pop_front();
        }
    }

    /// What there was within the window that ends now.
    pub fn tally(&self, now: Duration) -> Tally {
        let number = self.number(now);
        let recent = self.slices.iter().filter(|slice| slice.number + u128::from(SLICES) > number);
        recent.fold(Tally::default(), |sum, slice| Tally {
            all: sum.all + slice.tally.all,
            bad: sum.bad + slice.tally.bad,
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slices.clear();
    }

    fn number(&self, now: Duration) -> u128 {
        now.as_nanos() / self.slice.as_nanos()
    }
}

impl Tally {
    fn add(&mut self, bad: bool) {
        self.all += 1;
        self.bad += u64::from(bad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let at = Duration::from_millis;
        let mut window = Window::new(at(1_000));
        window.note(at(50), true);
        window.note(at(60), false);
        window.note(at(500), false);
        assert_eq!(window.tally(at(900)), Tally { all: 3, bad: 1 });
        assert_eq!(window.tally(at(1_050)), Tally { all: 1, bad: 0 });
        window.note(at(1_600), true);
        assert_eq!(window.tally(at(1_600)), Tally { all: 1, bad: 1 });
        assert_eq!(window.tally(at(1_600)).share(1), Some(1.0));
        assert_eq!(window.tally(at(1_600)).share(2), None);
        window.clear();
        assert_eq!(window.tally(at(1_600)).share(0), None);
    }
}
