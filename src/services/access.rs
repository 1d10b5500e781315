//! Writes into the log who asked for what, and who was refused: entries of kind `access`.
//!
//! What is allowed is noted before it is done. Refusals are noted as they come, but those that repeat are counted: whoever
//! knocks a thousand times a second fills no log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    core::lineage::{
        entry::{Access, AccessEvent, Commitments, Entry},
        private::{Opening, PrivateField},
    },
    ports::{
        clock::Clock,
        lineage::{Append, AppendError, LogWriter, PrivateRecord},
    },
    services::inspect::record::salt,
    types::EntryIndex,
};

/// How long equal refusals are counted before they are written again.
const WINDOW: Duration = Duration::from_secs(60);
/// How often the counted ones are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Different refusals that are told apart within a window; what comes beyond stands under its event and reason alone.
const KINDS_MAX: usize = 1024;
/// Longest text in bytes of who asked.
const WHO_BYTES_MAX: usize = 1024;

/// One thing to be noted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    pub event: AccessEvent,
    /// Who, as the entry commits to it; none: whoever is on this machine.
    pub who: Option<String>,
    /// `lineproof.v1.HistoryService/ListDecisions`.
    pub method: Option<&'static str>,
    pub reason: Option<&'static str>,
    /// The entry asked for.
    pub index: Option<EntryIndex>,
    pub object: Option<String>,
}

impl Note {
    #[must_use]
    pub fn new(event: AccessEvent) -> Self {
        Self { event, who: None, method: None, reason: None, index: None, object: None }
    }
}

/// The writing side of access.
pub struct AccessJournal {
    writer: Arc<dyn LogWriter>,
    clock: Arc<dyn Clock>,
    refusals: Mutex<HashMap<Note, Window>>,
}

/// Equal refusals since the last entry about them.
struct Window {
    since: Instant,
    count: u64,
}

impl AccessJournal {
    #[must_use]
    pub fn new(writer: Arc<dyn LogWriter>, clock: Arc<dyn Clock>) -> Self {
        Self { writer, clock, refusals: Mutex::default() }
    }

    /// Notes what is about to be done, and returns once that is durable. A log that takes nothing more is no reason to answer
    /// nothing (G10): then the process's own log says it.
    pub async fn note(self: &Arc<Self>, note: Note) {
        let (done, outcome) = oneshot::channel();
        let journal = Arc::clone(self);
        // Submitting waits while the writer's queue is full.
        tokio::task::spawn_blocking(move || {
            journal.submit(&note, None, move |result| drop(done.send(result)));
        });
        if let Ok(Err(error)) = outcome.await {
            tracing::warn!(%error, "an access could not be noted in the log");
        }
    }

    /// Counts a refusal; the first of its kind is noted at once. Does not wait.
    pub fn refused(self: &Arc<Self>, mut note: Note) {
        if let Some(who) = &mut note.who {
            let end = (0..=WHO_BYTES_MAX.min(who.len())).rev().find(|at| who.is_char_boundary(*at)).unwrap_or(0);
            who.truncate(end);
        }
        {
            let mut refusals = self.lock();
            if refusals.len() >= KINDS_MAX && !refusals.contains_key(&note) {
                note = Note { reason: note.reason, ..Note::new(note.event) };
            }
            if let Some(window) = refusals.get_mut(&note) {
                window.count += 1;
                return;
            }
            refusals.insert(note.clone(), Window { since: Instant::now(), count: 0 });
        }
        let journal = Arc::clone(self);
        tokio::task::spawn_blocking(move || journal.submit(&note, None, |_| {}));
    }

