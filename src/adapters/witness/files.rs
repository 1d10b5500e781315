//! The few ways in which witnessing touches files.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use crate::{core::lineage::checkpoint::CHECKPOINT_BYTES_MAX, ports::witness::MemoryError};

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> MemoryError {
    let path = path.display().to_string();
    move |error| MemoryError::Io { path, reason: error.to_string().into() }
}

/// A note of at most the longest checkpoint's bytes; `None` when there is no file.
pub(super) fn read_note(path: &Path) -> Result<Option<String>, MemoryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let mut note = String::new();
    file.take(CHECKPOINT_BYTES_MAX as u64 + 1).read_to_string(&mut note).map_err(at(path))?;
    Ok(Some(note))
}

/// Puts a note in place whole or not at all. After a power cut the name may still lead to the note before.
pub(super) fn replace(path: &Path, note: &str) -> Result<(), MemoryError> {
    let mut name = path.file_name().expect("a note's file has a name").to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()
    };
    write().map_err(at(&temporary))?;
    fs::rename(&temporary, path).map_err(at(path))
}

/// The same, and durable when it returns: bytes, then name, then the directory that holds the name.
pub(super) fn replace_durably(path: &Path, note: &str) -> Result<(), MemoryError> {
    replace(path, note)?;
    let dir = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// Waits for, and holds, the lock that a file stands for. It ends with the file, also when the process is killed.
pub(super) fn lock(path: &Path) -> Result<File, MemoryError> {
    let open = || {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(at(path))
}
