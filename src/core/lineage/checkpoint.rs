//! Checkpoints: the signed statement of how many entries the log has and which root they lead to, as
//! c2sp.org/tlog-checkpoint and c2sp.org/signed-note say.

use std::{fmt, str::FromStr};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ed25519_dalek::{SigningKey, ed25519::signature::Signer as _};
use signed_note::{Note, Signer, StandardVerifier, Verifier, VerifierList};

use crate::types::Sha256Digest;

/// Longest checkpoint. Room for sixteen post-quantum cosignatures of 5 kB, as signed-note asks of verifiers.
pub const CHECKPOINT_BYTES_MAX: usize = 128 * 1024;
/// Longest key name, which is also the log's origin.
pub const KEY_NAME_BYTES_MAX: usize = 255;
/// Longest verifier key line: the name, the key id, and 33 bytes in base64.
pub const VKEY_BYTES_MAX: usize = KEY_NAME_BYTES_MAX + 64;
/// Signature type of Ed25519 in signed notes.
const ALGORITHM_ED25519: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("not a signed note: text, an empty line, and signature lines that begin with a dash were expected")]
    Note,
    #[error("the checkpoint is not signed by {expected}; its signatures are by {found}")]
    OtherKey { expected: String, found: String },
    #[error("the signature of {0} does not fit the checkpoint: it was changed, or signed with another key")]
    Signature(String),
    #[error("the checkpoint is of the log {found:?}, expected was {expected:?}")]
    Origin { found: String, expected: String },
    #[error("line {line} of the checkpoint should be {expected}, found {found:?}")]
    Line { line: u8, expected: &'static str, found: String },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key name has 1 to {KEY_NAME_BYTES_MAX} bytes and neither spaces nor '+': {0:?}")]
    Name(String),
    #[error("not a verifier key line such as plant.example/line-log+c74f20a3+ARpc2Q…: {0}")]
    Line(String),
}

/// What a checkpoint says, signatures aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, which is also its key's name.
    pub origin: String,
    pub size: u64,
    pub root: Sha256Digest,
    /// Lines a later release may add; opaque.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    #[must_use]
    pub fn new(origin: impl Into<String>, size: u64, root: Sha256Digest) -> Self {
        Self { origin: origin.into(), size, root, extensions: Vec::new() }
    }

    /// The note text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root.0));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Reads the note text, which nothing vouches for yet.
    ///
    /// # Errors
    /// [`CheckpointError::Line`].
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let wrong = |line, expected, found: &str| CheckpointError::Line {
            line,
            expected,
            found: found.chars().take(100).collect(),
        };
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let (origin, size_line, root_line) = (next(), next(), next());
        if origin.is_empty() {
            return Err(wrong(1, "the log's origin", origin));
        }
        let size = parse_decimal(size_line).ok_or_else(|| wrong(2, "the number of entries", size_line))?;
        let root = parse_hash(root_line).ok_or_else(|| wrong(3, "the root hash, 32 bytes in base64", root_line))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(wrong(4, "an extension that is not empty", ""));
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }

    /// Reads a signed checkpoint and checks that `key` signed it and that it is of the log `key` is named after.
    /// Signatures of other keys are passed over, as signed-note asks.
    ///
    /// # Errors
    /// [`CheckpointError`] says what does not fit.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse_text(&key.open_note(note)?)?;
        if checkpoint.origin != key.name() {
            let expected = key.name().to_owned();
            return Err(CheckpointError::Origin { found: checkpoint.origin, expected });
        }
        Ok(checkpoint)
    }

    /// Reads a signed checkpoint without checking any signature.
    ///
    /// # Errors
    /// [`CheckpointError`] when the text is no checkpoint.
    pub fn peek(note: &str) -> Result<Self, CheckpointError> {
        Self::parse_text(text_of(&parse_note(note)?)?)
    }
}

fn parse_note(note: &str) -> Result<Note, CheckpointError> {
    if note.len() > CHECKPOINT_BYTES_MAX {
        return Err(CheckpointError::TooLong(note.len()));
    }
    Note::from_bytes(note.as_bytes()).map_err(|_| CheckpointError::Note)
}

