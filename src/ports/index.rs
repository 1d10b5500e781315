//! The decision index: fast answers to searches, rebuildable from the log at any time, never evidence.

use crate::types::EntryIndex;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("index {path}: {reason}; `lineproof reindex` rebuilds it from the log")]
    Storage { path: String, reason: String },
    #[error("{0}")]
    Query(String),
}

/// Finds the decision of a frame by [`FrameKey::hash16`](crate::types::FrameKey::hash16).
pub trait FrameIndex: Send + Sync + 'static {
    /// Entries below this are indexed.
    fn indexed_to(&self) -> EntryIndex;

    /// # Errors
    /// [`IndexError`] when the index cannot be read.
    fn find_frame(&self, key: [u8; 16]) -> Result<Option<EntryIndex>, IndexError>;
}
