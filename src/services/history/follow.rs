//! Keeps the index behind the log: entries are indexed once a published checkpoint covers them, in batches, never in
//! the way of an acknowledgement.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rayon::prelude::*;

use crate::{
    core::lineage::{
        entry::Entry,
        private::{Opening, PrivateField},
    },
    ports::{
        index::{DecisionIndex, EntryKind, Facts, IndexError},
        lineage::{LogReader, PrivateRecord, ReadError},
    },
    types::{Blake3Digest, EntryIndex},
};

/// Entries that are read and parsed at a time, on all cores; about 20 MB of facts.
const BATCH_ENTRIES: u64 = 16_384;
/// How often the log is asked for a new checkpoint. Checkpoints come once a second.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// How far the index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// Follows the log with the index.
pub struct Indexer {
    log: Arc<dyn LogReader>,
    index: Arc<dyn DecisionIndex>,
}

impl Indexer {
    #[must_use]
    pub fn new(log: Arc<dyn LogReader>, index: Arc<dyn DecisionIndex>) -> Self {
        Self { log, index }
    }

    /// Indexes everything the published checkpoint covers and tells the progress after each batch. An index that is
    /// damaged, or another log's, is thrown away first.
    ///
    /// # Errors
    /// [`FollowError`]; what was indexed stays, and the next call goes on from there.
    pub fn catch_up(&self, mut progress: impl FnMut(Progress)) -> Result<u64, FollowError> {
        let total = self.log.checkpoint()?.size;
        if let Some(reason) = self.why_start_over(total)? {
            self.index.start_over(&reason)?;
        }
        let mut done = self.index.indexed_to().0;
        while done < total {
            let end = total.min(done + BATCH_ENTRIES);
            let facts = self.read_facts(done, end)?;
            self.index.apply(EntryIndex(done), &facts)?;
            done = end;
            progress(Progress { done, total });
        }
        Ok(done)
    }

    fn why_start_over(&self, size: u64) -> Result<Option<String>, ReadError> {
        if let Some(damage) = self.index.damaged() {
            return Ok(Some(damage));
        }
        let Some((tip, digest)) = self.index.tip() else { return Ok(None) };
        if tip.0 >= size {
            return Ok(Some(format!("it knows entry {tip}, the log has {size}: it belongs to another log")));
        }
        if Blake3Digest::of(&self.log.entry(tip)?) != digest {
            return Ok(Some(format!("its entry {tip} is not the log's: it belongs to another log")));
        }
        Ok(None)
    }

    /// The facts of the entries `start..end`, read bundle by bundle on all cores.
    fn read_facts(&self, start: u64, end: u64) -> Result<Vec<Facts>, ReadError> {
        const BUNDLE: u64 = 256;
        let bundles: Vec<(u64, u64)> = (start / BUNDLE..end.div_ceil(BUNDLE))
            .map(|n| (start.max(n * BUNDLE), end.min((n + 1) * BUNDLE)))
            .collect();
        let read = |&(start, end): &(u64, u64)| {
            let mut facts = Vec::with_capacity((end - start) as usize);
            while (facts.len() as u64) < end - start {
                let next = start + facts.len() as u64;
                for (index, bytes) in (next..).zip(self.log.entries(EntryIndex(next), EntryIndex(end))?) {
                    facts.push(facts_of(&bytes, &self.private(EntryIndex(index))?));
                }
            }
            Ok(facts)
        };
        let facts = bundles.par_iter().map(read).collect::<Result<Vec<_>, ReadError>>()?;
        Ok(facts.into_iter().flatten().collect())
    }

    /// One damaged private record must not keep every later entry out of the index.
    fn private(&self, index: EntryIndex) -> Result<PrivateRecord, ReadError> {
        match self.log.private(index) {
            Err(ReadError::Damaged { place, reason }) => {
                tracing::warn!(%index, place, reason, "private values do not read; the entry is not found by them");
                Ok(PrivateRecord::default())
            }
            other => other,
        }
    }

