//! What the report says of an export, gathered entry by entry in bounded memory.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    REPORT_ALL_ROWS_MAX, REPORT_LIST_MAX, REPORT_ROWS_MAX,
    balance::Account,
    manifest::Counts,
    table::{Row, clock_name, deciding_label},
};
use crate::{
    core::lineage::{
        entry::{Decision, Entry, Gap, GapReason, RecipeEventKind, Retention},
        private::PrivateField,
        ranges::Ranges,
    },
    types::{Blake3Digest, EntryIndex, Instant, Score, Verdict},
};

/// Bars in the timeline.
const BINS_MAX: usize = 60;
/// Widths of a bar, each a multiple of the one before, so that bars can be merged.
const BIN_SECONDS: [i64; 11] = [1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_419_200, 31_449_600, 31_449_600 * 30];

/// Everything a report shows.
#[derive(Debug, Default)]
pub struct Summary {
    pub counts: Counts,
    /// Earliest and latest decision.
    pub span: Option<(Instant, Instant)>,
    pub products: BTreeSet<String>,
    pub places: BTreeMap<Place, Frames>,
    pub recipes: BTreeMap<Blake3Digest, RecipeUse>,
    pub models: BTreeSet<Blake3Digest>,
    pub calibrations: BTreeSet<Blake3Digest>,
    pub runtimes: BTreeSet<String>,
    pub software: BTreeSet<String>,
    /// Decisions by the state of the server's clock.
    pub clocks: BTreeMap<&'static str, u64>,
    /// The first parts that did not pass.
    pub attention: Vec<PartRow>,
    /// The first parts, whatever their verdict.
    pub parts: Vec<PartRow>,
    pub gaps: Vec<GapRow>,
    pub gap_reasons: BTreeMap<&'static str, (u64, u64)>,
    pub recipe_events: Vec<RecipeEventRow>,
    /// What of these decisions' private values was destroyed.
    pub erasures: Vec<ErasureRow>,
    pub timeline: Timeline,
    /// What the line's period closes are held against.
    pub account: Account,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: String,
    pub station: String,
    pub camera: String,
}

/// What became of one camera's frames.
#[derive(Debug, Default)]
pub struct Frames {
    pub decisions: u64,
    pub gap_frames: u64,
    counters: Ranges,
}

impl Frames {
    /// First and last frame counter, and how many counters between them are neither decided nor noted as missing.
    #[must_use]
    pub fn counters(&self) -> Option<(u64, u64, u64)> {
        let (first, _) = self.counters.iter().next()?;
        let (_, last) = self.counters.iter().next_back()?;
        let holes = self.counters.iter().zip(self.counters.iter().skip(1));
        Some((first, last, holes.map(|((_, end), (start, _))| start - end - 1).sum()))
    }
}

/// A recipe with what decisions say of it.
#[derive(Debug)]
pub struct RecipeUse {
    pub name: String,
    pub model: Blake3Digest,
    pub model_version: String,
    pub calibration: Option<Blake3Digest>,
    pub comparator: String,
    /// Label, review threshold, reject threshold; as the first decision carries them.
    pub labels: Vec<(String, Option<Score>, Option<Score>)>,
    pub decisions: u64,
}

/// One part in a table of the report.
#[derive(Clone, Debug)]
pub struct PartRow {
    pub index: u64,
    pub time: Instant,
    pub verdict: Verdict,
    pub serial: Option<String>,
    pub lot: Option<String>,
    pub product: String,
    pub line: String,
    pub station: String,
    pub camera: String,
    pub counter: u64,
    pub label: Option<String>,
    pub score: Score,
    pub thresholds: Option<(Score, Score)>,
    pub reasons: Vec<String>,
}

#[derive(Debug)]
pub struct GapRow {
    pub index: u64,
    pub time: Instant,
    pub line: String,
    pub station: String,
    pub camera: String,
    pub reason: &'static str,
    pub count: u64,
    pub counters: Option<(u64, u64)>,
}

#[derive(Debug)]
pub struct RecipeEventRow {
    pub index: u64,
    pub time: Instant,
    pub event: &'static str,
    pub name: String,
}

/// A retention entry that says that private values were destroyed.
#[derive(Debug)]
pub struct ErasureRow {
    pub index: u64,
    pub entry: Box<Retention>,
}

/// Decisions over time, in bars of one width.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Index into [`BIN_SECONDS`].
    level: usize,
    /// OK, NOT_DECIDABLE, NOT_OK by bar number since 1970.
    bins: BTreeMap<i64, [u64; 3]>,
}

