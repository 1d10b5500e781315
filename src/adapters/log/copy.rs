//! A log that is copied while a service appends to it, and a log laid out again from such a copy: `docs/spec/backup.md`.
//!
//! Nothing here asks the service: full tiles and bundles never change, and what the last bundle holds is in the
//! write-ahead log.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    LogConfig, files,
    files::{damaged, replace, replace_durably},
    private, wal,
};
use crate::{
    core::lineage::{
        checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, VerifierKey},
        tiles::{
            BUNDLE_BYTES_MAX, HASH_TILE_BYTES, RightEdge, TILE_WIDTH, Tile, TileHashes, TileKind, encode_bundle,
            encode_hash_tile, parse_bundle, parse_hash_tile, subtree_root,
        },
        tree::{self, leaf_hash, verify_consistency},
    },
    ports::lineage::ReadError,
    types::Sha256Digest,
};

/// Looks at a log that grows meanwhile: each takes milliseconds, and a segment goes once in 16,384 entries.
const LOOKS_MAX: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A log as its latest checkpoint describes it: what is not in full bundles, and that the full ones lead to its root.
#[derive(Clone, Debug)]
pub struct LogCopy {
    pub checkpoint: Checkpoint,
    /// The signed checkpoint.
    pub note: String,
    /// The entries behind the last full bundle.
    pub tail: Vec<CopiedEntry>,
}

/// An entry with its sealed private record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedEntry {
    pub entry: Vec<u8>,
    pub sealed: Vec<u8>,
}

