//! Answers auditors: passports of parts and exports of selections, each under the newest checkpoint that enough
//! witnesses vouch for, else the latest; each noted in the log before it is given away. Blocks on the disk.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Arc, mpsc},
};

use crate::{
    core::{
        access::{Narrowed, NotGranted, Scope},
        export::{
            ENTRIES_MAX, PERIODS_MAX,
            keys::VerifierKey,
            manifest::{CheckpointFacts, Counts, Selection},
            writer::{self, ExportError, ExportReport, Progress, Request, Source, SourceError},
        },
        lineage::{
            checkpoint::LogSigner,
            entry::{Access, AccessEvent, Commitments, Entry},
            passport::{Passport, PassportError},
            private::{Opening, PrivateField},
            receipt::Receipt,
        },
    },
    ports::{
        clock::Clock,
        index::{DecisionIndex, EntryKind, Filter, IndexError, Order, PAGE_ENTRIES_MAX, RecipeFilter},
        lineage::{Append, AppendError, LogReader, LogWriter, PrivateRecord, ReadError, SignedCheckpoint},
        texts::RecipeTexts,
        witness::MemoryError,
    },
    services::{
        retention::{Noted, RetentionBook},
        witness::Witnessed,
    },
    types::{Blake3Digest, EntryIndex, Serial, Sha256Digest},
};

/// Passports that one request gives.
pub const PASSPORTS_MAX: usize = 100;
/// Recipe entries that go along with an export.
const RECIPE_ENTRIES_MAX: usize = 1000;
/// Period closes of the asked cameras that are looked at for an export.
const CLOSES_MAX: usize = 100_000;
/// Retention entries that go along with an export.
const RETENTION_ENTRIES_MAX: usize = 1000;
/// Entries in one bundle of the log.
const BUNDLE_ENTRIES: u64 = 256;
/// Entries of one bundle are read together when at least one in so many of them is wanted.
const TOGETHER: u64 = 8;

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("there is no decision for part {part:?}{}", if *.erasures { "; parts that were erased are not found by their serial number any more, but still by entry, `#INDEX`" } else { "" })]
    NoPart {
        part: String,
        /// Whether serial numbers were ever erased.
        erasures: bool,
    },
    #[error("entry {index} waits for its checkpoint, which comes within a second; try again")]
    NotYet { index: EntryIndex },
    #[error("entry {index} is no decision that is granted to you")]
    NotGranted { index: EntryIndex },
    #[error(transparent)]
    Scope(#[from] NotGranted),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log or what witnesses cosigned was changed on the disk: evidence that nobody would believe is not given.
    #[error("the proof of entry {index} does not hold, so none is given: {error}; run `lineproof fsck`")]
    NoProof { index: EntryIndex, error: PassportError },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("the cosigned checkpoint cannot be read: {0}")]
    Witnessed(#[from] MemoryError),
    /// Nothing is given away that cannot be noted.
    #[error("the access cannot be noted in the log: {0}")]
    Note(#[from] AppendError),
}

/// A passport with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPassport {
    pub index: EntryIndex,
    /// The `.tlog-proof` text.
    pub text: String,
    /// The same proof as a COSE receipt.
    pub receipt: Vec<u8>,
    /// The values of this entry that were destroyed, each with the entry that says so.
    pub erased: Vec<(PrivateField, Noted)>,
}

/// Who asks for evidence.
#[derive(Clone, Debug)]
pub struct Asker {
    /// What the log commits to of them; none: whoever is on this machine.
    pub who: Option<Opening>,
    /// The decisions they may see.
    pub scope: Scope,
}

impl Asker {
    /// Whoever is on this machine, and may see all.
    #[must_use]
    pub fn local() -> Self {
        Self { who: None, scope: Scope::All }
    }
}

/// What audits need, each through its port.
#[derive(Clone)]
pub struct AuditService {
    pub reader: Arc<dyn LogReader>,
    pub writer: Arc<dyn LogWriter>,
    pub index: Arc<dyn DecisionIndex>,
    pub texts: Arc<dyn RecipeTexts>,
    pub signer: Arc<LogSigner>,
    pub clock: Arc<dyn Clock>,
    /// What was destroyed.
    pub book: Arc<RetentionBook>,
    /// Set where the plant has witnesses.
    pub witnessed: Option<Arc<Witnessed>>,
}

