//! The inspection service: from a frame to a verdict with a durable entry behind it.
//!
//! The life of a frame, in order: [`InspectHandle::start`] authorises the source and admits it to its line's queue;
//! a worker checks, decodes, infers, decides and writes the image (`worker.rs`); the log makes the entry durable and
//! the answer leaves. Whatever fails on the way is a [`Refusal`], and refusals become gap entries (`gaps.rs`).
//!
//! **Invariant:** an [`Answer`] exists only after its entry's group was synced. `log.submit` calls back with
//! `Ok` only then, and nothing else makes an answer to a new frame.

pub(crate) mod batch;
pub(crate) mod examine;
pub mod gaps;
mod guard;
mod lanes;
pub mod queue;
pub mod record;
pub mod request;
mod sight;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use self::{
    batch::{BATCH_FRAMES_MAX, Measured, Sharing},
    examine::LaneError,
    lanes::NewLanes,
};
use self::{
    gaps::{GapTracker, SettledGap, Source},
    lanes::Mailbox,
    queue::{FairQueue, PushError},
    record::ArchiveRule,
    request::{FrameRequest, Outcome, Refusal},
};
use super::recipes::RecipeBook;
use crate::{
    core::lineage::{
        entry::{Access, AccessEvent, ENTRY_VERSION, Entry, Gap, GapKind, GapReason},
        private::{Opening, PrivateField},
    },
    planted,
    ports::{
        archive::ImageArchive,
        clock::Clock,
        inference::{ModelRuntime, SessionOptions},
        lineage::{Append, AppendError, LogReader, LogWriter, PrivateRecord, Receipt},
        recipes::LoadedRecipe,
    },
    types::{Blake3Digest, FrameId, LineId, ProductId, RecipeRef, Serial, Verdict},
};

/// How often settled gaps are written.
const TICK: Duration = Duration::from_millis(250);
/// Reused frame ids remembered until the next tick; more within a quarter second are counted in the last one.
const REUSED_MAX: usize = 1024;
/// Shortest and longest retry hint under overload.
const RETRY_MS: (u64, u64) = (5, 5_000);

/// What the service is told.
#[derive(Clone, Debug)]
pub struct InspectConfig {
    /// At least one.
    pub workers: usize,
    pub session_options: SessionOptions,
    /// Sessions that workers share; unset: every worker has its own.
    pub sharing: Option<Sharing>,
    pub queue_frames_per_line: usize,
    pub archive_rule: ArchiveRule,
    /// Cameras that may send frames.
    pub sources: HashSet<Source>,
    /// Hears of every new decision when its entry is durable; must not block.
    pub on_decided: Option<OnDecided>,
}

/// Hears of decisions.
#[derive(Clone)]
pub struct OnDecided(pub Arc<dyn Fn(DecidedFrame) + Send + Sync>);

impl std::fmt::Debug for OnDecided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDecided")
    }
}

/// A new decision whose entry is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedFrame {
    pub source: Source,
    pub product: ProductId,
    pub serial: Serial,
    pub verdict: Verdict,
    pub receipt: Receipt,
}

/// What the service works with.
pub struct InspectPorts {
    pub log: Arc<dyn LogWriter>,
    pub reader: Arc<dyn LogReader>,
    pub archive: Arc<dyn ImageArchive>,
    pub clock: Arc<dyn Clock>,
    pub runtime: Arc<dyn ModelRuntime>,
}

type AnswerSender = tokio::sync::oneshot::Sender<Outcome>;

/// An admitted frame.
struct Job {
    request: FrameRequest,
    /// What inspects it, whatever is activated while it waits.
    recipe: Arc<LoadedRecipe>,
    admitted: Instant,
    answer: AnswerSender,
}

struct Shared {
    queue: FairQueue<LineId, Job>,
    sources: HashSet<Source>,
    on_decided: Option<OnDecided>,
    archive_rule: ArchiveRule,
    session_options: SessionOptions,
    sharing: Option<Sharing>,
    /// One per worker: what changes in its lanes.
    mailboxes: Vec<Mailbox>,
    /// What frames are resolved by now.
    book: RwLock<Arc<RecipeBook>>,
    gaps: Mutex<GapTracker>,
    reused: Mutex<Vec<(FrameRequest, Receipt)>>,
    /// Held while gaps go from the tracker to the log, so that whoever holds it knows that none is on the way.
    writing: Mutex<()>,
    /// Moving average of the time a worker spends on a frame, microseconds.
    service_us: AtomicU64,
    log: Arc<dyn LogWriter>,
    reader: Arc<dyn LogReader>,
    archive: Arc<dyn ImageArchive>,
    clock: Arc<dyn Clock>,
    runtime: Arc<dyn ModelRuntime>,
    /// Recipes of which a session is poisoned.
    poisoned: tokio::sync::watch::Sender<Vec<RecipeRef>>,
}

