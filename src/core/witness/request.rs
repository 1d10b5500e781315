//! The request a log makes of a witness, and what the witness must answer: `add-checkpoint` of c2sp.org/tlog-witness.

use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::cosign::Cosigned;
use crate::{
    core::{
        export::keys::{NoteError, VerifierKey},
        export::manifest::CheckpointFacts,
        lineage::{
            checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, parse_decimal, parse_hash},
            tree::{EMPTY_ROOT, ProofError, verify_consistency},
        },
    },
    types::Sha256Digest,
};

/// Proof lines in one request; a tree of 2^63 entries needs no more.
pub const REQUEST_HASHES_MAX: usize = 63;
/// Bytes of one request: the old size, the proof, and the checkpoint.
pub const REQUEST_BYTES_MAX: usize = 32 + REQUEST_HASHES_MAX * 45 + CHECKPOINT_BYTES_MAX;

/// What a log asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size the log believes this witness cosigned last.
    pub old: u64,
    /// From `old` to the checkpoint's size (RFC 6962 section 2.1.2).
    pub proof: Vec<Sha256Digest>,
    /// The signed checkpoint.
    pub note: String,
}

/// Why a witness does not cosign. Each has its HTTP status in the specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Malformed(String),
    #[error("this witness does not know the log {origin:?}; its operator adds the log's vkey to witness.toml")]
    UnknownLog { origin: String },
    #[error("the checkpoint is not signed by a key this witness trusts for its log: {0}")]
    Signature(String),
    #[error("this witness cosigned {known} entries last; prove the way from there")]
    OtherSize { known: u64 },
    #[error("the checkpoint does not continue the log this witness knows: {0}")]
    Inconsistent(String),
}

impl Refusal {
    /// The HTTP status that says it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::UnknownLog { .. } => 404,
            Self::Signature(_) => 403,
            Self::OtherSize { .. } => 409,
            Self::Inconsistent(_) => 422,
        }
    }
}

