//! Private values: entries hold only salted commitments to them, so that the log may leave the plant.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::types::Sha256Digest;

/// Bytes of salt in front of every committed value.
pub const SALT_BYTES: usize = 16;

/// The name of a private value in an entry and in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrivateField {
    /// Who asked: the client identity or the person.
    Client,
    /// Production lot.
    Lot,
    /// Serial number or data-matrix code of the part.
    Serial,
}

impl PrivateField {
    pub const ALL: [Self; 3] = [Self::Client, Self::Lot, Self::Serial];

    /// The key in an entry's `private` object.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Lot => "lot",
            Self::Serial => "serial",
        }
    }
}

/// A private value with the salt that opens its commitment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    pub field: PrivateField,
    /// 32 lower-case hex digits.
    #[serde(with = "salt_hex")]
    pub salt: [u8; SALT_BYTES],
    pub value: String,
}

impl Opening {
    /// SHA-256 of salt || value, as the entry holds it.
    #[must_use]
    pub fn commitment(&self) -> Sha256Digest {
        let mut hasher = sha2::Sha256::new();
        hasher.update(self.salt);
        hasher.update(self.value.as_bytes());
        Sha256Digest(hasher.finalize().into())
    }
}

mod salt_hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(salt: &[u8; super::SALT_BYTES], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(salt))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; super::SALT_BYTES], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("a salt has 32 hex digits"))
    }
}
