//! Reading: entries, private records and proofs, each checked against the tiles on the way out.
//!
//! Bundles are not cached: the system's page cache holds them, and with the places of its entries known (1 KB a bundle)
//! one entry is one small read.

use std::{
    collections::HashMap,
    fs::File,
    hash::Hash,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use super::{
    Shared,
    files::{self, at, damaged},
    frames::{self, Known},
    integrate::read_hash_tile,
    lock_mutex, lock_read, private,
};
use crate::{
    core::lineage::{
        tiles::{BUNDLE_BYTES_MAX, TILE_WIDTH, Tile, TileHashes, TileKind, parse_bundle},
        tree::{self, leaf_hash},
    },
    ports::lineage::{LogReader, PrivateRecord, ReadError, Receipt, SignedCheckpoint},
    types::{EntryIndex, FrameKey, Sha256Digest},
};

/// Bundles whose entries' places are remembered: 8 to 16 million entries in 32 to 64 MB.
const PLACES_MAX: usize = 65_536;
/// Full hash tiles that are remembered: 8 MB.
const HASH_TILES_MAX: usize = 1024;

/// What reading remembers.
pub(super) struct Cache {
    places: Mutex<Recent<u64, Arc<[u32]>>>,
    tiles: Mutex<Recent<Tile, Arc<[Sha256Digest]>>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { places: Mutex::new(Recent::new(PLACES_MAX)), tiles: Mutex::new(Recent::new(HASH_TILES_MAX)) }
    }
}

/// A map that forgets the older half of its keys when it is full.
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: max / 2 }
    }

    fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(value.clone());
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

/// The reading side of an open log. Cheap to clone.
#[derive(Clone)]
pub struct LogStoreReader {
    shared: Arc<Shared>,
}

impl LogStoreReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Entries that are durable; those above the published size wait for their checkpoint.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.size()
    }
}

impl LogReader for LogStoreReader {
    fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError> {
        let path = self.shared.config.checkpoint();
        self.shared
            .published()
            .checkpoint
            .clone()
            .ok_or_else(|| damaged(&path, "no checkpoint of this log can be read"))
    }

    fn entry(&self, index: EntryIndex) -> Result<Vec<u8>, ReadError> {
        Ok(self.shared.entry(index.0)?.0)
    }

    fn entries(&self, start: EntryIndex, end: EntryIndex) -> Result<Vec<Vec<u8>>, ReadError> {
        self.shared.entries(start.0, end.0)
    }

    fn private(&self, index: EntryIndex) -> Result<PrivateRecord, ReadError> {
        // An erasure wipes the file it replaces, perhaps in the middle of a look; the new file is in place then.
        self.shared.private(index).or_else(|error| match error {
            ReadError::Damaged { .. } => self.shared.private(index),
            other => Err(other),
        })
    }

    fn inclusion_proof(&self, index: EntryIndex, size: u64) -> Result<Vec<Sha256Digest>, ReadError> {
        let published = self.shared.published().size;
        if size > published {
            return Err(ReadError::Size { old: size, new: size, size: published });
        }
        if index.0 >= size {
            return Err(ReadError::NoEntry { index, size });
        }
        tree::inclusion_proof(index.0, size, &self.shared.hashes(size))
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Sha256Digest>, ReadError> {
        let published = self.shared.published().size;
        if old == 0 || old > new || new > published {
            return Err(ReadError::Size { old, new, size: published });
        }
        tree::consistency_proof(old, new, &self.shared.hashes(new))
    }
}

impl Shared {
    /// The decision of a frame: among the newest entries first, because the index may learn of them only later.
    pub(super) fn find_frame(&self, key: &FrameKey) -> Result<Option<Known>, ReadError> {
        let hash = key.hash16();
        if let Some(known) = lock_read(&self.frames).get(&hash) {
            return Ok(Some(known));
        }
        let Some(index) = self.frame_index.find_frame(hash)? else { return Ok(None) };
        let (entry, leaf_hash) = self.entry(index.0)?;
        match frames::frame_of(&entry) {
            Some((found, encoded)) if found == *key => {
                Ok(Some(Known { receipt: Receipt { index, leaf_hash }, encoded }))
            }
            _ => Err(ReadError::Damaged {
                place: "the index".into(),
                reason: format!(
                    "it says that entry {index} decides frame {key}, but it does not; `lineproof reindex` makes a new one"
                ),
            }),
        }
    }

