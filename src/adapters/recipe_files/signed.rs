//! A recipe folder held against the signature beside it, each file as it was read.
//!
//! A file that the caller needs is read once, into memory, and those bytes are checked: there is no second look at the disk at
//! which it could be another file. Everything else in the folder is only hashed.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use sha2::Digest as _;

use crate::{
    core::model_signature::{
        self, Differences, IGNORED, Manifest, PublicKey, RESOURCES_MAX, ResourceName, SIGNATURE_BYTES_MAX,
        SIGNATURE_FILE, SignatureError, Signed, SigningKey, short,
    },
    types::Sha256Digest,
};

/// All that is read of one folder, in bytes: eight of the largest models.
const FOLDER_BYTES_MAX: u64 = 8 << 30;
/// Read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a folder is not what somebody vouched for, or cannot be vouched for.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error(
        "not signed: no {SIGNATURE_FILE} in {folder}; whoever may release models signs it with `lineproof model sign {folder} --key KEY.pem`",
        folder = .0.display()
    )]
    Unsigned(PathBuf),
    #[error("{path}: {source}; have the folder signed again, or restore the file", path = .path.display())]
    Signature { path: PathBuf, source: SignatureError },
    #[error(
        "{folder} is not what key {} signed: {differences}; restore it, or release and sign a new version",
        short(*.signer),
        folder = .folder.display()
    )]
    Changed { folder: PathBuf, signer: Sha256Digest, differences: Box<Differences> },
    #[error(
        "{path} is no part of what key {} signed, but the recipe needs it; sign the folder with nothing left out",
        short(*.signer),
        path = .path.display()
    )]
    NotCovered { path: PathBuf, signer: Sha256Digest },
    #[error("{} is a link, and no signature vouches for where it leads; put the file in its place", .0.display())]
    Link(PathBuf),
    #[error("{} is neither a file nor a folder; remove it", .0.display())]
    Special(PathBuf),
    #[error("{} has a name that is not UTF-8; rename it", .0.display())]
    Name(PathBuf),
    #[error("{} has more than {RESOURCES_MAX} files or folders; a recipe folder has a few", .0.display())]
    TooMany(PathBuf),
    #[error("{} has more than {FOLDER_BYTES_MAX} bytes; a recipe folder has fewer", .0.display())]
    TooLarge(PathBuf),
    #[error("{path} is longer than {bytes_max} bytes", path = .path.display())]
    FileTooLarge { path: PathBuf, bytes_max: u64 },
    #[error("the files cannot be signed: {0}")]
    Unsignable(SignatureError),
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A folder whose signature holds, and what of it was found as signed so far.
#[derive(Debug)]
pub struct SignedFolder {
    folder: PathBuf,
    signed: Signed,
    found: BTreeMap<ResourceName, Sha256Digest>,
}

impl SignedFolder {
    /// Reads the signature and verifies it by one of `keys`. Nothing is said of the files yet.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(folder: &Path, keys: &[PublicKey]) -> Result<Self, FolderError> {
        let path = folder.join(SIGNATURE_FILE);
        let bytes = match read(&path, SIGNATURE_BYTES_MAX as u64) {
            Err(FolderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::Unsigned(folder.to_owned()));
            }
            read => read?,
        };
        let signed = model_signature::open(&bytes, keys).map_err(|source| FolderError::Signature { path, source })?;
        Ok(Self { folder: folder.to_owned(), signed, found: BTreeMap::new() })
    }

    /// The bytes of one file, if they are those that were signed.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn read(&mut self, file: &str, bytes_max: u64) -> Result<Vec<u8>, FolderError> {
        let path = self.folder.join(file);
        let name: ResourceName = file.parse().map_err(|_| FolderError::Name(path.clone()))?;
        let bytes = read(&path, bytes_max)?;
        let digest = Sha256Digest::of(&bytes);
        let manifest = &self.signed.manifest;
        match manifest.files.get(&name) {
            Some(signed) if *signed == digest => {}
            Some(_) => return Err(self.changed(Differences { altered: vec![name], ..Differences::default() })),
            None if manifest.ignores(&name) => {
                return Err(FolderError::NotCovered { path, signer: self.signed.signer });
            }
            None => return Err(self.changed(Differences { added: vec![name], ..Differences::default() })),
        }
        self.found.insert(name, digest);
        Ok(bytes)
    }

    /// Holds all that was not read yet against the signature, too.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn finish(self) -> Result<Signed, FolderError> {
        let found = digests(&self.folder, &self.signed.manifest, &self.found)?;
        let differences = self.signed.manifest.differences(&found);
        if differences.is_none() { Ok(self.signed) } else { Err(self.changed(differences)) }
    }

    fn changed(&self, differences: Differences) -> FolderError {
        let (folder, signer) = (self.folder.clone(), self.signed.signer);
        FolderError::Changed { folder, signer, differences: Box::new(differences) }
    }
}

