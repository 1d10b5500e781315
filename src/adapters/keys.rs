//! The keys of a data directory: the log's signing key, and the master key that everything sealed hangs on.
//!
//! `docs/spec/sealing.md` has the formats. Whoever loses `master.key` loses every archived image and every private
//! value; the log itself and its proofs stay readable. Whoever steals `log.skey` can sign another history, which the
//! anchor, a witness, or an auditor with an older checkpoint then exposes.

mod keyring;
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
use self::{keyring::Keyring, xaes::XaesSealer};
use crate::{
    core::lineage::checkpoint::{Checkpoint, KeyError, LogSigner},
    ports::sealer::Sealer,
};

/// The log's signing key, and behind it the one that comes next, if it was announced: one line each in the note format's `PRIVATE+KEY+<name>+<key id>+<base64>`.
const LOG_FILE: &str = "log.skey";
/// The master key, and below it older ones that still open what they sealed: a line `LINEPROOF-MASTER-KEY-1+<check>+<base64>`
/// each.
const MASTER_FILE: &str = "master.key";
const LOG_PREFIX: &str = "PRIVATE+KEY+";
const MASTER_PREFIX: &str = "LINEPROOF-MASTER-KEY-1+";
/// Ed25519 in the note format.
const ALGORITHM_ED25519: u8 = 1;
/// Longest key file in bytes; both are about a hundred.
const KEY_FILE_BYTES_MAX: u64 = 4096;
/// Master keys at a time: each is tried when something does not open.
const MASTERS_MAX: usize = 2;

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
    #[error("a next key is announced already: {vkey}; `lineproof keys retire` ends the time of the current one")]
    Announced { vkey: String },
    #[error("no next key is announced; `lineproof keys rotate` makes one")]
    NotAnnounced,
    #[error("the master key before is still there; `lineproof keys retire sealing` destroys it first")]
    Masters,
    #[error(transparent)]
    Origin(#[from] KeyError),
}

/// The keys, held in memory that is wiped when they are dropped.
pub struct Keys {
    origin: String,
    log: Secret,
    next: Option<Secret>,
    /// The newest first.
    masters: Vec<Secret>,
}

type Secret = Zeroizing<[u8; 32]>;

/// A signing key that was made and is not kept yet.
pub struct NextKey {
    origin: String,
    secret: Secret,
}

/// A master key that was made and is not kept yet.
pub struct NextMaster(Secret);

impl NextMaster {
    /// What it calls itself in public.
    #[must_use]
    pub fn check(&self) -> String {
        master_check(&self.0)
    }
}

impl NextKey {
    /// Its vkey line.
    #[must_use]
    pub fn vkey(&self) -> String {
        let signer = LogSigner::new(&self.origin, &self.secret);
        signer.expect("the name was checked when the keys were read").verifier_key().to_string()
    }
}

impl Keys {
    /// Makes new keys for a log called `origin` in `folder`, which may exist if it holds no keys. They are durable
    /// when this returns.
    ///
    /// # Errors
    /// [`KeysError`]; when it is [`KeysError::Exists`] or [`KeysError::Origin`], nothing was changed.
    pub fn create(folder: &Path, origin: &str) -> Result<Self, KeysError> {
        let keys = Self { origin: origin.to_owned(), log: random(), next: None, masters: vec![random()] };
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
        write_secret(&folder.join(LOG_FILE), &self.log_lines())?;
        write_secret(&folder.join(MASTER_FILE), &self.master_lines())?;
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
        let (origin, log, next) = parse_log_lines(&read_secret(&log_path)?)
            .ok_or(KeysError::Format { path: log_path, what: "log signing key `PRIVATE+KEY+…`" })?;
        let masters = parse_master_lines(&read_secret(&master_path)?)
            .ok_or(KeysError::Format { path: master_path, what: "master key `LINEPROOF-MASTER-KEY-1+…`" })?;
        LogSigner::new(&origin, &log)?;
        Ok(Self { origin, log, next, masters })
    }

    /// Makes the key that will sign the log's checkpoints after the current one; it is nowhere on the disk yet.
    ///
    /// # Errors
    /// [`KeysError::Announced`] when there is one.
    pub fn prepare(&self) -> Result<NextKey, KeysError> {
        match self.announced_key() {
            Some(vkey) => Err(KeysError::Announced { vkey }),
            None => Ok(NextKey { origin: self.origin.clone(), secret: random() }),
        }
    }

