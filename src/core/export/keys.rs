//! The auditor's public keys, and what they say of a signed note (c2sp.org/signed-note, c2sp.org/tlog-cosignature).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::manifest::CheckpointFacts;
use crate::core::{
    lineage::{
        checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError},
        entry::COUNTER_MAX,
    },
    witness::policy::{Policy, Quorum},
};

/// Keys in one key file.
pub const KEYS_MAX: usize = 64;
const KEY_LINE_BYTES_MAX: usize = 512;
/// Signatures that are looked at in one note.
const SIGNATURES_MAX: usize = 64;
const ED25519: u8 = 1;
const COSIGNATURE: u8 = 4;
const ML_DSA_COSIGNATURE: u8 = 6;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("line {line} of the key file is no verifier key: {reason}")]
    Line { line: usize, reason: &'static str },
    #[error("the key file holds no key; it has lines such as `plant.example/log+530d903a+AekyeRrm…`")]
    Empty,
    #[error("the key file has more than {KEYS_MAX} keys")]
    TooMany,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    #[error("the checkpoint is no signed note: {0}")]
    Form(&'static str),
    #[error(transparent)]
    Checkpoint(CheckpointError),
    #[error("none of the given keys has signed the checkpoint of the log {origin:?}")]
    NoSignature { origin: String },
    #[error("the signature of {key} under the checkpoint does not verify")]
    Signature { key: String },
}

/// A public key with its name: a log's, or a witness's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    kind: u8,
    key: VerifyingKey,
}

impl VerifierKey {
    /// The key under which a log of this name signs.
    #[must_use]
    pub fn log(name: &str, key: VerifyingKey) -> Self {
        Self { name: name.into(), id: key_id(name, ED25519, key.as_bytes()), kind: ED25519, key }
    }

    /// The key under which a witness of this name cosigns (c2sp.org/tlog-cosignature, Ed25519).
    #[must_use]
    pub fn witness(name: &str, key: VerifyingKey) -> Self {
        Self { name: name.into(), id: key_id(name, COSIGNATURE, key.as_bytes()), kind: COSIGNATURE, key }
    }

    /// Reads a vkey line: `<name>+<8 hex>+<base64 of type and key>`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("a key has three parts, separated by +");
        };
        if name.is_empty() || name.chars().any(char::is_whitespace) {
            return Err("the name before the first + is empty or has spaces");
        }
        let key = BASE64.decode(key).map_err(|_| "the part after the second + is not base64")?;
        let (kind, key) = match key.split_first() {
            Some((&kind @ (ED25519 | COSIGNATURE), key)) => (kind, key),
            Some((&ML_DSA_COSIGNATURE, _)) => {
                return Err(
                    "it is an ML-DSA-44 key, which this release does not check; ask the witness for its Ed25519 key",
                );
            }
            _ => return Err("it is not an Ed25519 key"),
        };
        let bytes: &[u8; 32] = key.try_into().map_err(|_| "an Ed25519 key has 32 bytes")?;
        let expected = key_id(name, kind, bytes);
        if id != HEXLOWER.encode(&expected) {
            return Err("its eight hex digits do not belong to its name and key; a character was mistyped or lost");
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| "its 32 bytes are no Ed25519 key")?;
        // Under a key of small order anybody can sign; a point written in a second way would be a second key.
        if key.is_weak() || !is_canonical(bytes) {
            return Err("its 32 bytes are no Ed25519 key that anybody may trust");
        }
        Ok(Self { name: name.into(), id: expected, kind, key })
    }

    /// The vkey line, without a line break.
    #[must_use]
    pub fn line(&self) -> String {
        let key = [&[self.kind], self.key.as_bytes().as_slice()].concat();
        format!("{}+{}", self.key_id(), BASE64.encode(key))
    }

    /// Name and id, as a vkey line begins: `plant.example/log+530d903a`.
    #[must_use]
    pub fn key_id(&self) -> String {
        format!("{}+{}", self.name, HEXLOWER.encode(&self.id))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// SHA-256 of the 32 key bytes in groups of four hex digits, for reading out on the telephone.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hex = HEXLOWER.encode(&Sha256::digest(self.key.as_bytes()));
        let groups: Vec<&str> = (0..hex.len()).step_by(4).map(|at| &hex[at..at + 4]).collect();
        groups.join(" ")
    }

    /// A log's key, not a witness's.
    #[must_use]
    pub fn is_log(&self) -> bool {
        self.kind == ED25519
    }

    /// The four bytes a signature line of this key begins with.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Whether a signature line claims to be by this key.
    #[must_use]
    pub fn is_named_by(&self, line: &SignatureLine<'_>) -> bool {
        self.name == line.name && self.id == line.id
    }

    /// Checks a signature of a log's key over bytes that are no note.
    #[must_use]
    pub fn verify_bytes(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    /// Checks the bytes after the key id of a signature line.
    #[must_use]
    pub fn verify(&self, text: &str, signature: &[u8]) -> bool {
        let (message, signature) = if self.is_log() {
            (text.to_owned(), signature)
        } else {
            let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
            let time = u64::from_be_bytes(*time);
            // A witness says when: tlog-witness forbids zero, tlog-cosignature more than 63 bits.
            if time == 0 || i64::try_from(time).is_err() {
                return false;
            }
            (cosigned_message(time, text), signature)
        };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        self.key.verify_strict(message.as_bytes(), &signature).is_ok()
    }
}

