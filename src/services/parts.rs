//! Joins the decisions on several views of one part to one verdict, and records it.
//!
//! Every view is a frame of its own with its own decision; nothing here holds one back. When all views of a part are decided, or the
//! time for them is over, an entry of kind `part` names the decisions and the worst verdict among them; a view without a decision
//! makes it NOT_DECIDABLE. What was open when the service ended is taken up from the log at the next start.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::inspect::{DecidedFrame, gaps::Source};
use crate::{
    core::{
        assemble::Assembler,
        lineage::{
            entry::{Decision, Entry},
            part::{PartVerdict, ViewRecord},
            private::PrivateField,
        },
    },
    ports::{
        clock::Clock,
        lineage::{Append, AppendError, Appended, LogReader, LogWriter, PrivateRecord, ReadError, Receipt},
    },
    types::{EntryIndex, ProductId, Serial, Verdict, ViewName},
};

/// Part verdicts that are remembered; older ones are looked up in the log.
const REMEMBERED_MAX: usize = 16_384;
/// Entries behind a decision that are searched for its part verdict, and entries at the log's end that are taken up at the start.
const ENTRIES_SEARCHED_MAX: u64 = 262_144;
/// How much later than twice its time a part verdict may stand in the log: the log may have been full for a while.
const RECORD_LATE_MAX: Duration = Duration::from_secs(600);
/// How long until a verdict that the log did not take is offered again.
const AGAIN: Duration = Duration::from_secs(1);
/// How an entry of kind part tells its kind; quotes within strings are escaped, so nothing else has it.
const KIND: &[u8] = br#""kind":"part""#;
/// Entries in one bundle of the log.
const BUNDLE_ENTRIES: u64 = 256;

/// How the parts of a product are seen.
#[derive(Clone, Debug)]
pub struct PartRule {
    pub product: ProductId,
    /// How long after its first view a part's last one may be decided.
    pub wait: Duration,
    pub views: Vec<(ViewName, Source)>,
}

impl PartRule {
    /// Whether the decision is about one of the views.
    fn sees(&self, decision: &Decision) -> bool {
        let place = (&decision.line, &decision.station, &decision.camera);
        self.views.iter().any(|(_, view)| (&view.line, &view.station, &view.camera) == place)
    }
}

/// A part verdict in the log.
#[derive(Debug)]
pub struct JoinedPart {
    pub part: PartVerdict,
    pub receipt: Receipt,
}

/// Why there is no part verdict.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error(
        "entry {0} is no decision of a product that is joined from views; [[part]] in lineproof.toml says which are"
    )]
    NotJoined(EntryIndex),
    #[error("the part of entry {0} has no verdict yet; ask again")]
    NotYet(EntryIndex),
    #[error(
        "the part of entry {0} was never joined, and will not be: its decision is older than [[part]], or than a time in which the service did not run"
    )]
    Never(EntryIndex),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What the service works with.
pub struct PartsPorts {
    pub reader: Arc<dyn LogReader>,
    pub writer: Arc<dyn LogWriter>,
    pub clock: Arc<dyn Clock>,
}

/// The running service; dropping it does not stop it, [`Self::shutdown`] does.
pub struct Parts {
    thread: JoinHandle<()>,
    handle: PartsHandle,
}

/// A cheap, cloneable way in.
#[derive(Clone)]
pub struct PartsHandle {
    shared: Arc<Shared>,
    events: Sender<Event>,
}

enum Event {
    Decided(DecidedFrame),
    /// The log did not take the verdict on this part.
    Again(ProductId, Vec<(usize, Seen)>),
    Stop,
}

struct Shared {
    rules: HashMap<ProductId, PartRule>,
    reader: Arc<dyn LogReader>,
    writer: Arc<dyn LogWriter>,
    clock: Arc<dyn Clock>,
    joined: Mutex<Joined>,
    events: Sender<Event>,
    /// Held while somebody searches the log, so that many who ask cost no more than one.
    searching: tokio::sync::Mutex<()>,
    /// Counts part verdicts, so that whoever waits looks again.
    changed: tokio::sync::watch::Sender<u64>,
}

