//! The exit codes of `seckill`, in their one place.

use crate::check::Verdict;

/// Everything that was asked for holds.
pub const PASS: i32 = 0;
/// The harness itself failed.
pub const INTERNAL: i32 = 1;
/// The command line or a file given to it is wrong.
pub const USAGE: i32 = 2;
/// An objective was missed.
pub const SLO_MISSED: i32 = 10;
/// An invariant is violated.
pub const VIOLATED: i32 = 11;
/// Nothing can be concluded: the run was vacuous or cut short, or the harness distrusts its own measurement.
pub const UNKNOWN: i32 = 12;
/// Worse than the baseline.
pub const REGRESSION: i32 = 13;
/// The stack could not be provisioned.
pub const NO_STACK: i32 = 20;

/// The code of a judged run. Several at once: the first of 11, 12, 10, 13 that applies.
pub fn of_run(verdict: Verdict, slo_missed: bool) -> i32 {
    match verdict {
        Verdict::Fail => VIOLATED,
        Verdict::Unknown => UNKNOWN,
        Verdict::Pass if slo_missed => SLO_MISSED,
        Verdict::Pass => PASS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first() {
        assert_eq!(of_run(Verdict::Fail, true), VIOLATED);
        assert_eq!(of_run(Verdict::Unknown, true), UNKNOWN);
        assert_eq!(of_run(Verdict::Pass, true), SLO_MISSED);
        assert_eq!(of_run(Verdict::Pass, false), PASS);
    }
}
