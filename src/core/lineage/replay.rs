//! Replays: entries that say what came out when decisions were decided again. Format and rules: `docs/spec/replay.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    entry::{ClockState, ENTRY_VERSION},
    index_ranges::IndexRanges,
};
use crate::types::{EntryIndex, Instant, Score, Sha256Digest};

/// What an entry of this kind calls itself.
pub const KIND: &str = "replay";
/// Differences of scores up to this are the processor's, not the decision's, if nobody says otherwise; in a challenge nobody
/// does. Services on one kind of processor and Python differ by up to 1.8e-7 (`docs/accuracy.md`).
pub const EPS: f32 = 1e-5;
/// Decisions that one entry speaks of: as many indexes of any length fit into it.
pub const REPLAYS_PER_ENTRY: usize = 256;

/// Why a decision could not be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotReplayable {
    /// It ran and broke off: decoding, loading or inference.
    Failed,
    /// What lies in the archive does not open, or is another image.
    ImageDamaged,
    /// The image was kept and is destroyed, or nobody knows where it lies.
    ImageGone,
    NoModel,
    /// The recipe or its calibration is not there.
    NoRecipe,
    /// The image was never kept.
    NotArchived,
    /// This host does not have the execution provider.
    OtherProvider,
}

impl NotReplayable {
    pub const ALL: [Self; 7] = [
        Self::Failed,
        Self::ImageDamaged,
        Self::ImageGone,
        Self::NoModel,
        Self::NoRecipe,
        Self::NotArchived,
        Self::OtherProvider,
    ];

    /// As the entry writes it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::ImageDamaged => "image_damaged",
            Self::ImageGone => "image_gone",
            Self::NoModel => "no_model",
            Self::NoRecipe => "no_recipe",
            Self::NotArchived => "not_archived",
            Self::OtherProvider => "other_provider",
        }
    }
}

/// What came out of one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The same to the bit.
    Exact,
    /// The same verdict for the same reasons; no score differs by more than eps.
    Within,
    Differs,
    NotReplayable(NotReplayable),
}

/// What ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRuntime {
    /// As in a decision's runtime.
    pub cpu: String,
    /// ONNX Runtime's version.
    pub version: String,
}

/// One entry of kind `replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    // In the order of their names: entries have sorted keys.
    /// The challenge that asked for it: the seed of its choice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub challenge: Option<Sha256Digest>,
    clock: ClockState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    differs: Option<IndexRanges>,
    pub eps: Score,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    exact: Option<IndexRanges>,
    kind: ReplayKind,
    /// The largest difference of any score.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub largest: Option<Score>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    not_replayable: BTreeMap<NotReplayable, IndexRanges>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runtime: Option<ReplayRuntime>,
    pub software: String,
    pub time: Instant,
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    within: Option<IndexRanges>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum ReplayKind {
    #[default]
    #[serde(rename = "replay")]
    Kind,
}

/// What is filled in beside the outcomes.
#[derive(Clone, Debug)]
pub struct ReplayFacts {
    pub challenge: Option<Sha256Digest>,
    pub eps: Score,
    /// Set when at least one decision ran.
    pub ran: Option<(Score, ReplayRuntime)>,
    pub software: String,
    pub time: Instant,
    pub clock: ClockState,
}

impl Replay {
    /// The entry about these decisions, of which there is at least one, each once.
    #[must_use]
    pub fn new(outcomes: &[(EntryIndex, Outcome)], facts: ReplayFacts) -> Self {
        let those = |wanted| {
            IndexRanges::of(outcomes.iter().filter(|(_, outcome)| *outcome == wanted).map(|(index, _)| *index))
        };
        let not_replayable = NotReplayable::ALL.into_iter();
        let (largest, runtime) = facts.ran.unzip();
        Self {
            challenge: facts.challenge,
            clock: facts.clock,
            differs: those(Outcome::Differs),
            eps: facts.eps,
            exact: those(Outcome::Exact),
            kind: ReplayKind::Kind,
            largest,
            not_replayable: not_replayable
                .filter_map(|reason| Some((reason, those(Outcome::NotReplayable(reason))?)))
                .collect(),
            runtime,
            software: facts.software,
            time: facts.time,
            v: ENTRY_VERSION,
            within: those(Outcome::Within),
        }
    }

    /// The bytes the log keeps.
    ///
    /// # Panics
    /// Never: it is texts and numbers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// Reads an entry of this kind; nothing for any other, and for one that is not written as the specification says.
    #[must_use]
    pub fn read(entry: &[u8]) -> Option<Self> {
        let replay: Self = serde_json::from_slice(entry).ok()?;
        let ran = replay.exact.is_some() || replay.within.is_some() || replay.differs.is_some();
        let named = replay.outcomes().count();
        let once: BTreeSet<EntryIndex> = replay.outcomes().map(|(index, _)| index).collect();
        let is_one = (1..=REPLAYS_PER_ENTRY).contains(&named)
            && once.len() == named
            && replay.largest.is_some() == ran
            && replay.runtime.is_some() == ran
            && replay.eps >= Score::ZERO
            && replay.largest.is_none_or(|largest| replay.allows(largest))
            && replay.v == ENTRY_VERSION
            && replay.encode() == entry;
        is_one.then_some(replay)
    }

