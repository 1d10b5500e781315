//! Destroys private values on request, and private values and images when their time is over; notes it in the log, and
//! keeps legal holds. Blocks on the disk.
//!
//! An erasure in order: find what holds the value, ask the holds, make the intention durable, append the entries that
//! say what is destroyed, destroy it in the log's files and in the index, forget the intention. From the third step on a
//! crash only delays it: the next start goes on with [`RetentionService::go_on`].

pub mod book;
mod find;
pub mod rules;
pub mod run;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

pub use self::book::{Hold, Noted, RetentionBook};
use self::{find::Holder, rules::ClassRule};
use crate::{
    core::lineage::{
        entry::{Commitments, Destroyed, ENTRY_VERSION, Entry, EntryError, Retention, RetentionEvent, RetentionKind},
        index_ranges::{IndexRanges, RANGES_BYTES_MAX},
        private::{Opening, PrivateField},
    },
    ports::{
        archive::{ArchiveError, ImageShredder},
        clock::Clock,
        index::{DecisionIndex, IndexError},
        lineage::{
            Append, AppendError, Appended, Doomed, EraseError, Intention, LogReader, LogWriter, PrivateEraser,
            PrivateRecord, ReadError,
        },
    },
    services::inspect::record,
    types::{EntryIndex, Instant, LineId, ProductId},
};

/// Longest rule or reason in bytes.
pub const RULE_BYTES_MAX: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("no entry holds this {0}: it was never recorded here, or it is erased already")]
    Nothing(&'static str),
    #[error("the rule or legal basis {0}")]
    Rule(String),
    #[error("the {field} has 1 to 1024 bytes, not {bytes}", field = .field.name())]
    Value { field: PrivateField, bytes: usize },
    #[error(
        "entry {entry} is under the legal hold of entry {hold} ({rule:?}): nothing was erased. `lineproof hold release {hold}` ends the hold, if that is lawful"
    )]
    Held { entry: EntryIndex, hold: EntryIndex, rule: String },
    #[error(
        "the legal hold of entry {hold} ({rule:?}) says by this value what it keeps: nothing was erased. `lineproof hold release {hold}` ends the hold, if that is lawful"
    )]
    NamedByHold { hold: EntryIndex, rule: String },
    #[error("a hold from {from} to {to} holds nothing: --from must be before --to")]
    NoTime { from: Instant, to: Instant },
    #[error("a hold names at least one of part, lot, person, product, line, from and to")]
    Everything,
    #[error("entry {0} is no hold, or it was released already; `lineproof hold list` shows those there are")]
    NoHold(EntryIndex),
    #[error(
        "the erasure is recorded and not finished: {0}; it goes on with the next start, or when this command runs again"
    )]
    Unfinished(String),
    #[error(transparent)]
    Log(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Images(#[from] ArchiveError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl From<EraseError> for RetentionError {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Log(error) => Self::Log(error),
            EraseError::Files(error) => Self::Read(error),
        }
    }
}

/// What is to be erased: one value, wherever it is filed.
#[derive(Clone, Debug)]
pub struct EraseRequest {
    pub field: PrivateField,
    pub value: String,
    /// Rule or legal basis; stands in the log for ever.
    pub rule: String,
    /// Only look.
    pub dry_run: bool,
}

/// What was, or would be, erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    pub entries: IndexRanges,
    /// How many of them are decisions.
    pub decisions: u64,
    /// Decisions whose frame id has the value in it: that stands in the log in clear and cannot be changed.
    pub in_clear: u64,
    /// The entries that record it; none after a dry run.
    pub recorded: Vec<EntryIndex>,
}

/// What a hold concerns: everything that is set must be so.
#[derive(Clone, Debug, Default)]
pub struct HoldRequest {
    pub rule: String,
    pub serial: Option<String>,
    pub lot: Option<String>,
    pub client: Option<String>,
    pub product: Option<ProductId>,
    pub line: Option<LineId>,
    pub from: Option<Instant>,
    pub to: Option<Instant>,
}