/// The running service: its workers and the writer of gaps. Dropping it does not stop it; [`Self::shutdown`] does.
pub struct Inspect {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    ticker: Option<JoinHandle<()>>,
    stop_ticker: std::sync::mpsc::Sender<()>,
}

/// A cheap, cloneable way in.
#[derive(Clone)]
pub struct InspectHandle(Arc<Shared>);

impl Inspect {
    /// Starts the workers, which have no recipe until [`InspectHandle::publish`] gives them some.
    ///
    /// `last_counters` says where each camera stood, so that frames lost while the service was down become gaps.
    #[must_use]
    pub fn start(config: InspectConfig, ports: InspectPorts, last_counters: HashMap<Source, u64>) -> Self {
        let mut gaps = GapTracker::default();
        for (source, counter) in last_counters {
            gaps.resume(source, counter);
        }
        let InspectPorts { log, reader, archive, clock, runtime } = ports;
        let shared = Arc::new(Shared {
            queue: FairQueue::new(config.queue_frames_per_line),
            sources: config.sources,
            on_decided: config.on_decided,
            archive_rule: config.archive_rule,
            session_options: config.session_options,
            sharing: config.sharing,
            mailboxes: (0..config.workers.max(1)).map(|_| Mailbox::default()).collect(),
            book: RwLock::default(),
            gaps: Mutex::new(gaps),
            reused: Mutex::new(Vec::new()),
            writing: Mutex::new(()),
            service_us: AtomicU64::new(10_000),
            log,
            reader,
            archive,
            clock,
            runtime,
            poisoned: tokio::sync::watch::Sender::default(),
        });
        let spawn = |number| {
            let shared = Arc::clone(&shared);
            let run = move || worker::run(&shared, number);
            std::thread::Builder::new()
                .name(format!("inspect-{number}"))
                .spawn(run)
                .expect("the operating system starts a thread")
        };
        let workers = (0..shared.mailboxes.len()).map(spawn).collect();
        let (stop_ticker, stopped) = std::sync::mpsc::channel();
        let ticker = std::thread::Builder::new()
            .name("gaps".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    while stopped.recv_timeout(TICK) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                        shared.write_settled(Some(Instant::now()));
                    }
                }
            })
            .expect("the operating system starts a thread");
        Self { shared, workers, ticker: Some(ticker), stop_ticker }
    }

    #[must_use]
    pub fn handle(&self) -> InspectHandle {
        InspectHandle(Arc::clone(&self.shared))
    }

    /// Admits nothing more, serves what was admitted, writes the open gaps. Blocks until that is done; the answers
    /// of the last frames arrive when the log has made them durable.
    pub fn shutdown(mut self) {
        self.shared.queue.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker ended with a panic");
            }
        }
        let _ = self.stop_ticker.send(());
        if self.ticker.take().is_some_and(|ticker| ticker.join().is_err()) {
            tracing::error!("the writer of gaps ended with a panic");
        }
        self.shared.write_settled(None);
    }
}

impl InspectHandle {
    /// Admits one frame. The receiver yields exactly one outcome.
    ///
    /// # Errors
    /// [`Refusal`] when the frame is not admitted.
    pub fn start(&self, request: FrameRequest) -> Result<tokio::sync::oneshot::Receiver<Outcome>, Refusal> {
        let shared = &self.0;
        shared.note_arrival(&request)?;
        let recipe = shared.book().resolve(request.recipe.as_ref(), &request.product);
        let recipe = recipe.map_err(|refusal| shared.note_refusal(&request, refusal))?;
        let (answer, outcome) = tokio::sync::oneshot::channel();
        let line = request.source.line.clone();
        let job = Job { request, recipe, admitted: Instant::now(), answer };
        match shared.queue.push(&line, job) {
            Ok(_) => Ok(outcome),
            Err(PushError::Full(job)) => {
                let waiting = shared.queue.lane_items_max();
                let refusal = Refusal::Overload { line, waiting, retry_after: shared.retry_after(waiting) };
                Err(shared.note_refusal(&job.request, refusal))
            }
            Err(PushError::Closed(_)) => Err(Refusal::ShuttingDown),
        }
    }

