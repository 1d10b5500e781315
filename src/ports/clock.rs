//! Everything that asks the time takes a [`Clock`].

use crate::{core::lineage::entry::ClockState, types::Instant};

/// The server's clock.
pub trait Clock: Send + Sync + 'static {
    /// The time for a new entry. It never goes backwards between calls: when the system's clock steps back, the
    /// largest time seen is returned and the state is [`ClockState::Stepped`] until the clock has caught up (G15).
    fn now(&self) -> (Instant, ClockState);
}