    /// Writes counted refusals until `stopper` fires, and then what is left.
    pub async fn run(self: Arc<Self>, stopper: CancellationToken) {
        loop {
            let is_over = tokio::select! {
                () = stopper.cancelled() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let journal = Arc::clone(&self);
            let _ = tokio::task::spawn_blocking(move || journal.write_counted(is_over)).await;
            if is_over {
                return;
            }
        }
    }

    fn write_counted(&self, all: bool) {
        let mut due = Vec::new();
        self.lock().retain(|note, window| {
            if !all && window.since.elapsed() < WINDOW {
                return true;
            }
            if window.count > 0 {
                due.push((note.clone(), window.count));
            }
            // What goes on is counted further; what has ended is forgotten.
            let goes_on = window.count > 0;
            (window.since, window.count) = (Instant::now(), 0);
            goes_on
        });
        for (note, count) in due {
            self.submit(&note, Some(count), |_| {});
        }
    }

    fn submit(&self, note: &Note, count: Option<u64>, done: impl FnOnce(Result<(), AppendError>) + Send + 'static) {
        let who = note.who.clone();
        let who = who.map(|value| Opening { field: PrivateField::Client, salt: salt(), value });
        let access = Access {
            count,
            index: note.index,
            method: note.method.map(str::to_owned),
            object: note.object.clone(),
            private: Commitments { client: who.as_ref().map(Opening::commitment), ..Commitments::default() },
            reason: note.reason.map(str::to_owned),
            ..Access::new(note.event, self.clock.now())
        };
        let entry = match Entry::Access(access).encode() {
            Ok(entry) => entry,
            Err(error) => return done(Err(AppendError::Invalid(error.to_string()))),
        };
        let private = PrivateRecord { openings: who.into_iter().collect(), image_at: None };
        let done = Box::new(move |result: Result<_, AppendError>| done(result.map(|_| ())));
        self.writer.submit(Append { entry, private, frame: None }, done);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Note, Window>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::lineage::entry::ClockState,
        ports::lineage::{Appended, Done, ReadError, Receipt},
        types::{Blake3Digest, FrameKey, Sha256Digest},
    };

    /// Keeps what it is given.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Append>>);

    impl LogWriter for Kept {
        fn submit(&self, append: Append, done: Done) {
            let mut kept = self.0.lock().unwrap();
            let index = EntryIndex(kept.len() as u64);
            kept.push(append);
            done(Ok(Appended::Written(Receipt { index, leaf_hash: Sha256Digest([0; 32]) })));
        }

        fn refusal(&self) -> Option<AppendError> {
            None
        }

        fn find_frame(&self, _key: &FrameKey) -> Result<Option<(Receipt, Blake3Digest)>, ReadError> {
            Ok(None)
        }

        fn checkpoint_now(&self) -> Result<(), AppendError> {
            Ok(())
        }
    }

    struct Still;

    impl Clock for Still {
        fn now(&self) -> (crate::types::Instant, ClockState) {
            (crate::types::Instant::EPOCH, ClockState::Free)
        }
    }

    fn entries(kept: &Kept) -> Vec<Access> {
        let kept = kept.0.lock().unwrap();
        let access = kept.iter().map(|append| match Entry::parse(&append.entry).unwrap() {
            Entry::Access(access) => access,
            other => panic!("{other:?}"),
        });
        access.collect()
    }

    #[tokio::test]
    async fn a_thousand_knocks_are_two_entries_and_their_number_is_kept() {
        let kept = Arc::new(Kept::default());
        let journal = Arc::new(AccessJournal::new(kept.clone(), Arc::new(Still)));
        let stopper = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&journal).run(stopper.clone()));
        for _ in 0..1000 {
            journal.refused(Note { reason: Some("role"), who: Some("eva".into()), ..Note::new(AccessEvent::Refused) });
        }
        stopper.cancel();
        running.await.unwrap();
        let mut counts: Vec<_> = entries(&kept).iter().map(|access| access.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [None, Some(999)]);
    }

    #[tokio::test]
    async fn ever_new_names_fill_neither_memory_nor_log() {
        let kept = Arc::new(Kept::default());
        let journal = Arc::new(AccessJournal::new(kept.clone(), Arc::new(Still)));
        for number in 0..3 * KINDS_MAX {
            let who = Some(format!("{number}{}", "é".repeat(WHO_BYTES_MAX)));
            journal.refused(Note { reason: Some("nothing"), who, ..Note::new(AccessEvent::LoginFailed) });
        }
        assert!(journal.lock().len() <= KINDS_MAX + 1);
        journal.write_counted(true);
        let total = || entries(&kept).iter().map(|access| access.count.unwrap_or(1)).sum::<u64>();
        let waited = Instant::now();
        while total() < 3 * KINDS_MAX as u64 && waited.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(total(), 3 * KINDS_MAX as u64, "each is counted");
        assert!(entries(&kept).len() <= KINDS_MAX + 2);
        let longest = kept
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|append| append.private.openings[..].first().map_or(0, |o| o.value.len()))
            .max();
        assert!(longest.is_some_and(|bytes| bytes <= WHO_BYTES_MAX), "{longest:?}");
    }

    #[tokio::test]
    async fn what_is_allowed_is_noted_before_it_is_done() {
        let kept = Arc::new(Kept::default());
        let journal = Arc::new(AccessJournal::new(kept.clone(), Arc::new(Still)));
        let method = Some("lineproof.v1.HistoryService/GetDecision");
        let who = Some("spiffe://plant.example/person/eva".to_owned());
        journal.note(Note { method, who, index: Some(EntryIndex(7)), ..Note::new(AccessEvent::Read) }).await;
        let access = entries(&kept).pop().expect("it is there when the call goes on");
        assert_eq!(
            (access.event, access.index, access.method.as_deref()),
            (AccessEvent::Read, Some(EntryIndex(7)), method)
        );
        let opening = &kept.0.lock().unwrap()[0].private.openings[0];
        assert_eq!(Some(opening.commitment()), access.private.client);
    }
}
