//! How a backup is written down: blobs, the list of them, the signed manifest, and the sealed table of files. The format
//! is `docs/spec/backup.md`.

use std::{collections::BTreeSet, fmt, fmt::Write as _, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lineage::{
    checkpoint::{CheckpointError, LogSigner, VerifierKey, parse_decimal, parse_hash},
    entry::{ClockState, ENTRY_VERSION},
};
use crate::types::{Blake3Digest, Instant, Sha256Digest};

/// The version this release writes.
pub const BACKUP_VERSION: u32 = 1;
/// The first line of a manifest. A key name has no spaces, so no log is called this and no manifest is a checkpoint.
const TITLE: &str = "lineproof backup 1";
/// Files are sealed in parts of this many bytes, so that a pack of 256 MiB never lies whole in memory.
pub const PART_BYTES: u64 = 16 << 20;
/// Longest sealed part: the part, 16 bytes for each 64 KiB of it, and a header of a few hundred bytes per recipient.
pub const BLOB_BYTES_MAX: u64 = PART_BYTES + (1 << 20);
/// Longest list: some 4 million blobs of 120 bytes.
pub const LIST_BYTES_MAX: u64 = 512 << 20;
/// Longest table: some 4 million files.
pub const TABLE_BYTES_MAX: u64 = 1 << 30;
/// Longest manifest.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Says what a store is, and of which log.
pub const STORE_FILE: &str = "lineproof-backup";
const STORE_PREFIX: &str = "lineproof-backup ";
/// Where manifests and their lists lie.
pub const MANIFESTS: &str = "backups";
/// Where blobs lie.
pub const BLOBS: &str = "blobs";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("it is signed by {found}, not by {expected}: it is of another log, or somebody else wrote it")]
    OtherKey { expected: String, found: String },
    #[error("its signature does not hold, it was changed: {0}")]
    Signature(CheckpointError),
    #[error("its version is newer than this release reads ({BACKUP_VERSION}); use a newer lineproof: {0:?}")]
    Newer(String),
    #[error("line {line} should be {expected}, found {found:?}")]
    Line { line: usize, expected: &'static str, found: String },
    #[error("its list of blobs is not the one it names: the list was changed or exchanged")]
    OtherList,
    #[error("the table of files: {0}")]
    Table(String),
}

/// A blob's name, 16 bytes: derived from path, size and time of what is in it and from who can open it, or random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 16]);

