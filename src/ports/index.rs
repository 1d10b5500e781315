//! The decision index: fast answers to searches, rebuildable from the log at any time, never evidence.

use std::ops::Range;

use crate::core::lineage::private::PrivateField;
use crate::types::{
    Blake3Digest, CameraId, EntryIndex, Instant, LineId, LotId, ProductId, RecipeRef, Score, Serial, StationId, Verdict,
};

/// Most entries one [`DecisionIndex::page`] returns.
pub const PAGE_ENTRIES_MAX: usize = 8192;
/// Most cells, buckets times groups, one [`DecisionIndex::count`] returns.
pub const COUNT_CELLS_MAX: usize = 10_000;
/// Narrowest time bucket of a count: one second.
pub const BUCKET_NANOS_MIN: i64 = 1_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("index {path}: {reason}; `lineproof reindex` rebuilds it from the log")]
    Storage { path: String, reason: String },
    #[error("index {path} is in use by another process; ask the running service, or stop it first")]
    InUse { path: String },
    /// The index was thrown away and does not know yet what it knew before.
    #[error("the index is being rebuilt from the log: {done} of {total} entries; try again shortly")]
    Rebuilding { done: u64, total: u64 },
    #[error("{0}")]
    Query(String),
}

/// Finds the decision of a frame by [`FrameKey::hash16`](crate::types::FrameKey::hash16).
///
/// Duplicate detection (G6) rests on this, so a missing answer is never a guess: `Ok(None)` means that no entry below
/// [`Self::indexed_to`] decides the frame. Whoever appends keeps the frames of the entries from `indexed_to` on: it
/// reads `indexed_to` *before* it asks, and when it opens it reads those entries from the log, which after the loss of
/// the index are all of them. An index that is rebuilt while it serves answers [`IndexError::Rebuilding`] instead of
/// `Ok(None)` until it knows again everything it once said it knew.
pub trait FrameIndex: Send + Sync + 'static {
    /// Entries below this are indexed. Falls back only when a damaged index is thrown away.
    fn indexed_to(&self) -> EntryIndex;

    /// The first entry that decides the frame.
    ///
    /// # Errors
    /// [`IndexError`] when the index cannot be read or is being rebuilt.
    fn find_frame(&self, key: [u8; 16]) -> Result<Option<EntryIndex>, IndexError>;
}

/// The kinds of entries as searches tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    Decision,
    Gap,
    Recipe,
    Access,
    Key,
    Start,
    PeriodClose,
    Retention,
    /// A kind of a later release.
    Other,
}

impl EntryKind {
    pub const ALL: [Self; 9] = [
        Self::Decision,
        Self::Gap,
        Self::Recipe,
        Self::Access,
        Self::Key,
        Self::Start,
        Self::PeriodClose,
        Self::Retention,
        Self::Other,
    ];
}

/// What the index remembers of one entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub kind: EntryKind,
    /// Of the entry's stored bytes: tells whether the index belongs to the log.
    pub digest: Blake3Digest,
    pub time: Option<Instant>,
    pub line: Option<LineId>,
    pub station: Option<StationId>,
    pub camera: Option<CameraId>,
    pub product: Option<ProductId>,
    pub recipe: Option<(RecipeRef, Blake3Digest)>,
    pub verdict: Option<Verdict>,
    pub score: Option<Score>,
    /// `FrameKey::hash16`, of decisions.
    pub frame: Option<[u8; 16]>,
    /// The camera's counter after this entry: a decision's own, or a gap's last.
    pub counter: Option<u64>,
    /// Kept as a keyed hash only.
    pub serial: Option<Serial>,
    /// Kept as a keyed hash only.
    pub lot: Option<LotId>,
}

/// Which entries are asked for: each field that is set must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Any of these; decisions alone unless said otherwise.
    pub kinds: Vec<EntryKind>,
    /// Inclusive.
    pub from: Option<Instant>,
    /// Exclusive.
    pub to: Option<Instant>,
    pub line: Option<LineId>,
    pub station: Option<StationId>,
    pub camera: Option<CameraId>,
    pub product: Option<ProductId>,
    pub serial: Option<Serial>,
    pub lot: Option<LotId>,
    /// Any of these; empty: any.
    pub verdicts: Vec<Verdict>,
    pub recipe: Option<RecipeFilter>,
    /// Inclusive.
    pub score_min: Option<Score>,
    /// Inclusive.
    pub score_max: Option<Score>,
}

impl Default for Filter {
    /// Every decision.
    fn default() -> Self {
        Self {
            kinds: vec![EntryKind::Decision],
            from: None,
            to: None,
            line: None,
            station: None,
            camera: None,
            product: None,
            serial: None,
            lot: None,
            verdicts: Vec::new(),
            recipe: None,
            score_min: None,
            score_max: None,
        }
    }
}

