//! Period closes: what the line says it made, against what the log holds of it (`docs/spec/period.md`).
//!
//! A close says of one camera: the line counted these frames; so many are decided, so many are noted as gaps, so many
//! the line itself calls lost, and these are missing. Every number follows from the entries of that camera between
//! `since` and `end`, so whoever holds those entries derives it again.

mod ledger;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::ledger::{Incomplete, Ledger, Totals};
use super::{
    entry::{COUNTER_MAX, ClockState, Commitments, Entry, PeriodCloseKind},
    ranges::Ranges,
};
use crate::types::{CameraId, EntryIndex, FrameId, Instant, LineId, StationId};

/// Ranges in one list of a close. Two lists of 48 ranges with the largest counters take 5 KiB of the entry's 8.
pub const RANGES_MAX: usize = 48;
/// Most entries between the last one a close counts and the close itself: what a service appends while it counts.
pub const LAG_ENTRIES_MAX: u64 = 65_536;

/// Frame counters `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterRange {
    pub first: u64,
    pub last: u64,
}

impl fmt::Display for CounterRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

// Fields are in alphabetical order, because serde writes them in that order and entries have sorted keys.

/// What the line says of a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// First frame counter of the period.
    pub first: u64,
    /// Frames this camera takes of one part; one when left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frames_per_part: Option<u64>,
    /// When the period began, by the line's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<Instant>,
    /// Last frame counter of the period.
    pub last: u64,
    /// Counters of frames that the line itself calls lost.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lost: Vec<CounterRange>,
    /// Parts the line counted, by its PLC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parts: Option<u64>,
    /// The line's name for the period, unique for the camera.
    pub period: FrameId,
    /// The camera's counter started anew since the period before.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub restarted: bool,
    /// When the period ended, by the line's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<Instant>,
    /// Parts of which, the line says, this camera took no frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unseen: Option<u64>,
}

impl Announced {
    /// Frames of the period by the camera's counter.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// The frames that are called lost.
    #[must_use]
    pub fn lost(&self) -> Ranges {
        self.lost.iter().map(|range| (range.first, range.last)).collect()
    }

    /// Frames that parts the line counted should have given beyond those the camera counted.
    #[must_use]
    pub fn frames_short(&self) -> u64 {
        let seen = self.parts.unwrap_or_default().saturating_sub(self.unseen.unwrap_or_default());
        seen.saturating_mul(self.frames_per_part.unwrap_or(1)).saturating_sub(self.frames())
    }

    /// # Errors
    /// [`PeriodFault`] when the announcement contradicts itself.
    pub fn check(&self) -> Result<(), PeriodFault> {
        let is_time_right = self.from.zip(self.to).is_none_or(|(from, to)| from <= to);
        if self.first > self.last || self.last > COUNTER_MAX || !is_time_right {
            return Err(PeriodFault::Range);
        }
        check_list(&self.lost, self)?;
        let per_part = self.frames_per_part.unwrap_or(1);
        let fits = match self.parts {
            None => self.frames_per_part.is_none() && self.unseen.is_none(),
            Some(parts) => {
                let frames = parts.checked_mul(per_part).filter(|frames| *frames <= COUNTER_MAX);
                per_part > 0 && frames.is_some() && self.unseen.is_none_or(|unseen| (1..=parts).contains(&unseen))
            }
        };
        if fits { Ok(()) } else { Err(PeriodFault::Parts) }
    }
}

/// Ascending ranges within the period that do not touch.
fn check_list(list: &[CounterRange], announced: &Announced) -> Result<(), PeriodFault> {
    let is_inside = list
        .iter()
        .all(|range| announced.first <= range.first && range.first <= range.last && range.last <= announced.last);
    let is_ascending = list.windows(2).all(|pair| pair[0].last.saturating_add(1) < pair[1].first);
    if list.len() <= RANGES_MAX && is_inside && is_ascending { Ok(()) } else { Err(PeriodFault::Range) }
}

