//! Models of every recipe that was ever in use, each under its digest, so that its decisions can be decided again.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    core::model::MODEL_BYTES_MAX,
    ports::models::{KeptModels, ModelStoreError},
    types::Blake3Digest,
};

/// The folder's name in a data directory.
pub const FOLDER: &str = "kept-models";

/// What is kept; its files' ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Model,
    /// The image that a recipe compares frames with.
    Template,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Model, Self::Template];

    fn extension(self) -> &'static str {
        match self {
            Self::Model => "onnx",
            Self::Template => "template",
        }
    }
}

/// `<folder>/<64 hex>.onnx`, and `.template`.
#[derive(Clone, Debug)]
pub struct ModelStore {
    folder: PathBuf,
}

impl ModelStore {
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a model or a template, durably, before the first decision made with it. A file that is there already is not written again; one
    /// that was cut or changed is. A crash leaves at most a file with another ending, which the next call overwrites.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, kind: Kind, digest: Blake3Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(kind, digest);
        if read(&path).is_ok_and(|found| Blake3Digest::of(&found) == digest) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let temporary = path.with_extension("new");
        if let Err(error) = write(&temporary, bytes) {
            // A part of a model on a full disk helps nobody.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &path)?;
        fs::File::open(&self.folder)?.sync_all()?;
        // The folder itself, when this is its first file.
        self.folder.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
    }

    /// Every kept file, and whether it has the digest in its name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn check(&self) -> io::Result<Vec<(PathBuf, bool)>> {
        let mut files = Vec::new();
        for kind in Kind::ALL {
            files.extend(digest_names(&self.folder, kind.extension())?);
        }
        Ok(files)
    }

    fn path(&self, kind: Kind, digest: Blake3Digest) -> PathBuf {
        self.folder.join(format!("{}.{}", digest.hex(), kind.extension()))
    }

    fn find(&self, kind: Kind, digest: Blake3Digest) -> Result<Option<Arc<[u8]>>, ModelStoreError> {
        let path = self.path(kind, digest);
        match read(&path) {
            Ok(bytes) => Ok((Blake3Digest::of(&bytes) == digest).then(|| bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ModelStoreError::Io { path: path.display().to_string(), source }),
        }
    }
}

impl KeptModels for ModelStore {
    fn model(&self, digest: Blake3Digest) -> Result<Option<Arc<[u8]>>, ModelStoreError> {
        self.find(Kind::Model, digest)
    }

    fn template(&self, digest: Blake3Digest) -> Result<Option<Arc<[u8]>>, ModelStoreError> {
        self.find(Kind::Template, digest)
    }
}

/// The files of one folder that are named by the BLAKE3 of their bytes, and whether they have it. A folder that is not there
/// has none.
///
/// # Errors
/// When the folder or a file cannot be read.
pub fn digest_names(folder: &Path, extension: &str) -> io::Result<Vec<(PathBuf, bool)>> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for item in listed {
        let path = item?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(fs::File::open(&path)?)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((path, hasher.finalize().to_hex().as_str() == name));
        }
    }
    files.sort();
    Ok(files)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Longer files are cut, and then have another digest.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MODEL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_its_digest_and_a_changed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::new(folder.path().join(FOLDER));
        let model = b"a model".to_vec();
        let digest = Blake3Digest::of(&model);
        assert!(store.model(digest).unwrap().is_none());
        store.keep(Kind::Model, digest, &model).unwrap();
        assert_eq!(store.model(digest).unwrap().as_deref(), Some(&model[..]));
        let path = store.path(Kind::Model, digest);
        fs::write(&path, b"a m0del").unwrap();
        assert!(store.model(digest).unwrap().is_none(), "never another model than was asked for");
        store.keep(Kind::Model, digest, &model).unwrap();
        assert_eq!(store.model(digest).unwrap().as_deref(), Some(&model[..]), "a changed file is written again");
        fs::write(&path, b"a mod").unwrap();
        assert_eq!(store.check().unwrap(), [(path.clone(), false)]);
        store.keep(Kind::Model, digest, &model).unwrap();
        assert_eq!(store.check().unwrap(), [(path, true)]);
        assert_eq!(store.model(digest).unwrap().as_deref(), Some(&model[..]), "a cut file is written again");
    }
}
