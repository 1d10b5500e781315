//! Takes serial numbers and lots of single entries out of the index.
//!
//! Chunks are otherwise never changed. Here a bucket of postings is put again without some rows and synced; a crash
//! leaves it with or without them, and whoever asked asks again. sled keeps the old bytes of a value in its file until
//! it uses the place again: there they are a keyed hash that nothing refers to.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use super::{
    SledIndex,
    chunk::CHUNK_ROWS,
    keys,
    postings::{self, Hashed, Level, MERGE},
    store::{Fault, Store},
};
use crate::{core::lineage::private::PrivateField, ports::index::Facts, types::EntryIndex};

impl SledIndex {
    /// Called by the follower's lock holder alone.
    pub(super) fn try_forget(&self, entries: &[EntryIndex], fields: &[PrivateField]) -> Result<(), Fault> {
        let hashed: Vec<Hashed> = fields.iter().filter_map(|field| hashed(*field)).collect();
        let mut state = self.write();
        let (store, sealed, merged) = (state.store.clone(), state.heads.len() as u32, state.merged);
        let len = state.len();
        let mut by_chunk: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut later = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        for index in entries.iter().map(|index| index.0) {
            if index >= len {
                later.entry(index).or_default().extend(&hashed);
            } else {
                let (chunk, row) = (index / u64::from(CHUNK_ROWS), index % u64::from(CHUNK_ROWS));
                by_chunk.entry(chunk as u32).or_default().insert(row as u32);
            }
        }
        drop(later);
        if let Some(rows) = by_chunk.remove(&sealed) {
            hashed.iter().for_each(|hashed| state.tail.forget(*hashed, &rows));
        }
        drop(state);
        if by_chunk.is_empty() {
            return Ok(());
        }
        let level = |chunk| if chunk < merged { Level::Merged } else { Level::Chunk };
        let mut by_run: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (chunk, rows) in by_chunk {
            let first = if level(chunk) == Level::Merged { chunk / MERGE * MERGE } else { chunk };
            by_run.entry(first).or_default().extend(rows.into_iter().map(|row| (chunk - first) * CHUNK_ROWS + row));
        }
        for (first, rows) in by_run {
            hashed.iter().try_for_each(|hashed| forget_in_run(&store, *hashed, level(first), first, &rows))?;
        }
        store.sync()
    }

    /// The facts of the next entry as they may be indexed.
    pub(super) fn without_forgotten<'f>(&self, index: u64, facts: &'f Facts) -> Cow<'f, Facts> {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hashed) = forgotten.remove(&index) else { return Cow::Borrowed(facts) };
        let mut facts = facts.clone();
        for hashed in hashed {
            match hashed {
                Hashed::Serial => facts.serial = None,
                Hashed::Lot => facts.lot = None,
                Hashed::Frame => {}
            }
        }
        Cow::Owned(facts)
    }
}

/// Who asked is in no index.
fn hashed(field: PrivateField) -> Option<Hashed> {
    match field {
        PrivateField::Serial => Some(Hashed::Serial),
        PrivateField::Lot => Some(Hashed::Lot),
        PrivateField::Client => None,
    }
}

/// A row does not know its hash, so every bucket is looked at: some 5 MB for a chunk.
fn forget_in_run(store: &Store, hashed: Hashed, level: Level, first: u32, rows: &BTreeSet<u32>) -> Result<(), Fault> {
    for bucket in 0..level.buckets() {
        let key = keys::postings(hashed, level, first, bucket);
        if let Some(bytes) = store.read(&key, |bytes| postings::without(bytes, rows))? {
            store.put(&key, &bytes)?;
        }
    }
    Ok(())
}
