//! The key of a witness: one line `PRIVATE+KEY+<name>+<key id>+<base64>` as the log's, with the cosignature's type byte.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{KeysError, LOG_PREFIX, Secret, check_mode, random, read_secret, write_secret};
use crate::core::witness::cosign::Cosigner;

const FILE: &str = "witness.skey";
/// Ed25519 cosignatures in the note format.
const ALGORITHM_COSIGNATURE: u8 = 4;

/// A witness's signing key on the disk.
pub struct WitnessKey;

impl WitnessKey {
    /// Makes a new key for a witness called `name` in `folder`; it is durable when this returns.
    ///
    /// # Errors
    /// [`KeysError`]; when it is [`KeysError::Exists`] or [`KeysError::Origin`], nothing was changed.
    pub fn create(folder: &Path, name: &str) -> Result<Cosigner, KeysError> {
        let secret = random();
        let cosigner = Cosigner::new(name, &secret)?;
        let path = folder.join(FILE);
        if path.exists() {
            return Err(KeysError::Exists { path });
        }
        let failed = |reason| KeysError::Io { path: folder.to_owned(), reason };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let mut bytes = Zeroizing::new([0; 33]);
        bytes[0] = ALGORITHM_COSIGNATURE;
        bytes[1..].copy_from_slice(&*secret);
        let base64 = Zeroizing::new(BASE64_STANDARD.encode(*bytes));
        let line = Zeroizing::new(format!("{LOG_PREFIX}{}+{}", cosigner.verifier_key().key_id(), *base64));
        write_secret(&path, &line)?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(cosigner)
    }

    /// Reads the key in `folder`.
    ///
    /// # Errors
    /// [`KeysError`]: also when others than the owner may read or change it.
    pub fn open(folder: &Path) -> Result<Cosigner, KeysError> {
        check_mode(folder)?;
        let path = folder.join(FILE);
        parse(&read_secret(&path)?).ok_or(KeysError::Format { path, what: "witness's signing key `PRIVATE+KEY+…`" })
    }
}

fn parse(line: &str) -> Option<Cosigner> {
    let (name, rest) = line.strip_prefix(LOG_PREFIX)?.split_once('+')?;
    let (id, base64) = rest.split_once('+')?;
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(base64).ok()?);
    let (&ALGORITHM_COSIGNATURE, secret) = bytes.split_first()? else { return None };
    let secret: Secret = Zeroizing::new(secret.try_into().ok()?);
    let cosigner = Cosigner::new(name, &secret).ok()?;
    (cosigner.verifier_key().key_id() == format!("{name}+{id}")).then_some(cosigner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_key_reads_back_and_a_logs_key_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let made = WitnessKey::create(&keys, "oem.example/witness").unwrap();
        assert!(matches!(WitnessKey::create(&keys, "oem.example/witness"), Err(KeysError::Exists { .. })));
        assert_eq!(WitnessKey::open(&keys).unwrap().verifier_key(), made.verifier_key());
        let line = fs::read_to_string(keys.join(FILE)).unwrap();
        assert!(parse(line.trim()).is_some() && parse(&line.replace("witness+", "witnese+")).is_none());
        let log = folder.path().join("log");
        super::super::Keys::create(&log, "plant.example/log").unwrap();
        assert!(parse(fs::read_to_string(log.join("log.skey")).unwrap().trim()).is_none());
        fs::set_permissions(keys.join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(WitnessKey::open(&keys), Err(KeysError::Mode { .. })));
    }
}
