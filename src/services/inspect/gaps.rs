//! What is missing from the log is visible in the log: counter jumps and refusals become gap entries.
//!
//! A gap waits for [`SETTLE`] before it is written, because frames of concurrent calls may overtake each other and
//! because a burst of refusals of one camera is one fact, not a thousand entries. Refused counters are gathered only
//! where they follow each other: a gap that reached over other frames would explain those away when a period is closed.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::{
    core::{counter::RESTART_DISTANCE, lineage::entry::GapReason},
    types::{CameraId, FrameId, LineId, StationId},
};

/// How long a missing counter may still turn up, and how long refusals are gathered into one entry.
pub const SETTLE: Duration = Duration::from_secs(1);
/// Missing ranges, and runs of refusals for one reason, kept per camera while they settle; beyond it the oldest is
/// written at once.
pub const RANGES_MAX: usize = 64;

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub line: LineId,
    pub station: StationId,
    pub camera: CameraId,
}

/// A gap that has settled and is ready to become an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledGap {
    pub source: Source,
    pub reason: GapReason,
    pub count: u64,
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub frame: Option<FrameId>,
}

/// Watches the frame counters of all cameras. Bounded: one record per source, and the edge admits only configured
/// stations with a bounded number of cameras.
#[derive(Default)]
pub struct GapTracker {
    sources: HashMap<Source, Camera>,
    settled: Vec<SettledGap>,
}

#[derive(Default)]
struct Camera {
    /// The counter the next frame should have; `None` before the first frame.
    next: Option<u64>,
    /// Missing counters, first -> (last, since), not overlapping.
    missing: BTreeMap<u64, (u64, Instant)>,
    /// Runs of counters that were refused for one reason.
    refusals: HashMap<GapReason, Vec<Refusals>>,
}

struct Refusals {
    since: Instant,
    count: u64,
    first: u64,
    last: u64,
    frame: FrameId,
}

impl GapTracker {
    /// Says where a camera stood before this process started.
    pub fn resume(&mut self, source: Source, last_counter: u64) {
        self.sources.entry(source).or_default().next = Some(last_counter + 1);
    }

    /// Whether this source has been seen or resumed.
    #[must_use]
    pub fn knows(&self, source: &Source) -> bool {
        self.sources.contains_key(source)
    }

    /// Takes the next counter for a frame that has none; to be called once it is sure to be admitted or refused.
    pub fn next_counter(&mut self, source: &Source) -> u64 {
        let camera = self.sources.entry(source.clone()).or_default();
        let counter = camera.next.unwrap_or(1);
        camera.next = Some(counter + 1);
        counter
    }

    /// A frame arrived.
    pub fn arrived(&mut self, source: &Source, counter: u64, now: Instant) {
        let camera = self.sources.entry(source.clone()).or_default();
        let next = camera.next.unwrap_or(counter);
        if counter >= next {
            if counter > next {
                camera.missing.insert(next, (counter - 1, now));
            }
            camera.next = Some(counter + 1);
        } else if counter + RESTART_DISTANCE < next {
            camera.next = Some(counter + 1);
        } else {
            camera.fill(counter);
        }
        if camera.missing.len() > RANGES_MAX {
            let (first, (last, _)) = camera.missing.pop_first().expect("more than RANGES_MAX ranges are not none");
            self.settled.push(SettledGap::jump(source, first, last));
        }
    }

    /// A frame was refused: no decision exists for it.
    pub fn refused(&mut self, source: &Source, reason: GapReason, counter: u64, frame: &FrameId, now: Instant) {
        let refusals = &mut self.sources.entry(source.clone()).or_default().refusals;
        let runs = refusals.entry(reason).or_default();
        let touches =
            |run: &&mut Refusals| run.first <= counter.saturating_add(1) && counter <= run.last.saturating_add(1);
        if let Some(run) = runs.iter_mut().find(touches) {
            run.count += 1;
            run.first = run.first.min(counter);
            run.last = run.last.max(counter);
            return;
        }
        runs.push(Refusals { since: now, count: 1, first: counter, last: counter, frame: frame.clone() });
        if runs.len() > RANGES_MAX {
            let oldest = runs.remove(0);
            self.settled.push(SettledGap::refusal(source, reason, &oldest));
        }
    }

    /// Takes what a camera's period up to the counter `last` must know of now: its refusals, and the counters that are
    /// missing before those that came.
    pub fn take_now(&mut self, source: &Source, last: u64) -> Vec<SettledGap> {
        let mut settled: Vec<SettledGap> = self.settled.extract_if(.., |gap| gap.source == *source).collect();
        let Some(camera) = self.sources.get_mut(source) else { return settled };
        camera.missing.retain(|first, (to, _)| {
            if *first <= last {
                settled.push(SettledGap::jump(source, *first, *to));
            }
            *first > last
        });
        for (reason, runs) in camera.refusals.drain() {
            settled.extend(runs.iter().map(|run| SettledGap::refusal(source, reason, run)));
        }
        settled
    }

    /// Takes the gaps that have settled by `now`; with `None`, all of them.
    pub fn take_settled(&mut self, now: Option<Instant>) -> Vec<SettledGap> {
        let has_settled = |since: Instant| now.is_none_or(|now| now.duration_since(since) >= SETTLE);
        let mut settled = std::mem::take(&mut self.settled);
        for (source, camera) in &mut self.sources {
            camera.missing.retain(|first, (last, since)| {
                if has_settled(*since) {
                    settled.push(SettledGap::jump(source, *first, *last));
                }
                !has_settled(*since)
            });
            for (reason, runs) in &mut camera.refusals {
                let old = runs.extract_if(.., |run| has_settled(run.since));
                settled.extend(old.map(|run| SettledGap::refusal(source, *reason, &run)));
            }
        }
        settled
    }
}