/// The latest part verdicts by the decisions they join.
#[derive(Default)]
struct Joined {
    by_decision: HashMap<EntryIndex, Arc<JoinedPart>>,
    order: VecDeque<Arc<JoinedPart>>,
}

/// A decision on a view.
#[derive(Clone, Copy)]
struct Seen {
    verdict: Verdict,
    receipt: Receipt,
}

type Assemblers = HashMap<ProductId, Assembler<Serial, Seen>>;

impl Parts {
    /// Takes up what is open in the log, then joins what [`PartsHandle::decided`] tells.
    #[must_use]
    pub fn start(rules: Vec<PartRule>, ports: PartsPorts) -> Self {
        let PartsPorts { reader, writer, clock } = ports;
        let rules: HashMap<_, _> = rules.into_iter().map(|rule| (rule.product.clone(), rule)).collect();
        let changed = tokio::sync::watch::Sender::new(0);
        let (events, heard) = channel();
        let shared = Arc::new(Shared {
            rules,
            reader,
            writer,
            clock,
            joined: Mutex::default(),
            events: events.clone(),
            searching: tokio::sync::Mutex::default(),
            changed,
        });
        let mut assemblers: Assemblers = HashMap::new();
        for (product, rule) in &shared.rules {
            assemblers.insert(product.clone(), Assembler::new(rule.views.len(), rule.wait));
        }
        // What cannot be read is no reason not to start: those parts are not joined, and that is said.
        match shared.open_in_log() {
            Ok(open) => open.iter().for_each(|decided| shared.add(&mut assemblers, decided)),
            Err(error) => tracing::error!(%error, "parts that were open when the service ended are not joined"),
        }
        let run = {
            let shared = Arc::clone(&shared);
            move || run(&shared, assemblers, &heard)
        };
        let thread = std::thread::Builder::new().name("parts".into()).spawn(run);
        Self { thread: thread.expect("the operating system starts a thread"), handle: PartsHandle { shared, events } }
    }

    #[must_use]
    pub fn handle(&self) -> PartsHandle {
        self.handle.clone()
    }

    /// Stops joining. Parts that are open stay open in the log, and the next start takes them up.
    pub fn shutdown(self) {
        let _ = self.handle.events.send(Event::Stop);
        if self.thread.join().is_err() {
            tracing::error!("joining parts ended with a panic");
        }
    }
}

impl PartsHandle {
    /// Hears of a new decision whose entry is durable. Does not block.
    pub fn decided(&self, frame: DecidedFrame) {
        if self.shared.rules.contains_key(&frame.product) {
            let _ = self.events.send(Event::Decided(frame));
        }
    }

    /// The verdict on the part that this decision is about, as soon as it is recorded.
    ///
    /// # Errors
    /// [`PartError::NotYet`] after `wait`.
    pub async fn of_decision(&self, decision: EntryIndex, wait: Duration) -> Result<Arc<JoinedPart>, PartError> {
        let mut changed = self.shared.changed.subscribe();
        let waiting = async {
            if let Some(joined) = self.shared.remembered(decision) {
                return Ok(joined);
            }
            let searching = self.shared.searching.lock().await;
            let shared = Arc::clone(&self.shared);
            let found = tokio::task::spawn_blocking(move || shared.recorded(decision)).await;
            drop(searching);
            if let Some(joined) = found.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))? {
                return Ok(joined);
            }
            loop {
                if let Some(joined) = self.shared.remembered(decision) {
                    return Ok(joined);
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(wait, waiting).await.unwrap_or(Err(PartError::NotYet(decision)))
    }

    /// How long the part of a decision may take at most.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        self.shared.rules.values().map(|rule| rule.wait).max().unwrap_or_default()
    }
}

