//! Holds a decision against what came out when it was decided again. The rules are `docs/spec/replay.md`.

use super::{
    frame::{FrameFormat, RawLayout},
    lineage::{
        entry::{Decision, ImageRecord, LabelRecord, QualityRecord, ScoresRecord},
        replay::Outcome,
    },
};
use crate::types::{Blake3Digest, Score, Verdict};

/// Strides that are tried for one raw frame.
const STRIDES_MAX: usize = 64;

/// What came out the second time.
#[derive(Clone, Debug)]
pub struct Again {
    pub pixels: Blake3Digest,
    pub quality: QualityRecord,
    pub reasons: Vec<String>,
    pub scores: ScoresRecord,
    pub verdict: Verdict,
}

/// The outcome, and the largest difference of any score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    pub outcome: Outcome,
    pub largest: Score,
}

/// Compares the second time with the first.
#[must_use]
pub fn compare(recorded: &Decision, again: &Again, eps: Score) -> Compared {
    let (old, new) = (&recorded.scores, &again.scores);
    let pairs = old.labels.iter().zip(&new.labels).map(|(old, new)| (old.score, new.score));
    let largest = pairs
        .chain([(old.decision, new.decision)])
        .map(|(old, new)| difference(old, new))
        .max()
        .expect("there is the decision score at least");
    let is_same_rule = |(old, new): (&LabelRecord, &LabelRecord)| {
        (&old.label, old.reject, old.review) == (&new.label, new.reject, new.review)
    };
    let same_rules = old.comparator == new.comparator
        && old.labels.len() == new.labels.len()
        && old.labels.iter().zip(&new.labels).all(is_same_rule);
    let same_verdict = recorded.verdict == again.verdict && recorded.reasons == again.reasons;
    let same_bits = old == new && recorded.image.pixels == again.pixels && recorded.quality == again.quality;
    let outcome = match same_rules && same_verdict {
        true if same_bits => Outcome::Exact,
        true if largest <= eps => Outcome::Within,
        _ => Outcome::Differs,
    };
    Compared { outcome, largest }
}

/// `|a - b| / max(1, |a|)`: scores are shares or probabilities mostly, and distances sometimes.
#[must_use]
pub fn difference(recorded: Score, again: Score) -> Score {
    let (a, b) = (f64::from(recorded.get()), f64::from(again.get()));
    #[expect(clippy::cast_possible_truncation, reason = "at most the largest f32 plus one, which rounds to it")]
    let difference = ((a - b).abs() / a.abs().max(1.0)) as f32;
    Score::new(difference).expect("two finite scores differ by a finite amount")
}

