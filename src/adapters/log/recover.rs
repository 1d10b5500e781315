//! Opening: find out what an earlier process left, refuse to append if it does not fit together, and otherwise go the
//! same way as every integration does.

use std::{
    fs,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock, atomic::AtomicU64},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rayon::prelude::*;

use super::{
    FORMAT_FILE, FORMAT_PREFIX, FORMAT_VERSION, LogConfig, LogState, OpenError, Published, RecoveryReport, Shared,
    Signal, Tail, TailEntry, files,
    files::damaged,
    frames::{self, Frames, Known},
    integrate::{Integrator, check_bundle, read_hash_tile},
    lock_mutex, lock_write, reader, wal,
};
use crate::{
    core::lineage::{
        checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError, LogSigner},
        tiles::{BUNDLE_BYTES_MAX, RightEdge, TILE_WIDTH, Tile, TileHashes, TileKind, subtree_root, tiles_between},
        tree::{self, leaf_hash},
    },
    planted,
    ports::{
        index::FrameIndex,
        lineage::{ReadError, Receipt, SignedCheckpoint},
        sealer::Sealer,
    },
    types::{EntryIndex, Sha256Digest},
};

/// How long opening checks entry bundles, newest first. Whatever is left is checked while serving.
const CHECK_TIME: Duration = Duration::from_millis(1500);
/// Bundles that are checked between two looks at the clock: 8,192 entries, some 10 ms.
const CHECK_BUNDLES: u64 = 32;
/// While serving, the check rests this many times as long as it works.
const CHECK_REST: u32 = 4;

/// What was opened.
pub(super) struct Opened {
    pub report: RecoveryReport,
    /// Absent when the log is read-only.
    pub running: Option<Running>,
    /// Entries below this are to be checked in the background.
    pub unchecked: u64,
}

pub(super) struct Running {
    pub segment: wal::Segment,
    pub integrator: Integrator,
}

/// Why the log must not be appended to.
enum Refusal {
    /// What is on disk does not fit together.
    ReadOnly(String),
    Open(OpenError),
}

impl From<ReadError> for Refusal {
    /// Damage makes the log read-only; a disk that does not answer keeps it closed.
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { .. } | ReadError::NoEntry { .. } | ReadError::Size { .. } => {
                Self::ReadOnly(error.to_string())
            }
            ReadError::Io { .. } | ReadError::Index(_) => Self::Open(error.into()),
        }
    }
}

pub(super) fn open(
    config: LogConfig,
    signer: Arc<LogSigner>,
    sealer: Arc<dyn Sealer>,
    frame_index: Arc<dyn FrameIndex>,
    lock: fs::File,
    format_is_new: bool,
) -> Result<(Shared, Opened), OpenError> {
    for dir in [config.log_dir(), config.wal_dir(), config.private_dir()] {
        fs::create_dir_all(&dir).map_err(files::at(&dir))?;
    }
    let mut report = RecoveryReport::default();
    if is_untouched(&config)? {
        create(&config, &signer)?;
        report.created = true;
    }
    if format_is_new {
        let format = format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n");
        files::replace_durably(&config.data_dir.join(FORMAT_FILE), format.as_bytes())?;
    }
    let shared = Shared {
        config,
        signer,
        sealer,
        frame_index,
        state: RwLock::new(LogState::Serving),
        tail: RwLock::default(),
        frames: RwLock::default(),
        published: RwLock::new(Arc::new(Published { size: 0, checkpoint: None, edge: None })),
        signal: Mutex::new(Signal::default()),
        changed: Condvar::new(),
        filing: Mutex::default(),
        erasing: Mutex::default(),
        groups: AtomicU64::new(0),
        cache: reader::Cache::default(),
        _lock: lock,
    };
    let mut found = Found::look(&shared)?;
    let (running, unchecked) = match recover(&shared, &mut found, &mut report) {
        Ok((running, unchecked)) => (Some(running), unchecked),
        Err(Refusal::Open(error)) => return Err(error),
        Err(Refusal::ReadOnly(reason)) => {
            serve_what_there_is(&shared, &found);
            shared.refuse(&reason);
            report.read_only = Some(reason.into());
            (None, 0)
        }
    };
    report.size = shared.size();
    Ok((shared, Opened { report, running, unchecked }))
}