    fn private(&self, index: EntryIndex) -> Result<PrivateRecord, ReadError> {
        let in_memory = lock_read(&self.tail).get(index.0).map(|entry| (entry.sealed.clone(), entry.leaf));
        let dir = self.config.private_dir();
        let opened = match in_memory {
            Some((sealed, leaf)) => private::open(&*self.sealer, &leaf, &sealed),
            None => {
                let leaf = self.leaf(index.0)?;
                let sealed = private::read(&dir, index.0)?;
                private::open(&*self.sealer, &leaf, &sealed)
            }
        };
        let place = private::path(&dir, index.0 / TILE_WIDTH);
        opened.map_err(|error| damaged(&place, format_args!("private record of entry {index}: {error}")))
    }

    /// Entries that can be read.
    pub(super) fn size(&self) -> u64 {
        lock_read(&self.tail).end().max(self.published().size)
    }

    /// An entry with its leaf hash.
    fn entry(&self, index: u64) -> Result<(Vec<u8>, Sha256Digest), ReadError> {
        if let Some(entry) = lock_read(&self.tail).get(index) {
            return Ok((entry.entry.to_vec(), entry.leaf));
        }
        let mut entries = self.entries_of_bundle(index, index + 1)?;
        Ok(entries.pop().expect("one entry was asked for"))
    }

