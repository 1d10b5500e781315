//! The keys of a data directory: the log's signing key, and the master key that everything sealed hangs on.
//!
//! `docs/spec/sealing.md` has the formats. Whoever loses `master.key` loses every archived image and every private
//! value; the log itself and its proofs stay readable. Whoever steals `log.skey` can sign another history, which the
//! anchor, a witness, or an auditor with an older checkpoint then exposes.

mod witness;
mod xaes;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

pub use self::witness::WitnessKey;
use self::xaes::XaesSealer;
use crate::{
    core::lineage::checkpoint::{KeyError, LogSigner},
    ports::sealer::Sealer,
};

/// The log's signing key, one line in the note format's `PRIVATE+KEY+<name>+<key id>+<base64>`.
const LOG_FILE: &str = "log.skey";
/// The master key, one line `LINEPROOF-MASTER-KEY-1+<check>+<base64>`.
const MASTER_FILE: &str = "master.key";
const LOG_PREFIX: &str = "PRIVATE+KEY+";
const MASTER_PREFIX: &str = "LINEPROOF-MASTER-KEY-1+";
/// Ed25519 in the note format.
const ALGORITHM_ED25519: u8 = 1;
/// Longest key file in bytes; both are about a hundred.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// What subkeys are derived for. A context is never used for two purposes and never changes.
mod context {
    pub const CHECK: &str = "lineproof 2026-11-23 master key check value";
    pub const IMAGES: &str = "lineproof 2026-11-23 wrapping of image pack keys";
    pub const PRIVATE: &str = "lineproof 2026-11-23 sealing of private values";
    pub const INDEX: &str = "lineproof 2026-11-23 keyed hashes in the index";
    pub const BACKUP: &str = "lineproof 2026-11-25 names of blobs in a backup";
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{path}: {reason}; `lineproof init` makes keys for a new data directory, lost ones come back from where you kept a copy (no backup holds them)", path = path.display())]
    Io { path: PathBuf, reason: io::Error },
    #[error("{path} exists already; keys are never overwritten", path = path.display())]
    Exists { path: PathBuf },
    #[error("{path} may be used by others than its owner (mode {mode:o}); run `chmod go= {path}`", path = path.display())]
    Mode { path: PathBuf, mode: u32 },
    /// Never names what is in the file.
    #[error("{path} is no {what}; bring it back from where you kept a copy (no backup holds keys)", path = path.display())]
    Format { path: PathBuf, what: &'static str },
    #[error(transparent)]
    Origin(#[from] KeyError),
}

/// The keys, held in memory that is wiped when they are dropped.
pub struct Keys {
    origin: String,
    log: Secret,
    master: Secret,
}

type Secret = Zeroizing<[u8; 32]>;

impl Keys {
    /// Makes new keys for a log called `origin` in `folder`, which may exist if it holds no keys. They are durable
    /// when this returns.
    ///
    /// # Errors
    /// [`KeysError`]; when it is [`KeysError::Exists`] or [`KeysError::Origin`], nothing was changed.
    pub fn create(folder: &Path, origin: &str) -> Result<Self, KeysError> {
        let keys = Self { origin: origin.to_owned(), log: random(), master: random() };
        // Refuses a bad name before anything is written.
        LogSigner::new(origin, &keys.log)?;
        keys.write(folder)?;
        Ok(keys)
    }

    /// Writes the keys to another folder, which must hold none.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn write(&self, folder: &Path) -> Result<(), KeysError> {
        for name in [LOG_FILE, MASTER_FILE] {
            let path = folder.join(name);
            if path.exists() {
                return Err(KeysError::Exists { path });
            }
        }
        let failed = |reason| KeysError::Io { path: folder.to_owned(), reason };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        write_secret(&folder.join(LOG_FILE), &self.log_line())?;
        write_secret(&folder.join(MASTER_FILE), &self.master_line())?;
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    /// Reads the keys in `folder`.
    ///
    /// # Errors
    /// [`KeysError`]: also when others than the owner may read or change them.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        check_mode(folder)?;
        let (log_path, master_path) = (folder.join(LOG_FILE), folder.join(MASTER_FILE));
        let (origin, log) = parse_log_line(&read_secret(&log_path)?)
            .ok_or(KeysError::Format { path: log_path, what: "log signing key `PRIVATE+KEY+…`" })?;
        let master = parse_master_line(&read_secret(&master_path)?)
            .ok_or(KeysError::Format { path: master_path, what: "master key `LINEPROOF-MASTER-KEY-1+…`" })?;
        LogSigner::new(&origin, &log)?;
        Ok(Self { origin, log, master })
    }

    /// Signs the log's checkpoints.
    #[must_use]
    pub fn log_signer(&self) -> LogSigner {
        LogSigner::new(&self.origin, &self.log).expect("the name was checked when the keys were made or read")
    }

    /// The log's public key as a C2SP vkey line.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        self.log_signer().verifier_key().to_string()
    }