impl LogCopy {
    /// Looks at the log below `config`, which a service may be writing to.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when there is no checkpoint yet, or the log does not lead to its root.
    pub fn look(config: &LogConfig, key: &VerifierKey) -> Result<Self, ReadError> {
        let mut looks = 1;
        loop {
            match Self::look_once(config, key) {
                // The segment was retired after the checkpoint was read; a newer checkpoint does not need it.
                Err(_) if looks < LOOKS_MAX => looks += 1,
                looked => return looked,
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn look_once(config: &LogConfig, key: &VerifierKey) -> Result<Self, ReadError> {
        let copy = Self::read(config, key)?;
        let root = copy.root(&config.log_dir())?;
        if root != copy.checkpoint.root {
            let reason = format!("the tiles and the write-ahead log lead to the root {root}: run `lineproof fsck`");
            return Err(damaged(&config.checkpoint(), reason));
        }
        Ok(copy)
    }

    fn read(config: &LogConfig, key: &VerifierKey) -> Result<Self, ReadError> {
        let path = config.checkpoint();
        // A service that has just started gets there within a second.
        let nothing = || damaged(&path, "it covers no entry yet: the service has never run on this directory");
        let note = files::read(&path, CHECKPOINT_BYTES_MAX)?.ok_or_else(nothing)?;
        let note = String::from_utf8(note).map_err(|_| damaged(&path, "it is no text"))?;
        let checkpoint = Checkpoint::open(&note, key).map_err(|error| damaged(&path, error))?;
        if checkpoint.size == 0 {
            return Err(nothing());
        }
        Ok(Self { tail: tail_of(config, checkpoint.size, key.name())?, checkpoint, note })
    }

    /// Whether the write-ahead log still has the tail as it was copied: an erasure rewrites the private records in it.
    #[must_use]
    pub fn tail_is_unchanged(&self, config: &LogConfig) -> bool {
        tail_of(config, self.checkpoint.size, &self.checkpoint.origin).is_ok_and(|tail| tail == self.tail)
    }

    /// The entries that were published after this copy, up to now.
    ///
    /// # Errors
    /// [`ReadError`]: also when the log went on while it was read.
    pub fn later_entries(&self, config: &LogConfig, key: &VerifierKey) -> Result<Vec<Vec<u8>>, ReadError> {
        let newer = Self::read(config, key)?;
        let mut entries = Vec::new();
        for index in self.bundles()..newer.bundles() {
            entries.extend(read_bundle(&config.log_dir(), index)?);
        }
        entries.extend(newer.tail.into_iter().map(|copied| copied.entry));
        // They begin with the tail of this copy.
        Ok(entries.into_iter().skip(self.tail.len()).collect())
    }

    /// Full bundles, each with its file of private records.
    #[must_use]
    pub fn bundles(&self) -> u64 {
        self.checkpoint.size / TILE_WIDTH
    }

    /// The root, from the full hash tiles of the lowest level and the entries behind them.
    fn root(&self, log_dir: &Path) -> Result<Sha256Digest, ReadError> {
        let mut edge = RightEdge::default();
        for index in 0..self.bundles() {
            let hashes = read_tile(log_dir, Tile { kind: TileKind::Hashes(0), index, width: 256 })?;
            edge.push_full(subtree_root(&hashes), |_, _| {});
        }
        self.tail.iter().for_each(|entry| edge.push(leaf_hash(&entry.entry), |_, _| {}));
        Ok(edge.root())
    }
}

/// Whether values are being erased, or were when a service was killed. Its entry is covered by a checkpoint before anything
/// is destroyed, and this ends when everything is.
#[must_use]
pub fn is_erasing(config: &LogConfig) -> bool {
    config.erasing().exists()
}

/// The entries of the last bundle, which is not full, from the write-ahead log.
fn tail_of(config: &LogConfig, size: u64, origin: &str) -> Result<Vec<CopiedEntry>, ReadError> {
    let start = size / TILE_WIDTH * TILE_WIDTH;
    if start == size {
        return Ok(Vec::new());
    }
    let (dir, first) = (config.wal_dir(), start / wal::SEGMENT_ENTRIES * wal::SEGMENT_ENTRIES);
    let scan = wal::scan(&dir, first, origin)?;
    let records = scan.records.into_iter().filter(|record| (start..size).contains(&record.index));
    let tail: Vec<CopiedEntry> =
        records.map(|record| CopiedEntry { entry: record.entry.to_vec(), sealed: record.sealed.to_vec() }).collect();
    if tail.len() as u64 == size - start {
        return Ok(tail);
    }
    let path = wal::segment_path(&dir, first);
    Err(damaged(&path, format_args!("it does not hold the entries {start} to {size} that the checkpoint covers")))
}

/// Below the data directory: the entry bundle, and the private records of its entries.
#[must_use]
pub fn bundle_places(index: u64) -> [PathBuf; 2] {
    let tile = Tile { kind: TileKind::Entries, index, width: 256 };
    [Path::new("log").join(tile.path()), private::path(Path::new("private"), index)]
}

/// Holds a full bundle's bytes against its hash tile, so that a changed entry is noticed before it is copied.
///
/// # Errors
/// [`ReadError::Damaged`].
pub fn check_bundle(data_dir: &Path, index: u64, bytes: &[u8]) -> Result<(), ReadError> {
    let tile = Tile { kind: TileKind::Entries, index, width: 256 };
    let log_dir = data_dir.join("log");
    let path = log_dir.join(tile.path());
    let entries = parse_bundle(bytes, tile.width).map_err(|error| damaged(&path, error))?;
    let hashes = read_tile(&log_dir, Tile { kind: TileKind::Hashes(0), ..tile })?;
    for (number, (entry, hash)) in (index * TILE_WIDTH..).zip(entries.iter().zip(&hashes)) {
        if leaf_hash(entry) != *hash {
            return Err(damaged(&path, format_args!("entry {number} was changed: run `lineproof fsck`")));
        }
    }
    Ok(())
}

fn read_tile(log_dir: &Path, tile: Tile) -> Result<Vec<Sha256Digest>, ReadError> {
    let path = log_dir.join(tile.path());
    let bytes = files::read(&path, HASH_TILE_BYTES)?.ok_or_else(|| damaged(&path, "the file is missing"))?;
    parse_hash_tile(&bytes, tile.width).map_err(|error| damaged(&path, error))
}

/// Makes a log of what a copy holds. The full bundles and their private records lie in place already; this writes
/// everything else but the anchor, and syncs it all.
///
/// # Errors
/// [`ReadError::Damaged`] when the entries do not lead to the checkpoint's root; then there is no checkpoint.
pub fn lay_out(config: &LogConfig, copy: &LogCopy, mut progress: impl FnMut(u64)) -> Result<(), ReadError> {
    let (log_dir, size) = (config.log_dir(), copy.checkpoint.size);
    let full = copy.bundles() * TILE_WIDTH;
    if size - full != copy.tail.len() as u64 {
        let reason = format!("the last bundle should have {} entries, {} were copied", size - full, copy.tail.len());
        return Err(damaged(&log_dir, reason));
    }
    // 1. Every hash tile, from the entries alone.
    let mut edge = RightEdge::default();
    let mut tiles: Vec<(Tile, Vec<Sha256Digest>)> = Vec::new();
    for index in 0..copy.bundles() {
        for entry in read_bundle(&log_dir, index)? {
            edge.push(leaf_hash(&entry), |tile, hashes| tiles.push((tile, hashes)));
        }
        for (tile, hashes) in tiles.drain(..) {
            replace(&log_dir.join(tile.path()), &encode_hash_tile(&hashes))?;
        }
        progress((index + 1) * TILE_WIDTH);
    }
    // The tail fills no tile: it has less than 256 entries and begins with a bundle.
    copy.tail.iter().for_each(|entry| edge.push(leaf_hash(&entry.entry), |_, _| {}));
    for (tile, hashes) in edge.partials() {
        replace(&log_dir.join(tile.path()), &encode_hash_tile(hashes))?;
    }
    if let Some(tile) = Tile::in_log(TileKind::Entries, copy.bundles(), size) {
        let entries: Vec<&[u8]> = copy.tail.iter().map(|entry| &*entry.entry).collect();
        let path = log_dir.join(tile.path());
        replace(&path, &encode_bundle(&entries).map_err(|error| damaged(&path, error))?)?;
    }
    // 2. They must be what was signed.
    if edge.root() != copy.checkpoint.root {
        let reason = format!("{size} entries lead to the root {}, signed was {}", edge.root(), copy.checkpoint.root);
        return Err(damaged(&log_dir, reason));
    }
    // 3. The write-ahead log as it would be, and all of it durable before the checkpoint says so.
    write_wal(config, copy)?;
    files::FileSystems::of(&[log_dir, config.wal_dir(), config.data_dir.clone()])?.sync()?;
    replace_durably(&config.checkpoint(), copy.note.as_bytes())
}

fn read_bundle(log_dir: &Path, index: u64) -> Result<Vec<Vec<u8>>, ReadError> {
    let path = log_dir.join(Tile { kind: TileKind::Entries, index, width: 256 }.path());
    let bytes = files::read(&path, BUNDLE_BYTES_MAX)?.ok_or_else(|| damaged(&path, "the file is missing"))?;
    let entries = parse_bundle(&bytes, 256).map_err(|error| damaged(&path, error))?;
    Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
}

/// The last segment: a log never is without one.
fn write_wal(config: &LogConfig, copy: &LogCopy) -> Result<(), ReadError> {
    let size = copy.checkpoint.size;
    let first = size / wal::SEGMENT_ENTRIES * wal::SEGMENT_ENTRIES;
    let mut segment = wal::Segment::create(&config.wal_dir(), first, &copy.checkpoint.origin)?;
    let mut next = first;
    while next < size {
        let end = (next + TILE_WIDTH).min(size);
        let records: Vec<CopiedEntry> = if end - next < TILE_WIDTH {
            copy.tail.clone()
        } else {
            let entries = read_bundle(&config.log_dir(), next / TILE_WIDTH)?;
            let sealed = |(index, entry)| {
                private::read(&config.private_dir(), index).map(|sealed| CopiedEntry { entry, sealed })
            };
            (next..).zip(entries).map(sealed).collect::<Result<_, _>>()?
        };
        let mut group = Vec::new();
        for (index, CopiedEntry { entry, sealed }) in (next..).zip(records) {
            segment.encode_entry(next, &wal::Record { index, entry: entry.into(), sealed: sealed.into() }, &mut group);
        }
        segment.commit(&group, end)?;
        next = end;
    }
    Ok(())
}

/// Checks that the log below `config`, laid out under `checkpoint`, contains everything that `earlier` covers.
///
/// # Errors
/// [`ReadError::Damaged`]: it is behind, or another history.
pub fn check_extends(config: &LogConfig, checkpoint: &Checkpoint, earlier: &Checkpoint) -> Result<(), ReadError> {
    let log_dir = config.log_dir();
    let reader = TileHashes::new(checkpoint.size, |tile: Tile| read_tile(&log_dir, tile));
    let between = 0 < earlier.size && earlier.size < checkpoint.size;
    let proof = if between { tree::consistency_proof(earlier.size, checkpoint.size, &reader)? } else { Vec::new() };
    verify_consistency(earlier.size, &earlier.root, checkpoint.size, &checkpoint.root, &proof)
        .map_err(|error| damaged(&log_dir, error))
}

/// Puts a signed checkpoint where the log looks for its anchor, durably.
///
/// # Errors
/// [`ReadError::Io`].
pub fn put_anchor(path: &Path, note: &str) -> Result<(), ReadError> {
    replace_durably(path, note.as_bytes())
}