/// The entry that closes a period of one camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeriodClose {
    pub announced: Announced,
    pub camera: CameraId,
    pub clock: ClockState,
    /// The close this one replaces, when the line corrects what it announced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub corrects: Option<EntryIndex>,
    /// Announced frames that have a decision.
    pub decided: u64,
    /// Entries from here on are not counted.
    pub end: u64,
    /// Announced frames without a decision that a gap entry names.
    pub gaps: u64,
    pub kind: PeriodCloseKind,
    pub line: LineId,
    /// Announced frames with neither that the line calls lost.
    pub lost_frames: u64,
    /// Announced frames with none of these: the first [`RANGES_MAX`] ranges.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<CounterRange>,
    pub missing_frames: u64,
    /// The close before, unless this camera has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<EntryIndex>,
    /// Commitment to who announced.
    pub private: Commitments,
    /// Entries from here on are counted.
    pub since: u64,
    pub station: StationId,
    pub time: Instant,
    pub v: u32,
}

impl PeriodClose {
    /// Whether every announced frame and part is accounted for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing_frames == 0 && self.announced.frames_short() == 0
    }

    /// Whether the close agrees with itself.
    ///
    /// # Errors
    /// [`PeriodFault`].
    pub fn check(&self, index: u64) -> Result<(), PeriodFault> {
        self.announced.check()?;
        check_list(&self.missing, &self.announced)?;
        let listed = self.missing.iter().map(|range| range.last - range.first + 1).sum::<u64>();
        let is_whole_list = self.missing.len() < RANGES_MAX;
        let sums = [self.decided, self.gaps, self.lost_frames, self.missing_frames].into_iter();
        let sum = sums.fold(0_u64, u64::saturating_add);
        let missing: Ranges = self.missing.iter().map(|range| (range.first, range.last)).collect();
        let lost = self.announced.lost();
        if sum != self.announced.frames()
            || if is_whole_list { listed != self.missing_frames } else { listed > self.missing_frames }
            || missing.without(&lost) != missing
            || self.lost_frames > lost.count()
        {
            return Err(PeriodFault::Sum);
        }
        let is_before = |other: Option<EntryIndex>| other.is_none_or(|other| other.0 < index);
        let fits = self.since <= self.end
            && self.end <= index
            && (self.corrects.is_some() || index - self.end <= LAG_ENTRIES_MAX)
            && is_before(self.previous)
            && is_before(self.corrects);
        if fits { Ok(()) } else { Err(PeriodFault::Window) }
    }

    /// Whether this close may follow `previous`, which is the camera's close before it.
    ///
    /// # Errors
    /// [`PeriodFault::Chain`].
    pub fn check_follows(&self, previous: &Self) -> Result<(), PeriodFault> {
        let goes_on = previous.announced.last.checked_add(1) == Some(self.announced.first);
        let starts_anew = self.announced.restarted && self.since == previous.end;
        let follows = previous.corrects.is_none()
            && self.place() == previous.place()
            && previous.end <= self.end
            && (starts_anew || !self.announced.restarted && goes_on && self.since <= previous.end);
        if follows { Ok(()) } else { Err(PeriodFault::Chain) }
    }

    /// Whether this close may replace `original`.
    ///
    /// # Errors
    /// [`PeriodFault::Correction`].
    pub fn check_corrects(&self, original: &Self) -> Result<(), PeriodFault> {
        let (mine, theirs) = (&self.announced, &original.announced);
        let is_same = (mine.first, mine.last, mine.restarted, &mine.period)
            == (theirs.first, theirs.last, theirs.restarted, &theirs.period)
            && (self.since, self.end, self.previous) == (original.since, original.end, original.previous)
            && (self.decided, self.gaps) == (original.decided, original.gaps)
            && self.place() == original.place()
            && original.corrects.is_none();
        if is_same { Ok(()) } else { Err(PeriodFault::Correction) }
    }

    /// The camera it is about.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { line: self.line.clone(), station: self.station.clone(), camera: self.camera.clone() }
    }

    /// The numbers of this close.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let Self { decided, gaps, lost_frames, missing, missing_frames, .. } = self;
        Balance {
            decided: *decided,
            gaps: *gaps,
            lost_frames: *lost_frames,
            missing: missing.clone(),
            missing_frames: *missing_frames,
        }
    }
}

