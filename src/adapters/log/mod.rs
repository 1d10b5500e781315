//! The lineage log on disk: one writer makes entries durable, one integrator puts them into tiles and signs checkpoints
//! over them, readers prove. Layout and crash story are in `docs/spec/log.md`.

use std::{
    collections::VecDeque,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

pub mod copy;
mod erase;
mod files;
mod frames;
pub mod fsck;
mod integrate;
mod private;
mod reader;
mod recover;
mod reseal;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

pub use reader::LogStoreReader;

use crate::{
    core::lineage::{
        checkpoint::LogSigner,
        tiles::{RightEdge, TILE_WIDTH},
    },
    ports::{
        archive::ImageArchive,
        index::FrameIndex,
        lineage::{Append, AppendError, Appended, Done, LogWriter, ReadError, Receipt, SignedCheckpoint},
        sealer::Sealer,
    },
    types::{Blake3Digest, FrameKey, Sha256Digest},
};

/// Appends that wait for the writer before [`LogWriter::submit`] waits too.
const QUEUE_APPENDS_MAX: usize = 4096;
/// Durable entries that may wait for their checkpoint before the writer waits; a second's worth at 65,536 a second.
const PENDING_ENTRIES_MAX: usize = 65_536;
/// The same in bytes.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// The version of the data directory that this release writes, in the file [`FORMAT_FILE`].
const FORMAT_VERSION: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "lineproof-data ";
const LOCK_FILE: &str = "lock";

/// Told the reason when the log stops.
pub type OnStop = Arc<dyn Fn(&str) + Send + Sync>;

/// How long a checkpoint that was asked for waits for the integrator after a full disk has room again.
const FULL_AGAIN: Duration = Duration::from_secs(2);

/// Where the log lies and how it behaves.
#[derive(Clone)]
pub struct LogConfig {
    pub data_dir: PathBuf,
    /// The last checkpoint this host signed; best on another volume.
    pub anchor: PathBuf,
    /// Below this many free bytes nothing is appended (G10).
    pub disk_reserve_bytes: u64,
    /// Called once when a write or a sync failed: the process should say so and end.
    pub on_stop: Option<OnStop>,
}

impl LogConfig {
    /// The log below `data_dir`, with the anchor beside it.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            anchor: data_dir.join("anchor"),
            disk_reserve_bytes: 256 << 20,
            on_stop: None,
        }
    }

    fn log_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    fn wal_dir(&self) -> PathBuf {
        self.data_dir.join("wal")
    }

    fn private_dir(&self) -> PathBuf {
        self.data_dir.join("private")
    }

    fn checkpoint(&self) -> PathBuf {
        self.log_dir().join("checkpoint")
    }

    /// An erasure that is under way.
    fn erasing(&self) -> PathBuf {
        self.data_dir.join("erasing")
    }
}

/// Why the log was not opened at all. A log that is damaged is opened, read-only.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {path} is in use by another process; stop it first")]
    InUse { path: String },
    #[error(
        "{path} was written by a newer release (format {found}, this one knows {FORMAT_VERSION}); use that release, nothing was read or changed"
    )]
    Newer { path: String, found: String },
    #[error(
        "the log in {log} has entries but the anchor {anchor} is missing. Without it a rollback could not be seen. Bring the anchor back from its volume or backup; if this log is known to be the newest, copy {log}/checkpoint to {anchor}"
    )]
    AnchorMissing { log: String, anchor: String },
    #[error("the log in {path} belongs to {found}, the configured key is {expected}; use the key it was made with")]
    OtherLog { path: String, found: String, expected: String },
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// The log was made just now.
    pub created: bool,
    /// Entries in the log.
    pub size: u64,
    /// Entries that were durable but not yet covered by a checkpoint.
    pub recovered: u64,
    /// Bytes of an unacknowledged group that were cut off.
    pub torn_bytes: u64,
    /// Tiles or checkpoints that were missing or torn and were written again from the write-ahead log.
    pub rewritten_files: u64,
    /// Entries whose bytes were checked against their tiles before opening; the others are checked in the background.
    pub checked: u64,
    /// Why the log takes no entries.
    pub read_only: Option<Arc<str>>,
}

/// Whether the log takes entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogState {
    Serving,
    /// What is on disk does not fit together; reads go on.
    ReadOnly(Arc<str>),
    /// A write or a sync failed.
    Stopped(Arc<str>),
    /// [`LogHandle::shutdown`] was called.
    Closed,
}

