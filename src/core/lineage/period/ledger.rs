//! Follows a whole log, entry by entry, and holds every close against the entries before it.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::{Balance, CounterRange, Counters, LAG_ENTRIES_MAX, Mark, PeriodClose, PeriodFault, Place};
use crate::core::lineage::ranges::Ranges;

/// What a log's entries say of all cameras. Memory follows the number of closes and of holes, not of entries.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<Place, Camera>);

#[derive(Debug, Default)]
struct Camera {
    /// What the last close counted and the next may count, too: frames that were decided before the line announced them.
    carried: Counters,
    /// What came since the last close.
    fresh: Counters,
    /// Marks that a close may still leave to the next one.
    recent: VecDeque<(u64, Mark)>,
    periods: Vec<Period>,
}

#[derive(Debug)]
struct Period {
    index: u64,
    original: PeriodClose,
    /// Neither decided nor noted as gaps.
    unaccounted: Ranges,
    /// What the line says now, and where.
    latest: (u64, PeriodClose),
}

/// What all periods of a log come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub periods: u64,
    pub frames: u64,
    pub decided: u64,
    pub gaps: u64,
    pub lost: u64,
    pub missing: u64,
    /// Frames that counted parts should have given beyond those the cameras counted.
    pub short: u64,
}

impl Totals {
    pub fn add(&mut self, close: &PeriodClose) {
        let sum = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        self.periods += 1;
        sum(&mut self.frames, close.announced.frames());
        sum(&mut self.decided, close.decided);
        sum(&mut self.gaps, close.gaps);
        sum(&mut self.lost, close.lost_frames);
        sum(&mut self.missing, close.missing_frames);
        sum(&mut self.short, close.announced.frames_short());
    }
}

/// A period in which frames or parts are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    pub index: u64,
    pub place: Place,
    pub period: String,
    pub missing: Vec<CounterRange>,
    pub missing_frames: u64,
    pub frames_short: u64,
}

impl Incomplete {
    /// `close` at `index`, if something is missing in its period.
    #[must_use]
    pub fn of(index: u64, close: &PeriodClose) -> Option<Self> {
        let incomplete = || Self {
            index,
            place: close.place(),
            period: close.announced.period.to_string(),
            missing: close.missing.clone(),
            missing_frames: close.missing_frames,
            frames_short: close.announced.frames_short(),
        };
        (!close.is_complete()).then(incomplete)
    }
}

impl Ledger {
    /// Takes in the next mark of the log; entries without one need not be told.
    ///
    /// # Errors
    /// [`PeriodFault`] of a close that the entries before it contradict.
    pub fn take(&mut self, index: u64, place: Place, mark: Mark) -> Result<(), PeriodFault> {
        let camera = self.0.entry(place).or_default();
        while camera.recent.front().is_some_and(|(at, _)| at + LAG_ENTRIES_MAX < index) {
            let (_, mark) = camera.recent.pop_front().expect("there is a first one");
            camera.fresh.add(&mark);
        }
        match mark {
            Mark::Close(close) => camera.close(index, *close),
            mark => {
                camera.recent.push_back((index, mark));
                Ok(())
            }
        }
    }

    /// What the line now says of all periods together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.latest().for_each(|(_, close)| totals.add(close));
        totals
    }

    /// The periods in which something is missing, as the line now says.
    #[must_use]
    pub fn incomplete(&self) -> Vec<Incomplete> {
        let mut found: Vec<Incomplete> =
            self.latest().filter_map(|(index, close)| Incomplete::of(*index, close)).collect();
        found.sort_by_key(|incomplete| incomplete.index);
        found
    }

    fn latest(&self) -> impl Iterator<Item = &(u64, PeriodClose)> {
        self.0.values().flat_map(|camera| camera.periods.iter().map(|period| &period.latest))
    }
}

impl Camera {
    fn close(&mut self, index: u64, close: PeriodClose) -> Result<(), PeriodFault> {
        close.check(index)?;
        if let Some(corrected) = close.corrects {
            let period = self.periods.binary_search_by_key(&corrected.0, |period| period.index);
            let period = &mut self.periods[period.map_err(|_| PeriodFault::Correction)?];
            close.check_corrects(&period.original)?;
            let balance = Balance::of(close.decided, close.gaps, &period.unaccounted, &close.announced);
            if balance != close.balance() {
                return Err(PeriodFault::Counts);
            }
            period.latest = (index, close);
            return Ok(());
        }
        let previous = self.periods.last();
        let before = self.periods.len().checked_sub(2).map(|at| &self.periods[at]);
        if close.previous.map(|previous| previous.0) != previous.map(|previous| previous.index) {
            return Err(PeriodFault::Chain);
        }
        let since = if close.announced.restarted { previous } else { before };
        if close.since != since.map_or(0, |period| period.original.end) {
            return Err(PeriodFault::Window);
        }
        if let Some(previous) = previous {
            close.check_follows(&previous.original)?;
        }
        while self.recent.front().is_some_and(|(at, _)| *at < close.end) {
            let (_, mark) = self.recent.pop_front().expect("there is a first one");
            self.fresh.add(&mark);
        }
        let mut counted = self.fresh.clone();
        if !close.announced.restarted {
            counted.add_all(&self.carried);
        }
        let (decided, gaps, unaccounted) = counted.account(&close.announced);
        if Balance::of(decided, gaps, &unaccounted, &close.announced) != close.balance() {
            return Err(PeriodFault::Counts);
        }
        self.carried = std::mem::take(&mut self.fresh);
        self.periods.push(Period { index, original: close.clone(), unaccounted, latest: (index, close) });
        Ok(())
    }
}
