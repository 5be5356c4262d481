//! The exit codes of `seckill`, in their one place.

use crate::check::Verdict;
use crate::gate::Decision;

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

/// The code of a judged run, where `slos_met` is none if some objective could not be judged. Several at once: the first
/// of 11, 12, 10, 13 that applies.
pub fn of_run(verdict: Verdict, slos_met: Option<bool>) -> i32 {
    match (verdict, slos_met) {
        (Verdict::Fail, _) => VIOLATED,
        (Verdict::Unknown, _) | (Verdict::Pass, None) => UNKNOWN,
        (Verdict::Pass, Some(false)) => SLO_MISSED,
        (Verdict::Pass, Some(true)) => PASS,
    }
}

/// The code of a gate, where `missed` tells whether the new side missed an objective. Several at once: the first of 11, 12, 10, 13.
pub fn of_gate(decision: Decision, missed: bool, undecided_is_unknown: bool) -> i32 {
    match decision {
        Decision::Violated => VIOLATED,
        Decision::Unknown => UNKNOWN,
        Decision::Undecided if undecided_is_unknown => UNKNOWN,
        _ if missed => SLO_MISSED,
        Decision::Regression => REGRESSION,
        Decision::Same | Decision::Undecided => PASS,
    }
}

/// How grave a code is, to tell the gravest of several runs: the harness's own failures first, then 11, 12, 10, 13.
pub fn severity(code: i32) -> usize {
    let order = [PASS, REGRESSION, SLO_MISSED, UNKNOWN, VIOLATED, NO_STACK, USAGE];
    order.iter().position(|known| *known == code).unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first() {
        assert_eq!(of_run(Verdict::Fail, None), VIOLATED);
        assert_eq!(of_run(Verdict::Unknown, Some(false)), UNKNOWN);
        assert_eq!(of_run(Verdict::Pass, None), UNKNOWN);
        assert_eq!(of_run(Verdict::Pass, Some(false)), SLO_MISSED);
        assert_eq!(of_run(Verdict::Pass, Some(true)), PASS);
        assert_eq!(of_gate(Decision::Violated, true, false), VIOLATED);
        assert_eq!(of_gate(Decision::Unknown, true, false), UNKNOWN);
        assert_eq!(of_gate(Decision::Regression, true, false), SLO_MISSED);
        assert_eq!(of_gate(Decision::Regression, false, true), REGRESSION);
        assert_eq!(of_gate(Decision::Undecided, false, true), UNKNOWN);
        assert_eq!(of_gate(Decision::Undecided, false, false), PASS);
        assert_eq!(of_gate(Decision::Same, false, true), PASS);
    }
}
