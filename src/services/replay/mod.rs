//! Decides recorded frames again and holds what comes out against the log; each run is noted there. Blocks on the disk and
//! on inference. The rules are `docs/spec/replay.md`.

mod lanes;
mod select;

use std::sync::{Arc, Mutex, TryLockError, mpsc};

use self::lanes::{Failure, Lanes};
use crate::{
    core::{
        frame::{self, RawLayout, Scratch},
        lineage::{
            entry::{Decision, Entry},
            replay::{NotReplayable, Outcome, REPLAYS_PER_ENTRY, Replay, ReplayFacts, ReplayRuntime},
        },
        replay::{self, Again},
    },
    ports::{
        archive::{ArchiveError, ImageArchive},
        clock::Clock,
        inference::{InferenceError, ModelRuntime},
        lineage::{Append, AppendError, Appended, LogReader, LogWriter, PrivateRecord, ReadError},
        models::{KeptModels, ModelStoreError},
        texts::{RecipeTexts, TextError},
    },
    services::inspect::{
        examine::{Lane, StepTimes},
        record,
    },
    types::{EntryIndex, Instant, Score, Sha256Digest, Verdict},
};

/// Decisions of one run.
pub const REPLAYS_MAX: usize = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("another replay is under way; try again when it is done")]
    Busy,
    #[error("entry {index} is a {kind} entry; only decisions can be decided again")]
    NoDecision { index: EntryIndex, kind: String },
    #[error("entry {index} cannot be read: {reason}")]
    Entry { index: EntryIndex, reason: String },
    #[error("no decision was asked for")]
    Nothing,
    #[error("more than {REPLAYS_MAX} decisions; ask for a sample, or for a later time")]
    TooMany,
    #[error("the result cannot be noted in the log: {0}")]
    Log(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Texts(#[from] TextError),
    #[error(transparent)]
    Models(#[from] ModelStoreError),
    /// ONNX Runtime itself is missing.
    #[error(transparent)]
    Runtime(InferenceError),
}

/// Which decisions.
#[derive(Clone, Debug)]
pub enum Which {
    Entries(Vec<EntryIndex>),
    /// So many, drawn at random from those whose image was kept.
    Sample {
        count: usize,
        since: Option<Instant>,
    },
    /// All since then whose image was kept.
    Since(Instant),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub which: Which,
    /// Largest difference of a score that does not count as another.
    pub eps: Score,
    /// The challenge that asks for it, by its seed.
    pub challenge: Option<Sha256Digest>,
}

/// What whoever asked hears, in this order: once what is to be done, then each decision, and each entry once it is durable.
#[derive(Debug)]
pub enum Event {
    Planned {
        decisions: usize,
        /// Decisions that were passed over because their images were never kept.
        passed_over: usize,
    },
    Replayed(Box<Replayed>),
    Recorded(EntryIndex),
}

/// One decision, decided again.
#[derive(Debug)]
pub struct Replayed {
    pub index: EntryIndex,
    pub verdict: Verdict,
    pub outcome: Outcome,
    /// Set when it ran.
    pub again: Option<Ran>,
    /// Why it did not run, for people.
    pub why: String,
}

/// What came out.
#[derive(Debug)]
pub struct Ran {
    pub verdict: Verdict,
    pub largest: Score,
    /// Every label whose score is another now: recorded, then now.
    pub changed: Vec<(String, Score, Score)>,
    /// Whether the image decodes to the same pixels.
    pub same_pixels: bool,
}

/// What replays need, each through its port.
pub struct ReplayService {
    pub reader: Arc<dyn LogReader>,
    pub writer: Arc<dyn LogWriter>,
    pub archive: Arc<dyn ImageArchive>,
    pub texts: Arc<dyn RecipeTexts>,
    pub models: Arc<dyn KeptModels>,
    pub runtime: Arc<dyn ModelRuntime>,
    pub clock: Arc<dyn Clock>,
    /// One run at a time: a replay takes a core from the line.
    pub turn: Mutex<()>,
}

impl ReplayService {
    /// Starts `run` on a thread that lets the line go first.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn on_its_own_thread(run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let run = || {
            crate::priority::stand_back();
            run();
        };
        std::thread::Builder::new().name("replay".into()).spawn(run).map(drop)
    }

    /// Decides again what is asked for. `say` hears everything; `stops` is asked between two decisions, and what is done when
    /// it stops is noted.
    ///
    /// # Errors
    /// [`ReplayError`]. What was decided again before it is noted, unless the log itself failed.
    pub fn run(
        &self,
        request: &Request,
        stops: &dyn Fn() -> bool,
        say: &mut dyn FnMut(Event),
    ) -> Result<(), ReplayError> {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(ReplayError::Busy),
        };
        if let Some(refusal) = self.writer.refusal() {
            return Err(refusal.into());
        }
        let plan = select::select(self.reader.as_ref(), &request.which, stops)?;
        if plan.decisions.is_empty() && matches!(request.which, Which::Entries(_)) {
            return Err(ReplayError::Nothing);
        }
        say(Event::Planned { decisions: plan.decisions.len(), passed_over: plan.passed_over });
        let mut run = Run { service: self, eps: request.eps, lanes: Lanes::default(), scratch: Scratch::default() };
        let mut noted = Vec::new();
        let done = plan.decisions.iter().take_while(|_| !stops()).try_for_each(|index| {
            let (replayed, runtime) = run.replay(*index)?;
            noted.push(Noted {
                index: *index,
                outcome: replayed.outcome,
                ran: replayed.again.as_ref().map(|ran| ran.largest).zip(runtime),
            });
            say(Event::Replayed(Box::new(replayed)));
            if noted.len() == REPLAYS_PER_ENTRY {
                say(Event::Recorded(self.note(&mut noted, request)?));
            }
            Ok(())
        });
        if !noted.is_empty() && !matches!(done, Err(ReplayError::Log(_))) {
            say(Event::Recorded(self.note(&mut noted, request)?));
        }
        done
    }

    /// Waits until a run that is under way has ended; to be called when it was told to stop, before the log closes.
    pub fn wait(&self) {
        drop(self.turn.lock());
    }

    /// Appends an entry about what was replayed and waits until it is durable.
    fn note(&self, noted: &mut Vec<Noted>, request: &Request) -> Result<EntryIndex, AppendError> {
        let outcomes: Vec<_> = noted.iter().map(|noted| (noted.index, noted.outcome)).collect();
        let ran = noted.drain(..).filter_map(|noted| noted.ran).reduce(|(a, _), (b, runtime)| (a.max(b), runtime));
        let (time, clock) = self.clock.now();
        let (eps, challenge) = (request.eps, request.challenge);
        let facts = ReplayFacts { challenge, eps, ran, software: record::software(), time, clock };
        let entry = Replay::new(&outcomes, facts).encode();
        let (said, heard) = mpsc::sync_channel(1);
        let done = Box::new(move |appended: Result<Appended, AppendError>| {
            // A caller that is gone has no use for the outcome.
            let _ = said.send(appended);
        });
        self.writer.submit(Append { entry, private: PrivateRecord::default(), frame: None }, done);
        match heard.recv().unwrap_or(Err(AppendError::Closed))? {
            Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt) => {
                Ok(receipt.index)
            }
        }
    }
}

