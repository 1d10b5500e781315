//! The write-ahead log: entries with their sealed private records, in segments of append-only frames, until they are in
//! tiles. The format is `docs/spec/log.md`.
//!
//! A group of frames is written at once and made durable by one fdatasync; then a commit frame follows, which needs no
//! sync of its own. A power cut may leave any part of the last group: pages reach the disk in no order. It cannot leave
//! a damaged frame before a frame of a *later* group, nor before a commit frame, because those are written only after
//! the fdatasync returned. That is how [`scan`] tells a torn tail, which nobody was promised, from damage.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::files::{at, damaged, read, replace_and_wipe, replace_durably, sync_dir};
use crate::{core::lineage::entry::ENTRY_BYTES_MAX, planted, ports::lineage::ReadError};

/// Entries in one segment: 64 bundles. Start-up reads at most two segments, about 50 MB.
pub(super) const SEGMENT_ENTRIES: u64 = 16_384;
/// Longest sealed private record.
pub(super) const SEALED_BYTES_MAX: usize = 8 * 1024;
/// The only version there is.
const VERSION: u32 = 1;
const SEGMENT_MAGIC: [u8; 8] = *b"lp-wal\r\n";
/// Magic, version, number of the first entry, digest of the log's origin, digest of all that.
pub(super) const SEGMENT_HEADER_BYTES: usize = 80;
const FRAME_MAGIC: [u8; 4] = *b"LPf\x01";
const FRAME_HEADER_BYTES: usize = 60;
const KIND_ENTRY: u8 = 1;
const KIND_COMMIT: u8 = 2;
const PAYLOAD_BYTES_MAX: usize = 2 + ENTRY_BYTES_MAX + SEALED_BYTES_MAX;
/// A segment whose every frame is as long as frames get, each in a group of its own.
const SEGMENT_BYTES_MAX: usize =
    SEGMENT_HEADER_BYTES + 16_384 * (2 * FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX) + PAYLOAD_BYTES_MAX;

/// The segment that is written to. It grows as it is written: on ext4 neither preallocated nor zeroed segments made
/// fdatasync measurably shorter.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    first: u64,
    /// Digest of the header, which binds every frame to this segment.
    binding: [u8; 32],
    len: u64,
}

/// One entry as the write-ahead log keeps it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub index: u64,
    pub entry: Arc<[u8]>,
    pub sealed: Arc<[u8]>,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub first: u64,
    pub records: Vec<Record>,
    /// Where the last good frame ends.
    pub end: u64,
    /// Bytes of a group that was never acknowledged.
    pub torn_bytes: u64,
    /// Why the segment cannot be trusted beyond its records.
    pub damage: Option<String>,
    binding: [u8; 32],
}

pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.wal"))
}

/// The segments of a directory by their first entry.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>, ReadError> {
    let mut firsts = Vec::new();
    for item in fs::read_dir(dir).map_err(at(dir))? {
        let name = item.map_err(at(dir))?.file_name();
        let name = name.to_string_lossy();
        let Some(number) = name.strip_suffix(".wal") else { continue };
        let first: u64 = number
            .parse()
            .ok()
            .filter(|first| number.len() == 20 && first % SEGMENT_ENTRIES == 0)
            .ok_or_else(|| damaged(&dir.join(&*name), "not the name of a segment"))?;
        firsts.push(first);
    }
    firsts.sort_unstable();
    Ok(firsts)
}

fn header(first: u64, origin: &str) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
    bytes[16..24].copy_from_slice(&first.to_be_bytes());
    bytes[24..56].copy_from_slice(blake3::hash(origin.as_bytes()).as_bytes());
    let digest = blake3::hash(&bytes[..56]);
    bytes[56..].copy_from_slice(&digest.as_bytes()[..24]);
    bytes
}

impl Segment {
    /// Begins the segment of the entries from `first` on, durably.
    pub fn create(dir: &Path, first: u64, origin: &str) -> Result<Self, ReadError> {
        let path = segment_path(dir, first);
        let header = header(first, origin);
        replace_durably(&path, &header)?;
        let file = OpenOptions::new().write(true).open(&path).map_err(at(&path))?;
        Ok(Self { path, file, first, binding: *blake3::hash(&header).as_bytes(), len: header.len() as u64 })
    }

    /// Goes on where a scan ended, cutting off the torn tail it found.
    pub fn resume(dir: &Path, scan: &Scan) -> Result<Self, ReadError> {
        let path = segment_path(dir, scan.first);
        let file = OpenOptions::new().write(true).open(&path).map_err(at(&path))?;
        if scan.torn_bytes > 0 {
            file.set_len(scan.end).and_then(|()| file.sync_all()).map_err(at(&path))?;
        }
        Ok(Self { path, file, first: scan.first, binding: scan.binding, len: scan.end })
    }

