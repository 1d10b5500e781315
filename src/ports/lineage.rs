//! The lineage log: durable appends, and reads with proofs.

use std::sync::Arc;

use crate::{
    core::lineage::{
        index_ranges::IndexRanges,
        private::{Opening, PrivateField},
    },
    ports::archive::ImageLocation,
    types::{Blake3Digest, EntryIndex, FrameKey, Sha256Digest},
};

/// An entry to append, with what is filed beside it.
#[derive(Clone, Debug)]
pub struct Append {
    /// The encoded entry, at most `ENTRY_BYTES_MAX`.
    pub entry: Vec<u8>,
    pub private: PrivateRecord,
    /// Set for decisions: makes the append idempotent (G6).
    pub frame: Option<FrameClaim>,
}

/// Kept sealed beside the log, under the entry's index; never part of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateRecord {
    /// What opens the entry's commitments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub openings: Vec<Opening>,
    /// Where the frame's sealed image lies, as [`ImageLocation`] writes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_at: Option<String>,
}

impl PrivateRecord {
    /// The image's location, if there is one that reads well.
    #[must_use]
    pub fn image_location(&self) -> Option<ImageLocation> {
        self.image_at.as_deref().and_then(|text| text.parse().ok())
    }
}

/// The frame an append decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameClaim {
    pub key: FrameKey,
    /// Digest of the encoded bytes, which tells a retry from another image under the same id.
    pub encoded: Blake3Digest,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub index: EntryIndex,
    /// RFC 6962 leaf hash of the entry's bytes.
    pub leaf_hash: Sha256Digest,
}

/// What became of an append. In each case the named entry is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    Written(Receipt),
    /// The same frame with the same bytes has an entry already; nothing was written.
    Duplicate(Receipt),
    /// The frame id is taken by other bytes; nothing was written. The receipt is the first decision's.
    Conflict(Receipt),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written.
    #[error(
        "the disk below {path} has {free_bytes} bytes free, under the reserve of {reserve_bytes}; free space and verdicts resume by themselves"
    )]
    DiskReserve { path: String, free_bytes: u64, reserve_bytes: u64 },
    /// The outcome is unknown until the log has been verified again.
    #[error("the log stopped after a failed write: {0}; restart the service to verify it again")]
    Stopped(Arc<str>),
    #[error("the log is read-only: {0}")]
    ReadOnly(Arc<str>),
    #[error("the log is shutting down")]
    Closed,
    #[error("the entry is not acceptable: {0}")]
    Invalid(String),
    /// Nothing was written: the index, which knows older frames, cannot say whether this one has a decision (G6).
    #[error("nobody can say yet whether this frame is decided already: {0}")]
    FrameUnknown(Arc<str>),
}

/// Called exactly once with the outcome, on the writer's thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

/// The writing side. One writer owns the log; this is its bounded, cloneable handle.
pub trait LogWriter: Send + Sync + 'static {
    /// Hands one append to the writer and returns; waits while the writer's queue is full. `done` is called after the
    /// group's fdatasync returned 0 (G1), or with the reason why not. An image named in `private.image_at` was put
    /// before this call and is made durable before the entry is.
    fn submit(&self, append: Append, done: Done);

    /// Why an append would be refused now. Asked before anything is inferred or stored for it, so that a full disk costs
    /// no image and every frame gets the same answer; `None` promises nothing.
    fn refusal(&self) -> Option<AppendError>;

    /// The entry that already decides this frame, if any, with the digest of its encoded image. Sees every
    /// acknowledged entry.
    ///
    /// # Errors
    /// [`ReadError`] when index or log cannot be read.
    fn find_frame(&self, key: &FrameKey) -> Result<Option<(Receipt, Blake3Digest)>, ReadError>;

    /// Integrates everything durable and publishes a signed checkpoint over it, as the one-second tick does.
    ///
    /// # Errors
    /// [`AppendError`] when the log has stopped.
    fn checkpoint_now(&self) -> Result<(), AppendError>;
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no entry {index}; the log has {size}")]
    NoEntry { index: EntryIndex, size: u64 },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error(transparent)]
    Index(#[from] super::index::IndexError),
    #[error("the log is damaged at {place}: {reason}; run `lineproof fsck`")]
    Damaged { place: String, reason: String },
    #[error("sizes {old} and {new} are not both covered by the published checkpoint of size {size}")]
    Size { old: u64, new: u64, size: u64 },
}

/// The reading side: everything that a published checkpoint covers. Reads block on the disk; async callers move them
/// to a blocking thread. Goes on working when writing has stopped (G10).
pub trait LogReader: Send + Sync + 'static {
    /// The latest published checkpoint, a signed note as in c2sp.org/tlog-checkpoint.
    ///
    /// # Errors
    /// [`ReadError`], as for every method here.
    fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError>;

    /// The stored bytes of one entry below the published size, or above it while it waits for its checkpoint.
    fn entry(&self, index: EntryIndex) -> Result<Vec<u8>, ReadError>;

    /// The stored bytes of the entries `start..end`, at most 256 that lie in one bundle: fewer than asked when the
    /// bundle ends, at least one.
    fn entries(&self, start: EntryIndex, end: EntryIndex) -> Result<Vec<Vec<u8>>, ReadError>;

    /// What is filed beside one entry.
    fn private(&self, index: EntryIndex) -> Result<PrivateRecord, ReadError>;

    /// RFC 6962 inclusion proof of `index` in the tree of `size`, leaf's sibling first.
    fn inclusion_proof(&self, index: EntryIndex, size: u64) -> Result<Vec<Sha256Digest>, ReadError>;

    /// RFC 6962 consistency proof between two sizes, `0 < old <= new <= published size`.
    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Sha256Digest>, ReadError>;
}

/// Private values to be destroyed: these fields of these entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    pub entries: IndexRanges,
    pub fields: Vec<PrivateField>,
}

/// An erasure that was begun: the retention entries that record it, and how long the log was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intention {
    pub size: u64,
    /// The stored bytes of each entry.
    pub entries: Vec<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error(transparent)]
    Log(#[from] AppendError),
    #[error(transparent)]
    Files(#[from] ReadError),
}

/// Destroys private values that are filed beside entries. One erasure at a time: [`Self::intend`], the entries, then
/// [`Self::destroy`], then [`Self::fulfilled`]; after a crash whoever finds one that is intended goes on with it.
pub trait PrivateEraser: Send + Sync + 'static {
    /// Makes an intention durable.
    ///
    /// # Errors
    /// [`ReadError`]; nothing is intended then.
    fn intend(&self, intention: &Intention) -> Result<(), ReadError>;

    /// What was intended and is not fulfilled.
    ///
    /// # Errors
    /// [`ReadError`].
    fn intended(&self) -> Result<Option<Intention>, ReadError>;

    /// Destroys these values wherever the log has filed them. When this returns, no file of the log holds them and what
    /// replaced those files is durable. What is gone already is no error.
    ///
    /// # Errors
    /// [`EraseError`]; some may be destroyed then. To be called again, by the next start if the log has stopped.
    fn destroy(&self, doomed: &[Doomed]) -> Result<(), EraseError>;

    /// Forgets the intention, durably.
    ///
    /// # Errors
    /// [`ReadError`]; it may be found again.
    fn fulfilled(&self) -> Result<(), ReadError>;
}

/// A published checkpoint and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    pub size: u64,
    pub root: Sha256Digest,
    /// The whole signed note, to be passed on byte for byte.
    pub note: Arc<str>,
}