/// Whether there is no log yet: no anchor, no checkpoint, no tile, no write-ahead log.
fn is_untouched(config: &LogConfig) -> Result<bool, ReadError> {
    let tiles = config.log_dir().join("tile");
    Ok(!config.anchor.exists()
        && !config.checkpoint().exists()
        && !tiles.exists()
        && wal::segments(&config.wal_dir())?.into_iter().all(|first| first == 0 && holds_nothing(config)))
}

/// A crash while the log was made leaves an empty first segment.
fn holds_nothing(config: &LogConfig) -> bool {
    let path = wal::segment_path(&config.wal_dir(), 0);
    fs::metadata(path).is_ok_and(|file| file.len() <= wal::SEGMENT_HEADER_BYTES as u64)
}

/// Makes an empty log. The anchor comes last: before it is there, nothing was ever promised.
fn create(config: &LogConfig, signer: &LogSigner) -> Result<(), ReadError> {
    wal::Segment::create(&config.wal_dir(), 0, signer.name())?;
    let note = signer.sign(&Checkpoint::new(signer.name(), 0, tree::EMPTY_ROOT));
    files::sync_dir(&config.data_dir)?;
    files::replace_durably(&config.anchor, note.as_bytes())
}

/// The two checkpoints and the write-ahead log, read but not yet believed.
struct Found {
    anchor: Result<SignedCheckpoint, String>,
    /// `None` when there is no file.
    checkpoint: Option<Result<SignedCheckpoint, String>>,
    scans: Vec<wal::Scan>,
    wal_damage: Option<String>,
}

impl Found {
    fn look(shared: &Shared) -> Result<Self, OpenError> {
        let config = &shared.config;
        let Some(anchor) = read_checkpoint(shared, &config.anchor)? else {
            let (log, anchor) = (config.log_dir().display().to_string(), config.anchor.display().to_string());
            return Err(OpenError::AnchorMissing { log, anchor });
        };
        let checkpoint = read_checkpoint(shared, &config.checkpoint())?;
        let mut found = Self { anchor, checkpoint, scans: Vec::new(), wal_damage: None };
        found.read_wal(shared)?;
        Ok(found)
    }

    /// Reads segments until one is damaged or missing.
    fn read_wal(&mut self, shared: &Shared) -> Result<(), OpenError> {
        let dir = shared.config.wal_dir();
        let firsts = wal::segments(&dir)?;
        for first in &firsts {
            let path = wal::segment_path(&dir, *first);
            if let Some(found) = wal::version(&path)?.filter(|version| wal::is_newer(*version)) {
                return Err(OpenError::Newer { path: path.display().to_string(), found: found.to_string() });
            }
        }
        for (number, first) in firsts.iter().enumerate() {
            let scan = wal::scan(&dir, *first, shared.signer.name())?;
            let end = first + scan.records.len() as u64;
            let is_last = number + 1 == firsts.len();
            let gap = !is_last && end != firsts[number + 1];
            self.wal_damage = scan.damage.clone().or_else(|| {
                let missing =
                    format!("{}: entries from {end} on are missing", wal::segment_path(&dir, *first).display());
                gap.then_some(missing)
            });
            self.scans.push(scan);
            if self.wal_damage.is_some() {
                return Ok(());
            }
        }
        if firsts.is_empty() {
            self.wal_damage = Some(format!("{}: the write-ahead log is missing", dir.display()));
        }
        Ok(())
    }

    fn first(&self) -> u64 {
        self.scans.first().map_or(0, |scan| scan.first)
    }
}