    /// Keeps a key that was prepared: from the next start on it signs beside the current one. Durable when this returns.
    ///
    /// # Errors
    /// [`KeysError::Announced`] when there is one; then, and on any other error, nothing was changed.
    pub fn announce(&mut self, next: NextKey, folder: &Path) -> Result<(), KeysError> {
        if let Some(vkey) = self.announced_key() {
            return Err(KeysError::Announced { vkey });
        }
        self.next = Some(next.secret);
        replace_secret(&folder.join(LOG_FILE), &self.log_lines()).inspect_err(|_| self.next = None)
    }

    /// Puts the announced key in the place of the current one, which is destroyed. Durable when this returns.
    ///
    /// # Errors
    /// [`KeysError::NotAnnounced`], or what the disk says; whole lines of the one file or of the other are there then.
    pub fn retire(&mut self, folder: &Path) -> Result<(), KeysError> {
        let Some(next) = self.next.take() else { return Err(KeysError::NotAnnounced) };
        self.log = next;
        replace_secret(&folder.join(LOG_FILE), &self.log_lines())
    }

    /// The keys as the log has them. Where its newest checkpoint, `note`, is signed by the announced key and not by the
    /// current one, the announced one has taken its place, and the folder is a copy from before.
    #[must_use]
    pub fn as_of(mut self, note: &str) -> Self {
        let signed = |secret| {
            let signer = LogSigner::new(&self.origin, secret).expect("the name was checked when the keys were read");
            Checkpoint::open(note, signer.verifier_key()).is_ok()
        };
        if self.next.as_ref().is_some_and(|next| signed(next)) && !signed(&self.log) {
            self.log = self.next.take().expect("it was there a moment ago");
        }
        self
    }

    /// Signs the log's checkpoints, beside it the next key if one is announced.
    #[must_use]
    pub fn log_signer(&self) -> LogSigner {
        let signer =
            |secret| LogSigner::new(&self.origin, secret).expect("the name was checked when the keys were read");
        let current = signer(&self.log);
        match &self.next {
            Some(next) => current.with_next(signer(next)),
            None => current,
        }
    }

    /// The vkey line of the key that comes next.
    #[must_use]
    pub fn announced_key(&self) -> Option<String> {
        let signer =
            |secret| LogSigner::new(&self.origin, secret).expect("the name was checked when the keys were read");
        self.next.as_ref().map(|next| signer(next).verifier_key().to_string())
    }

    /// The log's public key as a C2SP vkey line.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        self.log_signer().verifier_key().to_string()
    }

    /// What each master key calls itself in public, the newest first: the check value in its line.
    #[must_use]
    pub fn master_checks(&self) -> Vec<String> {
        self.masters.iter().map(|master| master_check(master)).collect()
    }

    /// Makes a master key that seals from the next start on, and is nowhere on the disk yet.
    #[must_use]
    pub fn prepare_master() -> NextMaster {
        NextMaster(random())
    }

    /// Keeps a master key that was prepared, before the others. Durable when this returns.
    ///
    /// # Errors
    /// [`KeysError::Masters`], or what the disk says.
    pub fn add_master(&mut self, next: NextMaster, folder: &Path) -> Result<(), KeysError> {
        if self.masters.len() >= MASTERS_MAX {
            return Err(KeysError::Masters);
        }
        self.masters.insert(0, next.0);
        replace_secret(&folder.join(MASTER_FILE), &self.master_lines()).inspect_err(|_| drop(self.masters.remove(0)))
    }

    /// Destroys all master keys but the newest. What they sealed must be sealed anew before.
    ///
    /// # Errors
    /// What the disk says; whole lines of the one file or of the other are there then.
    pub fn retire_masters(&mut self, folder: &Path) -> Result<(), KeysError> {
        self.masters.truncate(1);
        replace_secret(&folder.join(MASTER_FILE), &self.master_lines())
    }

    /// Seals private values under the newest master key, and opens what any of them sealed.
    #[must_use]
    pub fn private_sealer(&self) -> Arc<dyn Sealer> {
        Arc::new(self.keyring(context::PRIVATE))
    }

    /// Seals the keys of image packs, as [`Self::private_sealer`] does private values.
    #[must_use]
    pub fn image_sealer(&self) -> Arc<dyn Sealer> {
        Arc::new(self.keyring(context::IMAGES))
    }

    /// Under the newest master key alone: seals private values.
    #[must_use]
    pub fn newest_private_sealer(&self) -> Arc<dyn Sealer> {
        Arc::new(XaesSealer::new(&self.derive(context::PRIVATE)))
    }

    /// Under the newest master key alone: seals the keys of image packs.
    #[must_use]
    pub fn newest_image_sealer(&self) -> Arc<dyn Sealer> {
        Arc::new(XaesSealer::new(&self.derive(context::IMAGES)))
    }

    fn keyring(&self, context: &str) -> Keyring {
        let key = |master: &Secret| XaesSealer::new(&Zeroizing::new(blake3::derive_key(context, &**master)));
        Keyring::new(self.masters.iter().map(key))
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
        Zeroizing::new(blake3::derive_key(context, &*self.masters[0]))
    }

    /// The current key, and the next one below it.
    fn log_lines(&self) -> Zeroizing<String> {
        let current = log_line(&self.origin, &self.log);
        match &self.next {
            Some(next) => Zeroizing::new(format!("{}\n{}", *current, *log_line(&self.origin, next))),
            None => current,
        }
    }

    fn master_lines(&self) -> Zeroizing<String> {
        let mut lines = Zeroizing::new(String::with_capacity(MASTERS_MAX * 128));
        for master in &self.masters {
            let check = master_check(master);
            let line = if lines.is_empty() { "" } else { "\n" };
            lines.push_str(line);
            lines.push_str(&format!("{MASTER_PREFIX}{check}+"));
            lines.push_str(&Zeroizing::new(BASE64_STANDARD.encode(**master)));
        }
        lines
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.verifier_key())
    }
}

