//! The image archive on disk: sealed frames in append-only packs, `docs/spec/archive.md`.
//!
//! One image is one record in the current pack of its retention class and day. Room is reserved under a short lock;
//! sealing and writing happen outside it, on the caller's thread. [`ImageArchive::sync`] then costs one fdatasync per
//! pack that was written to, however many images that were.
//!
//! **Invariant:** only the process that created a pack writes to it, and never twice to the same place. A crash can
//! therefore only leave a torn end, or holes where a write was under way, of records nobody was told about.

mod format;
mod reseal;
mod shred;

pub use self::reseal::ResealedPacks;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use self::format::{PACK_HEADER_BYTES, PackKey, RECORD_HEADER_BYTES, RecordHeader, record_bytes};
use crate::{
    planted,
    ports::{
        archive::{ArchiveError, IMAGE_BYTES_MAX, ImageArchive, ImageLocation, RetentionClass},
        sealer::Sealer,
    },
    types::{Blake3Digest, Instant},
};

/// A pack is closed when the next record would make it longer; only a pack of one larger image is.
const PACK_BYTES_MAX: u64 = 256 << 20;
/// Pack numbers have eight digits.
const PACK_NUMBER_MAX: u32 = 99_999_999;
/// Images of one class and day whose digests are kept in memory to store them once: 16 MiB.
const KNOWN_IMAGES_MAX: usize = 1 << 18;
/// A thread keeps its sealing buffer up to this size, so that steady frames cost no fresh pages.
const KEPT_BUFFER_BYTES_MAX: usize = 16 << 20;

/// The archive below one folder, used by one process at a time.
pub struct PackArchive {
    root: PathBuf,
    sealer: Arc<dyn Sealer>,
    pack_bytes_max: u64,
    shelves: Mutex<HashMap<RetentionClass, Vec<Arc<Shelf>>>>,
    unsynced: Mutex<Unsynced>,
    /// Held over a whole sync: a second one must not return while the first is still at it.
    syncing: Mutex<()>,
    failed: AtomicBool,
}

/// What the next sync has to make durable.
#[derive(Default)]
struct Unsynced {
    packs: Vec<Arc<File>>,
    folders: BTreeSet<PathBuf>,
}

/// The packs of one class and day.
struct Shelf {
    class: RetentionClass,
    day: String,
    folder: PathBuf,
    state: Mutex<ShelfState>,
    /// Signals that an image is no longer [`Known::Writing`].
    settled: Condvar,
}

struct ShelfState {
    open: Option<OpenPack>,
    next_number: u32,
    known: HashMap<Blake3Digest, Known>,
}

struct OpenPack {
    pack: Arc<Pack>,
    /// Where the next record goes.
    end: u64,
}

/// A pack this process created.
struct Pack {
    number: u32,
    file: Arc<File>,
    key: PackKey,
}

#[derive(Clone, Copy)]
enum Known {
    /// A thread is at it; wait for its end.
    Writing,
    At {
        pack: u32,
        offset: u64,
        /// An earlier process wrote it: it may be torn, and was perhaps never synced.
        inherited: bool,
    },
}

