//! Keys of ECDSA P-256: ring makes them and signs; a certificate request brings its own.

use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use signature::Keypair;
use x509_cert::{
    der::{
        DecodePem as _, Document, Encode as _, SecretDocument,
        asn1::{AnyRef, BitString, ObjectIdentifier},
        pem::LineEnding,
    },
    request::CertReq,
    spki::{
        self, AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey, SubjectPublicKeyInfoOwned,
    },
};
use zeroize::Zeroizing;

use super::AuthorityError;

/// RFC 5480, section 2.1.1: `id-ecPublicKey`.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480, section 2.1.1.1: `secp256r1`.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5758, section 3.2: `ecdsa-with-SHA256`, which has no parameters.
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// RFC 7468, section 10.
const KEY_LABEL: &str = "PRIVATE KEY";

/// A private key that signs.
pub(super) struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

/// A point of P-256, uncompressed: 65 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl SigningKey {
    /// A new key, and its PKCS#8 in PEM form.
    pub fn generate() -> (Self, Zeroizing<String>) {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .expect("the operating system gives random bytes");
        let secret = SecretDocument::try_from(document.as_ref()).expect("ring writes DER");
        let pem = secret.to_pem(KEY_LABEL, LineEnding::LF).expect("DER can be written as PEM");
        let key = Self::from_pem(&pem).expect("ring reads what it wrote");
        (key, pem)
    }

    pub fn from_pem(pem: &str) -> Result<Self, AuthorityError> {
        let (label, secret) = SecretDocument::from_pem(pem).map_err(|_| AuthorityError::Key)?;
        if label != KEY_LABEL {
            return Err(AuthorityError::Key);
        }
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, secret.as_bytes(), &random);
        Ok(Self { pair: pair.map_err(|_| AuthorityError::Key)?, random })
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().to_vec())
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&self.random, message).expect("the operating system gives random bytes").as_ref().to_vec()
    }
}

impl PublicKey {
    pub(super) fn point(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn info(&self) -> spki::Result<SubjectPublicKeyInfoOwned> {
        let algorithm = AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(AnyRef::from(&P256).into()) };
        Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(&self.0)? })
    }
}

impl EncodePublicKey for PublicKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.info()?.to_der()?)?)
    }
}

impl Keypair for SigningKey {
    type VerifyingKey = PublicKey;

    fn verifying_key(&self) -> PublicKey {
        self.public()
    }
}

impl DynSignatureAlgorithmIdentifier for SigningKey {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None })
    }
}

/// The key of a certificate request (PKCS#10, RFC 2986) in PEM form, once its signature proves that whoever made the
/// request has it. Nothing else of the request counts, neither names nor extensions.
///
/// # Errors
/// [`AuthorityError`] with what is wrong with the request.
pub fn request_key(pem: &str) -> Result<PublicKey, AuthorityError> {
    let wrong = |error: &dyn std::fmt::Display| AuthorityError::Request(error.to_string());
    let request = CertReq::from_pem(pem).map_err(|error| wrong(&error))?;
    let info = &request.info.public_key;
    let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    let point = info.subject_public_key.raw_bytes();
    if info.algorithm.oid != EC_PUBLIC_KEY || curve != Some(P256) || point.len() != 65 || point[0] != 4 {
        return Err(AuthorityError::RequestKey);
    }
    if request.algorithm.oid != ECDSA_SHA256 {
        return Err(AuthorityError::RequestSignature);
    }
    let message = request.info.to_der().map_err(|error| wrong(&error))?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&message, request.signature.raw_bytes())
        .map_err(|_| AuthorityError::RequestSignature)?;
    Ok(PublicKey(point.to_vec()))
}