/// What a witness signs (c2sp.org/tlog-cosignature): that it saw this checkpoint as the largest consistent one, and when.
#[must_use]
pub fn cosigned_message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Whether a point's y is below the field's prime 2^255 - 19 (RFC 8032 section 5.1.3).
fn is_canonical(point: &[u8; 32]) -> bool {
    let is_top = point[31] & 0x7f == 0x7f && point[1..31].iter().all(|byte| *byte == 0xff);
    !(is_top && point[0] >= 0xed)
}

fn key_id(name: &str, kind: u8, key: &[u8; 32]) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', kind]);
    hasher.update(key);
    let hash = hasher.finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The keys an auditor trusts: one per line; empty lines and lines that begin with `#` are skipped.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<VerifierKey>,
    policy: Option<Policy>,
}

impl Keys {
    /// Trusts these keys and nothing else yet.
    #[must_use]
    pub fn new(keys: Vec<VerifierKey>) -> Self {
        Self { keys, policy: None }
    }

    /// Demands a policy besides, and knows its witnesses. Where no key is given, the policy's logs are trusted.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        if self.keys.is_empty() {
            self.keys = policy.logs().to_vec();
        }
        self.policy = Some(policy);
        self
    }

    /// The logs' keys among them, in the order they were given.
    #[must_use]
    pub fn logs(&self) -> Vec<VerifierKey> {
        self.keys.iter().filter(|key| key.is_log()).cloned().collect()
    }

    /// Trusts one more key; nothing changes if it is known.
    pub(super) fn trust(&mut self, key: VerifierKey) {
        if let Some(policy) = &mut self.policy {
            policy.trust_log(&key);
        }
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    #[must_use]
    pub fn has_policy(&self) -> bool {
        self.policy.is_some()
    }

    /// The log's key with this name and id, if it was given.
    #[must_use]
    pub fn log_key(&self, name: &str, id: [u8; 4]) -> Option<&VerifierKey> {
        self.keys.iter().find(|key| key.is_log() && key.name == name && key.id == id)
    }

    fn find(&self, line: &SignatureLine<'_>) -> Option<&VerifierKey> {
        let witnesses = self.policy.iter().flat_map(Policy::witnesses);
        self.keys.iter().chain(witnesses).find(|key| key.is_named_by(line))
    }
}

impl std::str::FromStr for Keys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let wrong = |reason| KeyError::Line { line: at + 1, reason };
            if text.len() > KEY_LINE_BYTES_MAX {
                return Err(wrong("it is too long"));
            }
            keys.push(VerifierKey::parse(text).map_err(wrong)?);
            if keys.len() > KEYS_MAX {
                return Err(KeyError::TooMany);
            }
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self::new(keys)) }
    }
}

impl From<VerifierKey> for Keys {
    fn from(key: VerifierKey) -> Self {
        Self::new(vec![key])
    }
}

/// A checkpoint whose signature by a trusted key has been checked.
#[derive(Clone, Debug)]
pub struct Signed {
    pub facts: CheckpointFacts,
    /// The log's key that signed.
    pub key: VerifierKey,
    /// What known witnesses put under it, checked, in the note's order.
    pub cosignatures: Vec<Cosignature>,
    /// Signatures of keys that are not known here, as they call themselves: nothing about them was checked.
    pub unchecked: Vec<String>,
    /// What the policy says of it, if there is one.
    pub quorum: Option<Quorum>,
}

/// A witness's statement under a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    pub witness: VerifierKey,
    /// POSIX seconds by the witness's clock.
    pub time: u64,
}

impl Cosignature {
    /// The time as people read it, `2026-11-25T04:05:06Z`.
    #[must_use]
    pub fn time_text(&self) -> String {
        let time = i64::try_from(self.time).ok().and_then(|time| jiff::Timestamp::from_second(time).ok());
        time.map_or_else(|| format!("{} s", self.time), |time| time.to_string())
    }
}