/// A checkpoint file; `Ok(None)` when there is none, a sentence when it is none of ours.
#[allow(clippy::type_complexity, reason = "three outcomes, each used once")]
fn read_checkpoint(shared: &Shared, path: &Path) -> Result<Option<Result<SignedCheckpoint, String>>, OpenError> {
    let Some(bytes) = files::read(path, CHECKPOINT_BYTES_MAX)? else { return Ok(None) };
    let key = shared.signer.verifier_key();
    let read = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned()).and_then(|note| {
        let checkpoint = Checkpoint::open(&note, key).map_err(|error| match error {
            CheckpointError::OtherKey { .. } | CheckpointError::Origin { .. } => format!("\0{error}"),
            _ => error.to_string(),
        })?;
        Ok(SignedCheckpoint { size: checkpoint.size, root: checkpoint.root, note: note.into() })
    });
    match read {
        Err(reason) if reason.starts_with('\0') => {
            let note = files::read(path, CHECKPOINT_BYTES_MAX)?.unwrap_or_default();
            let origin = Checkpoint::peek(&String::from_utf8_lossy(&note)).map(|checkpoint| checkpoint.origin);
            match origin {
                // Its own name and another key: that is a key mix-up, and nothing was damaged.
                Ok(origin) => Err(OpenError::OtherLog {
                    path: path.display().to_string(),
                    found: format!("{origin}, signed with another key"),
                    expected: key.to_string(),
                }),
                Err(error) => Ok(Some(Err(format!("{}: {error}", path.display())))),
            }
        }
        other => Ok(Some(other.map_err(|reason| format!("{}: {reason}", path.display())))),
    }
}

/// The numbered steps of opening a log that exists.
fn recover(shared: &Shared, found: &mut Found, report: &mut RecoveryReport) -> Result<(Running, u64), Refusal> {
    // 1. Both checkpoints are ours, and the write-ahead log is whole.
    let anchor = found.anchor.clone().map_err(Refusal::ReadOnly)?;
    let checkpoint = found.checkpoint.clone().transpose().map_err(Refusal::ReadOnly)?;
    let anchor = checkpoint.clone().filter(|_| planted::has("forget-anchor")).unwrap_or(anchor);
    if let Some(damage) = found.wal_damage.take() {
        return Err(Refusal::ReadOnly(damage));
    }
    let first = found.first();
    // 2. Tiles from before the write-ahead log fit together and give the right edge.
    let mut edge = check_tiles(shared, first)?;
    let integrated_edge = edge.clone();
    // 3. The edge grows over the write-ahead log; on the way it must pass through both checkpoints.
    let torn = found.scans.last().map_or(0, |scan| scan.torn_bytes);
    let tail = load_tail(first, found);
    let end = tail.end();
    check_passes(shared, &mut edge, &tail, &anchor, checkpoint.as_ref())?;
    // 4. What cannot be written again from the write-ahead log is checked byte for byte, as far as time allows.
    let unchecked = check_newest_bundles(shared, first)?;
    // 5. Only now is anything written: the torn tail is cut, and the tiles are brought to the anchor and then to the end
    //    the way every integration does it.
    let scan = found.scans.last().expect("a whole write-ahead log has a segment");
    let segment = wal::Segment::resume(&shared.config.wal_dir(), scan)?;
    *lock_write(&shared.tail) = tail;
    let file_systems = files::FileSystems::of(&[shared.config.log_dir(), shared.config.private_dir()])?;
    let mut integrator =
        Integrator { edge: integrated_edge, anchored: anchor.clone(), retired: first, file_systems, rewritten: 0 };
    if checkpoint.as_ref() != Some(&anchor) && anchor.size > 0 {
        integrator.rewritten += 1;
    }
    integrator.integrate(shared, anchor.size, Some(anchor.clone()))?;
    if end > anchor.size {
        integrator.integrate(shared, end, None)?;
    }
    integrator.rewritten += heal_outgrown_partials(shared, first, end)?;
    let mut signal = lock_mutex(&shared.signal);
    (signal.durable, signal.published) = (end, end);
    drop(signal);
    // 6. Frames that the index does not know yet.
    load_frames(shared, end)?;
    report.recovered = end - anchor.size;
    report.torn_bytes = torn;
    report.rewritten_files = integrator.rewritten;
    report.checked = end - unchecked;
    Ok((Running { segment, integrator }, unchecked))
}

