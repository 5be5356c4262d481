//! When and how buyers try again, as scenarios say it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::value::Dur;

/// When and how a buyer tries again: exponential backoff with jitter, under the same idempotency key.
///
/// What `load.retry` leaves out has its default; what a cohort's `retry` leaves out is as in `load.retry`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts at most, the first included; 5 by default.
    pub attempts: Option<u16>,
    /// Wait before the second attempt; 100ms by default.
    pub base: Option<Dur>,
    /// Longest wait; 1s by default.
    pub max: Option<Dur>,
    /// Share of the wait that is random, from 0 to 1; 0.5 by default.
    pub jitter: Option<f64>,
    /// Whether `Retry-After` lengthens the wait; it does by default.
    pub honour_retry_after: Option<bool>,
    /// Retries that a cohort may make at most, as a share of its first attempts: with 0.2, one retry for every five. What
    /// goes beyond is given up and counted. No limit by default.
    pub budget: Option<f64>,
}

/// When and how the buyers of one cohort try again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts at most, the first included.
    pub attempts: u16,
    /// Wait before the second attempt.
    pub base: Duration,
    /// Longest wait.
    pub max: Duration,
    /// Share of the wait that is random, from 0 to 1.
    pub jitter: f64,
    /// Whether `Retry-After` lengthens the wait.
    pub honour_retry_after: bool,
    /// Retries at most, as a share of first attempts.
    pub budget: Option<f64>,
}

impl Retry {
    /// What a cohort does that says this, where `load.retry` is `common`.
    pub fn policy(&self, common: &Retry) -> RetryPolicy {
        let length = |own: Option<Dur>, common: Option<Dur>, ms| own.or(common).unwrap_or(Dur::millis(ms)).0;
        RetryPolicy {
            attempts: self.attempts.or(common.attempts).unwrap_or(5),
            base: length(self.base, common.base, 100),
            max: length(self.max, common.max, 1_000),
            jitter: self.jitter.or(common.jitter).unwrap_or(0.5),
            honour_retry_after: self.honour_retry_after.or(common.honour_retry_after).unwrap_or(true),
            budget: self.budget.or(common.budget),
        }
    }

    /// What is wrong with the numbers: the key, its value, and what is accepted.
    pub(super) fn mistakes(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut mistakes = Vec::new();
        if self.attempts == Some(0) {
            mistakes.push(("attempts", "0".to_owned(), "at least 1: the first attempt counts"));
        }
        if let Some(jitter) = self.jitter.filter(|jitter| !(0.0..=1.0).contains(jitter)) {
            mistakes.push(("jitter", jitter.to_string(), "a share from 0 to 1, such as 0.25"));
        }
        if let Some(budget) = self.budget.filter(|budget| !(0.0..=100.0).contains(budget)) {
            let help = "retries for each first attempt, from 0 to 100: 0.2 lets one in five be tried again";
            mistakes.push(("budget", budget.to_string(), help));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cohort_changes_what_it_names_and_nothing_else() {
        let read = |text: &str| toml::from_str::<Retry>(text).unwrap();
        let common = read("attempts = 6\nmax = '2s'\nbudget = 0.5");
        let own = read("attempts = 20\njitter = 0.0\nhonour_retry_after = false");
        let expected = RetryPolicy {
            attempts: 20,
            base: Duration::from_millis(100),
            max: Duration::from_secs(2),
            jitter: 0.0,
            honour_retry_after: false,
            budget: Some(0.5),
        };
        assert_eq!(own.policy(&common), expected);
        let nothing_said = Retry::default().policy(&Retry::default());
        assert_eq!((nothing_said.attempts, nothing_said.jitter, nothing_said.budget), (5, 0.5, None));
    }
}
