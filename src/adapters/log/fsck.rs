//! Checks everything that is on disk against everything else, from the entries up, without believing any of it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

use rayon::prelude::*;
use serde::Serialize;

use super::{LogConfig, OpenError, check_format, erase, files, private, take_lock, wal};
use crate::{
    core::export::{Lang, words},
    core::lineage::{
        checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, VerifierKey},
        entry::{Decision, Destroyed, Entry},
        index_ranges::IndexRanges,
        passport::verify_openings,
        period::{Incomplete, Ledger, Mark, Place, Totals},
        private::{Opening, PrivateField},
        tiles::{
            BUNDLE_BYTES_MAX, HASH_TILE_BYTES, RightEdge, TILE_WIDTH, Tile, TileKind, encode_hash_tile, parse_bundle,
            parse_hash_tile,
        },
        tree::leaf_hash,
    },
    ports::{
        archive::{ArchiveError, ImageArchive},
        lineage::{Intention, PrivateRecord, ReadError},
        sealer::Sealer,
    },
    types::{Blake3Digest, Instant, Sha256Digest},
};

/// Problems that are told one by one; the others are only counted.
const PROBLEMS_MAX: usize = 100;
/// Bundles that are checked side by side: 16,384 entries, at most 130 MB.
const STEP_BUNDLES: u64 = 64;

/// What is checked, and with what.
pub struct Fsck<'a> {
    pub config: &'a LogConfig,
    pub key: &'a VerifierKey,
    pub sealer: &'a dyn Sealer,
    pub archive: &'a dyn ImageArchive,
    /// How far the index says it knows the log, if there is an index.
    pub indexed_to: Option<u64>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct FsckReport {
    /// Entries the published checkpoint covers.
    pub published: u64,
    /// Durable entries that wait for their checkpoint.
    pub waiting: u64,
    /// The root all entries up to `published` lead to.
    pub root: Option<Sha256Digest>,
    pub tiles: u64,
    pub private_values: u64,
    /// Commitments whose values are no longer filed: erased, or never given to this host.
    pub unopened: u64,
    pub images: u64,
    /// Recipes, calibrations and models that were held against the digests in their names.
    pub kept_files: u64,
    /// Models that decisions name whose images were kept.
    #[serde(skip)]
    pub models: BTreeSet<Blake3Digest>,
    /// How many of them are not kept: their decisions cannot be decided again. No damage: earlier releases kept none.
    pub models_not_kept: u64,
    /// The periods the line closed, held against the entries they count.
    pub periods: Totals,
    /// Periods in which the log says itself that frames are missing. No damage: the log is whole, the line's frames are not.
    pub incomplete: Vec<String>,
    /// Images that are gone because their time was over, as entries say.
    pub deleted_images: u64,
    #[serde(skip)]
    missing: Vec<MissingImage>,
    #[serde(skip)]
    deletions: Vec<Deletion>,
    /// Private values that entries say are destroyed, and that are.
    pub erased: u64,
    /// An erasure was interrupted; the next start finishes it.
    pub erasing: bool,
    #[serde(skip)]
    erasures: Vec<Erasure>,
    /// Bytes at the end of the write-ahead log that belong to no acknowledged entry; the next start cuts them.
    pub torn_bytes: u64,
    /// What does not fit, in plain words, at most a hundred.
    pub problems: Vec<String>,
    pub problem_count: u64,
}

/// What an entry says is destroyed.
#[derive(Debug)]
struct Erasure {
    said_by: u64,
    entries: IndexRanges,
    fields: Vec<PrivateField>,
    /// How many values.
    values: u64,
}

/// An image that an entry names and that is not there.
#[derive(Debug)]
struct MissingImage {
    index: u64,
    class: String,
    time: Instant,
    /// Day and number of the pack that it lay in.
    day: String,
    pack: u32,
    reason: String,
}

/// Packs of a class and of the time before `before` that an entry says were destroyed.
#[derive(Debug)]
struct Deletion {
    class: String,
    before: Instant,
    packs: u64,
}

