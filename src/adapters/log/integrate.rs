//! The integrator: puts durable entries into tiles, checks what it wrote, and signs and publishes a checkpoint.
//!
//! Until a segment of the write-ahead log is removed, the tiles of its entries can be written again from it, byte for
//! byte. So tiles are synced once, right before their segment goes, and a tick costs three syncs only: the anchor, its
//! directory, and the checkpoint. Fewer syncs here are shorter waits for the groups that commit meanwhile.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Finish, LogState, Published, Shared, TailEntry, files, files::damaged, lock_mutex, lock_read, lock_write, private,
    wal,
};
use crate::{
    core::lineage::{
        checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint},
        tiles::{
            BUNDLE_BYTES_MAX, HASH_TILE_BYTES, RightEdge, TILE_WIDTH, Tile, TileHashes, TileKind, encode_bundle,
            encode_hash_tile, parse_bundle, parse_hash_tile, tiles_between,
        },
        tree::{self, consistency_proof, leaf_hash, verify_consistency},
    },
    planted,
    ports::lineage::{ReadError, SignedCheckpoint},
    types::Sha256Digest,
};

/// Longest time a durable entry waits for its checkpoint to be begun. The promise is one second to the end (G2).
const TICK: Duration = Duration::from_millis(750);
/// Shortest time between two checkpoints, unless someone asks: four a second are plenty, and each costs syncs that
/// groups wait behind.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn spawn(shared: Arc<Shared>, integrator: Integrator) -> JoinHandle<()> {
    let run = move || {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&shared, integrator)));
        if ran.is_err() {
            shared.stop("the integrator panicked, which is a defect; its message is in the log of the service");
        }
    };
    std::thread::Builder::new()
        .name("log-integrator".into())
        .spawn(run)
        .expect("the system starts a thread at start-up")
}

fn run(shared: &Shared, mut integrator: Integrator) {
    crate::priority::stand_back();
    let mut last = Instant::now();
    while let Some(durable) = wait(shared, &mut last) {
        let edge = integrator.edge.clone();
        match integrator.integrate(shared, durable, None) {
            Ok(()) => {}
            // The write-ahead log still has everything: what was begun is done again when there is room.
            Err(error) if files::is_full(&error) && wait_for_room(shared, &error) => {
                integrator.edge = edge;
                continue;
            }
            Err(error) => return shared.stop(&error.to_string()),
        }
        last = Instant::now();
        if let Err(error) = integrator.retire_segments(shared) {
            return shared.stop(&error.to_string());
        }
    }
}

