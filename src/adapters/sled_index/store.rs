//! Keys and values on disk: the only file that knows sled, and where sled's traps are fenced off.
//!
//! The traps, as we measured them with 0.34.7: `flush` does not fsync; a process killed while it writes its start-up
//! snapshot leaves a `snap.*.generating` that keeps the database from opening; a damaged file can panic inside `open`;
//! a locked and a damaged database give the same kind of error; disk space is not given back.

use std::{
    fs::{self, File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::codec::Malformed;

/// Memory sled may use for its page cache. The hot part of the index of ten million decisions is about this large.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// The database file that `flush` leaves unsynced.
const DB_FILE: &str = "db";

/// An open key-value store.
pub(super) struct Store {
    db: sled::Db,
    /// Our own handle on sled's file, to make a flush last.
    file: File,
}

#[derive(Debug)]
pub(super) enum OpenError {
    /// Another process has it open.
    InUse,
    /// The disk refuses; throwing the index away would not help.
    Disk(io::Error),
    /// It will not open: to be moved aside.
    Unusable(String),
    /// It is whole, and keyed with another key.
    OtherKey,
}

/// Why the index cannot answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The disk refused; the index may be well.
    Disk(String),
    /// What must be there is not, or does not read: the index has to be rebuilt.
    Damage(String),
    /// What it was keyed with is not the key it is opened with.
    OtherKey,
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Disk(error.to_string()),
            other => Self::Damage(other.to_string()),
        }
    }
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::Disk)?;
        refuse_if_locked(path)?;
        remove_half_snapshots(path).map_err(OpenError::Disk)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            // Nothing needs to last between two calls of `sync`.
            .flush_every_ms(None);
        let db = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(error))) if is_about_the_disk(&error) => return Err(OpenError::Disk(error)),
            Ok(Err(error)) => return Err(OpenError::Unusable(error.to_string())),
            Err(_) => return Err(OpenError::Unusable("sled panicked while it opened the database".into())),
        };
        let file = File::open(path.join(DB_FILE)).map_err(OpenError::Disk)?;
        Ok(Self { db, file })
    }

    /// Reads a value that may be absent.
    pub(super) fn find<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = unpanicked(|| self.db.get(key))? else { return Ok(None) };
        read(&value).map(Some).map_err(|Malformed(expected)| {
            Fault::Damage(format!("the value at {} is not {expected}", key.escape_ascii()))
        })
    }

    /// Reads a value that must be there: its absence is damage.
    pub(super) fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Result<T, Fault> {
        self.find(key, read)?.ok_or_else(|| Fault::Damage(format!("the value at {} is missing", key.escape_ascii())))
    }

    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        unpanicked(|| self.db.insert(key, value)).map(|_| ())
    }

    /// Removes every key that begins with `prefix`.
    pub(super) fn remove_prefix(&self, prefix: &[u8]) -> Result<(), Fault> {
        unpanicked(|| self.db.scan_prefix(prefix).keys().try_for_each(|key| self.db.remove(key?).map(|_| ())))
    }

    /// Makes everything put so far last through a power cut.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        unpanicked(|| self.db.flush())?;
        self.file.sync_data().map_err(|error| Fault::Disk(format!("fdatasync: {error}")))
    }
}

/// A page that sled does not expect makes it panic. The log's writer asks this index about every frame and must live on.
fn unpanicked<T>(work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result?),
        Err(_) => Err(Fault::Damage("sled panicked over what it found".into())),
    }
}

/// sled reports a locked and a damaged database alike, so the lock is tried first. It is the same `flock`.
pub(super) fn refuse_if_locked(path: &Path) -> Result<(), OpenError> {
    match File::open(path.join(DB_FILE)) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => Err(OpenError::Disk(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::Disk(error)),
    }
}

fn remove_half_snapshots(path: &Path) -> io::Result<()> {
    for file in fs::read_dir(path)? {
        let file = file?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

fn is_about_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}