/// What retention needs, each through its port.
pub struct RetentionService {
    pub reader: Arc<dyn LogReader>,
    pub writer: Arc<dyn LogWriter>,
    pub eraser: Arc<dyn PrivateEraser>,
    pub images: Arc<dyn ImageShredder>,
    pub index: Arc<dyn DecisionIndex>,
    pub clock: Arc<dyn Clock>,
    pub book: Arc<RetentionBook>,
    /// The classes, the first that takes a decision being its class.
    pub rules: Vec<ClassRule>,
    /// One erasure or hold at a time: a hold that was added is seen by the next erasure.
    pub turn: Mutex<()>,
}

impl RetentionService {
    /// Erases one value from every entry that holds it.
    ///
    /// # Errors
    /// [`RetentionError`]; nothing was erased unless it is [`RetentionError::Unfinished`].
    pub fn erase(&self, request: &EraseRequest) -> Result<Erased, RetentionError> {
        let EraseRequest { field, value, rule, dry_run } = request;
        check_rule(rule, [Some(value)])?;
        check_value(*field, value)?;
        let _turn = turn(&self.turn);
        // What an earlier attempt left undone comes first: one intention at a time.
        self.finish_earlier()?;
        // 1. Every acknowledged entry that holds the value.
        self.writer.checkpoint_now()?;
        let size = self.reader.checkpoint()?.size;
        let holders = self.holders(*field, value, size)?;
        let entries = IndexRanges::of(holders.iter().map(|holder| holder.index));
        let entries = entries.ok_or(RetentionError::Nothing(field.name()))?;
        // 2. None of them is held.
        self.check_holds(&holders)?;
        let decision = |holder: &&Holder| matches!(holder.entry, Entry::Decision(_));
        let in_clear = |holder: &&Holder| match &holder.entry {
            Entry::Decision(decision) => decision.frame.id.as_str().contains(value.as_str()),
            _ => false,
        };
        let mut erased = Erased {
            decisions: holders.iter().filter(decision).count() as u64,
            in_clear: holders.iter().filter(in_clear).count() as u64,
            entries,
            recorded: Vec::new(),
        };
        if *dry_run {
            return Ok(erased);
        }
        if let Some(refusal) = self.writer.refusal() {
            return Err(refusal.into());
        }
        // 3. From here on it will be done.
        let sets = erased.entries.clone().split(RANGES_BYTES_MAX);
        let entries = sets.into_iter().map(|set| self.erasure(*field, set, rule)).collect::<Result<_, _>>()?;
        let intention = Intention { size, entries };
        self.eraser.intend(&intention)?;
        erased.recorded = self.fulfil(&intention)?;
        Ok(erased)
    }

    /// Finishes what a crash interrupted. To be called before anything is searched.
    ///
    /// # Errors
    /// [`RetentionError`].
    pub fn go_on(&self) -> Result<bool, RetentionError> {
        let _turn = turn(&self.turn);
        self.finish_earlier()
    }

    fn finish_earlier(&self) -> Result<bool, RetentionError> {
        let Some(intention) = self.eraser.intended()? else { return Ok(false) };
        tracing::warn!("going on with an erasure that was interrupted");
        self.fulfil(&intention)?;
        Ok(true)
    }

    /// Appends what is missing of the intention's entries, and destroys what they name.
    fn fulfil(&self, intention: &Intention) -> Result<Vec<EntryIndex>, RetentionError> {
        let recorded = match self.record(intention) {
            Ok(recorded) => recorded,
            Err((RetentionError::Log(error @ (AppendError::DiskReserve { .. } | AppendError::Invalid(_))), 0)) => {
                // Not a word of it is in the log: it did not happen.
                self.eraser.fulfilled()?;
                return Err(error.into());
            }
            Err((error, _)) => return Err(unfinished(error)),
        };
        self.destroy(intention).map_err(unfinished)?;
        Ok(recorded)
    }

    /// The places of the intention's entries, appended where they are not yet. With an error, how many there are.
    fn record(&self, intention: &Intention) -> Result<Vec<EntryIndex>, (RetentionError, usize)> {
        let found = self.recorded(intention).map_err(|error| (error, usize::MAX))?;
        let mut recorded = Vec::with_capacity(found.len());
        for (entry, found) in intention.entries.iter().zip(found) {
            let index = match found {
                Some(index) => index,
                None => self.append(entry.clone(), Vec::new()).map_err(|error| (error.into(), recorded.len()))?,
            };
            recorded.push(index);
        }
        self.writer.checkpoint_now().map_err(|error| (error.into(), recorded.len()))?;
        Ok(recorded)
    }

