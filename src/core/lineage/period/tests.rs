//! What a close must say, and how a ledger catches one that lies.

use super::{super::entry::ENTRY_VERSION, *};

/// A close as the line `l`, station `s`, camera `c` announces it; the balance is filled in by hand.
pub(crate) fn close(first: u64, last: u64) -> PeriodClose {
    PeriodClose {
        announced: Announced {
            first,
            frames_per_part: None,
            from: None,
            last,
            lost: Vec::new(),
            parts: None,
            period: format!("p{first}").parse().unwrap(),
            restarted: false,
            to: None,
            unseen: None,
        },
        camera: "c".parse().unwrap(),
        clock: ClockState::Free,
        corrects: None,
        decided: last - first + 1,
        end: 0,
        gaps: 0,
        kind: PeriodCloseKind::Kind,
        line: "l".parse().unwrap(),
        lost_frames: 0,
        missing: Vec::new(),
        missing_frames: 0,
        previous: None,
        private: Commitments::default(),
        since: 0,
        station: "s".parse().unwrap(),
        time: "2026-11-25T06:00:00Z".parse().unwrap(),
        v: ENTRY_VERSION,
    }
}

fn range(first: u64, last: u64) -> CounterRange {
    CounterRange { first, last }
}

/// A log of one camera: takes marks and writes honest closes.
#[derive(Default)]
struct Log {
    ledger: Ledger,
    size: u64,
    marks: Vec<(u64, Mark)>,
    closes: Vec<(u64, PeriodClose)>,
}

impl Log {
    fn take(&mut self, mark: Mark) -> Result<(), PeriodFault> {
        self.size += 1;
        self.ledger.take(self.size - 1, close(1, 1).place(), mark)
    }

    fn frames(&mut self, counters: impl IntoIterator<Item = u64>) {
        for counter in counters {
            self.marks.push((self.size, Mark::Decided(counter)));
            self.take(Mark::Decided(counter)).unwrap();
        }
    }

    fn gap(&mut self, first: u64, last: u64) {
        self.marks.push((self.size, Mark::Gap(first, last)));
        self.take(Mark::Gap(first, last)).unwrap();
    }

    /// The close an honest service would write now.
    fn honest(&self, announced: Announced) -> PeriodClose {
        let end = |back: usize| self.closes.iter().rev().nth(back).map_or(0, |(_, close)| close.end);
        let since = if announced.restarted { end(0) } else { end(1) };
        let mut counters = Counters::default();
        self.marks.iter().filter(|(at, _)| *at >= since).for_each(|(_, mark)| counters.add(mark));
        let balance = counters.balance(&announced);
        PeriodClose {
            decided: balance.decided,
            gaps: balance.gaps,
            lost_frames: balance.lost_frames,
            missing: balance.missing,
            missing_frames: balance.missing_frames,
            since,
            end: self.size,
            previous: self.closes.last().map(|(index, _)| EntryIndex(*index)),
            announced,
            ..close(1, 1)
        }
    }

    fn close(&mut self, announced: Announced) -> PeriodClose {
        let close = self.honest(announced);
        let index = self.size;
        self.take(Mark::Close(Box::new(close.clone()))).unwrap();
        self.closes.push((index, close.clone()));
        close
    }
}

fn announced(first: u64, last: u64) -> Announced {
    close(first, last).announced
}

#[test]
fn frames_are_decided_noted_as_gaps_called_lost_or_missing() {
    let mut log = Log::default();
    log.frames([1, 2, 3, 6, 7]);
    log.gap(3, 5);
    let close = log.close(Announced { lost: vec![range(5, 8)], ..announced(1, 10) });
    assert_eq!((close.decided, close.gaps, close.lost_frames, close.missing_frames), (5, 2, 1, 2));
    assert_eq!(close.missing, [range(9, 10)]);
    assert!(!close.is_complete());
    let incomplete = log.ledger.incomplete();
    assert_eq!((incomplete.len(), incomplete[0].missing_frames), (1, 2));
    assert_eq!(log.ledger.totals().frames, 10);
}

#[test]
fn frames_that_came_before_the_line_announced_them_count_for_the_next_period() {
    let mut log = Log::default();
    log.frames(1..=12);
    assert_eq!(log.close(announced(1, 10)).decided, 10);
    log.frames(13..=20);
    assert_eq!(log.close(announced(11, 20)).decided, 10);
    log.frames(21..=25);
    assert_eq!(log.close(announced(21, 25)).since, 12, "entries before the first close are settled");
    assert_eq!(log.ledger.incomplete(), []);
}

