//! The decision index on sled, without trusting sled: whole chunks are sealed in order, synced, and only then named in
//! the manifest; what is not sealed is read from the log again at the next start.
//!
//! ```text
//!   entries   0 ……… 65,535 | 65,536 ……… 131,071 | 131,072 …
//!             sealed chunk    sealed chunk           tail, in memory
//!             (sled, never changed)                  (the log has it)
//! ```
//!
//! Order of a seal, and what a crash leaves:
//! 1. the chunk's values are put: values nobody refers to, which the next seal of the same chunk writes again;
//! 2. they are synced; 3. the manifest says one chunk more and is synced: the chunk counts;
//! 4. sixteen chunks' postings are merged in the same order; the ones they replace are removed last.
//!
//! So a manifest on disk vouches for every value under it, a missing value is damage and never absence, and a damaged
//! index is moved aside and read from the log again.

mod chunk;
mod codec;
mod forget;
mod keys;
mod postings;
mod query;
mod store;

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use roaring::RoaringBitmap;

use self::{
    chunk::{CHUNK_ROWS, Head, NO_TIME, Sealed, Tail},
    codec::Malformed,
    postings::{Hash, Hashed, Level, MERGE},
    query::{Tally, TallyError, matching},
    store::{Fault, OpenError, Store},
};
use crate::{
    core::{counter::stands_at, lineage::private::PrivateField},
    ports::index::{
        BUCKET_NANOS_MIN, COUNT_CELLS_MAX, CountBy, CountCell, DecisionIndex, Facts, Filter, FrameIndex, IndexError,
        Order, PAGE_ENTRIES_MAX,
    },
    types::{Blake3Digest, CameraId, EntryIndex, Instant, LineId},
};

/// Version of everything below the index folder. Another one is rebuilt, never converted.
const FORMAT_VERSION: u32 = 1;
/// Rows added at a time while readers wait: less than a millisecond.
const ROWS_PER_LOCK: usize = 256;
/// Appended to the folder's name for the last index that had to be moved aside.
const ASIDE: &str = "damaged";

/// How an index was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Whole,
    /// There was none.
    New,
    /// It could not be used and lies aside now; the log will be read again from its start.
    Replaced {
        reason: String,
        aside: PathBuf,
    },
    /// It was made with another key, as after a change of the master key, and is removed: its hashes say something to whoever
    /// has that key, and nobody else needs it.
    OtherKey,
}

/// The index in one folder. Cheap to share; see [`DecisionIndex`] for who may call what.
pub struct SledIndex {
    path: PathBuf,
    key: [u8; 32],
    state: RwLock<State>,
    /// One caller at a time changes the index.
    follower: Mutex<()>,
    damage: Mutex<Option<String>>,
    /// What entries that are not indexed yet must not be found by.
    forgotten: Mutex<BTreeMap<u64, Vec<Hashed>>>,
    /// The largest `indexed_to` anyone was told: the writer no longer remembers frames below it (G6).
    promised: AtomicU64,
}

struct State {
    store: Arc<Store>,
    heads: Vec<Arc<Head>>,
    /// Chunks, from the first on, whose postings are merged.
    merged: u32,
    tail: Tail,
    last_time: i64,
    /// Changes when the index starts over, so that a search does not silently go on in an emptier one.
    generation: u64,
}

/// What on disk counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Manifest {
    chunks: u32,
    merged: u32,
}

impl SledIndex {
    /// Opens the index in `path`, or begins an empty one where there is none or none that can be used. `key` keys the
    /// hashes of private values; an index made with another key is replaced.
    ///
    /// # Errors
    /// [`IndexError::InUse`] when another process has it, [`IndexError::Storage`] when the disk refuses.
    pub fn open(path: &Path, key: [u8; 32]) -> Result<(Self, Found), IndexError> {
        let is_new = !path.join("db").exists();
        let (state, found) = match State::open(path, &key) {
            Ok(state) => (state, if is_new { Found::New } else { Found::Whole }),
            Err(OpenError::Unusable(reason)) => {
                let aside = move_aside(path).map_err(|error| storage(path, error.to_string()))?;
                let state = State::open(path, &key).map_err(|error| open_error(path, error))?;
                (state, Found::Replaced { reason, aside })
            }
            Err(OpenError::OtherKey) => {
                fs::remove_dir_all(path).map_err(|error| storage(path, error.to_string()))?;
                (State::open(path, &key).map_err(|error| open_error(path, error))?, Found::OtherKey)
            }
            Err(error) => return Err(open_error(path, error)),
        };
        let index = Self {
            path: path.to_owned(),
            key,
            state: RwLock::new(state),
            follower: Mutex::new(()),
            damage: Mutex::new(None),
            forgotten: Mutex::default(),
            promised: AtomicU64::new(0),
        };
        Ok((index, found))
    }