/// Joins until told to stop.
fn run(shared: &Arc<Shared>, mut assemblers: Assemblers, events: &Receiver<Event>) {
    let mut again: Vec<(ProductId, Vec<(usize, Seen)>)> = Vec::new();
    loop {
        let next = assemblers.values().filter_map(Assembler::next).min();
        let mut wait = next.map_or(Duration::from_secs(60), |next| next.saturating_duration_since(Instant::now()));
        if !again.is_empty() {
            wait = wait.min(AGAIN);
        }
        match events.recv_timeout(wait) {
            Ok(Event::Decided(frame)) => shared.add(&mut assemblers, &frame),
            Ok(Event::Again(product, seen)) => again.push((product, seen)),
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if !again.is_empty() && shared.writer.refusal().is_none() {
            for (product, seen) in again.drain(..) {
                shared.join(&shared.rules[&product], seen);
            }
        }
        let now = Instant::now();
        for (product, assembler) in &mut assemblers {
            for (_, seen) in assembler.expired(now) {
                shared.join(&shared.rules[product], seen);
            }
        }
    }
}

impl Shared {
    fn add(self: &Arc<Self>, assemblers: &mut Assemblers, frame: &DecidedFrame) {
        let (Some(rule), Some(assembler)) = (self.rules.get(&frame.product), assemblers.get_mut(&frame.product)) else {
            return;
        };
        // A camera that is no view of this product decides for itself.
        let Some(view) = rule.views.iter().position(|(_, source)| *source == frame.source) else { return };
        let seen = Seen { verdict: frame.verdict, receipt: frame.receipt };
        if let Some(seen) = assembler.add(frame.serial.clone(), view, seen, Instant::now()) {
            self.join(rule, seen);
        }
    }

    /// Records the verdict on one part; it is known when its entry is durable.
    fn join(self: &Arc<Self>, rule: &PartRule, seen: Vec<(usize, Seen)>) {
        let mut views = Vec::new();
        for (number, (name, source)) in rule.views.iter().enumerate() {
            let record = |seen: Option<&Seen>| ViewRecord {
                camera: source.camera.clone(),
                entry: seen.map(|seen| seen.receipt.index),
                leaf: seen.map(|seen| seen.receipt.leaf_hash),
                line: source.line.clone(),
                station: source.station.clone(),
                verdict: seen.map(|seen| seen.verdict),
                view: name.clone(),
            };
            let before = views.len();
            views.extend(seen.iter().filter(|(view, _)| *view == number).map(|(_, seen)| record(Some(seen))));
            if views.len() == before {
                views.push(record(None));
            }
        }
        let part = PartVerdict::new(rule.product.clone(), views, self.clock.now());
        let append = Append { entry: part.encode(), private: PrivateRecord::default(), frame: None };
        let (shared, product) = (Arc::clone(self), rule.product.clone());
        let done = Box::new(move |appended: Result<Appended, AppendError>| match appended {
            Ok(Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt)) => {
                shared.remember(Arc::new(JoinedPart { part, receipt }));
            }
            Err(error) => {
                tracing::warn!(%error, "a part verdict is not recorded, so there is none yet");
                // When the log has stopped, the next start finds the decisions and joins them.
                if matches!(error, AppendError::DiskReserve { .. }) {
                    let _ = shared.events.send(Event::Again(product, seen));
                }
            }
        });
        self.writer.submit(append, done);
    }

    fn remember(&self, joined: Arc<JoinedPart>) {
        let mut known = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        for decision in joined.part.decisions() {
            known.by_decision.insert(decision, Arc::clone(&joined));
        }
        known.order.push_back(joined);
        if known.order.len() > REMEMBERED_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            oldest.part.decisions().for_each(|decision| drop(known.by_decision.remove(&decision)));
        }
        drop(known);
        self.changed.send_modify(|count| *count += 1);
    }

    fn remembered(&self, decision: EntryIndex) -> Option<Arc<JoinedPart>> {
        let known = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_decision.get(&decision).map(Arc::clone)
    }

    /// The part verdict that the log has for a decision, none if it has none yet.
    fn recorded(&self, decision: EntryIndex) -> Result<Option<Arc<JoinedPart>>, PartError> {
        let found = Entry::parse(&self.reader.entry(decision)?);
        let Ok(Entry::Decision(found)) = found else { return Err(PartError::NotJoined(decision)) };
        let rule = self.rules.get(&found.product).filter(|rule| rule.sees(&found));
        let rule = rule.ok_or(PartError::NotJoined(decision))?;
        let latest = i128::from(found.time.unix_nanos()) + (2 * rule.wait + RECORD_LATE_MAX).as_nanos() as i128;
        let size = self.reader.checkpoint()?.size;
        let end = size.min(decision.0.saturating_add(ENTRIES_SEARCHED_MAX));
        let mut at = decision.0 + 1;
        while at < end {
            let entries = self.reader.entries(EntryIndex(at), EntryIndex(end.min(bundle_end(at))))?;
            for (offset, bytes) in entries.iter().enumerate() {
                let is_part = bytes.windows(KIND.len()).any(|window| window == KIND);
                let Some(part) = is_part.then(|| PartVerdict::read(bytes)).flatten() else { continue };
                if part.decisions().any(|named| named == decision) {
                    let leaf_hash = crate::core::lineage::tree::leaf_hash(bytes);
                    let receipt = Receipt { index: EntryIndex(at + offset as u64), leaf_hash };
                    return Ok(Some(Arc::new(JoinedPart { part, receipt })));
                }
            }
            let last = entries.last().and_then(|bytes| Entry::parse(bytes).ok()?.time());
            if last.is_some_and(|time| i128::from(time.unix_nanos()) > latest) {
                return Err(PartError::Never(decision));
            }
            at += entries.len() as u64;
        }
        if end < size { Err(PartError::Never(decision)) } else { Ok(None) }
    }

    /// The decisions at the log's end that no part verdict names, oldest first: those that may have been open when the service ended.
    fn open_in_log(&self) -> Result<Vec<DecidedFrame>, ReadError> {
        let Some(longest) = self.rules.values().map(|rule| rule.wait).max() else { return Ok(Vec::new()) };
        let size = self.reader.checkpoint()?.size;
        let (mut named, mut open): (HashSet<EntryIndex>, Vec<_>) = (HashSet::new(), Vec::new());
        let (mut end, mut last) = (size, None);
        'bundles: while end > 0 && size - end < ENTRIES_SEARCHED_MAX {
            let start = (end - 1) / BUNDLE_ENTRIES * BUNDLE_ENTRIES;
            let entries = self.reader.entries(EntryIndex(start), EntryIndex(end))?;
            for (offset, bytes) in entries.iter().enumerate().rev() {
                let index = EntryIndex(start + offset as u64);
                if let Some(part) = PartVerdict::read(bytes) {
                    named.extend(part.decisions());
                    continue;
                }
                let Ok(entry) = Entry::parse(bytes) else { continue };
                let Some(nanos) = entry.time().map(|time| time.unix_nanos()) else { continue };
                let Entry::Decision(decision) = entry else { continue };
                let over = *last.get_or_insert(nanos) - nanos;
                // A part verdict may come a little after its time was over, never before its decisions.
                if u128::try_from(over).is_ok_and(|over| over > 2 * longest.as_nanos()) {
                    break 'bundles;
                }
                let is_seen = self.rules.get(&decision.product).is_some_and(|rule| rule.sees(&decision));
                if named.contains(&index) || !is_seen {
                    continue;
                }
                let private = self.reader.private(index)?;
                let serial = private.openings.iter().find(|opening| opening.field == PrivateField::Serial);
                let Some(serial) = serial.and_then(|opening| Serial::new(opening.value.clone()).ok()) else { continue };
                let leaf_hash = crate::core::lineage::tree::leaf_hash(bytes);
                open.push(DecidedFrame {
                    source: Source { line: decision.line, station: decision.station, camera: decision.camera },
                    product: decision.product,
                    serial,
                    verdict: decision.verdict,
                    receipt: Receipt { index, leaf_hash },
                });
            }
            end = start;
        }
        open.reverse();
        Ok(open)
    }
}

fn bundle_end(at: u64) -> u64 {
    (at / BUNDLE_ENTRIES + 1) * BUNDLE_ENTRIES
}
