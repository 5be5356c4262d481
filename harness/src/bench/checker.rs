//! How fast a history is judged.

use nix::time::{ClockId, clock_gettime};

use super::{Context, Figure, Unmeasured};
use crate::check::sim::{Size, simulate};
use crate::check::{Verdict, judge, merged};

/// Purchases that give a history of about a million ops.
const PURCHASES: u64 = 850_000;

/// Ops per processor second of all checks over a simulated sale of about a million ops.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context.say("judging a simulated sale of about a million ops");
    let run = simulate(7, None, &Size::large(PURCHASES));
    let ops = run.history.ops.len();
    let begun = thread_cpu_s();
    let findings = judge(&run.evidence());
    let cpu_s = thread_cpu_s() - begun;
    if merged(&findings) == Verdict::Fail {
        return Err(Unmeasured::Failed("the checks fail a correct sale".into()));
    }
    let detail = format!("{ops} ops and {} ledger rows judged once in {cpu_s:.2} s of CPU", run.audit.ledger.len());
    Ok(vec![Figure::new("checker_ops_per_second", ops as f64 / cpu_s, "ops per CPU-second").detail(&detail)])
}

/// What this thread has had of a processor: the machine may be busy with other things.
fn thread_cpu_s() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}