impl LogState {
    fn refusal(&self) -> Option<AppendError> {
        match self {
            Self::Serving => None,
            Self::ReadOnly(reason) => Some(AppendError::ReadOnly(reason.clone())),
            Self::Stopped(reason) => Some(AppendError::Stopped(reason.clone())),
            Self::Closed => Some(AppendError::Closed),
        }
    }
}

/// A durable entry that is kept in memory: its bundle is not full yet, or not published.
#[derive(Clone, Debug)]
struct TailEntry {
    entry: Arc<[u8]>,
    leaf: Sha256Digest,
    sealed: Arc<[u8]>,
}

/// The newest entries, from the start of the last bundle that is not both full and published.
#[derive(Debug, Default)]
struct Tail {
    first: u64,
    entries: VecDeque<TailEntry>,
    bytes: usize,
}

impl Tail {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn push(&mut self, entry: TailEntry) {
        self.bytes += entry.entry.len() + entry.sealed.len();
        self.entries.push_back(entry);
    }

    fn get(&self, index: u64) -> Option<&TailEntry> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Gives an entry another private record, if the entry is here.
    fn reseal(&mut self, index: u64, sealed: &Arc<[u8]>) {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            self.bytes = self.bytes - entry.sealed.len() + sealed.len();
            entry.sealed = sealed.clone();
        }
    }

    fn range(&self, start: u64, end: u64) -> Vec<TailEntry> {
        (start..end).map(|index| self.get(index).expect("unpublished entries are in the tail").clone()).collect()
    }

    /// Forgets the bundles that are full and published.
    fn drop_below(&mut self, published: u64) {
        let keep = published / TILE_WIDTH * TILE_WIDTH;
        while self.first < keep {
            let entry = self.entries.pop_front().expect("the tail reaches to the published size");
            self.bytes -= entry.entry.len() + entry.sealed.len();
            self.first += 1;
        }
    }
}

/// The log as its last checkpoint describes it.
struct Published {
    size: u64,
    /// Absent only when no checkpoint could be read.
    checkpoint: Option<SignedCheckpoint>,
    /// Absent when the log is read-only: partial tiles are then read from their files.
    edge: Option<RightEdge>,
}

/// What the integrator waits for, and what others wait for of it.
#[derive(Default)]
struct Signal {
    /// Entries that are durable.
    durable: u64,
    /// Entries that are published.
    published: u64,
    /// Someone waits for a checkpoint over this many entries.
    wanted: u64,
    /// The integrator waits for room on the disk.
    is_full: bool,
    /// The writer is gone: publish what is durable if it closed in order, then end.
    finish: Option<Finish>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Publish,
    Leave,
}

/// Everything the threads and handles of one open log share.
struct Shared {
    config: LogConfig,
    signer: Arc<LogSigner>,
    sealer: Arc<dyn Sealer>,
    frame_index: Arc<dyn FrameIndex>,
    state: RwLock<LogState>,
    tail: RwLock<Tail>,
    frames: RwLock<frames::Frames>,
    published: RwLock<Arc<Published>>,
    signal: Mutex<Signal>,
    changed: Condvar,
    /// Held by whoever moves private records from place to place: an integration, an erasure.
    filing: Mutex<()>,
    /// Held over a whole erasure.
    erasing: Mutex<()>,
    /// Groups made durable since the log was opened.
    groups: AtomicU64,
    cache: reader::Cache,
    /// Held while the log is open.
    _lock: File,
}

