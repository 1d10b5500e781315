//! Closes periods: takes what the line says it made, counts what the log holds of it, and writes both down.
//!
//! Everything is counted from the log itself, so a restart between two closes changes nothing, and anybody who holds
//! the entries gets the same numbers (`docs/spec/period.md`). One close at a time; blocks on the disk.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::inspect::{
    InspectHandle,
    gaps::Source,
    record::{commitments, salt},
};
use crate::{
    core::lineage::{
        entry::{ENTRY_VERSION, Entry, PeriodCloseKind},
        period::{Announced, Balance, CounterRange, Counters, Mark, PeriodClose, PeriodFault},
        private::{Opening, PrivateField},
    },
    ports::{
        clock::Clock,
        index::{DecisionIndex, EntryKind, Filter, IndexError, Order},
        lineage::{Append, AppendError, Appended, LogReader, LogWriter, PrivateRecord, ReadError, Receipt},
    },
    types::{EntryIndex, FrameId, Instant},
};

/// How many closes of a camera are looked through for a name, newest first.
const CLOSES_BACK_MAX: usize = 1000;
/// Entries in one bundle of the log.
const BUNDLE_ENTRIES: u64 = 256;

/// What the line says.
#[derive(Clone, Debug)]
pub struct CloseRequest {
    pub source: Source,
    pub period: FrameId,
    /// `None`: the counter after the last period's.
    pub first: Option<u64>,
    pub last: u64,
    pub restarted: bool,
    pub lost: Vec<CounterRange>,
    pub parts: Option<u64>,
    pub frames_per_part: Option<u64>,
    pub unseen: Option<u64>,
    pub from: Option<Instant>,
    pub to: Option<Instant>,
    pub client: Option<String>,
}

