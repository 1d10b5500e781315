//! Cosigning, and a checkpoint with the cosignatures it has gathered.

use std::{collections::BTreeMap, fmt};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::core::{
    export::keys::{
        Cosignature, Note, NoteError, SignatureLine, VerifierKey, cosigned_message, read_checkpoint, read_signatures,
    },
    export::manifest::CheckpointFacts,
    lineage::checkpoint::{KEY_NAME_BYTES_MAX, KeyError},
};

/// The private key of a witness. It is wiped from memory when dropped, and never printed.
pub struct Cosigner {
    key: SigningKey,
    verifier: VerifierKey,
}

impl Cosigner {
    /// The witness called `name`, from an Ed25519 secret key of 32 bytes. The name is not part of what is signed, so a
    /// secret belongs to one witness only (c2sp.org/tlog-cosignature).
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, KeyError> {
        let printable = !name.chars().any(char::is_control);
        if name.len() > KEY_NAME_BYTES_MAX || !printable || !signed_note::is_key_name_valid(name) {
            return Err(KeyError::Name(name.chars().take(100).collect()));
        }
        let key = SigningKey::from_bytes(secret);
        let verifier = VerifierKey::witness(name, key.verifying_key());
        Ok(Self { key, verifier })
    }

    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The signature line, with its line break, over a checkpoint's text as seen at `time`, POSIX seconds.
    ///
    /// # Panics
    /// When `time` is zero or has more than 63 bits, which no verifier would take.
    #[must_use]
    pub fn cosign(&self, text: &str, time: u64) -> String {
        assert!(time > 0 && i64::try_from(time).is_ok(), "a cosignature says when");
        let signature = self.key.sign(cosigned_message(time, text).as_bytes()).to_bytes();
        let bytes = [&self.verifier.id()[..], &time.to_be_bytes(), &signature].concat();
        format!("— {} {}\n", self.verifier.name(), BASE64_STANDARD.encode(bytes))
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.verifier.key_id())
    }
}

/// A checkpoint, its log's signature, and one cosignature of each witness that gave one. Every line was checked;
/// signatures of strangers are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    facts: CheckpointFacts,
    text: String,
    log_lines: Vec<String>,
    /// Whose lines these are.
    signers: Vec<VerifierKey>,
    /// By name and id of the key: the order in the note.
    cosignatures: BTreeMap<String, (Cosignature, String)>,
}

impl Cosigned {
    /// Reads a note that one of `logs` signed under the log's name, with what `witnesses` put under it.
    ///
    /// # Errors
    /// [`NoteError`]: no such signature, or one of a known key that does not verify.
    pub fn open(note: &str, logs: &[VerifierKey], witnesses: &[VerifierKey]) -> Result<Self, NoteError> {
        let Note { text, signatures } = Note::parse(note)?;
        let facts = read_checkpoint(text)?;
        let (mut log_lines, mut signers) = (Vec::new(), Vec::new());
        for line in &signatures {
            let Some(key) = logs.iter().find(|key| key.is_named_by(line) && key.name() == facts.origin) else {
                continue;
            };
            check(key, text, line)?;
            log_lines.push(format!("{}\n", line.line));
            signers.push(key.clone());
        }
        if log_lines.is_empty() {
            return Err(NoteError::NoSignature { origin: facts.origin });
        }
        let mut cosigned = Self { facts, text: text.to_owned(), log_lines, signers, cosignatures: BTreeMap::new() };
        cosigned.add_lines(&signatures, witnesses)?;
        Ok(cosigned)
    }

    /// Adds what `witnesses` say in these signature lines. Of two by one witness, the earlier stays.
    ///
    /// # Errors
    /// [`NoteError`] when the lines are none, or one of a known witness does not verify; nothing of them is then added.
    pub fn add(&mut self, lines: &str, witnesses: &[VerifierKey]) -> Result<(), NoteError> {
        let mut with = self.clone();
        with.add_lines(&read_signatures(lines)?, witnesses)?;
        *self = with;
        Ok(())
    }

