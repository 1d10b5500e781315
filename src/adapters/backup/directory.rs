//! A backup store that is a folder: another disk, or a mounted share.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::ports::backup::{BlobStore, StoreError, Stored};

/// Calls under way at a time: sealing keeps one core busy while another call waits for the disk.
const CALLS_AT_ONCE: usize = 2;

/// The folder.
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, place: &str) -> PathBuf {
        self.root.join(place)
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let place = path.display().to_string();
    move |error| StoreError::Failed { place: place.clone(), reason: error.to_string() }
}

impl BlobStore for DirectoryStore {
    fn put(&self, place: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(place);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(failed(&path))
    }

    fn settle(&self) -> Result<(), StoreError> {
        let root = File::open(&self.root).map_err(failed(&self.root))?;
        rustix::fs::syncfs(&root).map_err(|error| failed(&self.root)(error.into()))
    }

    fn get(&self, place: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(place);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(failed(&path))?;
        if bytes.len() as u64 > max {
            return Err(StoreError::TooLong { place: path.display().to_string(), max });
        }
        Ok(Some(bytes))
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>, StoreError> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.path(&folder);
            let items = match fs::read_dir(&path) {
                Ok(items) => items,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path)(error)),
            };
            for item in items {
                let item = item.map_err(failed(&path))?;
                let metadata = item.metadata().map_err(failed(&path))?;
                // A name that is no text is not one of ours.
                let Ok(name) = item.file_name().into_string() else { continue };
                let place = format!("{folder}/{name}");
                if metadata.is_dir() {
                    folders.push(place);
                } else {
                    found.push(Stored { place, bytes: metadata.len() });
                }
            }
        }
        Ok(found)
    }

    fn remove(&self, place: &str) -> Result<(), StoreError> {
        let path = self.path(place);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => Ok(()),
        }
    }

    fn calls_at_once(&self) -> usize {
        CALLS_AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_listed_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(&folder.path().join("store"));
        assert_eq!(store.get("blobs/a", 10).unwrap(), None);
        assert_eq!(store.list("blobs").unwrap(), []);
        store.put("blobs/aa/one", b"first").unwrap();
        store.put("blobs/aa/one", b"second").unwrap();
        store.settle().unwrap();
        assert_eq!(store.get("blobs/aa/one", 6).unwrap().unwrap(), b"second");
        assert!(matches!(store.get("blobs/aa/one", 5), Err(StoreError::TooLong { max: 5, .. })));
        assert_eq!(store.list("blobs").unwrap(), [Stored { place: "blobs/aa/one".into(), bytes: 6 }]);
        store.remove("blobs/aa/one").unwrap();
        store.remove("blobs/aa/one").unwrap();
        assert_eq!(store.list("blobs").unwrap(), []);
    }
}