/// No value under these locks is ever left half-changed by a panic, so a poisoned lock is as good as another.
fn lock_read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock_write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock_mutex<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn state(&self) -> LogState {
        lock_read(&self.state).clone()
    }

    fn published(&self) -> Arc<Published> {
        lock_read(&self.published).clone()
    }

    /// Why so many free bytes are too few (G10).
    fn below_reserve(&self, free_bytes: u64) -> Option<AppendError> {
        let reserve_bytes = self.config.disk_reserve_bytes;
        let path = || self.config.data_dir.display().to_string();
        (free_bytes < reserve_bytes).then(|| AppendError::DiskReserve { path: path(), free_bytes, reserve_bytes })
    }

    /// Takes no more entries, for good. The first reason stands.
    fn stop(&self, reason: &str) {
        let first = {
            let mut state = lock_write(&self.state);
            let first = !matches!(*state, LogState::Stopped(_));
            if first {
                *state = LogState::Stopped(reason.into());
            }
            first
        };
        self.wake();
        if first {
            tracing::error!(reason, "log stopped");
            if let Some(on_stop) = &self.config.on_stop {
                on_stop(reason);
            }
        }
    }

    /// Takes no more entries because of what was found on disk; reads go on.
    fn refuse(&self, reason: &str) {
        {
            let mut state = lock_write(&self.state);
            if matches!(*state, LogState::Serving) {
                *state = LogState::ReadOnly(reason.into());
            }
        }
        self.wake();
        tracing::error!(reason, "log is read-only");
    }

    /// Wakes whoever waits for the signal or the state. Taking the lock makes sure that nobody is between looking and
    /// waiting.
    fn wake(&self) {
        let _signal = lock_mutex(&self.signal);
        self.changed.notify_all();
    }
}

enum Command {
    Append(Box<writer::Prepared>, Answer),
    Rewrite(erase::Job),
    Shutdown,
}

/// Calls a `done` exactly once, also when the append is dropped unseen: by a send that crosses the writer's end, or by
/// a panic.
struct Answer(Option<Done>);

impl Answer {
    fn give(mut self, outcome: Result<Appended, AppendError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(AppendError::Closed));
        }
    }
}

/// The threads of an open log. When the last handle goes without [`LogHandle::shutdown`], they end without a last
/// checkpoint, as if the process had been killed.
struct Threads {
    queue: Mutex<Option<SyncSender<Command>>>,
    joins: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.join(None);
    }
}

impl Threads {
    fn join(&self, last: Option<Command>) {
        let queue = lock_mutex(&self.queue).take();
        if let (Some(queue), Some(last)) = (&queue, last) {
            // Only a writer that is gone already refuses this.
            let _ = queue.send(last);
        }
        drop(queue);
        let joins = std::mem::take(&mut *lock_mutex(&self.joins));
        // The last handle may have lived in a `done`: the writer must not wait for itself, nor for the integrator, which
        // waits for it.
        if joins.iter().any(|join| join.thread().id() == std::thread::current().id()) {
            return;
        }
        for join in joins {
            if join.join().is_err() {
                self.shared
                    .stop("a thread of the log panicked, which is a defect; its message is in the log of the service");
            }
        }
    }
}

/// Opens the log.
pub struct LogStore;

impl LogStore {
    /// Opens the log below `config.data_dir`, making it if there is none, and recovers whatever an earlier process left.
    /// A log whose files do not fit together is opened read-only, with the reason in the report.
    ///
    /// # Errors
    /// [`OpenError`] when it must not or cannot be opened at all.
    pub fn open(
        config: LogConfig,
        signer: Arc<LogSigner>,
        sealer: Arc<dyn Sealer>,
        archive: Arc<dyn ImageArchive>,
        frame_index: Arc<dyn FrameIndex>,
    ) -> Result<(LogHandle, LogStoreReader, RecoveryReport), OpenError> {
        fs::create_dir_all(&config.data_dir).map_err(files::at(&config.data_dir))?;
        let lock = take_lock(&config.data_dir)?;
        let format_is_new = check_format(&config.data_dir)?;
        let (shared, opened) = recover::open(config, signer, sealer, frame_index, lock, format_is_new)?;
        let shared = Arc::new(shared);
        let mut joins = Vec::new();
        let queue = match opened.running {
            None => None,
            Some(running) => {
                let (sender, receiver) = sync_channel(QUEUE_APPENDS_MAX);
                joins.push(writer::spawn(shared.clone(), archive, running.segment, receiver));
                joins.push(integrate::spawn(shared.clone(), running.integrator));
                Some(sender)
            }
        };
        if opened.report.read_only.is_none() && opened.unchecked > 0 {
            joins.push(recover::check_in_background(shared.clone(), opened.unchecked));
        }
        let threads = Threads { queue: Mutex::new(queue.clone()), joins: Mutex::new(joins), shared: shared.clone() };
        let handle = LogHandle { threads: Arc::new(threads), shared: shared.clone() };
        Ok((handle, LogStoreReader::new(shared), opened.report))
    }
}

fn take_lock(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(files::at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: data_dir.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(files::at(&path)(error).into()),
    }
}

