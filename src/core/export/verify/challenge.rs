//! Checks the answer to a challenge.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Problem, Step, entry, gather, open_checkpoint};
use crate::core::{
    export::{
        challenge::{Answer, ChallengeError, Replays},
        consistency,
        keys::{Keys, Note},
        manifest::CheckpointFacts,
        multiproof::{self, Leaf},
    },
    lineage::{
        entry::Entry,
        replay::{Outcome, Replay},
        tree::{leaf_hash, verify_consistency},
    },
};

/// What is wrong with the replays in an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplayFault {
    /// The second checkpoint is of another log, or not later.
    NotLater,
    /// The entries are not in order, or one stands before the nonce was known, or behind the checkpoint.
    Place { index: u64 },
    /// It is no entry of kind replay, or written in another way.
    Form { index: u64 },
    /// A decision that was not picked, or that is named twice.
    Unasked { index: u64 },
    /// A picked decision of which nothing is said.
    Missing { index: u64 },
}

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
    let mut picked = BTreeSet::new();
    let (mut verdicts, mut gaps, mut gap_frames, mut other) = ([0_u64; 3], 0, 0_u64, 0);
    for (&index, bytes) in indexes.iter().zip(&answer.entries) {
        match entry::read(index, bytes)? {
            Entry::Decision(decision) => {
                picked.insert(index);
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
    if let Some(replays) = &answer.replays {
        steps.push(check_replays(replays, &signed.facts, picked, keys)?);
    }
    Ok(())
}

/// Checks that replays of exactly the `picked` decisions were noted after the checkpoint `held`, and says what came out.
fn check_replays(
    replays: &Replays,
    held: &CheckpointFacts,
    mut picked: BTreeSet<u64>,
    keys: &Keys,
) -> Result<Step, Problem> {
    let wrong = |fault| Problem::Replay(fault);
    // Whatever a policy asks for was asked of the held checkpoint: witnesses may not have seen this one yet.
    let later = keys.open_checkpoint(replays.checkpoint.as_bytes()).map_err(Problem::Checkpoint)?.facts;
    if later.origin != held.origin || later.size <= held.size {
        return Err(wrong(ReplayFault::NotLater));
    }
    verify_consistency(held.size, &held.root, later.size, &later.root, &replays.consistency)
        .map_err(Problem::Consistency)?;
    let mut next = held.size;
    for (index, _) in &replays.entries {
        if !(next..later.size).contains(index) {
            return Err(wrong(ReplayFault::Place { index: *index }));
        }
        next = index + 1;
    }
    let leaf = |(index, entry): &(u64, Vec<u8>)| Leaf { index: *index, hash: leaf_hash(entry) };
    let leaves: Vec<Leaf> = replays.entries.iter().map(leaf).collect();
    if multiproof::root(&leaves, later.size, &replays.proof).map_err(Problem::Proof)? != later.root {
        return Err(Problem::Root { size: later.size });
    }
    let (mut ran, mut not_replayable, mut eps, mut largest) = ([0_u64; 3], BTreeMap::new(), None, None);
    for (index, bytes) in &replays.entries {
        entry::read(*index, bytes)?;
        let replay = Replay::read(bytes).ok_or(wrong(ReplayFault::Form { index: *index }))?;
        (eps, largest) = (eps.max(Some(replay.eps)), largest.max(replay.largest));
        for (decision, outcome) in replay.outcomes() {
            if !picked.remove(&decision.0) {
                return Err(wrong(ReplayFault::Unasked { index: decision.0 }));
            }
            match outcome {
                Outcome::Exact => ran[0] += 1,
                Outcome::Within => ran[1] += 1,
                Outcome::Differs => ran[2] += 1,
                Outcome::NotReplayable(reason) => *not_replayable.entry(reason.code()).or_default() += 1,
            }
        }
    }
    if let Some(index) = picked.first() {
        return Err(wrong(ReplayFault::Missing { index: *index }));
    }
    let [exact, within, differs] = ran;
    let number = |score: crate::types::Score| score.get().to_string();
    Ok(Step::Replayed {
        exact,
        within,
        differs,
        not_replayable,
        eps: eps.map(number).unwrap_or_default(),
        largest: largest.map(number),
        size: later.size,
    })
}
