//! Asking the kernel for a processor before others: for whoever measures, and for whoever cleans up.

/// The name of the policy that [`make_real_time`] asks for.
pub const REAL_TIME_POLICY: &str = "SCHED_RR";

/// Gives the calling thread the lowest of the round-robin real-time priorities.
///
/// # Errors
/// What the system says: as a rule, that the privilege is missing.
pub fn make_real_time() -> std::io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the structure outlives the call, and the number 0 means the calling thread alone.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const lowest) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Asks for a better nice value for the calling thread, and what it starts from now on. Without the privilege nothing changes.
/// Safe between fork and exec.
pub fn prefer() {
    // SAFETY: the call takes numbers only; 0 means the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -15) };
}