/// Waits until a checkpoint is due, and returns over how many entries; `None` when there will be none any more.
fn wait(shared: &Shared, last: &mut Instant) -> Option<u64> {
    let mut signal = lock_mutex(&shared.signal);
    let mut pending_since: Option<Instant> = None;
    loop {
        if matches!(shared.state(), LogState::Stopped(_) | LogState::ReadOnly(_)) {
            return None;
        }
        let pending = signal.durable - signal.published;
        match signal.finish {
            Some(Finish::Publish) if pending > 0 => return Some(signal.durable),
            Some(_) => return None,
            None => {}
        }
        let mut due = None;
        if pending > 0 {
            if signal.wanted > signal.published {
                return Some(signal.durable);
            }
            let since = *pending_since.get_or_insert_with(Instant::now);
            let at = if pending >= TILE_WIDTH { *last + PAUSE } else { (since + TICK).max(*last + PAUSE) };
            let now = Instant::now();
            if at <= now {
                return Some(signal.durable);
            }
            due = Some(at - now);
        }
        signal = match due {
            Some(due) => shared.changed.wait_timeout(signal, due).unwrap_or_else(PoisonError::into_inner).0,
            None => shared.changed.wait(signal).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Waits a moment for room on the disk; false when the log is closing and does not wait any more.
fn wait_for_room(shared: &Shared, error: &ReadError) -> bool {
    let mut signal = lock_mutex(&shared.signal);
    if !std::mem::replace(&mut signal.is_full, true) {
        tracing::warn!(%error, "no room for tiles: the checkpoint waits, entries are safe in the write-ahead log");
    }
    shared.changed.notify_all();
    let waited = shared.changed.wait_timeout_while(signal, PAUSE, |signal| signal.finish.is_none());
    waited.unwrap_or_else(PoisonError::into_inner).0.finish.is_none()
}

/// The growing edge of the tiles.
pub(super) struct Integrator {
    /// Over the entries that are in tiles.
    pub edge: RightEdge,
    /// The last checkpoint that was anchored; nothing may contradict it.
    pub anchored: SignedCheckpoint,
    /// Entries before this are durable in tiles and gone from the write-ahead log.
    pub retired: u64,
    /// Where tiles and private records lie.
    pub file_systems: files::FileSystems,
    /// Files that were there with other bytes, or should have been there: only ever after a crash.
    pub rewritten: u64,
}

impl Integrator {
    /// Puts the entries up to `to` into tiles, checks them, and publishes `signed` over them, or a new checkpoint.
    pub fn integrate(&mut self, shared: &Shared, to: u64, signed: Option<SignedCheckpoint>) -> Result<(), ReadError> {
        let _filing = lock_mutex(&shared.filing);
        let from = self.edge.size();
        let open_bundle = from / TILE_WIDTH * TILE_WIDTH;
        let entries = lock_read(&shared.tail).range(open_bundle, to);
        // 1. Build and write what changed.
        self.write_tiles(shared, from, to, open_bundle, &entries)?;
        // 2. Read it back and recompute the root from the files alone.
        let signs_unread = planted::has("sign-without-reading");
        let reader = TileHashes::new(to, |tile: Tile| read_hash_tile(shared, tile));
        if !signs_unread {
            check_bundles(shared, from, to)?;
        }
        let root = if signs_unread { self.edge.root() } else { tree::root(to, &reader)? };
        if root != self.edge.root() {
            let reason = format!("the tiles of {to} entries lead to the root {root}, written was {}", self.edge.root());
            return Err(damaged(&shared.config.log_dir(), reason));
        }
        // 3. It must extend what was anchored before.
        if !signs_unread {
            self.check_extends(shared, to, &root, &reader)?;
        }
        // 4. Sign, anchor, publish, in this order: nobody sees a checkpoint that a crash could make us contradict.
        let checkpoint = match signed {
            Some(signed) => signed,
            None => {
                let note = shared.signer.sign(&Checkpoint::new(shared.signer.name(), to, root));
                let signed = SignedCheckpoint { size: to, root, note: note.into() };
                self.swap_anchor(shared, &signed)?;
                signed
            }
        };
        files::replace_soundly(&shared.config.checkpoint(), checkpoint.note.as_bytes())?;
        *lock_write(&shared.published) =
            Arc::new(Published { size: to, checkpoint: Some(checkpoint), edge: Some(self.edge.clone()) });
        lock_write(&shared.tail).drop_below(to);
        {
            let mut signal = lock_mutex(&shared.signal);
            signal.published = to;
            signal.is_full = false;
            shared.changed.notify_all();
        }
        remove_outgrown_partials(shared, from, to);
        Ok(())
    }

    fn write_tiles(
        &mut self,
        shared: &Shared,
        from: u64,
        to: u64,
        open_bundle: u64,
        entries: &[TailEntry],
    ) -> Result<(), ReadError> {
        let log_dir = shared.config.log_dir();
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        let skip = usize::try_from(from - open_bundle).expect("less than a bundle");
        for entry in &entries[skip..] {
            self.edge
                .push(entry.leaf, |tile, hashes| files.push((log_dir.join(tile.path()), encode_hash_tile(&hashes))));
        }
        for (tile, hashes) in self.edge.partials() {
            files.push((log_dir.join(tile.path()), encode_hash_tile(hashes)));
        }
        for tile in tiles_between(from, to).filter(|tile| tile.kind == TileKind::Entries) {
            let start = usize::try_from(tile.index * TILE_WIDTH - open_bundle).expect("the tail is in memory");
            let bundle = &entries[start..start + usize::from(tile.width)];
            let bytes: Vec<&[u8]> = bundle.iter().map(|entry| &*entry.entry).collect();
            let path = log_dir.join(tile.path());
            files.push((path.clone(), encode_bundle(&bytes).map_err(|error| damaged(&path, error))?));
            if tile.is_full() {
                let sealed: Vec<Arc<[u8]>> = bundle.iter().map(|entry| entry.sealed.clone()).collect();
                let path = private::path(&shared.config.private_dir(), tile.index);
                files.push((path, private::encode(tile.index, &sealed)));
            }
        }
        for (path, mut bytes) in files {
            bytes[2] ^= u8::from(planted::has("flip-tile"));
            // After a crash most of these are in place already.
            match files::read(&path, BUNDLE_BYTES_MAX * 2) {
                Ok(Some(found)) if found == bytes => continue,
                Ok(None) => {}
                Ok(Some(_)) if planted::has("accept-flipped-tile") => continue,
                Ok(Some(_)) | Err(_) => self.rewritten += 1,
            }
            files::replace(&path, &bytes)?;
        }
        Ok(())
    }

    fn check_extends<R>(&self, shared: &Shared, to: u64, root: &Sha256Digest, reader: &R) -> Result<(), ReadError>
    where
        R: tree::HashReader<Error = ReadError>,
    {
        let old = &self.anchored;
        let proof = if 0 < old.size && old.size < to { consistency_proof(old.size, to, reader)? } else { Vec::new() };
        verify_consistency(old.size, &old.root, to, root, &proof)
            .map_err(|error| damaged(&shared.config.log_dir(), error))
    }

    /// Replaces the anchor if it still is what this process left there.
    fn swap_anchor(&mut self, shared: &Shared, new: &SignedCheckpoint) -> Result<(), ReadError> {
        let path = &shared.config.anchor;
        let found = files::read(path, CHECKPOINT_BYTES_MAX)?;
        if found.as_deref() != Some(self.anchored.note.as_bytes()) {
            let reason =
                "someone else changed or removed the anchor while the log was open: is another copy of it running?";
            return Err(damaged(path, reason));
        }
        files::replace_durably(path, new.note.as_bytes())?;
        self.anchored = new.clone();
        Ok(())
    }

    /// Removes segments whose entries are all in full tiles, after making those durable.
    pub fn retire_segments(&mut self, shared: &Shared) -> Result<(), ReadError> {
        let _filing = lock_mutex(&shared.filing);
        while self.retired + wal::SEGMENT_ENTRIES <= self.edge.size() {
            let (first, end) = (self.retired, self.retired + wal::SEGMENT_ENTRIES);
            // The writer still holds the last segment until it begins the next.
            if !wal::segment_path(&shared.config.wal_dir(), end).exists() {
                return Ok(());
            }
            self.file_systems.sync()?;
            wal::remove(&shared.config.wal_dir(), first)?;
            self.retired = end;
        }
        Ok(())
    }
}

/// Reads the bundles of `from..to` and holds each entry against its leaf hash.
fn check_bundles(shared: &Shared, from: u64, to: u64) -> Result<(), ReadError> {
    tiles_between(from, to)
        .filter(|tile| tile.kind == TileKind::Entries)
        .try_for_each(|tile| check_bundle(shared, tile))
}

/// Reads one bundle and holds each entry against its leaf hash.
pub(super) fn check_bundle(shared: &Shared, tile: Tile) -> Result<(), ReadError> {
    let path = shared.config.log_dir().join(tile.path());
    let bytes = files::read(&path, BUNDLE_BYTES_MAX)?.ok_or_else(|| damaged(&path, "the file is gone"))?;
    let entries = parse_bundle(&bytes, tile.width).map_err(|error| damaged(&path, error))?;
    let hashes = read_hash_tile(shared, Tile { kind: TileKind::Hashes(0), ..tile })?;
    for (number, (entry, hash)) in (tile.index * TILE_WIDTH..).zip(entries.iter().zip(&hashes)) {
        if leaf_hash(entry) != *hash {
            return Err(damaged(
                &path,
                format_args!("entry {number} is not the one its hash tile says: it was changed"),
            ));
        }
    }
    shared.remember_places(tile, entries.iter().map(|entry| entry.len()));
    Ok(())
}

/// The hashes of a tile, from its file.
pub(super) fn read_hash_tile(shared: &Shared, tile: Tile) -> Result<Vec<Sha256Digest>, ReadError> {
    let path = shared.config.log_dir().join(tile.path());
    let bytes = files::read(&path, HASH_TILE_BYTES)?.ok_or_else(|| damaged(&path, "the file is gone"))?;
    parse_hash_tile(&bytes, tile.width).map_err(|error| damaged(&path, error))
}

/// Partial tiles may go once the full one is there (c2sp.org/tlog-tiles). Nothing depends on it, so nothing is said.
fn remove_outgrown_partials(shared: &Shared, from: u64, to: u64) {
    let log_dir = shared.config.log_dir();
    for tile in tiles_between(from, to).filter(|tile| tile.is_full()) {
        let _ = fs::remove_dir_all(log_dir.join(format!("{}.p", tile.path())));
    }
}
