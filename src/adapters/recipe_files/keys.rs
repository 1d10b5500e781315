//! The PEM files of keys that sign recipe folders.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use zeroize::Zeroizing;

use crate::core::model_signature::{KeyError, PublicKey, SigningKey, key::KEY_BYTES_MAX};

/// A public key.
///
/// # Errors
/// A sentence with what is wrong.
pub fn read_public(path: &Path) -> Result<PublicKey, String> {
    read(path, PublicKey::from_pem)
}

/// A private key.
///
/// # Errors
/// A sentence with what is wrong.
pub fn read_private(path: &Path) -> Result<SigningKey, String> {
    read(path, SigningKey::from_pem)
}

/// Makes a key: the private one, which only its owner can read, and the public one. Neither file may exist. After a crash between
/// the two, `openssl pkey -in FILE -pubout` writes the second.
///
/// # Errors
/// When random bytes cannot be had or a file cannot be written.
pub fn create(private: &Path, public: &Path) -> io::Result<PublicKey> {
    let key = loop {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| io::Error::other(error.to_string()))?;
        if let Some(key) = SigningKey::from_random(&bytes) {
            break key;
        }
    };
    if public.exists() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", public.display())));
    }
    write_new(private, 0o600, key.to_pem().as_bytes())?;
    write_new(public, 0o644, key.public().to_pem().as_bytes())?;
    Ok(key.public())
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(failed)
}

fn read<K>(path: &Path, parse: impl FnOnce(&str) -> Result<K, KeyError>) -> Result<K, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut bytes = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(|error| said(&error))?;
    file.take(KEY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| said(&error))?;
    if bytes.len() > KEY_BYTES_MAX {
        return Err(said(&format_args!("it is longer than {KEY_BYTES_MAX} bytes, and no key file is")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| said(&"it is not PEM, which is text"))?;
    parse(text).map_err(|error| said(&error))
}
