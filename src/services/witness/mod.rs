//! Witnessing, from both sides: [`Witness`] is who vouches for others' logs, [`collect`] is how a plant asks, and
//! [`Witnessed`] what the plant's evidence is given under.

pub mod collect;
mod witnessed;

use std::sync::Arc;

pub use self::witnessed::Witnessed;
use crate::{
    core::{
        export::{keys::VerifierKey, manifest::CheckpointFacts},
        witness::{
            cosign::{Cosigned, Cosigner},
            request::{AddCheckpoint, Refusal},
        },
    },
    ports::{
        clock::Clock,
        witness::{MemoryError, WitnessMemory},
    },
    types::Sha256Digest,
};

#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(
        "what this witness remembers of the log {origin:?} cannot be read: {reason}. It cosigns nothing for that log: bring the file back, or begin again under a new name and key"
    )]
    Damaged { origin: String, reason: String },
}

/// A witness: its key, the logs it trusts, and what it remembers of them.
pub struct Witness {
    cosigner: Cosigner,
    logs: Vec<VerifierKey>,
    memory: Arc<dyn WitnessMemory>,
    clock: Arc<dyn Clock>,
}

/// Where a log's memory is kept and served: the SHA-256 of its origin in hex, as tlog-witness has it.
#[must_use]
pub fn place(origin: &str) -> String {
    Sha256Digest::of(origin.as_bytes()).hex()
}

impl Witness {
    #[must_use]
    pub fn new(
        cosigner: Cosigner,
        logs: Vec<VerifierKey>,
        memory: Arc<dyn WitnessMemory>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { cosigner, logs, memory, clock }
    }

    /// Answers one `add-checkpoint` request: checks it against what was cosigned last, remembers it durably, and only
    /// then returns the cosigned checkpoint. Whatever ends the process in between, the next request is held against
    /// this checkpoint or the one before it, of which nobody got a later one. Blocks on the disk.
    ///
    /// # Errors
    /// [`WitnessError`]; nothing was cosigned that anybody saw.
    pub fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Cosigned, WitnessError> {
        let origin = request.origin()?;
        if !self.logs.iter().any(|key| key.name() == origin) {
            return Err(Refusal::UnknownLog { origin }.into());
        }
        let mut outcome = None;
        self.memory.update(&place(&origin), &mut |latest| {
            let decided = self.decide(request, &origin, latest);
            let note = decided.as_ref().ok().map(Cosigned::note);
            outcome = Some(decided);
            note
        })?;
        outcome.expect("the memory calls the step once")
    }

    fn decide(&self, request: &AddCheckpoint, origin: &str, latest: Option<&str>) -> Result<Cosigned, WitnessError> {
        let latest = latest.map(|note| self.recall(origin, note)).transpose()?;
        let mut cosigned = request.judge(&self.logs, latest.as_ref())?;
        let line = self.cosigner.cosign(cosigned.text(), self.seconds());
        cosigned.add(&line, &[self.cosigner.verifier_key().clone()]).expect("our own line verifies");
        Ok(cosigned)
    }

    /// What was kept is believed only if this witness cosigned it. A log's key may have been taken from the list since.
    fn recall(&self, origin: &str, note: &str) -> Result<CheckpointFacts, WitnessError> {
        use crate::core::export::keys::{Note, read_checkpoint};

        let damaged = |reason: String| WitnessError::Damaged { origin: origin.to_owned(), reason };
        let Note { text, signatures } = Note::parse(note).map_err(|error| damaged(error.to_string()))?;
        let own = self.cosigner.verifier_key();
        let is_own = signatures.iter().any(|line| own.is_named_by(line) && own.verify(text, &line.signature));
        let facts = read_checkpoint(text).map_err(|error| damaged(error.to_string()))?;
        if !is_own || facts.origin != origin {
            return Err(damaged("it is not cosigned by this witness".into()));
        }
        Ok(facts)
    }

    /// The checkpoint that was cosigned last of the log at `place`.
    ///
    /// # Errors
    /// [`WitnessError::Memory`].
    pub fn checkpoint(&self, place_of_log: &str) -> Result<Option<String>, WitnessError> {
        let is_known = self.logs.iter().any(|key| place(key.name()) == place_of_log);
        if is_known { Ok(self.memory.latest(place_of_log)?) } else { Ok(None) }
    }

    /// Why this witness takes nothing any more, after a failed write.
    #[must_use]
    pub fn stopped(&self) -> Option<MemoryError> {
        self.memory.stopped()
    }

    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        self.cosigner.verifier_key()
    }

    /// POSIX seconds; a clock that stands before 1970 counts as one second after it.
    fn seconds(&self) -> u64 {
        let (now, _) = self.clock.now();
        u64::try_from(now.unix_nanos() / 1_000_000_000).unwrap_or_default().max(1)
    }
}
