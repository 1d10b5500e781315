//! Which rows of a chunk match a filter, and how many fall into which bucket.

use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive};

use roaring::RoaringBitmap;

use super::{
    chunk::{BLOCK_ROWS, Field, NO_TIME, Rows, ZONE_ROWS, kind_code, verdict_code},
    store::Fault,
};
use crate::{
    ports::index::{
        Bucket, COUNT_CELLS_MAX, CountBy, CountCell, EntryKind, Filter, GroupBy, RecipeFilter, VerdictCounts,
    },
    types::{Score, Verdict},
};

/// The rows that match. `candidates` are those that have the wanted serial number and lot, if any is wanted.
pub(super) fn matching<R: Rows>(
    rows: &R,
    filter: &Filter,
    candidates: Option<&RoaringBitmap>,
) -> Result<RoaringBitmap, Fault> {
    let nothing = RoaringBitmap::new();
    let wanted_times = wanted_times(filter);
    if let Some(wanted) = &wanted_times
        && rows.zones().iter().all(|zone| zone.max < *wanted.start() || zone.min > *wanted.end())
    {
        return Ok(nothing);
    }
    let mut found = with_any(rows, Field::Kind, filter.kinds.iter().map(|kind| kind_code(*kind)))?;
    if let Some(candidates) = candidates {
        found &= candidates;
    }
    for (field, value) in exact_values(filter) {
        match rows.bitmap(field, value)? {
            Some(bitmap) if !found.is_empty() => found &= bitmap.as_ref(),
            _ => return Ok(nothing),
        }
    }
    if !filter.verdicts.is_empty() {
        found &= with_any(rows, Field::Verdict, filter.verdicts.iter().map(|verdict| verdict_code(*verdict)))?;
    }
    if let Some(wanted) = wanted_times {
        keep_times(rows, &wanted, &mut found)?;
    }
    if !found.is_empty() && (filter.score_min.is_some() || filter.score_max.is_some()) {
        let low = filter.score_min.map_or(0, Score::ordered_bits);
        let high = filter.score_max.map_or(u32::MAX, Score::ordered_bits);
        found &= rows.scored(low, high)?;
    }
    Ok(found)
}

fn with_any<R: Rows>(rows: &R, field: Field, codes: impl Iterator<Item = u8>) -> Result<RoaringBitmap, Fault> {
    let mut any = RoaringBitmap::new();
    for code in codes {
        match rows.bitmap(field, &[code])? {
            Some(bitmap) if any.is_empty() => any = bitmap.into_owned(),
            Some(bitmap) => any |= bitmap.as_ref(),
            None => {}
        }
    }
    Ok(any)
}

/// The values a row must have, those first that likely fewest rows have.
fn exact_values(filter: &Filter) -> impl Iterator<Item = (Field, &[u8])> {
    let recipe = filter.recipe.as_ref().map(|recipe| match recipe {
        RecipeFilter::Name(name) => (Field::RecipeName, name.as_str().as_bytes()),
        RecipeFilter::Digest(digest) => (Field::RecipeDigest, digest.0.as_slice()),
    });
    let values = [
        filter.camera.as_ref().map(|id| (Field::Camera, id.as_str().as_bytes())),
        filter.station.as_ref().map(|id| (Field::Station, id.as_str().as_bytes())),
        filter.product.as_ref().map(|id| (Field::Product, id.as_str().as_bytes())),
        recipe,
        filter.line.as_ref().map(|id| (Field::Line, id.as_str().as_bytes())),
    ];
    values.into_iter().flatten()
}

/// `None` when any time will do, even none. An empty range matches nothing.
fn wanted_times(filter: &Filter) -> Option<RangeInclusive<i64>> {
    if filter.from.is_none() && filter.to.is_none() {
        return None;
    }
    let from = filter.from.map_or(0, |time| time.unix_nanos());
    // Times are never negative, so one less is at least -1, which no range from 0 on holds.
    let last = filter.to.map_or(i64::MAX, |time| time.unix_nanos() - 1);
    Some(from..=last)
}

fn keep_times<R: Rows>(rows: &R, wanted: &RangeInclusive<i64>, found: &mut RoaringBitmap) -> Result<(), Fault> {
    let mut times = Times::new(rows);
    for (zone, first) in rows.zones().iter().zip((0..).step_by(ZONE_ROWS as usize)) {
        let all = first..first + ZONE_ROWS;
        if zone.max < *wanted.start() || zone.min > *wanted.end() {
            found.remove_range(all);
        } else if !(wanted.contains(&zone.min) && wanted.contains(&zone.max)) {
            for row in found.range(all).collect::<Vec<u32>>() {
                if !wanted.contains(&times.of(row)?) {
                    found.remove(row);
                }
            }
        }
    }
    Ok(())
}

/// The times of a chunk, each block read at most once.
struct Times<'a, R> {
    rows: &'a R,
    blocks: BTreeMap<u32, Cow<'a, [i64]>>,
}

