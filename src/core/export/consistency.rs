//! Whether a decision entry agrees with itself: verdict, scores, thresholds and reasons tell one story.

use super::table::deciding_label;
use crate::{
    core::lineage::entry::{Decision, LabelRecord},
    types::{Bounds, Score, Verdict},
};

/// In what a decision contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    #[error("its comparator is {0:?}, neither `>=` nor `>`")]
    Comparator(String),
    #[error("label {0:?} has one threshold without the other, or review above reject")]
    Thresholds(String),
    #[error("its decision score is {found}, the largest defect score is {largest}")]
    Score { found: Score, largest: Score },
    #[error("its scores and thresholds give {expected}, it says {found}, and no reason explains that")]
    Verdict { expected: Verdict, found: Verdict },
    #[error("label {0:?} was found in no box, in a box of no pixel or in one beyond the image")]
    Place(String),
    #[error("none of its labels is a defect")]
    NoDefect,
    #[error("its reason {0:?} does not follow from its scores and thresholds")]
    Reason(String),
}

/// Checks one decision against the rules of `docs/spec/recipe.md`, with the thresholds it carries itself.
///
/// # Errors
/// The first [`Contradiction`].
pub fn check(decision: &Decision) -> Result<(), Contradiction> {
    let exceeds: fn(Score, Score) -> bool = match decision.scores.comparator.as_str() {
        ">=" => |score, threshold| score >= threshold,
        ">" => |score, threshold| score > threshold,
        other => return Err(Contradiction::Comparator(other.chars().take(8).collect())),
    };
    let mut expected = Verdict::Ok;
    for label in &decision.scores.labels {
        check_place(decision, label)?;
        match (label.review, label.reject) {
            (Some(review), Some(reject)) if review <= reject => {
                expected = expected.max(verdict_of(label.score, review, reject, exceeds));
            }
            (None, None) => {}
            _ => return Err(Contradiction::Thresholds(label.label.clone())),
        }
    }
    let largest = deciding_label(decision).ok_or(Contradiction::NoDefect)?.score;
    if largest != decision.scores.decision {
        return Err(Contradiction::Score { found: decision.scores.decision, largest });
    }
    for reason in &decision.reasons {
        check_reason(decision, reason, exceeds)?;
    }
    // Failed quality bounds and unsure classifications send any part to a person.
    if decision.reasons.iter().any(|reason| sends_to_a_person(reason)) {
        expected = Verdict::NotDecidable;
    }
    // So may reasons of a later release; nothing unknown ever makes a part OK or NOT_OK.
    let unknown = |reason: &String| threshold_reason(reason).is_none() && !sends_to_a_person(reason);
    let sent_to_a_person = decision.verdict == Verdict::NotDecidable && decision.reasons.iter().any(unknown);
    if decision.verdict == expected || sent_to_a_person {
        Ok(())
    } else {
        Err(Contradiction::Verdict { expected, found: decision.verdict })
    }
}

/// The box that gave a score lies in the image, and is there exactly if boxes were found.
fn check_place(decision: &Decision, label: &LabelRecord) -> Result<(), Contradiction> {
    let image = &decision.image;
    let is_in_image = |at: Bounds| {
        let fits =
            |start: u32, side: u32, whole: u32| side > 0 && u64::from(start) + u64::from(side) <= u64::from(whole);
        fits(at.x_px, at.width_px, image.width) && fits(at.y_px, at.height_px, image.height)
    };
    let is_right =
        label.at.is_none_or(is_in_image) && label.boxes.is_none_or(|boxes| (boxes > 0) == label.at.is_some());
    if is_right { Ok(()) } else { Err(Contradiction::Place(label.label.clone())) }
}

/// A reason of this release that sends a part to a person whatever its scores say.
fn sends_to_a_person(reason: &str) -> bool {
    reason.starts_with("quality:") || reason == "top_score_min"
}

fn verdict_of(score: Score, review: Score, reject: Score, exceeds: fn(Score, Score) -> bool) -> Verdict {
    if exceeds(score, reject) {
        Verdict::NotOk
    } else if exceeds(score, review) {
        Verdict::NotDecidable
    } else {
        Verdict::Ok
    }
}

