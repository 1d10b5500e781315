//! The writer: takes what waits as one group, checks each frame's claim, makes the group durable with one fdatasync,
//! and answers everyone.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, atomic::Ordering, mpsc::Receiver},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Answer, Command, Finish, LogState, PENDING_BYTES_MAX, PENDING_ENTRIES_MAX, Shared, TailEntry, erase, files,
    frames::Known,
    lock_mutex, lock_read, lock_write, private,
    wal::{Record, Segment},
};
use crate::{
    core::lineage::{entry::ENTRY_BYTES_MAX, tiles::TILE_WIDTH, tree::leaf_hash},
    planted,
    ports::{
        archive::ImageArchive,
        lineage::{Append, AppendError, Appended, FrameClaim, ReadError, Receipt},
        sealer::Sealer,
    },
    types::{EntryIndex, Sha256Digest},
};

/// Most entries made durable with one fdatasync.
const GROUP_ENTRIES_MAX: usize = 1024;
/// A group takes no further entry once it has this many bytes: 1 MiB is written in well under a millisecond.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// How long one look at the free space is believed; 100 ms at 200 MB/s is 20 MB, far below any sensible reserve.
const FREE_SPACE_AGE_MAX: Duration = Duration::from_millis(100);

pub(super) fn spawn(
    shared: Arc<Shared>,
    archive: Arc<dyn ImageArchive>,
    segment: Segment,
    queue: Receiver<Command>,
) -> JoinHandle<()> {
    let run = move || {
        let next = lock_read(&shared.tail).end();
        let mut writer = Writer { shared: &shared, archive, segment, next, free_space: None };
        let finish = catch_unwind(AssertUnwindSafe(|| writer.run(&queue))).unwrap_or_else(|_| {
            shared.stop("the writer panicked, which is a defect; its message is in the log of the service");
            Finish::Leave
        });
        // Whoever still waits in the queue is told, not forgotten.
        let refusal = shared.state().refusal().unwrap_or(AppendError::Closed);
        while let Ok(command) = queue.try_recv() {
            match command {
                Command::Append(_, done) => done.give(Err(refusal.clone())),
                Command::Rewrite(job) => job.give(Err(refusal.clone().into())),
                Command::Shutdown => {}
            }
        }
        lock_mutex(&shared.signal).finish = Some(finish);
        shared.wake();
    };
    std::thread::Builder::new().name("log-writer".into()).spawn(run).expect("the system starts a thread at start-up")
}

/// An append with everything done that needs no place in the log: hashing and sealing are the callers' work, so that
/// the one writer does not become what many callers wait for.
pub(super) struct Prepared {
    entry: Arc<[u8]>,
    leaf: Sha256Digest,
    sealed: Arc<[u8]>,
    frame: Option<([u8; 16], FrameClaim)>,
    has_image: bool,
}

impl Prepared {
    /// # Errors
    /// Why the append is not acceptable.
    pub fn new(sealer: &dyn Sealer, append: Append) -> Result<Self, String> {
        check_entry(&append.entry)?;
        let mut leaf = leaf_hash(&append.entry);
        leaf.0[0] ^= u8::from(planted::has("flip-leaf"));
        let sealed = private::seal(sealer, &leaf, &append.private)?.into();
        Ok(Self {
            entry: append.entry.into(),
            leaf,
            sealed,
            frame: append.frame.map(|claim| (claim.key.hash16(), claim)),
            has_image: append.private.image_at.is_some(),
        })
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    archive: Arc<dyn ImageArchive>,
    segment: Segment,
    /// Number of the next entry.
    next: u64,
    free_space: Option<(Instant, u64)>,
}

/// What follows a group.
enum Then {
    Go,
    Rewrite(erase::Job),
    End,
}

/// What a group will write.
#[derive(Default)]
struct Staged {
    bytes: Vec<u8>,
    tail: Vec<TailEntry>,
    frames: HashMap<[u8; 16], Known>,
    has_image: bool,
}

impl Writer<'_> {
    fn run(&mut self, queue: &Receiver<Command>) -> Finish {
        loop {
            let mut group = Vec::new();
            let mut group_bytes = 0;
            let mut next = queue.recv().ok();
            let then = loop {
                match next {
                    // Nobody holds a handle any more.
                    None if group.is_empty() => return Finish::Leave,
                    None => break Then::Go,
                    Some(Command::Shutdown) => break Then::End,
                    Some(Command::Rewrite(job)) => break Then::Rewrite(job),
                    Some(Command::Append(append, done)) => {
                        group_bytes += append.entry.len();
                        group.push((*append, done));
                    }
                }
                if group.len() >= self.group_entries_max() || group_bytes >= GROUP_BYTES_MAX {
                    break Then::Go;
                }
                next = queue.try_recv().ok();
            };
            self.commit(group);
            match then {
                Then::Go => {}
                Then::Rewrite(job) => self.rewrite(job),
                Then::End => return Finish::Publish,
            }
        }
    }

