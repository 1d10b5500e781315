//! The admission queue: bounded per line, served round-robin over lines, so that one line cannot starve another (G9).

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// A bounded multi-producer, multi-consumer queue with one lane per key.
///
/// Invariant: a lane is in `turns` exactly once while it holds items, and not at all while it is empty.
pub struct FairQueue<K, T> {
    lane_items_max: usize,
    state: Mutex<State<K, T>>,
    wake: Condvar,
}

struct State<K, T> {
    lanes: HashMap<K, VecDeque<T>>,
    turns: VecDeque<K>,
    is_closed: bool,
    /// Counts [`FairQueue::nudge`].
    nudges: u64,
}

/// What a waiting worker gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    Item(T),
    /// Nothing waits, and somebody has asked every worker to look up.
    Nudged,
    /// Closed and drained.
    Closed,
}

/// Why an item was not admitted; the item comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum PushError<T> {
    /// The lane holds its maximum.
    Full(T),
    Closed(T),
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    #[must_use]
    pub fn new(lane_items_max: usize) -> Self {
        let state = State { lanes: HashMap::new(), turns: VecDeque::new(), is_closed: false, nudges: 0 };
        Self { lane_items_max, state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Admits `item` to the lane of `key` and returns how many items wait there now.
    ///
    /// # Errors
    /// [`PushError`] with the item.
    pub fn push(&self, key: &K, item: T) -> Result<usize, PushError<T>> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(PushError::Closed(item));
        }
        let lane = state.lanes.entry(key.clone()).or_default();
        if lane.len() >= self.lane_items_max {
            return Err(PushError::Full(item));
        }
        lane.push_back(item);
        let waiting = lane.len();
        if waiting == 1 {
            state.turns.push_back(key.clone());
        }
        drop(state);
        self.wake.notify_one();
        Ok(waiting)
    }

    /// The next item, from the lane whose turn it is. Waits for one, or for a nudge that `seen`, which begins at 0, has not counted.
    pub fn pop(&self, seen: &mut u64) -> Popped<T> {
        let mut state = self.lock();
        loop {
            if let Some(key) = state.turns.pop_front() {
                let lane = state.lanes.get_mut(&key).expect("a lane with a turn exists");
                let item = lane.pop_front().expect("a lane with a turn holds items");
                if lane.is_empty() {
                    state.lanes.remove(&key);
                } else {
                    state.turns.push_back(key);
                }
                return Popped::Item(item);
            }
            if state.is_closed {
                return Popped::Closed;
            }
            if state.nudges != *seen {
                *seen = state.nudges;
                return Popped::Nudged;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes every worker that waits, and any that does not when it next would.
    pub fn nudge(&self) {
        self.lock().nudges += 1;
        self.wake.notify_all();
    }

    /// Admits nothing more; what waits is still served.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_all();
    }

    #[must_use]
    pub fn lane_items_max(&self) -> usize {
        self.lane_items_max
    }

    /// Items waiting in all lanes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().lanes.values().map(VecDeque::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<K, T>> {
        // No code panics while it holds the lock and leaves the invariant broken.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_line_is_refused_and_does_not_starve_another() {
        let queue = FairQueue::new(3);
        for n in 0..3 {
            queue.push(&"loud", n).unwrap();
        }
        assert_eq!(queue.push(&"loud", 3), Err(PushError::Full(3)));
        queue.push(&"quiet", 100).unwrap();
        let served: Vec<_> = (0..4).map(|_| queue.pop(&mut 0)).collect();
        assert_eq!(served, [0, 100, 1, 2].map(Popped::Item));
    }

    #[test]
    fn what_was_admitted_is_served_after_closing() {
        let queue = FairQueue::new(8);
        queue.push(&1, 'a').unwrap();
        queue.close();
        assert_eq!(queue.push(&1, 'b'), Err(PushError::Closed('b')));
        assert_eq!((queue.pop(&mut 0), queue.pop(&mut 0)), (Popped::Item('a'), Popped::Closed));
    }

    #[test]
    fn a_waiting_worker_is_woken() {
        let queue = std::sync::Arc::new(FairQueue::new(1));
        let worker = std::thread::spawn({
            let queue = queue.clone();
            move || {
                let mut seen = 0;
                (queue.pop(&mut seen), queue.pop(&mut seen))
            }
        });
        queue.nudge();
        queue.push(&(), 7).unwrap();
        let (first, second) = worker.join().unwrap();
        // Whichever comes first: an item goes before a nudge.
        assert!(
            [&first, &second].contains(&&Popped::Item(7)) && [&first, &second].contains(&&Popped::Nudged),
            "{first:?} {second:?}"
        );
    }
}