impl BlobId {
    /// The name of part `part` of a file that has not changed since it had this size and this time of change, sealed to
    /// `recipients`, as [`recipients_digest`] has them. `key` keeps whoever sees the store from telling paths.
    #[must_use]
    pub fn of_part(
        key: &[u8; 32],
        recipients: &Blake3Digest,
        path: &str,
        bytes: u64,
        modified: i64,
        part: u64,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&bytes.to_be_bytes()).update(&modified.to_be_bytes()).update(&part.to_be_bytes());
        hasher.update(&recipients.0).update(path.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// Whom blobs are sealed to: another digest for another set of recipients, in whatever order they are given.
#[must_use]
pub fn recipients_digest(recipients: &[String]) -> Blake3Digest {
    let mut hasher = blake3::Hasher::new();
    for recipient in recipients.iter().collect::<BTreeSet<_>>() {
        hasher.update(recipient.as_bytes()).update(b"\n");
    }
    Blake3Digest(*hasher.finalize().as_bytes())
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for BlobId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("a blob's name has 32 lower-case hex digits: {:?}", text.chars().take(40).collect::<String>());
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A sealed part as it lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob {
    pub id: BlobId,
    /// Of the sealed bytes.
    pub bytes: u64,
    /// Of the sealed bytes.
    pub digest: Blake3Digest,
}

impl Blob {
    /// Its place in the store: a blob says what it must be, so one that an interrupted backup left is as good as any.
    #[must_use]
    pub fn place(&self) -> String {
        let id = self.id.to_string();
        format!("{BLOBS}/{}/{id}-{}.age", &id[..2], self.digest.hex())
    }

    /// Reads a place as [`Self::place`] writes it.
    #[must_use]
    pub fn at(place: &str, bytes: u64) -> Option<Self> {
        let name = place.strip_prefix(BLOBS)?.strip_prefix('/')?.split_once('/')?.1.strip_suffix(".age")?;
        let (id, digest) = name.split_once('-')?;
        let digest = format!("{}{digest}", Blake3Digest::PREFIX).parse().ok()?;
        let blob = Self { id: id.parse().ok()?, bytes, digest };
        (blob.place() == place).then_some(blob)
    }
}

/// The list of a backup's blobs: one line each, in the order of their names.
#[must_use]
pub fn write_list(blobs: &BTreeSet<Blob>) -> String {
    let mut text = String::new();
    for blob in blobs {
        let _ = writeln!(text, "{} {} {}", blob.id, blob.bytes, blob.digest);
    }
    text
}

fn read_list(text: &str) -> Result<Vec<Blob>, ManifestError> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let bytes = parse_decimal(words.next()?)?;
        let digest = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Blob { id, bytes, digest })
    };
    let blob = |(number, line): (usize, &str)| {
        let expected = "a blob's name, length and digest";
        let found = || line.chars().take(60).collect();
        parse(line).ok_or_else(|| ManifestError::Line { line: number + 1, expected, found: found() })
    };
    text.lines().enumerate().map(blob).collect()
}

/// What a backup is: the checkpoint it holds, and which blobs it is made of. Anybody can read it; the log's key signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The log's name.
    pub origin: String,
    pub created: Instant,
    /// Entries of the log that it holds.
    pub size: u64,
    pub root: Sha256Digest,
    pub blobs: u64,
    /// Of all blobs.
    pub bytes: u64,
    /// Of the list of blobs.
    pub list: Blake3Digest,
    /// The blobs that hold the table of files.
    pub table: Vec<BlobId>,
}

impl Manifest {
    /// What a backup is called. Names sort by how much of the log they hold, then by time.
    #[must_use]
    pub fn name(&self) -> String {
        let time: String = self.created.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        format!("{:020}-{time}", self.size)
    }

    #[must_use]
    pub fn place(name: &str) -> String {
        format!("{MANIFESTS}/{name}.manifest")
    }

    #[must_use]
    pub fn list_place(name: &str) -> String {
        format!("{MANIFESTS}/{name}.list")
    }

    /// The name of the backup whose manifest, or list, lies at `place`.
    #[must_use]
    pub fn name_at(place: &str) -> Option<&str> {
        let name = place.strip_prefix(MANIFESTS)?.strip_prefix('/')?;
        let name = name.strip_suffix(".manifest").or_else(|| name.strip_suffix(".list"))?;
        let (size, time) = name.split_once('-')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_time = time.len() == 26 && time.ends_with('Z') && time.as_bytes()[8] == b'T';
        (size.len() == 20 && digits(size) && is_time).then_some(name)
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        let _ = writeln!(text, "origin {}", self.origin);
        let _ = writeln!(text, "created {}", self.created);
        let _ = writeln!(text, "checkpoint {} {}", self.size, BASE64_STANDARD.encode(self.root.0));
        let _ = writeln!(text, "blobs {} {}", self.blobs, self.bytes);
        let _ = writeln!(text, "list {}", self.list);
        for id in &self.table {
            let _ = writeln!(text, "table {id}");
        }
        text
    }

    #[must_use]
    pub fn sign(&self, signer: &LogSigner) -> String {
        signer.sign_text(&self.text())
    }