/// A camera, by whose counter frames are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub line: LineId,
    pub station: StationId,
    pub camera: CameraId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {} / {}", self.line, self.station, self.camera)
    }
}

/// What one entry says of a camera's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    Decided(u64),
    Gap(u64, u64),
    Close(Box<PeriodClose>),
}

impl Mark {
    /// The mark of an entry, if it has one. A gap that stands for fewer frames than its range has does not say which.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<(Place, Self)> {
        match entry {
            Entry::Decision(decision) => {
                let (line, station, camera) =
                    (decision.line.clone(), decision.station.clone(), decision.camera.clone());
                Some((Place { line, station, camera }, Self::Decided(decision.frame.counter)))
            }
            Entry::Gap(gap) => {
                let (first, last) = gap.first.zip(gap.last)?;
                let is_exact = first <= last && last - first < gap.count;
                let place = Place { line: gap.line.clone(), station: gap.station.clone(), camera: gap.camera.clone() };
                is_exact.then_some((place, Self::Gap(first, last)))
            }
            Entry::PeriodClose(close) => Some((close.place(), Self::Close(close.clone()))),
            _ => None,
        }
    }
}

/// Which counters of a camera some entries account for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub decided: Ranges,
    pub gaps: Ranges,
}

impl Counters {
    pub fn add(&mut self, mark: &Mark) {
        match mark {
            Mark::Decided(counter) => self.decided.add(*counter, *counter),
            Mark::Gap(first, last) => self.gaps.add(*first, *last),
            Mark::Close(_) => {}
        }
    }

    pub fn add_all(&mut self, more: &Self) {
        self.decided.add_all(&more.decided);
        self.gaps.add_all(&more.gaps);
    }

    /// How many announced frames are decided, how many more are noted as gaps, and which are neither.
    #[must_use]
    pub fn account(&self, announced: &Announced) -> (u64, u64, Ranges) {
        let (first, last) = (announced.first, announced.last);
        let decided = self.decided.within(first, last);
        let gaps = self.gaps.within(first, last).without(&decided);
        let all = Ranges::from_iter([(first, last)]);
        (decided.count(), gaps.count(), all.without(&decided).without(&gaps))
    }

    #[must_use]
    pub fn balance(&self, announced: &Announced) -> Balance {
        let (decided, gaps, unaccounted) = self.account(announced);
        Balance::of(decided, gaps, &unaccounted, announced)
    }
}

/// The numbers that follow from entries and an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    pub decided: u64,
    pub gaps: u64,
    pub lost_frames: u64,
    pub missing: Vec<CounterRange>,
    pub missing_frames: u64,
}

impl Balance {
    /// `unaccounted` frames are neither decided nor noted as gaps.
    #[must_use]
    pub fn of(decided: u64, gaps: u64, unaccounted: &Ranges, announced: &Announced) -> Self {
        let missing = unaccounted.without(&announced.lost());
        let missing_frames = missing.count();
        Self {
            decided,
            gaps,
            lost_frames: unaccounted.count() - missing_frames,
            missing: missing.iter().take(RANGES_MAX).map(|(first, last)| CounterRange { first, last }).collect(),
            missing_frames,
        }
    }
}

/// Why a close cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodFault {
    #[error("its counters, lists or times run backwards, or lie outside of what it announces")]
    Range,
    #[error("its count of parts contradicts itself")]
    Parts,
    #[error("decided, gaps, lost and missing frames do not add up to those announced")]
    Sum,
    #[error("it does not say truly which entries it counted")]
    Window,
    #[error("it does not go on where the camera's period before ended")]
    Chain,
    #[error("it does not fit the close it corrects")]
    Correction,
    #[error("the entries of this camera give other numbers")]
    Counts,
}
