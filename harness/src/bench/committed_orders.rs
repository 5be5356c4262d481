//! Committed orders per second of the reference target: through HTTP, on the embedded stack, counted by the audit.

use super::{Context, Figure, Unmeasured};
use crate::check::Verdict;
use crate::progress::Progress;
use crate::run::{self, RunError};
use crate::scenario;

/// One run for each size of the target's pool of database connections.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    [8, 128].into_iter().map(|pool| with_pool(context, pool)).collect()
}

/// 128 buyers who are busy all the time, since more arrive than can be served; each logs in and orders one unit.
///
/// There is no fault, stock never ends, and no hold runs out while orders come, so that nothing but ordering is measured.
/// Generator, proxies, service and database share the machine, as they do in a rehearsal.
fn with_pool(context: &Context<'_>, pool: u32) -> Result<Figure, Unmeasured> {
    context.say(&format!("committed orders with 128 buyers and a pool of {pool}, 6 s"));
    let text = format!(
        r#"
name = "bench-orders"
target.reference = {{ strategy = "conditional-update", pool = {pool} }}
item = [{{ id = 1, price_cents = 100, stock = 10000000, per_user_limit = 1, closes_at = "10m", hold = "8s" }}]
load = {{ duration = "6s", virtual_buyers = 128, request_timeout = "5s", patience = "500ms" }}
steady_state = {{ step = "state", within = "2s" }}
audit.drain_probe = false
[step.state]
path = "/items/${{item}}/state"
[step.login]
method = "POST"
path = "/sessions"
json = '{{"user":"${{user}}"}}'
capture = {{ token = "/token" }}
[step.order]
role = "order"
method = "POST"
path = "/items/${{item}}/orders"
headers = {{ authorization = "Bearer ${{token}}", idempotency-key = '"${{key}}"' }}
json = '{{"quantity":${{quantity}}}}'
[cohort.buyers]
journey = ["login", "order"]
arrivals = [{{ constant = {{ rate = 8000, lasts = "6s" }} }}]
"#
    );
    let path = context.folder.join(format!("orders-{pool}.toml"));
    std::fs::write(&path, text)?;
    let loaded = scenario::load(&path, &[], None)?;
    let folder = context.fresh_folder()?;
    let finished = context.runtime.block_on(run::run(&loaded, &folder, &Progress::new(true), context.cancel));
    let summary = finished
        .map_err(|error| match error {
            RunError::Stack(error) => Unmeasured::Missing(format!("the stack could not be provisioned: {error}")),
            error => Unmeasured::Failed(error.to_string()),
        })?
        .summary;
    if summary.partial || summary.verdict == Verdict::Fail || summary.goodput.committed_orders == 0 {
        return Err(Unmeasured::Failed(format!("the run is not worth measuring: {}", summary.verdict_reason)));
    }
    let detail = format!(
        "{} orders from first to last commit, by the audit; 128 buyers, each with a login; conditional-update",
        summary.goodput.committed_orders
    );
    let name = format!("committed_orders_per_second_pool_{pool}");
    Ok(Figure::new(name, summary.goodput.per_second, "orders per second").detail(&detail))
}
