//! Sealing private values anew, under the newest of the plant's keys, so that an older one can be destroyed:
//! `docs/spec/rotation.md`. It goes the way of an erasure: the write-ahead log first, by the writer, then the files.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use zeroize::Zeroizing;

use super::{LogHandle, Shared, erase::Work, lock_mutex, private, wal};
use crate::{
    core::lineage::{tiles::TILE_WIDTH, tree::leaf_hash},
    ports::{lineage::EraseError, sealer::Sealer},
    types::Sha256Digest,
};

/// What became of the sealed private records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed anew.
    pub records: u64,
    /// That open under no key of the plant, and stay as they are.
    pub unopened: u64,
}

/// The key to seal under, and what was done so far.
pub(super) struct Resealing {
    newest: Arc<dyn Sealer>,
    done: Mutex<Resealed>,
}

impl LogHandle {
    /// Seals every private record under `newest` that is sealed under another key of the plant. Whole files are replaced,
    /// so after a crash it is simply done again. Calls `progress` with entries done and all.
    ///
    /// # Errors
    /// [`EraseError`]: the log does not run, or the disk failed.
    pub fn reseal(&self, newest: &Arc<dyn Sealer>, mut progress: impl FnMut(u64, u64)) -> Result<Resealed, EraseError> {
        let shared = &*self.shared;
        let _one_at_a_time = lock_mutex(&shared.erasing);
        let resealing = Arc::new(Resealing { newest: newest.clone(), done: Mutex::default() });
        let filed = self.work(Work::Reseal(resealing.clone()))?;
        let size = shared.published().size;
        for bundle in 0..size / TILE_WIDTH {
            let _filing = lock_mutex(&shared.filing);
            private::rewrite(&shared.config.private_dir(), bundle, |index, sealed| {
                // What the write-ahead log has, too, becomes what it has.
                if let Some(filed) = filed.get(&index) {
                    return Ok(Some(filed.clone()));
                }
                Ok(resealing.anew(shared, &shared.leaf(index)?, sealed))
            })?;
            progress((bundle + 1) * TILE_WIDTH, size);
        }
        let done = *lock_mutex(&resealing.done);
        Ok(done)
    }
}

impl Resealing {
    /// What a record is to be, if that is not what it is: it is empty, or sealed under the newest key already, or opens
    /// under no key of the plant.
    fn anew(&self, shared: &Shared, leaf: &Sha256Digest, sealed: &[u8]) -> Option<Arc<[u8]>> {
        if sealed.is_empty() || self.newest.open(&leaf.0, sealed).is_ok() {
            return None;
        }
        let mut done = lock_mutex(&self.done);
        let Ok(plain) = shared.sealer.open(&leaf.0, sealed).map(Zeroizing::new) else {
            done.unopened += 1;
            return None;
        };
        done.records += 1;
        Some(self.newest.seal(&leaf.0, &plain).into())
    }

    /// What the write-ahead log is to have of one record; every record is noted in `filed` as it then is.
    pub(super) fn in_write_ahead_log(
        &self,
        shared: &Shared,
        record: &wal::Record,
        filed: &mut HashMap<u64, Arc<[u8]>>,
    ) -> Option<Arc<[u8]>> {
        let resealed = self.anew(shared, &leaf_hash(&record.entry), &record.sealed);
        filed.insert(record.index, resealed.clone().unwrap_or_else(|| record.sealed.clone()));
        resealed
    }
}