    /// Reads a manifest that `key` signed.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, ManifestError> {
        let text = key.open_note(note).map_err(|error| match error {
            CheckpointError::OtherKey { expected, found } => ManifestError::OtherKey { expected, found },
            other => ManifestError::Signature(other),
        })?;
        let manifest = Self::parse(&text)?;
        if manifest.origin != key.name() {
            let (expected, found) = (key.name().to_owned(), manifest.origin);
            return Err(ManifestError::OtherKey { expected, found });
        }
        Ok(manifest)
    }

    fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut lines = text.lines().enumerate();
        let mut next = |prefix: &str, expected: &'static str| {
            let (number, line) = lines.next().unwrap_or_default();
            let found: String = line.chars().take(80).collect();
            let value = line.strip_prefix(prefix).map(str::to_owned);
            let wrong = ManifestError::Line { line: number + 1, expected, found };
            value.ok_or_else(|| wrong.clone()).map(|value| (value, wrong))
        };
        let (title, _) = next("lineproof backup ", "`lineproof backup 1`")?;
        if title != BACKUP_VERSION.to_string() {
            return Err(ManifestError::Newer(title));
        }
        let (origin, _) = next("origin ", "`origin` and the log's name")?;
        let (created, wrong) = next("created ", "`created` and a time")?;
        let created: Instant = created.parse().map_err(|_| wrong)?;
        let (checkpoint, wrong) = next("checkpoint ", "`checkpoint`, a size and a root")?;
        let checkpoint = checkpoint.split_once(' ');
        let checkpoint = checkpoint.and_then(|(size, root)| Some((parse_decimal(size)?, parse_hash(root)?)));
        let (size, root) = checkpoint.ok_or(wrong)?;
        let (blobs, wrong) = next("blobs ", "`blobs`, their number and bytes")?;
        let blobs =
            blobs.split_once(' ').and_then(|(count, bytes)| Some((parse_decimal(count)?, parse_decimal(bytes)?)));
        let (blobs, bytes) = blobs.ok_or(wrong)?;
        let (list, wrong) = next("list ", "`list` and a digest")?;
        let list = list.parse().map_err(|_| wrong)?;
        let table = lines.map(|(number, line)| {
            let id = line.strip_prefix("table ").and_then(|id| id.parse().ok());
            let found = || line.chars().take(80).collect();
            id.ok_or_else(|| ManifestError::Line { line: number + 1, expected: "`table` and a blob", found: found() })
        });
        let table = table.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { origin, created, size, root, blobs, bytes, list, table })
    }

    /// The blobs, from the list that belongs to this manifest.
    ///
    /// # Errors
    /// [`ManifestError`] when it is another list.
    pub fn blobs_of(&self, list: &str) -> Result<Vec<Blob>, ManifestError> {
        if Blake3Digest::of(list.as_bytes()) != self.list {
            return Err(ManifestError::OtherList);
        }
        read_list(list)
    }
}

/// The files of a backup; sealed, because paths and names are nobody's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The signed checkpoint.
    pub checkpoint: String,
    pub files: Vec<FileRecord>,
    /// The entries of the last bundle, which is not full.
    pub tail: Vec<TailRecord>,
    pub v: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its parts, in order.
    pub blobs: Vec<BlobId>,
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub modified: i64,
    /// Below the data directory, with slashes.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailRecord {
    /// The entry's bytes in base64.
    pub entry: String,
    /// Its sealed private record in base64; empty if it says nothing.
    pub sealed: String,
}

impl Table {
    /// # Errors
    /// [`ManifestError::Table`]: also for a path that leads out of the folder, or twice to the same file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let wrong = |reason: String| ManifestError::Table(reason);
        let table: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if table.v != BACKUP_VERSION {
            return Err(ManifestError::Newer(table.v.to_string()));
        }
        let mut paths = BTreeSet::new();
        for file in &table.files {
            if !is_inside(&file.path) || !paths.insert(&file.path) {
                return Err(wrong(format!("{:?} is no path of a data directory, or stands there twice", file.path)));
            }
        }
        Ok(table)
    }
}