impl<'a, R: Rows> Times<'a, R> {
    fn new(rows: &'a R) -> Self {
        Self { rows, blocks: BTreeMap::new() }
    }

    fn of(&mut self, row: u32) -> Result<i64, Fault> {
        let block = row / BLOCK_ROWS;
        if let std::collections::btree_map::Entry::Vacant(entry) = self.blocks.entry(block) {
            entry.insert(self.rows.times(block)?);
        }
        Ok(self.blocks[&block][(row % BLOCK_ROWS) as usize])
    }
}

/// Decisions counted so far.
pub(super) struct Tally {
    by: CountBy,
    cells: BTreeMap<(Option<i64>, Option<String>), VerdictCounts>,
}

pub(super) enum TallyError {
    /// More cells than [`COUNT_CELLS_MAX`].
    TooMany,
    Fault(Fault),
}

impl From<Fault> for TallyError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Tally {
    pub(super) fn new(by: CountBy) -> Self {
        Self { by, cells: BTreeMap::new() }
    }

    pub(super) fn into_cells(self) -> Vec<CountCell> {
        self.cells.into_iter().map(|((start, group), counts)| CountCell { start, group, counts }).collect()
    }

    /// Adds the decisions of one chunk.
    pub(super) fn add<R: Rows>(
        &mut self,
        rows: &R,
        filter: &Filter,
        candidates: Option<&RoaringBitmap>,
    ) -> Result<(), TallyError> {
        let filter = Filter { kinds: vec![EntryKind::Decision], ..filter.clone() };
        let found = matching(rows, &filter, candidates)?;
        if found.is_empty() {
            return Ok(());
        }
        let mut times = Times::new(rows);
        for verdict in Verdict::ALL {
            let Some(bitmap) = rows.bitmap(Field::Verdict, &[verdict_code(verdict)])? else { continue };
            let decided = &found & bitmap.as_ref();
            let Some(field) = self.by.group.map(field_of) else {
                self.add_rows(rows, &mut times, None, verdict, &decided)?;
                continue;
            };
            for value in rows.values(field) {
                let Some(bitmap) = rows.bitmap(field, value)? else { continue };
                let group = String::from_utf8_lossy(value).into_owned();
                self.add_rows(rows, &mut times, Some(group), verdict, &(&decided & bitmap.as_ref()))?;
            }
        }
        Ok(())
    }

    fn add_rows<R: Rows>(
        &mut self,
        rows: &R,
        times: &mut Times<'_, R>,
        group: Option<String>,
        verdict: Verdict,
        decided: &RoaringBitmap,
    ) -> Result<(), TallyError> {
        let Some(bucket) = self.by.bucket else {
            return self.add_cell(None, &group, verdict, decided.len());
        };
        let mut iter = decided.iter();
        while let Some(row) = iter.next() {
            let zone = rows.zones()[(row / ZONE_ROWS) as usize];
            let start = bucket_start(bucket, zone.min);
            if zone.min != NO_TIME && start == bucket_start(bucket, zone.max) {
                let end = (row / ZONE_ROWS + 1) * ZONE_ROWS;
                self.add_cell(Some(start), &group, verdict, decided.range_cardinality(row..end))?;
                iter.advance_to(end);
            } else {
                self.add_cell(Some(bucket_start(bucket, times.of(row)?)), &group, verdict, 1)?;
            }
        }
        Ok(())
    }

    fn add_cell(
        &mut self,
        start: Option<i64>,
        group: &Option<String>,
        verdict: Verdict,
        count: u64,
    ) -> Result<(), TallyError> {
        if count == 0 {
            return Ok(());
        }
        self.cells.entry((start, group.clone())).or_default().add(verdict, count);
        if self.cells.len() > COUNT_CELLS_MAX { Err(TallyError::TooMany) } else { Ok(()) }
    }
}

fn field_of(group: GroupBy) -> Field {
    match group {
        GroupBy::Line => Field::Line,
        GroupBy::Product => Field::Product,
        GroupBy::Recipe => Field::RecipeName,
    }
}

/// Start of the bucket that holds `time`.
pub(super) fn bucket_start(bucket: Bucket, time: i64) -> i64 {
    let origin = bucket.origin.unix_nanos();
    // Both are times since 1970, so their difference fits.
    origin.saturating_add((time - origin).div_euclid(bucket.width_nanos).saturating_mul(bucket.width_nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Instant;

    #[test]
    fn buckets_reach_before_their_origin() {
        let origin = Instant::from_unix_nanos(6 * 3_600_000_000_000).unwrap();
        let shift = Bucket { width_nanos: 8 * 3_600_000_000_000, origin };
        assert_eq!(bucket_start(shift, 0), -2 * 3_600_000_000_000);
        assert_eq!(bucket_start(shift, origin.unix_nanos()), origin.unix_nanos());
    }
}