/// What an entry will say of one decision.
struct Noted {
    index: EntryIndex,
    outcome: Outcome,
    ran: Option<(Score, ReplayRuntime)>,
}

struct Run<'a> {
    service: &'a ReplayService,
    eps: Score,
    lanes: Lanes,
    scratch: Scratch,
}

impl Run<'_> {
    fn replay(&mut self, index: EntryIndex) -> Result<(Replayed, Option<ReplayRuntime>), ReplayError> {
        let decision = decision(self.service.reader.as_ref(), index)?;
        let verdict = decision.verdict;
        match self.again(index, &decision) {
            Ok((again, runtime)) => {
                let compared = replay::compare(&decision, &again, self.eps);
                let pairs = decision.scores.labels.iter().zip(&again.scores.labels);
                let changed = pairs.filter(|(old, new)| old.score != new.score);
                let ran = Ran {
                    verdict: again.verdict,
                    largest: compared.largest,
                    changed: changed.map(|(old, new)| (old.label.clone(), old.score, new.score)).collect(),
                    same_pixels: again.pixels == decision.image.pixels,
                };
                let outcome = compared.outcome;
                Ok((Replayed { index, verdict, outcome, again: Some(ran), why: String::new() }, Some(runtime)))
            }
            Err(Failure::Not(reason, why)) => {
                let outcome = Outcome::NotReplayable(reason);
                Ok((Replayed { index, verdict, outcome, again: None, why }, None))
            }
            Err(Failure::Error(error)) => Err(error),
        }
    }

    fn again(&mut self, index: EntryIndex, decision: &Decision) -> Result<(Again, ReplayRuntime), Failure> {
        let image = self.image(index, decision)?;
        let lane = self.lanes.of(self.service, decision)?;
        let raw = raw_layout(&image, decision, lane, &mut self.scratch)?;
        let examined = lane.examine(&image, raw.as_ref(), None, &mut self.scratch, &mut StepTimes::default());
        let examined = examined.map_err(|error| Failure::Not(NotReplayable::Failed, error.to_string()))?;
        let again = Again {
            pixels: examined.pixels,
            quality: record::quality_record(&examined.quality),
            reasons: record::reasons(&examined.judged),
            scores: record::scores(&lane.recipe.recipe, &examined.judged),
            verdict: examined.judged.verdict,
        };
        let ran = lane.session.runtime();
        Ok((again, ReplayRuntime { cpu: ran.cpu, version: ran.version }))
    }

    /// The archived image, which has the digest that the decision names.
    fn image(&self, index: EntryIndex, decision: &Decision) -> Result<Vec<u8>, Failure> {
        let gone = |why: &str| Failure::Not(NotReplayable::ImageGone, why.to_owned());
        if let Some(why) = decision.image.archive.strip_prefix("none:") {
            return Err(Failure::Not(NotReplayable::NotArchived, format!("its image was not kept ({why})")));
        }
        let private = self.service.reader.private(index).map_err(ReplayError::from)?;
        let location = private.image_location().ok_or_else(|| gone("nobody knows any more where its image lies"))?;
        match self.service.archive.get(&location, decision.image.encoded) {
            Ok(image) => Ok(image),
            Err(ArchiveError::Missing(_)) => Err(gone("its image was destroyed")),
            Err(error @ ArchiveError::Damaged { .. }) => {
                Err(Failure::Not(NotReplayable::ImageDamaged, error.to_string()))
            }
            Err(error) => Err(ReplayError::from(error).into()),
        }
    }
}

