//! The checkpoint evidence is given under: the newest one that enough witnesses vouch for, where it covers what is asked.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    core::witness::cosign::Cosigned,
    ports::{
        lineage::SignedCheckpoint,
        witness::{CosignedStore, MemoryError},
    },
};

/// Longest wait for the witnesses, where they answered last time: two of their rounds and their answer.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// What witnesses vouch for, as the plant knows it.
pub struct Witnessed {
    store: Arc<dyn CosignedStore>,
    /// The last round reached the quorum, so the next one is worth waiting for.
    is_live: AtomicBool,
    rounds: Mutex<u64>,
    changed: Condvar,
}

impl Witnessed {
    #[must_use]
    pub fn new(store: Arc<dyn CosignedStore>) -> Arc<Self> {
        let (is_live, rounds, changed) = (AtomicBool::new(false), Mutex::new(0), Condvar::new());
        Arc::new(Self { store, is_live, rounds, changed })
    }

    /// The newest checkpoint that satisfies the policy.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn newest(&self) -> Result<Option<SignedCheckpoint>, MemoryError> {
        Ok(self.store.witnessed()?.map(|cosigned| signed(&cosigned)))
    }

    /// The newest checkpoint that satisfies the policy and covers `size` entries. Waits a moment for it while the
    /// witnesses answer; blocks.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn covering(&self, size: u64) -> Result<Option<SignedCheckpoint>, MemoryError> {
        let until = Instant::now() + WAIT_MAX;
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(newest) = self.newest()?.filter(|newest| newest.size >= size) {
                return Ok(Some(newest));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_live.load(Ordering::Relaxed) {
                return Ok(None);
            }
            rounds = self.changed.wait_timeout(rounds, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn keep(&self, cosigned: &Cosigned) -> Result<bool, MemoryError> {
        self.store.keep(cosigned)
    }

    /// Wakes whoever waits.
    pub(super) fn round_ended(&self, is_live: bool) {
        self.is_live.store(is_live, Ordering::Relaxed);
        *self.rounds.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }
}

fn signed(cosigned: &Cosigned) -> SignedCheckpoint {
    let facts = cosigned.facts();
    SignedCheckpoint { size: facts.size, root: facts.root, note: cosigned.note().into() }
}
