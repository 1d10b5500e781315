//! Erasing: takes private values out of every file in which the log has filed them. `docs/spec/retention.md` has the
//! order and what a crash leaves.
//!
//! A private record is in the write-ahead log, in memory, and once its bundle is full in a file of its own; an integration
//! copies it from one to the next. So the write-ahead log and memory come first, by the writer itself between two groups
//! and with no integration under way: from then on only records without the values are copied.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
};

use super::{
    Command, LogHandle, Shared, files,
    files::damaged,
    lock_mutex, lock_write, private,
    reseal::Resealing,
    wal::{self, SEGMENT_ENTRIES, Segment},
};
use crate::{
    core::lineage::{private::PrivateField, tiles::TILE_WIDTH, tree::leaf_hash},
    ports::lineage::{AppendError, Doomed, EraseError, Intention, PrivateEraser, ReadError},
    types::EntryIndex,
};

const INTENTION_HEAD: &str = "lineproof-erasing 1";
/// An erasure of a hundred million entries that are nowhere next to each other takes less.
const INTENTION_BYTES_MAX: usize = 1 << 30;

/// Private records by entry, as the write-ahead log has them now.
type Resealed = HashMap<u64, Arc<[u8]>>;

/// What the writer is asked to do between two groups.
pub(super) struct Job {
    work: Work,
    answer: SyncSender<Result<Resealed, EraseError>>,
}

pub(super) enum Work {
    /// Destroy values.
    Erase(Arc<[Doomed]>),
    /// Seal every record under this key.
    Reseal(Arc<Resealing>),
}

impl Job {
    pub fn work(&self) -> &Work {
        &self.work
    }

    pub fn give(self, outcome: Result<Resealed, EraseError>) {
        // Whoever asked waits for this, or its thread is gone.
        let _ = self.answer.send(outcome);
    }
}

impl PrivateEraser for LogHandle {
    fn intend(&self, intention: &Intention) -> Result<(), ReadError> {
        files::replace_durably(&self.shared.config.erasing(), &encode(intention))
    }

    fn intended(&self) -> Result<Option<Intention>, ReadError> {
        intended(&self.shared.config.erasing())
    }

    fn destroy(&self, doomed: &[Doomed]) -> Result<(), EraseError> {
        let shared = &*self.shared;
        let _one_at_a_time = lock_mutex(&shared.erasing);
        let resealed = self.work(Work::Erase(doomed.into()))?;
        let stop = |error: ReadError| match files::is_full(&error) {
            true => error.into(),
            false => {
                shared.stop(&error.to_string());
                EraseError::Log(shared.state().refusal().expect("a stopped log refuses"))
            }
        };
        in_private_files(shared, doomed, &resealed).map_err(stop)
    }

    fn fulfilled(&self) -> Result<(), ReadError> {
        files::remove(&self.shared.config.erasing())?;
        files::sync_dir(&self.shared.config.data_dir)
    }
}

impl LogHandle {
    /// Has the writer change the write-ahead log, and gives the records that it looked at as they are now.
    pub(super) fn work(&self, work: Work) -> Result<Resealed, EraseError> {
        let closed = || EraseError::Log(self.shared.state().refusal().unwrap_or(AppendError::Closed));
        let queue = lock_mutex(&self.threads.queue).clone().ok_or_else(closed)?;
        let (answer, outcome) = sync_channel(1);
        queue.send(Command::Rewrite(Job { work, answer })).map_err(|_| closed())?;
        outcome.recv().map_err(|_| closed())?
    }
}