impl Keys {
    /// Checks a checkpoint: a trusted key named like the log has signed it, and no trusted key's signature is wrong.
    /// What the policy says of it stands in the result.
    ///
    /// # Errors
    /// [`NoteError`]; the text of a note that fails is not to be believed.
    pub fn open_checkpoint(&self, note: &[u8]) -> Result<Signed, NoteError> {
        let note = std::str::from_utf8(note).map_err(|_| NoteError::Form("it is not UTF-8"))?;
        let Note { text, signatures } = Note::parse(note)?;
        let facts = read_checkpoint(text)?;
        let (mut log_keys, mut cosignatures, mut unchecked) = (Vec::new(), Vec::<Cosignature>::new(), Vec::new());
        for line in &signatures {
            let Some(key) = self.find(line) else {
                unchecked.push(line.key_id());
                continue;
            };
            if !key.verify(text, &line.signature) {
                return Err(NoteError::Signature { key: key.key_id() });
            }
            match line.time().filter(|_| !key.is_log()) {
                // A witness may have been asked twice; its first word is the one that says most.
                Some(time) => match cosignatures.iter_mut().find(|known| known.witness == *key) {
                    Some(known) => known.time = known.time.min(time),
                    None => cosignatures.push(Cosignature { witness: key.clone(), time }),
                },
                None if key.name == facts.origin => log_keys.push(key.clone()),
                None => {}
            }
        }
        let quorum = self.policy.as_ref().map(|policy| policy.evaluate(&log_keys, &cosignatures));
        let key = log_keys.pop().ok_or_else(|| NoteError::NoSignature { origin: facts.origin.clone() })?;
        Ok(Signed { facts, key, cosignatures, unchecked, quorum })
    }
}

/// A signed note in its two parts; nothing in it is checked.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    /// With its last line break.
    pub text: &'a str,
    pub signatures: Vec<SignatureLine<'a>>,
}

/// One line below a note's text.
#[derive(Clone, Debug)]
pub struct SignatureLine<'a> {
    pub name: &'a str,
    pub id: [u8; 4],
    /// The bytes after the id.
    pub signature: Vec<u8>,
    /// The line itself, without its line break.
    pub line: &'a str,
}

impl SignatureLine<'_> {
    /// Name and id as a vkey line begins, the name made fit for a line of text: a stranger chose it.
    #[must_use]
    pub fn key_id(&self) -> String {
        let name: String = self.name.chars().take(80).flat_map(char::escape_debug).collect();
        format!("{name}+{}", HEXLOWER.encode(&self.id))
    }

    /// The time a cosignature begins with.
    #[must_use]
    pub fn time(&self) -> Option<u64> {
        self.signature.first_chunk::<8>().map(|time| u64::from_be_bytes(*time))
    }

    fn read(line: &str) -> Option<SignatureLine<'_>> {
        let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = BASE64.decode(signature).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        let is_name = !name.is_empty() && !name.chars().any(|c| c == '+' || c.is_whitespace());
        (is_name && !signature.is_empty()).then(|| SignatureLine { name, id: *id, signature: signature.to_vec(), line })
    }
}

impl<'a> Note<'a> {
    /// Reads a note of at most [`CHECKPOINT_BYTES_MAX`] bytes and 64 signatures.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > CHECKPOINT_BYTES_MAX {
            return Err(NoteError::Form("it is too long"));
        }
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Form("it has control characters"));
        }
        let separator = note.rfind("\n\n").ok_or(NoteError::Form("it has no empty line before the signatures"))?;
        Ok(Self { text: &note[..=separator], signatures: read_signatures(&note[separator + 2..])? })
    }
}

/// Signature lines, each with its line break.
///
/// # Errors
/// [`NoteError::Form`].
pub fn read_signatures(text: &str) -> Result<Vec<SignatureLine<'_>>, NoteError> {
    let text = text.strip_suffix('\n').ok_or(NoteError::Form("its last line is cut off"))?;
    let lines: Vec<&str> = text.split('\n').collect();
    if lines.len() > SIGNATURES_MAX {
        return Err(NoteError::Form("it has too many signatures"));
    }
    let lines: Option<_> = lines.into_iter().map(SignatureLine::read).collect();
    lines.ok_or(NoteError::Form("a signature line is damaged"))
}

/// What a checkpoint's text says.
///
/// # Errors
/// [`NoteError::Checkpoint`].
pub fn read_checkpoint(text: &str) -> Result<CheckpointFacts, NoteError> {
    let checkpoint = Checkpoint::parse_text(text).map_err(NoteError::Checkpoint)?;
    if checkpoint.size > COUNTER_MAX {
        return Err(NoteError::Form("a log has less than 2^53 entries"));
    }
    Ok(CheckpointFacts { origin: checkpoint.origin, root: checkpoint.root, size: checkpoint.size })
}

