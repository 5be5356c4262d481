//! Turns: the sides of a duet are loaded one after the other, in stretches so short that whatever else the machine does
//! hits both alike.
//!
//! Two turns make a pair, one of each side, and the seed tosses a coin for which comes first. So in each pair the two sides
//! can be exchanged as far as chance knows, whatever the noise, however it drifts, and however one turn burdens the next: if
//! there is no difference, a pair's differences are as likely to be positive as negative. See L. Bulej et al., *Duet
//! Benchmarking: Improving Measurement Accuracy in the Cloud*, ICPE 2020, for the idea, and T. Kalibera and R. Jones,
//! *Rigorous Benchmarking in Reasonable Time*, ISMM 2013, for why the order has to be random.

use rand::RngExt;

use crate::history::Micros;
use crate::random;

/// The stream of random numbers that tosses the coins, counted from the top so that no cohort has it.
const COINS: u64 = u64::MAX - 7;

/// One of two builds that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What there was.
    Old,
    /// What is to take its place.
    New,
}

/// When it is whose turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Length of a turn in microseconds, above 0.
    pub every_us: Micros,
    /// The seed of the coins.
    pub seed: u64,
}

impl Turns {
    /// The pair in which a moment lies, counted from 0 at the epoch.
    pub fn pair(self, at_us: Micros) -> Option<u64> {
        u64::try_from(at_us.div_euclid(2 * self.every_us)).ok()
    }

    /// Whose turn it is at a moment.
    pub fn whose(self, at_us: Micros) -> Side {
        let pair = at_us.div_euclid(2 * self.every_us);
        // A generator for each pair, so that any moment can be asked about by itself.
        let old_first: bool =
            random::stream(self.seed ^ (pair as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), COINS).random();
        let first = at_us.rem_euclid(2 * self.every_us) < self.every_us;
        if first == old_first { Side::Old } else { Side::New }
    }
}

/// The turns of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Whose.
    pub side: Side,
    /// Among which.
    pub turns: Turns,
}

impl Turn {
    /// Whether it is this side's turn.
    pub fn has(self, at_us: Micros) -> bool {
        self.turns.whose(at_us) == self.side
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_has_one_turn_of_each_side_in_an_order_that_is_a_coins() {
        let turns = Turns { every_us: 1_000, seed: 5 };
        let pairs = 4_000;
        let mut old_first = 0;
        for pair in 0..pairs {
            let at = pair * 2_000;
            assert_eq!(turns.pair(at + 1_999), Some(pair as u64));
            assert_ne!(turns.whose(at), turns.whose(at + 1_000));
            assert_eq!(turns.whose(at), turns.whose(at + 999));
            old_first += i64::from(turns.whose(at) == Side::Old);
        }
        assert_eq!(turns.pair(-1), None);
        // Four standard deviations are 126.
        assert!((old_first - pairs / 2).abs() < 126, "{old_first}");
        let order = |seed| (0..64).map(|pair| Turns { seed, ..turns }.whose(pair * 2_000)).collect::<Vec<_>>();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
