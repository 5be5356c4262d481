//! Sales that are rehearsed to be measured: buyers who log in once and then do nothing but order.

use super::{Context, Unmeasured};
use crate::progress::Progress;
use crate::run::{self, RunError};
use crate::scenario;
use crate::summary::Summary;

/// The steps of such a sale, and its buyers: after the login each makes so many orders, and at this rate others come, for as long as
/// four seconds.
pub(super) fn buyers(orders: usize, rate: u32) -> String {
    let steps = vec!["\"order\""; orders].join(", ");
    format!(
        r#"
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
journey = ["login", {steps}]
arrivals = [{{ constant = {{ rate = {rate}, lasts = "4s" }} }}]
"#
    )
}

/// Rehearses the scenario of this text. Its folder is removed again.
///
/// # Errors
/// It could not be run; [`Unmeasured::Missing`] if there is nothing to run it on.
pub(super) fn rehearse(context: &Context<'_>, text: &str) -> Result<Summary, Unmeasured> {
    context.goes_on()?;
    let path = context.folder.join("sale.toml");
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
    let _ = std::fs::remove_dir_all(&folder);
    Ok(summary)
}