/// Reads every full hash tile of the first `size` entries and recomputes the levels above from the leaf hashes.
fn check_tiles(shared: &Shared, size: u64) -> Result<RightEdge, Refusal> {
    let roots: Vec<Sha256Digest> = (0..size / TILE_WIDTH)
        .into_par_iter()
        .map(|index| {
            let tile = Tile { kind: TileKind::Hashes(0), index, width: 256 };
            Ok(subtree_root(&read_hash_tile(shared, tile)?))
        })
        .collect::<Result<_, ReadError>>()?;
    let mut edge = RightEdge::default();
    let mut above: Vec<(Tile, Vec<Sha256Digest>)> = Vec::new();
    for root in roots {
        edge.push_full(root, |tile, hashes| above.push((tile, hashes)));
    }
    for (tile, hashes) in above {
        if read_hash_tile(shared, tile)? != hashes {
            let path = shared.config.log_dir().join(tile.path());
            return Err(damaged(&path, "it does not fit the tiles below it: one of them was changed").into());
        }
    }
    Ok(edge)
}

/// The records stay where they are: a log that turns out to be read-only is served from them, too.
fn load_tail(first: u64, found: &Found) -> Tail {
    let mut records: Vec<wal::Record> = found.scans.iter().flat_map(|scan| scan.records.iter().cloned()).collect();
    records.truncate(records.len() - usize::from(planted::has("drop-tail-at-recovery") && !records.is_empty()));
    let mut tail = Tail { first, ..Tail::default() };
    let entries: Vec<TailEntry> = records
        .into_par_iter()
        .map(|record| TailEntry { leaf: leaf_hash(&record.entry), entry: record.entry, sealed: record.sealed })
        .collect();
    entries.into_iter().for_each(|entry| tail.push(entry));
    tail
}

/// The log as it lies there must contain what the anchor and the checkpoint say (G16).
fn check_passes(
    shared: &Shared,
    edge: &mut RightEdge,
    tail: &Tail,
    anchor: &SignedCheckpoint,
    checkpoint: Option<&SignedCheckpoint>,
) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::ReadOnly(reason));
    let (first, end) = (tail.first, tail.end());
    let anchor_path = shared.config.anchor.display();
    if anchor.size > end {
        return refuse(format!(
            "the anchor {anchor_path} says that the log has {} entries, on disk are {end}: the log was truncated or rolled back to an older copy; bring the newest copy back",
            anchor.size
        ));
    }
    if anchor.size < first || checkpoint.is_some_and(|checkpoint| checkpoint.size > anchor.size) {
        return refuse(format!(
            "the anchor {anchor_path} covers {} entries, less than the log has published: the anchor was rolled back. If the log is known to be the newest copy, copy {} to it",
            anchor.size,
            shared.config.checkpoint().display()
        ));
    }
    let mut stops: Vec<(&str, &SignedCheckpoint)> = vec![("anchor", anchor)];
    stops.extend(checkpoint.map(|checkpoint| ("checkpoint", checkpoint)));
    stops.sort_by_key(|(_, stop)| stop.size);
    let mut entries = tail.entries.iter();
    for (name, stop) in stops {
        let root = if stop.size < first {
            // An older copy of the checkpoint alone: the tiles say what its root must be.
            tree::root(stop.size, &TileHashes::new(first, |tile: Tile| read_hash_tile(shared, tile)))?
        } else {
            while edge.size() < stop.size {
                edge.push(entries.next().expect("the anchor does not go beyond the tail").leaf, |_, _| {});
            }
            edge.root()
        };
        if root != stop.root {
            return refuse(format!(
                "the {} entries on disk lead to the root {root}, the signed {name} says {}: the log was edited, or replaced by a fork",
                stop.size, stop.root
            ));
        }
    }
    Ok(())
}

/// Checks bundles newest first until the time is up; returns below which entry nothing was checked.
fn check_newest_bundles(shared: &Shared, size: u64) -> Result<u64, Refusal> {
    let begun = Instant::now();
    let mut unchecked = size / TILE_WIDTH;
    while unchecked > 0 && begun.elapsed() < CHECK_TIME {
        let start = unchecked.saturating_sub(CHECK_BUNDLES);
        (start..unchecked).into_par_iter().try_for_each(|index| check_full_bundle(shared, index))?;
        unchecked = start;
    }
    Ok(unchecked * TILE_WIDTH)
}