impl Camera {
    /// Takes a late counter out of the missing range that holds it.
    fn fill(&mut self, counter: u64) {
        let Some((&first, &(last, since))) = self.missing.range(..=counter).next_back() else { return };
        if counter > last {
            return;
        }
        self.missing.remove(&first);
        if first < counter {
            self.missing.insert(first, (counter - 1, since));
        }
        if counter < last {
            self.missing.insert(counter + 1, (last, since));
        }
    }
}

impl SettledGap {
    fn jump(source: &Source, first: u64, last: u64) -> Self {
        Self {
            source: source.clone(),
            reason: GapReason::CounterJump,
            count: last - first + 1,
            first: Some(first),
            last: Some(last),
            frame: None,
        }
    }

    fn refusal(source: &Source, reason: GapReason, refusals: &Refusals) -> Self {
        Self {
            source: source.clone(),
            reason,
            count: refusals.count,
            first: Some(refusals.first),
            last: Some(refusals.last),
            frame: (refusals.count == 1).then(|| refusals.frame.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source { line: "l".parse().unwrap(), station: "s".parse().unwrap(), camera: "c".parse().unwrap() }
    }

    fn ranges(gaps: &[SettledGap]) -> Vec<(u64, u64)> {
        gaps.iter().map(|gap| (gap.first.unwrap(), gap.last.unwrap())).collect()
    }

    #[test]
    fn a_jump_becomes_a_gap_after_it_settled_and_late_frames_fill_it() {
        let (mut tracker, start) = (GapTracker::default(), Instant::now());
        for counter in [10, 11, 16, 13] {
            tracker.arrived(&source(), counter, start);
        }
        assert_eq!(tracker.take_settled(Some(start)), []);
        let settled = tracker.take_settled(Some(start + SETTLE));
        assert_eq!(ranges(&settled), [(12, 12), (14, 15)]);
        assert_eq!(settled[1].count, 2);
        assert_eq!(tracker.take_settled(None), []);
    }

    #[test]
    fn frames_that_only_overtook_each_other_leave_no_gap() {
        let (mut tracker, start) = (GapTracker::default(), Instant::now());
        for counter in [1, 4, 2, 3, 5, 5] {
            tracker.arrived(&source(), counter, start);
        }
        assert_eq!(tracker.take_settled(None), []);
    }

    #[test]
    fn the_counter_is_followed_across_a_restart_of_the_service_and_of_the_camera() {
        let (mut tracker, start) = (GapTracker::default(), Instant::now());
        tracker.resume(source(), 9_999);
        tracker.arrived(&source(), 10_001, start);
        assert_eq!(ranges(&tracker.take_settled(None)), [(10_000, 10_000)]);
        tracker.arrived(&source(), 1, start);
        tracker.arrived(&source(), 2, start);
        assert_eq!(tracker.take_settled(None), []);
    }

    #[test]
    fn refusals_with_other_frames_between_them_are_gaps_of_their_own() {
        let (mut tracker, start) = (GapTracker::default(), Instant::now());
        let frame: FrameId = "f".parse().unwrap();
        for counter in [5, 9, 6, 8] {
            tracker.refused(&source(), GapReason::Overload, counter, &frame, start);
        }
        assert_eq!(ranges(&tracker.take_settled(None)), [(5, 6), (8, 9)]);
        for counter in (0..).step_by(2).take(RANGES_MAX + 1) {
            tracker.refused(&source(), GapReason::Overload, counter, &frame, start);
        }
        assert_eq!(ranges(&tracker.take_settled(Some(start))), [(0, 0)], "the oldest makes room");
    }

    #[test]
    fn a_period_takes_what_is_open_up_to_its_last_counter() {
        let (mut tracker, start) = (GapTracker::default(), Instant::now());
        for counter in [1, 4, 8] {
            tracker.arrived(&source(), counter, start);
        }
        tracker.refused(&source(), GapReason::BadFrame, 8, &"f".parse().unwrap(), start);
        let other = Source { camera: "other".parse().unwrap(), ..source() };
        tracker.arrived(&other, 1, start);
        tracker.arrived(&other, 3, start);
        assert_eq!(ranges(&tracker.take_now(&source(), 4)), [(2, 3), (8, 8)]);
        assert_eq!(tracker.take_settled(None).len(), 2, "later counters, and those of other cameras, go on waiting");
    }

    #[test]
    fn a_burst_of_refusals_is_one_entry_with_its_count() {
        let (mut tracker, start) = (GapTracker::default(), Instant::now());
        let frame: FrameId = "f".parse().unwrap();
        for counter in [5, 6, 7] {
            tracker.refused(&source(), GapReason::Overload, counter, &frame, start);
        }
        tracker.refused(&source(), GapReason::BadFrame, 8, &frame, start);
        let mut settled = tracker.take_settled(None);
        settled.sort_by_key(|gap| gap.first);
        assert_eq!((settled[0].count, settled[0].first, settled[0].last), (3, Some(5), Some(7)));
        assert_eq!((settled[0].frame.clone(), settled[1].frame.clone()), (None, Some(frame)));
    }
}
