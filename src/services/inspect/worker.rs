//! One worker thread: it owns a session of every recipe and takes each frame from its bytes to the log.
//!
//! A frame stays on one thread from check to record, so that its pixels stay in one core's cache and as many frames
//! are under way as there are workers. Only the answer waits for the disk; the worker goes on with the next frame.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use super::{
    DecidedFrame, Job, OnDecided, Shared,
    examine::{ExamineError, Lane, LaneError, StepTimes, Stopwatch},
    lanes::Lanes,
    queue::Popped,
    record::{self, Facts},
    request::{Answer, FrameRequest, Outcome, Refusal, Timings},
};
use crate::{
    core::{
        decide::DefectArea,
        frame::Scratch,
        lineage::entry::{Decision, Entry},
    },
    planted,
    ports::lineage::{Append, AppendError, Appended, FrameClaim, PrivateRecord, ReadError, Receipt},
    types::Blake3Digest,
};

/// Serves frames until the queue is closed and drained.
pub(super) fn run(shared: &Arc<Shared>, number: usize) {
    let mut lanes = Lanes::default();
    let mut scratch = Scratch::default();
    let mut seen = 0;
    loop {
        let job = match shared.queue.pop(&mut seen) {
            Popped::Item(job) => job,
            // An idle worker lets go of sessions, too.
            Popped::Nudged => {
                lanes.follow(&shared.mailboxes[number]);
                continue;
            }
            Popped::Closed => return,
        };
        let Job { request, recipe, admitted, answer } = job;
        let started = Instant::now();
        lanes.follow(&shared.mailboxes[number]);
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let lane = lanes.of(&recipe, |recipe| shared.load_lane(recipe));
            inspect(shared, lane, &mut scratch, &request, admitted)
        }));
        match outcome {
            Ok(Ok(Step::Known(known))) => shared.finish(&request, answer, Ok(*known)),
            Ok(Ok(Step::Record(decided))) => record(shared, request, *decided, answer),
            Ok(Err(refusal)) => shared.finish(&request, answer, Err(refusal)),
            Err(_) => {
                // The session may be in any state after a panic; this worker starts over with fresh ones.
                tracing::error!(frame = %request.key(), "inspection panicked; sessions are reloaded");
                let refusal = Refusal::InferenceFault("the inspection of this frame failed unexpectedly".into());
                shared.finish(&request, answer, Err(refusal));
                lanes.clear();
                scratch = Scratch::default();
            }
        }
        shared.note_service_time(started.elapsed());
    }
}

/// Where a frame stands when its worker is done with it.
enum Step {
    /// It had been decided before.
    Known(Box<Answer>),
    /// It is decided and its image is written; the entry is not.
    Record(Box<Decided>),
}

struct Decided {
    decision: Decision,
    private: PrivateRecord,
    areas: Vec<DefectArea>,
    timings: Timings,
}

/// From the bytes to a decision: check, decode, look at the quality, prepare, infer, decide, seal.
fn inspect(
    shared: &Shared,
    lane: Result<&mut Lane, LaneError>,
    scratch: &mut Scratch,
    request: &FrameRequest,
    admitted: Instant,
) -> Result<Step, Refusal> {
    // Hashed once, here where nobody claims a digest, else after the frame is known to be new and in time.
    let unclaimed = request.claimed.is_none().then(|| Blake3Digest::of(&request.image));
    let claimed = request.claimed.or(unclaimed).expect("one of the two is there");
    if let Some(known) = shared.find_decided(request, claimed)? {
        return Ok(Step::Known(Box::new(known)));
    }
    if let Some(refusal) = shared.log.refusal() {
        return Err(Refusal::Log(refusal));
    }
    let mut watch = Stopwatch::start();
    let mut timings = Timings { queue: watch.started.duration_since(admitted), ..Timings::default() };
    if watch.started >= request.deadline() {
        let waited = watch.started.duration_since(request.received);
        return Err(Refusal::Deadline { waited, useful_for: request.useful_for });
    }
    let lane = lane.map_err(|error| Refusal::InferenceFault(error.to_string()))?;

    let encoded = unclaimed.unwrap_or_else(|| Blake3Digest::of(&request.image));
    if encoded != claimed && !planted::has("ignore-client-digest") {
        return Err(Refusal::DigestMismatch { claimed, found: encoded });
    }
    timings.check = watch.lap();

    let mut steps = StepTimes::default();
    let examined = lane.examine(&request.image, request.raw.as_ref(), Some(request.deadline()), scratch, &mut steps);
    let examined = examined.map_err(|error| refusal(error, request))?;
    let StepTimes { decode, preprocess, infer, decide } = steps;
    timings = Timings { decode, preprocess, infer, decide, ..timings };
    watch.lap();

    let (time, clock) = shared.clock.now();
    let class = record::retention_class(&shared.archive_rule, examined.judged.verdict, &request.product, encoded);
    let image_at = match &class {
        Ok(class) => Some(
            shared
                .archive
                .put(class, time, encoded, &request.image)
                .map_err(|error| Refusal::Internal(error.to_string()))?,
        ),
        Err(_) => None,
    };
    timings.seal = watch.lap();

    let openings = record::openings(request);
    let facts = Facts {
        encoded,
        archive: class.map_or_else(|why| why.to_owned(), |class| class.as_str().to_owned()),
        time,
        clock,
    };
    let decision = record::decision(request, &lane.recipe, &examined, facts, &openings, lane.session.runtime());
    let private = PrivateRecord { openings, image_at: image_at.map(|location| location.to_string()) };
    Ok(Step::Record(Box::new(Decided { decision, private, areas: examined.judged.areas, timings })))
}