#[test]
fn a_counter_that_starts_anew_begins_a_period_that_counts_nothing_older() {
    let mut log = Log::default();
    log.frames(1..=10);
    log.close(announced(1, 10));
    log.frames([1, 2, 4]);
    let close = log.close(Announced { restarted: true, ..announced(1, 4) });
    assert_eq!(
        (close.decided, close.missing),
        (3, vec![range(3, 3)]),
        "the old frame 3 does not stand for the new one"
    );
}

#[test]
fn what_the_line_corrects_replaces_what_it_said() {
    let mut log = Log::default();
    log.frames(1..=8);
    let close = log.close(announced(1, 10));
    assert_eq!(log.ledger.incomplete().len(), 1);
    let index = log.size;
    let corrected = PeriodClose {
        announced: Announced { lost: vec![range(9, 10)], ..close.announced.clone() },
        corrects: Some(EntryIndex(index - 1)),
        lost_frames: 2,
        missing: Vec::new(),
        missing_frames: 0,
        ..close
    };
    let other = PeriodClose { decided: 9, lost_frames: 1, ..corrected.clone() };
    assert_eq!(log.take(Mark::Close(Box::new(other))), Err(PeriodFault::Correction));
    log.take(Mark::Close(Box::new(corrected))).unwrap();
    assert_eq!(log.ledger.incomplete(), []);
    assert_eq!(log.ledger.totals().periods, 1);
}

#[test]
fn every_lie_about_the_entries_is_found() {
    let lies: [(fn(&mut PeriodClose), PeriodFault); 9] = [
        (|close| (close.decided, close.missing_frames, close.missing) = (10, 0, Vec::new()), PeriodFault::Counts),
        (|close| (close.gaps, close.missing_frames, close.missing) = (1, 0, Vec::new()), PeriodFault::Counts),
        (|close| close.missing = vec![range(12, 12)], PeriodFault::Counts),
        (|close| close.missing_frames = 0, PeriodFault::Sum),
        (|close| close.since = 1, PeriodFault::Window),
        (|close| close.end += 2, PeriodFault::Window),
        (|close| close.previous = None, PeriodFault::Chain),
        (|close| (close.announced.first, close.decided) = (12, 8), PeriodFault::Chain),
        (|close| close.announced.parts = Some(u64::MAX), PeriodFault::Parts),
    ];
    for (at, (lie, fault)) in lies.into_iter().enumerate() {
        let mut log = Log::default();
        log.frames(1..=10);
        log.close(announced(1, 10));
        log.frames((11..=20).filter(|counter| *counter != 15));
        let mut close = log.honest(announced(11, 20));
        lie(&mut close);
        assert_eq!(log.take(Mark::Close(Box::new(close))), Err(fault), "lie {at}");
    }
}

#[test]
fn parts_the_plc_counted_must_be_frames_or_be_called_unseen() {
    let mut short = announced(1, 98);
    short.parts = Some(100);
    assert_eq!(short.frames_short(), 2);
    short.unseen = Some(2);
    assert_eq!((short.check(), short.frames_short()), (Ok(()), 0));
    let two_views = Announced { frames_per_part: Some(2), parts: Some(50), ..announced(1, 99) };
    assert_eq!(two_views.frames_short(), 1);
    assert_eq!(Announced { unseen: Some(1), ..announced(1, 2) }.check(), Err(PeriodFault::Parts));
}

#[test]
fn a_gap_that_stands_for_fewer_frames_than_its_range_explains_none() {
    let gap = |count| {
        let text = format!(
            r#"{{"camera":"c","clock":"free","count":{count},"first":3,"kind":"gap","last":5,"line":"l","reason":"overload","station":"s","time":"2026-11-25T06:00:00.000000000Z","v":2}}"#
        );
        Mark::of(&Entry::parse(text.as_bytes()).unwrap()).map(|(_, mark)| mark)
    };
    assert_eq!(gap(2), None);
    assert_eq!(gap(3), Some(Mark::Gap(3, 5)));
}

#[test]
fn the_longest_close_fits_an_entry() {
    let far = COUNTER_MAX - 1000;
    let ranges = |from: u64| (0..RANGES_MAX as u64).map(|n| range(from + n * 4, from + n * 4 + 1)).collect::<Vec<_>>();
    let mut close = close(far, COUNTER_MAX);
    close.announced.lost = ranges(far);
    close.missing = ranges(far + 500);
    close.line = "l".repeat(64).parse().unwrap();
    let bytes = Entry::PeriodClose(Box::new(close)).encode().unwrap();
    assert!(bytes.len() < 7000, "{} bytes", bytes.len());
}
