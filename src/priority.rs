//! How far threads that nobody waits for stand back behind verdicts.

/// Nice: at 10 a thread still gets a tenth of a busy core.
const NICENESS: i32 = 10;

/// Lets the line go first: the calling thread's work can wait some milliseconds, an answer cannot.
pub(crate) fn stand_back() {
    // On Linux this is the thread's own; where it is refused, everything works as well, only later.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}