impl Timeline {
    fn add(&mut self, time: Instant, verdict: Verdict) {
        let bin = time.unix_nanos() / 1_000_000_000 / BIN_SECONDS[self.level];
        self.bins.entry(bin).or_default()[verdict as usize] += 1;
        while self.span() > BINS_MAX as i64 && self.level + 1 < BIN_SECONDS.len() {
            let factor = BIN_SECONDS[self.level + 1] / BIN_SECONDS[self.level];
            self.level += 1;
            for (bin, counts) in std::mem::take(&mut self.bins) {
                let merged = self.bins.entry(bin / factor).or_default();
                merged.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
    }

    fn span(&self) -> i64 {
        match (self.bins.first_key_value(), self.bins.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1,
            _ => 0,
        }
    }

    /// Width of a bar in seconds.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        BIN_SECONDS[self.level]
    }

    /// All bars from the first to the last, empty ones too: start, and OK, NOT_DECIDABLE, NOT_OK.
    #[must_use]
    pub fn bars(&self) -> Vec<(Instant, [u64; 3])> {
        let Some((first, _)) = self.bins.first_key_value() else { return Vec::new() };
        (0..self.span())
            .map(|offset| {
                let bin = first + offset;
                let start = Instant::from_unix_nanos(bin * self.seconds() * 1_000_000_000);
                (start.expect("bars start after 1970"), self.bins.get(&bin).copied().unwrap_or_default())
            })
            .collect()
    }
}

impl Summary {
    /// Takes in one entry; `row` for decisions.
    pub fn add(&mut self, index: u64, entry: &Entry, row: Option<&Row<'_>>) {
        self.counts.entries += 1;
        self.account.take(index, entry);
        match (entry, row) {
            (Entry::Decision(_), Some(row)) => self.add_decision(row),
            (Entry::Gap(gap), _) => self.add_gap(index, gap),
            (Entry::Recipe(event), _) => {
                self.counts.other += 1;
                if self.recipe_events.len() < REPORT_LIST_MAX {
                    self.recipe_events.push(RecipeEventRow {
                        index,
                        time: event.time,
                        event: recipe_event_name(event.event),
                        name: event.recipe.name.to_string(),
                    });
                }
            }
            (Entry::Retention(entry), _) => {
                self.counts.other += 1;
                let is_erasure = entry.destroyed.is_some() && entry.entries.is_some();
                if is_erasure && self.erasures.len() < REPORT_LIST_MAX {
                    self.erasures.push(ErasureRow { index, entry: entry.clone() });
                }
            }
            _ => self.counts.other += 1,
        }
    }

    /// The first entry here that says that a value of the decision at `index` was destroyed.
    #[must_use]
    pub fn erased(&self, index: u64, field: PrivateField) -> Option<&ErasureRow> {
        self.erasures.iter().find(|row| row.entry.destroyed_value(EntryIndex(index), field))
    }

    fn add_decision(&mut self, row: &Row<'_>) {
        let decision = row.decision;
        self.counts.decisions += 1;
        self.counts.openings += u64::from(row.serial.is_some()) + u64::from(row.lot.is_some());
        *match decision.verdict {
            Verdict::Ok => &mut self.counts.ok,
            Verdict::NotDecidable => &mut self.counts.not_decidable,
            Verdict::NotOk => &mut self.counts.not_ok,
        } += 1;
        let (first, last) = self.span.unwrap_or((decision.time, decision.time));
        self.span = Some((first.min(decision.time), last.max(decision.time)));
        self.timeline.add(decision.time, decision.verdict);
        note(&mut self.products, decision.product.as_str());
        note(&mut self.software, &decision.software);
        note(&mut self.runtimes, &runtime_text(decision));
        *self.clocks.entry(clock_name(decision.clock)).or_default() += 1;
        self.models.insert(decision.model.digest);
        self.calibrations.extend(decision.calibration);
        let frames = self.frames(decision.line.as_str(), decision.station.as_str(), decision.camera.as_str());
        frames.decisions += 1;
        frames.counters.add(decision.frame.counter, decision.frame.counter);
        self.recipes.entry(decision.recipe.digest).or_insert_with(|| RecipeUse::of(decision)).decisions += 1;
        let is_ok = decision.verdict == Verdict::Ok;
        if !is_ok && self.attention.len() < REPORT_ROWS_MAX {
            self.attention.push(PartRow::of(row));
        }
        if self.parts.len() < REPORT_ALL_ROWS_MAX {
            self.parts.push(PartRow::of(row));
        }
    }

