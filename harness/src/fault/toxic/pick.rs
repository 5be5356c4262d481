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
}

impl Picker {
    pub(super) fn new(pick: Pick) -> Self {
        Self { pick, seen: Arc::default() }
    }

    pub(super) fn pick(&self) -> Pick {
        self.pick
    }

    /// Whether the next matching call is to be struck.
    pub(super) fn take(&self, rng: &mut ChaCha8Rng) -> bool {
        match self.pick {
            Pick::All => true,
            Pick::Every(n) => (self.seen.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(n.get()),
            Pick::Share(share) => rng.random::<f64>() < share,
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
        let half = Picker::new(Pick::Share(0.5));
        let struck = (0..1000).filter(|_| half.take(&mut rng)).count();
        assert!((400..600).contains(&struck), "{struck}");
        assert!(Pick::Share(1.5).validate().is_err());
    }
}