    /// A group does not cross the end of its segment.
    fn group_entries_max(&self) -> usize {
        let room = match self.segment.end() - self.next {
            // The next commit begins a segment.
            0 => GROUP_ENTRIES_MAX as u64,
            room => room,
        };
        GROUP_ENTRIES_MAX.min(usize::try_from(room).unwrap_or(GROUP_ENTRIES_MAX))
    }

    fn commit(&mut self, group: Vec<(Prepared, Answer)>) {
        if group.is_empty() {
            return;
        }
        self.wait_for_room();
        if let Some(refusal) = self.refusal() {
            return group.into_iter().for_each(|(_, done)| done.give(Err(refusal.clone())));
        }
        // Read before the index is asked: an entry it forgets in between is still remembered here (G6).
        let indexed = self.shared.frame_index.indexed_to();
        lock_write(&self.shared.frames).forget_below(indexed.0);
        if self.next == self.segment.end()
            && let Err(error) = self.begin_segment()
        {
            let refusal = self.stop(&error);
            return group.into_iter().for_each(|(_, done)| done.give(Err(refusal.clone())));
        }
        let mut staged = Staged::default();
        let mut outcomes = Vec::with_capacity(group.len());
        for (append, done) in group {
            outcomes.push((self.stage(append, &mut staged), done));
        }
        if planted::has("answer-before-sync") {
            outcomes.drain(..).for_each(|(outcome, done)| done.give(outcome));
        }
        if !staged.tail.is_empty()
            && let Err(error) = self.make_durable(staged)
        {
            let refusal = self.stop(&error);
            return outcomes.into_iter().for_each(|(outcome, done)| done.give(outcome.and(Err(refusal.clone()))));
        }
        outcomes.into_iter().for_each(|(outcome, done)| done.give(outcome));
        // After the answers: nobody waits for the integrator.
        self.tell_integrator();
    }

    /// The integrator is woken only when that changes what it waits for: waking a core takes longer than staging an
    /// entry.
    fn tell_integrator(&self) {
        let mut signal = lock_mutex(&self.shared.signal);
        let before = signal.durable - signal.published;
        signal.durable = self.next;
        let now = signal.durable - signal.published;
        if (before == 0 && now > 0) || (before < TILE_WIDTH && now >= TILE_WIDTH) {
            self.shared.changed.notify_all();
        }
    }