    /// Admits one frame and waits for its outcome. Dropping the future does not stop the frame.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn inspect(&self, request: FrameRequest) -> Outcome {
        self.start(request)?.await.unwrap_or_else(|_| Err(Refusal::Internal("a frame was dropped unanswered".into())))
    }

    /// The recipes that frames are resolved by now.
    #[must_use]
    pub fn recipes(&self) -> Arc<RecipeBook> {
        self.0.book()
    }

    /// How sessions run.
    #[must_use]
    pub fn session_options(&self) -> &SessionOptions {
        &self.0.session_options
    }

    /// Loads and warms a session of `recipe` for every worker, beside the work that goes on. Blocks.
    ///
    /// # Errors
    /// [`LaneError`].
    pub fn prepare(&self, recipe: &Arc<LoadedRecipe>) -> Result<NewLanes, LaneError> {
        self.0.load_lanes(recipe, self.0.mailboxes.len())
    }

    /// Has frames resolved by `book` from now on. Every recipe it serves that the last book did not is in `prepared`.
    ///
    /// A frame admitted before is still decided by the recipe it was resolved to. One admitted after finds its lane: the
    /// lanes are in the workers' mailboxes before the book is seen.
    pub fn publish(&self, book: RecipeBook, prepared: Vec<NewLanes>) {
        let shared = &self.0;
        let loaded: Vec<RecipeRef> = prepared.iter().map(|new| new.recipe.clone()).collect();
        for NewLanes { recipe, lanes } in prepared {
            for (mailbox, lane) in shared.mailboxes.iter().zip(lanes) {
                mailbox.add(recipe.clone(), lane);
            }
        }
        let former =
            std::mem::replace(&mut *shared.book.write().unwrap_or_else(PoisonError::into_inner), Arc::new(book));
        let now = shared.book();
        let gone = former.ready().map(|recipe| recipe.recipe.reference()).filter(|name| now.serving(name).is_none());
        for name in gone {
            shared.mailboxes.iter().for_each(|mailbox| mailbox.remove(name.clone()));
        }
        shared.queue.nudge();
        // Sessions loaded anew have answered the canary.
        shared.poisoned.send_modify(|recipes| recipes.retain(|recipe| !loaded.contains(recipe)));
    }

    /// Whether this camera may send frames.
    #[must_use]
    pub fn knows(&self, source: &Source) -> bool {
        self.0.sources.contains(source)
    }

    /// Why a frame would be refused by the log now, whatever it shows.
    #[must_use]
    pub fn log_refusal(&self) -> Option<AppendError> {
        self.0.log.refusal()
    }

    /// Notes a frame that the edge refuses before it is one: it becomes a gap.
    pub fn note_refused(&self, source: &Source, reason: GapReason, counter: u64, frame: &FrameId) {
        let mut gaps = self.0.lock_gaps();
        let now = Instant::now();
        gaps.arrived(source, counter, now);
        gaps.refused(source, reason, counter, frame, now);
    }

    /// The counter of a frame whose camera gives none: one more than the largest that was seen of it.
    #[must_use]
    pub fn next_counter(&self, source: &Source) -> u64 {
        self.0.lock_gaps().next_counter(source)
    }

    /// Makes durable what is known by now of the camera's frames without a decision, up to the counter `last`. Blocks.
    pub fn write_gaps(&self, source: &Source, last: u64) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = self.0.lock_gaps().take_now(source, last);
        self.0.write_gaps(gaps);
    }

    /// Recipes of which a session failed its canary, and gives no verdict any more.
    #[must_use]
    pub fn poisoned(&self) -> Vec<RecipeRef> {
        self.0.poisoned.borrow().clone()
    }

    /// Changes when a recipe begins or ceases to serve.
    #[must_use]
    pub fn health(&self) -> tokio::sync::watch::Receiver<Vec<RecipeRef>> {
        self.0.poisoned.subscribe()
    }

    /// Frames waiting for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.queue.len()
    }
}

impl Shared {
    fn book(&self) -> Arc<RecipeBook> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is done once when a session of this recipe fails its canary.
    fn on_poison(&self, recipe: RecipeRef) -> guard::OnPoison {
        let poisoned = self.poisoned.clone();
        Arc::new(move |reason: &str| {
            tracing::error!(%recipe, reason, "a session is poisoned; its frames are refused until a restart");
            poisoned.send_modify(|recipes| {
                if !recipes.contains(&recipe) {
                    recipes.push(recipe.clone());
                }
            });
        })
    }

    /// Refuses strangers, and follows the camera's counter.
    fn note_arrival(&self, request: &FrameRequest) -> Result<(), Refusal> {
        if !self.sources.contains(&request.source) {
            return Err(Refusal::UnknownSource(request.source.clone()));
        }
        self.lock_gaps().arrived(&request.source, request.counter, Instant::now());
        Ok(())
    }