    /// The first entry this segment takes.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The entry after the last one this segment takes.
    pub fn end(&self) -> u64 {
        self.first + SEGMENT_ENTRIES
    }

    /// Adds an entry's frame to a group's bytes.
    pub fn encode_entry(&self, group: u64, record: &Record, bytes: &mut Vec<u8>) {
        let length = u16::try_from(record.entry.len()).expect("an entry has at most 8 KiB");
        self.encode(KIND_ENTRY, record.index, group, &[&length.to_be_bytes(), &record.entry, &record.sealed], bytes);
    }

    fn encode(&self, kind: u8, index: u64, group: u64, payload: &[&[u8]], bytes: &mut Vec<u8>) {
        encode_frame(&self.binding, kind, index, group, payload, bytes);
    }

    /// Goes on in the file that [`rewrite`] put in the place of this segment's.
    pub fn rewritten(&mut self, len: u64) -> Result<(), ReadError> {
        self.file = OpenOptions::new().write(true).open(&self.path).map_err(at(&self.path))?;
        self.len = len;
        Ok(())
    }

    /// Writes a group and makes it durable. After an error nothing is known of the file: never retried.
    pub fn commit(&mut self, group: &[u8], next: u64) -> Result<(), ReadError> {
        self.append(group)?;
        if !planted::has("skip-wal-sync") {
            self.file.sync_data().map_err(at(&self.path))?;
        }
        let mut mark = Vec::with_capacity(FRAME_HEADER_BYTES);
        self.encode(KIND_COMMIT, next, next, &[], &mut mark);
        self.append(&mark)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        self.file.write_all_at(bytes, self.len).map_err(at(&self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

fn encode_frame(binding: &[u8; 32], kind: u8, index: u64, group: u64, payload: &[&[u8]], bytes: &mut Vec<u8>) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("a payload has less than 20 KiB");
    let mut header = [0; 28];
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[4] = kind;
    header[8..12].copy_from_slice(&length.to_be_bytes());
    header[12..20].copy_from_slice(&index.to_be_bytes());
    header[20..28].copy_from_slice(&group.to_be_bytes());
    let start = bytes.len();
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&[0; 32]);
    payload.iter().for_each(|part| bytes.extend_from_slice(part));
    let digest = digest(binding, &header, &bytes[start + FRAME_HEADER_BYTES..]);
    bytes[start + 28..start + FRAME_HEADER_BYTES].copy_from_slice(&digest);
}

/// Writes a segment again in which `reseal` may give entries other private records, whole or not at all, and wipes the
/// file that it replaces. Every frame stays in its place and group. Returns the new length; `None` when nothing changes.
///
/// # Errors
/// [`ReadError`]: also when the segment does not end with a whole frame. The old file is then still there.
pub(super) fn rewrite(
    dir: &Path,
    first: u64,
    origin: &str,
    mut reseal: impl FnMut(&Record) -> Option<Arc<[u8]>>,
) -> Result<Option<u64>, ReadError> {
    let path = segment_path(dir, first);
    let bytes = read(&path, SEGMENT_BYTES_MAX)?.ok_or_else(|| damaged(&path, "the file is gone"))?;
    let header = header(first, origin);
    let binding = *blake3::hash(&header).as_bytes();
    let mut rest = bytes.strip_prefix(&header).ok_or_else(|| damaged(&path, "its head is damaged"))?;
    let mut rewritten = header.to_vec();
    let mut is_changed = false;
    while !rest.is_empty() {
        let (frame, after) =
            Frame::parse(&binding, rest).ok_or_else(|| damaged(&path, "a frame that does not read"))?;
        match frame.record().and_then(|record| Some((reseal(&record)?, record))) {
            Some((sealed, record)) => {
                is_changed = true;
                let length = u16::try_from(record.entry.len()).expect("an entry has at most 8 KiB");
                let payload: [&[u8]; 3] = [&length.to_be_bytes(), &record.entry, &sealed];
                encode_frame(&binding, KIND_ENTRY, frame.index, frame.group, &payload, &mut rewritten);
            }
            None => rewritten.extend_from_slice(&rest[..rest.len() - after.len()]),
        }
        rest = after;
    }
    if !is_changed {
        return Ok(None);
    }
    replace_and_wipe(&path, &rewritten)?;
    Ok(Some(rewritten.len() as u64))
}

fn digest(binding: &[u8; 32], header: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(binding).update(header).update(payload);
    *hasher.finalize().as_bytes()
}

/// A frame whose digest fits.
struct Frame<'a> {
    kind: u8,
    index: u64,
    group: u64,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(binding: &[u8; 32], bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_first_chunk::<28>()?;
        let (stored, rest) = rest.split_first_chunk::<32>()?;
        let number = |range: std::ops::Range<usize>| u64::from_be_bytes(header[range].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
        let length = usize::try_from(length).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX)?;
        let (payload, rest) = rest.split_at_checked(length)?;
        let good = header[..4] == FRAME_MAGIC && digest(binding, header, payload) == *stored;
        good.then_some((Self { kind: header[4], index: number(12..20), group: number(20..28), payload }, rest))
    }

    fn record(&self) -> Option<Record> {
        let (length, rest) = self.payload.split_first_chunk::<2>()?;
        let (entry, sealed) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let good = self.kind == KIND_ENTRY && entry.len() <= ENTRY_BYTES_MAX;
        good.then(|| Record { index: self.index, entry: entry.into(), sealed: sealed.into() })
    }
}

/// The version of a segment, read before anything else of it; `None` when the file is no segment.
pub(super) fn version(path: &Path) -> Result<Option<u32>, ReadError> {
    let mut start = [0; 12];
    let file = File::open(path).map_err(at(path))?;
    if file.read_exact_at(&mut start, 0).is_err() || start[..8] != SEGMENT_MAGIC {
        return Ok(None);
    }
    Ok(Some(u32::from_be_bytes(start[8..].try_into().expect("four bytes"))))
}

/// Whether a segment's version is newer than this release writes.
pub(super) fn is_newer(version: u32) -> bool {
    version > VERSION
}

/// Reads a segment. Damage is reported in the scan, with the records before it.
pub(super) fn scan(dir: &Path, first: u64, origin: &str) -> Result<Scan, ReadError> {
    let path = segment_path(dir, first);
    let bytes = read(&path, SEGMENT_BYTES_MAX)?.ok_or_else(|| damaged(&path, "the file is gone"))?;
    let expected_header = header(first, origin);
    let mut scan = Scan { first, binding: *blake3::hash(&expected_header).as_bytes(), ..Scan::default() };
    let Some(mut rest) = bytes.strip_prefix(&expected_header) else {
        scan.damage = Some(format!("{}: its head is damaged, or it belongs to another log", path.display()));
        return Ok(scan);
    };
    let mut next = first;
    loop {
        scan.end = (bytes.len() - rest.len()) as u64;
        match Frame::parse(&scan.binding, rest) {
            Some((frame, after)) if frame.kind == KIND_COMMIT && frame.index == next => rest = after,
            Some((frame, after)) if frame.index == next => match frame.record() {
                Some(record) => {
                    scan.records.push(record);
                    (next, rest) = (next + 1, after);
                }
                None => {
                    scan.damage = Some(format!("{}: a frame of unknown kind before entry {next}", path.display()));
                    return Ok(scan);
                }
            },
            Some((frame, _)) => {
                let found = frame.index;
                scan.damage = Some(format!("{}: entry {found} where entry {next} should be", path.display()));
                return Ok(scan);
            }
            None => break,
        }
    }
    match after_the_break(&scan.binding, rest, next) {
        Break::Torn => scan.torn_bytes = rest.len() as u64,
        Break::Acknowledged(later) => {
            scan.damage = Some(format!(
                "{}: entry {next} at byte {} is damaged, and entries up to {later} follow that were acknowledged",
                path.display(),
                scan.end
            ));
        }
    }
    Ok(scan)
}

enum Break {
    Torn,
    /// The frame that is damaged, or a later one, was acknowledged.
    Acknowledged(u64),
}

/// Looks beyond the first bad byte for a frame that was written after the group the bad byte lies in.
fn after_the_break(binding: &[u8; 32], bytes: &[u8], next: u64) -> Break {
    let mut start = 0;
    while let Some(found) = bytes[start..].windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC) {
        let here = start + found;
        match Frame::parse(binding, &bytes[here..]) {
            Some((frame, _)) if frame.kind == KIND_COMMIT && frame.index > next => {
                return Break::Acknowledged(frame.index - 1);
            }
            Some((frame, _)) if frame.kind == KIND_ENTRY && frame.group > next => {
                return Break::Acknowledged(frame.group - 1);
            }
            Some((_, after)) => start = bytes.len() - after.len(),
            None => start = here + 1,
        }
    }
    Break::Torn
}

/// Forgets a segment whose entries are durable elsewhere.
pub(super) fn remove(dir: &Path, first: u64) -> Result<(), ReadError> {
    super::files::remove(&segment_path(dir, first))?;
    sync_dir(dir)
}