    /// Seals private values.
    #[must_use]
    pub fn private_sealer(&self) -> Arc<dyn Sealer> {
        Arc::new(XaesSealer::new(&self.derive(context::PRIVATE)))
    }

    /// Seals the keys of image packs.
    #[must_use]
    pub fn image_sealer(&self) -> Arc<dyn Sealer> {
        Arc::new(XaesSealer::new(&self.derive(context::IMAGES)))
    }

    /// Keys the index's hashes of serial numbers and lots, so that a stolen index cannot be searched by guessing.
    #[must_use]
    pub fn index_key(&self) -> [u8; 32] {
        *self.derive(context::INDEX)
    }

    /// Keys the names of a backup's blobs, so that whoever keeps them cannot tell what they are.
    #[must_use]
    pub fn backup_key(&self) -> [u8; 32] {
        *self.derive(context::BACKUP)
    }

    fn derive(&self, context: &str) -> Secret {
        Zeroizing::new(blake3::derive_key(context, &*self.master))
    }

    fn log_line(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 33]);
        bytes[0] = ALGORITHM_ED25519;
        bytes[1..].copy_from_slice(&*self.log);
        let id = key_id(&self.log_signer());
        Zeroizing::new(format!(
            "{LOG_PREFIX}{}+{id:08x}+{}",
            self.origin,
            *Zeroizing::new(BASE64_STANDARD.encode(*bytes))
        ))
    }

    fn master_line(&self) -> Zeroizing<String> {
        let check = master_check(&self.master);
        Zeroizing::new(format!("{MASTER_PREFIX}{check}+{}", *Zeroizing::new(BASE64_STANDARD.encode(*self.master))))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.verifier_key())
    }
}

fn random() -> Secret {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret).expect("the operating system gives random bytes");
    secret
}

fn key_id(signer: &LogSigner) -> u32 {
    signed_note::Signer::key_id(signer)
}

/// Tells a mistyped or truncated master key from the right one, and tells nothing else about it.
fn master_check(master: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(&blake3::derive_key(context::CHECK, master)[..4])
}

fn parse_log_line(line: &str) -> Option<(String, Secret)> {
    let (name, rest) = line.strip_prefix(LOG_PREFIX)?.split_once('+')?;
    let (id, base64) = rest.split_once('+')?;
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(base64).ok()?);
    let (&ALGORITHM_ED25519, secret) = bytes.split_first()? else { return None };
    let secret: Secret = Zeroizing::new(secret.try_into().ok()?);
    let signer = LogSigner::new(name, &secret).ok()?;
    (format!("{:08x}", key_id(&signer)) == id).then(|| (name.to_owned(), secret))
}

fn parse_master_line(line: &str) -> Option<Secret> {
    let (check, base64) = line.strip_prefix(MASTER_PREFIX)?.split_once('+')?;
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(base64).ok()?);
    let master: Secret = Zeroizing::new(bytes.as_slice().try_into().ok()?);
    (master_check(&master) == check).then_some(master)
}

fn write_secret(path: &Path, line: &str) -> Result<(), KeysError> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => KeysError::Exists { path: path.to_owned() },
        _ => KeysError::Io { path: path.to_owned(), reason },
    })
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    check_mode(path)?;
    // Read into room that is large enough from the start: growing would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    let file = fs::File::open(path).map_err(|reason| KeysError::Io { path: path.to_owned(), reason })?;
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|reason| KeysError::Io { path: path.to_owned(), reason })?;
    let trimmed = text.trim_end().len();
    text.truncate(trimmed);
    Ok(text)
}