impl AuditService {
    /// The latest checkpoint.
    ///
    /// # Errors
    /// [`AuditError::Read`].
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, AuditError> {
        let latest = self.latest()?;
        // The same checkpoint with more signatures under it, where there are.
        let witnessed = self.witnessed()?.filter(|witnessed| witnessed.size == latest.size);
        Ok(witnessed.unwrap_or(latest))
    }

    /// The newest checkpoint that enough witnesses vouch for, if the plant has witnesses and there is one.
    ///
    /// # Errors
    /// [`AuditError::Witnessed`].
    pub fn witnessed(&self) -> Result<Option<SignedCheckpoint>, AuditError> {
        Ok(self.witnessed.as_ref().map(|witnessed| witnessed.newest()).transpose()?.flatten())
    }

    /// The checkpoint that evidence over the first `size` entries is given under.
    fn covering(&self, size: u64, latest: SignedCheckpoint) -> Result<SignedCheckpoint, AuditError> {
        let witnessed = self.witnessed.as_ref().map(|witnessed| witnessed.covering(size)).transpose()?;
        // One that only an earlier key of the log signed is nothing to give evidence under that this key signs.
        Ok(witnessed.flatten().and_then(|witnessed| self.under_our_key(&witnessed)).unwrap_or(latest))
    }

    fn latest(&self) -> Result<SignedCheckpoint, AuditError> {
        let latest = self.reader.checkpoint()?;
        Ok(self.under_our_key(&latest).unwrap_or(latest))
    }

    /// A checkpoint as evidence is given under it, if the key that signs the evidence has signed it.
    fn under_our_key(&self, checkpoint: &SignedCheckpoint) -> Option<SignedCheckpoint> {
        let note = self.signer.put_last(&checkpoint.note)?;
        Some(SignedCheckpoint { note: note.into(), ..checkpoint.clone() })
    }