/// Hands the decision to the log; the answer leaves when the entry is durable.
fn record(shared: &Arc<Shared>, request: FrameRequest, decided: Decided, answer: super::AnswerSender) {
    let Decided { decision, private, areas, mut timings } = decided;
    let decision = Box::new(decision);
    let bytes = match decision.encode() {
        Ok(bytes) => bytes,
        Err(error) => return shared.finish(&request, answer, Err(Refusal::Internal(error.to_string()))),
    };
    let encoded = decision.image.encoded;
    let claim = FrameClaim { key: request.key(), encoded };
    let append = Append { entry: bytes, private, frame: Some(claim) };
    let handed_over = Instant::now();
    let shared_for_done = Arc::clone(shared);
    let done = Box::new(move |appended: Result<Appended, _>| {
        timings.commit = handed_over.elapsed();
        timings.total = request.received.elapsed();
        let outcome: Outcome = match appended {
            Ok(Appended::Written(receipt)) => {
                if let Some(OnDecided(on_decided)) = &shared_for_done.on_decided {
                    on_decided(DecidedFrame {
                        source: request.source.clone(),
                        product: request.product.clone(),
                        serial: request.serial.clone(),
                        verdict: decision.verdict,
                        receipt,
                    });
                }
                Ok(Answer { decision, receipt, areas, timings: Some(timings) })
            }
            // Another call decided the same frame in the meantime: its entry is the answer.
            Ok(Appended::Duplicate(receipt)) => shared_for_done.recorded(receipt),
            Ok(Appended::Conflict(first)) => Err(shared_for_done.frame_id_reused(&request, encoded, first)),
            Err(error) => Err(Refusal::Log(error)),
        };
        shared_for_done.finish(&request, answer, outcome);
    });
    shared.log.submit(append, done);
}

fn refusal(error: ExamineError, request: &FrameRequest) -> Refusal {
    match error {
        ExamineError::BadFrame(reason) => Refusal::BadFrame(reason),
        ExamineError::InferenceFault(reason) => Refusal::InferenceFault(reason),
        ExamineError::Late => Refusal::Deadline { waited: request.received.elapsed(), useful_for: request.useful_for },
    }
}

impl Shared {
    /// The recorded answer to a frame that was decided before.
    fn find_decided(&self, request: &FrameRequest, claimed: Blake3Digest) -> Result<Option<Answer>, Refusal> {
        let key = request.key();
        let found = self.log.find_frame(&key).map_err(|error| match error {
            ReadError::Index(why) => Refusal::Log(AppendError::FrameUnknown(why.to_string().into())),
            other => Refusal::Internal(other.to_string()),
        })?;
        match found {
            None => Ok(None),
            Some((receipt, encoded)) if encoded == claimed => self.recorded(receipt).map(Some),
            Some((first, _)) => Err(self.frame_id_reused(request, claimed, first)),
        }
    }

    /// Reads back the decision that stands at `receipt`.
    fn recorded(&self, receipt: Receipt) -> Outcome {
        let internal = |error: String| Refusal::Internal(format!("entry {}: {error}", receipt.index));
        let bytes = self.reader.entry(receipt.index).map_err(|error| internal(error.to_string()))?;
        match Entry::parse(&bytes).map_err(|error| internal(error.to_string()))? {
            Entry::Decision(decision) => Ok(Answer { decision, receipt, areas: Vec::new(), timings: None }),
            other => Err(internal(format!("is a {} entry, not the decision of a frame", other.kind()))),
        }
    }
}
