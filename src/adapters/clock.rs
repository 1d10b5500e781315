//! The system's clock, made to never go backwards, with what the kernel knows of its discipline.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{core::lineage::entry::ClockState, ports::clock::Clock, types::Instant};

/// How long the kernel's answer is believed; a time service changes its mind in minutes.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The clock of this host.
pub struct SystemClock(Mutex<Known>);

struct Known {
    largest: Instant,
    synchronised: bool,
    asked: Option<std::time::Instant>,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemClock {
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Known { largest: Instant::EPOCH, synchronised: false, asked: None }))
    }

    /// Makes [`Clock::now`] never earlier than `time`: the last entry's, after a restart.
    pub fn not_before(&self, time: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.largest = known.largest.max(time);
    }
}

impl Clock for SystemClock {
    fn now(&self) -> (Instant, ClockState) {
        // The clock is read with the lock held: a reading that waited for it would look like a step.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            known.synchronised = is_synchronised();
            known.asked = Some(std::time::Instant::now());
        }
        known.take(system_time())
    }
}

impl Known {
    fn take(&mut self, read: Instant) -> (Instant, ClockState) {
        if read < self.largest {
            return (self.largest, ClockState::Stepped);
        }
        self.largest = read;
        (read, if self.synchronised { ClockState::Synchronised } else { ClockState::Free })
    }
}

/// A time that cannot be written in evidence, before 1970 or after 2262, becomes the nearest that can.
fn system_time() -> Instant {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX);
    Instant::from_unix_nanos(nanos).expect("a duration is not negative")
}

/// Whether the kernel says that a time service disciplines the clock.
#[cfg(target_os = "linux")]
fn is_synchronised() -> bool {
    // SAFETY: `timex` is plain data for which zeroes are valid; with `modes` 0 the kernel only fills it in.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

#[cfg(not(target_os = "linux"))]
fn is_synchronised() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Instant {
        Instant::from_unix_nanos(seconds * 1_000_000_000).unwrap()
    }

    #[test]
    fn a_clock_that_steps_back_stands_still_and_says_so_until_it_has_caught_up() {
        let mut known = Known { largest: Instant::EPOCH, synchronised: true, asked: None };
        assert_eq!(known.take(at(100)), (at(100), ClockState::Synchronised));
        assert_eq!(known.take(at(40)), (at(100), ClockState::Stepped));
        assert_eq!(known.take(at(99)), (at(100), ClockState::Stepped));
        known.synchronised = false;
        assert_eq!(known.take(at(101)), (at(101), ClockState::Free));
    }

    #[test]
    fn time_goes_on_from_the_last_entry() {
        let clock = SystemClock::new();
        let (now, _) = clock.now();
        clock.not_before(Instant::from_unix_nanos(now.unix_nanos() + 3_600_000_000_000).unwrap());
        let (later, state) = clock.now();
        assert_eq!((later.unix_nanos() - now.unix_nanos(), state), (3_600_000_000_000, ClockState::Stepped));
    }

    #[test]
    fn readings_of_many_threads_are_no_steps() {
        let clock = SystemClock::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut last = Instant::EPOCH;
                    for _ in 0..20_000 {
                        let (now, state) = clock.now();
                        assert!(now >= last && state != ClockState::Stepped);
                        last = now;
                    }
                });
            }
        });
    }
}