    fn add_gap(&mut self, index: u64, gap: &Gap) {
        self.counts.gaps += 1;
        self.counts.gap_frames = self.counts.gap_frames.saturating_add(gap.count);
        let reason = gap_reason_name(gap.reason);
        let (gaps, frames) = self.gap_reasons.entry(reason).or_default();
        *gaps += 1;
        *frames = frames.saturating_add(gap.count);
        let counters = gap.first.zip(gap.last).filter(|(first, last)| first <= last);
        let at = self.frames(gap.line.as_str(), gap.station.as_str(), gap.camera.as_str());
        at.gap_frames = at.gap_frames.saturating_add(gap.count);
        if let Some((first, last)) = counters {
            at.counters.add(first, last);
        }
        if self.gaps.len() < REPORT_LIST_MAX {
            self.gaps.push(GapRow {
                index,
                time: gap.time,
                line: gap.line.to_string(),
                station: gap.station.to_string(),
                camera: gap.camera.to_string(),
                reason,
                count: gap.count,
                counters,
            });
        }
    }

    fn frames(&mut self, line: &str, station: &str, camera: &str) -> &mut Frames {
        let place = Place { line: line.into(), station: station.into(), camera: camera.into() };
        self.places.entry(place).or_default()
    }
}

fn note(set: &mut BTreeSet<String>, text: &str) {
    if !set.contains(text) {
        set.insert(text.into());
    }
}

fn runtime_text(decision: &Decision) -> String {
    format!("ONNX Runtime {} ({})", decision.runtime.version, decision.runtime.provider)
}

/// The reason as entries write it.
#[must_use]
pub fn gap_reason_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::CounterJump => "counter_jump",
        GapReason::Overload => "overload",
        GapReason::Deadline => "deadline",
        GapReason::DigestMismatch => "digest_mismatch",
        GapReason::BadFrame => "bad_frame",
        GapReason::InferenceFault => "inference_fault",
        GapReason::NoRecipe => "no_recipe",
    }
}

fn recipe_event_name(event: RecipeEventKind) -> &'static str {
    match event {
        RecipeEventKind::Registered => "registered",
        RecipeEventKind::Approved => "approved",
        RecipeEventKind::Activated => "activated",
        RecipeEventKind::Retired => "retired",
    }
}

impl RecipeUse {
    fn of(decision: &Decision) -> Self {
        let labels = decision.scores.labels.iter();
        Self {
            name: decision.recipe.name.to_string(),
            model: decision.model.digest,
            model_version: decision.model.version.clone(),
            calibration: decision.calibration,
            comparator: decision.scores.comparator.clone(),
            labels: labels.map(|label| (label.label.clone(), label.review, label.reject)).collect(),
            decisions: 0,
        }
    }
}

impl PartRow {
    fn of(row: &Row<'_>) -> Self {
        let decision = row.decision;
        let label = deciding_label(decision);
        Self {
            index: row.index,
            time: decision.time,
            verdict: decision.verdict,
            serial: row.serial.map(str::to_owned),
            lot: row.lot.map(str::to_owned),
            product: decision.product.to_string(),
            line: decision.line.to_string(),
            station: decision.station.to_string(),
            camera: decision.camera.to_string(),
            counter: decision.frame.counter,
            label: label.map(|label| label.label.clone()),
            score: decision.scores.decision,
            thresholds: label.and_then(|label| label.review.zip(label.reject)),
            reasons: decision.reasons.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_counters_show_their_holes() {
        let mut frames = Frames::default();
        for counter in [10, 12, 11, 15, 20, 12] {
            frames.counters.add(counter, counter);
        }
        assert_eq!(frames.counters(), Some((10, 20, 6)));
        frames.counters.add(13, 14);
        frames.counters.add(16, 19);
        assert_eq!(frames.counters(), Some((10, 20, 0)));
    }

    #[test]
    fn a_timeline_widens_its_bars_and_loses_nothing() {
        let mut timeline = Timeline::default();
        for second in 0..10_000_i64 {
            timeline.add(Instant::from_unix_nanos(second * 7_000_000_000).unwrap(), Verdict::Ok);
        }
        let bars = timeline.bars();
        assert!(bars.len() <= BINS_MAX, "{}", bars.len());
        assert_eq!(bars.iter().map(|(_, counts)| counts[0]).sum::<u64>(), 10_000);
        assert_eq!(timeline.seconds(), 3_600);
    }
}