    /// The passports of a part's decisions, oldest first, at most [`PASSPORTS_MAX`]. `who` asked is noted.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn passports_by_serial(&self, serial: &Serial, asker: &Asker) -> Result<Vec<PartPassport>, AuditError> {
        let checkpoint = self.latest()?;
        let selection = Selection { part: Some(serial.clone()), ..Selection::default() };
        let indexes = self.decisions(&selection, checkpoint.size, PASSPORTS_MAX)?;
        // What is not granted is as if it were not there.
        let granted = indexes.into_iter().map(|index| {
            let entry = self.reader.entry(index)?;
            Ok(is_granted(&asker.scope, &entry).then_some(index))
        });
        let indexes: Vec<_> = granted.filter_map(Result::transpose).collect::<Result<_, ReadError>>()?;
        if indexes.is_empty() {
            let is_erasure = |(_, entry): &Noted| entry.destroyed.is_some_and(|destroyed| destroyed.serial.is_some());
            let erasures = self.book.all()?.iter().any(is_erasure);
            return Err(AuditError::NoPart { part: serial.to_string(), erasures });
        }
        let size = indexes.iter().take(PASSPORTS_MAX).map(|index| index.0 + 1).max().unwrap_or_default();
        let checkpoint = self.covering(size, checkpoint)?;
        indexes.into_iter().take(PASSPORTS_MAX).map(|index| self.passport(&checkpoint, index, asker)).collect()
    }

    /// The passport of one entry.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn passport_by_index(&self, index: EntryIndex, asker: &Asker) -> Result<PartPassport, AuditError> {
        let mut checkpoint = self.latest()?;
        if index.0 < checkpoint.size {
            checkpoint = self.covering(index.0 + 1, checkpoint)?;
        }
        self.passport(&checkpoint, index, asker)
    }

    fn passport(
        &self,
        checkpoint: &SignedCheckpoint,
        index: EntryIndex,
        asker: &Asker,
    ) -> Result<PartPassport, AuditError> {
        let entry = self.reader.entry(index)?;
        if !is_granted(&asker.scope, &entry) {
            return Err(AuditError::NotGranted { index });
        }
        if index.0 >= checkpoint.size {
            return Err(AuditError::NotYet { index });
        }
        let proof = self.reader.inclusion_proof(index, checkpoint.size)?;
        let mut openings = self.reader.private(index)?.openings;
        let mut erased = match Entry::parse(&entry) {
            Ok(entry) => self.book.missing(index, &entry, &openings)?,
            Err(_) => Vec::new(),
        };
        // Who asked is nobody's business outside the plant.
        openings.retain(|opening| opening.field != PrivateField::Client);
        erased.retain(|(field, _)| *field != PrivateField::Client);
        let passport = Passport { index, entry, openings, proof, checkpoint: checkpoint.note.to_string() };
        let receipt = Receipt::sign(&self.signer, &passport).map_err(|error| AuditError::NoProof { index, error })?;
        self.note(AccessEvent::Passport, Some(index), None, None, asker.who.as_ref())?;
        Ok(PartPassport { index, text: passport.to_text(), receipt: receipt.to_bytes(), erased })
    }

    /// Writes the export of `selection` to `sink`. Memory is bounded by [`ENTRIES_MAX`], whatever is selected.
    ///
    /// # Errors
    /// [`AuditError`]; what was written to `sink` by then is no export: it has no manifest.
    pub fn export(
        &self,
        selection: &Selection,
        asker: &Asker,
        sink: impl Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ExportReport, AuditError> {
        let narrowed = asker.scope.narrow(selection.product.as_ref(), selection.from, selection.to)?;
        let Narrowed { product, from, to } = narrowed;
        let selection = &Selection { product, from, to, ..selection.clone() }.normal();
        let checkpoint = self.latest()?;
        let mut indexes = self.decisions(selection, checkpoint.size, ENTRIES_MAX + 1)?;
        if indexes.is_empty() {
            return Err(ExportError::Nothing.into());
        }
        // They come later than the decisions whose values they say are gone.
        indexes.extend(self.erasures(&indexes)?);
        indexes.extend(self.gaps(selection, checkpoint.size)?);
        let closes = self.closes(selection, &mut indexes, checkpoint.size)?;
        indexes.extend(closes);
        indexes.extend(self.recipe_events(checkpoint.size)?);
        let size = indexes.iter().map(|index| index.0 + 1).max().unwrap_or_default();
        let checkpoint = self.covering(size, checkpoint)?;
        let key: VerifierKey = key_of(&self.signer);
        let mut sign = |message: &[u8], counts: &Counts| -> Result<[u8; 64], SourceError> {
            let object = Sha256Digest::of(message).to_string();
            self.note(AccessEvent::Export, None, Some(counts.entries), Some(object), asker.who.as_ref())?;
            let signature = signed_note::Signer::sign(&*self.signer, message)?;
            Ok(signature.try_into().expect("an Ed25519 signature has 64 bytes"))
        };
        let request = Request {
            selection: selection.clone(),
            note: &checkpoint.note,
            checkpoint: CheckpointFacts {
                origin: self.signer.name().to_owned(),
                root: checkpoint.root,
                size: checkpoint.size,
            },
            key: &key,
            sign: &mut sign,
        };
        let source = LogSource { service: self, size: checkpoint.size };
        let indexes = indexes.into_iter().map(|index| index.0).collect();
        Ok(writer::write(&source, indexes, request, sink, progress)?)
    }

    /// The decisions below `size` that are selected, oldest first.
    fn decisions(&self, selection: &Selection, size: u64, limit: usize) -> Result<Vec<EntryIndex>, AuditError> {
        let filter = Filter {
            product: selection.product.clone(),
            serial: selection.part.clone(),
            lot: selection.lot.clone(),
            verdicts: selection.verdicts.clone(),
            recipe: selection.recipe.clone().map(RecipeFilter::Name),
            score_min: selection.score_min,
            score_max: selection.score_max,
            ..place_and_time(selection, EntryKind::Decision)
        };
        self.find(&filter, size, limit, |index, entry| match entry {
            Entry::Decision(decision) => {
                let needs_private = selection.part.is_some() || selection.lot.is_some();
                let openings = if needs_private { self.reader.private(index)?.openings } else { Vec::new() };
                let value = |field| {
                    let opening = openings.iter().find(|opening: &&Opening| opening.field == field);
                    opening.map(|opening| opening.value.as_str())
                };
                Ok(selection.admits(decision, value(PrivateField::Serial), value(PrivateField::Lot)))
            }
            _ => Ok(false),
        })
    }

    fn gaps(&self, selection: &Selection, size: u64) -> Result<Vec<EntryIndex>, AuditError> {
        let filter = place_and_time(selection, EntryKind::Gap);
        self.find(&filter, size, ENTRIES_MAX + 1, |_, entry| match entry {
            Entry::Gap(gap) => Ok(selection.admits_gap(gap)),
            _ => Ok(false),
        })
    }

    /// The period closes that say something of what is exported: those that count one of its entries, those made in the
    /// time asked for, and what corrects them. Sorts `indexes`.
    fn closes(
        &self,
        selection: &Selection,
        indexes: &mut [EntryIndex],
        size: u64,
    ) -> Result<Vec<EntryIndex>, AuditError> {
        indexes.sort_unstable();
        let place = Selection { from: None, to: None, ..selection.clone() };
        let filter = place_and_time(&place, EntryKind::PeriodClose);
        let all = self.find(&filter, size, CLOSES_MAX, |_, entry| match entry {
            Entry::PeriodClose(close) => Ok(selection.admits_close(close)),
            _ => Ok(false),
        })?;
        let mut chosen = BTreeSet::new();
        for index in all {
            let Ok(Entry::PeriodClose(close)) = Entry::parse(&self.reader.entry(index)?) else { continue };
            let next = indexes.partition_point(|index| index.0 < close.since);
            let counts_one = indexes.get(next).is_some_and(|index| index.0 < close.end);
            let is_asked = selection.takes_every_frame() && selection.admits_time(close.time);
            let corrects_one = close.corrects.is_some_and(|original| chosen.contains(&original));
            if counts_one || is_asked || corrects_one {
                chosen.insert(index);
            }
        }
        if chosen.len() > PERIODS_MAX {
            return Err(ExportError::TooManyPeriods { found: chosen.len() }.into());
        }
        Ok(chosen.into_iter().collect())
    }

    /// The entries that say that private values of these decisions, in ascending order, were destroyed.
    fn erasures(&self, decisions: &[EntryIndex]) -> Result<Vec<EntryIndex>, ReadError> {
        let names_one = |(first, last): &(u64, u64)| {
            let at = decisions.partition_point(|index| index.0 < *first);
            decisions.get(at).is_some_and(|index| index.0 <= *last)
        };
        let concerns = |(_, entry): &Noted| {
            entry.destroyed.is_some()
                && entry.entries.as_ref().is_some_and(|entries| entries.ranges().iter().any(names_one))
        };
        let all = self.book.all()?;
        Ok(all.into_iter().filter(concerns).map(|(index, _)| index).take(RETENTION_ENTRIES_MAX).collect())
    }

    /// What recipes came into use: few, and the reader of a report wants to know.
    fn recipe_events(&self, size: u64) -> Result<Vec<EntryIndex>, AuditError> {
        let filter = Filter { kinds: vec![EntryKind::Recipe], ..Filter::default() };
        self.find(&filter, size, RECIPE_ENTRIES_MAX, |_, entry| Ok(matches!(entry, Entry::Recipe(_))))
    }

    /// Asks the index page by page, and the log itself for the entries that are not indexed yet.
    fn find(
        &self,
        filter: &Filter,
        size: u64,
        limit: usize,
        admits: impl Fn(EntryIndex, &Entry) -> Result<bool, ReadError>,
    ) -> Result<Vec<EntryIndex>, AuditError> {
        let indexed = self.index.indexed_to().0.min(size);
        let (mut found, mut start) = (Vec::new(), 0);
        while start < indexed && found.len() < limit {
            let page = self.index.page(filter, start..indexed, Order::OldestFirst, PAGE_ENTRIES_MAX)?;
            let Some(last) = page.last() else { break };
            start = last.0 + 1;
            found.extend(page);
        }
        let mut next = indexed;
        while next < size && found.len() < limit {
            let entries = self.reader.entries(EntryIndex(next), EntryIndex(size.min(next + BUNDLE_ENTRIES)))?;
            for bytes in &entries {
                // An entry this release cannot read is no decision it could export.
                if let Ok(entry) = Entry::parse(bytes)
                    && admits(EntryIndex(next), &entry)?
                {
                    found.push(EntryIndex(next));
                }
                next += 1;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Appends an access entry and waits until it is durable.
    fn note(
        &self,
        event: AccessEvent,
        index: Option<EntryIndex>,
        count: Option<u64>,
        object: Option<String>,
        who: Option<&Opening>,
    ) -> Result<(), AppendError> {
        let (time, clock) = self.clock.now();
        let private = Commitments { client: who.map(Opening::commitment), ..Commitments::default() };
        let access = Access { count, index, object, private, ..Access::new(event, (time, clock)) };
        let entry = Entry::Access(access).encode().map_err(|error| AppendError::Invalid(error.to_string()))?;
        let private = PrivateRecord { openings: who.cloned().into_iter().collect(), image_at: None };
        let (done, outcome) = mpsc::sync_channel(1);
        let done = Box::new(move |result: Result<_, AppendError>| {
            // A caller that is gone has no use for the outcome.
            let _ = done.send(result.map(|_| ()));
        });
        self.writer.submit(Append { entry, private, frame: None }, done);
        outcome.recv().unwrap_or(Err(AppendError::Closed))
    }
}

/// Whether an entry may be given to somebody: everything to those who see all, to others the decisions that are granted.
fn is_granted(scope: &Scope, entry: &[u8]) -> bool {
    match (scope, Entry::parse(entry)) {
        (Scope::All, _) => true,
        (scope, Ok(Entry::Decision(decision))) => scope.admits(&decision.product, decision.time),
        _ => false,
    }
}

fn place_and_time(selection: &Selection, kind: EntryKind) -> Filter {
    Filter {
        kinds: vec![kind],
        from: selection.from,
        to: selection.to,
        line: selection.line.clone(),
        station: selection.station.clone(),
        camera: selection.camera.clone(),
        ..Filter::default()
    }
}

fn key_of(signer: &LogSigner) -> VerifierKey {
    VerifierKey::parse(&signer.verifier_key().to_string()).expect("a log signer's own key line is well-formed")
}

/// The log as one export sees it.
struct LogSource<'a> {
    service: &'a AuditService,
    size: u64,
}

impl Source for LogSource<'_> {
    fn entries(&self, indexes: &[u64]) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut out = Vec::with_capacity(indexes.len());
        for bundle in indexes.chunk_by(|a, b| a / BUNDLE_ENTRIES == b / BUNDLE_ENTRIES) {
            let (first, end) = (bundle[0], bundle[bundle.len() - 1] + 1);
            if end - first <= TOGETHER * bundle.len() as u64 {
                let entries = self.service.reader.entries(EntryIndex(first), EntryIndex(end))?;
                let mut entries: Vec<Option<Vec<u8>>> = entries.into_iter().map(Some).collect();
                for index in bundle {
                    let at = usize::try_from(index - first).expect("an offset within a bundle is small");
                    let entry = entries.get_mut(at).and_then(Option::take);
                    out.push(entry.ok_or_else(|| format!("the log did not return entry {index}"))?);
                }
            } else {
                for index in bundle {
                    out.push(self.service.reader.entry(EntryIndex(*index))?);
                }
            }
        }
        Ok(out)
    }

    fn openings(&self, index: u64) -> Result<Vec<Opening>, SourceError> {
        Ok(self.service.reader.private(EntryIndex(index))?.openings)
    }

    fn inclusion(&self, index: u64) -> Result<Vec<Sha256Digest>, SourceError> {
        Ok(self.service.reader.inclusion_proof(EntryIndex(index), self.size)?)
    }

    fn recipe(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.service.texts.recipe(digest)?)
    }

    fn calibration(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.service.texts.calibration(digest)?)
    }

    fn model_card(&self, model: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.service.texts.model_card(model)?)
    }
}