impl FsckReport {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, problem: impl ToString) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.to_string());
        }
    }

    fn absorb(&mut self, other: Self) {
        self.private_values += other.private_values;
        self.unopened += other.unopened;
        self.images += other.images;
        self.erasures.extend(other.erasures);
        self.missing.extend(other.missing);
        self.deletions.extend(other.deletions);
        self.problem_count += other.problem_count;
        let room = PROBLEMS_MAX - self.problems.len();
        self.problems.extend(other.problems.into_iter().take(room));
    }
}

impl Fsck<'_> {
    /// Checks the whole data directory; `progress` is told how many of how many entries are checked.
    ///
    /// # Errors
    /// [`OpenError`] when a service is running on it, or it was written by a newer release.
    pub fn run(&self, mut progress: impl FnMut(u64, u64)) -> Result<FsckReport, OpenError> {
        let _lock = take_lock(&self.config.data_dir)?;
        let mut report = FsckReport::default();
        if check_format(&self.config.data_dir)? {
            report.problem(format_args!("{}: the format file is missing", self.config.data_dir.display()));
        }
        // 1. What was signed.
        let checkpoint = self.checkpoint(&self.config.checkpoint(), &mut report);
        let anchor = self.checkpoint(&self.config.anchor, &mut report);
        // 2. The write-ahead log.
        let records = self.read_wal(&mut report)?;
        // 3. Every published entry, and from them every tile and the root.
        let published = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        report.published = published;
        let (mut edge, mut ledger) = (RightEdge::default(), Ledger::default());
        let mut done = 0;
        while done < published {
            let end = published.min(done + STEP_BUNDLES * TILE_WIDTH);
            self.check_step(done, end, published, &records, (&mut edge, &mut ledger), &mut report);
            done = end;
            progress(done, published);
        }
        self.check_published(published, checkpoint.as_ref(), &edge, &mut report);
        self.check_no_stray_tiles(published, &mut report);
        // 4. What waits in the write-ahead log must lead on to the anchor.
        self.check_waiting(published, anchor.as_ref(), &records, (edge, &mut ledger), &mut report);
        report.periods = ledger.totals();
        let say = |incomplete: &Incomplete| {
            let what = words::missing(incomplete, Lang::En);
            format!("period {} of {}: {what} (entry {})", incomplete.period, incomplete.place, incomplete.index)
        };
        report.incomplete = ledger.incomplete().iter().take(PROBLEMS_MAX).map(say).collect();
        let size = published + report.waiting;
        // 5. What entries say is destroyed is not there any more.
        Self::check_missing(&mut report);
        report.erasing = self.is_erasing(&mut report);
        if !report.erasing {
            self.check_erasures(published, &records, &mut report);
        }
        if let Some(indexed) = self.indexed_to.filter(|indexed| *indexed > size) {
            report.problem(format_args!(
                "the index knows {indexed} entries, the log has {size}: it belongs to another log; `lineproof reindex` makes a new one"
            ));
        }
        Ok(report)
    }

    /// Whether an erasure was interrupted that the next start can finish.
    fn is_erasing(&self, report: &mut FsckReport) -> bool {
        let path = self.config.erasing();
        let reason = match erase::intended(&path) {
            Ok(None) => return false,
            Ok(Some(intention)) if can_be_finished(&intention) => return true,
            Ok(Some(_)) => files::damaged(&path, "it intends what is no entry of an erasure"),
            Err(error) => error,
        };
        report.problem(format_args!(
            "{reason}; an erasure was interrupted, and no start can finish it by this file. Move the file away, start the service, and repeat the erasure or `lineproof retention run`"
        ));
        false
    }

    fn checkpoint(&self, path: &Path, report: &mut FsckReport) -> Option<Checkpoint> {
        let read = files::read(path, CHECKPOINT_BYTES_MAX).map_err(|error| error.to_string()).and_then(|bytes| {
            let bytes = bytes.ok_or("the file is missing")?;
            let note = String::from_utf8(bytes).map_err(|_| "it is no text")?;
            Checkpoint::open(&note, self.key).map_err(|error| error.to_string())
        });
        read.map_err(|reason| report.problem(format_args!("{}: {reason}", path.display()))).ok()
    }

    /// The entries of the write-ahead log by their number.
    fn read_wal(&self, report: &mut FsckReport) -> Result<HashMap<u64, wal::Record>, OpenError> {
        let dir = self.config.wal_dir();
        let mut records = HashMap::new();
        let firsts = wal::segments(&dir)?;
        if firsts.is_empty() {
            report.problem(format_args!("{}: the write-ahead log is missing", dir.display()));
        }
        for (number, first) in firsts.iter().enumerate() {
            let path = wal::segment_path(&dir, *first);
            if let Some(found) = wal::version(&path)?.filter(|version| wal::is_newer(*version)) {
                return Err(OpenError::Newer { path: path.display().to_string(), found: found.to_string() });
            }
            let scan = wal::scan(&dir, *first, self.key.name())?;
            let end = first + scan.records.len() as u64;
            let gap = firsts.get(number + 1).is_some_and(|next| end != *next);
            if let Some(damage) = scan.damage {
                report.problem(damage);
            } else if gap {
                report.problem(format_args!("{}: entries from {end} on are missing", path.display()));
            }
            report.torn_bytes += scan.torn_bytes;
            records.extend(scan.records.into_iter().map(|record| (record.index, record)));
        }
        Ok(records)
    }

    /// Checks the entries `start..end`, and lets the edge grow over them.
    fn check_step(
        &self,
        start: u64,
        end: u64,
        published: u64,
        records: &HashMap<u64, wal::Record>,
        (edge, ledger): (&mut RightEdge, &mut Ledger),
        report: &mut FsckReport,
    ) {
        let bundles: Vec<(Vec<Sha256Digest>, Marks, FsckReport)> = (start / TILE_WIDTH..end.div_ceil(TILE_WIDTH))
            .into_par_iter()
            .map(|index| {
                let tile = Tile::in_log(TileKind::Entries, index, published).expect("the bundle is published");
                self.check_bundle(tile, records)
            })
            .collect();
        let mut full = Vec::new();
        for (leaves, marks, findings) in bundles {
            report.absorb(findings);
            for (index, place, mark) in marks {
                follow(ledger, index, place, mark, report);
            }
            leaves.into_iter().for_each(|leaf| edge.push(leaf, |tile, hashes| full.push((tile, hashes))));
        }
        full.iter().for_each(|(tile, hashes)| self.check_hash_tile(*tile, hashes, report));
    }

    /// The leaf hashes of a bundle, and what is wrong with its entries and what belongs to them.
    fn check_bundle(&self, tile: Tile, records: &HashMap<u64, wal::Record>) -> (Vec<Sha256Digest>, Marks, FsckReport) {
        let mut report = FsckReport::default();
        let path = self.config.log_dir().join(tile.path());
        let missing = || files::damaged(&path, "the file is missing");
        let bytes = match files::read(&path, BUNDLE_BYTES_MAX).and_then(|bytes| bytes.ok_or_else(missing)) {
            Ok(bytes) => bytes,
            Err(error) => {
                report.problem(error);
                return (vec![Sha256Digest([0; 32]); usize::from(tile.width)], Marks::new(), report);
            }
        };
        let entries = match parse_bundle(&bytes, tile.width) {
            Ok(entries) => entries,
            Err(error) => {
                report.problem(format_args!("{}: {error}", path.display()));
                return (vec![Sha256Digest([0; 32]); usize::from(tile.width)], Marks::new(), report);
            }
        };
        let (mut leaves, mut marks) = (Vec::with_capacity(entries.len()), Marks::with_capacity(entries.len()));
        for (index, entry) in (tile.index * TILE_WIDTH..).zip(entries) {
            let leaf = leaf_hash(entry);
            leaves.push(leaf);
            let record = records.get(&index);
            if record.is_some_and(|record| *record.entry != *entry) {
                report.problem(format_args!("entry {index} is not the one the write-ahead log has: it was changed"));
            }
            let sealed = match record {
                Some(record) => Ok(record.sealed.to_vec()),
                None => private::read(&self.config.private_dir(), index),
            };
            marks.extend(self.check_entry(index, entry, &leaf, sealed, &mut report));
        }
        (leaves, marks, report)
    }

    /// Checks an entry and what is filed beside it, and gives what it says of its camera's counter.
    fn check_entry(
        &self,
        index: u64,
        bytes: &[u8],
        leaf: &Sha256Digest,
        sealed: Result<Vec<u8>, ReadError>,
        report: &mut FsckReport,
    ) -> Option<(u64, Place, Mark)> {
        let entry = match Entry::parse(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                report.problem(format_args!("entry {index}: {error}"));
                return None;
            }
        };
        self.check_private(index, &entry, leaf, sealed, report);
        Mark::of(&entry).map(|(place, mark)| (index, place, mark))
    }

    fn check_private(
        &self,
        index: u64,
        entry: &Entry,
        leaf: &Sha256Digest,
        sealed: Result<Vec<u8>, ReadError>,
        report: &mut FsckReport,
    ) {
        let opened =
            sealed.map_err(|error| error.to_string()).and_then(|sealed| private::open(self.sealer, leaf, &sealed));
        let record = match opened {
            Ok(record) => record,
            Err(error) => return report.problem(format_args!("private record of entry {index}: {error}")),
        };
        if let Entry::Retention(entry) = entry
            && let (Some(class), Some(before), Some(Destroyed { packs: Some(packs), .. })) =
                (&entry.class, entry.before, entry.destroyed)
        {
            report.deletions.push(Deletion { class: class.clone(), before, packs });
        }
        if let Entry::Retention(entry) = entry
            && let (Some(destroyed), Some(entries)) = (entry.destroyed, &entry.entries)
        {
            let values: u64 = PrivateField::ALL.into_iter().map(|field| destroyed.of(field)).sum();
            let (entries, fields) = (entries.clone(), destroyed.fields());
            report.erasures.push(Erasure { said_by: index, entries, fields, values });
        }
        if let Err(error) = verify_openings(entry, &record.openings) {
            report.problem(format_args!("private record of entry {index}: {error}"));
        }
        report.private_values += record.openings.len() as u64;
        let committed = entry.commitments();
        let fields = [committed.client, committed.lot, committed.serial].into_iter().flatten().count();
        report.unopened += (fields as u64).saturating_sub(record.openings.len() as u64);
        if let Entry::Decision(decision) = entry
            && !decision.image.archive.starts_with("none:")
        {
            report.models.insert(decision.model.digest);
            self.check_image(index, decision, &record, report);
        }
    }

    fn check_erasures(&self, published: u64, records: &HashMap<u64, wal::Record>, report: &mut FsckReport) {
        for Erasure { said_by, entries, fields, values } in std::mem::take(&mut report.erasures) {
            let mut still_there = 0;
            // An entry can only say it of entries before itself.
            for index in entries.ranges().iter().flat_map(|(first, last)| *first..=(*last).min(said_by)) {
                let openings = match self.openings(index, published, records) {
                    Ok(openings) => openings,
                    Err(error) => {
                        report.problem(format_args!("private record of entry {index}: {error}"));
                        continue;
                    }
                };
                let is_there = |field: &&PrivateField| openings.iter().any(|opening| opening.field == **field);
                let there = fields.iter().filter(is_there).count() as u64;
                if there > 0 {
                    report.problem(format_args!(
                        "a private value of entry {index} is filed, though entry {said_by} says it was destroyed: an older copy was brought back; `lineproof reindex` makes it known again, then erase it again"
                    ));
                }
                still_there += there;
            }
            report.erased += values.saturating_sub(still_there);
        }
    }

    /// What is filed of one entry, be it in the write-ahead log or in `private/`: for a while it is in both.
    fn openings(
        &self,
        index: u64,
        published: u64,
        records: &HashMap<u64, wal::Record>,
    ) -> Result<Vec<Opening>, String> {
        let in_files = |leaf: &Sha256Digest| {
            let sealed = private::read(&self.config.private_dir(), index).map_err(|error| error.to_string())?;
            private::open(self.sealer, leaf, &sealed).map(|record| record.openings)
        };
        if let Some(record) = records.get(&index) {
            let leaf = leaf_hash(&record.entry);
            let mut openings = private::open(self.sealer, &leaf, &record.sealed)?.openings;
            // Its bundle may have no file yet, or one that a crash left half-written: the next start writes it.
            openings.extend(in_files(&leaf).unwrap_or_default());
            return Ok(openings);
        }
        let tile = Tile::in_log(TileKind::Hashes(0), index / TILE_WIDTH, published).ok_or("there is no such entry")?;
        let path = self.config.log_dir().join(tile.path());
        let bytes = files::read(&path, HASH_TILE_BYTES).map_err(|error| error.to_string())?.unwrap_or_default();
        let hashes = parse_hash_tile(&bytes, tile.width).map_err(|error| error.to_string())?;
        let leaf = hashes.get(usize::try_from(index % TILE_WIDTH).expect("an offset is below 256"));
        in_files(leaf.ok_or("there is no such entry")?)
    }

    fn check_image(&self, index: u64, decision: &Decision, record: &PrivateRecord, report: &mut FsckReport) {
        report.images += 1;
        match record.image_location() {
            None => report.problem(format_args!("entry {index} says its image is archived, but nobody filed where")),
            Some(location) => match self.archive.get(&location, decision.image.encoded) {
                Ok(_) => {}
                Err(error @ ArchiveError::Missing(_)) => report.missing.push(MissingImage {
                    index,
                    class: decision.image.archive.clone(),
                    time: decision.time,
                    day: location.day,
                    pack: location.pack,
                    reason: error.to_string(),
                }),
                Err(error) => report.problem(format_args!("image of entry {index}: {error}")),
            },
        }
    }

    /// Missing images are right if entries say that packs of their class were destroyed up to a later time, and as many
    /// as are gone: what a run left alone, because of a hold or as too young, is not explained by what it destroyed.
    fn check_missing(report: &mut FsckReport) {
        let mut packs: BTreeMap<_, Vec<MissingImage>> = BTreeMap::new();
        for image in std::mem::take(&mut report.missing) {
            // The youngest first: every entry that may speak of it may speak of the older ones, too.
            let pack = (Reverse(image.day.clone()), image.class.clone(), image.pack);
            packs.entry(pack).or_default().push(image);
        }
        let mut deletions = std::mem::take(&mut report.deletions);
        for ((_, class, _), images) in packs {
            let newest = images.iter().map(|image| image.time).max();
            let mut of_it = deletions
                .iter_mut()
                .filter(|deletion| deletion.class == class && newest.is_some_and(|newest| newest < deletion.before))
                .peekable();
            let is_over = of_it.peek().is_some();
            if let Some(deletion) = of_it.find(|deletion| deletion.packs > 0) {
                deletion.packs -= 1;
                report.deleted_images += images.len() as u64;
                continue;
            }
            let why = if is_over {
                "; more packs of its class are gone than entries say were destroyed: this one or another had to stay, perhaps because of a hold"
            } else {
                ""
            };
            for MissingImage { index, reason, .. } in images {
                report.problem(format_args!("image of entry {index}: {reason}{why}"));
            }
        }
    }

    fn check_hash_tile(&self, tile: Tile, hashes: &[Sha256Digest], report: &mut FsckReport) {
        report.tiles += 1;
        self.compare(&tile, &encode_hash_tile(hashes), report);
    }

    fn compare(&self, tile: &Tile, expected: &[u8], report: &mut FsckReport) {
        let path = self.config.log_dir().join(tile.path());
        match files::read(&path, BUNDLE_BYTES_MAX) {
            Ok(Some(found)) if found == expected => {}
            Ok(Some(_)) => {
                report.problem(format_args!("{}: it is not what the entries lead to: it was changed", path.display()));
            }
            Ok(None) => report.problem(format_args!("{}: the file is missing", path.display())),
            Err(error) => report.problem(error),
        }
    }

    fn check_published(
        &self,
        published: u64,
        checkpoint: Option<&Checkpoint>,
        edge: &RightEdge,
        report: &mut FsckReport,
    ) {
        for (tile, hashes) in edge.partials() {
            self.check_hash_tile(tile, hashes, report);
        }
        let root = edge.root();
        report.root = Some(root);
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.root != root) {
            report.problem(format_args!(
                "the {published} entries lead to the root {root}, the signed checkpoint says {}: entries were changed",
                checkpoint.root
            ));
        }
    }

    /// Tiles of earlier checkpoints must be the beginning of today's; other files have no place here.
    fn check_no_stray_tiles(&self, published: u64, report: &mut FsckReport) {
        let root = self.config.log_dir();
        let mut folders = vec![root.join("tile")];
        while let Some(folder) = folders.pop() {
            let Ok(items) = fs::read_dir(&folder) else { continue };
            for path in items.flatten().map(|item| item.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_none_or(|extension| extension != "tmp") {
                    check_stray(&root, &path, published, report);
                }
            }
        }
    }

    fn check_waiting(
        &self,
        published: u64,
        anchor: Option<&Checkpoint>,
        records: &HashMap<u64, wal::Record>,
        (mut edge, ledger): (RightEdge, &mut Ledger),
        report: &mut FsckReport,
    ) {
        let mut reached = anchor.is_none_or(|anchor| anchor.size < published);
        let mut next = published;
        loop {
            if let Some(anchor) = anchor.filter(|anchor| anchor.size == next) {
                reached = true;
                if anchor.root != edge.root() {
                    report.problem(format_args!(
                        "the first {next} entries lead to the root {}, the anchor says {}: the log was edited or replaced",
                        edge.root(),
                        anchor.root
                    ));
                }
            }
            let Some(record) = records.get(&next) else { break };
            let leaf = leaf_hash(&record.entry);
            edge.push(leaf, |_, _| {});
            let mark = self.check_entry(next, &record.entry, &leaf, Ok(record.sealed.to_vec()), report);
            if let Some((index, place, mark)) = mark {
                follow(ledger, index, place, mark, report);
            }
            next += 1;
        }
        report.waiting = next - published;
        if let Some(anchor) = anchor.filter(|_| !reached) {
            report.problem(format_args!(
                "the anchor covers {} entries, on disk are {next}: the log was truncated or rolled back",
                anchor.size
            ));
        }
        if let Some(anchor) = anchor.filter(|anchor| anchor.size < published) {
            report.problem(format_args!(
                "the anchor covers {} entries, the checkpoint {published}: the anchor was rolled back",
                anchor.size
            ));
        }
    }
}