fn text_of(note: &Note) -> Result<&str, CheckpointError> {
    std::str::from_utf8(note.text()).map_err(|_| CheckpointError::Note)
}

/// The keys that signed a note, as it claims, at most a few of them.
fn signers(note: &Note) -> String {
    let bytes = note.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let (_, signatures) = text.rsplit_once("\n\n").unwrap_or_default();
    let names: Vec<String> = signatures
        .lines()
        .take(4)
        .filter_map(|line| signed_note::Signature::from_bytes(line.as_bytes()).ok())
        .map(|signature| format!("{}+{:08x}", signature.name().chars().take(80).collect::<String>(), signature.id()))
        .collect();
    names.join(", ")
}

/// A whole number as C2SP texts write it: decimal, no leading zeroes, no sign.
pub(in crate::core) fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    text.parse().ok().filter(|_| plain)
}

/// A hash as C2SP texts write it: 32 bytes in base64.
pub(in crate::core) fn parse_hash(text: &str) -> Option<Sha256Digest> {
    // 44 characters hold 32 bytes; longer text is not decoded at all.
    let bytes = if text.len() == 44 { BASE64_STANDARD.decode(text).ok()? } else { return None };
    Sha256Digest::from_slice(&bytes).ok()
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let printable = !name.chars().any(char::is_control);
    if name.len() <= KEY_NAME_BYTES_MAX && printable && signed_note::is_key_name_valid(name) {
        Ok(())
    } else {
        Err(KeyError::Name(name.chars().take(100).collect()))
    }
}

/// The public key of a log, from its vkey line `<name>+<key id>+<base64>`, and the log's earlier ones, if it had any.
#[derive(Clone)]
pub struct VerifierKey {
    verifier: StandardVerifier,
    line: String,
    /// Of the same log: what one of these signed counts, too.
    earlier: Vec<StandardVerifier>,
}

impl VerifierKey {
    /// The log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    /// The same key, and also any of these as far as they are of the same log: after a rotation, what is on the disk may
    /// be signed by the key before.
    #[must_use]
    pub fn with_earlier(mut self, keys: &[Self]) -> Self {
        let others = keys.iter().filter(|key| key.line != self.line && key.name() == self.name());
        self.earlier = others.map(|key| key.verifier.clone()).collect();
        self
    }

    /// The text of a note that this key, or an earlier one, signed. Signatures of other keys are passed over.
    ///
    /// # Errors
    /// [`CheckpointError`] when it is no note, or this key did not sign it.
    pub fn open_note(&self, note: &str) -> Result<String, CheckpointError> {
        let note = parse_note(note)?;
        let all = std::iter::once(&self.verifier).chain(&self.earlier);
        let known = VerifierList::new(all.map(|key| Box::new(key.clone()) as Box<dyn Verifier>).collect());
        note.verify(&known).map_err(|error| match error {
            signed_note::NoteError::InvalidSignature { name, .. } => CheckpointError::Signature(name),
            _ => CheckpointError::OtherKey { expected: self.to_string(), found: signers(&note) },
        })?;
        text_of(&note).map(str::to_owned)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    /// White space around the line is passed over, so that a file's content can be given as it is.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let line = text.trim();
        if line.len() > VKEY_BYTES_MAX {
            return Err(KeyError::Line(format!("it has {} bytes, at most {VKEY_BYTES_MAX} are allowed", line.len())));
        }
        let verifier = StandardVerifier::new(line).map_err(|error| {
            KeyError::Line(match error {
                signed_note::VerifierError::Id => "its key id does not belong to the name and the key".to_owned(),
                signed_note::VerifierError::Alg => "its key is not of the kind Ed25519".to_owned(),
                signed_note::VerifierError::Format => format!("{line:?}"),
            })
        })?;
        check_name(verifier.name())?;
        Ok(Self { verifier, line: line.to_owned(), earlier: Vec::new() })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line
    }
}

impl Eq for VerifierKey {}

/// The private key of a log. It is wiped from memory when dropped, and never printed.
pub struct LogSigner {
    key: SigningKey,
    verifier: VerifierKey,
    /// The key that comes next, which signs checkpoints beside this one while both are in use.
    next: Option<Box<Self>>,
}

