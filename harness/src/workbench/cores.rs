//! Which processor runs what: measurements pin the server and the client apart, so that neither pays for the other.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processors of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// Where the load generator and the clients that it is compared with run.
    pub client: usize,
    /// Where the server runs.
    pub server: usize,
    all: CpuSet,
}

impl Cores {
    /// The first and the last of the processors that this process may use.
    pub fn choose() -> Cores {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
        let mut allowed = (0..CpuSet::count()).filter(|core| all.is_set(*core).unwrap_or(false));
        let client = allowed.next().unwrap_or(0);
        Cores { client, server: allowed.next_back().unwrap_or(client), all }
    }

    /// Whether client and server have to share one processor: then the figures say little.
    pub fn shared(&self) -> bool {
        self.client == self.server
    }

    /// Runs `work` on the client's processor; threads and processes that it starts stay there.
    pub fn on_client<T>(&self, work: impl FnOnce() -> T) -> T {
        pin(self.client);
        let result = work();
        // A failure to widen it again would only make what follows slower, and pinning worked a moment ago.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.all);
        result
    }
}

/// Binds the calling thread, and whatever it starts from now on, to a processor.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_err() {
        tracing::warn!("cannot bind to processor {core}; client and server may disturb each other");
    }
}
