//! Witnesses: what one remembers, how a plant reaches one, and where a plant keeps what it was given.

use std::{pin::Pin, sync::Arc};

use crate::core::witness::cosign::Cosigned;

/// The disk did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("{path}: {reason}")]
    Io { path: String, reason: Arc<str> },
    /// The disk failed before: what the disk holds is unknown until the next start reads it.
    #[error("the witness stopped after its disk failed: {0}; look at the disk, then start it again")]
    Stopped(Arc<str>),
}

/// What a witness remembers: of each log the checkpoint it cosigned last.
pub trait WitnessMemory: Send + Sync + 'static {
    /// Calls `step` with the note that was kept last under `place`, alone among all threads and processes, and keeps
    /// the note it returns. When this returns, that note is durable: after any crash it, or a later one, is what the
    /// next call gets.
    ///
    /// # Errors
    /// [`MemoryError`]; whether the note was kept is then unknown, and every later call fails, too.
    fn update(&self, place: &str, step: &mut dyn FnMut(Option<&str>) -> Option<String>) -> Result<(), MemoryError>;

    /// The note that was kept last under `place`.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    fn latest(&self, place: &str) -> Result<Option<String>, MemoryError>;

    /// Why nothing is kept any more, if so.
    fn stopped(&self) -> Option<MemoryError>;
}

/// What a witness answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Signature lines, unchecked.
    Cosigned(String),
    /// It cosigned so many entries last.
    OtherSize(u64),
    Refused {
        status: u16,
        reason: String,
    },
}

/// A future that a port returns.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Reply, String>> + Send + 'a>>;

/// A witness as the plant reaches it.
pub trait WitnessLink: Send + Sync + 'static {
    /// Sends the body of one `add-checkpoint` request. Ends within the configured time; an error says why there is no
    /// answer, and whether the witness took the checkpoint is then unknown.
    fn add_checkpoint(&self, body: String) -> Asked<'_>;
}

/// Where a plant keeps its cosigned checkpoints.
pub trait CosignedStore: Send + Sync + 'static {
    /// Keeps what `cosigned` adds to what is kept; true when it satisfies the policy. A crash may lose it, never mix
    /// it: witnesses give it again.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    fn keep(&self, cosigned: &Cosigned) -> Result<bool, MemoryError>;

    /// The newest checkpoint that satisfies the policy.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    fn witnessed(&self) -> Result<Option<Cosigned>, MemoryError>;
}