    /// Where the intention's entries stand that an earlier process appended.
    fn recorded(&self, intention: &Intention) -> Result<Vec<Option<EntryIndex>>, RetentionError> {
        self.writer.checkpoint_now()?;
        let size = self.reader.checkpoint()?.size;
        let mut found = vec![None; intention.entries.len()];
        let mut next = intention.size;
        while next < size {
            for bytes in self.reader.entries(EntryIndex(next), EntryIndex(size))? {
                if let Some(at) = intention.entries.iter().position(|entry| *entry == bytes) {
                    found[at].get_or_insert(EntryIndex(next));
                }
                next += 1;
            }
        }
        Ok(found)
    }

    fn destroy(&self, intention: &Intention) -> Result<(), RetentionError> {
        let said = intention.entries.iter().map(|bytes| retention(bytes)).collect::<Result<Vec<_>, _>>()?;
        let doomed: Vec<Doomed> = said.iter().filter_map(doomed).collect();
        if !doomed.is_empty() {
            self.eraser.destroy(&doomed)?;
        }
        for Doomed { entries, fields } in &doomed {
            self.check_destroyed(entries, fields)?;
            let entries: Vec<EntryIndex> = entries.iter().collect();
            self.index.forget(&entries, fields)?;
        }
        said.iter().try_for_each(|entry| self.destroy_images(entry))?;
        Ok(self.eraser.fulfilled()?)
    }

    /// Reads again what was written: nothing may come out any more.
    fn check_destroyed(&self, entries: &IndexRanges, fields: &[PrivateField]) -> Result<(), ReadError> {
        for index in entries.iter() {
            let record = self.reader.private(index)?;
            if record.openings.iter().any(|opening| fields.contains(&opening.field)) {
                let reason = format!("a private value of entry {index} is still there after it was erased");
                return Err(ReadError::Damaged { place: "private/".into(), reason });
            }
        }
        Ok(())
    }

    fn check_holds(&self, holders: &[Holder]) -> Result<(), RetentionError> {
        let holds = self.book.holds()?;
        for holder in holders {
            // Without the value that it names a hold would hold nothing any more.
            if let Some(hold) = holds.iter().find(|hold| hold.index == holder.index) {
                return Err(RetentionError::NamedByHold { hold: hold.index, rule: hold.entry.rule.clone() });
            }
            if let Some(hold) = holds.iter().find(|hold| hold.covers(&holder.entry, &holder.openings)) {
                let (entry, rule) = (holder.index, hold.entry.rule.clone());
                return Err(RetentionError::Held { entry, hold: hold.index, rule });
            }
        }
        Ok(())
    }

    fn erasure(&self, field: PrivateField, entries: IndexRanges, rule: &str) -> Result<Vec<u8>, EntryError> {
        let mut destroyed = Destroyed::default();
        destroyed.add(field, entries.count());
        let entry = Retention {
            destroyed: Some(destroyed),
            entries: Some(entries),
            ..self.blank(RetentionEvent::Erased, rule)
        };
        Entry::Retention(Box::new(entry)).encode()
    }

    fn blank(&self, event: RetentionEvent, rule: &str) -> Retention {
        let (time, clock) = self.clock.now();
        Retention {
            before: None,
            class: None,
            clock,
            destroyed: None,
            entries: None,
            event,
            from: None,
            hold: None,
            kept: None,
            kind: RetentionKind::Kind,
            line: None,
            private: Commitments::default(),
            product: None,
            rule: rule.to_owned(),
            time,
            to: None,
            v: ENTRY_VERSION,
        }
    }