    fn add_lines(&mut self, lines: &[SignatureLine<'_>], witnesses: &[VerifierKey]) -> Result<(), NoteError> {
        for line in lines {
            let Some(key) = witnesses.iter().find(|key| key.is_named_by(line)) else { continue };
            check(key, &self.text, line)?;
            let time = line.time().expect("a cosignature that verifies begins with its time");
            let new = (Cosignature { witness: key.clone(), time }, format!("{}\n", line.line));
            let entry = self.cosignatures.entry(key.key_id()).or_insert_with(|| new.clone());
            if new.0.time < entry.0.time {
                *entry = new;
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn facts(&self) -> &CheckpointFacts {
        &self.facts
    }

    /// The note's text, which all signatures are over.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signed note: log first, then witnesses by name.
    #[must_use]
    pub fn note(&self) -> String {
        format!("{}\n{}{}", self.text, self.log_lines.concat(), self.cosignature_lines())
    }

    /// The signed note, with every further signature line that `note` has under the same text, checked or not.
    ///
    /// # Panics
    /// When `note` is no note over this text: this was made from it.
    #[must_use]
    pub fn note_with_others(&self, note: &str) -> String {
        let others = Note::parse(note).expect("a note that was opened before");
        assert_eq!(others.text, self.text, "the same checkpoint");
        let mut all = self.note();
        for line in others.signatures {
            if !all.lines().any(|known| known == line.line) {
                all += &format!("{}\n", line.line);
            }
        }
        all
    }

    /// The witnesses' signature lines alone, each with its line break.
    #[must_use]
    pub fn cosignature_lines(&self) -> String {
        self.cosignatures.values().map(|(_, line)| line.as_str()).collect()
    }

    #[must_use]
    pub fn cosignatures(&self) -> Vec<Cosignature> {
        self.cosignatures.values().map(|(cosignature, _)| cosignature.clone()).collect()
    }

    /// The log's keys that signed it.
    #[must_use]
    pub fn signers(&self) -> &[VerifierKey] {
        &self.signers
    }

    #[must_use]
    pub fn is_cosigned_by(&self, witness: &VerifierKey) -> bool {
        self.cosignatures.contains_key(&witness.key_id())
    }
}

fn check(key: &VerifierKey, text: &str, line: &SignatureLine<'_>) -> Result<(), NoteError> {
    if key.verify(text, &line.signature) { Ok(()) } else { Err(NoteError::Signature { key: key.key_id() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::{
        checkpoint::{Checkpoint, LogSigner},
        tree::EMPTY_ROOT,
    };

    fn log() -> (LogSigner, VerifierKey, String) {
        let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
        let key = VerifierKey::parse(&signer.verifier_key().to_string()).unwrap();
        let note = signer.sign(&Checkpoint::new("plant.example/log", 5, EMPTY_ROOT));
        (signer, key, note)
    }

    #[test]
    fn the_specifications_example_has_its_frame() {
        // tlog-cosignature prints this line and the time it is of; it prints no key for it.
        let line = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let lines = read_signatures(line).unwrap();
        assert_eq!((lines[0].name, lines[0].time()), ("witness.example.com/w1", Some(1_679_315_147)));
        assert_eq!(lines[0].signature.len(), 8 + 64);
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(cosigned_message(1_679_315_147, text), format!("cosignature/v1\ntime 1679315147\n{text}"));
    }

    #[test]
    fn cosignatures_gather_under_one_checkpoint_and_strangers_do_not() {
        let (_, key, note) = log();
        let [one, two] = [1, 2].map(|n| Cosigner::new(&format!("w{n}.example"), &[n; 32]).unwrap());
        let known = [one.verifier_key().clone(), two.verifier_key().clone()];
        let mut cosigned = Cosigned::open(&note, std::slice::from_ref(&key), &known).unwrap();
        let stranger = Cosigner::new("w3.example", &[3; 32]).unwrap().cosign(cosigned.text(), 9);
        let text = cosigned.text().to_owned();
        cosigned.add(&format!("{stranger}{}", two.cosign(&text, 20)), &known).unwrap();
        cosigned.add(&one.cosign(&text, 30), &known).unwrap();
        cosigned.add(&one.cosign(&text, 25), &known).unwrap();
        cosigned.add(&one.cosign(&text, 35), &known).unwrap();
        let times: Vec<u64> = cosigned.cosignatures().iter().map(|cosignature| cosignature.time).collect();
        assert_eq!(times, [25, 20]);
        assert_eq!(cosigned.note(), format!("{note}{}{}", one.cosign(&text, 25), two.cosign(&text, 20)));
        assert_eq!(Cosigned::open(&cosigned.note(), &[key], &known).unwrap(), cosigned);
    }

    #[test]
    fn a_wrong_cosignature_adds_nothing() {
        let (signer, key, note) = log();
        let witness = Cosigner::new("w1.example", &[1; 32]).unwrap();
        let known = [witness.verifier_key().clone()];
        let mut cosigned = Cosigned::open(&note, &[key], &known).unwrap();
        let other = signer.sign(&Checkpoint::new("plant.example/log", 6, EMPTY_ROOT));
        let line = witness.cosign(Note::parse(&other).unwrap().text, 9);
        assert!(matches!(cosigned.add(&line, &known), Err(NoteError::Signature { .. })));
        assert!(matches!(cosigned.add("— w1.example AAAA", &known), Err(NoteError::Form(_))));
        assert_eq!(cosigned.note(), note);
    }

    #[test]
    fn a_time_of_zero_or_beyond_63_bits_is_no_cosignature() {
        let (_, _, note) = log();
        let text = Note::parse(&note).unwrap().text;
        let secret = SigningKey::from_bytes(&[1; 32]);
        let key = VerifierKey::witness("w1.example", secret.verifying_key());
        for (time, good) in [(0, false), (1, true), (i64::MAX as u64, true), (i64::MAX as u64 + 1, false)] {
            let signature = secret.sign(cosigned_message(time, text).as_bytes()).to_bytes();
            assert_eq!(key.verify(text, &[&time.to_be_bytes()[..], &signature].concat()), good, "{time}");
        }
    }
}