/// What a restored data directory says of itself until its first start has written it into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The backup's name.
    pub backup: String,
    /// Entries of the furthest checkpoint that others were shown, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shown: Option<u64>,
    /// Entries that the backup held.
    pub size: u64,
}

impl Restored {
    /// The entry of kind `restore`, `docs/spec/entry.md`.
    ///
    /// # Panics
    /// Never: it is a few texts and numbers.
    #[must_use]
    pub fn entry(&self, time: Instant, clock: ClockState) -> Vec<u8> {
        // In the order of their names: entries have sorted keys.
        #[derive(Serialize)]
        struct Body<'a> {
            backup: &'a str,
            clock: ClockState,
            kind: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            shown: Option<u64>,
            size: u64,
            time: Instant,
            v: u32,
        }
        let Self { backup, shown, size } = self;
        let body = Body { backup, clock, kind: "restore", shown: *shown, size: *size, time, v: ENTRY_VERSION };
        serde_json::to_vec(&body).expect("texts and numbers are JSON")
    }
}

/// Whether a path stays below the folder it is joined to.
fn is_inside(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// What the file that marks a store says.
#[must_use]
pub fn store_text(origin: &str) -> String {
    format!("{STORE_PREFIX}{BACKUP_VERSION}\n{origin}\n")
}

/// The log a store belongs to.
///
/// # Errors
/// A sentence, when it is no store or one of a newer release.
pub fn store_origin(text: &str) -> Result<&str, String> {
    let wrong = || format!("its file {STORE_FILE} is none of a backup store");
    let (version, rest) = text.strip_prefix(STORE_PREFIX).and_then(|rest| rest.split_once('\n')).ok_or_else(wrong)?;
    if version != BACKUP_VERSION.to_string() {
        return Err(format!("it was written by a newer release (format {version}); use that release"));
    }
    rest.strip_suffix('\n').ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(list: &str) -> Manifest {
        Manifest {
            origin: "plant.example/log".into(),
            created: Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap(),
            size: 1234,
            root: Sha256Digest::of(b"root"),
            blobs: 2,
            bytes: 30,
            list: Blake3Digest::of(list.as_bytes()),
            table: vec![BlobId([7; 16])],
        }
    }

    fn blobs() -> BTreeSet<Blob> {
        let blob =
            |byte: u8| Blob { id: BlobId([byte; 16]), bytes: u64::from(byte), digest: Blake3Digest::of(&[byte]) };
        [blob(7), blob(23)].into()
    }

    #[test]
    fn a_manifest_opens_with_its_key_and_no_changed_byte_passes() {
        let list = write_list(&blobs());
        let manifest = manifest(&list);
        let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
        let note = manifest.sign(&signer);
        assert_eq!(Manifest::open(&note, signer.verifier_key()).as_ref(), Ok(&manifest));
        assert_eq!(manifest.blobs_of(&list).unwrap(), blobs().into_iter().collect::<Vec<_>>());
        assert_eq!(manifest.blobs_of(&list.replace(" 7 ", " 8 ")), Err(ManifestError::OtherList));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(Manifest::open(&text, signer.verifier_key()).is_err(), "byte {at}");
            }
        }
        let other = LogSigner::new("plant.example/log", &[8; 32]).unwrap();
        let error = Manifest::open(&note, other.verifier_key()).unwrap_err();
        assert!(matches!(error, ManifestError::OtherKey { .. }), "{error}");
    }

    #[test]
    fn a_blob_has_another_name_for_other_recipients_and_the_same_in_any_order() {
        let id = |recipients: &[&str]| {
            let recipients: Vec<String> = recipients.iter().map(|&text| text.to_owned()).collect();
            BlobId::of_part(&[7; 32], &recipients_digest(&recipients), "images/a.pack", 10, 20, 0)
        };
        assert_eq!(id(&["age1a", "age1b"]), id(&["age1b", "age1a", "age1b"]));
        assert_ne!(id(&["age1a"]), id(&["age1a", "age1b"]));
        assert_ne!(id(&["age1a", "age1b"]), id(&["age1aage1b"]));
    }

    #[test]
    fn a_manifest_is_no_checkpoint_and_a_checkpoint_no_manifest() {
        use crate::core::lineage::checkpoint::Checkpoint;
        let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
        assert!(Checkpoint::open(&manifest("").sign(&signer), signer.verifier_key()).is_err());
        let note = signer.sign(&Checkpoint::new("plant.example/log", 5, Sha256Digest::of(b"root")));
        assert!(matches!(Manifest::open(&note, signer.verifier_key()), Err(ManifestError::Line { line: 1, .. })));
    }

    #[test]
    fn names_and_places_read_back_and_sort_by_size() {
        let manifest = manifest("");
        assert_eq!(manifest.name(), "00000000000000001234-20261123T214348.120000000Z");
        assert_eq!(Manifest::name_at(&Manifest::place(&manifest.name())), Some(manifest.name().as_str()));
        assert_eq!(Manifest::name_at(&Manifest::list_place(&manifest.name())), Some(manifest.name().as_str()));
        for foreign in ["backups/notes.txt", "backups/1-2.manifest", "other/x.manifest", "backups/x.manifest.tmp"] {
            assert_eq!(Manifest::name_at(foreign), None, "{foreign}");
        }
        for blob in blobs() {
            assert_eq!(Blob::at(&blob.place(), blob.bytes), Some(blob));
            assert_eq!(Blob::at(&blob.place().replace(".age", ".age.tmp"), blob.bytes), None);
            assert_eq!(Blob::at(&blob.place().to_uppercase(), blob.bytes), None);
        }
    }

    #[test]
    fn a_table_leads_nowhere_but_into_its_folder() {
        let file = |path: &str| FileRecord { blobs: vec![], bytes: 0, mode: 0o600, modified: 0, path: path.into() };
        let table = |paths: &[&str]| {
            let files = paths.iter().map(|path| file(path)).collect();
            serde_json::to_vec(&Table { checkpoint: String::new(), files, tail: vec![], v: 1 }).unwrap()
        };
        Table::parse(&table(&["lineproof.toml", "images/ok/2026-11-23/00000000.pack"])).unwrap();
        for wrong in [&["../x"][..], &["/etc/x"], &["a//b"], &["a/./b"], &["a/.."], &[""], &["a", "a"]] {
            assert!(Table::parse(&table(wrong)).is_err(), "{wrong:?}");
        }
        let newer = String::from_utf8(table(&[])).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(matches!(Table::parse(newer.as_bytes()), Err(ManifestError::Newer(_))));
    }

    #[test]
    fn a_restore_is_an_entry_with_sorted_keys_that_every_reader_keeps() {
        use crate::core::lineage::entry::Entry;
        let time = Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap();
        let restored = Restored { backup: "name".into(), shown: None, size: 7 };
        let entry = restored.entry(time, ClockState::Free);
        let expected = r#"{"backup":"name","clock":"free","kind":"restore","size":7,"time":"2026-11-23T21:43:48.120000000Z","v":2}"#;
        assert_eq!(String::from_utf8_lossy(&entry), expected);
        assert_eq!(Entry::parse(&entry).unwrap().kind(), "restore");
        let shown = Restored { shown: Some(5), ..restored }.entry(time, ClockState::Free);
        assert!(String::from_utf8_lossy(&shown).contains(r#""kind":"restore","shown":5,"size":7"#));
    }

    #[test]
    fn a_store_says_whose_it_is() {
        assert_eq!(store_origin(&store_text("plant.example/log")), Ok("plant.example/log"));
        assert!(store_origin("lineproof-backup 2\nx\n").unwrap_err().contains("newer"));
        assert!(store_origin("hello").is_err());
    }
}
