//! Names of things on the shop floor, bounded and printable.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {len} bytes; at most {max} are allowed")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("{what} {text:?} may hold only {allowed}")]
    Character { what: &'static str, text: String, allowed: &'static str },
}

const NAME_ALLOWED: &str = "letters, digits, '.', '_', '-' and ':'";
const TEXT_ALLOWED: &str = "printable characters without line breaks";

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':')
}

fn is_text_char(c: char) -> bool {
    // Bidirectional controls could make a report show another order than the evidence has.
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $is_allowed:ident, $allowed:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Longest allowed name in bytes.
            pub const BYTES_MAX: usize = $max;

            /// # Errors
            /// [`IdError`] when the text is empty, too long or holds a character outside the allowed set.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                if text.is_empty() {
                    return Err(IdError::Empty { what: $what });
                }
                if text.len() > $max {
                    return Err(IdError::TooLong { what: $what, len: text.len(), max: $max });
                }
                if !text.chars().all($is_allowed) {
                    let text = text.chars().take(64).collect();
                    return Err(IdError::Character { what: $what, text, allowed: $allowed });
                }
                Ok(Self(text))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/// A production line. Frames of one line share an admission queue.
    LineId, "line", 64, is_name_char, NAME_ALLOWED);
id!(/// A station on a line.
    StationId, "station", 64, is_name_char, NAME_ALLOWED);
id!(/// A camera at a station; its frames are counted.
    CameraId, "camera", 64, is_name_char, NAME_ALLOWED);
id!(/// A product: the type of a part.
    ProductId, "product", 64, is_name_char, NAME_ALLOWED);
id!(/// One of the views that a part is seen from.
    ViewName, "view", 64, is_name_char, NAME_ALLOWED);
id!(/// What the line PC calls one frame; the same id with the same bytes is the same frame.
    FrameId, "frame id", 64, is_name_char, NAME_ALLOWED);
id!(/// Serial number or data-matrix code of a part. Private: evidence holds only a commitment to it.
    Serial, "serial", 128, is_text_char, TEXT_ALLOWED);
id!(/// Production lot. Private, like [`Serial`].
    LotId, "lot", 128, is_text_char, TEXT_ALLOWED);
id!(/// A recipe as people name it, `machined-surface@1.0.0`; evidence names it by digest.
    RecipeRef, "recipe", 130, is_recipe_char, RECIPE_ALLOWED);

const RECIPE_ALLOWED: &str = "letters, digits, '.', '_', '-', '+' and one '@' before the version";

fn is_recipe_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@')
}

/// What makes a frame unique for retries: line, camera and frame id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameKey {
    pub line: LineId,
    pub camera: CameraId,
    pub frame: FrameId,
}

impl FrameKey {
    /// A 16-byte key for indexes: BLAKE3 over the three names, each ended by a zero byte.
    #[must_use]
    pub fn hash16(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        for name in [self.line.as_str(), self.camera.as_str(), self.frame.as_str()] {
            hasher.update(name.as_bytes());
            hasher.update(&[0]);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        key
    }
}

impl fmt::Display for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.line, self.camera, self.frame)
    }
}

/// Position of an entry in the log, from zero, gap-free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryIndex(pub u64);

impl fmt::Display for EntryIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(LineId::new("press-2.A:left").is_ok());
        assert!(matches!(LineId::new(""), Err(IdError::Empty { .. })));
        assert!(matches!(LineId::new("a".repeat(65)), Err(IdError::TooLong { len: 65, .. })));
        assert!(matches!(LineId::new("a/b"), Err(IdError::Character { .. })));
        assert!(Serial::new("Ø 12-34/[)>06").is_ok());
        assert!(Serial::new("a\nb").is_err());
        assert!(Serial::new("a\u{202e}b").is_err());
    }

    #[test]
    fn frame_keys_do_not_run_into_each_other() {
        let key = |line: &str, camera: &str, frame: &str| {
            FrameKey { line: line.parse().unwrap(), camera: camera.parse().unwrap(), frame: frame.parse().unwrap() }
                .hash16()
        };
        assert_ne!(key("a", "bc", "d"), key("ab", "c", "d"));
        assert_eq!(key("a", "b", "c"), key("a", "b", "c"));
    }
}
