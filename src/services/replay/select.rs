//! Which decisions are decided again.

use std::collections::BTreeSet;

use super::{REPLAYS_MAX, ReplayError, Which, decision};
use crate::{
    core::lineage::entry::{Decision, Entry},
    ports::lineage::LogReader,
    types::{Blake3Digest, EntryIndex, Instant},
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

/// Decisions, recipe by recipe, and how many more were passed over because their images were never kept.
pub(super) struct Plan {
    pub decisions: Vec<EntryIndex>,
    pub passed_over: usize,
}

/// A decision, and the recipe whose session it needs.
type Found = (Blake3Digest, EntryIndex);

impl Plan {
    /// One recipe after the other, so that each session is made once.
    fn new(mut found: Vec<Found>, passed_over: usize) -> Self {
        found.sort_unstable();
        Self { decisions: found.into_iter().map(|(_, index)| index).collect(), passed_over }
    }
}

/// `stops` is asked now and then: what was found by then is the plan.
pub(super) fn select(reader: &dyn LogReader, which: &Which, stops: &dyn Fn() -> bool) -> Result<Plan, ReplayError> {
    match which {
        Which::Entries(entries) => {
            let entries: BTreeSet<EntryIndex> = entries.iter().copied().collect();
            if entries.len() > REPLAYS_MAX {
                return Err(ReplayError::TooMany);
            }
            // What is no decision is said before the first one runs.
            let found = |index| Ok((decision(reader, index)?.recipe.digest, index));
            Ok(Plan::new(entries.into_iter().map(found).collect::<Result<_, ReplayError>>()?, 0))
        }
        Which::Since(since) => {
            let size = reader.checkpoint()?.size;
            let (found, passed_over) = kept_between(reader, begin(reader, *since, size)?, size, Some(*since), stops)?;
            if found.len() > REPLAYS_MAX { Err(ReplayError::TooMany) } else { Ok(Plan::new(found, passed_over)) }
        }
        Which::Sample { count, since } => {
            let size = reader.checkpoint()?.size;
            let start = since.map_or(Ok(0), |since| begin(reader, since, size))?;
            let count = (*count).min(REPLAYS_MAX);
            let found = if size - start <= LOOKED_AT_MAX {
                drawn(kept_between(reader, start, size, *since, stops)?.0, count)
            } else {
                draw(reader, start, size, *since, count, stops)?
            };
            Ok(Plan::new(found, 0))
        }
    }
}

/// Every decision in `start..size` whose image was kept, from `since` on, and how many others.
fn kept_between(
    reader: &dyn LogReader,
    start: u64,
    size: u64,
    since: Option<Instant>,
    stops: &dyn Fn() -> bool,
) -> Result<(Vec<Found>, usize), ReplayError> {
    let (mut found, mut passed_over, mut next) = (Vec::new(), 0, start);
    while next < size && found.len() <= REPLAYS_MAX && !stops() {
        let entries = reader.entries(EntryIndex(next), EntryIndex(size.min(next + BUNDLE_ENTRIES)))?;
        for bytes in &entries {
            match wanted(bytes, since) {
                Some(decision) if was_kept(&decision) => found.push((decision.recipe.digest, EntryIndex(next))),
                Some(_) => passed_over += 1,
                None => {}
            }
            next += 1;
        }
    }
    Ok((found, passed_over))
}

/// Draws entries, each as likely as any other, until there are `count` whose images were kept.
fn draw(
    reader: &dyn LogReader,
    start: u64,
    size: u64,
    since: Option<Instant>,
    count: usize,
    stops: &dyn Fn() -> bool,
) -> Result<Vec<Found>, ReplayError> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..DRAWS_MAX {
        if found.len() == count || stops() {
            break;
        }
        let index = rand::random_range(start..size);
        if seen.insert(index)
            && let Some(decision) = wanted(&reader.entry(EntryIndex(index))?, since)
            && was_kept(&decision)
        {
            found.push((decision.recipe.digest, EntryIndex(index)));
        }
    }
    Ok(found)
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

/// `count` of these, each set as likely as any other.
fn drawn(all: Vec<Found>, count: usize) -> Vec<Found> {
    let picked = rand::seq::index::sample(&mut rand::rng(), all.len(), count.min(all.len()));
    picked.iter().map(|at| all[at]).collect()
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
