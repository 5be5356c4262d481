//! What faults of processes have in common.

use std::time::Duration;

/// How long a part may take to come up again.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What was hit, for people.
pub(super) fn hit(processes: usize, how: &str) -> String {
    format!("{processes} {} {how}", if processes == 1 { "process" } else { "processes" })
}
