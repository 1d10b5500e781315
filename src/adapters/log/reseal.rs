//! Sealing private values anew, under the newest of the plant's keys, so that an older one can be destroyed:
//! `docs/spec/rotation.md`. It goes the way of an erasure: the write-ahead log first, by the writer, then the files.

use std::{collections::HashMap, sync::Arc};

use super::{LogHandle, Shared, erase::Work, lock_mutex, private};
use crate::{
    core::lineage::{tiles::TILE_WIDTH, tree::leaf_hash},
    ports::{lineage::EraseError, sealer::Sealer},
    types::Sha256Digest,
};

/// What became of the sealed private records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed anew, those in files only.
    pub records: u64,
    /// That open under no key of the plant, and stay as they are.
    pub unopened: u64,
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
        let filed = self.work(Work::Reseal(newest.clone()))?;
        let size = shared.published().size;
        let mut done = Resealed::default();
        for bundle in 0..size / TILE_WIDTH {
            let _filing = lock_mutex(&shared.filing);
            private::rewrite(&shared.config.private_dir(), bundle, |index, sealed| {
                // What the write-ahead log has, too, becomes what it has.
                if let Some(filed) = filed.get(&index) {
                    return Ok(Some(filed.clone()));
                }
                let resealed = anew(shared, &**newest, &shared.leaf(index)?, sealed);
                done.records += u64::from(matches!(resealed, Anew::Sealed(_)));
                done.unopened += u64::from(matches!(resealed, Anew::Unopened));
                Ok(resealed.record())
            })?;
            progress((bundle + 1) * TILE_WIDTH, size);
        }
        Ok(done)
    }
}

/// One record, looked at under the newest key.
enum Anew {
    /// It is empty, or sealed under the newest key already.
    Stays,
    Sealed(Arc<[u8]>),
    Unopened,
}

impl Anew {
    fn record(self) -> Option<Arc<[u8]>> {
        match self {
            Self::Sealed(record) => Some(record),
            Self::Stays | Self::Unopened => None,
        }
    }
}

fn anew(shared: &Shared, newest: &dyn Sealer, leaf: &Sha256Digest, sealed: &[u8]) -> Anew {
    if sealed.is_empty() || newest.open(&leaf.0, sealed).is_ok() {
        return Anew::Stays;
    }
    match shared.sealer.open(&leaf.0, sealed).map(zeroize::Zeroizing::new) {
        Ok(plain) => Anew::Sealed(newest.seal(&leaf.0, &plain).into()),
        Err(_) => Anew::Unopened,
    }
}

/// What the write-ahead log is to have of one record, if that is not what it has; every record is noted in `filed`.
pub(super) fn in_write_ahead_log(
    shared: &Shared,
    newest: &dyn Sealer,
    record: &super::wal::Record,
    filed: &mut HashMap<u64, Arc<[u8]>>,
) -> Option<Arc<[u8]>> {
    let resealed = anew(shared, newest, &leaf_hash(&record.entry), &record.sealed).record();
    filed.insert(record.index, resealed.clone().unwrap_or_else(|| record.sealed.clone()));
    resealed
}