/// The layouts that a raw frame of this record may have had, likeliest first; none for an encoded image.
#[must_use]
pub fn layouts(image: &ImageRecord) -> Vec<RawLayout> {
    let Ok(FrameFormat::Raw(format)) = image.format.parse() else { return Vec::new() };
    let (width_px, height_px) = (image.width, image.height);
    let tight = RawLayout { format, width_px, height_px, stride_bytes: None };
    let (row, rows, bytes) = (tight.row_bytes(), u64::from(height_px.max(1)), image.bytes);
    if bytes == row * rows {
        return vec![tight];
    }
    // Every row has its padding, or every row but the last has, or the last has a part of it.
    let least = bytes.div_ceil(rows).max(row);
    let most = if rows == 1 { least } else { bytes.saturating_sub(row) / (rows - 1) };
    let whole = [bytes / rows, most].into_iter().filter(|stride| {
        (least..=most).contains(stride) && (stride * rows == bytes || stride * (rows - 1) + row == bytes)
    });
    let mut strides: Vec<u64> = Vec::new();
    for stride in whole.chain(least..=most).take(STRIDES_MAX) {
        if !strides.contains(&stride) {
            strides.push(stride);
        }
    }
    let layout = |stride: u64| Some(RawLayout { stride_bytes: Some(u32::try_from(stride).ok()?), ..tight });
    strides.into_iter().filter_map(layout).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::{
        entry::{Entry, tests::decision},
        replay::EPS,
    };

    fn again(recorded: &Decision) -> Again {
        Again {
            pixels: recorded.image.pixels,
            quality: recorded.quality.clone(),
            reasons: recorded.reasons.clone(),
            scores: recorded.scores.clone(),
            verdict: recorded.verdict,
        }
    }

    fn recorded() -> Decision {
        match Entry::parse(&decision(1).encode().unwrap()).unwrap() {
            Entry::Decision(decision) => *decision,
            other => panic!("{other:?}"),
        }
    }

    fn score(value: f32) -> Score {
        Score::new(value).unwrap()
    }

    #[test]
    fn the_outcome_is_exact_within_or_different() {
        let (recorded, eps) = (recorded(), score(EPS));
        let outcome = |again: &Again| compare(&recorded, again, eps).outcome;
        let same = again(&recorded);
        assert_eq!(compare(&recorded, &same, eps), Compared { outcome: Outcome::Exact, largest: Score::ZERO });

        let mut near = same.clone();
        near.scores.labels[0].score = score(near.scores.labels[0].score.get() + 1e-6);
        assert_eq!(outcome(&near), Outcome::Within);
        let mut far = same.clone();
        far.scores.labels[0].score = score(far.scores.labels[0].score.get() + 1e-4);
        assert_eq!(outcome(&far), Outcome::Differs);
        let mut pixels = same.clone();
        pixels.pixels = Blake3Digest([9; 32]);
        assert_eq!(outcome(&pixels), Outcome::Within, "another decoder, the same scores");
        let mut verdict = near.clone();
        verdict.verdict = if recorded.verdict == Verdict::Ok { Verdict::NotOk } else { Verdict::Ok };
        assert_eq!(outcome(&verdict), Outcome::Differs, "a score at its threshold");
        let mut rule = same.clone();
        rule.scores.labels[0].reject = Some(score(0.123));
        assert_eq!(outcome(&rule), Outcome::Differs, "another threshold");
        let mut fewer = same;
        fewer.scores.labels.pop();
        assert_eq!(outcome(&fewer), Outcome::Differs);
    }

    #[test]
    fn differences_are_absolute_for_shares_and_relative_for_distances() {
        assert_eq!(difference(score(0.25), score(0.5)), score(0.25));
        assert_eq!(difference(score(100.0), score(101.0)), score(0.01));
        assert_eq!(difference(score(f32::MAX), score(-f32::MAX)), score(2.0));
        assert_eq!(difference(score(0.0), score(f32::MAX)), score(f32::MAX));
    }

    #[test]
    fn the_stride_of_a_raw_frame_is_among_those_its_length_allows() {
        let image = |format: &str, width, height, bytes| ImageRecord {
            format: format.into(),
            width,
            height,
            bytes,
            ..recorded().image
        };
        let strides = |format: &str, width, height, bytes| -> Vec<Option<u32>> {
            layouts(&image(format, width, height, bytes)).iter().map(|layout| layout.stride_bytes).collect()
        };
        assert_eq!(strides("png", 10, 10, 100), []);
        assert_eq!(strides("Mono8", 10, 10, 100), [None]);
        assert_eq!(strides("Mono8", 10, 10, 160), [Some(16)], "every row is padded");
        assert_eq!(strides("Mono8", 10, 10, 154), [Some(16)], "the last row is not");
        assert_eq!(strides("Mono12p", 10, 4, 64), [Some(16)]);
        assert_eq!(strides("Mono8", 10, 1, 16), [Some(16)], "one row: all strides give the same pixels");
        let ambiguous = strides("Mono8", 10, 2, 40);
        assert_eq!(ambiguous[..2], [Some(20), Some(30)], "{ambiguous:?}");
        assert!(ambiguous.len() == 11 && (20..=30).all(|stride| ambiguous.contains(&Some(stride))));
        assert!(strides("Mono8", 10, 2, 20_000).len() <= STRIDES_MAX);
        assert_eq!(strides("Mono8", 10, 10, 50), [], "too short for any");
    }
}
