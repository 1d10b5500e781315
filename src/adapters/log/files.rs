//! The few ways in which the log touches files: whole, bounded, and with the path in every error.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{planted, ports::lineage::ReadError};

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.display().to_string();
    move |source| ReadError::Io { path, source }
}

/// A sync that failed. Whatever the reason, it does not count as a full disk: a write may be tried again, a sync never.
fn sync_failed(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let at = at(path);
    move |error| at(io::Error::other(format!("not synced: {error}")))
}

/// Whether a write failed only because there was no room; the file that should have been written is not there then.
pub(super) fn is_full(error: &ReadError) -> bool {
    let full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    matches!(error, ReadError::Io { source, .. } if full(source.kind()))
}

/// Free bytes of the file system that holds a folder.
pub(super) fn free_bytes(dir: &Path) -> Result<u64, ReadError> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| at(dir)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub(super) fn damaged(path: &Path, reason: impl ToString) -> ReadError {
    ReadError::Damaged { place: path.display().to_string(), reason: reason.to_string() }
}

/// A whole file of at most `bytes_max`; `None` when there is none.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, ReadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    // Room for the whole file at once: growing would copy a bundle several times.
    let length = file.metadata().map_err(at(path))?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_or(bytes_max, |length| length.min(bytes_max)) + 1);
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(at(path))?;
    if bytes.len() > bytes_max {
        return Err(damaged(path, format_args!("it has more than {bytes_max} bytes")));
    }
    Ok(Some(bytes))
}

/// Puts a file in place whole or not at all. Readers never see half of it; a power cut may still lose it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReadError> {
    let temporary = write_beside(path, bytes)?.0;
    fs::rename(&temporary, path).map_err(at(path))
}

/// Puts a file in place whole or not at all, durably: bytes, then name.
pub(super) fn replace_durably(path: &Path, bytes: &[u8]) -> Result<(), ReadError> {
    let (temporary, file) = write_beside(path, bytes)?;
    file.sync_all().map_err(sync_failed(&temporary))?;
    fs::rename(&temporary, path).map_err(at(path))?;
    sync_dir(parent(path))
}

/// Like [`replace_durably`], but after a power cut the name may still lead to the previous file, which was durable.
pub(super) fn replace_soundly(path: &Path, bytes: &[u8]) -> Result<(), ReadError> {
    let (temporary, file) = write_beside(path, bytes)?;
    file.sync_all().map_err(sync_failed(&temporary))?;
    fs::rename(&temporary, path).map_err(at(path))
}

/// Like [`replace_durably`], and then writes zeroes over the file that was there before its room is given back. On a
/// medium that writes in place that leaves nothing of it; flash keeps old pages until it needs them.
pub(super) fn replace_and_wipe(path: &Path, bytes: &[u8]) -> Result<(), ReadError> {
    let old = File::options().write(true).open(path).map_err(at(path))?;
    replace_durably(path, bytes)?;
    wipe(&old).map_err(sync_failed(path))
}

fn wipe(file: &File) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let length = file.metadata()?.len();
    let mut at = 0;
    while at < length {
        let take = usize::try_from(length - at).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
        file.write_all_at(&ZEROES[..take], at)?;
        at += take as u64;
    }
    file.sync_data()
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<(PathBuf, File), ReadError> {
    let mut name = path.file_name().expect("a file of the log has a name").to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let create = || File::create(&temporary);
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(parent(path)).map_err(at(parent(path)))?;
            create()
        }
        other => other,
    }
    .map_err(at(&temporary))?;
    file.write_all(bytes).map_err(at(&temporary))?;
    Ok((temporary, file))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn sync_dir(path: &Path) -> Result<(), ReadError> {
    if planted::has("skip-directory-sync") {
        return Ok(());
    }
    File::open(path).map_err(at(path))?.sync_all().map_err(sync_failed(path))
}

/// The file systems that hold these directories, to be synced as a whole.
pub(super) struct FileSystems(Vec<(PathBuf, File)>);

impl FileSystems {
    /// Opened before anything is written, so that every later write error is reported to [`Self::sync`].
    pub fn of(dirs: &[PathBuf]) -> Result<Self, ReadError> {
        let mut found: Vec<(PathBuf, File)> = Vec::new();
        let mut devices = Vec::new();
        for dir in dirs {
            let file = File::open(dir).map_err(at(dir))?;
            let device = file.metadata().map_err(at(dir))?.dev();
            if !devices.contains(&device) {
                devices.push(device);
                found.push((dir.clone(), file));
            }
        }
        Ok(Self(found))
    }

    /// Makes everything that was written to them durable, names included: syncfs, one flush of the disk where syncing
    /// two hundred files and their directories takes as many.
    pub fn sync(&self) -> Result<(), ReadError> {
        self.0
            .iter()
            .try_for_each(|(dir, file)| rustix::fs::syncfs(file).map_err(|error| sync_failed(dir)(error.into())))
    }
}

/// Removes a file that is known to be there no longer than until now.
pub(super) fn remove(path: &Path) -> Result<(), ReadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
