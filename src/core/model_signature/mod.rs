//! Who vouches for a recipe folder: signatures in the format of OpenSSF Model Signing 1.0, method `key`.
//!
//! `docs/spec/model-signature.md` has the format. A [`Manifest`] says which files a folder has, a [`bundle`] who signed that, and
//! [`key`] is all that knows the curve. What lies on the disk is read elsewhere and held against the manifest as digests.

pub mod bundle;
pub mod key;
mod manifest;
mod name;
mod statement;
#[cfg(test)]
mod tests;

pub use self::{
    bundle::{Signed, open, sign},
    key::{KeyError, PublicKey, SigningKey},
    manifest::{Differences, Manifest},
    name::ResourceName,
};
use crate::types::Sha256Digest;

/// The signature's file in the folder that it vouches for.
pub const SIGNATURE_FILE: &str = "model.sig";
/// Longest signature file in bytes: [`RESOURCES_MAX`] files with names of some 50 bytes.
pub const SIGNATURE_BYTES_MAX: usize = 1 << 20;
/// Files that one signature vouches for.
pub const RESOURCES_MAX: usize = 4096;
/// Keys that may vouch for the recipes of one service.
pub const SIGNERS_MAX: usize = 16;
/// What is never part of a model, as the stock tool has it: a folder may be a checkout, whose `.git` changes with every fetch.
pub const IGNORED: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// Why a signature does not hold, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature has more than {SIGNATURE_BYTES_MAX} bytes")]
    TooLong,
    #[error("the signature is not the JSON that the format asks for: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the signature's {what} is {found:?}, not {expected:?}")]
    Type { what: &'static str, found: String, expected: &'static str },
    #[error(
        "the signature was made with a certificate or by Sigstore; only those by method `key` are read: sign with `lineproof model sign` or `model_signing sign key`"
    )]
    Method,
    #[error("the signature's {0} is not base64")]
    Base64(&'static str),
    #[error("it is signed with the key {}, which is none of those asked for: {}", short(*.found), .known.iter().map(|key| short(*key)).collect::<Vec<_>>().join(", "))]
    Key { found: Sha256Digest, known: Vec<Sha256Digest> },
    #[error("the signature does not verify: it was altered, or made with another key")]
    Signature,
    #[error("the signature's digest of all files is not that of the files it lists")]
    Root,
    #[error("the signature lists more than {RESOURCES_MAX} files; a recipe folder has fewer")]
    TooMany,
    #[error("the signature lists {0} twice")]
    Twice(ResourceName),
    #[error("the signature names {0:?}, which is no file below the folder")]
    Name(String),
    #[error("the signature's digest of {0} is not one of SHA-256; sign with SHA-256")]
    Digest(ResourceName),
}

/// A key's fingerprint as people compare it: its first 16 hex digits.
#[must_use]
pub fn short(fingerprint: Sha256Digest) -> String {
    let mut hex = fingerprint.hex();
    hex.truncate(16);
    hex
}
