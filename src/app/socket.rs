//! The operator's socket: how commands on the server reach the service that runs on their data directory, whatever
//! address and certificates it serves the network with.
//!
//! It lies in the data directory and only its owner may use it. Who may open it could also read the keys beside it, so
//! it asks for no certificate. It answers questions and takes no frames.

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Its name below the data directory.
pub const FILE_NAME: &str = "office.sock";
/// The name it is made under, before its permissions are set.
const NEW_NAME: &str = "office.sock.new";

/// Listens. Call it only while holding the data directory's lock: what an earlier process left is removed.
///
/// # Errors
/// When the file system has no sockets, or the folder cannot be written.
pub fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let folder = Folder::open(data_dir)?;
    let new = folder.path(NEW_NAME);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    // Nobody knows the first name, so nobody connects before the permissions are right.
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, folder.path(FILE_NAME))?;
    Ok(listener)
}

/// A connection to the service that runs on a data directory; `None` when none runs.
///
/// # Errors
/// When a service listens that this user may not ask.
pub async fn connect(data_dir: &Path) -> io::Result<Option<UnixStream>> {
    let folder = Folder::open(data_dir)?;
    match UnixStream::connect(folder.path(FILE_NAME)).await {
        Ok(stream) => Ok(Some(stream)),
        // No socket, or one that an earlier process left.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the socket, while the data directory's lock is still held: a stopped data directory is plain files.
pub fn remove(data_dir: &Path) {
    // What stays is replaced at the next start.
    let _ = fs::remove_file(data_dir.join(FILE_NAME));
}

/// A folder by its descriptor: a socket's path has at most 107 bytes, and data directories may lie deeper.
struct Folder(fs::File);

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        fs::File::open(path).map(Self)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_is_reached_through_its_folder_however_deep_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&data).unwrap();
        assert!(connect(&data).await.unwrap().is_none());
        let listener = listen(&data).unwrap();
        assert_eq!(fs::metadata(data.join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(connect(&data).await.unwrap().is_some());
        drop(listener);
        assert!(connect(&data).await.unwrap().is_none(), "an old socket is nobody");
        let _listener = listen(&data).unwrap();
        assert!(connect(&data).await.unwrap().is_some(), "it was replaced");
    }
}
