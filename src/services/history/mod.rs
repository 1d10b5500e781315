//! Answers from the log, found through the index: one decision, pages of decisions, counts over time.
//!
//! Everything is answered from what a published checkpoint covers and the index has caught up with, normally within a
//! second of the verdict. While the index is rebuilt after a loss, searches are refused with how far it is; a decision
//! is still found by its position in the log.

mod cursor;
mod follow;

use std::sync::Arc;

use rayon::prelude::*;

pub use self::{
    cursor::CursorError,
    follow::{FollowError, Indexer, IndexerHandle, Progress, facts_of},
};
use crate::{
    core::lineage::{
        entry::{Decision, Entry, EntryError},
        private::{Opening, PrivateField},
    },
    ports::{
        index::{CountBy, CountCell, DecisionIndex, Filter, IndexError, Order, PAGE_ENTRIES_MAX},
        lineage::{LogReader, ReadError},
    },
    services::retention::{Noted, RetentionBook},
    types::{EntryIndex, FrameKey},
};

/// Rows of a page when none are asked for.
pub const PAGE_ROWS_DEFAULT: usize = 50;
/// Most rows of a page: 500 entries of at most 8 KiB stay below gRPC's usual 4 MiB.
pub const PAGE_ROWS_MAX: usize = 500;
/// Entries the index may be behind the log before searches are refused: ten seconds at 1,000 decisions per second.
/// Further behind, an answer would be wrong more than it would be late.
pub const LAG_ENTRIES_MAX: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("the index is being rebuilt from the log: {percent} % ({done} of {total} entries); try again shortly")]
    Rebuilding { done: u64, total: u64, percent: u64 },
    #[error("frame {0} has no decision below the published checkpoint")]
    NoFrame(FrameKey),
    #[error("entry {index} is no decision but of kind {kind}")]
    NoDecision { index: EntryIndex, kind: String },
    #[error("a page has 1 to {PAGE_ROWS_MAX} rows, not {0}")]
    PageSize(usize),
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Index(IndexError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("entry {index}: {source}")]
    Entry { index: EntryIndex, source: EntryError },
}

impl From<IndexError> for HistoryError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Rebuilding { done, total } => Self::rebuilding(done, total),
            other => Self::Index(other),
        }
    }
}

impl HistoryError {
    fn rebuilding(done: u64, total: u64) -> Self {
        Self::Rebuilding { done, total, percent: done * 100 / total.max(1) }
    }
}

/// One entry as a search finds it.
#[derive(Clone, Debug)]
pub struct Row {
    pub index: EntryIndex,
    /// As the log holds them.
    pub bytes: Vec<u8>,
    pub entry: Entry,
    /// The opened private values; `None` unless asked for, empty when there are none or they were erased.
    pub openings: Option<Vec<Opening>>,
    /// The private values that were destroyed, each with the entry that says so, if openings were asked for.
    pub erased: Vec<(PrivateField, Noted)>,
}

impl Row {
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        match &self.entry {
            Entry::Decision(decision) => Some(decision),
            _ => None,
        }
    }

    /// An opened private value.
    #[must_use]
    pub fn opened(&self, field: PrivateField) -> Option<&str> {
        let openings = self.openings.as_deref()?;
        openings.iter().find(|opening| opening.field == field).map(|opening| opening.value.as_str())
    }
}

/// What a page is asked for.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    pub filter: Filter,
    pub order: Order,
    /// 0: [`PAGE_ROWS_DEFAULT`].
    pub page_rows: usize,
    /// Empty: the first page.
    pub cursor: String,
    /// Whether private values are opened. Whether the caller may see them is decided before.
    pub reveal: bool,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<Row>,
    /// Empty on the last page.
    pub next_cursor: String,
}

/// Searches. Every method blocks on the disk; [`HistoryService::blocking`] moves one to a thread that may.
pub struct HistoryService {
    log: Arc<dyn LogReader>,
    index: Arc<dyn DecisionIndex>,
    book: Arc<RetentionBook>,
}

impl HistoryService {
    #[must_use]
    pub fn new(log: Arc<dyn LogReader>, index: Arc<dyn DecisionIndex>) -> Self {
        let book = Arc::new(RetentionBook::new(log.clone(), index.clone()));
        Self { log, index, book }
    }

    /// What was destroyed.
    #[must_use]
    pub fn book(&self) -> Arc<RetentionBook> {
        self.book.clone()
    }