#[cfg(test)]
pub(crate) mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::types::Sha256Digest;

    /// A checkpoint signed by `key` under the origin's name.
    pub(crate) fn checkpoint(origin: &str, size: u64, root: Sha256Digest, key: &SigningKey) -> String {
        let text = format!("{origin}\n{size}\n{}\n", BASE64.encode(root.0));
        let vkey = VerifierKey::log(origin, key.verifying_key());
        let signature = [&vkey.id[..], &key.sign(text.as_bytes()).to_bytes()].concat();
        format!("{text}\n— {origin} {}\n", BASE64.encode(signature))
    }

    #[test]
    fn the_specifications_own_note_verifies() {
        let key = VerifierKey::parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k").unwrap();
        let line = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=";
        let signature = BASE64.decode(line).unwrap();
        assert_eq!(signature[..4], key.id);
        assert!(key.verify("This is an example message.\n", &signature[4..]));
        assert!(!key.verify("This is another message.\n", &signature[4..]));
        assert_eq!(key.line(), "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    }

    #[test]
    fn a_key_file_may_hold_several_keys_and_notes() {
        let one = VerifierKey::log("plant.example/log", SigningKey::from_bytes(&[1; 32]).verifying_key());
        let two = VerifierKey::log("plant.example/log", SigningKey::from_bytes(&[2; 32]).verifying_key());
        let keys: Keys = format!("# until 2025\n{}\n\n{}\r\n", one.line(), two.line()).parse().unwrap();
        assert_eq!(keys.keys, [one, two.clone()]);
        let note = checkpoint("plant.example/log", 5, Sha256Digest::of(b"r"), &SigningKey::from_bytes(&[2; 32]));
        assert_eq!(keys.open_checkpoint(note.as_bytes()).unwrap().key, two);
        assert_eq!("".parse::<Keys>().unwrap_err(), KeyError::Empty);
        let mistyped = two.line().replacen("plant", "plamt", 1);
        assert!(matches!(mistyped.parse::<Keys>(), Err(KeyError::Line { line: 1, .. })));
    }

    #[test]
    fn every_flipped_bit_of_a_checkpoint_is_refused() {
        let signing = SigningKey::from_bytes(&[3; 32]);
        let keys: Keys = VerifierKey::log("plant.example/log", signing.verifying_key()).into();
        let note = checkpoint("plant.example/log", 5, Sha256Digest::of(b"r"), &signing).into_bytes();
        assert_eq!(keys.open_checkpoint(&note).unwrap().facts.size, 5);
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bad = note.clone();
                bad[at] ^= 1 << bit;
                assert!(keys.open_checkpoint(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_key_of_another_log_does_not_speak_for_this_one() {
        let signing = SigningKey::from_bytes(&[3; 32]);
        let other: Keys = VerifierKey::log("plant.example/other", signing.verifying_key()).into();
        let note = checkpoint("plant.example/log", 5, Sha256Digest::of(b"r"), &signing);
        assert!(matches!(other.open_checkpoint(note.as_bytes()), Err(NoteError::NoSignature { .. })));
    }

    #[test]
    fn a_trusted_witness_is_named_and_its_wrong_signature_refuses_the_note() {
        let (signing, witness) = (SigningKey::from_bytes(&[3; 32]), SigningKey::from_bytes(&[4; 32]));
        let note = checkpoint("plant.example/log", 5, Sha256Digest::of(b"r"), &signing);
        let text = &note[..=note.rfind("\n\n").unwrap()];
        let vkey = VerifierKey::witness("oem.example/w", witness.verifying_key());
        let (id, time) = (vkey.id, 1_800_000_000_u64);
        let signature = witness.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes()).to_bytes();
        let line = BASE64.encode([&id[..], &time.to_be_bytes(), &signature].concat());
        let log = VerifierKey::log("plant.example/log", signing.verifying_key());
        let keys = Keys::new(vec![log.clone(), VerifierKey::parse(&vkey.line()).unwrap()]);
        let cosigned = format!("{note}— oem.example/w {line}\n");
        let signed = keys.open_checkpoint(cosigned.as_bytes()).unwrap();
        assert_eq!(signed.cosignatures, [Cosignature { witness: vkey.clone(), time }]);
        assert_eq!(signed.cosignatures[0].time_text(), "2027-01-15T08:00:00Z");
        let signed = Keys::from(log).open_checkpoint(cosigned.as_bytes()).unwrap();
        assert_eq!((signed.cosignatures, signed.unchecked), (Vec::new(), vec![vkey.key_id()]));
        let later = BASE64.encode([&id[..], &(time + 1).to_be_bytes(), &signature].concat());
        let forged = format!("{note}— oem.example/w {later}\n");
        assert!(matches!(keys.open_checkpoint(forged.as_bytes()), Err(NoteError::Signature { .. })));
    }
}