    /// Waits while more entries than allowed wait for their checkpoint.
    fn wait_for_room(&self) {
        let full = || {
            let tail = lock_read(&self.shared.tail);
            tail.entries.len() > PENDING_ENTRIES_MAX || tail.bytes > PENDING_BYTES_MAX
        };
        let mut signal = lock_mutex(&self.shared.signal);
        while full() && self.shared.state() == LogState::Serving {
            signal = self.shared.changed.wait(signal).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn refusal(&mut self) -> Option<AppendError> {
        if let Some(refusal) = self.shared.state().refusal() {
            return Some(refusal);
        }
        let free_bytes = match self.free_bytes() {
            Ok(free_bytes) => free_bytes,
            Err(error) => return Some(self.stop(&error)),
        };
        self.shared.below_reserve(free_bytes)
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        if let Some((_, free)) = self.free_space.filter(|(looked, _)| looked.elapsed() < FREE_SPACE_AGE_MAX) {
            return Ok(free);
        }
        let free = files::free_bytes(&self.shared.config.data_dir)?;
        self.free_space = Some((Instant::now(), free));
        Ok(free)
    }

    /// Between two groups, so that nobody else has the write-ahead log in hand.
    fn rewrite(&mut self, job: erase::Job) {
        let outcome = match self.shared.state().refusal() {
            Some(refusal) => Err(refusal.into()),
            None => erase::in_write_ahead_log(self.shared, &mut self.segment, job.work()).map_err(|error| {
                // With a full disk nothing was replaced. After any other failure nobody knows.
                if files::is_full(&error) { error.into() } else { self.stop(&error).into() }
            }),
        };
        job.give(outcome);
    }

    fn begin_segment(&mut self) -> Result<(), ReadError> {
        self.segment = Segment::create(&self.shared.config.wal_dir(), self.next, self.shared.signer.name())?;
        Ok(())
    }

    /// Decides what becomes of one append, and adds it to the group if it is to be written.
    fn stage(&self, append: Prepared, staged: &mut Staged) -> Result<Appended, AppendError> {
        if let Some((key, claim)) = &append.frame
            && !planted::has("double-append-on-retry")
            && let Some(known) = self.known(claim, key, staged)?
        {
            let same = known.encoded == claim.encoded;
            return Ok(if same { Appended::Duplicate(known.receipt) } else { Appended::Conflict(known.receipt) });
        }
        let index = self.next + staged.tail.len() as u64;
        let record = Record { index, entry: append.entry, sealed: append.sealed };
        self.segment.encode_entry(self.next, &record, &mut staged.bytes);
        staged.has_image |= append.has_image;
        let receipt = Receipt { index: EntryIndex(index), leaf_hash: append.leaf };
        if let Some((key, claim)) = append.frame {
            staged.frames.insert(key, Known { receipt, encoded: claim.encoded });
        }
        staged.tail.push(TailEntry { entry: record.entry, leaf: append.leaf, sealed: record.sealed });
        Ok(Appended::Written(receipt))
    }

    fn known(&self, claim: &FrameClaim, key: &[u8; 16], staged: &Staged) -> Result<Option<Known>, AppendError> {
        match staged.frames.get(key) {
            Some(known) => Ok(Some(*known)),
            None => {
                self.shared.find_frame(&claim.key).map_err(|error| AppendError::FrameUnknown(error.to_string().into()))
            }
        }
    }

    /// Images first, then the entries that name them; memory only after both.
    fn make_durable(&mut self, staged: Staged) -> Result<(), String> {
        if staged.has_image {
            self.archive.sync().map_err(|error| error.to_string())?;
        }
        let next = self.next + staged.tail.len() as u64;
        self.segment.commit(&staged.bytes, next).map_err(|error| error.to_string())?;
        self.next = next;
        self.shared.groups.fetch_add(1, Ordering::Relaxed);
        // Frames before entries: whoever sees the entry finds its frame.
        {
            let mut frames = lock_write(&self.shared.frames);
            let mut new: Vec<_> = staged.frames.into_iter().collect();
            new.sort_unstable_by_key(|(_, known)| known.receipt.index);
            new.into_iter().for_each(|(key, known)| frames.insert(key, known));
        }
        {
            let mut tail = lock_write(&self.shared.tail);
            staged.tail.into_iter().for_each(|entry| tail.push(entry));
        }
        Ok(())
    }

    fn stop(&self, error: &dyn std::fmt::Display) -> AppendError {
        self.shared.stop(&error.to_string());
        self.shared.state().refusal().expect("a stopped log refuses")
    }
}

/// What every entry must be, whatever its kind: one JSON object, on one line, not too long.
fn check_entry(entry: &[u8]) -> Result<(), String> {
    if entry.len() > ENTRY_BYTES_MAX {
        return Err(format!("it has {} bytes; at most {ENTRY_BYTES_MAX} are allowed", entry.len()));
    }
    let object = entry.first() == Some(&b'{') && entry.last() == Some(&b'}');
    if !object || entry.contains(&b'\n') || std::str::from_utf8(entry).is_err() {
        return Err("it is no JSON object in UTF-8 without line breaks".into());
    }
    Ok(())
}