/// A recipe as people name it, or exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipeFilter {
    Name(RecipeRef),
    Digest(Blake3Digest),
}

/// Order by position in the log, which is the order of commitment; clocks may step, positions do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// How decisions are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountBy {
    /// `None`: one bucket for all.
    pub bucket: Option<Bucket>,
    pub group: Option<GroupBy>,
}

/// Buckets of equal width: `[origin + n * width, origin + (n + 1) * width)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// At least [`BUCKET_NANOS_MIN`].
    pub width_nanos: i64,
    /// Where a bucket begins: the epoch for UTC days, a shift's start for shifts.
    pub origin: Instant,
}

impl Bucket {
    pub const MINUTE: Self = Self { width_nanos: 60_000_000_000, origin: Instant::EPOCH };
    pub const HOUR: Self = Self { width_nanos: 3_600_000_000_000, origin: Instant::EPOCH };
    pub const DAY: Self = Self { width_nanos: 86_400_000_000_000, origin: Instant::EPOCH };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Line,
    Product,
    /// By `name@version`.
    Recipe,
}

/// How many decisions fell into one bucket and group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountCell {
    /// Start of the bucket; `None` when nothing was asked to be bucketed. The first bucket may start before 1970.
    pub start: Option<i64>,
    pub group: Option<String>,
    pub counts: VerdictCounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    pub ok: u64,
    pub not_ok: u64,
    pub not_decidable: u64,
}

impl VerdictCounts {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ok + self.not_ok + self.not_decidable
    }

    /// Adds `count` decisions with this verdict.
    pub fn add(&mut self, verdict: Verdict, count: u64) {
        match verdict {
            Verdict::Ok => self.ok += count,
            Verdict::NotOk => self.not_ok += count,
            Verdict::NotDecidable => self.not_decidable += count,
        }
    }
}

/// The searchable index. Readers call from many threads at a time; one follower of the log calls [`Self::apply`] and
/// [`Self::start_over`].
///
/// What is indexed may be lost in a crash, but only from the end: after opening, `indexed_to` says where the follower
/// goes on. Damage that shows itself while reading is an [`IndexError::Storage`], after which [`Self::damaged`] says
/// that the follower must start over.
pub trait DecisionIndex: FrameIndex {
    /// Indexes the entries from `first` on, which must be [`FrameIndex::indexed_to`].
    ///
    /// # Errors
    /// [`IndexError::Storage`]; the entries are then not indexed.
    fn apply(&self, first: EntryIndex, facts: &[Facts]) -> Result<(), IndexError>;

    /// The last indexed entry and the digest of its bytes. If the log says otherwise, the index is another log's.
    fn tip(&self) -> Option<(EntryIndex, Blake3Digest)>;

    /// Why the index must be thrown away, if reading it showed damage.
    fn damaged(&self) -> Option<String>;

    /// Moves everything aside and begins with an empty index.
    ///
    /// # Errors
    /// [`IndexError`] when no empty index can be made.
    fn start_over(&self, reason: &str) -> Result<(), IndexError>;

    /// Forgets the serial numbers or lots of these entries, durably: no search finds the entries by them any more, also
    /// if they are indexed only later. Called when the values are gone from the log's own files.
    ///
    /// # Errors
    /// [`IndexError::Storage`]; to be called again.
    fn forget(&self, entries: &[EntryIndex], fields: &[PrivateField]) -> Result<(), IndexError>;

    /// The entries within `range` that match, in order, at most `limit` (and [`PAGE_ENTRIES_MAX`]) of them.
    ///
    /// # Errors
    /// [`IndexError::Storage`].
    fn page(
        &self,
        filter: &Filter,
        range: Range<u64>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<EntryIndex>, IndexError>;

    /// Counts the decisions that match, by bucket and group in ascending order; empty cells are left out.
    ///
    /// # Errors
    /// [`IndexError::Query`] above [`COUNT_CELLS_MAX`] cells or below [`BUCKET_NANOS_MIN`], [`IndexError::Storage`].
    fn count(&self, filter: &Filter, by: CountBy) -> Result<Vec<CountCell>, IndexError>;

    /// The counter of the camera's latest entry, to see a jump across a restart.
    ///
    /// # Errors
    /// [`IndexError::Storage`].
    fn last_counter(&self, line: &LineId, camera: &CameraId) -> Result<Option<u64>, IndexError>;

    /// The largest time of any indexed entry.
    fn last_time(&self) -> Option<Instant>;
}