    /// # Errors
    /// [`IndexError::InUse`] when a process has the index in `path` open.
    pub fn check_unused(path: &Path) -> Result<(), IndexError> {
        store::refuse_if_locked(path).map_err(|error| open_error(path, error))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Generation and number of entries, seen together.
    fn extent(&self) -> (u64, u64) {
        let state = self.read();
        (state.generation, state.len())
    }

    /// Remembers damage for the follower.
    fn fault(&self, fault: Fault) -> IndexError {
        match fault {
            Fault::Disk(reason) => storage(&self.path, reason),
            // Looked at when it was opened, and never again.
            Fault::OtherKey => storage(&self.path, "it is keyed with another key".into()),
            Fault::Damage(reason) => {
                *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
                storage(&self.path, reason)
            }
        }
    }

    /// Serial numbers and lots must not stand in the index, nor be found in it by trying them all without the key.
    fn hash(&self, hashed: Hashed, value: &str) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[hashed as u8]);
        hasher.update(value.as_bytes());
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        hash
    }

    /// Seals the full tail.
    fn seal(&self) -> Result<(), Fault> {
        let (store, manifest, head) = {
            // Only the follower, which we are, takes the write lock: readers go on meanwhile.
            let state = self.read();
            let chunks = state.heads.len() as u32;
            let head = state.tail.seal(&state.store, chunks)?;
            (state.store.clone(), Manifest { chunks: chunks + 1, merged: state.merged }, head)
        };
        store.sync()?;
        manifest.save(&store)?;
        {
            let mut state = self.write();
            state.heads.push(Arc::new(head));
            state.tail = Tail::default();
        }
        if manifest.chunks - manifest.merged >= MERGE {
            self.merge(&store, manifest)?;
        }
        Ok(())
    }

    /// Merges the oldest [`MERGE`] chunks whose postings are not merged yet.
    fn merge(&self, store: &Store, manifest: Manifest) -> Result<(), Fault> {
        let first = manifest.merged;
        for hashed in Hashed::ALL {
            for bucket in 0..Level::Chunk.buckets() {
                let read = |chunk| {
                    let key = keys::postings(hashed, Level::Chunk, chunk, bucket);
                    store.read(&key, postings::decode_bucket)
                };
                let groups = (first..first + MERGE).map(read).collect::<Result<Vec<_>, _>>()?;
                for (part, groups) in (0..).zip(postings::merge_buckets(&groups, CHUNK_ROWS)) {
                    let key = keys::postings(hashed, Level::Merged, first, bucket * MERGE as u16 + part);
                    store.put(&key, &postings::encode_bucket(&groups))?;
                }
            }
        }
        store.sync()?;
        let manifest = Manifest { merged: first + MERGE, ..manifest };
        manifest.save(store)?;
        // A look-up holds the read lock, so none that still wants the smaller runs outlives this.
        self.write().merged = manifest.merged;
        remove_merged(store, first..manifest.merged)
    }

    /// The entries that have the serial number and the lot of the filter, as rows by chunk; `None` when it names none.
    fn candidates(&self, filter: &Filter, range: &Range<u64>) -> Result<Option<Candidates>, Fault> {
        let serial = filter.serial.as_ref().map(|serial| (Hashed::Serial, self.hash(Hashed::Serial, serial.as_str())));
        let lot = filter.lot.as_ref().map(|lot| (Hashed::Lot, self.hash(Hashed::Lot, lot.as_str())));
        let mut found: Option<Candidates> = None;
        for (hashed, hash) in [serial, lot].into_iter().flatten() {
            let rows = self.read().rows_of(hashed, &hash, range)?;
            found = Some(match found {
                None => rows,
                Some(before) => intersect(before, &rows),
            });
        }
        Ok(found)
    }

    /// Calls `visit` with each chunk that may hold matches within `range`, which ends at most where the index does, in
    /// `order`, until it says stop.
    fn visit(
        &self,
        generation: u64,
        range: &Range<u64>,
        order: Order,
        candidates: Option<&Candidates>,
        mut visit: impl FnMut(u32, &ChunkRef<'_>) -> Result<Next, TallyError>,
    ) -> Result<(), TallyError> {
        if range.is_empty() {
            return Ok(());
        }
        let rows = u64::from(CHUNK_ROWS);
        let (first, last) = ((range.start / rows) as u32, ((range.end - 1) / rows) as u32);
        let mut chunks: Vec<u32> = match candidates {
            Some(candidates) => candidates.range(first..=last).map(|(chunk, _)| *chunk).collect(),
            None => (first..=last).collect(),
        };
        if order == Order::NewestFirst {
            chunks.reverse();
        }
        for chunk in chunks {
            let state = self.read();
            if state.generation != generation {
                return Err(Fault::Disk("it was thrown away during this search; try again".into()).into());
            }
            let next = match state.heads.get(chunk as usize).cloned() {
                Some(head) => {
                    let store = state.store.clone();
                    drop(state);
                    visit(chunk, &ChunkRef::Sealed(Sealed { store: &store, chunk, head: &head }))?
                }
                None => visit(chunk, &ChunkRef::Tail(&state.tail))?,
            };
            if matches!(next, Next::Stop) {
                break;
            }
        }
        Ok(())
    }

    fn try_page(
        &self,
        filter: &Filter,
        range: Range<u64>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<EntryIndex>, Fault> {
        let (generation, len) = self.extent();
        let range = range.start..range.end.min(len);
        let candidates = self.candidates(filter, &range)?;
        let mut page = Vec::with_capacity(limit);
        let visited = self.visit(generation, &range, order, candidates.as_ref(), |chunk, rows| {
            let candidates = candidates.as_ref().and_then(|candidates| candidates.get(&chunk));
            let found = match rows {
                ChunkRef::Sealed(rows) => matching(rows, filter, candidates)?,
                ChunkRef::Tail(rows) => matching(*rows, filter, candidates)?,
            };
            let base = u64::from(chunk) * u64::from(CHUNK_ROWS);
            let entries = found.range(rows_within(&range, base)).map(|row| EntryIndex(base + u64::from(row)));
            let wanted = limit - page.len();
            match order {
                Order::NewestFirst => page.extend(entries.rev().take(wanted)),
                Order::OldestFirst => page.extend(entries.take(wanted)),
            }
            Ok(if page.len() == limit { Next::Stop } else { Next::Go })
        });
        match visited {
            Ok(()) => Ok(page),
            Err(TallyError::Fault(fault)) => Err(fault),
            Err(TallyError::TooMany) => unreachable!("a page counts nothing"),
        }
    }
}

/// Rows by chunk.
type Candidates = BTreeMap<u32, RoaringBitmap>;

enum ChunkRef<'a> {
    Sealed(Sealed<'a>),
    Tail(&'a Tail),
}

enum Next {
    Go,
    Stop,
}

impl FrameIndex for SledIndex {
    fn indexed_to(&self) -> EntryIndex {
        let len = self.read().len();
        self.promised.fetch_max(len, Ordering::SeqCst);
        EntryIndex(len)
    }

    fn find_frame(&self, key: [u8; 16]) -> Result<Option<EntryIndex>, IndexError> {
        let state = self.read();
        let everywhere = 0..state.len();
        let rows = state.rows_of(Hashed::Frame, &key, &everywhere).map_err(|fault| self.fault(fault))?;
        if let Some((chunk, rows)) = rows.first_key_value() {
            let row = rows.min().expect("rows_of leaves out chunks without rows");
            return Ok(Some(EntryIndex(u64::from(*chunk) * u64::from(CHUNK_ROWS) + u64::from(row))));
        }
        let (done, total) = (state.len(), self.promised.load(Ordering::SeqCst));
        if done < total { Err(IndexError::Rebuilding { done, total }) } else { Ok(None) }
    }
}

impl DecisionIndex for SledIndex {
    fn apply(&self, first: EntryIndex, facts: &[Facts]) -> Result<(), IndexError> {
        let _follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let indexed_to = self.read().len();
        if first.0 != indexed_to {
            return Err(IndexError::Query(format!("the next entry to index is {indexed_to}, not {first}")));
        }
        let mut rest = facts;
        loop {
            if self.read().tail_len() == CHUNK_ROWS {
                self.seal().map_err(|fault| self.fault(fault))?;
            }
            if rest.is_empty() {
                return Ok(());
            }
            let mut state = self.write();
            let room = (CHUNK_ROWS - state.tail_len()) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()).min(ROWS_PER_LOCK));
            for facts in now {
                let facts = self.without_forgotten(state.len(), facts);
                state.tail.push(&facts, |hashed, value| self.hash(hashed, value));
                state.last_time = state.last_time.max(facts.time.map_or(NO_TIME, Instant::unix_nanos));
            }
            rest = later;
        }
    }

    fn tip(&self) -> Option<(EntryIndex, Blake3Digest)> {
        let state = self.read();
        let digest = state.tail.tip.or_else(|| state.heads.last().map(|head| head.tip))?;
        Some((EntryIndex(state.len() - 1), digest))
    }

    fn damaged(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start_over(&self, reason: &str) -> Result<(), IndexError> {
        let _follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.write();
        tracing::warn!(path = %self.path.display(), reason, "index thrown away; reading the log again");
        move_aside(&self.path).map_err(|error| storage(&self.path, error.to_string()))?;
        let generation = state.generation + 1;
        let fresh = State::open(&self.path, &self.key).map_err(|error| open_error(&self.path, error))?;
        *state = State { generation, ..fresh };
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn forget(&self, entries: &[EntryIndex], fields: &[PrivateField]) -> Result<(), IndexError> {
        let _follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        remove_aside(&self.path).map_err(|error| storage(&self.path, error.to_string()))?;
        self.try_forget(entries, fields).map_err(|fault| self.fault(fault))
    }

    fn page(
        &self,
        filter: &Filter,
        range: Range<u64>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<EntryIndex>, IndexError> {
        self.try_page(filter, range, order, limit.min(PAGE_ENTRIES_MAX)).map_err(|fault| self.fault(fault))
    }

    fn count(&self, filter: &Filter, by: CountBy) -> Result<Vec<CountCell>, IndexError> {
        if let Some(bucket) = by.bucket
            && bucket.width_nanos < BUCKET_NANOS_MIN
        {
            return Err(IndexError::Query("a bucket is at least one second wide".into()));
        }
        let (generation, len) = self.extent();
        let range = 0..len;
        let candidates = self.candidates(filter, &range).map_err(|fault| self.fault(fault))?;
        let mut tally = Tally::new(by);
        let visited = self.visit(generation, &range, Order::OldestFirst, candidates.as_ref(), |chunk, rows| {
            let candidates = candidates.as_ref().and_then(|candidates| candidates.get(&chunk));
            match rows {
                ChunkRef::Sealed(rows) => tally.add(rows, filter, candidates)?,
                ChunkRef::Tail(rows) => tally.add(*rows, filter, candidates)?,
            }
            Ok(Next::Go)
        });
        match visited {
            Ok(()) => Ok(tally.into_cells()),
            Err(TallyError::Fault(fault)) => Err(self.fault(fault)),
            Err(TallyError::TooMany) => Err(IndexError::Query(format!(
                "this makes more than {COUNT_CELLS_MAX} counts; use wider buckets, a shorter time or no groups"
            ))),
        }
    }

    fn last_counter(&self, line: &LineId, camera: &CameraId) -> Result<Option<u64>, IndexError> {
        let key = keys::camera(line, camera);
        let state = self.read();
        let stored = state.store.find(&key, codec_u64).map_err(|fault| self.fault(fault))?;
        Ok(match state.tail.counters.get(&key) {
            Some(counter) => Some(stands_at(stored, *counter)),
            None => stored,
        })
    }

    fn last_time(&self) -> Option<Instant> {
        Instant::from_unix_nanos(self.read().last_time).ok()
    }
}

impl State {
    fn open(path: &Path, key: &[u8; 32]) -> Result<Self, OpenError> {
        let store = Store::open(path)?;
        let read = Self::load(store, key);
        read.map_err(|fault| match fault {
            Fault::Disk(reason) => OpenError::Disk(io::Error::other(reason)),
            Fault::Damage(reason) => OpenError::Unusable(reason),
            Fault::OtherKey => OpenError::OtherKey,
        })
    }

    fn load(store: Store, key: &[u8; 32]) -> Result<Self, Fault> {
        let key_check = blake3::keyed_hash(key, b"lineproof index key");
        let manifest = match store.find(keys::FORMAT, codec_u32)? {
            None => {
                Manifest::default().save(&store)?;
                store.put(keys::KEY_CHECK, key_check.as_bytes())?;
                store.put(keys::FORMAT, &FORMAT_VERSION.to_le_bytes())?;
                store.sync()?;
                Manifest::default()
            }
            Some(FORMAT_VERSION) => {
                if !store.read(keys::KEY_CHECK, |bytes| Ok(bytes == key_check.as_bytes()))? {
                    return Err(Fault::OtherKey);
                }
                store.read(keys::MANIFEST, Manifest::decode)?
            }
            Some(other) => return Err(Fault::Damage(format!("it has format {other}, this release {FORMAT_VERSION}"))),
        };
        // A crash between the manifest and the removal leaves the merged chunks' own postings behind.
        if let Some(first) = manifest.merged.checked_sub(MERGE) {
            remove_merged(&store, first..manifest.merged)?;
        }
        let heads = (0..manifest.chunks)
            .map(|chunk| store.read(&keys::head(chunk), Head::decode).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let last_time = heads.iter().map(|head| head.last_time()).max().unwrap_or(NO_TIME);
        Ok(Self {
            store: Arc::new(store),
            heads,
            merged: manifest.merged,
            tail: Tail::default(),
            last_time,
            generation: 0,
        })
    }

    fn tail_len(&self) -> u32 {
        chunk::Rows::len(&self.tail)
    }

    /// Entries indexed.
    fn len(&self) -> u64 {
        self.heads.len() as u64 * u64::from(CHUNK_ROWS) + u64::from(self.tail_len())
    }

    /// Every row within the chunks of `range` that has this hash, by chunk.
    fn rows_of(&self, hashed: Hashed, hash: &Hash, range: &Range<u64>) -> Result<Candidates, Fault> {
        let mut found = Candidates::new();
        let chunks = self.heads.len() as u32;
        let merged = (0..self.merged).step_by(MERGE as usize).map(|first| (Level::Merged, first, MERGE));
        let single = (self.merged..chunks).map(|first| (Level::Chunk, first, 1));
        for (level, first, count) in merged.chain(single) {
            let start = u64::from(first) * u64::from(CHUNK_ROWS);
            let end = start + u64::from(count) * u64::from(CHUNK_ROWS);
            if range.start >= end || range.end <= start {
                continue;
            }
            let key = keys::postings(hashed, level, first, level.bucket_of(hash));
            let rows = self.store.read(&key, |bytes| {
                let rows = postings::find_in_bucket(bytes, hash)?;
                let fits = rows.last().is_none_or(|row| *row < count * CHUNK_ROWS);
                if fits { Ok(rows) } else { Err(Malformed("rows of the run")) }
            })?;
            for row in rows {
                found.entry(first + row / CHUNK_ROWS).or_default().insert(row % CHUNK_ROWS);
            }
        }
        let rows = self.tail.rows_of(hashed, hash);
        if !rows.is_empty() {
            found.insert(chunks, rows.into_iter().collect());
        }
        Ok(found)
    }
}

impl Manifest {
    fn save(self, store: &Store) -> Result<(), Fault> {
        store.put(keys::MANIFEST, &[self.chunks.to_le_bytes(), self.merged.to_le_bytes()].concat())?;
        store.sync()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = codec::Reader::new(bytes);
        let manifest = Self { chunks: reader.u32()?, merged: reader.u32()? };
        reader.end()?;
        let is_sound = manifest.merged <= manifest.chunks && manifest.merged.is_multiple_of(MERGE);
        if is_sound { Ok(manifest) } else { Err(Malformed("a manifest")) }
    }
}

fn remove_merged(store: &Store, chunks: Range<u32>) -> Result<(), Fault> {
    for hashed in Hashed::ALL {
        for chunk in chunks.clone() {
            store.remove_prefix(&keys::run(hashed, Level::Chunk, chunk))?;
        }
    }
    Ok(())
}

fn intersect(mut left: Candidates, right: &Candidates) -> Candidates {
    left.retain(|chunk, rows| {
        match right.get(chunk) {
            Some(other) => *rows &= other,
            None => rows.clear(),
        }
        !rows.is_empty()
    });
    left
}

/// The part of `range` that lies in the chunk beginning at `base`, as rows.
fn rows_within(range: &Range<u64>, base: u64) -> Range<u32> {
    let row = |index: u64| index.saturating_sub(base).min(u64::from(CHUNK_ROWS)) as u32;
    row(range.start)..row(range.end)
}

fn codec_u32(bytes: &[u8]) -> Result<u32, Malformed> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| Malformed("4 bytes"))
}

fn codec_u64(bytes: &[u8]) -> Result<u64, Malformed> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| Malformed("8 bytes"))
}

/// Renames the folder; only the last one that was moved aside is kept, so damage cannot fill the disk.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = remove_aside(path)?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Removes what was moved aside, and returns where it lay.
fn remove_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ASIDE);
    let aside = path.with_file_name(name);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(aside),
    }
}

fn storage(path: &Path, reason: String) -> IndexError {
    IndexError::Storage { path: path.display().to_string(), reason }
}

fn open_error(path: &Path, error: OpenError) -> IndexError {
    match error {
        OpenError::InUse => IndexError::InUse { path: path.display().to_string() },
        OpenError::Disk(error) => storage(path, error.to_string()),
        OpenError::Unusable(reason) => storage(path, reason),
        OpenError::OtherKey => storage(path, "it is keyed with another key".into()),
    }
}