fn log_line(origin: &str, secret: &Secret) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 33]);
    bytes[0] = ALGORITHM_ED25519;
    bytes[1..].copy_from_slice(&**secret);
    let id = key_id(&LogSigner::new(origin, secret).expect("the name was checked when the keys were read"));
    Zeroizing::new(format!("{LOG_PREFIX}{origin}+{id:08x}+{}", *Zeroizing::new(BASE64_STANDARD.encode(*bytes))))
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

/// The origin, the current key, and the next one: two keys of one log that differ.
fn parse_log_lines(text: &str) -> Option<(String, Secret, Option<Secret>)> {
    let mut lines = text.lines();
    let (origin, log) = parse_log_line(lines.next()?)?;
    let next = match lines.next() {
        None => None,
        Some(line) => {
            let (name, next) = parse_log_line(line)?;
            (name == origin && *next != *log).then_some(())?;
            Some(next)
        }
    };
    lines.next().is_none().then_some((origin, log, next))
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

/// One to [`MASTERS_MAX`] keys, of which no two are the same.
fn parse_master_lines(text: &str) -> Option<Vec<Secret>> {
    let keys: Vec<Secret> = text.lines().map(parse_master_line).collect::<Option<_>>()?;
    let is_twice = keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key));
    ((1..=MASTERS_MAX).contains(&keys.len()) && !is_twice).then_some(keys)
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

/// Puts another text in the place of a secret's, whole or not at all and durably; then the old bytes are overwritten.
fn replace_secret(path: &Path, text: &str) -> Result<(), KeysError> {
    let temporary = path.with_extension("tmp");
    let replace = || {
        // What a crash left holds secrets, too.
        if temporary.exists() {
            wipe(&mut fs::OpenOptions::new().write(true).open(&temporary)?)?;
            fs::remove_file(&temporary)?;
        }
        let mut old = fs::OpenOptions::new().write(true).open(path)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        wipe(&mut old)
    };
    replace().map_err(|reason| KeysError::Io { path: path.to_owned(), reason })
}

