//! Trying again: how long a buyer waits, and whether its cohort still may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::scenario::RetryPolicy;

/// The retries of one cohort.
///
/// Its budget is a bucket of tokens: each first attempt puts in the budget's share of one, each retry takes one out, and
/// without a whole one nothing is tried again. So a service that fails everybody gets that share more load, and no storm
/// (Finagle's `RetryBudget` and the retry quota of the AWS SDKs' standard mode work like this; unlike theirs, this one
/// starts empty and forgets nothing, so the share holds at any moment of a run).
#[derive(Debug)]
pub struct Retries {
    /// When and how they try again.
    pub policy: RetryPolicy,
    first: AtomicU64,
    again: AtomicU64,
    suppressed: AtomicU64,
}

impl Retries {
    /// Nothing was tried yet.
    pub fn new(policy: RetryPolicy) -> Retries {
        Retries { policy, first: AtomicU64::new(0), again: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// A first attempt is made.
    pub fn first_attempt(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more retry is within the budget. It is then as good as made; otherwise it is counted as suppressed.
    pub fn may_retry(&self) -> bool {
        let Some(budget) = self.policy.budget else { return true };
        let most = (self.first.load(Ordering::Relaxed) as f64 * budget + 1e-9) as u64;
        let take = |made: u64| (made < most).then_some(made + 1);
        let taken = self.again.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if !taken {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Retries that were not made for want of budget.
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// The wait after attempt `number`: exponential, or what the server asks for if that is longer, less a random share.
    pub fn wait(&self, number: u16, retry_after_s: Option<u32>, random: f64) -> Duration {
        let policy = &self.policy;
        let exponential = policy.base.saturating_mul(1u32 << u32::from(number - 1).min(16)).min(policy.max);
        // A server's whole seconds would make all refused buyers come back at once, so they get the jitter, too.
        exponential.max(self.told(retry_after_s)).mul_f64(1.0 - policy.jitter * random)
    }

    /// The wait that the server asks for, as far as these buyers listen.
    pub fn told(&self, retry_after_s: Option<u32>) -> Duration {
        let seconds = retry_after_s.filter(|_| self.policy.honour_retry_after).unwrap_or(0);
        Duration::from_secs(seconds.into()).min(self.policy.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(budget: Option<f64>) -> RetryPolicy {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(2));
        RetryPolicy { attempts: 6, base, max, jitter: 0.5, honour_retry_after: true, budget }
    }

    proptest! {
        #[test]
        fn retries_are_never_more_than_the_budget(budget in 0.0f64..3.0, first in proptest::collection::vec(any::<bool>(), 1..400)) {
            let retries = Retries::new(policy(Some(budget)));
            let (mut attempts, mut again, mut refused) = (0u64, 0u64, 0u64);
            for is_first in first {
                if is_first {
                    retries.first_attempt();
                    attempts += 1;
                } else if retries.may_retry() {
                    again += 1;
                } else {
                    refused += 1;
                    prop_assert!(again as f64 + 1.0 > attempts as f64 * budget, "there was a token left");
                }
                prop_assert!(again as f64 <= attempts as f64 * budget + 1e-6);
            }
            prop_assert_eq!(retries.suppressed(), refused);
        }

        #[test]
        fn a_wait_grows_up_to_its_limit_and_listens(number in 1u16..60, told in proptest::option::of(0u32..9), random in 0.0f64..1.0) {
            let mut retries = Retries::new(policy(None));
            let wait = retries.wait(number, told, random);
            let exponential = 0.1 * 2f64.powi(i32::from(number) - 1);
            let longest = exponential.max(told.unwrap_or(0).into()).min(2.0);
            prop_assert!(wait.as_secs_f64() <= longest + 1e-9 && wait.as_secs_f64() >= longest * 0.5 - 1e-9);
            retries.policy.honour_retry_after = false;
            prop_assert!(retries.wait(number, told, random) <= wait);
            prop_assert_eq!(retries.wait(number, None, 0.0).as_secs_f64(), exponential.min(2.0));
        }
    }

    #[test]
    fn without_a_budget_everything_is_tried_again() {
        let retries = Retries::new(policy(None));
        assert!((0..100).all(|_| retries.may_retry()) && retries.suppressed() == 0);
        let none = Retries::new(policy(Some(0.0)));
        none.first_attempt();
        assert!(!none.may_retry());
    }
}
