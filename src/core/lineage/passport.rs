//! The passport of one part: a c2sp.org/tlog-proof text whose `extra` line carries the entry and what opens its
//! private values. The format is `docs/spec/passport.md`.

use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{
    checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError, VerifierKey, parse_decimal, parse_hash},
    entry::{ENTRY_BYTES_MAX, Entry, EntryError},
    private::Opening,
    tree::{PROOF_HASHES_MAX, ProofError, leaf_hash, verify_inclusion},
};
use crate::types::{EntryIndex, Sha256Digest};

/// Most openings in one passport: each private field once, with room for later fields.
pub const OPENINGS_MAX: usize = 16;
/// Longest opening in bytes: a value of 128 characters, each escaped as six bytes at worst, and its frame.
pub const OPENING_BYTES_MAX: usize = 1024;
/// Most bytes in the decoded `extra` line: the entry and the openings, each on a line.
pub const EXTRA_BYTES_MAX: usize = ENTRY_BYTES_MAX + OPENINGS_MAX * (OPENING_BYTES_MAX + 1);
/// Longest passport: `extra` in base64, the proof, the checkpoint, and the words around them.
pub const PASSPORT_BYTES_MAX: usize = EXTRA_BYTES_MAX * 4 / 3 + PROOF_HASHES_MAX * 45 + CHECKPOINT_BYTES_MAX + 256;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

