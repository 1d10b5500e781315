//! The signed manifest: an in-toto Statement over every file of an export, in a DSSE envelope.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{MANIFEST_BYTES_MAX, canonical};
use crate::{
    core::lineage::{
        entry::{Decision, Gap},
        period::PeriodClose,
    },
    types::{CameraId, Instant, LineId, LotId, ProductId, RecipeRef, Score, Serial, Sha256Digest, StationId, Verdict},
};

/// The version of this format.
pub const FORMAT: u32 = 1;
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "urn:lineproof:export:1";

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has more than {MANIFEST_BYTES_MAX} bytes")]
    TooLong,
    #[error("the manifest is not the JSON this format asks for: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the manifest's {what} is {found:?}, not {expected:?}")]
    Type { what: &'static str, found: String, expected: &'static str },
    #[error("the manifest is format {found}; this release reads {FORMAT}; use a newer lineproof")]
    Newer { found: u32 },
    #[error("the manifest is not in its canonical form")]
    Form,
    #[error("the manifest is signed by {found}, the checkpoint by {expected}")]
    Key { found: String, expected: String },
    #[error("the manifest's signature does not verify")]
    Signature,
}

// Fields are in alphabetical order, because serde writes them in that order and manifests have sorted keys.

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: [EnvelopeSignature; 1],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
}

/// in-toto Statement v1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    pub statement_type: String,
    pub predicate: Predicate,
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    pub subject: Vec<Subject>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    pub digest: SubjectDigest,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// 64 hex digits, as in-toto writes digests.
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    pub absent: Absent,
    pub checkpoint: CheckpointFacts,
    pub container: Sha256Digest,
    pub counts: Counts,
    pub format: u32,
    pub selection: Selection,
    pub software: String,
}

/// Digests that entries name and whose texts the exporter did not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    pub calibrations: Vec<crate::types::Blake3Digest>,
    pub model_cards: Vec<crate::types::Blake3Digest>,
    pub recipes: Vec<crate::types::Blake3Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointFacts {
    pub origin: String,
    pub root: Sha256Digest,
    pub size: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub decisions: u64,
    pub entries: u64,
    /// Frames the gap entries stand for.
    pub gap_frames: u64,
    pub gaps: u64,
    pub not_decidable: u64,
    pub not_ok: u64,
    pub ok: u64,
    pub openings: u64,
    /// Entries that are neither decisions nor gaps.
    pub other: u64,
}

/// What was asked for. All that is set must match; `from` is included, `to` is not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub camera: Option<CameraId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<LineId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lot: Option<LotId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<Serial>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub product: Option<ProductId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipe: Option<RecipeRef>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score_max: Option<Score>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score_min: Option<Score>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub station: Option<StationId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<Instant>,
    /// Any of these; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub verdicts: Vec<Verdict>,
}

impl Selection {
    /// The same selection in the one form that gives the same bytes: verdicts sorted, none twice.
    #[must_use]
    pub fn normal(mut self) -> Self {
        self.verdicts.sort_unstable();
        self.verdicts.dedup();
        self
    }

    /// Whether a decision is one that was asked for.
    #[must_use]
    pub fn admits(&self, decision: &Decision, serial: Option<&str>, lot: Option<&str>) -> bool {
        let scores = self.score_min.is_none_or(|min| decision.scores.decision >= min)
            && self.score_max.is_none_or(|max| decision.scores.decision <= max);
        scores
            && self.admits_time(decision.time)
            && is_or_any(&self.line, &decision.line)
            && is_or_any(&self.station, &decision.station)
            && is_or_any(&self.camera, &decision.camera)
            && is_or_any(&self.product, &decision.product)
            && is_or_any(&self.recipe, &decision.recipe.name)
            && self.part.as_ref().is_none_or(|part| serial == Some(part.as_str()))
            && self.lot.as_ref().is_none_or(|asked| lot == Some(asked.as_str()))
            && (self.verdicts.is_empty() || self.verdicts.contains(&decision.verdict))
    }

    /// Whether a gap lies where and when the selection looks.
    #[must_use]
    pub fn admits_gap(&self, gap: &Gap) -> bool {
        self.admits_time(gap.time)
            && is_or_any(&self.line, &gap.line)
            && is_or_any(&self.station, &gap.station)
            && is_or_any(&self.camera, &gap.camera)
    }

    /// Whether a period is of a camera the selection looks at. Its close may be later than what was asked for.
    #[must_use]
    pub fn admits_close(&self, close: &PeriodClose) -> bool {
        is_or_any(&self.line, &close.line)
            && is_or_any(&self.station, &close.station)
            && is_or_any(&self.camera, &close.camera)
    }

    /// Whether a time is asked for.
    #[must_use]
    pub fn admits_time(&self, time: Instant) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }

    /// Whether nothing but time, line, station and camera was asked for, so that frame counters of the decisions and
    /// gaps together must have no holes.
    #[must_use]
    pub fn takes_every_frame(&self) -> bool {
        let Self {
            camera: _,
            from: _,
            line: _,
            station: _,
            to: _,
            lot,
            part,
            product,
            recipe,
            score_max,
            score_min,
            verdicts,
        } = self;
        lot.is_none()
            && part.is_none()
            && product.is_none()
            && recipe.is_none()
            && score_max.is_none()
            && score_min.is_none()
            && (verdicts.is_empty() || verdicts.len() == Verdict::ALL.len())
    }
}