/// Whether an intention has only entries that a start can append and fulfil.
fn can_be_finished(intention: &Intention) -> bool {
    intention.entries.iter().all(|bytes| matches!(Entry::parse(bytes), Ok(Entry::Retention(_))))
}

/// What entries say of cameras' counters, in order.
type Marks = Vec<(u64, Place, Mark)>;

/// Holds a period close against the entries before it.
fn follow(ledger: &mut Ledger, index: u64, place: Place, mark: Mark, report: &mut FsckReport) {
    if let Err(fault) = ledger.take(index, place, mark) {
        report.problem(format_args!("the period close in entry {index} cannot be right: {fault}"));
    }
}

fn check_stray(root: &Path, path: &Path, published: u64, report: &mut FsckReport) {
    let name = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
    let Some(tile) = Tile::parse(name) else {
        return report.problem(format_args!("{}: not a file of a log", path.display()));
    };
    // A crash may leave tiles of entries that were durable and not published; the next start writes them again.
    let wider = Tile::in_log(tile.kind, tile.index, published).filter(|wider| wider.width > tile.width);
    let Some(wider) = wider else { return };
    let read = |tile: Tile| files::read(&root.join(tile.path()), BUNDLE_BYTES_MAX).ok().flatten();
    if let (Some(narrow), Some(wide)) = (read(tile), read(wider))
        && tile.beginning_of(&wide) != Some(&*narrow)
    {
        report.problem(format_args!("{}: it is not the beginning of {wider}: it was changed", path.display()));
    }
}
