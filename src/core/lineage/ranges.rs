//! Sets of frame counters as ranges, so that a million frames in a row are two numbers.

use std::collections::BTreeMap;

/// Disjoint closed ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `first..=last`; nothing when it is empty.
    pub fn add(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if to.saturating_add(1) < first {
                break;
            }
            self.0.remove(&from);
            first = first.min(from);
            last = last.max(to);
        }
        self.0.insert(first, last);
    }

    pub fn add_all(&mut self, more: &Self) {
        more.iter().for_each(|(first, last)| self.add(first, last));
    }

    /// First and last counter of each range, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many counters are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.iter().fold(0, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// What of it lies in `first..=last`.
    #[must_use]
    pub fn within(&self, first: u64, last: u64) -> Self {
        let mut found = BTreeMap::new();
        if first > last {
            return Self(found);
        }
        if let Some((_, &to)) = self.0.range(..first).next_back().filter(|(_, to)| **to >= first) {
            found.insert(first, to.min(last));
        }
        found.extend(self.0.range(first..=last).map(|(&from, &to)| (from, to.min(last))));
        Self(found)
    }

    /// What of it is not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = BTreeMap::new();
        for (first, last) in self.iter() {
            let mut next = Some(first);
            for (from, to) in other.within(first, last).iter() {
                if let Some(start) = next.filter(|start| *start < from) {
                    left.insert(start, from - 1);
                }
                next = to.checked_add(1).filter(|start| *start <= last);
            }
            if let Some(start) = next {
                left.insert(start, last);
            }
        }
        Self(left)
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|(first, last)| all.add(first, last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> Ranges {
        ranges.iter().copied().collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(set(&[(10, 10), (12, 12), (11, 11), (9, 8)]), set(&[(10, 12)]));
        assert_eq!(set(&[(0, u64::MAX - 1), (u64::MAX, u64::MAX)]).len(), 1);
        assert_eq!(set(&[(1, 3), (7, 9)]).count(), 6);
    }

    #[test]
    fn a_part_and_a_difference_are_what_counting_one_by_one_gives() {
        let (some, other) = (set(&[(0, 2), (5, 9), (12, 12)]), set(&[(2, 5), (8, 8), (11, 20)]));
        let counters = |ranges: &Ranges| (0..30).filter(|n| !ranges.within(*n, *n).is_empty()).collect::<Vec<u64>>();
        let expected: Vec<u64> = counters(&some).into_iter().filter(|n| !counters(&other).contains(n)).collect();
        assert_eq!(counters(&some.without(&other)), expected);
        assert_eq!(some.without(&other), set(&[(0, 1), (6, 7), (9, 9)]));
        assert_eq!(counters(&some.within(1, 6)), [1, 2, 5, 6]);
        assert_eq!(set(&[(0, u64::MAX)]).without(&set(&[(5, u64::MAX)])), set(&[(0, 4)]));
    }
}
