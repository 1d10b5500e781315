//! How the authority's files are read and written: bounded, whole, durable, and private where they are secret.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// What others may do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody may read it.
    Public,
    /// Its owner alone.
    Secret,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Secret => 0o600,
        }
    }
}

/// A whole text file of at most `bytes_max`.
pub(super) fn read(path: &Path, bytes_max: u64) -> anyhow::Result<String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    let text = read().with_context(|| path.display().to_string())?;
    if text.len() as u64 > bytes_max {
        bail!("{}: it has more than {bytes_max} bytes", path.display());
    }
    Ok(text)
}

/// Puts a file in the place of another: after a crash there is the one or the other, whole.
pub(super) fn replace(path: &Path, text: &str, access: Access) -> anyhow::Result<()> {
    let write = || {
        let temporary = write_beside(path, text, access)?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().with_context(|| path.display().to_string())
}

/// Makes a file that must not be there yet: after a crash it is there whole, or not at all.
pub(super) fn create(path: &Path, text: &str, access: Access) -> anyhow::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };

    let write = || {
        let temporary = write_beside(path, text, access)?;
        let renamed = match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            // Some network file systems cannot refuse by themselves. The commands of one authority exclude each other.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !path.exists() => fs::rename(&temporary, path),
            other => other.map_err(io::Error::from),
        };
        if renamed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        renamed?;
        sync_folder(path)
    };
    write().with_context(|| path.display().to_string())
}

/// The name of a file while it is written.
fn write_beside(path: &Path, text: &str, access: Access) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.part"));
    // One that an interrupted run left may be readable for others.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(temporary)
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Whether others than its owner may read a file: the file systems of sticks know no owners.
pub(super) fn is_open_to_others(path: &Path) -> anyhow::Result<bool> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(metadata.permissions().mode() & 0o077 != 0)
}