/// The layout of a raw frame, told by the digest of its pixels; nothing for an encoded image.
fn raw_layout(
    image: &[u8],
    decision: &Decision,
    lane: &Lane,
    scratch: &mut Scratch,
) -> Result<Option<RawLayout>, Failure> {
    let mut layouts = replay::layouts(&decision.image);
    if layouts.len() > 1 {
        let rules = &lane.recipe.recipe.frame;
        let has_pixels = |layout: &RawLayout, scratch: &mut Scratch| {
            frame::decode(image, Some(layout), rules, scratch)
                .is_ok_and(|frame| frame.digest() == decision.image.pixels)
        };
        layouts.retain(|layout| has_pixels(layout, scratch));
        if layouts.is_empty() {
            let why = "no stride that its length allows gives the recorded pixels";
            return Err(Failure::Not(NotReplayable::Failed, why.into()));
        }
    }
    Ok(layouts.into_iter().next())
}

fn decision(reader: &dyn LogReader, index: EntryIndex) -> Result<Box<Decision>, ReplayError> {
    match Entry::parse(&reader.entry(index)?) {
        Ok(Entry::Decision(decision)) => Ok(decision),
        Ok(other) => Err(ReplayError::NoDecision { index, kind: other.kind().to_owned() }),
        Err(error) => Err(ReplayError::Entry { index, reason: error.to_string() }),
    }
}