impl PackArchive {
    /// Opens the archive below `root`, which is created if it is missing. `sealer` seals the packs' keys.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn open(root: impl Into<PathBuf>, sealer: Arc<dyn Sealer>) -> Result<Self, ArchiveError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|error| io_error(&root, error))?;
        reseal::finish(&root).map_err(|error| io_error(&root.join("resealing"), error))?;
        let archive = Self {
            root,
            sealer,
            pack_bytes_max: PACK_BYTES_MAX,
            shelves: Mutex::default(),
            unsynced: Mutex::default(),
            syncing: Mutex::default(),
            failed: AtomicBool::new(false),
        };
        if let Some(parent) = archive.root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            lock(&archive.unsynced).folders.insert(parent.to_owned());
        }
        Ok(archive)
    }

    fn check_running(&self) -> Result<(), ArchiveError> {
        if self.failed.load(Ordering::SeqCst) {
            let reason = io::Error::other("an earlier sync failed; what is on the disk is known after a restart");
            return Err(io_error(&self.root, reason));
        }
        Ok(())
    }

    /// The shelf of a class and day. A later day closes the shelves of earlier ones.
    fn shelf(&self, class: &RetentionClass, day: &str) -> Result<Arc<Shelf>, ArchiveError> {
        let mut shelves = lock(&self.shelves);
        let days = shelves.entry(class.clone()).or_default();
        if let Some(shelf) = days.iter().find(|shelf| shelf.day == day) {
            return Ok(Arc::clone(shelf));
        }
        let shelf = Arc::new(self.open_shelf(class, day)?);
        days.retain(|other| other.day.as_str() > day);
        days.push(Arc::clone(&shelf));
        Ok(shelf)
    }

    fn open_shelf(&self, class: &RetentionClass, day: &str) -> Result<Shelf, ArchiveError> {
        let class_folder = self.root.join(class.as_str());
        let folder = class_folder.join(day);
        fs::create_dir_all(&folder).map_err(|error| io_error(&folder, error))?;
        // Also folders that exist: a killed process may have made them and not synced them.
        lock(&self.unsynced).folders.extend([self.root.clone(), class_folder, folder.clone()]);
        let numbers = pack_numbers(&folder).map_err(|error| io_error(&folder, error))?;
        let known = known_images(&folder, &numbers);
        let next_number = numbers.last().map_or(0, |last| last + 1);
        let state = Mutex::new(ShelfState { open: None, next_number, known });
        Ok(Shelf { class: class.clone(), day: day.to_owned(), folder, state, settled: Condvar::new() })
    }

    /// Makes the next pack of a shelf, with its key in its header.
    fn create_pack(&self, shelf: &Shelf, state: &mut ShelfState) -> Result<OpenPack, ArchiveError> {
        let (number, path, file) = loop {
            // Never used again, whatever becomes of this one.
            let number = state.next_number;
            state.next_number += 1;
            let path = shelf.folder.join(pack_name(number));
            if number > PACK_NUMBER_MAX {
                return Err(io_error(&path, io::Error::other("pack numbers have eight digits")));
            }
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (number, path, file),
                // A shelf that was closed at midnight may still have had a write under way.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error(&path, error)),
            }
        };
        let (key, header) = PackKey::create(&*self.sealer, &shelf.class, &shelf.day, number);
        file.write_all_at(&header, 0).map_err(|error| io_error(&path, error))?;
        let pack = Pack { number, file: Arc::new(file), key };
        self.note_written(&pack.file, Some(&shelf.folder));
        Ok(OpenPack { pack: Arc::new(pack), end: PACK_HEADER_BYTES as u64 })
    }

    /// Puts a pack on the list of the next sync. The lock makes the list complete: whoever finds the pack listed
    /// already has written before the sync that takes the list.
    fn note_written(&self, file: &Arc<File>, folder: Option<&Path>) {
        let mut unsynced = lock(&self.unsynced);
        if !unsynced.packs.iter().any(|listed| Arc::ptr_eq(listed, file)) {
            unsynced.packs.push(Arc::clone(file));
        }
        if let Some(folder) = folder {
            unsynced.folders.insert(folder.to_owned());
        }
    }

    /// Whether an image of an earlier process is whole; then it is listed for the next sync.
    fn adopt(&self, shelf: &Shelf, location: &ImageLocation, digest: Blake3Digest) -> bool {
        let adopted = self.get(location, digest).is_ok()
            && File::open(self.path(location))
                .map(|file| self.note_written(&Arc::new(file), Some(&shelf.folder)))
                .is_ok();
        if !adopted {
            tracing::warn!(%location, "an image from before the restart does not open; it is stored again");
        }
        adopted
    }

    fn path(&self, location: &ImageLocation) -> PathBuf {
        self.root.join(location.class.as_str()).join(&location.day).join(pack_name(location.pack))
    }
}

impl ImageArchive for PackArchive {
    fn put(
        &self,
        class: &RetentionClass,
        time: Instant,
        digest: Blake3Digest,
        bytes: &[u8],
    ) -> Result<ImageLocation, ArchiveError> {
        self.check_running()?;
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(ArchiveError::TooLong { bytes: bytes.len() });
        }
        let shelf = self.shelf(class, &time.day())?;
        let claim = match shelf.claim(self, digest, record_bytes(bytes.len()))? {
            Claimed::Stored(location) => return Ok(location),
            Claimed::Mine(claim) => claim,
        };
        let pack = &claim.pack;
        let place = shelf.location(pack.number, claim.offset);
        with_buffer(|record| {
            pack.key.seal(&place, digest, bytes, record);
            pack.file.write_all_at(record, claim.offset)
        })
        .map_err(|error| io_error(&self.path(&place), error))?;
        self.note_written(&pack.file, None);
        claim.settle();
        Ok(place)
    }

    fn sync(&self) -> Result<(), ArchiveError> {
        let _one_at_a_time = lock(&self.syncing);
        self.check_running()?;
        let Unsynced { packs, folders } = std::mem::take(&mut *lock(&self.unsynced));
        let packs = if planted::has("skip-pack-sync") { Vec::new() } else { packs };
        let synced = packs.iter().try_for_each(|pack| pack.sync_data()).map_err(|error| io_error(&self.root, error));
        let synced = synced.and_then(|()| {
            folders.iter().try_for_each(|folder| {
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io_error(folder, error))
            })
        });
        if synced.is_err() {
            // The kernel may have dropped the pages: a second fdatasync would say yes to nothing.
            self.failed.store(true, Ordering::SeqCst);
        }
        synced
    }

    fn get(&self, location: &ImageLocation, digest: Blake3Digest) -> Result<Vec<u8>, ArchiveError> {
        if location.to_string().parse().as_ref() != Ok(location) {
            return Err(ArchiveError::Missing(location.clone()));
        }
        let path = self.path(location);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArchiveError::Missing(location.clone()));
            }
            Err(error) => return Err(io_error(&path, error)),
        };
        match format::read_record(&file, &*self.sealer, location, digest) {
            Ok(image) => Ok(image),
            Err(format::ReadError::Io(error)) => Err(io_error(&path, error)),
            Err(format::ReadError::Destroyed) => Err(ArchiveError::Missing(location.clone())),
            Err(format::ReadError::Damaged(reason)) => {
                Err(ArchiveError::Damaged { location: location.clone(), reason: reason.to_owned() })
            }
        }
    }
}