#[derive(Debug, thiserror::Error)]
pub enum PassportError {
    #[error("a passport has at most {PASSPORT_BYTES_MAX} bytes, this file has {0}")]
    TooLong(usize),
    #[error("line {line} of the passport should be {expected}, found {found:?}")]
    Line { line: usize, expected: &'static str, found: String },
    #[error("the passport's `extra` line: {0}")]
    Extra(String),
    #[error("the passport's entry: {0}")]
    Entry(#[from] EntryError),
    #[error("the passport's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("the passport's proof: {0}")]
    Proof(#[from] ProofError),
    #[error("the {0} in the passport is not the one the entry was made with: value or salt was changed")]
    Opening(&'static str),
    #[error("the passport opens a {0}, but its entry holds none")]
    NoCommitment(&'static str),
    #[error("the passport opens the {0} twice")]
    OpenedTwice(&'static str),
}

/// A passport as it is written; nothing in it is checked until [`Self::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passport {
    pub index: EntryIndex,
    /// The entry's stored bytes, without line breaks.
    pub entry: Vec<u8>,
    pub openings: Vec<Opening>,
    /// RFC 6962 inclusion proof, the leaf's sibling first.
    pub proof: Vec<Sha256Digest>,
    /// The signed checkpoint, byte for byte.
    pub checkpoint: String,
}

/// What a passport proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub entry: Entry,
    pub leaf_hash: Sha256Digest,
    pub checkpoint: Checkpoint,
}

impl Passport {
    /// The text of the `.tlog-proof` file.
    ///
    /// # Panics
    /// When the entry has a line break: the log takes none that has.
    #[must_use]
    pub fn to_text(&self) -> String {
        assert!(!self.entry.contains(&b'\n'), "an entry has no line breaks");
        let mut extra = self.entry.clone();
        for opening in &self.openings {
            extra.push(b'\n');
            serde_json::to_writer(&mut extra, opening).expect("an opening is three strings");
        }
        let mut text = format!("{FIRST_LINE}\nextra {}\nindex {}\n", BASE64_STANDARD.encode(extra), self.index);
        for hash in &self.proof {
            writeln!(text, "{}", BASE64_STANDARD.encode(hash.0)).expect("a string takes any text");
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads the text of a `.tlog-proof` file.
    ///
    /// # Errors
    /// [`PassportError`] when it is no passport; a proof of a stranger's log, which has no entry in `extra`, is none.
    pub fn parse(text: &str) -> Result<Self, PassportError> {
        if text.len() > PASSPORT_BYTES_MAX {
            return Err(PassportError::TooLong(text.len()));
        }
        let wrong = |line, expected, found: &str| PassportError::Line {
            line,
            expected,
            found: found.chars().take(100).collect(),
        };
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or_else(|| wrong(1, "a proof, an empty line and a checkpoint", text))?;
        let mut lines = (1..).zip(head.split('\n'));
        let mut next = || lines.next().unwrap_or((1, ""));
        let (number, line) = next();
        if line != FIRST_LINE {
            return Err(wrong(number, FIRST_LINE, line));
        }
        let (number, line) = next();
        let extra =
            line.strip_prefix("extra ").ok_or_else(|| wrong(number, "`extra ` and the entry in base64", line))?;
        let (entry, openings) = parse_extra(extra)?;
        let (number, line) = next();
        let index = line
            .strip_prefix("index ")
            .and_then(parse_decimal)
            .ok_or_else(|| wrong(number, "`index ` and the entry's number", line))?;
        let mut proof = Vec::new();
        for (number, line) in lines {
            if proof.len() == PROOF_HASHES_MAX {
                return Err(wrong(number, "an empty line after at most 65 hashes", line));
            }
            proof.push(parse_hash(line).ok_or_else(|| wrong(number, "a hash of the proof, 32 bytes in base64", line))?);
        }
        Ok(Self { index: EntryIndex(index), entry, openings, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Checks everything the passport says with nothing but the log's public key: the checkpoint is signed by it, the
    /// entry is in the log the checkpoint describes, and the opened values are the ones the entry was made with.
    ///
    /// # Errors
    /// [`PassportError`] says what does not fit.
    pub fn verify(&self, key: &VerifierKey) -> Result<Verified, PassportError> {
        let checkpoint = self.verify_place(key)?;
        let leaf_hash = leaf_hash(&self.entry);
        let entry = Entry::parse(&self.entry)?;
        verify_openings(&entry, &self.openings)?;
        Ok(Verified { entry, leaf_hash, checkpoint })
    }

    /// Checks only that the entry's bytes, whatever they say, are in the log that the checkpoint describes, and that `key`
    /// signed the checkpoint.
    ///
    /// # Errors
    /// [`PassportError`] says what does not fit.
    pub fn verify_place(&self, key: &VerifierKey) -> Result<Checkpoint, PassportError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        verify_inclusion(self.index.0, checkpoint.size, &leaf_hash(&self.entry), &self.proof, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

/// Checks that each opening fits the commitment its entry holds, and that none is opened twice.
///
/// # Errors
/// [`PassportError::Opening`], [`PassportError::NoCommitment`] or [`PassportError::OpenedTwice`].
pub fn verify_openings(entry: &Entry, openings: &[Opening]) -> Result<(), PassportError> {
    let commitments = entry.commitments();
    for (at, opening) in openings.iter().enumerate() {
        let name = opening.field.name();
        if openings[..at].iter().any(|earlier| earlier.field == opening.field) {
            return Err(PassportError::OpenedTwice(name));
        }
        match commitments.get(opening.field) {
            None => return Err(PassportError::NoCommitment(name)),
            Some(commitment) if commitment != opening.commitment() => return Err(PassportError::Opening(name)),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The entry on the first line, one opening on each line after it.
fn parse_extra(base64: &str) -> Result<(Vec<u8>, Vec<Opening>), PassportError> {
    let bytes = BASE64_STANDARD.decode(base64).map_err(|error| PassportError::Extra(format!("not base64: {error}")))?;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let entry = lines.next().unwrap_or_default();
    if entry.is_empty() || entry.len() > ENTRY_BYTES_MAX {
        return Err(PassportError::Extra(format!("an entry has 1 to {ENTRY_BYTES_MAX} bytes, found {}", entry.len())));
    }
    let mut openings = Vec::new();
    for line in lines {
        if openings.len() == OPENINGS_MAX || line.len() > OPENING_BYTES_MAX {
            let limits =
                format!("it has more than {OPENINGS_MAX} opened values, or one over {OPENING_BYTES_MAX} bytes");
            return Err(PassportError::Extra(limits));
        }
        let opening = serde_json::from_slice(line)
            .map_err(|error| PassportError::Extra(format!("opened value {}: {error}", openings.len() + 1)))?;
        openings.push(opening);
    }
    Ok((entry.to_vec(), openings))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::lineage::{
        checkpoint::LogSigner,
        entry::tests::decision,
        private::PrivateField,
        tree::{Frontier, node_hash},
    };

    fn serial() -> Opening {
        Opening { field: PrivateField::Serial, salt: [3; 16], value: "Ø-4711\"".into() }
    }

    fn passport() -> (Passport, LogSigner) {
        let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
        let mut decision = decision(7);
        decision.private.serial = Some(serial().commitment());
        let entry = Entry::Decision(Box::new(decision)).encode().unwrap();
        let others = [leaf_hash(b"0"), leaf_hash(b"1"), leaf_hash(&entry)];
        let mut frontier = Frontier::default();
        others.iter().for_each(|leaf| frontier.push(*leaf));
        let checkpoint = signer.sign(&Checkpoint::new("plant.example/log", 3, frontier.root()));
        let proof = vec![node_hash(&others[0], &others[1])];
        (Passport { index: EntryIndex(2), entry, openings: vec![serial()], proof, checkpoint }, signer)
    }

    #[test]
    fn a_passport_reads_back_and_proves_its_part() {
        let (passport, signer) = passport();
        let read = Passport::parse(&passport.to_text()).unwrap();
        assert_eq!(read, passport);
        let verified = read.verify(signer.verifier_key()).unwrap();
        assert_eq!(verified.checkpoint.size, 3);
        assert!(matches!(verified.entry, Entry::Decision(_)));
    }

    #[test]
    fn no_changed_character_of_a_passport_passes() {
        let (passport, signer) = passport();
        let text = passport.to_text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 2;
            let Ok(bent) = String::from_utf8(bytes) else { continue };
            let verdict = Passport::parse(&bent).and_then(|bent| bent.verify(signer.verifier_key()));
            assert!(verdict.is_err(), "character {at}");
        }
    }

    #[test]
    fn another_serial_is_refused_in_plain_words() {
        let (mut passport, signer) = passport();
        passport.openings[0].value = "Ø-4712".into();
        let error = passport.verify(signer.verifier_key()).unwrap_err();
        assert!(matches!(error, PassportError::Opening("serial")), "{error}");
        passport.openings[0] = Opening { field: PrivateField::Lot, ..serial() };
        assert!(matches!(passport.verify(signer.verifier_key()), Err(PassportError::NoCommitment("lot"))));
        passport.openings = vec![serial(), serial()];
        assert!(matches!(passport.verify(signer.verifier_key()), Err(PassportError::OpenedTwice("serial"))));
    }

    #[test]
    fn a_passport_that_opens_nothing_carries_just_the_entry() {
        let (mut passport, signer) = passport();
        passport.openings.clear();
        let text = passport.to_text();
        let extra = text.lines().nth(1).unwrap().strip_prefix("extra ").unwrap();
        assert_eq!(BASE64_STANDARD.decode(extra).unwrap(), passport.entry);
        assert!(Passport::parse(&text).unwrap().verify(signer.verifier_key()).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(c2sp.org/tlog-proof@v1\n)?(extra [A-Za-z0-9+/=]{0,40}\n)?(index [0-9]{0,30}\n)?\\PC*(\n\n)?\\PC*") {
            let _ = Passport::parse(&text);
        }
    }
}