    fn note_refusal(&self, request: &FrameRequest, refusal: Refusal) -> Refusal {
        if let Some(reason) = refusal.gap() {
            self.lock_gaps().refused(&request.source, reason, request.counter, &request.frame, Instant::now());
        }
        refusal
    }

    /// The one place where an admitted frame gets its outcome.
    fn finish(&self, request: &FrameRequest, answer: AnswerSender, outcome: Outcome) {
        let outcome = outcome.map_err(|refusal| self.note_refusal(request, refusal));
        if let Err(refusal) = &outcome {
            tracing::debug!(frame = %request.key(), reason = refusal.reason(), "frame refused");
        }
        // The caller may be gone; a retry finds the entry.
        let _ = answer.send(outcome);
    }

    fn frame_id_reused(&self, request: &FrameRequest, found: Blake3Digest, first: Receipt) -> Refusal {
        tracing::warn!(frame = %request.key(), entry = %first.index, "frame id came again with other bytes");
        let mut reused = self.reused.lock().unwrap_or_else(PoisonError::into_inner);
        if reused.len() < REUSED_MAX {
            let mut without_pixels = request.clone();
            without_pixels.image = bytes::Bytes::new();
            without_pixels.claimed = Some(found);
            reused.push((without_pixels, first));
        }
        Refusal::FrameIdReused { key: request.key(), first }
    }

    fn note_service_time(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(60_000_000);
        // Racing updates lose a sample, which an average survives.
        let average = self.service_us.load(Ordering::Relaxed);
        self.service_us.store((average * 7 + took) / 8, Ordering::Relaxed);
    }

    /// When a lane that holds `waiting` frames has room again: the time its workers need for a quarter of them.
    fn retry_after(&self, waiting: usize) -> Duration {
        let frames = (waiting as u64 / 4).max(1);
        let us = self.service_us.load(Ordering::Relaxed) * frames / self.mailboxes.len() as u64;
        Duration::from_millis((us / 1000).clamp(RETRY_MS.0, RETRY_MS.1))
    }

    /// Writes settled gaps and reused frame ids to the log.
    fn write_settled(&self, now: Option<Instant>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = self.lock_gaps().take_settled(now);
        self.write_gaps(gaps);
        let reused = std::mem::take(&mut *self.reused.lock().unwrap_or_else(PoisonError::into_inner));
        for (request, first) in reused {
            let client = request.client.clone();
            let opening = |value| Opening { field: PrivateField::Client, salt: record::salt(), value };
            let openings: Vec<Opening> = client.map(opening).into_iter().collect();
            drop(self.append(&self.reused_entry(&request, first, &openings), openings));
        }
    }

    /// Writes gaps and waits until they are durable, or known not to be.
    fn write_gaps(&self, mut gaps: Vec<SettledGap>) {
        gaps.retain(|_| !planted::has("omit-gap"));
        let written: Vec<_> = gaps.into_iter().map(|gap| self.append(&self.gap_entry(gap), Vec::new())).collect();
        // A log that has stopped drops the sender.
        for written in written {
            let _ = written.recv();
        }
    }

    /// Appends an entry; the receiver hears when the log is done with it.
    fn append(&self, entry: &Entry, openings: Vec<Opening>) -> std::sync::mpsc::Receiver<()> {
        let bytes = entry.encode().expect("gap and access entries are far below the size limit");
        let private = PrivateRecord { openings, image_at: None };
        let append = Append { entry: bytes, private, frame: None };
        let kind = entry.kind().to_owned();
        let (tell, done) = std::sync::mpsc::sync_channel(1);
        let on_done = move |appended: Result<_, crate::ports::lineage::AppendError>| {
            if let Err(error) = appended {
                tracing::warn!(kind, %error, "entry not written");
            }
            let _ = tell.send(());
        };
        self.log.submit(append, Box::new(on_done));
        done
    }

    fn gap_entry(&self, gap: SettledGap) -> Entry {
        let (time, clock) = self.clock.now();
        Entry::Gap(Gap {
            camera: gap.source.camera,
            clock,
            count: gap.count,
            first: gap.first,
            frame: gap.frame,
            kind: GapKind::Kind,
            last: gap.last,
            line: gap.source.line,
            reason: gap.reason,
            station: gap.source.station,
            time,
            v: ENTRY_VERSION,
        })
    }

    fn reused_entry(&self, request: &FrameRequest, first: Receipt, openings: &[Opening]) -> Entry {
        Entry::Access(Access {
            index: Some(first.index),
            object: request.claimed.map(|claimed| claimed.to_string()),
            private: record::commitments(openings),
            ..Access::new(AccessEvent::FrameIdReused, self.clock.now())
        })
    }

    fn lock_gaps(&self) -> std::sync::MutexGuard<'_, GapTracker> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
