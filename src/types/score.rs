//! Finite scores and thresholds. In evidence they are written bit-exact: `0x3dcccccd 0.1`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScoreError {
    #[error("a score is a finite number, this one is {0}")]
    NotFinite(f32),
    #[error("a score in evidence reads `0x<8 hex> <decimal>`: {0:?}")]
    Text(String),
}

/// A finite 32-bit score or threshold. Negative zero is stored as zero, so equal values have equal bits.
#[derive(Clone, Copy, PartialEq)]
pub struct Score(f32);

impl Score {
    pub const ZERO: Self = Self(0.0);

    /// # Errors
    /// [`ScoreError::NotFinite`] for NaN and the infinities.
    pub fn new(value: f32) -> Result<Self, ScoreError> {
        if value.is_finite() { Ok(Self(value + 0.0)) } else { Err(ScoreError::NotFinite(value)) }
    }

    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }

    /// Bits whose unsigned order is the numeric order, for range indexes.
    #[must_use]
    pub fn ordered_bits(self) -> u32 {
        let bits = self.0.to_bits();
        if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.ordered_bits().cmp(&other.ordered_bits())
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x} {}", self.0.to_bits(), self.0)
    }
}

impl FromStr for Score {
    type Err = ScoreError;

    fn from_str(text: &str) -> Result<Self, ScoreError> {
        let wrong = || ScoreError::Text(text.chars().take(60).collect());
        let (bits, decimal) = text.split_once(' ').ok_or_else(wrong)?;
        let bits = bits.strip_prefix("0x").filter(|hex| hex.len() == 8).ok_or_else(wrong)?;
        let score = Self::new(f32::from_bits(u32::from_str_radix(bits, 16).map_err(|_| wrong())?))?;
        // The decimal is for people; evidence in which it says something else is wrong evidence.
        if score.to_string() == text && decimal.parse() == Ok(score.0) { Ok(score) } else { Err(wrong()) }
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_text_is_bit_exact_and_its_decimal_may_not_lie() {
        for value in [0.1_f32, 0.0, -0.0, 1.0, f32::MIN_POSITIVE, -3.5e-9, f32::MAX] {
            let score = Score::new(value).unwrap();
            assert_eq!(score.to_string().parse(), Ok(score));
        }
        assert_eq!(Score::new(0.1).unwrap().to_string(), "0x3dcccccd 0.1");
        assert!("0x3dcccccd 0.2".parse::<Score>().is_err());
        assert!("0x7fc00000 NaN".parse::<Score>().is_err());
        assert!(Score::new(f32::NAN).is_err());
    }

    #[test]
    fn ordered_bits_sort_like_numbers() {
        let mut scores: Vec<Score> = [3.0, -1.0, 0.0, -7.5, 0.25].map(|v| Score::new(v).unwrap()).into();
        scores.sort_by_key(|score| score.ordered_bits());
        assert_eq!(scores.iter().map(|s| s.get()).collect::<Vec<_>>(), [-7.5, -1.0, 0.0, 0.25, 3.0]);
    }
}
