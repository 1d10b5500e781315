//! Keys of method `key`: ECDSA on P-256 with SHA-256, in the PEM files that `openssl` writes and reads.

use p256::{
    SecretKey,
    ecdsa::{
        self,
        signature::{Signer as _, Verifier as _},
    },
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use zeroize::Zeroizing;

use crate::types::Sha256Digest;

/// Longest key file in bytes; one with its parameters has some 300.
pub const KEY_BYTES_MAX: usize = 16 << 10;

/// Why a file gives no key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    #[error(
        "it is no private key in PEM; `lineproof model new-key` and `openssl ecparam -name prime256v1 -genkey` make one"
    )]
    NotPrivate,
    #[error("its private key is encrypted; `openssl pkey -in FILE -out PLAIN` writes it in the clear")]
    Encrypted,
    #[error("its private key is not one of P-256, the only curve that signs here")]
    PrivateCurve,
    #[error(
        "it is a private key: keep it where models are signed, and name its public key here (`openssl pkey -in FILE -pubout`)"
    )]
    PrivateForPublic,
    #[error("it is no public key in PEM; `openssl pkey -in PRIVATE -pubout` writes one")]
    NotPublic,
    #[error("its public key is not one of P-256, the only curve that is verified here")]
    PublicCurve,
}

/// A key that signs.
pub struct SigningKey(SecretKey);

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: ecdsa::VerifyingKey,
    fingerprint: Sha256Digest,
}

impl SigningKey {
    /// Of random bytes; unset for some 2^-32 of them, which are no number below the curve's order.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Option<Self> {
        SecretKey::from_slice(bytes).ok().map(Self)
    }

    /// A PEM file with a private key, PKCS#8 or SEC1 (RFC 5915). What else it holds, such as `EC PARAMETERS`, is passed over.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = if let Some(block) = block(text, "PRIVATE KEY") {
            SecretKey::from_pkcs8_pem(block).map_err(|_| KeyError::PrivateCurve)
        } else if let Some(block) = block(text, "EC PRIVATE KEY") {
            // Of old, a pass phrase is asked for in lines of its own inside the block.
            if block.contains("ENCRYPTED") {
                return Err(KeyError::Encrypted);
            }
            SecretKey::from_sec1_pem(block).map_err(|_| KeyError::PrivateCurve)
        } else if block(text, "ENCRYPTED PRIVATE KEY").is_some() {
            Err(KeyError::Encrypted)
        } else {
            Err(KeyError::NotPrivate)
        };
        key.map(Self)
    }

    /// As PKCS#8 in PEM.
    ///
    /// # Panics
    /// Never: a key of this curve can be written.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        self.0.to_pkcs8_pem(LineEnding::LF).expect("a P-256 key has a PKCS#8 form")
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::new(self.0.public_key())
    }

    /// ECDSA with SHA-256 over `message`, as ASN.1 DER; the same bytes every time (RFC 6979).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: ecdsa::Signature = ecdsa::SigningKey::from(&self.0).sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl PublicKey {
    fn new(key: p256::PublicKey) -> Self {
        let fingerprint = Sha256Digest::of(pem(&key).as_bytes());
        Self { key: key.into(), fingerprint }
    }

    /// A PEM file with a public key (`SubjectPublicKeyInfo`).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let Some(block) = block(text, "PUBLIC KEY") else {
            let is_private = text.contains("PRIVATE KEY-----");
            return Err(if is_private { KeyError::PrivateForPublic } else { KeyError::NotPublic });
        };
        p256::PublicKey::from_public_key_pem(block).map(Self::new).map_err(|_| KeyError::PublicCurve)
    }

    /// In PEM, as `openssl pkey -pubout` writes it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem(&self.key.into())
    }

    /// SHA-256 of the key's PEM: the `hint` in signatures.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256Digest {
        self.fingerprint
    }

    /// Whether `signature`, ASN.1 DER, is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ecdsa::Signature::from_der(signature).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

fn pem(key: &p256::PublicKey) -> String {
    key.to_public_key_pem(LineEnding::LF).expect("a P-256 key has a SubjectPublicKeyInfo form")
}

/// The first block of a label, from its first dash to its last.
fn block<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let start = text.find(&begin)?;
    let length = text[start..].find(&end)? + end.len();
    Some(&text[start..start + length])
}
