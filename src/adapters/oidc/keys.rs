//! The provider's public keys (RFC 7517), and which of them may have signed a token.

use std::time::{Duration, Instant};

use jsonwebtoken::{
    Algorithm, DecodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;

/// Keys of one provider.
pub(super) const KEYS_MAX: usize = 64;

pub(super) struct KeySet {
    keys: Vec<Key>,
    since: Instant,
}

struct Key {
    id: Option<String>,
    /// What it may sign with: one algorithm, or two of an RSA key.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// The keys of a JWK set that can be used here. Others, for encryption or of other kinds, are passed over, as
    /// RFC 7517, section 5, asks for.
    pub fn parse(bytes: &[u8], since: Instant) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(bytes).map_err(|error| format!("its keys are no JWK set: {error}"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys; at most {KEYS_MAX} are read", set.keys.len()));
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err("it has no key for RS256, PS256, ES256 or EdDSA".into());
        }
        Ok(Self { keys, since })
    }

    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub fn has(&self, header: &Header) -> bool {
        self.fitting(header).next().is_some()
    }

    /// The keys that may have signed a token with this header. Without a `kid` it must be clear which.
    pub fn fitting<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a DecodingKey> {
        let for_algorithm = |key: &&Key| key.algorithms.contains(&header.alg);
        let is_clear = header.kid.is_some() || self.keys.iter().filter(for_algorithm).count() == 1;
        let fits = move |key: &&Key| {
            is_clear && for_algorithm(key) && header.kid.as_ref().is_none_or(|id| key.id.as_ref() == Some(id))
        };
        self.keys.iter().filter(fits).map(|key| &key.key)
    }
}

impl Key {
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![Algorithm::RS256, Algorithm::PS256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            // Shared secrets among them: whoever could verify with one could sign.
            _ => return None,
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, key })
    }
}
