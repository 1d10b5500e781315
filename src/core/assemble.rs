//! Gathers the decisions on one part's views until all are there or their time is over.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use super::lineage::part::DECISIONS_MAX;

/// Parts that wait for views at a time; beyond that the oldest is joined as it is.
const OPEN_MAX: usize = 65_536;

/// The parts of one product that wait for views. `K` names a part, `D` is a decision on one of its views.
pub struct Assembler<K, D> {
    views: usize,
    wait: Duration,
    open: HashMap<K, Group<D>>,
    /// In the order in which they were opened; a group that was joined since is passed over.
    ages: VecDeque<(Instant, K)>,
}

struct Group<D> {
    opened: Instant,
    /// View by its number, and the decision.
    seen: Vec<(usize, D)>,
}

impl<K: Clone + Eq + Hash, D> Assembler<K, D> {
    /// `views` views, numbered from 0, the last of which comes at most `wait` after the first.
    #[must_use]
    pub fn new(views: usize, wait: Duration) -> Self {
        Self { views, wait, open: HashMap::new(), ages: VecDeque::new() }
    }

    /// Adds a decision, and gives all of the part's when every view has one. A view that is taken again before the part is joined
    /// counts as well. The decision after that opens the part anew.
    pub fn add(&mut self, part: K, view: usize, decision: D, now: Instant) -> Option<Vec<(usize, D)>> {
        let ages = &mut self.ages;
        let group = self.open.entry(part.clone()).or_insert_with(|| {
            ages.push_back((now, part.clone()));
            Group { opened: now, seen: Vec::new() }
        });
        group.seen.push((view, decision));
        let missing = (0..self.views).filter(|view| group.seen.iter().all(|(seen, _)| seen != view)).count();
        // A missing view takes a place in the entry, too.
        if missing == 0 || group.seen.len() + missing >= DECISIONS_MAX {
            self.open.remove(&part).map(|group| group.seen)
        } else {
            None
        }
    }

    /// The parts whose time is over, with what was seen of them.
    pub fn expired(&mut self, now: Instant) -> Vec<(K, Vec<(usize, D)>)> {
        let mut over = Vec::new();
        while let Some((opened, part)) = self.ages.front() {
            let is_open = self.open.get(part).is_some_and(|group| group.opened == *opened);
            if is_open && now.duration_since(*opened) < self.wait && self.open.len() <= OPEN_MAX {
                break;
            }
            let (_, part) = self.ages.pop_front().expect("it was looked at");
            if is_open && let Some(group) = self.open.remove(&part) {
                over.push((part, group.seen));
            }
        }
        over
    }

    /// When the next part's time is over.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.ages.front().map(|(opened, _)| *opened + self.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_part_is_joined_when_its_last_view_comes_in_whatever_order_and_beside_others() {
        let (mut parts, now) = (Assembler::new(3, WAIT), Instant::now());
        assert_eq!(parts.add("a", 2, 'x', now), None);
        assert_eq!(parts.add("b", 0, 'b', now), None);
        assert_eq!(parts.add("a", 0, 'y', now), None);
        assert_eq!(parts.add("a", 0, 'z', now), None, "a view taken again");
        assert_eq!(parts.add("a", 1, 'w', now), Some(vec![(2, 'x'), (0, 'y'), (0, 'z'), (1, 'w')]));
        assert_eq!(parts.expired(now + WAIT), [("b", vec![(0, 'b')])]);
    }

    #[test]
    fn a_part_whose_view_does_not_come_is_over_after_its_time_and_not_before() {
        let (mut parts, now) = (Assembler::new(2, WAIT), Instant::now());
        parts.add("a", 0, 1, now);
        parts.add("b", 0, 2, now + Duration::from_secs(1));
        assert_eq!(parts.next(), Some(now + WAIT));
        assert!(parts.expired(now + WAIT - Duration::from_millis(1)).is_empty());
        assert_eq!(parts.expired(now + WAIT), [("a", vec![(0, 1)])]);
        // Inspected again later, it is another pass.
        assert_eq!(parts.add("a", 1, 3, now + WAIT), None);
        assert_eq!(parts.add("a", 0, 4, now + WAIT), Some(vec![(1, 3), (0, 4)]));
        assert_eq!(parts.expired(now + 2 * WAIT), [("b", vec![(0, 2)])]);
        assert!(parts.expired(now + 9 * WAIT).is_empty() && parts.next().is_none());
    }

    #[test]
    fn a_view_that_is_taken_again_and_again_does_not_grow_without_end() {
        let (mut parts, now) = (Assembler::new(2, WAIT), Instant::now());
        let joined: Vec<usize> = (0..100).filter_map(|n| parts.add("a", 0, n, now)).map(|seen| seen.len()).collect();
        assert!(joined.len() > 5 && joined.iter().all(|decisions| *decisions < DECISIONS_MAX), "{joined:?}");
    }

    #[test]
    fn a_part_of_many_views_is_complete_when_each_was_taken_twice() {
        let (mut parts, now) = (Assembler::new(8, WAIT), Instant::now());
        for view in 0..7 {
            assert_eq!(parts.add("a", view, 'x', now), None);
            assert_eq!(parts.add("a", view, 'y', now), None);
        }
        assert_eq!(parts.add("a", 7, 'z', now).map(|seen| seen.len()), Some(15));
    }
}
