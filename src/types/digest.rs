//! Content digests, written `blake3:<64 hex>` and `sha256:<64 hex>`.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    #[error("a digest starts with {expected:?}, this one does not: {found:?}")]
    Algorithm { expected: &'static str, found: String },
    #[error("a digest has 64 lower-case hex digits after the colon: {0:?}")]
    Hex(String),
    #[error("a digest has 32 bytes, this one has {0}")]
    Length(usize),
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The text before the hex digits.
            pub const PREFIX: &'static str = $prefix;

            /// # Errors
            /// [`DigestError::Length`] unless `bytes` has 32 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, DigestError> {
                bytes.try_into().map(Self).map_err(|_| DigestError::Length(bytes.len()))
            }

            /// The 64 hex digits without the algorithm's name.
            #[must_use]
            pub fn hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                let hex = text.strip_prefix(Self::PREFIX).ok_or_else(|| DigestError::Algorithm {
                    expected: Self::PREFIX,
                    found: text.chars().take(80).collect(),
                })?;
                let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| DigestError::Hex(hex.chars().take(80).collect()))?;
                Self::from_slice(&bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest!(
    /// BLAKE3-256: identifies images, pixels, models, recipes and calibrations.
    Blake3Digest,
    "blake3:"
);
digest!(
    /// SHA-256: leaf and tree hashes (RFC 6962) and commitments to private values.
    Sha256Digest,
    "sha256:"
);

impl Blake3Digest {
    /// BLAKE3 of `bytes` on the calling thread.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl Sha256Digest {
    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_writes_and_refuses_the_rest() {
        let digest = Blake3Digest::of(b"part");
        assert_eq!(digest.to_string().parse::<Blake3Digest>(), Ok(digest));
        assert!(digest.to_string().to_uppercase().parse::<Blake3Digest>().is_err());
        assert!(digest.to_string().parse::<Sha256Digest>().is_err());
        assert_eq!("blake3:00".parse::<Blake3Digest>(), Err(DigestError::Length(1)));
    }
}
