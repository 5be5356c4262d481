//! Which of the matching calls a toxic strikes.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Wrong;

/// Which of the matching calls on the struck connections are really struck.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Pick {
    /// All of them.
    #[default]
    All,
    /// Every n-th, counted over all struck connections in the order of their replies.
    Every(NonZeroU64),
    /// Each with this probability, drawn from the seeded stream of its connection.
    Share(f64),
    /// The first so many, counted over all struck connections.
    First(u64),
    /// The first so many of each struck connection.
    FirstOfEach(u64),
}

impl Pick {
    pub(super) fn validate(self) -> Result<(), Wrong> {
        match self {
            Self::Share(share) if !(0.0..=1.0).contains(&share) => {
                Err(Wrong::new("share", format!("is {share}"), "a share from 0 to 1"))
            }
            _ => Ok(()),
        }
    }
}

/// A [`Pick`] at work: the count is shared by all connections of one arming.
#[derive(Debug, Clone)]
pub(super) struct Picker {
    pick: Pick,
    seen: Arc<AtomicU64>,
    /// Those of this connection.
    own: u64,
}

impl Picker {
    pub(super) fn new(pick: Pick) -> Self {
        Self { pick, seen: Arc::default(), own: 0 }
    }

    pub(super) fn pick(&self) -> Pick {
        self.pick
    }

    /// Whether the next matching call is to be struck.
    pub(super) fn take(&mut self, rng: &mut ChaCha8Rng) -> bool {
        self.own += 1;
        match self.pick {
            Pick::All => true,
            Pick::Every(n) => (self.seen.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(n.get()),
            Pick::Share(share) => rng.random::<f64>() < share,
            Pick::First(n) => self.seen.fetch_add(1, Ordering::Relaxed) < n,
            Pick::FirstOfEach(n) => self.own <= n,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn proxy_pick_counts_and_draws() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let third = Picker::new(Pick::Every(NonZeroU64::new(3).unwrap()));
        assert_eq!((0..9).filter(|_| third.clone().take(&mut rng)).count(), 3);
        let mut half = Picker::new(Pick::Share(0.5));
        let struck = (0..1000).filter(|_| half.take(&mut rng)).count();
        assert!((400..600).contains(&struck), "{struck}");
        for (pick, struck) in [(Pick::First(3), 3), (Pick::FirstOfEach(3), 6)] {
            let armed = Picker::new(pick);
            let mut connections = [armed.clone(), armed];
            let all = (0..10).map(|n| usize::from(connections[n % 2].take(&mut rng)));
            assert_eq!(all.sum::<usize>(), struck);
        }
        assert!(Pick::Share(1.5).validate().is_err());
    }
}