/// A close in the log.
#[derive(Clone, Debug)]
pub struct Closed {
    pub close: PeriodClose,
    pub receipt: Receipt,
    /// It stood there before.
    pub is_duplicate: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("camera {} of station {} on line {} is not configured; add it to lineproof.toml", .0.camera, .0.station, .0.line)]
    UnknownSource(Source),
    #[error("the announcement cannot be right: {0}")]
    Invalid(#[from] PeriodFault),
    #[error("no period of this camera was closed yet; say with which counter this one begins")]
    NoPrevious,
    #[error("the period of this camera up to counter {ended} is closed; nothing newer is announced")]
    NothingNew { ended: u64 },
    #[error("a counter that started anew has a first value; say with which counter the period begins")]
    NoFirst,
    #[error(
        "the last period of this camera ended with counter {ended}: begin with {next}, or say that the counter started anew"
    )]
    NotNext { ended: u64, next: u64 },
    #[error(
        "the period {period} of this camera is closed already, with the counters {first} to {last}; give this one another name"
    )]
    NameTaken { period: FrameId, first: u64, last: u64 },
    #[error(
        "the close of the period {period} named {what} ({said}); a correction names it again, with this number or another, because nothing announced is withdrawn"
    )]
    LeftOut { period: FrameId, what: &'static str, said: u64 },
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// What closing needs, each through its port.
pub struct PeriodService {
    pub inspect: InspectHandle,
    pub reader: Arc<dyn LogReader>,
    pub writer: Arc<dyn LogWriter>,
    pub index: Arc<dyn DecisionIndex>,
    pub clock: Arc<dyn Clock>,
    pub closing: Mutex<()>,
}

/// The closes of one camera, newest first.
struct History(Vec<(EntryIndex, PeriodClose)>);

impl History {
    /// The period closed last, and the one before it.
    fn last_two(&self) -> (Option<&(EntryIndex, PeriodClose)>, Option<&(EntryIndex, PeriodClose)>) {
        let mut originals = self.0.iter().filter(|(_, close)| close.corrects.is_none());
        (originals.next(), originals.next())
    }

    /// The period of this name, and what the line said of it last.
    fn named(&self, period: &FrameId) -> Option<(&(EntryIndex, PeriodClose), &(EntryIndex, PeriodClose))> {
        let original =
            self.0.iter().find(|(_, close)| close.corrects.is_none() && close.announced.period == *period)?;
        let correction = self.0.iter().find(|(_, close)| close.corrects == Some(original.0));
        Some((original, correction.unwrap_or(original)))
    }
}

impl PeriodService {
    /// Closes a period, corrects one, or finds that it is closed in exactly this way already.
    ///
    /// # Errors
    /// [`CloseError`]; only [`CloseError::Append`] leaves open whether it was written, and asking again tells.
    pub fn close(&self, request: CloseRequest) -> Result<Closed, CloseError> {
        if !self.inspect.knows(&request.source) {
            return Err(CloseError::UnknownSource(request.source));
        }
        let _one_at_a_time = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that takes nothing now would lose the gaps it is handed.
        if let Some(refusal) = self.writer.refusal() {
            return Err(refusal.into());
        }
        // What was refused or skipped up to now must be in the log before the log is counted.
        self.inspect.write_gaps(&request.source, request.last);
        self.writer.checkpoint_now()?;
        let end = self.reader.checkpoint()?.size;
        let history = self.history(&request.source, end)?;
        if let Some((original, latest)) = history.named(&request.period) {
            return self.again(&request, original, latest);
        }
        let (previous, before) = history.last_two();
        let announced = announce(&request, previous.map(|(_, close)| close))?;
        let since = if announced.restarted { previous } else { before }.map_or(0, |(_, close)| close.end);
        let counters = self.count(&request.source, &announced, since, end)?;
        let balance = counters.balance(&announced);
        let close =
            self.entry(&request.source, announced, balance, (since, end), previous.map(|(index, _)| *index), None);
        self.append(close, request.client)
    }

    /// A period of that name is closed: the same announcement is a retry, another one corrects it.
    fn again(
        &self,
        request: &CloseRequest,
        (index, original): &(EntryIndex, PeriodClose),
        (latest_index, latest): &(EntryIndex, PeriodClose),
    ) -> Result<Closed, CloseError> {
        let known = &original.announced;
        let is_same_period = request.first.is_none_or(|first| first == known.first)
            && request.last == known.last
            && request.restarted == known.restarted;
        if !is_same_period {
            let (period, first, last) = (known.period.clone(), known.first, known.last);
            return Err(CloseError::NameTaken { period, first, last });
        }
        let announced = announced(request, known.first);
        announced.check()?;
        if announced == latest.announced {
            let leaf_hash = crate::core::lineage::tree::leaf_hash(&self.reader.entry(*latest_index)?);
            let receipt = Receipt { index: *latest_index, leaf_hash };
            return Ok(Closed { close: latest.clone(), receipt, is_duplicate: true });
        }
        for before in [&latest.announced, known] {
            keeps_what_was_named(before, &announced)?;
        }
        let window = (original.since, original.end);
        let balance = self.count(&request.source, &announced, window.0, window.1)?.balance(&announced);
        let close = self.entry(&request.source, announced, balance, window, original.previous, Some(*index));
        self.append(close, request.client.clone())
    }

    /// The closes of a camera below `end`: from the index, and from the log itself what is not indexed yet.
    fn history(&self, source: &Source, end: u64) -> Result<History, CloseError> {
        let mut found = Vec::new();
        let indexed = self.index.indexed_to().0.min(end);
        let mut next = indexed;
        while next < end {
            for bytes in self.reader.entries(EntryIndex(next), EntryIndex(end.min(next + BUNDLE_ENTRIES)))? {
                if let Some(close) = close_of(source, &bytes) {
                    found.push((EntryIndex(next), close));
                }
                next += 1;
            }
        }
        found.reverse();
        let filter = Filter {
            kinds: vec![EntryKind::PeriodClose],
            line: Some(source.line.clone()),
            station: Some(source.station.clone()),
            camera: Some(source.camera.clone()),
            ..Filter::default()
        };
        for index in self.index.page(&filter, 0..indexed, Order::NewestFirst, CLOSES_BACK_MAX)? {
            if let Some(close) = close_of(source, &self.reader.entry(index)?) {
                found.push((index, close));
            }
        }
        Ok(History(found))
    }

    /// What the entries `since..end` say of the camera's announced counters, newest first: once every announced frame
    /// is found decided, older entries cannot change that.
    fn count(&self, source: &Source, announced: &Announced, since: u64, end: u64) -> Result<Counters, CloseError> {
        let mut counters = Counters::default();
        let mut stop = end;
        while stop > since {
            let start = since.max((stop - 1) / BUNDLE_ENTRIES * BUNDLE_ENTRIES);
            let mut next = start;
            while next < stop {
                let entries = self.reader.entries(EntryIndex(next), EntryIndex(stop))?;
                next += entries.len() as u64;
                for bytes in &entries {
                    let mark = Entry::parse(bytes).ok().and_then(|entry| Mark::of(&entry));
                    if let Some((place, mark)) = mark
                        && (&place.line, &place.station, &place.camera)
                            == (&source.line, &source.station, &source.camera)
                    {
                        counters.add(&mark);
                    }
                }
            }
            stop = start;
            if counters.account(announced).0 == announced.frames() {
                break;
            }
        }
        Ok(counters)
    }

    fn entry(
        &self,
        source: &Source,
        announced: Announced,
        balance: Balance,
        (since, end): (u64, u64),
        previous: Option<EntryIndex>,
        corrects: Option<EntryIndex>,
    ) -> PeriodClose {
        let (time, clock) = self.clock.now();
        PeriodClose {
            announced,
            camera: source.camera.clone(),
            clock,
            corrects,
            decided: balance.decided,
            end,
            gaps: balance.gaps,
            kind: PeriodCloseKind::Kind,
            line: source.line.clone(),
            lost_frames: balance.lost_frames,
            missing: balance.missing,
            missing_frames: balance.missing_frames,
            previous,
            private: crate::core::lineage::entry::Commitments::default(),
            since,
            station: source.station.clone(),
            time,
            v: ENTRY_VERSION,
        }
    }

    /// Appends a close and waits until it is durable and a checkpoint covers it.
    fn append(&self, mut close: PeriodClose, client: Option<String>) -> Result<Closed, CloseError> {
        let opening = |value| Opening { field: PrivateField::Client, salt: salt(), value };
        let openings: Vec<Opening> = client.map(opening).into_iter().collect();
        close.private = commitments(&openings);
        let entry = Entry::PeriodClose(Box::new(close.clone())).encode();
        let entry = entry.map_err(|error| AppendError::Invalid(error.to_string()))?;
        let private = PrivateRecord { openings, image_at: None };
        let (done, outcome) = mpsc::sync_channel(1);
        let done = Box::new(move |appended: Result<Appended, AppendError>| {
            // A caller that is gone has no use for the outcome.
            let _ = done.send(appended);
        });
        self.writer.submit(Append { entry, private, frame: None }, done);
        match outcome.recv().unwrap_or(Err(AppendError::Closed))? {
            Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt) => {
                // Whoever exports next expects the close in it.
                self.writer.checkpoint_now()?;
                Ok(Closed { close, receipt, is_duplicate: false })
            }
        }
    }
}