/// Signs every file of a folder and writes the signature into it, whole or not at all, durably; what was there before is gone.
///
/// The new file is written beside the folder and then gets its place in one step: a crash leaves the folder as it was, and
/// nothing in it that was not signed.
///
/// # Errors
/// [`FolderError`].
pub fn sign(folder: &Path, key: &SigningKey) -> Result<Signed, FolderError> {
    let named = fs::canonicalize(folder).map_err(io_error(folder))?;
    let ignored = IGNORED.into_iter().chain([SIGNATURE_FILE]).map(|name| name.parse().expect("a name"));
    let mut manifest = Manifest { name: file_name(&named), ignored: ignored.collect(), ..Manifest::default() };
    manifest.files = digests(&named, &manifest, &BTreeMap::new())?;
    let bytes = model_signature::sign(&manifest, key).map_err(FolderError::Unsignable)?;
    // What is written is what verifies.
    let signed = model_signature::open(&bytes, &[key.public()]).map_err(FolderError::Unsignable)?;

    let parent = named.parent().unwrap_or(&named);
    let new = parent.join(format!(".{}.{SIGNATURE_FILE}.{}", file_name(&named), std::process::id()));
    let write = || {
        let mut file = fs::File::create_new(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, named.join(SIGNATURE_FILE))?;
        fs::File::open(&named)?.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&new);
        FolderError::Io { path: named.join(SIGNATURE_FILE), source }
    })?;
    Ok(signed)
}

/// Every file below a folder that is part of it; of those in `known`, the digest that their reader found.
fn digests(
    folder: &Path,
    manifest: &Manifest,
    known: &BTreeMap<ResourceName, Sha256Digest>,
) -> Result<BTreeMap<ResourceName, Sha256Digest>, FolderError> {
    let mut found = BTreeMap::new();
    let (mut folders, mut folders_seen, mut bytes_left) = (vec![folder.to_owned()], 1, FOLDER_BYTES_MAX);
    while let Some(path) = folders.pop() {
        for entry in fs::read_dir(&path).map_err(io_error(&path))? {
            let entry = entry.map_err(io_error(&path))?;
            let path = entry.path();
            let below = path.strip_prefix(folder).ok().and_then(Path::to_str);
            let name: ResourceName =
                below.and_then(|name| name.parse().ok()).ok_or_else(|| FolderError::Name(path.clone()))?;
            if manifest.ignores(&name) || name.as_str() == SIGNATURE_FILE {
                continue;
            }
            let kind = entry.file_type().map_err(io_error(&path))?;
            if kind.is_symlink() {
                return Err(FolderError::Link(path));
            } else if kind.is_dir() {
                folders_seen += 1;
                folders.push(path);
            } else if !kind.is_file() {
                return Err(FolderError::Special(path));
            } else {
                let digest = match known.get(&name) {
                    Some(digest) => *digest,
                    None => digest(&path, &mut bytes_left)?.ok_or_else(|| FolderError::TooLarge(folder.to_owned()))?,
                };
                found.insert(name, digest);
            }
            if found.len() > RESOURCES_MAX || folders_seen > RESOURCES_MAX {
                return Err(FolderError::TooMany(folder.to_owned()));
            }
        }
    }
    Ok(found)
}

/// The digest of a file of at most `bytes_left` bytes, which get fewer by them.
pub(super) fn digest(path: &Path, bytes_left: &mut u64) -> Result<Option<Sha256Digest>, FolderError> {
    let mut file = open(path)?.take(*bytes_left + 1);
    let (mut hasher, mut chunk) = (sha2::Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let read = file.read(&mut chunk).map_err(io_error(path))?;
        if read == 0 {
            return Ok(Some(Sha256Digest(hasher.finalize().into())));
        }
        let Some(left) = bytes_left.checked_sub(read as u64) else { return Ok(None) };
        *bytes_left = left;
        hasher.update(&chunk[..read]);
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FolderError> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(FolderError::FileTooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

/// A file itself and nothing else: whatever was put in its place since its folder was listed, a link is not followed and a
/// pipe not waited for.
fn open(path: &Path) -> Result<fs::File, FolderError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            return Err(FolderError::Link(path.to_owned()));
        }
        opened => opened.map_err(io_error(path))?,
    };
    if file.metadata().map_err(io_error(path))?.is_file() {
        Ok(file)
    } else {
        Err(FolderError::Special(path.to_owned()))
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> FolderError {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