/// The threshold and label that a reason `reject:<label>` or `review:<label>` speaks of.
fn threshold_reason(reason: &str) -> Option<(Verdict, &str)> {
    let (code, label) = reason.split_once(':')?;
    match code {
        "reject" => Some((Verdict::NotOk, label)),
        "review" => Some((Verdict::NotDecidable, label)),
        _ => None,
    }
}

fn check_reason(decision: &Decision, reason: &str, exceeds: fn(Score, Score) -> bool) -> Result<(), Contradiction> {
    let Some((verdict, name)) = threshold_reason(reason) else { return Ok(()) };
    let follows = |label: &LabelRecord| {
        let thresholds = label.review.zip(label.reject);
        label.label == name
            && thresholds.is_some_and(|(review, reject)| verdict_of(label.score, review, reject, exceeds) == verdict)
    };
    if decision.scores.labels.iter().any(follows) { Ok(()) } else { Err(Contradiction::Reason(reason.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::entry::tests::decision;

    #[test]
    fn a_decision_that_follows_from_its_scores_passes() {
        assert_eq!(check(&decision(1)), Ok(()));
    }

    #[test]
    fn a_verdict_better_than_its_scores_is_found() {
        let lie = Decision { verdict: Verdict::Ok, reasons: Vec::new(), ..decision(1) };
        let expected = Contradiction::Verdict { expected: Verdict::NotOk, found: Verdict::Ok };
        assert_eq!(check(&lie), Err(expected));
        let unexplained = Decision { verdict: Verdict::NotDecidable, ..decision(1) };
        assert!(matches!(check(&unexplained), Err(Contradiction::Verdict { .. })));
        let quality = Decision {
            verdict: Verdict::NotDecidable,
            reasons: vec!["quality:focus".into(), "reject:scratch".into()],
            ..decision(1)
        };
        assert_eq!(check(&quality), Ok(()));
        let in_spite = Decision { verdict: Verdict::NotOk, ..quality };
        assert!(matches!(check(&in_spite), Err(Contradiction::Verdict { expected: Verdict::NotDecidable, .. })));
    }

    #[test]
    fn the_comparator_decides_at_the_threshold() {
        let mut at_threshold = decision(1);
        at_threshold.scores.labels[0].score = at_threshold.scores.labels[0].reject.unwrap();
        at_threshold.scores.decision = at_threshold.scores.labels[0].score;
        assert_eq!(check(&at_threshold), Ok(()));
        at_threshold.scores.comparator = ">".into();
        assert_eq!(check(&at_threshold), Err(Contradiction::Reason("reject:scratch".into())));
        at_threshold.scores.comparator = "=".into();
        assert!(matches!(check(&at_threshold), Err(Contradiction::Comparator(_))));
    }

    #[test]
    fn what_was_found_lies_in_the_image_and_is_counted() {
        let bounds = |x_px, y_px, width_px, height_px| Some(Bounds { height_px, width_px, x_px, y_px });
        let with = |at, boxes| {
            let mut decision = decision(1);
            decision.scores.labels[0].at = at;
            decision.scores.labels[0].boxes = boxes;
            check(&decision)
        };
        // The image has 512x512 px.
        for (at, boxes) in [(bounds(0, 0, 512, 512), Some(1)), (bounds(511, 511, 1, 1), None), (None, Some(0))] {
            assert_eq!(with(at, boxes), Ok(()));
        }
        for (at, boxes) in [
            (bounds(1, 0, 512, 512), Some(1)),
            (bounds(0, u32::MAX, 1, 1), Some(1)),
            (bounds(0, 0, 0, 1), Some(1)),
            (bounds(0, 0, 1, 1), Some(0)),
            (None, Some(1)),
        ] {
            assert_eq!(with(at, boxes), Err(Contradiction::Place("scratch".into())), "{at:?} {boxes:?}");
        }
    }

    #[test]
    fn scores_and_thresholds_must_fit_each_other() {
        let mut other_score = decision(1);
        other_score.scores.decision = Score::ZERO;
        assert!(matches!(check(&other_score), Err(Contradiction::Score { .. })));
        let mut half = decision(1);
        half.scores.labels[0].review = None;
        assert!(matches!(check(&half), Err(Contradiction::Thresholds(_))));
        half.scores.labels.clear();
        assert_eq!(check(&half), Err(Contradiction::NoDefect));
    }
}