    /// Runs `work` on a thread that may block.
    ///
    /// # Errors
    /// What `work` returns.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let service = self.clone();
        match tokio::task::spawn_blocking(move || work(&service)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The decision at `index`. Needs no index.
    ///
    /// # Errors
    /// [`HistoryError::NoDecision`], [`HistoryError::Log`] when there is no such entry.
    pub fn decision(&self, index: EntryIndex, reveal: bool) -> Result<Row, HistoryError> {
        let row = self.row(index, reveal)?;
        match row.entry {
            Entry::Decision(_) => Ok(row),
            other => Err(HistoryError::NoDecision { index, kind: other.kind().to_owned() }),
        }
    }

    /// The decision of a frame.
    ///
    /// # Errors
    /// [`HistoryError::NoFrame`], [`HistoryError::Rebuilding`].
    pub fn decision_of(&self, frame: &FrameKey, reveal: bool) -> Result<Row, HistoryError> {
        if let Some(index) = self.index.find_frame(frame.hash16())? {
            return self.decision(index, reveal);
        }
        self.ready()?;
        Err(HistoryError::NoFrame(frame.clone()))
    }

    /// One page of the entries that match.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn list(&self, request: &ListRequest) -> Result<Page, HistoryError> {
        let ListRequest { filter, order, page_rows, cursor, reveal } = request;
        let limit = match *page_rows {
            0 => PAGE_ROWS_DEFAULT,
            rows if rows <= PAGE_ROWS_MAX => rows,
            rows => return Err(HistoryError::PageSize(rows)),
        };
        self.ready()?;
        let range = match (cursor.is_empty(), order) {
            (true, _) => 0..u64::MAX,
            (false, Order::NewestFirst) => 0..cursor::decode(cursor, filter, *order)?,
            (false, Order::OldestFirst) => cursor::decode(cursor, filter, *order)?..u64::MAX,
        };
        // One more than shown tells whether there is another page.
        let mut found = self.index.page(filter, range, *order, limit + 1)?;
        let next_cursor = match (found.get(limit), order) {
            (None, _) => String::new(),
            (Some(next), Order::OldestFirst) => cursor::encode(filter, *order, next.0),
            (Some(_), Order::NewestFirst) => cursor::encode(filter, *order, found[limit - 1].0),
        };
        found.truncate(limit);
        // Rows that few match lie in as many bundles, each to be read once: on all cores.
        let rows = found.into_par_iter().map(|index| self.row(index, *reveal)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next_cursor })
    }

    /// Counts the decisions that match.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn count(&self, filter: &Filter, by: CountBy) -> Result<Vec<CountCell>, HistoryError> {
        self.ready()?;
        Ok(self.index.count(filter, by)?)
    }

    /// Every entry below `size` that matches, oldest first: what an export under a checkpoint of that size contains.
    ///
    /// # Errors
    /// [`HistoryError::Rebuilding`] unless all entries below `size` are indexed; an item is an error when the index
    /// fails on the way, and the last one.
    pub fn select(
        &self,
        filter: &Filter,
        size: u64,
    ) -> Result<impl Iterator<Item = Result<EntryIndex, HistoryError>> + use<>, HistoryError> {
        let done = self.index.indexed_to().0;
        if done < size {
            return Err(HistoryError::rebuilding(done, size));
        }
        Ok(Selection { index: self.index.clone(), filter: filter.clone(), next: 0, size, page: Vec::new().into_iter() })
    }

    /// Reads one entry.
    ///
    /// # Errors
    /// [`HistoryError::Log`], [`HistoryError::Entry`].
    pub fn row(&self, index: EntryIndex, reveal: bool) -> Result<Row, HistoryError> {
        let bytes = self.log.entry(index)?;
        let entry = Entry::parse(&bytes).map_err(|source| HistoryError::Entry { index, source })?;
        let openings = if reveal { Some(self.log.private(index)?.openings) } else { None };
        let erased = match &openings {
            Some(openings) => self.book.missing(index, &entry, openings)?,
            None => Vec::new(),
        };
        Ok(Row { index, bytes, entry, openings, erased })
    }

    /// Whether the index is near enough to the log for its silence to mean absence.
    fn ready(&self) -> Result<(), HistoryError> {
        let total = self.log.checkpoint()?.size;
        let done = self.index.indexed_to().0;
        if total.saturating_sub(done) > LAG_ENTRIES_MAX || self.index.damaged().is_some() {
            return Err(HistoryError::rebuilding(done.min(total), total));
        }
        Ok(())
    }
}

/// See [`HistoryService::select`].
struct Selection {
    index: Arc<dyn DecisionIndex>,
    filter: Filter,
    next: u64,
    size: u64,
    page: std::vec::IntoIter<EntryIndex>,
}

impl Iterator for Selection {
    type Item = Result<EntryIndex, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(index) = self.page.next() {
            return Some(Ok(index));
        }
        if self.next >= self.size {
            return None;
        }
        let page = self.index.page(&self.filter, self.next..self.size, Order::OldestFirst, PAGE_ENTRIES_MAX);
        // An index that was thrown away meanwhile must not make an export silently shorter.
        let done = self.index.indexed_to().0;
        let whole = if done < self.size { Err(HistoryError::rebuilding(done, self.size)) } else { Ok(()) };
        match whole.and(page.map_err(HistoryError::from)) {
            Ok(page) => {
                self.next = match page.last() {
                    Some(last) if page.len() == PAGE_ENTRIES_MAX => last.0 + 1,
                    _ => self.size,
                };
                self.page = page.into_iter();
                self.page.next().map(Ok)
            }
            Err(error) => {
                self.next = self.size;
                Some(Err(error))
            }
        }
    }
}