fn wipe(file: &mut fs::File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len().min(KEY_FILE_BYTES_MAX)).expect("a few kilobytes");
    file.write_all(&vec![0; length])?;
    file.sync_all()
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
    fn a_next_key_is_announced_beside_the_current_one_and_takes_its_place() {
        let (_folder, path, mut keys) = created();
        let first = keys.verifier_key();
        assert!(matches!(keys.retire(&path), Err(KeysError::NotAnnounced)));
        let mut keys = Keys::open(&path).unwrap();
        let made = keys.prepare().unwrap();
        assert_eq!(Keys::open(&path).unwrap().announced_key(), None);
        keys.announce(made, &path).unwrap();
        assert!(matches!(keys.prepare(), Err(KeysError::Announced { .. })));
        let copy = Keys::open(&path).unwrap();
        let mut opened = Keys::open(&path).unwrap();
        let second = opened.announced_key().unwrap();
        assert_eq!((opened.verifier_key(), &second), (first.clone(), &keys.announced_key().unwrap()));
        assert_ne!(first, second);
        opened.retire(&path).unwrap();
        let opened = Keys::open(&path).unwrap();
        assert_eq!((opened.verifier_key(), opened.announced_key()), (second, None));
        assert_eq!(fs::metadata(path.join(LOG_FILE)).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!path.join("log.tmp").exists());
        // A copy from before is taken for what the log says it is.
        let checkpoint = Checkpoint::new(ORIGIN, 0, crate::core::lineage::tree::EMPTY_ROOT);
        let of_both = copy.log_signer().sign(&checkpoint);
        let copy = copy.as_of(&of_both);
        assert_eq!(copy.verifier_key(), first);
        let copy = copy.as_of(&opened.log_signer().sign(&checkpoint));
        assert_eq!((copy.verifier_key(), copy.announced_key()), (opened.verifier_key(), None));
        // Two lines of which one is of another log, or the same twice, are no key file.
        let line = fs::read_to_string(path.join(LOG_FILE)).unwrap();
        let other = log_line("other.example/log", &random());
        for wrong in [format!("{line}{line}"), format!("{line}{}\n", *other), format!("{line}\n{}\n", *other)] {
            fs::write(path.join(LOG_FILE), wrong).unwrap();
            assert!(matches!(Keys::open(&path), Err(KeysError::Format { .. })));
        }
    }

    #[test]
    fn a_new_master_key_seals_and_the_older_ones_open_until_they_are_destroyed() {
        let (_folder, path, mut keys) = created();
        let (before, index) = (keys.private_sealer().seal(b"place", b"value"), keys.index_key());
        let made = Keys::prepare_master();
        let check = made.check();
        keys.add_master(made, &path).unwrap();
        let mut keys = Keys::open(&path).unwrap();
        assert_eq!((keys.master_checks().len(), &keys.master_checks()[0]), (2, &check));
        let after = keys.private_sealer().seal(b"place", b"value");
        for sealed in [&before, &after] {
            assert_eq!(keys.private_sealer().open(b"place", sealed).unwrap(), b"value");
            assert!(keys.private_sealer().open(b"elsewhere", sealed).is_err());
        }
        assert!(keys.newest_private_sealer().open(b"place", &before).is_err());
        assert_eq!(keys.newest_private_sealer().open(b"place", &after).unwrap(), b"value");
        assert_ne!(keys.index_key(), index);
        keys.retire_masters(&path).unwrap();
        let keys = Keys::open(&path).unwrap();
        assert_eq!(keys.master_checks(), [check]);
        assert!(keys.private_sealer().open(b"place", &before).is_err());
        assert_eq!(keys.private_sealer().open(b"place", &after).unwrap(), b"value");
        let line = fs::read_to_string(path.join(MASTER_FILE)).unwrap();
        for wrong in [format!("{line}{line}"), format!("{line}\n"), format!("{line}x\n")] {
            fs::write(path.join(MASTER_FILE), &wrong).unwrap();
            assert_eq!(Keys::open(&path).is_ok(), wrong.trim_end() == line.trim_end(), "{wrong}");
        }
        let mut keys = Keys::create(&path.join("more"), ORIGIN).unwrap();
        for _ in 1..MASTERS_MAX {
            keys.add_master(Keys::prepare_master(), &path.join("more")).unwrap();
        }
        assert!(matches!(keys.add_master(Keys::prepare_master(), &path.join("more")), Err(KeysError::Masters)));
        assert_eq!(Keys::open(&path.join("more")).unwrap().master_checks().len(), MASTERS_MAX);
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
        let keys = Keys { origin: ORIGIN.into(), log: counting.clone(), next: None, masters: vec![counting] };
        let hex = |key: &[u8]| data_encoding::HEXLOWER.encode(key);
        let lines = [
            keys.log_lines().to_string(),
            keys.verifier_key(),
            keys.master_lines().to_string(),
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
