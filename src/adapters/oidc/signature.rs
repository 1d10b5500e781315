//! What jsonwebtoken verifies signatures with: ring, which the service has already. It signs nothing.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: verifier,
    // For keys out of private keys and thumbprints, neither of which there are here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes this what the process verifies with. Nobody else in it uses jsonwebtoken, so the first call wins.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8>, parameters: &'static RsaParameters },
    Point { bytes: Vec<u8>, algorithm: &'static dyn VerificationAlgorithm },
}

struct RingVerifier {
    algorithm: Algorithm,
    key: Key,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let rsa = |parameters| match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Ok(Key::Rsa { n: n.clone(), e: e.clone(), parameters }),
        DecodingKeyKind::SecretOrDer(_) => Err(Error::from(ErrorKind::InvalidKeyFormat)),
    };
    let point = |algorithm| key.try_get_as_bytes().map(|bytes| Key::Point { bytes: bytes.to_vec(), algorithm });
    let key = match algorithm {
        Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256)?,
        Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256)?,
        Algorithm::ES256 => point(&ECDSA_P256_SHA256_FIXED)?,
        Algorithm::EdDSA => point(&ED25519)?,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key }))
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.key {
            Key::Rsa { n, e, parameters } => RsaPublicKeyComponents { n, e }.verify(parameters, message, signature),
            Key::Point { bytes, algorithm } => UnparsedPublicKey::new(*algorithm, bytes).verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