fn is_or_any<T: PartialEq>(asked: &Option<T>, found: &T) -> bool {
    asked.as_ref().is_none_or(|asked| asked == found)
}

impl Statement {
    #[must_use]
    pub fn new(subject: Vec<Subject>, predicate: Predicate) -> Self {
        Self { statement_type: STATEMENT_TYPE.into(), predicate, predicate_type: PREDICATE_TYPE.into(), subject }
    }

    /// The bytes that go into the envelope.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement has string keys and no floats")
    }
}

/// DSSE's pre-authentication encoding of `payload`: what is signed.
#[must_use]
pub fn pae(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    out.extend(payload);
    out
}

/// The envelope's bytes.
#[must_use]
pub fn envelope(payload: &[u8], keyid: &str, signature: [u8; 64]) -> Vec<u8> {
    let signature = EnvelopeSignature { keyid: keyid.into(), sig: BASE64.encode(signature) };
    let envelope =
        Envelope { payload: BASE64.encode(payload), payload_type: PAYLOAD_TYPE.into(), signatures: [signature] };
    serde_json::to_vec(&envelope).expect("an envelope is three strings")
}

/// Checks form and signature of an envelope and reads what it says.
///
/// # Errors
/// [`ManifestError`]; nothing of an envelope whose signature fails is returned.
pub fn open(bytes: &[u8], keyid: &str, key: &VerifyingKey) -> Result<Statement, ManifestError> {
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLong);
    }
    let envelope_read: Envelope = serde_json::from_slice(bytes)?;
    let [signature] = &envelope_read.signatures;
    expect("payload type", &envelope_read.payload_type, PAYLOAD_TYPE)?;
    if signature.keyid != keyid {
        return Err(ManifestError::Key { found: signature.keyid.clone(), expected: keyid.into() });
    }
    let payload = BASE64.decode(&envelope_read.payload).map_err(|_| ManifestError::Form)?;
    let sig: [u8; 64] =
        BASE64.decode(&signature.sig).ok().and_then(|sig| sig.try_into().ok()).ok_or(ManifestError::Form)?;
    if envelope(&payload, keyid, sig) != bytes {
        return Err(ManifestError::Form);
    }
    key.verify_strict(&pae(&payload), &Signature::from_bytes(&sig)).map_err(|_| ManifestError::Signature)?;
    let format: FormatOnly = serde_json::from_slice(&payload)?;
    if format.predicate.format > FORMAT {
        return Err(ManifestError::Newer { found: format.predicate.format });
    }
    let statement: Statement = serde_json::from_slice(&payload)?;
    // The scanner sees what serde passes over, writing it again what the scanner cannot know: empty lists, for one.
    let is_canonical = canonical::check(&payload).is_ok() && statement.payload() == payload;
    if !is_canonical || statement.predicate.format != FORMAT {
        return Err(ManifestError::Form);
    }
    expect("statement type", &statement.statement_type, STATEMENT_TYPE)?;
    expect("predicate type", &statement.predicate_type, PREDICATE_TYPE)?;
    Ok(statement)
}

#[derive(Deserialize)]
struct FormatOnly {
    predicate: PredicateFormat,
}

#[derive(Deserialize)]
struct PredicateFormat {
    format: u32,
}

fn expect(what: &'static str, found: &str, expected: &'static str) -> Result<(), ManifestError> {
    let wrong = || ManifestError::Type { what, found: found.chars().take(80).collect(), expected };
    if found == expected { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn pae_is_the_one_of_the_dsse_specification() {
        // The specification's own example, with our payload type's length.
        assert_eq!(pae(b"hello world"), b"DSSEv1 28 application/vnd.in-toto+json 11 hello world");
    }

    #[test]
    fn every_flipped_bit_of_an_envelope_is_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let statement = Statement::new(
            vec![Subject { digest: SubjectDigest { sha256: Sha256Digest::of(b"").hex() }, name: "a".into() }],
            Predicate {
                absent: Absent::default(),
                checkpoint: CheckpointFacts { origin: "o".into(), root: Sha256Digest::of(b"r"), size: 9 },
                container: Sha256Digest::of(b"c"),
                counts: Counts::default(),
                format: FORMAT,
                selection: Selection { line: Some("l".parse().unwrap()), ..Selection::default() },
                software: "s".into(),
            },
        );
        let payload = statement.payload();
        let bytes = envelope(&payload, "o+00000000", key.sign(&pae(&payload)).to_bytes());
        assert_eq!(open(&bytes, "o+00000000", &key.verifying_key()).unwrap(), statement);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(open(&bad, "o+00000000", &key.verifying_key()).is_err(), "byte {at} bit {bit}");
            }
        }
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert!(matches!(open(&bytes, "o+00000000", &other), Err(ManifestError::Signature)));
    }
}