    /// Follows the log on its own thread until the handle is stopped or dropped.
    ///
    /// # Panics
    /// When the system has no thread to give.
    #[must_use]
    pub fn spawn(self) -> IndexerHandle {
        let (stop, stopped) = mpsc::channel();
        let follow = move || {
            let mut failing = false;
            loop {
                match self.catch_up(|_| {}) {
                    Ok(_) => failing = false,
                    // Said once, not ten times a second.
                    Err(error) if !failing => {
                        tracing::error!(%error, "the index does not follow the log; searches miss new entries");
                        failing = true;
                    }
                    Err(_) => {}
                }
                match stopped.recv_timeout(TICK) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = thread::Builder::new().name("indexer".into()).spawn(follow).expect("a thread for the indexer");
        IndexerHandle { stop: Some(stop), thread: Some(thread) }
    }
}

/// Stops the indexer when dropped, after the batch it is at.
pub struct IndexerHandle {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for IndexerHandle {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the indexer panicked");
        }
    }
}

/// What the index remembers of an entry. Bytes that do not read become an entry of unknown kind: the log's order stays
/// gap-free in the index too.
#[must_use]
pub fn facts_of(bytes: &[u8], private: &PrivateRecord) -> Facts {
    let mut facts = Facts {
        kind: EntryKind::Other,
        digest: Blake3Digest::of(bytes),
        time: None,
        line: None,
        station: None,
        camera: None,
        product: None,
        recipe: None,
        verdict: None,
        score: None,
        frame: None,
        counter: None,
        serial: None,
        lot: None,
    };
    let entry = match Entry::parse(bytes) {
        Ok(entry) => entry,
        Err(error) => {
            tracing::warn!(%error, "an entry does not read; it is indexed by its position alone");
            return facts;
        }
    };
    facts.time = entry.time();
    match entry {
        Entry::Decision(decision) => {
            facts.kind = EntryKind::Decision;
            facts.frame = Some(decision.frame_key().hash16());
            facts.counter = Some(decision.frame.counter);
            facts.line = Some(decision.line);
            facts.station = Some(decision.station);
            facts.camera = Some(decision.camera);
            facts.product = Some(decision.product);
            facts.recipe = Some((decision.recipe.name, decision.recipe.digest));
            facts.verdict = Some(decision.verdict);
            facts.score = Some(decision.scores.decision);
            facts.serial = opened(private, PrivateField::Serial).and_then(|text| text.parse().ok());
            facts.lot = opened(private, PrivateField::Lot).and_then(|text| text.parse().ok());
        }
        Entry::Gap(gap) => {
            facts.kind = EntryKind::Gap;
            facts.counter = gap.last;
            facts.line = Some(gap.line);
            facts.station = Some(gap.station);
            facts.camera = Some(gap.camera);
        }
        Entry::Recipe(event) => {
            facts.kind = EntryKind::Recipe;
            facts.recipe = Some((event.recipe.name, event.recipe.digest));
        }
        Entry::Access(_) => facts.kind = EntryKind::Access,
        Entry::Key(_) => facts.kind = EntryKind::Key,
        Entry::Start(_) => facts.kind = EntryKind::Start,
        Entry::PeriodClose(close) => {
            facts.kind = EntryKind::PeriodClose;
            facts.line = Some(close.line);
            facts.station = Some(close.station);
            facts.camera = Some(close.camera);
        }
        Entry::Retention(_) => {
            facts.kind = EntryKind::Retention;
            // A hold on a part is found by the part, so that erasing the part erases it here, too.
            facts.serial = opened(private, PrivateField::Serial).and_then(|text| text.parse().ok());
            facts.lot = opened(private, PrivateField::Lot).and_then(|text| text.parse().ok());
        }
        Entry::Unknown { .. } => {}
    }
    facts
}

fn opened(private: &PrivateRecord, field: PrivateField) -> Option<&str> {
    private.openings.iter().find(|opening: &&Opening| opening.field == field).map(|opening| opening.value.as_str())
}
