//! The signature file: a Sigstore bundle with the statement in a DSSE envelope.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    Manifest, PublicKey, SIGNATURE_BYTES_MAX, SignatureError, SigningKey,
    statement::{self, expect},
};
use crate::types::Sha256Digest;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    /// Unset where a certificate takes its place.
    #[serde(default)]
    public_key: Option<KeyHint>,
    /// Entries of Rekor, which method `key` has none of.
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyHint {
    /// SHA-256 of the public key's PEM in hex. Unset in signatures of 2025, which hold the key itself; that is not read.
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    /// The bundle's specification allows one.
    signatures: [EnvelopeSignature; 1],
}

#[derive(Serialize, Deserialize)]
struct EnvelopeSignature {
    sig: String,
    /// Not read.
    #[serde(default)]
    keyid: Option<String>,
}

/// What a signature that holds says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub manifest: Manifest,
    /// The fingerprint of the key that signed.
    pub signer: Sha256Digest,
}

/// Signs which files a folder has; the same file every time for the same files and key.
///
/// # Errors
/// [`SignatureError::TooMany`] and [`SignatureError::TooLong`] for folders that no verifier here would read.
pub fn sign(manifest: &Manifest, key: &SigningKey) -> Result<Vec<u8>, SignatureError> {
    if manifest.files.len() > super::RESOURCES_MAX {
        return Err(SignatureError::TooMany);
    }
    let payload = statement::encode(manifest);
    let sig = BASE64_STANDARD.encode(key.sign(&pre_authentication(&payload)));
    let bundle = Bundle {
        media_type: MEDIA_TYPE.to_owned(),
        verification_material: Material {
            public_key: Some(KeyHint { hint: Some(key.public().fingerprint().hex()) }),
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: BASE64_STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: [EnvelopeSignature { sig, keyid: Some(String::new()) }],
        },
    };
    let bytes = serde_json::to_vec(&bundle)?;
    if bytes.len() > SIGNATURE_BYTES_MAX { Err(SignatureError::TooLong) } else { Ok(bytes) }
}

/// Reads a signature file and verifies it by the one of `keys` that it names. Nothing of the statement is looked at before.
///
/// # Errors
/// [`SignatureError`].
pub fn open(bytes: &[u8], keys: &[PublicKey]) -> Result<Signed, SignatureError> {
    if bytes.len() > SIGNATURE_BYTES_MAX {
        return Err(SignatureError::TooLong);
    }
    let bundle: Bundle = serde_json::from_slice(bytes)?;
    expect("media type", &bundle.media_type, MEDIA_TYPE)?;
    let hint = bundle.verification_material.public_key.ok_or(SignatureError::Method)?.hint;
    let Envelope { payload, payload_type, signatures: [signature] } = bundle.dsse_envelope;
    expect("payload type", &payload_type, PAYLOAD_TYPE)?;
    let decoded = |text: &str, what| BASE64_STANDARD.decode(text).map_err(|_| SignatureError::Base64(what));
    let (payload, signature) = (decoded(&payload, "payload")?, decoded(&signature.sig, "signature")?);

    let message = pre_authentication(&payload);
    let key = match hint {
        Some(hint) => {
            let key = named(&hint, keys)?;
            Some(key).filter(|key| key.verifies(&message, &signature))
        }
        None => keys.iter().find(|key| key.verifies(&message, &signature)),
    };
    let key = key.ok_or(SignatureError::Signature)?;
    Ok(Signed { manifest: statement::decode(&payload)?, signer: key.fingerprint() })
}

/// The one of `keys` that a signature names.
fn named<'a>(hint: &str, keys: &'a [PublicKey]) -> Result<&'a PublicKey, SignatureError> {
    let found = format!("{}{hint}", Sha256Digest::PREFIX).parse::<Sha256Digest>().map_err(|_| {
        let (found, expected) = (hint.chars().take(80).collect(), "the SHA-256 of a public key");
        SignatureError::Type { what: "hint", found, expected }
    })?;
    let known = || keys.iter().map(PublicKey::fingerprint).collect();
    let key = keys.iter().find(|key| key.fingerprint() == found);
    key.ok_or_else(|| SignatureError::Key { found, known: known() })
}

/// DSSE 1.0's PAE: what the signature is over.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
