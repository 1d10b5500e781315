//! Finds every entry that holds a private value: serial numbers and lots through the index, who asked only by looking
//! at every entry.

use rayon::prelude::*;

use super::{RetentionError, RetentionService};
use crate::{
    core::lineage::{
        entry::Entry,
        private::{Opening, PrivateField},
    },
    ports::{
        index::{EntryKind, Filter, IndexError, Order, PAGE_ENTRIES_MAX},
        lineage::ReadError,
    },
    types::EntryIndex,
};

/// Entries in one bundle of the log.
const BUNDLE_ENTRIES: u64 = 256;

/// An entry that holds the value.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub index: EntryIndex,
    pub entry: Entry,
    pub openings: Vec<Opening>,
}

impl RetentionService {
    /// The entries below `size` that hold this value.
    pub(super) fn holders(&self, field: PrivateField, value: &str, size: u64) -> Result<Vec<Holder>, RetentionError> {
        let filter = indexed_by(field, value)?;
        let indexed = if filter.is_some() { self.index.indexed_to().0.min(size) } else { 0 };
        let mut candidates = Vec::new();
        let mut next = 0;
        while let Some(filter) = filter.as_ref().filter(|_| next < indexed) {
            let page = self.index.page(filter, next..indexed, Order::OldestFirst, PAGE_ENTRIES_MAX)?;
            next = page.last().map_or(indexed, |last| last.0 + 1);
            candidates.extend(page);
        }
        let look = |index: &EntryIndex| self.holder(*index, &self.reader.entry(*index)?, field, value);
        let found = candidates.par_iter().map(look).collect::<Result<Vec<_>, ReadError>>()?;
        let mut holders: Vec<Holder> = found.into_iter().flatten().collect();
        holders.extend(self.scan(indexed, size, field, value)?);
        Ok(holders)
    }

    /// Looks at every entry from `start` on.
    fn scan(&self, start: u64, end: u64, field: PrivateField, value: &str) -> Result<Vec<Holder>, ReadError> {
        let bundles: Vec<u64> = (start / BUNDLE_ENTRIES..end.div_ceil(BUNDLE_ENTRIES)).collect();
        let scan = |bundle: &u64| {
            let (mut next, end) = (start.max(bundle * BUNDLE_ENTRIES), end.min((bundle + 1) * BUNDLE_ENTRIES));
            let mut found = Vec::new();
            while next < end {
                for bytes in self.reader.entries(EntryIndex(next), EntryIndex(end))? {
                    found.extend(self.holder(EntryIndex(next), &bytes, field, value)?);
                    next += 1;
                }
            }
            Ok(found)
        };
        let found = bundles.par_iter().map(scan).collect::<Result<Vec<_>, ReadError>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn holder(
        &self,
        index: EntryIndex,
        bytes: &[u8],
        field: PrivateField,
        value: &str,
    ) -> Result<Option<Holder>, ReadError> {
        // What this release cannot read commits to nothing that it filed.
        let Ok(entry) = Entry::parse(bytes) else { return Ok(None) };
        if entry.commitments().get(field).is_none() {
            return Ok(None);
        }
        let openings = self.reader.private(index)?.openings;
        let holds = openings.iter().any(|opening| opening.field == field && opening.value == value);
        Ok(holds.then_some(Holder { index, entry, openings }))
    }
}

/// The search that finds a value, if the index knows its field.
fn indexed_by(field: PrivateField, value: &str) -> Result<Option<Filter>, IndexError> {
    let wrong = |error: crate::types::IdError| IndexError::Query(error.to_string());
    let kinds = vec![EntryKind::Decision, EntryKind::Retention];
    Ok(match field {
        PrivateField::Client => None,
        PrivateField::Lot => Some(Filter { kinds, lot: Some(value.parse().map_err(wrong)?), ..Filter::default() }),
        PrivateField::Serial => {
            Some(Filter { kinds, serial: Some(value.parse().map_err(wrong)?), ..Filter::default() })
        }
    })
}