impl LogSigner {
    /// The signer of the log called `name`, from an Ed25519 secret key of 32 bytes (RFC 8032).
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        let key = SigningKey::from_bytes(secret);
        let verifier = signed_note::new_ed25519_verifier_key(name, &key.verifying_key()).parse()?;
        Ok(Self { key, verifier, next: None })
    }

    /// The same signer, whose checkpoints `next` signs, too.
    ///
    /// # Panics
    /// When `next` is of another log: the caller read both from one file.
    #[must_use]
    pub fn with_next(self, next: Self) -> Self {
        assert_eq!(next.name(), self.name(), "the next key is of the same log");
        Self { next: Some(Box::new(next)), ..self }
    }

    /// The log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The signed note over a checkpoint of this log.
    ///
    /// # Panics
    /// When the checkpoint is of another log or has a line break in a line: the caller made it.
    #[must_use]
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        assert_eq!(checkpoint.origin, self.name(), "a log signs its own checkpoints");
        // Verifiers take the last signature by a key they were given for the one that everything else of an export is
        // signed with. That is this key, so it comes last.
        self.sign_with(&checkpoint.text(), self.next.as_deref().into_iter().chain([self]))
    }

    /// The note with this key's signature last among those of the log's name: a verifier takes the last one by a key it was
    /// given for the one that the rest of the evidence is signed with. `None` when this key has not signed it.
    #[must_use]
    pub fn put_last(&self, note: &str) -> Option<String> {
        let (text, signatures) = note.rsplit_once("\n\n")?;
        let (mut earlier, mut own, mut others) = (String::new(), String::new(), String::new());
        for line in signatures.lines() {
            let signature = signed_note::Signature::from_bytes(line.as_bytes()).ok()?;
            let place = match signature.name() == self.name() {
                true if signature.id() == self.key_id() => &mut own,
                true => &mut earlier,
                false => &mut others,
            };
            place.push_str(line);
            place.push('\n');
        }
        (!own.is_empty()).then(|| format!("{text}\n\n{earlier}{own}{others}"))
    }

    /// The signed note over a text that is no checkpoint: its first line must not be the log's name.
    ///
    /// # Panics
    /// When the text is none of a note: the caller made it.
    #[must_use]
    pub fn sign_text(&self, text: &str) -> String {
        self.sign_with(text, std::iter::once(self))
    }

    fn sign_with<'a>(&self, text: &str, signers: impl Iterator<Item = &'a Self>) -> String {
        let mut note = Note::new(text.as_bytes(), &[]).expect("a note text ends with a line break");
        signers.for_each(|signer| note.add_sigs(&[signer]).expect("an Ed25519 key signs any text"));
        String::from_utf8(note.to_bytes()).expect("a note is UTF-8")
    }
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogSigner({})", self.verifier)
    }
}

impl Signer for LogSigner {
    fn name(&self) -> &str {
        self.verifier.name()
    }