/// What came of asking for room.
enum Claimed<'a> {
    /// The image is there already.
    Stored(ImageLocation),
    Mine(Claim<'a>),
}

/// Room for one record, and the duty to write it. Dropped unsettled, by an error or a panic, it abandons the pack.
struct Claim<'a> {
    shelf: &'a Shelf,
    digest: Blake3Digest,
    pack: Arc<Pack>,
    offset: u64,
    is_settled: bool,
}

impl Shelf {
    fn location(&self, pack: u32, offset: u64) -> ImageLocation {
        ImageLocation { class: self.class.clone(), day: self.day.clone(), pack, offset }
    }

    fn claim(&self, archive: &PackArchive, digest: Blake3Digest, length: u64) -> Result<Claimed<'_>, ArchiveError> {
        let mut state = lock(&self.state);
        loop {
            match state.known.get(&digest).copied() {
                None => break,
                Some(Known::Writing) => {
                    state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Known::At { pack, offset, inherited: false }) => {
                    return Ok(Claimed::Stored(self.location(pack, offset)));
                }
                Some(Known::At { pack, offset, inherited: true }) => {
                    let location = self.location(pack, offset);
                    state.known.insert(digest, Known::Writing);
                    drop(state);
                    let adopted = archive.adopt(self, &location, digest);
                    state = lock(&self.state);
                    if adopted {
                        state.known.insert(digest, Known::At { pack, offset, inherited: false });
                    } else {
                        state.known.remove(&digest);
                    }
                    self.settled.notify_all();
                }
            }
        }
        let (pack, offset) = self.reserve(archive, &mut state, length)?;
        if state.known.len() >= KNOWN_IMAGES_MAX {
            state.known.retain(|_, known| matches!(known, Known::Writing));
        }
        state.known.insert(digest, Known::Writing);
        Ok(Claimed::Mine(Claim { shelf: self, digest, pack, offset, is_settled: false }))
    }

    fn reserve(
        &self,
        archive: &PackArchive,
        state: &mut ShelfState,
        length: u64,
    ) -> Result<(Arc<Pack>, u64), ArchiveError> {
        let is_full =
            |open: &OpenPack| open.end > PACK_HEADER_BYTES as u64 && open.end + length > archive.pack_bytes_max;
        let mut open = match state.open.take().filter(|open| !is_full(open)) {
            Some(open) => open,
            None => archive.create_pack(self, state)?,
        };
        let (pack, offset) = (Arc::clone(&open.pack), open.end);
        open.end += length;
        state.open = Some(open);
        Ok((pack, offset))
    }
}

impl Claim<'_> {
    /// The record is written.
    fn settle(mut self) {
        self.is_settled = true;
        let at = Known::At { pack: self.pack.number, offset: self.offset, inherited: false };
        lock(&self.shelf.state).known.insert(self.digest, at);
        self.shelf.settled.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut state = lock(&self.shelf.state);
        state.known.remove(&self.digest);
        state.open.take_if(|open| Arc::ptr_eq(&open.pack, &self.pack));
        drop(state);
        self.shelf.settled.notify_all();
    }
}

fn pack_name(number: u32) -> String {
    format!("{number:08}.pack")
}

/// The numbers of the packs in a folder, ascending. Other files are passed over.
fn pack_numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".pack")).and_then(|digits| digits.parse().ok());
        numbers.extend(number.filter(|number| name.to_str() == Some(&pack_name(*number))));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The images that earlier processes left on a shelf, from the newest pack back.
///
/// A pack that cannot be read, or only to a torn record, gives less: an image is then stored twice at worst.
fn known_images(folder: &Path, numbers: &[u32]) -> HashMap<Blake3Digest, Known> {
    let mut known = HashMap::new();
    for &pack in numbers.iter().rev() {
        let Ok(file) = File::open(folder.join(pack_name(pack))) else { continue };
        let mut offset = PACK_HEADER_BYTES as u64;
        let mut header = [0; RECORD_HEADER_BYTES];
        while known.len() < KNOWN_IMAGES_MAX && file.read_exact_at(&mut header, offset).is_ok() {
            let Some(record) = RecordHeader::parse(&header, offset) else { break };
            if let Entry::Vacant(entry) = known.entry(record.digest) {
                entry.insert(Known::At { pack, offset, inherited: true });
            }
            offset += record_bytes(record.length as usize);
        }
    }
    known
}

/// Lends the thread's sealing buffer.
fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        let result = work(buffer);
        if buffer.capacity() > KEPT_BUFFER_BYTES_MAX {
            *buffer = Vec::new();
        }
        result
    })
}

fn io_error(path: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Io { path: path.display().to_string(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
