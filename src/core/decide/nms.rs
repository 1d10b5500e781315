//! Non-maximum suppression: of boxes that lie over each other, the one with the highest score stays.
//!
//! Greedy and by label, as `torchvision.ops.nms` does it and in its arithmetic: 32-bit floats, a box is suppressed when
//! its intersection over union with a kept box is *above* the limit. Equal scores are taken in the order of the model's
//! output, so the same output keeps the same boxes on every machine. `tests/vectors/nms.json` holds what torchvision kept.

/// A box that may be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub label: u16,
    pub score: f32,
    /// Where it stands in the model's output.
    pub position: u32,
    /// Left, top, right, bottom in pixels of the model's input; right is above left, and bottom above top.
    pub corners: [f32; 4],
}

impl Candidate {
    fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.corners;
        (right - left) * (bottom - top)
    }
}

/// What two boxes have in common.
fn intersection(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    width * height
}

/// By label, the highest score first, then the first of the output.
pub(super) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(|a, b| {
        a.label.cmp(&b.label).then(b.score.total_cmp(&a.score)).then(a.position.cmp(&b.position))
    });
}

/// Adds to `kept` what stays of `candidates`, which are [sorted](sort): of each label the first `considered` are looked at
/// and at most `most` are kept. With `iou_max` of `None` nothing is suppressed.
pub(super) fn suppress(
    candidates: &[Candidate],
    iou_max: Option<f32>,
    considered: usize,
    most: usize,
    kept: &mut Vec<Candidate>,
) {
    for of_label in candidates.chunk_by(|a, b| a.label == b.label) {
        let start = kept.len();
        for candidate in of_label.iter().take(considered) {
            if kept.len() - start == most {
                break;
            }
            let area = candidate.area();
            let is_suppressed = |limit: f32| {
                kept[start..].iter().any(|kept| {
                    let common = intersection(kept.corners, candidate.corners);
                    common / (kept.area() + area - common) > limit
                })
            };
            if !iou_max.is_some_and(is_suppressed) {
                kept.push(*candidate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        /// Bits of 32-bit floats: left, top, right, bottom, score.
        boxes: Vec<[u32; 5]>,
        labels: Vec<u16>,
        iou_max: u32,
        /// Positions kept, label by label.
        kept: Vec<u32>,
    }

    fn kept(mut candidates: Vec<Candidate>, iou_max: f32) -> Vec<u32> {
        sort(&mut candidates);
        let mut kept = Vec::new();
        suppress(&candidates, Some(iou_max), usize::MAX, usize::MAX, &mut kept);
        kept.iter().map(|candidate| candidate.position).collect()
    }

    fn candidate(label: u16, score: f32, position: u32, corners: [f32; 4]) -> Candidate {
        Candidate { label, score, position, corners }
    }

    #[test]
    fn the_boxes_that_torchvision_keeps_are_kept() {
        let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../tests/vectors/nms.json")).unwrap();
        assert!(vectors.len() > 20);
        for vector in vectors {
            let candidates = vector.boxes.iter().zip(&vector.labels).enumerate().map(|(position, (bits, label))| {
                let [left, top, right, bottom, score] = bits.map(f32::from_bits);
                candidate(*label, score, position as u32, [left, top, right, bottom])
            });
            let found = kept(candidates.collect(), f32::from_bits(vector.iou_max));
            assert_eq!(found, vector.kept, "{}", vector.name);
        }
    }

    #[test]
    fn of_equal_scores_the_first_of_the_output_stays() {
        let same = [0.0, 0.0, 10.0, 10.0];
        let boxes = vec![candidate(0, 0.5, 2, same), candidate(0, 0.5, 1, same), candidate(1, 0.5, 0, same)];
        assert_eq!(kept(boxes, 0.5), [1, 0]);
    }

    #[test]
    fn a_box_exactly_at_the_limit_stays() {
        // Two boxes of 10x10 that share a third of their union.
        let boxes = || vec![candidate(0, 0.9, 0, [0.0, 0.0, 10.0, 10.0]), candidate(0, 0.8, 1, [5.0, 0.0, 15.0, 10.0])];
        assert_eq!(kept(boxes(), 50.0 / 150.0), [0, 1]);
        assert_eq!(kept(boxes(), (50.0_f32 / 150.0).next_down()), [0]);
    }

    #[test]
    fn no_more_than_the_most_are_kept_of_each_label_and_never_its_best_box_lost() {
        let apart = |at: u32| [at as f32 * 20.0, 0.0, at as f32 * 20.0 + 10.0, 10.0];
        let mut boxes: Vec<_> = (0..30).map(|at| candidate((at % 2) as u16, at as f32, at, apart(at))).collect();
        sort(&mut boxes);
        let mut found = Vec::new();
        suppress(&boxes, Some(0.5), 10, 3, &mut found);
        assert_eq!(found.iter().map(|found| found.position).collect::<Vec<_>>(), [28, 26, 24, 29, 27, 25]);
    }

    proptest! {
        #[test]
        fn the_order_in_which_candidates_were_gathered_does_not_matter(
            boxes in prop::collection::vec((0_u16..3, 0_u8..4, 0_u8..20, 0_u8..20, 1_u8..20, 1_u8..20), 0..40),
            seed: u64,
        ) {
            let made = |(position, (label, score, x, y, width, height)): (usize, &(u16, u8, u8, u8, u8, u8))| {
                let [x, y, right, bottom] = [*x, *y, x + width, y + height].map(f32::from);
                candidate(*label, f32::from(*score) / 4.0, position as u32, [x, y, right, bottom])
            };
            let boxes: Vec<_> = boxes.iter().enumerate().map(made).collect();
            let mut shuffled = boxes.clone();
            shuffled.sort_by_key(|one| (u64::from(one.position) + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(kept(boxes, 0.4), kept(shuffled, 0.4));
        }
    }
}