    /// The entries `start..end`, as far as they lie in the bundle of the first.
    pub(super) fn entries(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, ReadError> {
        let end = end.min((start / TILE_WIDTH + 1) * TILE_WIDTH).max(start + 1);
        match self.entries_of_tail(start, end) {
            Some(entries) => Ok(entries),
            None => Ok(self.entries_of_bundle(start, end)?.into_iter().map(|(entry, _)| entry).collect()),
        }
    }

    fn entries_of_tail(&self, start: u64, end: u64) -> Option<Vec<Vec<u8>>> {
        let tail = lock_read(&self.tail);
        tail.get(start)?;
        Some((start..end).map_while(|index| Some(tail.get(index)?.entry.to_vec())).collect())
    }

    /// Entries `start..end` of one bundle on disk, held against their leaf hashes.
    fn entries_of_bundle(&self, start: u64, end: u64) -> Result<Vec<(Vec<u8>, Sha256Digest)>, ReadError> {
        let published = self.published().size;
        let size = self.size();
        let no_entry = || ReadError::NoEntry { index: EntryIndex(start), size };
        let tile = Tile::in_log(TileKind::Entries, start / TILE_WIDTH, published).ok_or_else(no_entry)?;
        let first = tile.index * TILE_WIDTH;
        let end = end.min(first + u64::from(tile.width));
        if start >= end {
            return Err(no_entry());
        }
        let path = self.config.log_dir().join(tile.path());
        let within = |index: u64| usize::try_from(index - first).expect("an offset is at most 256");
        let places = self.places(tile)?;
        let (from, to) = (places[within(start)], places[within(end)]);
        let mut bytes = vec![0; (to - from) as usize];
        let file = File::open(&path).map_err(at(&path))?;
        file.read_exact_at(&mut bytes, u64::from(from)).map_err(at(&path))?;
        let width = u16::try_from(end - start).expect("at most a bundle");
        let entries = parse_bundle(&bytes, width).map_err(|error| damaged(&path, error))?;
        let hashes = self.hash_tile(Tile { kind: TileKind::Hashes(0), ..tile })?;
        let mut checked = Vec::with_capacity(entries.len());
        for (index, entry) in (start..).zip(entries) {
            let leaf = leaf_hash(entry);
            if leaf != hashes[within(index)] {
                let reason = format!("entry {index} is not the one its hash tile says: it was changed");
                return Err(damaged(&path, reason));
            }
            checked.push((entry.to_vec(), leaf));
        }
        Ok(checked)
    }

    /// Where each entry of a bundle begins, and where the last one ends.
    fn places(&self, tile: Tile) -> Result<Arc<[u32]>, ReadError> {
        if tile.is_full()
            && let Some(places) = lock_mutex(&self.cache.places).get(tile.index)
        {
            return Ok(places);
        }
        let path = self.config.log_dir().join(tile.path());
        let bytes = files::read(&path, BUNDLE_BYTES_MAX)?.ok_or_else(|| damaged(&path, "the file is gone"))?;
        let entries = parse_bundle(&bytes, tile.width).map_err(|error| damaged(&path, error))?;
        Ok(self.remember_places(tile, entries.iter().map(|entry| entry.len())))
    }

    /// Remembers where the entries of a bundle lie, so that one of them is one small read: whoever has just written or
    /// checked a bundle knows it, and a page whose rows lie in fifty bundles would have to read each whole.
    pub(super) fn remember_places(&self, tile: Tile, lengths: impl Iterator<Item = usize>) -> Arc<[u32]> {
        let ends = lengths.scan(0, |place, length| {
            *place += 2 + u32::try_from(length).expect("an entry has at most 8 KiB");
            Some(*place)
        });
        let places: Arc<[u32]> = std::iter::once(0).chain(ends).collect();
        if tile.is_full() {
            lock_mutex(&self.cache.places).insert(tile.index, places.clone());
        }
        places
    }

    pub(super) fn leaf(&self, index: u64) -> Result<Sha256Digest, ReadError> {
        let size = self.published().size;
        let tile = Tile::in_log(TileKind::Hashes(0), index / TILE_WIDTH, size);
        let offset = usize::try_from(index % TILE_WIDTH).expect("an offset is below 256");
        let tile = tile.filter(|tile| offset < usize::from(tile.width));
        let tile = tile.ok_or(ReadError::NoEntry { index: EntryIndex(index), size })?;
        Ok(self.hash_tile(tile)?[offset])
    }

    /// The hashes of the tree of `size` entries, out of the published tiles.
    fn hashes(&self, size: u64) -> impl tree::HashReader<Error = ReadError> {
        TileHashes::new(size, |tile: Tile| {
            let mut hashes = self.hash_tile(tile)?.to_vec();
            hashes.truncate(usize::from(tile.width));
            Ok::<_, ReadError>(hashes)
        })
    }

    /// At least the hashes of `tile`; a smaller tree's partial tile is the start of a wider one.
    fn hash_tile(&self, tile: Tile) -> Result<Arc<[Sha256Digest]>, ReadError> {
        let published = self.published();
        let tile = Tile::in_log(tile.kind, tile.index, published.size)
            .filter(|wider| wider.width >= tile.width)
            .ok_or_else(|| damaged(&self.config.log_dir().join(tile.path()), "it lies beyond the published log"))?;
        if !tile.is_full()
            && let Some(edge) = &published.edge
        {
            let partial = edge.partials().find(|(partial, _)| partial.kind == tile.kind);
            return Ok(partial.map(|(_, hashes)| hashes.into()).expect("the right edge holds every partial tile"));
        }
        if let Some(hashes) = lock_mutex(&self.cache.tiles).get(tile) {
            return Ok(hashes);
        }
        let hashes: Arc<[Sha256Digest]> = read_hash_tile(self, tile)?.into();
        lock_mutex(&self.cache.tiles).insert(tile, hashes.clone());
        Ok(hashes)
    }
}