    /// Whether such a largest difference can come with these outcomes.
    fn allows(&self, largest: Score) -> bool {
        let only_exact = self.within.is_none() && self.differs.is_none();
        let most = if only_exact { Some(Score::ZERO) } else { Some(self.eps).filter(|_| self.differs.is_none()) };
        largest >= Score::ZERO && most.is_none_or(|most| largest <= most)
    }

    /// Every decision it speaks of, with what came out. At most [`REPLAYS_PER_ENTRY`] are looked at.
    pub fn outcomes(&self) -> impl Iterator<Item = (EntryIndex, Outcome)> + '_ {
        let ran = [(&self.exact, Outcome::Exact), (&self.within, Outcome::Within), (&self.differs, Outcome::Differs)];
        let ran = ran.into_iter().filter_map(|(those, outcome)| Some((those.as_ref()?, outcome)));
        let not = self.not_replayable.iter().map(|(reason, those)| (those, Outcome::NotReplayable(*reason)));
        let all = ran.chain(not).flat_map(|(those, outcome)| those.iter().map(move |index| (index, outcome)));
        // A range may name 2^53 entries in a few bytes.
        all.take(REPLAYS_PER_ENTRY + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::entry::Entry;

    fn facts(ran: bool) -> ReplayFacts {
        let runtime = ReplayRuntime { cpu: "x86-64-v3".into(), version: "1.32.0".into() };
        ReplayFacts {
            challenge: None,
            eps: Score::new(1e-5).unwrap(),
            ran: ran.then(|| (Score::new(3e-7).unwrap(), runtime)),
            software: "lineproof 0.2.0".into(),
            time: Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap(),
            clock: ClockState::Free,
        }
    }

    fn outcomes() -> Vec<(EntryIndex, Outcome)> {
        let at = |index, outcome| (EntryIndex(index), outcome);
        vec![
            at(17, Outcome::Exact),
            at(18, Outcome::Exact),
            at(40, Outcome::Within),
            at(3, Outcome::NotReplayable(NotReplayable::NotArchived)),
            at(5, Outcome::NotReplayable(NotReplayable::ImageGone)),
        ]
    }

    #[test]
    fn a_replay_is_an_entry_with_sorted_keys_and_reads_back() {
        let replay = Replay::new(&outcomes(), facts(true));
        let entry = replay.encode();
        let vector = include_str!("../../../docs/spec/vectors/replay.json");
        assert_eq!(String::from_utf8_lossy(&entry), vector.trim_end());
        assert_eq!(Entry::parse(&entry).unwrap().kind(), KIND);
        assert_eq!(Replay::read(&entry).as_ref(), Some(&replay));
        let mut found: Vec<_> = replay.outcomes().collect();
        found.sort_by_key(|(index, _)| *index);
        let mut expected = outcomes();
        expected.sort_by_key(|(index, _)| *index);
        assert_eq!(found, expected);
        let none_ran = Replay::new(&outcomes()[3..], facts(false));
        assert_eq!(Replay::read(&none_ran.encode()), Some(none_ran));
    }

    #[test]
    fn every_reason_is_written_as_its_code() {
        for reason in NotReplayable::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
        assert!(NotReplayable::ALL.is_sorted_by_key(|reason| reason.code()), "entries have sorted keys");
    }

    #[test]
    fn the_longest_entry_fits() {
        let last = crate::core::lineage::entry::COUNTER_MAX;
        let sparse = |n: u64| EntryIndex(last - 2 * n);
        let all: Vec<_> = (0..REPLAYS_PER_ENTRY as u64)
            .map(|n| (sparse(n), Outcome::NotReplayable(NotReplayable::ALL[n as usize % 7])))
            .collect();
        let bytes = Replay::new(&all, facts(false)).encode().len();
        assert!(bytes <= crate::core::lineage::entry::ENTRY_BYTES_MAX - 1024, "{bytes}");
    }

    #[test]
    fn what_is_written_in_another_way_is_no_replay() {
        let good = String::from_utf8(Replay::new(&outcomes(), facts(true)).encode()).unwrap();
        for (from, to) in [
            (r#""exact":"17-18""#, r#""exact":"17-18 40""#),
            (r#""exact":"17-18""#, r#""exact":"17 18""#),
            (r#""exact":"17-18""#, r#""exact":"17-9007199254740991""#),
            (r#""exact":"17-18","#, ""),
            (r#""largest":"0x34a10fb0 0.0000003","#, ""),
            (r#""largest":"0x34a10fb0 0.0000003""#, r#""largest":"0xb4a10fb0 -0.0000003""#),
            ("0x34a10fb0 0.0000003", "0x3a83126f 0.001"),
            ("image_gone", "image_lost"),
            (r#""kind":"replay""#, r#""kind":"restore""#),
            (r#""v":2"#, r#""v":1"#),
            (r#""v":2"#, r#""differs":"9","v":2"#),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(bad != good, "{from} is not in {good}");
            // Without its exact decisions it still speaks of others that ran.
            assert_eq!(Replay::read(bad.as_bytes()).is_some(), to.is_empty() && from.contains("exact"), "{bad}");
        }
    }
}