fn check_full_bundle(shared: &Shared, index: u64) -> Result<(), ReadError> {
    check_bundle(shared, Tile { kind: TileKind::Entries, index, width: 256 })
}

/// Checks the bundles that opening had no time for; makes the log read-only when one was changed.
pub(super) fn check_in_background(shared: Arc<Shared>, unchecked: u64) -> JoinHandle<()> {
    let run = move || {
        crate::priority::stand_back();
        for index in (0..unchecked / TILE_WIDTH).rev() {
            let begun = Instant::now();
            if let Err(error) = check_full_bundle(&shared, index) {
                return shared.refuse(&error.to_string());
            }
            // Resting on the signal, so that closing does not wait.
            let rest = begun.elapsed() * CHECK_REST;
            let signal = lock_mutex(&shared.signal);
            let waited = shared.changed.wait_timeout_while(signal, rest, |signal| signal.finish.is_none());
            if waited.unwrap_or_else(PoisonError::into_inner).0.finish.is_some() {
                return;
            }
        }
        tracing::info!(entries = unchecked, "all entries of the log are checked");
    };
    std::thread::Builder::new().name("log-check".into()).spawn(run).expect("the system starts a thread at start-up")
}

/// Partial tiles of earlier checkpoints lie there unsynced, and a power cut may have torn them. They are the beginnings
/// of today's tiles, which were just read back. Returns how many were written again.
fn heal_outgrown_partials(shared: &Shared, first: u64, end: u64) -> Result<u64, ReadError> {
    let mut healed = 0;
    for tile in tiles_between(first, end).filter(|tile| !tile.is_full()) {
        let path = shared.config.log_dir().join(tile.path());
        let folder = path.parent().expect("a partial tile lies in a folder");
        let wide = files::read(&path, BUNDLE_BYTES_MAX)?.ok_or_else(|| damaged(&path, "the file is gone"))?;
        for item in fs::read_dir(folder).map_err(files::at(folder))? {
            let path = item.map_err(files::at(folder))?.path();
            let width = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(width) = width.filter(|width| (1..tile.width).contains(width)) else { continue };
            let narrow = Tile { width, ..tile }.beginning_of(&wide).ok_or_else(|| damaged(&path, "it is short"))?;
            if !files::read(&path, BUNDLE_BYTES_MAX).is_ok_and(|found| found.as_deref() == Some(narrow)) {
                files::replace(&path, narrow)?;
                healed += 1;
            }
        }
    }
    Ok(healed)
}

/// Remembers the frames of the entries that the index does not know.
fn load_frames(shared: &Shared, end: u64) -> Result<(), ReadError> {
    let mut known = Frames::default();
    let mut next = shared.frame_index.indexed_to().0.min(end);
    while next < end {
        let entries = shared.entries(next, end)?;
        let count = entries.len() as u64;
        let found: Vec<_> = entries
            .par_iter()
            .map(|entry| frames::frame_of(entry).map(|(key, encoded)| (key.hash16(), encoded, leaf_hash(entry))))
            .collect();
        for (index, (key, encoded, leaf_hash)) in (next..).zip(found).filter_map(|(i, frame)| Some((i, frame?))) {
            known.insert(key, Known { receipt: Receipt { index: EntryIndex(index), leaf_hash }, encoded });
        }
        next += count;
    }
    *lock_write(&shared.frames) = known;
    Ok(())
}

/// For a log that takes no entries: the best checkpoint there is, and whatever lies beyond it in the write-ahead log.
fn serve_what_there_is(shared: &Shared, found: &Found) {
    let checkpoint = match (&found.checkpoint, &found.anchor) {
        (Some(Ok(checkpoint)), _) => Some(checkpoint.clone()),
        (_, Ok(anchor)) => Some(anchor.clone()),
        _ => None,
    };
    let size = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    if !found.scans.is_empty() {
        let first = found.first();
        *lock_write(&shared.tail) = load_tail(first, found);
    }
    let mut tail = lock_write(&shared.tail);
    if tail.entries.is_empty() {
        tail.first = size;
    }
    drop(tail);
    *lock_write(&shared.published) = Arc::new(Published { size, checkpoint, edge: None });
}
