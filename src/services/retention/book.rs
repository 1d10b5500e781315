//! What the log says was destroyed, and what must not be: every retention entry, read once.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::{
    core::lineage::{
        entry::{Entry, Retention, RetentionEvent},
        private::{Opening, PrivateField},
    },
    ports::{
        index::{DecisionIndex, EntryKind, Filter, Order, PAGE_ENTRIES_MAX},
        lineage::{LogReader, ReadError},
    },
    types::EntryIndex,
};

/// How a retention entry tells its kind; quotes within strings are escaped, so nothing else has it.
const KIND: &[u8] = br#""kind":"retention""#;
/// Entries in one bundle of the log.
const BUNDLE_ENTRIES: u64 = 256;

/// A retention entry with its place.
pub type Noted = (EntryIndex, Arc<Retention>);

/// A legal hold that was not released.
#[derive(Clone, Debug)]
pub struct Hold {
    pub index: EntryIndex,
    pub entry: Arc<Retention>,
    /// The part, lot or person that it concerns.
    pub openings: Vec<Opening>,
}

impl Hold {
    /// Whether this hold concerns an entry with these private values: everything that it names must be so.
    #[must_use]
    pub fn covers(&self, entry: &Entry, openings: &[Opening]) -> bool {
        let of_decision = |is: &dyn Fn(&crate::core::lineage::entry::Decision) -> bool| match entry {
            Entry::Decision(decision) => is(decision),
            _ => false,
        };
        let hold = &*self.entry;
        let time = entry.time();
        let value = |field, openings: &[Opening]| {
            openings.iter().find(|opening| opening.field == field).map(|opening| opening.value.clone())
        };
        hold.product.as_ref().is_none_or(|product| of_decision(&|decision| decision.product == *product))
            && hold.line.as_ref().is_none_or(|line| of_decision(&|decision| decision.line == *line))
            && hold.from.is_none_or(|from| time.is_some_and(|time| time >= from))
            && hold.to.is_none_or(|to| time.is_some_and(|time| time < to))
            && PrivateField::ALL.into_iter().filter(|field| hold.private.get(*field).is_some()).all(|field| {
                let held = value(field, &self.openings);
                held.is_some() && held == value(field, openings)
            })
    }
}

/// The retention entries of one log. Cheap to ask again: only what is new is read.
pub struct RetentionBook {
    log: Arc<dyn LogReader>,
    index: Arc<dyn DecisionIndex>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    read_to: u64,
    entries: Vec<Noted>,
}

impl RetentionBook {
    #[must_use]
    pub fn new(log: Arc<dyn LogReader>, index: Arc<dyn DecisionIndex>) -> Self {
        Self { log, index, known: Mutex::default() }
    }

    /// Every retention entry below the published size, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn all(&self) -> Result<Vec<Noted>, ReadError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.log.checkpoint()?.size;
        let indexed = self.index.indexed_to().0.min(size);
        let filter = Filter { kinds: vec![EntryKind::Retention], ..Filter::default() };
        let mut found = Vec::new();
        let mut next = known.read_to;
        while next < indexed {
            let page = self.index.page(&filter, next..indexed, Order::OldestFirst, PAGE_ENTRIES_MAX)?;
            next = page.last().map_or(indexed, |last| last.0 + 1);
            for index in page {
                found.extend(noted(index, &self.log.entry(index)?));
            }
        }
        found.extend(self.scan(next.max(indexed), size)?);
        known.entries.extend(found);
        known.read_to = known.read_to.max(size);
        Ok(known.entries.clone())
    }

    /// Looks through entries that are not indexed yet.
    fn scan(&self, start: u64, end: u64) -> Result<Vec<Noted>, ReadError> {
        let bundles: Vec<u64> = (start / BUNDLE_ENTRIES..end.div_ceil(BUNDLE_ENTRIES)).collect();
        let scan = |bundle: &u64| {
            let (mut next, end) = (start.max(bundle * BUNDLE_ENTRIES), end.min((bundle + 1) * BUNDLE_ENTRIES));
            let mut found = Vec::new();
            while next < end {
                for bytes in self.log.entries(EntryIndex(next), EntryIndex(end))? {
                    if bytes.windows(KIND.len()).any(|part| part == KIND) {
                        found.extend(noted(EntryIndex(next), &bytes));
                    }
                    next += 1;
                }
            }
            Ok(found)
        };
        let found = bundles.par_iter().map(scan).collect::<Result<Vec<_>, ReadError>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The entry that says that a private value of the entry at `index` was destroyed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn destroyed(&self, index: EntryIndex, field: PrivateField) -> Result<Option<Noted>, ReadError> {
        Ok(self.all()?.into_iter().find(|(_, entry)| entry.destroyed_value(index, field)))
    }

    /// What became of the values that an entry commits to and that are not filed any more.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn missing(
        &self,
        index: EntryIndex,
        entry: &Entry,
        openings: &[Opening],
    ) -> Result<Vec<(PrivateField, Noted)>, ReadError> {
        let committed = entry.commitments();
        let is_missing = |field: &PrivateField| {
            committed.get(*field).is_some() && openings.iter().all(|opening| opening.field != *field)
        };
        let mut missing = Vec::new();
        for field in PrivateField::ALL.into_iter().filter(is_missing) {
            missing.extend(self.destroyed(index, field)?.map(|noted| (field, noted)));
        }
        Ok(missing)
    }

    /// The holds that were not released, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn holds(&self) -> Result<Vec<Hold>, ReadError> {
        let all = self.all()?;
        let released = |index: EntryIndex| {
            all.iter().any(|(_, entry)| entry.event == RetentionEvent::Released && entry.hold == Some(index))
        };
        let held = all.iter().filter(|(index, entry)| entry.event == RetentionEvent::Held && !released(*index));
        held.map(|(index, entry)| {
            let openings = self.log.private(*index)?.openings;
            Ok(Hold { index: *index, entry: entry.clone(), openings })
        })
        .collect()
    }
}

fn noted(index: EntryIndex, bytes: &[u8]) -> Option<Noted> {
    match Entry::parse(bytes) {
        Ok(Entry::Retention(entry)) => Some((index, Arc::new(*entry))),
        _ => None,
    }
}