fn check_mode(path: &Path) -> Result<(), KeysError> {
    let metadata = fs::metadata(path).map_err(|reason| KeysError::Io { path: path.to_owned(), reason })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeysError::Mode { path: path.to_owned(), mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "lineproof.example/plant-1";

    fn created() -> (tempfile::TempDir, PathBuf, Keys) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys = Keys::create(&path, ORIGIN).unwrap();
        (folder, path, keys)
    }

    #[test]
    fn keys_read_back_as_they_were_made() {
        let (_folder, path, keys) = created();
        let opened = Keys::open(&path).unwrap();
        assert_eq!(opened.verifier_key(), keys.verifier_key());
        assert!(keys.verifier_key().starts_with(&format!("{ORIGIN}+")));
        assert_eq!(opened.index_key(), keys.index_key());
        let sealed = keys.private_sealer().seal(b"place", b"value");
        assert_eq!(opened.private_sealer().open(b"place", &sealed).unwrap(), b"value");
        assert!(opened.image_sealer().open(b"place", &sealed).is_err(), "subkeys differ by purpose");
    }

    #[test]
    fn the_signing_key_is_one_that_other_note_tools_read() {
        let (_folder, path, keys) = created();
        let line = fs::read_to_string(path.join(LOG_FILE)).unwrap();
        let signer = signed_note::StandardSigner::new(line.trim()).unwrap();
        let mut note = signed_note::Note::new(b"text\n", &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        let verifier = signed_note::StandardVerifier::new(&keys.verifier_key()).unwrap();
        let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        assert_eq!(note.verify(&known).unwrap().0.len(), 1);
    }

    #[test]
    fn only_the_owner_may_use_keys() {
        let (_folder, path, _keys) = created();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        for file in [path.join(LOG_FILE), path.join(MASTER_FILE)] {
            assert_eq!(mode(&file), 0o600);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            let error = Keys::open(&path).unwrap_err();
            assert!(matches!(error, KeysError::Mode { mode: 0o640, .. }), "{error}");
            assert!(error.to_string().contains("chmod go="), "{error}");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Keys::open(&path), Err(KeysError::Mode { mode: 0o750, .. })));
    }

    #[test]
    fn keys_are_never_overwritten_and_a_bad_name_leaves_nothing() {
        let (folder, path, keys) = created();
        assert!(matches!(Keys::create(&path, ORIGIN), Err(KeysError::Exists { .. })));
        assert_eq!(Keys::open(&path).unwrap().verifier_key(), keys.verifier_key());
        let other = folder.path().join("other");
        assert!(matches!(Keys::create(&other, "no spaces, no plus +"), Err(KeysError::Origin(_))));
        assert!(!other.exists());
    }

    #[test]
    fn the_vectors_of_the_sealing_page_hold() {
        let page = include_str!("../../docs/spec/sealing.md");
        let counting: Secret = Zeroizing::new(std::array::from_fn(|i| i as u8));
        let keys = Keys { origin: ORIGIN.into(), log: counting.clone(), master: counting };
        let hex = |key: &[u8]| data_encoding::HEXLOWER.encode(key);
        let lines = [
            keys.log_line().to_string(),
            keys.verifier_key(),
            keys.master_line().to_string(),
            format!("images   {}", hex(&*keys.derive(context::IMAGES))),
            format!("private  {}", hex(&*keys.derive(context::PRIVATE))),
            format!("index    {}", hex(&keys.index_key())),
            format!("backup   {}", hex(&keys.backup_key())),
        ];
        for line in lines {
            assert!(page.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_damaged_key_file_is_refused_without_showing_what_it_holds() {
        let (_folder, path, _keys) = created();
        for name in [LOG_FILE, MASTER_FILE] {
            let file = path.join(name);
            let whole = fs::read_to_string(&file).unwrap();
            // The 44 characters of base64, which may have a plus sign in them.
            let secret = whole.trim()[whole.trim().len() - 44..].to_owned();
            let swapped = if secret.starts_with('A') { "B" } else { "A" };
            let mistyped = whole.replace(&secret, &format!("{swapped}{}", &secret[1..]));
            for damaged in [String::new(), whole[..whole.len() / 2].to_owned(), mistyped, "x".repeat(5000)] {
                fs::write(&file, &damaged).unwrap();
                let error = Keys::open(&path).unwrap_err();
                assert!(matches!(error, KeysError::Format { .. }), "{error}");
                assert!(!error.to_string().contains(&secret[8..16]), "{error}");
            }
            fs::write(&file, &whole).unwrap();
        }
        Keys::open(&path).unwrap();
        fs::remove_file(path.join(MASTER_FILE)).unwrap();
        let error = Keys::open(&path).unwrap_err();
        assert!(error.to_string().contains("no backup holds them"), "{error}");
        assert!(std::error::Error::source(&error).is_none(), "what the system said would be printed twice");
    }
}
