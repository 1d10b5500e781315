//! The image archive: sealed frames in append-only packs.

use std::{fmt, str::FromStr};

use crate::types::{Blake3Digest, Instant};

/// A retention class: letters, digits, `_` and `-`; it names a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RetentionClass(String);

impl RetentionClass {
    /// # Errors
    /// A sentence, when the name is empty, longer than 32 bytes or holds other characters than `[a-z0-9_-]`.
    pub fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) {
            return Err(format!("a retention class has 1 to 32 characters of a-z, 0-9, '_' and '-': {name:?}"));
        }
        Ok(Self(name))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a sealed frame lies: `<class>/<day>/<pack number>:<offset>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageLocation {
    pub class: RetentionClass,
    /// UTC day, `2026-11-23`.
    pub day: String,
    pub pack: u32,
    /// Byte offset of the sealed record in the pack.
    pub offset: u64,
}

impl fmt::Display for ImageLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:08}:{}", self.class.as_str(), self.day, self.pack, self.offset)
    }
}

impl FromStr for ImageLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not an image location such as not_ok/2026-11-23/00000000:64: {text:?}");
        let mut parts = text.splitn(3, '/');
        let (class, day, rest) =
            (parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?);
        let (pack, offset) = rest.split_once(':').ok_or_else(wrong)?;
        if !is_day(day) {
            return Err(wrong());
        }
        Ok(Self {
            class: RetentionClass::new(class).map_err(|_| wrong())?,
            day: day.to_owned(),
            pack: pack.parse().map_err(|_| wrong())?,
            offset: offset.parse().map_err(|_| wrong())?,
        })
    }
}

/// Whether a text is shaped like a day, `2026-11-23`.
#[must_use]
pub fn is_day(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() })
}

/// Longest image in bytes; a frame is shorter by configuration.
pub const IMAGE_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("an image of {bytes} bytes is too long to be archived; at most {IMAGE_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("image archive {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("no image at {0}; retention may have removed it")]
    Missing(ImageLocation),
    #[error("the image at {location} does not open: {reason}")]
    Damaged { location: ImageLocation, reason: String },
}

/// Sealed images, content-addressed within a class and day.
pub trait ImageArchive: Send + Sync + 'static {
    /// Seals and writes `bytes`, whose BLAKE3 is `digest`, into the pack of `class` and the UTC day of `time`.
    /// When this returns the record is written, not yet durable: [`Self::sync`] makes it so. The same digest in the
    /// same class and day is stored once, among as many images as the adapter remembers. Called from many threads at a
    /// time.
    ///
    /// # Errors
    /// [`ArchiveError::TooLong`]; [`ArchiveError::Io`]: nothing is then promised of the pack's tail, and the next put
    /// begins a new pack. After a failed [`Self::sync`] every put fails.
    fn put(
        &self,
        class: &RetentionClass,
        time: Instant,
        digest: Blake3Digest,
        bytes: &[u8],
    ) -> Result<ImageLocation, ArchiveError>;

    /// Makes every put that returned before this call durable, folders included. Never retried after an error.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]: the caller must stop acknowledging (G10).
    fn sync(&self) -> Result<(), ArchiveError>;

    /// Opens one image and checks it against `digest`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    fn get(&self, location: &ImageLocation, digest: Blake3Digest) -> Result<Vec<u8>, ArchiveError>;
}

/// A pack within its class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackName {
    /// UTC day, `2026-11-23`.
    pub day: String,
    pub number: u32,
}

/// A pack as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFacts {
    pub name: PackName,
    pub images: u64,
    pub bytes: u64,
}

/// Destroys images, in whole packs. Never called for a day that images are still put into.
pub trait ImageShredder: Send + Sync + 'static {
    /// The packs of a class of the days before `day`, oldest first.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    fn packs_before(&self, class: &RetentionClass, day: &str) -> Result<Vec<PackFacts>, ArchiveError>;

    /// Destroys the key of each pack, then removes it, durably. What is gone already is no error.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]; to be called again.
    fn destroy(&self, class: &RetentionClass, packs: &[PackName]) -> Result<(), ArchiveError>;
}