impl AddCheckpoint {
    /// The request's body, and what a request on a stick is.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.proof {
            writeln!(text, "{}", BASE64_STANDARD.encode(hash.0)).expect("a string takes any text");
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = |reason: String| Refusal::Malformed(reason);
        if text.len() > REQUEST_BYTES_MAX {
            return Err(wrong(format!("a request has at most {REQUEST_BYTES_MAX} bytes, this one has {}", text.len())));
        }
        let (head, note) =
            text.split_once("\n\n").ok_or_else(|| wrong("no empty line before the checkpoint".into()))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_decimal);
        let old = old.ok_or_else(|| wrong("the first line is not `old <size>`".into()))?;
        let mut proof = Vec::new();
        for (number, line) in (2..).zip(lines) {
            if proof.len() == REQUEST_HASHES_MAX {
                return Err(wrong(format!("more than {REQUEST_HASHES_MAX} proof lines")));
            }
            proof.push(parse_hash(line).ok_or_else(|| wrong(format!("line {number} is no hash in base64")))?);
        }
        Ok(Self { old, proof, note: note.to_owned() })
    }

    /// The log this is of, as it claims.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn origin(&self) -> Result<String, Refusal> {
        Checkpoint::peek(&self.note)
            .map(|checkpoint| checkpoint.origin)
            .map_err(|error| Refusal::Malformed(error.to_string()))
    }

    /// Whether a witness that trusts `logs` for this origin and cosigned `latest` last may cosign: every check of the
    /// specification, in its order. Returns the checkpoint with the log's signature under it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn judge(&self, logs: &[VerifierKey], latest: Option<&CheckpointFacts>) -> Result<Cosigned, Refusal> {
        let origin = self.origin()?;
        if !logs.iter().any(|key| key.name() == origin) {
            return Err(Refusal::UnknownLog { origin });
        }
        let cosigned = Cosigned::open(&self.note, logs, &[]).map_err(|error| match error {
            NoteError::Form(_) | NoteError::Checkpoint(_) => Refusal::Malformed(error.to_string()),
            NoteError::NoSignature { .. } | NoteError::Signature { .. } => Refusal::Signature(error.to_string()),
        })?;
        let CheckpointFacts { size, root, .. } = cosigned.facts();
        if self.old > *size {
            let reason = format!("the old size {} is larger than the checkpoint's {size}", self.old);
            return Err(Refusal::Malformed(reason));
        }
        let known = latest.map_or(0, |latest| latest.size);
        if self.old != known {
            return Err(Refusal::OtherSize { known });
        }
        if *size == 0 && *root != EMPTY_ROOT {
            return Err(Refusal::Inconsistent("a log without entries has the empty root".into()));
        }
        let known_root = latest.map_or(EMPTY_ROOT, |latest| latest.root);
        verify_consistency(known, &known_root, *size, root, &self.proof)
            .map_err(|error: ProofError| Refusal::Inconsistent(error.to_string()))?;
        Ok(cosigned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::lineage::{
        checkpoint::LogSigner,
        tree::{HashReader, consistency_proof, leaf_hash, root_of},
    };

    struct Leaves(Vec<Sha256Digest>);

    impl HashReader for Leaves {
        type Error = std::convert::Infallible;
        fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, Self::Error> {
            let (start, width) = (usize::try_from(index << level).unwrap(), 1 << level);
            Ok(root_of(self.0[start..start + width].iter().copied()))
        }
    }

    fn leaves(salt: &str) -> Leaves {
        Leaves((0..20).map(|n| leaf_hash(format!("{salt}{n}").as_bytes())).collect())
    }

    fn facts(tree: &Leaves, size: usize) -> CheckpointFacts {
        let root = root_of(tree.0[..size].iter().copied());
        CheckpointFacts { origin: "plant.example/log".into(), root, size: size as u64 }
    }

    fn signer() -> LogSigner {
        LogSigner::new("plant.example/log", &[7; 32]).unwrap()
    }

    fn keys() -> [VerifierKey; 1] {
        [VerifierKey::parse(&signer().verifier_key().to_string()).unwrap()]
    }

    fn request(tree: &Leaves, old: u64, size: usize) -> AddCheckpoint {
        let facts = facts(tree, size);
        let note = signer().sign(&Checkpoint::new(facts.origin, facts.size, facts.root));
        let needs_proof = 0 < old && old < facts.size;
        let proof = if needs_proof { consistency_proof(old, facts.size, tree).unwrap() } else { Vec::new() };
        AddCheckpoint { old, proof, note }
    }

    fn status(request: &AddCheckpoint, latest: Option<&CheckpointFacts>) -> u16 {
        request.judge(&keys(), latest).map_or_else(|refusal| refusal.status(), |_| 200)
    }

    #[test]
    fn a_log_that_grows_is_cosigned_and_nothing_else_is() {
        let (tree, fork) = (leaves("a"), leaves("b"));
        assert_eq!(status(&request(&tree, 0, 7), None), 200);
        let seven = facts(&tree, 7);
        assert_eq!(status(&request(&tree, 7, 13), Some(&seven)), 200);
        assert_eq!(status(&request(&tree, 7, 7), Some(&seven)), 200, "the same again");
        assert_eq!(status(&request(&fork, 7, 13), Some(&seven)), 422, "another history");
        assert_eq!(status(&request(&fork, 7, 7), Some(&seven)), 422, "another root of the same size");
        assert_eq!(status(&request(&tree, 0, 7), Some(&seven)), 409);
        assert_eq!(status(&request(&tree, 5, 7), Some(&seven)), 409);
        let conflict = request(&tree, 5, 6).judge(&keys(), Some(&seven)).unwrap_err();
        assert_eq!(conflict, Refusal::OtherSize { known: 7 }, "a rolled-back log learns where the witness stands");
        assert_eq!(status(&AddCheckpoint { old: 8, ..request(&tree, 7, 7) }, Some(&seven)), 400);
        let mut short = request(&tree, 7, 13);
        short.proof.pop();
        assert_eq!(status(&short, Some(&seven)), 422);
        let mut proof_from_nothing = request(&tree, 0, 7);
        proof_from_nothing.proof.push(EMPTY_ROOT);
        assert_eq!(status(&proof_from_nothing, None), 422);
    }

    #[test]
    fn the_empty_log_has_one_root() {
        let note = |root| signer().sign(&Checkpoint::new("plant.example/log", 0, root));
        let request = |root| AddCheckpoint { old: 0, proof: Vec::new(), note: note(root) };
        assert_eq!(status(&request(EMPTY_ROOT), None), 200);
        assert_eq!(status(&request(Sha256Digest::of(b"x")), None), 422);
    }

    #[test]
    fn strangers_are_404_and_forgeries_403() {
        let tree = leaves("a");
        let good = request(&tree, 0, 7);
        assert_eq!(good.judge(&[], None).unwrap_err().status(), 404);
        let stranger = LogSigner::new("plant.example/log", &[8; 32]).unwrap();
        let facts = facts(&tree, 7);
        let note = stranger.sign(&Checkpoint::new(facts.origin, facts.size, facts.root));
        assert_eq!(status(&AddCheckpoint { note: note.clone(), ..good.clone() }, None), 403);
        // A known key's line that does not verify spoils the note, whatever else is signed.
        let own = good.note.lines().last().unwrap();
        let at = own.len() - 6;
        let other = if own.as_bytes()[at] == b'A' { "B" } else { "A" };
        let flipped = format!("{}{other}{}", &own[..at], &own[at + 1..]);
        assert_eq!(status(&AddCheckpoint { note: format!("{}{flipped}\n", good.note), ..good.clone() }, None), 403);
        // A stranger's line besides is passed over.
        let theirs = note.lines().last().unwrap();
        assert_eq!(status(&AddCheckpoint { note: format!("{}{theirs}\n", good.note), ..good }, None), 200);
    }

    #[test]
    fn the_specifications_request_reads_and_writes_itself() {
        let text = "old 20852014\n\
            PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
            jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
            5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
            /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\n\
            example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
            — example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
        let request = AddCheckpoint::parse(text).unwrap();
        assert_eq!((request.old, request.proof.len()), (20_852_014, 4));
        assert_eq!(request.origin().unwrap(), "example.com/behind-the-sofa");
        assert_eq!(request.to_text(), text);
    }

    #[test]
    fn malformed_requests_say_what_is_wrong() {
        let hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let many = format!("{hash}\n").repeat(64);
        let cases = [
            ("old 1\n".to_owned(), "empty line"),
            ("old 01\n\nx".into(), "first line"),
            ("old -1\n\nx".into(), "first line"),
            ("new 1\n\nx".into(), "first line"),
            (format!("old 1\n{hash}\nx\n\nx"), "line 3"),
            (format!("old 1\n{many}\nx"), "more than 63"),
            ("x".repeat(REQUEST_BYTES_MAX + 1), "at most"),
        ];
        for (text, expected) in cases {
            let error = AddCheckpoint::parse(&text).unwrap_err();
            assert!(error.to_string().contains(expected) && error.status() == 400, "{error}");
        }
        assert_eq!(status(&AddCheckpoint::parse("old 0\n\nno note").unwrap(), None), 400);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(old [0-9]{0,25}\n)?([A-Za-z0-9+/=]{40,46}\n){0,3}(\n)?\\PC*") {
            if let Ok(request) = AddCheckpoint::parse(&text) {
                let _ = request.judge(&keys(), None);
            }
        }

        #[test]
        fn whatever_is_cosigned_continues_what_was(steps in proptest::collection::vec((0_usize..20, any::<bool>()), 1..12)) {
            let (tree, fork) = (leaves("a"), leaves("b"));
            let mut latest: Option<CheckpointFacts> = None;
            for (size, lies) in steps {
                let history = if lies { &fork } else { &tree };
                let old = latest.as_ref().map_or(0, |latest| latest.size);
                if let Ok(cosigned) = request(history, old.min(size as u64), size).judge(&keys(), latest.as_ref()) {
                    prop_assert!(cosigned.facts().size >= old);
                    if let Some(latest) = &latest {
                        let is_of = |history| *latest == facts(history, usize::try_from(latest.size).unwrap());
                        prop_assert!(latest.size == 0 || is_of(history));
                    }
                    latest = Some(cosigned.facts().clone());
                }
            }
        }
    }
}
