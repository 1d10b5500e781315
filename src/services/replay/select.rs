//! Which decisions are decided again.

use std::collections::BTreeSet;

use super::{REPLAYS_MAX, ReplayError, Which, decision};
use crate::{
    core::lineage::entry::{Decision, Entry},
    ports::lineage::LogReader,
    types::{EntryIndex, Instant},
};

/// Ranges up to this are looked at whole for a sample; of longer ones entries are drawn until there are enough.
const LOOKED_AT_MAX: u64 = 4096;
/// Entries that are drawn for a sample at most: where one in a thousand was kept, a hundred are found.
const DRAWS_MAX: usize = 100_000;
/// Workers finish in another order than they began, and a clock is read before the log orders: entries this far before the
/// first later one may still be later.
const DISORDER_ENTRIES: u64 = 4096;
/// Entries in one bundle of the log.
const BUNDLE_ENTRIES: u64 = 256;

/// Decisions, ascending, and how many more were passed over because their images were never kept.
pub(super) struct Plan {
    pub decisions: Vec<EntryIndex>,
    pub passed_over: usize,
}

pub(super) fn select(reader: &dyn LogReader, which: &Which) -> Result<Plan, ReplayError> {
    match which {
        Which::Entries(entries) => {
            let decisions: BTreeSet<EntryIndex> = entries.iter().copied().collect();
            if decisions.len() > REPLAYS_MAX {
                return Err(ReplayError::TooMany);
            }
            // Said before the first one runs.
            decisions.iter().try_for_each(|index| decision(reader, *index).map(drop))?;
            Ok(Plan { decisions: decisions.into_iter().collect(), passed_over: 0 })
        }
        Which::Since(since) => {
            let size = reader.checkpoint()?.size;
            let plan = kept_between(reader, begin(reader, *since, size)?, size, Some(*since))?;
            if plan.decisions.len() > REPLAYS_MAX { Err(ReplayError::TooMany) } else { Ok(plan) }
        }
        Which::Sample { count, since } => {
            let size = reader.checkpoint()?.size;
            let start = since.map_or(Ok(0), |since| begin(reader, since, size))?;
            let count = (*count).min(REPLAYS_MAX);
            if size - start <= LOOKED_AT_MAX {
                let all = kept_between(reader, start, size, *since)?.decisions;
                return Ok(Plan { decisions: drawn(all, count), passed_over: 0 });
            }
            draw(reader, start, size, *since, count)
        }
    }
}

/// Every decision in `start..size` whose image was kept, from `since` on.
fn kept_between(reader: &dyn LogReader, start: u64, size: u64, since: Option<Instant>) -> Result<Plan, ReplayError> {
    let mut plan = Plan { decisions: Vec::new(), passed_over: 0 };
    let mut next = start;
    while next < size && plan.decisions.len() <= REPLAYS_MAX {
        let entries = reader.entries(EntryIndex(next), EntryIndex(size.min(next + BUNDLE_ENTRIES)))?;
        for bytes in &entries {
            match wanted(bytes, since) {
                Some(decision) if was_kept(&decision) => plan.decisions.push(EntryIndex(next)),
                Some(_) => plan.passed_over += 1,
                None => {}
            }
            next += 1;
        }
    }
    Ok(plan)
}

/// Draws entries, each as likely as any other, until there are `count` whose images were kept.
fn draw(
    reader: &dyn LogReader,
    start: u64,
    size: u64,
    since: Option<Instant>,
    count: usize,
) -> Result<Plan, ReplayError> {
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..DRAWS_MAX {
        if found.len() == count {
            break;
        }
        let index = rand::random_range(start..size);
        if seen.insert(index)
            && let Some(decision) = wanted(&reader.entry(EntryIndex(index))?, since)
            && was_kept(&decision)
        {
            found.insert(EntryIndex(index));
        }
    }
    Ok(Plan { decisions: found.into_iter().collect(), passed_over: 0 })
}

fn wanted(entry: &[u8], since: Option<Instant>) -> Option<Box<Decision>> {
    match Entry::parse(entry) {
        Ok(Entry::Decision(decision)) if since.is_none_or(|since| decision.time >= since) => Some(decision),
        _ => None,
    }
}

fn was_kept(decision: &Decision) -> bool {
    !decision.image.archive.starts_with("none:")
}

/// `count` of these, each set as likely as any other, ascending.
fn drawn(all: Vec<EntryIndex>, count: usize) -> Vec<EntryIndex> {
    let count = count.min(all.len());
    let mut picked: Vec<EntryIndex> =
        rand::seq::index::sample(&mut rand::rng(), all.len(), count).iter().map(|at| all[at]).collect();
    picked.sort_unstable();
    picked
}

/// An index from which on every entry of `since` or later is.
fn begin(reader: &dyn LogReader, since: Instant, size: u64) -> Result<u64, ReplayError> {
    let (mut low, mut high) = (0, size);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = Entry::parse(&reader.entry(EntryIndex(middle))?);
        // One that this release cannot read says nothing: what is before it is looked at, too.
        match entry.ok().and_then(|entry| entry.time()) {
            Some(time) if time < since => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low.saturating_sub(DISORDER_ENTRIES))
}