/// The announcement of a new period.
fn announce(request: &CloseRequest, previous: Option<&PeriodClose>) -> Result<Announced, CloseError> {
    let ended = previous.map(|close| close.announced.last);
    let first = match (request.first, ended) {
        (Some(first), _) => first,
        (None, _) if request.restarted => return Err(CloseError::NoFirst),
        (None, None) => return Err(CloseError::NoPrevious),
        (None, Some(ended)) if request.last <= ended => return Err(CloseError::NothingNew { ended }),
        (None, Some(ended)) => ended + 1,
    };
    match ended {
        Some(ended) if !request.restarted && first != ended + 1 => Err(CloseError::NotNext { ended, next: ended + 1 }),
        _ => {
            let announced = announced(request, first);
            announced.check()?;
            Ok(announced)
        }
    }
}

/// A count that was announced may turn out wrong, but it does not vanish.
fn keeps_what_was_named(before: &Announced, now: &Announced) -> Result<(), CloseError> {
    let period = &now.period;
    let counts = [("parts", before.parts, now.parts), ("frames_per_part", before.frames_per_part, now.frames_per_part)];
    for (what, before, now) in counts {
        if let (Some(said), None) = (before, now) {
            return Err(CloseError::LeftOut { period: period.clone(), what, said });
        }
    }
    Ok(())
}

fn announced(request: &CloseRequest, first: u64) -> Announced {
    Announced {
        first,
        frames_per_part: request.frames_per_part,
        from: request.from,
        last: request.last,
        lost: request.lost.clone(),
        parts: request.parts,
        period: request.period.clone(),
        restarted: request.restarted,
        to: request.to,
        unseen: request.unseen,
    }
}

/// The close in an entry, if it is one of this camera.
fn close_of(source: &Source, bytes: &[u8]) -> Option<PeriodClose> {
    match Entry::parse(bytes).ok()? {
        Entry::PeriodClose(close)
            if (&close.line, &close.station, &close.camera) == (&source.line, &source.station, &source.camera) =>
        {
            Some(*close)
        }
        _ => None,
    }
}