/// Refuses a data directory of a newer release before anything else of it is read. True when there is no format file.
///
/// # Errors
/// [`OpenError::Newer`], or that the file says nothing of the kind.
pub fn check_format(data_dir: &Path) -> Result<bool, OpenError> {
    let path = data_dir.join(FORMAT_FILE);
    let Some(bytes) = files::read(&path, 256)? else { return Ok(true) };
    let text = String::from_utf8_lossy(&bytes);
    let found = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.strip_suffix('\n')).unwrap_or_default();
    match found.parse::<u32>() {
        Ok(1..=FORMAT_VERSION) => Ok(false),
        Ok(version) if version > FORMAT_VERSION => {
            Err(OpenError::Newer { path: path.display().to_string(), found: found.to_owned() })
        }
        _ => Err(files::damaged(&path, format_args!("\"{FORMAT_PREFIX}{FORMAT_VERSION}\" was expected")).into()),
    }
}

/// The writing side of an open log. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    threads: Arc<Threads>,
    shared: Arc<Shared>,
}

impl LogHandle {
    /// Whether the log takes entries, and if not, why.
    #[must_use]
    pub fn state(&self) -> LogState {
        self.shared.state()
    }

    /// Entries that are durable.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.size()
    }

    /// Groups made durable since the log was opened, each with one fdatasync: entries by groups say how much is shared.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.shared.groups.load(Ordering::Relaxed)
    }

    /// Makes everything submitted before this call durable and answered, publishes a last checkpoint, and ends the
    /// threads. Later submits get [`AppendError::Closed`]. Reading goes on.
    pub fn shutdown(&self) {
        self.threads.join(Some(Command::Shutdown));
        let mut state = lock_write(&self.shared.state);
        if matches!(*state, LogState::Serving) {
            *state = LogState::Closed;
        }
    }
}

impl LogWriter for LogHandle {
    fn submit(&self, append: Append, done: Done) {
        if let Some(refusal) = self.shared.state().refusal() {
            return done(Err(refusal));
        }
        let prepared = match writer::Prepared::new(&*self.shared.sealer, append) {
            Ok(prepared) => Box::new(prepared),
            Err(reason) => return done(Err(AppendError::Invalid(reason))),
        };
        let done = Answer(Some(done));
        let queue = lock_mutex(&self.threads.queue).clone();
        let refused = match queue {
            None => Some(done),
            Some(queue) => match queue.send(Command::Append(prepared, done)) {
                Ok(()) => None,
                Err(refused) => match refused.0 {
                    Command::Append(_, done) => Some(done),
                    Command::Rewrite(_) | Command::Shutdown => unreachable!("an append was sent"),
                },
            },
        };
        if let Some(done) = refused {
            done.give(Err(self.shared.state().refusal().unwrap_or(AppendError::Closed)));
        }
    }

    fn refusal(&self) -> Option<AppendError> {
        let free_bytes = files::free_bytes(&self.shared.config.data_dir).ok();
        self.shared.state().refusal().or_else(|| self.shared.below_reserve(free_bytes?))
    }

    fn find_frame(&self, key: &FrameKey) -> Result<Option<(Receipt, Blake3Digest)>, ReadError> {
        let known = self.shared.find_frame(key)?;
        Ok(known.map(|known| (known.receipt, known.encoded)))
    }

    fn checkpoint_now(&self) -> Result<(), AppendError> {
        let wanted = self.size();
        let mut has_waited = false;
        let mut signal = lock_mutex(&self.shared.signal);
        signal.wanted = signal.wanted.max(wanted);
        self.shared.changed.notify_all();
        while signal.published < wanted {
            if let Some(refusal) = self.shared.state().refusal() {
                return Err(refusal);
            }
            if signal.is_full {
                drop(signal);
                if let Some(refusal) = self.refusal() {
                    return Err(refusal);
                }
                if has_waited {
                    return Err(AppendError::Stopped("the disk is full".into()));
                }
                // There is room again, and the integrator tries again four times a second.
                has_waited = true;
                signal = lock_mutex(&self.shared.signal);
                let waited = self.shared.changed.wait_timeout_while(signal, FULL_AGAIN, |signal| signal.is_full);
                signal = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            signal = self.shared.changed.wait(signal).unwrap_or_else(PoisonError::into_inner);
        }
        drop(signal);
        self.shared.state().refusal().map_or(Ok(()), Err)
    }
}
