//! Sets of entry indexes as entries write them: `3 17-40 99`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::COUNTER_MAX;
use crate::types::EntryIndex;

/// Bytes of text that one entry gives its ranges, so that it stays below `ENTRY_BYTES_MAX` with everything else.
pub const RANGES_BYTES_MAX: usize = 6 * 1024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("entry indexes are written in ascending order, runs as one range, such as `3 17-40 99`")]
pub struct RangesError;

/// At least one entry, in ranges that ascend and do not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRanges(Vec<(u64, u64)>);

impl IndexRanges {
    /// The set of these entries, in whatever order they come; `None` of no entry.
    pub fn of(entries: impl IntoIterator<Item = EntryIndex>) -> Option<Self> {
        let mut indexes: Vec<u64> = entries.into_iter().map(|index| index.0).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for index in indexes {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => ranges.push((index, index)),
            }
        }
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    #[must_use]
    pub fn contains(&self, index: EntryIndex) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index.0);
        after.checked_sub(1).is_some_and(|at| index.0 <= self.0[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = EntryIndex> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last).map(EntryIndex)
    }

    /// First and last of each range.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The same entries in as few sets as have at most `bytes_max` bytes of text each.
    #[must_use]
    pub fn split(self, bytes_max: usize) -> Vec<Self> {
        let mut sets: Vec<Self> = Vec::new();
        let mut bytes = 0;
        for range in self.0 {
            let length = Self(vec![range]).to_string().len() + 1;
            match sets.last_mut() {
                Some(set) if bytes + length <= bytes_max => {
                    set.0.push(range);
                    bytes += length;
                }
                _ => {
                    sets.push(Self(vec![range]));
                    bytes = length;
                }
            }
        }
        sets
    }
}

impl fmt::Display for IndexRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            if first == last { write!(f, "{space}{first}")? } else { write!(f, "{space}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for IndexRanges {
    type Err = RangesError;

    /// Only what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, RangesError> {
        let number = |text: &str| {
            let number: u64 = text.parse().map_err(|_| RangesError)?;
            if number <= COUNTER_MAX && number.to_string() == text { Ok(number) } else { Err(RangesError) }
        };
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for part in text.split(' ') {
            let (first, last) = match part.split_once('-') {
                None => (number(part)?, number(part)?),
                Some((first, last)) => (number(first)?, number(last)?),
            };
            let is_range = part.contains('-');
            let ascends = ranges.last().is_none_or(|(_, before)| *before + 1 < first);
            if !ascends || is_range != (first < last) {
                return Err(RangesError);
            }
            ranges.push((first, last));
        }
        Ok(Self(ranges))
    }
}

impl Serialize for IndexRanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IndexRanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(indexes: &[u64]) -> IndexRanges {
        IndexRanges::of(indexes.iter().copied().map(EntryIndex)).unwrap()
    }

    #[test]
    fn ranges_are_written_in_one_way_and_read_in_no_other() {
        let ranges = set(&[99, 18, 17, 19, 3, 3]);
        assert_eq!(ranges.to_string(), "3 17-19 99");
        assert_eq!("3 17-19 99".parse(), Ok(ranges.clone()));
        assert_eq!((ranges.count(), ranges.iter().count()), (5, 5));
        for index in [3, 17, 18, 19, 99] {
            assert!(ranges.contains(EntryIndex(index)));
        }
        for index in [0, 2, 4, 16, 20, 98, 100] {
            assert!(!ranges.contains(EntryIndex(index)));
        }
        for wrong in [
            "",
            " 3",
            "3 ",
            "3  4",
            "03",
            "+3",
            "3-3",
            "4-3",
            "3 4",
            "3-5 6",
            "5 3",
            "3,5",
            "-3",
            "3-",
            "9007199254740992",
        ] {
            assert_eq!(wrong.parse::<IndexRanges>(), Err(RangesError), "{wrong:?}");
        }
        assert_eq!(IndexRanges::of([]), None);
    }

    #[test]
    fn a_large_set_is_split_and_loses_nothing() {
        let all = set(&(0..5000).map(|index| index * 2).collect::<Vec<_>>());
        let parts = all.clone().split(100);
        assert!(parts.iter().all(|part| part.to_string().len() <= 100));
        let again = IndexRanges::of(parts.iter().flat_map(IndexRanges::iter)).unwrap();
        assert_eq!(again, all);
    }
}
