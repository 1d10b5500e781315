//! Checks the answer to a challenge.

use super::{Findings, Problem, Step, entry, gather, open_checkpoint};
use crate::core::{
    export::{
        challenge::{Answer, ChallengeError},
        consistency,
        keys::{Keys, Note},
        multiproof::{self, Leaf},
    },
    lineage::{entry::Entry, tree::leaf_hash},
};

/// Checks everything in an answer, as `docs/spec/challenge.md` says. `nonce` is the one that was given, if the reader
/// says which.
#[must_use]
pub fn verify_challenge(text: &str, nonce: Option<&str>, keys: &Keys) -> Findings {
    gather(|steps| check(text, nonce, keys, steps))
}

fn check(text: &str, nonce: Option<&str>, keys: &Keys, steps: &mut Vec<Step>) -> Result<(), Problem> {
    let answer = Answer::parse(text).map_err(Problem::Challenge)?;
    if answer.to_text() != text {
        return Err(Problem::Challenge(ChallengeError::Line(1)));
    }
    let signed = open_checkpoint(answer.checkpoint.as_bytes(), keys, steps)?;
    let found = answer.challenge.nonce();
    if nonce.is_some_and(|nonce| nonce != found) {
        return Err(Problem::Nonce { found });
    }
    let size = signed.facts.size;
    if size == 0 {
        return Err(Problem::EmptyLog);
    }
    let note = Note::parse(&answer.checkpoint).map_err(Problem::Checkpoint)?;
    let indexes = answer.challenge.indexes(note.text, size);
    if indexes.len() != answer.entries.len() {
        let (found, picked) = (answer.entries.len(), indexes.len());
        return Err(Problem::Challenge(ChallengeError::Entries { found, picked }));
    }
    let leaf = |(index, entry): (&u64, &Vec<u8>)| Leaf { index: *index, hash: leaf_hash(entry) };
    let leaves: Vec<Leaf> = indexes.iter().zip(&answer.entries).map(leaf).collect();
    if multiproof::root(&leaves, size, &answer.proof).map_err(Problem::Proof)? != signed.facts.root {
        return Err(Problem::Root { size });
    }
    steps.push(Step::Chosen { nonce: found, asked: answer.challenge.count(), size, compared: nonce.is_some() });
    steps.push(Step::Proof { entries: leaves.len() as u64, size, hashes: answer.proof.len() });
    let (mut verdicts, mut gaps, mut gap_frames, mut other) = ([0_u64; 3], 0, 0_u64, 0);
    for (&index, bytes) in indexes.iter().zip(&answer.entries) {
        match entry::read(index, bytes)? {
            Entry::Decision(decision) => {
                consistency::check(&decision).map_err(|contradiction| Problem::Decision { index, contradiction })?;
                verdicts[decision.verdict as usize] += 1;
            }
            Entry::Gap(gap) => (gaps, gap_frames) = (gaps + 1, gap_frames.saturating_add(gap.count)),
            _ => other += 1,
        }
    }
    let [ok, not_decidable, not_ok] = verdicts;
    let decisions = ok + not_decidable + not_ok;
    steps.push(Step::Entries { decisions, gaps, gap_frames, other });
    steps.push(Step::Decisions { decisions, ok, not_ok, not_decidable });
    Ok(())
}
