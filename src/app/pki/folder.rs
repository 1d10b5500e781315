//! The folder of an authority: certificate and key, the register, and the newest revocation list.
//!
//! Order of writes: the register first, durably, then what it speaks of. A crash in between leaves a record of a
//! certificate that nobody has, which can be revoked like any other, or a revocation that the list does not have yet,
//! which `lineproof pki list` notices and the next `revoke` or `crl` mends.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::files::{self, Access};
use crate::{
    adapters::authority::{Authority, AuthorityFacts, crl_facts},
    core::pki::register::{CertificateSerial, ISSUED_MAX, REGISTER_BYTES_MAX, Register},
    types::Instant,
};

pub(super) const CERTIFICATE: &str = "ca.pem";
pub(super) const KEY: &str = "ca.key";
pub(super) const REGISTER: &str = "issued.json";
pub(super) const CRL: &str = "clients.crl";

/// A certificate or a key in PEM form; ours have less than two thousand.
pub(super) const PEM_BYTES_MAX: u64 = 16 << 10;
/// A revocation list in PEM form: an entry takes at most 64 bytes of DER, a third more as PEM.
const CRL_BYTES_MAX: u64 = (ISSUED_MAX as u64 * 64) * 3 / 2 + PEM_BYTES_MAX;
/// Nanoseconds of a day.
pub(super) const DAY: i64 = 86_400 * 1_000_000_000;

/// The folder, and that nobody else changes it.
pub(super) struct Folder {
    path: PathBuf,
    pub authority: Authority,
    pub register: Register,
    _lock: File,
}

/// What the newest revocation list says of itself.
pub(super) struct CrlState {
    pub number: u64,
    pub next_update: Option<Instant>,
}

impl Folder {
    /// Makes a folder that is there whole or not at all.
    ///
    /// # Errors
    /// When there is something in its place, or it cannot be written.
    pub fn create(path: &Path, authority: Authority, key: &str, register: Register) -> anyhow::Result<Self> {
        if fs::read_dir(path).is_ok_and(|mut items| items.next().is_some()) || path.is_file() {
            bail!("{} is there already; nothing was changed", path.display());
        }
        let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?.to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.part"));
        if let Err(error) = DirBuilder::new().mode(0o700).create(&temporary) {
            let hint = "; if an interrupted `pki init` left it, remove it: nothing was signed with what is in it";
            let hint = if temporary.exists() { hint } else { "" };
            bail!("{}: {error}{hint}", temporary.display());
        }
        let lock = lock(&temporary)?;
        let mut folder = Self { path: temporary.clone(), authority, register, _lock: lock };
        files::create(&folder.at(KEY), key, Access::Secret)?;
        files::create(&folder.at(CERTIFICATE), &folder.authority.pem()?, Access::Public)?;
        folder.save()?;
        fs::rename(&temporary, path).with_context(|| path.display().to_string())?;
        files::sync_folder(path).with_context(|| path.display().to_string())?;
        folder.path = path.to_owned();
        Ok(folder)
    }

    /// # Errors
    /// When it is no folder of an authority, or another command changes it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let lock = lock(path)?;
        let register = read_register(path)?;
        let at = |name: &str| path.join(name);
        let certificate = files::read(&at(CERTIFICATE), PEM_BYTES_MAX)?;
        let key = zeroize::Zeroizing::new(files::read(&at(KEY), PEM_BYTES_MAX)?);
        if files::is_open_to_others(&at(KEY))? {
            eprintln!("lineproof: {} can be read by others than you", at(KEY).display());
        }
        let authority = Authority::open(&certificate, &key)
            .with_context(|| format!("{} and {}", at(CERTIFICATE).display(), at(KEY).display()))?;
        Ok(Self { path: path.to_owned(), authority, register, _lock: lock })
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// # Errors
    /// When the register is not durable; then nothing that it speaks of may be given out.
    pub fn save(&self) -> anyhow::Result<()> {
        files::replace(&self.at(REGISTER), &self.register.text(), Access::Public)
    }

    /// A new revocation list, under a number that the register has counted before.
    ///
    /// # Errors
    /// When register or list cannot be written.
    pub fn write_crl(&mut self, now: Instant, days: u16) -> anyhow::Result<Instant> {
        let ends = self.authority.not_after();
        if ends <= now {
            bail!("the authority ended on {}, and every certificate with it; make another one", ends.day());
        }
        // No list lasts longer than the key that signs it.
        let next_update = later(now, days)?.min(ends);
        self.register.crl_number += 1;
        self.save()?;
        let crl = self.authority.crl(self.register.crl_number, now, next_update, self.register.revoked())?;
        files::replace(&self.at(CRL), &crl, Access::Public)?;
        Ok(next_update)
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let hint = || format!("{}; `lineproof pki init` makes the folder of an authority", path.display());
    let folder = File::open(path).with_context(hint)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => bail!("another command changes {}; try again", path.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The register, for those who only look.
pub(super) fn read_register(path: &Path) -> anyhow::Result<Register> {
    let file = path.join(REGISTER);
    let text =
        files::read(&file, REGISTER_BYTES_MAX).context("`lineproof pki init` makes the folder of an authority")?;
    Register::parse(text.as_bytes()).with_context(|| file.display().to_string())
}

/// The authority's certificate.
pub(super) fn read_certificate(path: &Path) -> anyhow::Result<AuthorityFacts> {
    let file = path.join(CERTIFICATE);
    AuthorityFacts::read(&files::read(&file, PEM_BYTES_MAX)?).with_context(|| file.display().to_string())
}

/// The newest revocation list; `None` when there is none.
pub(super) fn read_crl(path: &Path) -> anyhow::Result<Option<CrlState>> {
    let file = path.join(CRL);
    if !file.exists() {
        return Ok(None);
    }
    let (number, next_update) =
        crl_facts(&files::read(&file, CRL_BYTES_MAX)?).with_context(|| file.display().to_string())?;
    Ok(Some(CrlState { number, next_update }))
}

/// Now, in whole seconds: certificates know no others.
pub(super) fn now() -> anyhow::Result<Instant> {
    let nanos = crate::app::cli::now()?.unix_nanos();
    Ok(Instant::from_unix_nanos(nanos - nanos % 1_000_000_000)?)
}

/// # Errors
/// When it would be after 2262.
pub(super) fn later(now: Instant, days: u16) -> anyhow::Result<Instant> {
    let nanos = i64::from(days).checked_mul(DAY).and_then(|nanos| nanos.checked_add(now.unix_nanos()));
    Ok(Instant::from_unix_nanos(nanos.context("the time is after 2262")?)?)
}

/// `nanos` before `now`.
pub(super) fn earlier(now: Instant, nanos: i64) -> Instant {
    Instant::from_unix_nanos(now.unix_nanos().saturating_sub(nanos).max(0)).unwrap_or(Instant::EPOCH)
}

pub(super) fn new_serial() -> CertificateSerial {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    CertificateSerial::from_random(bytes)
}
