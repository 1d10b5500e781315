//! Holds the period closes of an export against its own decisions and gaps (`docs/spec/period.md`).

use std::collections::BTreeMap;

use super::manifest::Selection;
use crate::core::lineage::{
    entry::Entry,
    period::{Counters, Incomplete, Mark, PeriodClose, PeriodFault, Place, Totals},
};

/// The decisions, gaps and closes of an export, by camera.
#[derive(Debug, Default)]
pub struct Account {
    /// Ascending by index.
    marks: BTreeMap<Place, Vec<(u64, Mark)>>,
    closes: BTreeMap<u64, PeriodClose>,
    decisions: u64,
}

/// A period as the line now says it was.
#[derive(Clone, Copy, Debug)]
pub struct Period<'a> {
    pub index: u64,
    pub close: &'a PeriodClose,
    /// Whether the export itself holds everything that the close counts.
    pub is_recounted: bool,
}

/// What all closes of an export come to.
#[derive(Debug, Default)]
pub struct Balances<'a> {
    /// Ascending by index.
    pub periods: Vec<Period<'a>>,
    pub totals: Totals,
    pub recounted: u64,
    /// Decisions in the export that belong to none of these periods.
    pub outside: u64,
}

impl Balances<'_> {
    /// The periods in which something is missing.
    #[must_use]
    pub fn incomplete(&self) -> Vec<Incomplete> {
        self.periods.iter().filter_map(|period| Incomplete::of(period.index, period.close)).collect()
    }
}

impl Account {
    /// Takes in the next entry of the export.
    pub fn take(&mut self, index: u64, entry: &Entry) {
        match Mark::of(entry) {
            None => {}
            Some((_, Mark::Close(close))) => {
                self.closes.insert(index, *close);
            }
            Some((place, mark)) => {
                self.decisions += u64::from(matches!(mark, Mark::Decided(_)));
                self.marks.entry(place).or_default().push((index, mark));
            }
        }
    }

    /// How many closes there are.
    #[must_use]
    pub fn closes(&self) -> usize {
        self.closes.len()
    }

    /// Counts every period again, as far as the export holds its entries.
    ///
    /// # Errors
    /// The first close that contradicts itself, another one, or what the export holds.
    pub fn balances(&self, selection: &Selection) -> Result<Balances<'_>, (u64, PeriodFault)> {
        let mut balances = Balances { outside: self.decisions, ..Balances::default() };
        let mut latest = BTreeMap::new();
        for (&index, close) in &self.closes {
            let period = self.period(index, close, selection).map_err(|fault| (index, fault))?;
            latest.insert(close.corrects.map_or(index, |corrected| corrected.0), period);
        }
        for (period, decided) in latest.into_values() {
            balances.totals.add(period.close);
            balances.recounted += u64::from(period.is_recounted);
            balances.outside = balances.outside.saturating_sub(decided);
            balances.periods.push(period);
        }
        balances.periods.sort_by_key(|period| period.index);
        Ok(balances)
    }

    /// One close, checked, and how many of its decided frames are in the export.
    fn period<'a>(
        &self,
        index: u64,
        close: &'a PeriodClose,
        selection: &Selection,
    ) -> Result<(Period<'a>, u64), PeriodFault> {
        close.check(index)?;
        if let Some(previous) = close.previous.and_then(|previous| self.closes.get(&previous.0)) {
            close.check_follows(previous)?;
        }
        if let Some(original) = close.corrects.and_then(|original| self.closes.get(&original.0)) {
            close.check_corrects(original)?;
        }
        let counters = self.counters(close);
        let (decided, _, unaccounted) = counters.account(&close.announced);
        let is_recounted = counters.balance(&close.announced) == close.balance();
        // What is missing can be nowhere; and an export of everything lacks nothing that the close counted.
        let is_missing_missing = close
            .missing
            .iter()
            .all(|range| unaccounted.within(range.first, range.last).count() == range.last - range.first + 1);
        let takes_everything = selection.takes_every_frame() && selection.from.is_none() && selection.to.is_none();
        if !is_missing_missing || decided > close.decided || takes_everything && !is_recounted {
            return Err(PeriodFault::Counts);
        }
        Ok((Period { index, close, is_recounted }, decided))
    }

    /// What the export holds of the entries that a close counts.
    fn counters(&self, close: &PeriodClose) -> Counters {
        let mut counters = Counters::default();
        if let Some(marks) = self.marks.get(&close.place()) {
            let start = marks.partition_point(|(index, _)| *index < close.since);
            let end = marks.partition_point(|(index, _)| *index < close.end);
            marks.get(start..end).unwrap_or_default().iter().for_each(|(_, mark)| counters.add(mark));
        }
        counters
    }
}