    fn key_id(&self) -> u32 {
        let public: Vec<u8> = [ALGORITHM_ED25519].into_iter().chain(self.key.verifying_key().to_bytes()).collect();
        signed_note::key_id(self.name(), &public)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.try_sign(message)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::tree::EMPTY_ROOT;

    fn signer(name: &str) -> LogSigner {
        LogSigner::new(name, &[7; 32]).unwrap()
    }

    #[test]
    fn a_signed_checkpoint_opens_with_its_key_and_no_other() {
        let signer = signer("plant.example/log");
        let checkpoint = Checkpoint::new("plant.example/log", 20_852_163, Sha256Digest::of(b"root"));
        let note = signer.sign(&checkpoint);
        let key: VerifierKey = format!("{}\n", signer.verifier_key()).parse().unwrap();
        assert_eq!(Checkpoint::open(&note, &key), Ok(checkpoint.clone()));
        let other = LogSigner::new("plant.example/log", &[8; 32]).unwrap();
        let error = Checkpoint::open(&note, other.verifier_key()).unwrap_err();
        assert!(matches!(error, CheckpointError::OtherKey { .. }), "{error}");
        let theirs = tlog_tiles::Checkpoint::from_bytes(checkpoint.text().as_bytes()).unwrap();
        assert_eq!(
            (theirs.origin(), theirs.size(), theirs.hash().0),
            ("plant.example/log", 20_852_163, checkpoint.root.0)
        );
    }

    #[test]
    fn while_two_keys_are_in_use_both_sign_checkpoints_and_the_current_one_comes_last() {
        let new = || LogSigner::new("plant.example/log", &[8; 32]).unwrap();
        let both = signer("plant.example/log").with_next(new());
        let note = both.sign(&Checkpoint::new("plant.example/log", 5, EMPTY_ROOT));
        let (old, new) = (both.verifier_key().clone(), new().verifier_key().clone());
        assert!(Checkpoint::open(&note, &old).is_ok() && Checkpoint::open(&note, &new).is_ok());
        let keys: crate::core::export::keys::Keys = format!("{new}\n{old}\n").parse().unwrap();
        assert_eq!(keys.open_checkpoint(note.as_bytes()).unwrap().key.line(), old.to_string());
        // Whoever signs evidence under it has the last word, in whatever order the lines came.
        let witness = crate::core::witness::cosign::Cosigner::new("w.example/w", &[9; 32]).unwrap();
        let (text, lines) = note.rsplit_once("\n\n").unwrap();
        let [first, second] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        let by_witness = witness.cosign(&format!("{text}\n"), 9);
        let shuffled = format!("{text}\n\n{second}\n{by_witness}{first}\n");
        assert_eq!(both.put_last(&shuffled).unwrap(), format!("{text}\n\n{first}\n{second}\n{by_witness}"));
        let next = LogSigner::new("plant.example/log", &[8; 32]).unwrap();
        assert_eq!(next.put_last(&note).unwrap(), format!("{text}\n\n{second}\n{first}\n"));
        assert_eq!(signer("other.example/log").put_last(&note), None);
        // Any other text only the current one signs.
        let text = both.sign_text("a manifest\n");
        assert!(old.open_note(&text).is_ok() && new.open_note(&text).is_err());
        assert!(new.clone().with_earlier(std::slice::from_ref(&old)).open_note(&text).is_ok());
        let stranger = LogSigner::new("other.example/log", &[8; 32]).unwrap();
        assert!(new.with_earlier(&[stranger.verifier_key().clone()]).open_note(&text).is_err());
    }

    #[test]
    fn no_changed_byte_passes() {
        let signer = signer("plant.example/log");
        let note = signer.sign(&Checkpoint::new("plant.example/log", 5, EMPTY_ROOT));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(Checkpoint::open(&text, signer.verifier_key()).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn the_notes_of_the_specification_open() {
        let key: VerifierKey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
        let note = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        // The signature fits, the text is a message and no checkpoint.
        assert!(matches!(Checkpoint::open(note, &key), Err(CheckpointError::Line { line: 2, .. })));
        let spec = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        assert_eq!(Checkpoint::peek(spec).unwrap().size, 20_852_163);
    }

    #[test]
    fn another_logs_checkpoint_under_the_same_key_is_refused() {
        let signer = signer("plant.example/log");
        let text = Checkpoint::new("other.example/log", 5, EMPTY_ROOT).text();
        let mut note = Note::new(text.as_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        let note = String::from_utf8(note.to_bytes()).unwrap();
        let error = Checkpoint::open(&note, signer.verifier_key()).unwrap_err();
        assert!(matches!(error, CheckpointError::Origin { .. }), "{error}");
    }

    #[test]
    fn numbers_and_hashes_have_one_spelling() {
        for wrong in ["", "01", "+1", "-1", "1 ", "18446744073709551616", "١"] {
            assert_eq!(parse_decimal(wrong), None, "{wrong}");
        }
        assert_eq!(parse_decimal("18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_hash("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), Some(EMPTY_ROOT));
        assert_eq!(parse_hash("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV="), None);
        assert!("plant.example/log".parse::<VerifierKey>().is_err());
        assert!(LogSigner::new("a b", &[0; 32]).is_err());
        assert!(LogSigner::new("a+b", &[0; 32]).is_err());
    }
}