    /// Adds a legal hold and returns the entry that is its name.
    ///
    /// # Errors
    /// [`RetentionError`].
    pub fn add_hold(&self, request: &HoldRequest) -> Result<EntryIndex, RetentionError> {
        let HoldRequest { rule, serial, lot, client, product, line, from, to } = request;
        check_rule(rule, [serial.as_ref(), lot.as_ref(), client.as_ref()])?;
        let values = [(PrivateField::Client, client), (PrivateField::Lot, lot), (PrivateField::Serial, serial)];
        let values = values.into_iter().filter_map(|(field, value)| Some((field, value.clone()?)));
        let openings: Vec<Opening> =
            values.map(|(field, value)| Opening { field, salt: record::salt(), value }).collect();
        openings.iter().try_for_each(|opening| check_value(opening.field, &opening.value))?;
        if openings.is_empty() && product.is_none() && line.is_none() && from.is_none() && to.is_none() {
            return Err(RetentionError::Everything);
        }
        if let (Some(from), Some(to)) = (*from, *to)
            && from >= to
        {
            return Err(RetentionError::NoTime { from, to });
        }
        let entry = Retention {
            from: *from,
            line: line.clone(),
            private: record::commitments(&openings),
            product: product.clone(),
            to: *to,
            ..self.blank(RetentionEvent::Held, rule)
        };
        let _turn = turn(&self.turn);
        let index = self.append(Entry::Retention(Box::new(entry)).encode()?, openings)?;
        self.writer.checkpoint_now()?;
        Ok(index)
    }

    /// Ends a hold, and returns the entry that says so.
    ///
    /// # Errors
    /// [`RetentionError::NoHold`] and others.
    pub fn release_hold(&self, hold: EntryIndex, rule: &str) -> Result<EntryIndex, RetentionError> {
        check_rule(rule, [])?;
        let _turn = turn(&self.turn);
        // What an interrupted run left to be done was counted with this hold in force.
        self.finish_earlier()?;
        if !self.book.holds()?.iter().any(|known| known.index == hold) {
            return Err(RetentionError::NoHold(hold));
        }
        let entry = Retention { hold: Some(hold), ..self.blank(RetentionEvent::Released, rule) };
        let index = self.append(Entry::Retention(Box::new(entry)).encode()?, Vec::new())?;
        self.writer.checkpoint_now()?;
        Ok(index)
    }

    /// Appends and waits until the entry is durable.
    fn append(&self, entry: Vec<u8>, openings: Vec<Opening>) -> Result<EntryIndex, AppendError> {
        let (done, outcome) = mpsc::sync_channel(1);
        let private = PrivateRecord { openings, image_at: None };
        let done = Box::new(move |result: Result<Appended, AppendError>| {
            // The caller waits for this.
            let _ = done.send(result);
        });
        self.writer.submit(Append { entry, private, frame: None }, done);
        match outcome.recv().unwrap_or(Err(AppendError::Closed))? {
            Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt) => {
                Ok(receipt.index)
            }
        }
    }
}

fn unfinished(error: RetentionError) -> RetentionError {
    RetentionError::Unfinished(error.to_string())
}

/// An entry of an intention.
fn retention(bytes: &[u8]) -> Result<Retention, RetentionError> {
    match Entry::parse(bytes)? {
        Entry::Retention(entry) => Ok(*entry),
        other => {
            let reason = format!("a {} entry is intended", other.kind());
            Err(ReadError::Damaged { place: "erasing".into(), reason }.into())
        }
    }
}

/// The private values that an entry says are destroyed.
fn doomed(entry: &Retention) -> Option<Doomed> {
    let (entries, fields) = (entry.entries.clone()?, entry.destroyed?.fields());
    (!fields.is_empty()).then_some(Doomed { entries, fields })
}

fn turn(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A rule stands in the log in clear and for ever, so it must not repeat what it erases.
fn check_rule<'v>(rule: &str, values: impl IntoIterator<Item = Option<&'v String>>) -> Result<(), RetentionError> {
    let wrong = |reason: &str| Err(RetentionError::Rule(reason.into()));
    if rule.trim().is_empty() {
        return wrong("is missing; say it in words, such as --rule \"GDPR Art. 17, request of 2026-11-25\"");
    }
    if rule.len() > RULE_BYTES_MAX || rule.chars().any(char::is_control) {
        return wrong("has at most 512 bytes and no line breaks");
    }
    if values.into_iter().flatten().any(|value| rule.contains(value.as_str())) {
        return wrong("must not have the value in it: it stands in the log in clear, for ever");
    }
    Ok(())
}

fn check_value(field: PrivateField, value: &str) -> Result<(), RetentionError> {
    let bytes = value.len();
    if (1..=1024).contains(&bytes) { Ok(()) } else { Err(RetentionError::Value { field, bytes }) }
}
