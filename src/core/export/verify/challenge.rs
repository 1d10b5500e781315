//! Checks the answer to a challenge.

use std::collections::BTreeMap;

use super::{Findings, Problem, Step, entry, gather, open_checkpoint};
use crate::{
    core::{
        export::{
            challenge::{Answer, ChallengeError, Replays},
            consistency,
            keys::{Keys, Note, Signed},
            manifest::CheckpointFacts,
            multiproof::{self, Leaf},
        },
        lineage::{
            entry::{Decision, Entry},
            replay::{EPS, NotReplayable, Outcome, Replay},
            tree::{leaf_hash, verify_consistency},
        },
    },
    types::Sha256Digest,
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
    /// It was not made for this challenge.
    OtherChallenge { index: u64 },
    /// It allows larger differences than a challenge does.
    Eps { index: u64 },
    /// What it says of a decision cannot be, by that decision.
    Outcome { index: u64 },
    /// A decision that was not picked, or that is named twice.
    Unasked { index: u64 },
    /// A picked decision of which nothing is said.
    Missing { index: u64 },
}

/// What the reader says was asked of the plant; what it leaves open is not compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    pub nonce: Option<&'a str>,
    pub count: Option<u64>,
    /// Whether the picked decisions were to be decided again.
    pub replays: bool,
}

/// Checks everything in an answer, as `docs/spec/challenge.md` says.
#[must_use]
pub fn verify_challenge(text: &str, asked: &Asked<'_>, keys: &Keys) -> Findings {
    gather(|steps| check(text, asked, keys, steps))
}

fn check(text: &str, asked: &Asked<'_>, keys: &Keys, steps: &mut Vec<Step>) -> Result<(), Problem> {
    let answer = Answer::parse(text).map_err(Problem::Challenge)?;
    if answer.to_text() != text {
        return Err(Problem::Challenge(ChallengeError::Line(1)));
    }
    let signed = open_checkpoint(answer.checkpoint.as_bytes(), keys, steps)?;
    let found = answer.challenge.nonce();
    if asked.nonce.is_some_and(|nonce| nonce != found) {
        return Err(Problem::Nonce { found });
    }
    let count = answer.challenge.count();
    if asked.count.is_some_and(|asked| asked != count) {
        return Err(Problem::Count { found: count });
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
    steps.push(Step::Chosen { nonce: found, asked: count, size, compared: asked.nonce.is_some() });
    steps.push(Step::Proof { entries: leaves.len() as u64, size, hashes: answer.proof.len() });
    let mut picked = BTreeMap::new();
    let (mut verdicts, mut gaps, mut gap_frames, mut other) = ([0_u64; 3], 0, 0_u64, 0);
    for (&index, bytes) in indexes.iter().zip(&answer.entries) {
        match entry::read(index, bytes)? {
            Entry::Decision(decision) => {
                picked.insert(index, Replayable::of(&decision));
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
    if asked.replays && answer.replays.is_none() && decisions > 0 {
        return Err(Problem::NoReplays);
    }
    if let Some(replays) = &answer.replays {
        let seed = answer.challenge.seed(note.text);
        steps.extend(check_replays(replays, &signed.facts, seed, picked, keys)?);
    }
    Ok(())
}

/// Checks that replays of exactly the `picked` decisions were noted after the checkpoint `held`, and says what came out.
fn check_replays(
    replays: &Replays,
    held: &CheckpointFacts,
    seed: Sha256Digest,
    mut picked: BTreeMap<u64, Replayable>,
    keys: &Keys,
) -> Result<[Step; 2], Problem> {
    let wrong = |fault| Problem::Replay(fault);
    // Whatever a policy asks for was asked of the held checkpoint: witnesses may not have seen this one yet.
    let Signed { facts: later, key, .. } =
        keys.open_checkpoint(replays.checkpoint.as_bytes()).map_err(Problem::Checkpoint)?;
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
        if replay.challenge != Some(seed) {
            return Err(wrong(ReplayFault::OtherChallenge { index: *index }));
        }
        if replay.eps.get() > EPS {
            return Err(wrong(ReplayFault::Eps { index: *index }));
        }
        (eps, largest) = (eps.max(Some(replay.eps)), largest.max(replay.largest));
        for (decision, outcome) in replay.outcomes() {
            let known = picked.remove(&decision.0).ok_or(wrong(ReplayFault::Unasked { index: decision.0 }))?;
            if !known.allows(outcome) {
                return Err(wrong(ReplayFault::Outcome { index: decision.0 }));
            }
            match outcome {
                Outcome::Exact => ran[0] += 1,
                Outcome::Within => ran[1] += 1,
                Outcome::Differs => ran[2] += 1,
                Outcome::NotReplayable(reason) => *not_replayable.entry(reason.code()).or_default() += 1,
            }
        }
    }
    if let Some(index) = picked.keys().next() {
        return Err(wrong(ReplayFault::Missing { index: *index }));
    }
    let [exact, within, differs] = ran;
    let number = |score: crate::types::Score| score.get().to_string();
    let checkpoint = Step::LaterCheckpoint { size: later.size, key: key.key_id() };
    let replayed = Step::Replayed {
        exact,
        within,
        differs,
        not_replayable,
        eps: eps.map(number).unwrap_or_default(),
        largest: largest.map(number),
        size: later.size,
    };
    Ok([checkpoint, replayed])
}

/// What a decision says of whether it can be decided again.
struct Replayable {
    was_kept: bool,
    ran_on_cpu: bool,
}

impl Replayable {
    fn of(decision: &Decision) -> Self {
        Self { was_kept: !decision.image.archive.starts_with("none:"), ran_on_cpu: decision.runtime.provider == "cpu" }
    }

    fn allows(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::NotReplayable(NotReplayable::NotArchived) => !self.was_kept,
            // Every host has a processor.
            Outcome::NotReplayable(NotReplayable::OtherProvider) => self.was_kept && !self.ran_on_cpu,
            _ => self.was_kept,
        }
    }
}
