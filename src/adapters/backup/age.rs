//! Sealing to age recipients (age-encryption.org/v1), so that a backup also opens with tools we did not write.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use age::{
    Decryptor, Encryptor, Recipient,
    secrecy::ExposeSecret as _,
    x25519::{Identity as Key, Recipient as PublicKey},
};
use zeroize::Zeroizing;

use crate::ports::backup::{BlobOpener, BlobSealer};

/// Longest identity file in bytes.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    #[error("no recipient: a backup is sealed to a public key `age1…`, which `lineproof backup --new-key FILE` makes")]
    NoRecipient,
    #[error("{0:?} is no age recipient `age1…`")]
    Recipient(String),
    #[error("{path} exists already; a key is never overwritten: give another name")]
    Exists { path: String },
    #[error("{path}: {reason}")]
    Io { path: String, reason: io::Error },
    #[error(
        "{0} holds no age identity `AGE-SECRET-KEY-1…`; one that is locked with a passphrase is unlocked by `age -d` first"
    )]
    NoIdentity(String),
}

/// Seals to public keys.
pub struct AgeSealer(Vec<PublicKey>);

impl AgeSealer {
    /// # Errors
    /// [`AgeError::Recipient`], [`AgeError::NoRecipient`].
    pub fn new(recipients: &[String]) -> Result<Self, AgeError> {
        if recipients.is_empty() {
            return Err(AgeError::NoRecipient);
        }
        let parse = |text: &String| text.trim().parse().map_err(|_| AgeError::Recipient(text.clone()));
        Ok(Self(recipients.iter().map(parse).collect::<Result<_, _>>()?))
    }
}

impl BlobSealer for AgeSealer {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(|error| error.to_string())?;
        let mut sealed = Vec::with_capacity(plain.len() + plain.len() / 4096 + 1024);
        let write = |mut writer: age::stream::StreamWriter<_>| {
            writer.write_all(plain)?;
            writer.finish().map(|_: &mut Vec<u8>| ())
        };
        encryptor.wrap_output(&mut sealed).and_then(write).map_err(|error| error.to_string())?;
        Ok(sealed)
    }

    fn recipients(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// Opens with private keys.
pub struct AgeOpener(Vec<Key>);

impl AgeOpener {
    /// Reads an identity file as `age-keygen` writes it: one identity per line, `#` begins a note.
    ///
    /// # Errors
    /// [`AgeError::Io`], [`AgeError::NoIdentity`].
    pub fn read(path: &Path) -> Result<Self, AgeError> {
        let place = path.display().to_string();
        let io = |reason| AgeError::Io { path: place.clone(), reason };
        let mut text = Zeroizing::new(String::with_capacity(IDENTITY_BYTES_MAX as usize));
        fs::File::open(path).map_err(io)?.take(IDENTITY_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Option<Vec<Key>> = lines.map(|line| line.parse().ok()).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self).ok_or(AgeError::NoIdentity(place))
    }
}

impl BlobOpener for AgeOpener {
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let identities = self.0.iter().map(|key| key as &dyn age::Identity);
        let mut plain = Vec::with_capacity(sealed.len());
        let decryptor = Decryptor::new(sealed).map_err(|error| error.to_string())?;
        let mut reader = decryptor.decrypt(identities).map_err(|error| error.to_string())?;
        reader.read_to_end(&mut plain).map_err(|error| error.to_string())?;
        Ok(plain)
    }
}

/// Writes a new identity to `path`, which must not exist, in the form of `age-keygen`; returns its public key.
///
/// # Errors
/// [`AgeError::Io`], [`AgeError::Exists`].
pub fn create_identity(path: &Path) -> Result<String, AgeError> {
    let key = Key::generate();
    let public = key.to_public().to_string();
    let text = Zeroizing::new(format!("# public key: {public}\n{}\n", key.to_string().expose_secret()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let place = path.display().to_string();
    write().map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => AgeError::Exists { path: place },
        _ => AgeError::Io { path: place, reason },
    })?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_sealed_to_two_keys_opens_with_either_and_no_third_and_no_changed_byte() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            let public = create_identity(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(create_identity(&path).is_err(), "a key is never overwritten");
            (public, AgeOpener::read(&path).unwrap())
        };
        let ((one, opens_one), (two, opens_two), (_, third)) = (make("one"), make("two"), make("three"));
        let sealer = AgeSealer::new(&[one, two]).unwrap();
        let plain: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let sealed = sealer.seal(&plain).unwrap();
        assert_eq!(opens_one.open(&sealed).unwrap(), plain);
        assert_eq!(opens_two.open(&sealed).unwrap(), plain);
        assert!(third.open(&sealed).is_err());
        for at in [0, 100, sealed.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(opens_one.open(&changed).is_err(), "byte {at}");
        }
        assert!(opens_one.open(&sealed[..sealed.len() - 1]).is_err());
        assert!(AgeSealer::new(&[]).is_err() && AgeSealer::new(&["age1x".into()]).is_err());
    }
}