/// Rewrites the segments that hold what the work concerns, and the records in memory.
pub(super) fn in_write_ahead_log(shared: &Shared, active: &mut Segment, work: &Work) -> Result<Resealed, ReadError> {
    let _filing = lock_mutex(&shared.filing);
    let dir = shared.config.wal_dir();
    let mut resealed = Resealed::new();
    for first in wal::segments(&dir)? {
        let is_concerned = match work {
            Work::Erase(doomed) => touches(doomed, first, first + SEGMENT_ENTRIES),
            Work::Reseal(_) => true,
        };
        if !is_concerned {
            continue;
        }
        let reseal = |record: &wal::Record| {
            let doomed = match work {
                Work::Erase(doomed) => doomed,
                Work::Reseal(resealing) => {
                    return resealing.in_write_ahead_log(shared, record, &mut resealed);
                }
            };
            let fields = fields_of(doomed, record.index);
            if fields.is_empty() {
                return None;
            }
            let without = private::without(&*shared.sealer, &leaf_hash(&record.entry), &record.sealed, &fields);
            resealed.insert(record.index, without.clone().unwrap_or_else(|| record.sealed.clone()));
            without
        };
        let len = wal::rewrite(&dir, first, shared.signer.name(), reseal)?;
        if let Some(len) = len.filter(|_| first == active.first()) {
            active.rewritten(len)?;
        }
    }
    remove_temporary(&dir)?;
    let mut tail = lock_write(&shared.tail);
    resealed.iter().for_each(|(index, sealed)| tail.reseal(*index, sealed));
    Ok(resealed)
}

/// Rewrites the files of full bundles that hold doomed values. What the write-ahead log has, too, becomes what it has, so
/// that the next start finds both alike.
fn in_private_files(shared: &Shared, doomed: &[Doomed], resealed: &Resealed) -> Result<(), ReadError> {
    let ranges = doomed.iter().flat_map(|doomed| doomed.entries.ranges());
    let bundles: BTreeSet<u64> = ranges.flat_map(|(first, last)| first / TILE_WIDTH..=last / TILE_WIDTH).collect();
    for bundle in bundles.range(..shared.published().size / TILE_WIDTH) {
        let _filing = lock_mutex(&shared.filing);
        private::rewrite(&shared.config.private_dir(), *bundle, |index, sealed| {
            let fields = fields_of(doomed, index);
            if fields.is_empty() {
                return Ok(None);
            }
            if let Some(resealed) = resealed.get(&index) {
                return Ok(Some(resealed.clone()));
            }
            Ok(private::without(&*shared.sealer, &shared.leaf(index)?, sealed, &fields))
        })?;
    }
    Ok(())
}

fn fields_of(doomed: &[Doomed], index: u64) -> Vec<PrivateField> {
    let of = |doomed: &&Doomed| doomed.entries.contains(EntryIndex(index));
    doomed.iter().filter(of).flat_map(|doomed| doomed.fields.iter().copied()).collect()
}

/// Whether a doomed entry lies in `start..end`.
fn touches(doomed: &[Doomed], start: u64, end: u64) -> bool {
    let mut ranges = doomed.iter().flat_map(|doomed| doomed.entries.ranges());
    ranges.any(|(first, last)| *first < end && *last >= start)
}

/// What a crash may have left half-written: never read, and perhaps with values in it.
fn remove_temporary(dir: &Path) -> Result<(), ReadError> {
    for item in fs::read_dir(dir).map_err(files::at(dir))? {
        let path = item.map_err(files::at(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// What an interrupted erasure left to be done, if there is one.
pub(super) fn intended(path: &Path) -> Result<Option<Intention>, ReadError> {
    let Some(bytes) = files::read(path, INTENTION_BYTES_MAX)? else { return Ok(None) };
    let read = decode(&bytes).ok_or_else(|| damaged(path, "it is no erasure that this release can finish"));
    read.map(Some)
}

/// A head, the size, and one entry on each line: entries have no line breaks.
fn encode(intention: &Intention) -> Vec<u8> {
    let mut bytes = format!("{INTENTION_HEAD}\n{}\n", intention.size).into_bytes();
    for entry in &intention.entries {
        bytes.extend_from_slice(entry);
        bytes.push(b'\n');
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Intention> {
    let mut lines = bytes.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
    if lines.next()? != INTENTION_HEAD.as_bytes() {
        return None;
    }
    let size = std::str::from_utf8(lines.next()?).ok()?.parse().ok()?;
    Some(Intention { size, entries: lines.map(<[u8]>::to_vec).collect() })
}
