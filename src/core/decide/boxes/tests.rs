//! From the layouts that exporters write to boxes on the frame, and from those to a verdict.

use proptest::prelude::*;

use super::{
    super::{
        Bounds, Decider, Judged, Reason,
        tests::{bounds, defect, outputs, recipe, run, score, sharp, within},
    },
    *,
};
use crate::{
    core::recipe::{Activation, Fit, OutputKind, Recipe},
    types::Verdict,
};

fn detection(layout: BoxLayout) -> Detection {
    let iou_max = (layout != BoxLayout::Nms).then_some(0.45);
    Detection { layout, box_labels: BoxLabels::Best, score_min: 0.1, iou_max, boxes_max: 10, side_px_min: 1 }
}

/// Two labels, an input of 8x8.
fn detector(detection: Detection) -> Recipe {
    let labels = vec![defect("scratch", 0.3, 0.6), defect("dent", 0.3, 0.6)];
    recipe(OutputKind::Detection(detection), Activation::None, labels)
}

/// The same rows as each layout writes them; centre and size are x, y, width, height, then a score per label.
fn tensor(layout: BoxLayout, rows: &[[f32; 6]]) -> (Vec<usize>, Vec<f32>) {
    match layout {
        BoxLayout::YoloV8 => {
            let values = (0..6).flat_map(|column| rows.iter().map(move |row| row[column])).collect();
            (vec![1, 6, rows.len()], values)
        }
        BoxLayout::YoloV5 => {
            // Objectness of a half: the labels hold the double.
            let values = rows.iter().flat_map(|[x, y, w, h, a, b]| [*x, *y, *w, *h, 0.5, a * 2.0, b * 2.0]).collect();
            (vec![1, rows.len(), 7], values)
        }
        BoxLayout::Nms => {
            let row = |[x, y, w, h, a, b]: &[f32; 6]| {
                let (score, label) = if b > a { (*b, 1.0) } else { (*a, 0.0) };
                [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0, score, label]
            };
            (vec![1, rows.len(), 6], rows.iter().flat_map(row).collect())
        }
    }
}

fn judged(detection: Detection, rows: &[[f32; 6]]) -> Judged {
    let (shape, values) = tensor(detection.layout, rows);
    run(&detector(detection), &outputs(&shape, &values)).unwrap()
}

const LAYOUTS: [BoxLayout; 3] = [BoxLayout::YoloV8, BoxLayout::YoloV5, BoxLayout::Nms];

#[test]
fn each_layout_gives_the_same_boxes_in_frame_pixels() {
    // On a frame of 80x40 one pixel of the 8x8 input is 10x5.
    let rows = [[2.0, 2.0, 2.0, 2.0, 0.7, 0.2], [6.0, 6.0, 1.0, 4.0, 0.1, 0.4], [7.0, 1.0, 1.0, 1.0, 0.05, 0.05]];
    for layout in LAYOUTS {
        let judged = judged(detection(layout), &rows);
        let reasons = [Reason::Reject("scratch".into()), Reason::Review("dent".into())];
        assert_eq!((judged.verdict, judged.reasons.as_slice()), (Verdict::NotOk, &reasons[..]), "{layout:?}");
        let [scratch, dent] = &judged.scores[..] else { panic!("two labels") };
        assert_eq!((scratch.score, scratch.boxes, scratch.at), (score(0.7), Some(1), Some(bounds(10, 5, 20, 10))));
        assert_eq!((dent.score, dent.boxes, dent.at), (score(0.4), Some(1), Some(bounds(55, 20, 10, 20))));
        assert_eq!(judged.areas[1].boxes, [DetectedBox { bounds: bounds(55, 20, 10, 20), score: score(0.4) }]);
    }
}

#[test]
fn a_frame_without_a_box_scores_zero_and_is_ok() {
    for layout in LAYOUTS {
        for rows in [&[][..], &[[4.0, 4.0, 4.0, 4.0, 0.09, 0.0]]] {
            let judged = judged(detection(layout), rows);
            assert_eq!((judged.verdict, judged.score), (Verdict::Ok, score(0.0)), "{layout:?}");
            assert_eq!((judged.scores[0].boxes, judged.scores[0].at), (Some(0), None));
        }
    }
}

#[test]
fn boxes_over_each_other_leave_the_best_one_of_each_label() {
    let rows = [
        [4.0, 4.0, 4.0, 4.0, 0.5, 0.0],
        [4.0, 4.5, 4.0, 4.0, 0.8, 0.0],
        [4.0, 4.0, 4.0, 4.0, 0.0, 0.7],
        [1.0, 1.0, 1.0, 1.0, 0.2, 0.0],
    ];
    for layout in [BoxLayout::YoloV8, BoxLayout::YoloV5] {
        let judged = judged(detection(layout), &rows);
        assert_eq!(judged.scores.iter().map(|score| score.boxes).collect::<Vec<_>>(), [Some(2), Some(1)]);
        let scores: Vec<_> = judged.areas[0].boxes.iter().map(|found| found.score).collect();
        assert_eq!(scores, [score(0.8), score(0.2)]);
    }
    // A graph that has suppressed is taken at its word.
    assert_eq!(judged(detection(BoxLayout::Nms), &rows).scores[0].boxes, Some(3));
}

#[test]
fn a_row_gives_a_box_of_its_best_label_or_of_every_label_that_is_high_enough() {
    let rows = [[4.0, 4.0, 4.0, 4.0, 0.5, 0.4], [1.0, 1.0, 1.0, 1.0, 0.4, 0.4]];
    for layout in [BoxLayout::YoloV8, BoxLayout::YoloV5] {
        let best = judged(detection(layout), &rows);
        // Of equal scores the first label.
        assert_eq!((best.scores[0].boxes, best.scores[1].boxes), (Some(2), Some(0)));
        let all = judged(Detection { box_labels: BoxLabels::All, ..detection(layout) }, &rows);
        assert_eq!((all.scores[0].boxes, all.scores[1].boxes), (Some(2), Some(2)));
    }
}

#[test]
fn small_boxes_count_by_what_lies_on_the_frame() {
    // The 80x40 frame fills rows 2 to 5 of a letterbox of 8x8: one input pixel is ten frame pixels.
    let mut recipe = detector(Detection { side_px_min: 10, ..detection(BoxLayout::YoloV8) });
    recipe.input.fit = Fit::Letterbox { pad: 114 };
    let rows = [
        // On the frame; wholly in the padding; two thirds in it; too narrow.
        [4.0, 4.0, 2.0, 2.0, 0.5, 0.0],
        [4.0, 1.0, 2.0, 1.9, 0.9, 0.0],
        [1.0, 1.5, 2.0, 3.0, 0.4, 0.0],
        [7.0, 4.0, 0.9, 4.0, 0.9, 0.0],
    ];
    let (shape, values) = tensor(BoxLayout::YoloV8, &rows);
    let judged = run(&recipe, &outputs(&shape, &values)).unwrap();
    let found: Vec<_> = judged.areas[0].boxes.iter().map(|found| found.bounds).collect();
    assert_eq!(found, [bounds(30, 10, 20, 20), bounds(0, 0, 20, 10)]);
}

#[test]
fn a_box_counts_if_enough_of_it_lies_in_the_region_and_others_suppress_nothing() {
    let mut recipe = detector(detection(BoxLayout::YoloV8));
    // The left half of the frame of 80x40 counts; one pixel of the 8x8 input is 10x5.
    let mut decider = within(&mut recipe, &[bounds(0, 0, 40, 40)], &[]);
    let rows = [
        // Wholly inside; half inside; less than half, and over the one before.
        [2.0, 2.0, 2.0, 2.0, 0.3, 0.0],
        [4.0, 6.0, 2.0, 2.0, 0.4, 0.0],
        [4.2, 6.0, 2.0, 2.0, 0.9, 0.0],
    ];
    let (shape, values) = tensor(BoxLayout::YoloV8, &rows);
    let judged = decider.decide(&recipe, None, &outputs(&shape, &values), &sharp(), (80, 40)).unwrap();
    let found: Vec<_> = judged.areas[0].boxes.iter().map(|found| (found.bounds, found.score)).collect();
    assert_eq!(found, [(bounds(30, 25, 20, 10), score(0.4)), (bounds(10, 5, 20, 10), score(0.3))]);
    recipe.region.as_mut().unwrap().box_share_min = Some(0.51);
    let judged = decider.decide(&recipe, None, &outputs(&shape, &values), &sharp(), (80, 40)).unwrap();
    assert_eq!((judged.verdict, judged.scores[0].boxes), (Verdict::NotDecidable, Some(1)));
}

#[test]
fn boxes_that_the_recipe_cannot_read_give_no_verdict() {
    let wrong = |layout, shape: &[usize], values: &[f32]| run(&detector(detection(layout)), &outputs(shape, values));
    for shape in [&[1, 7, 3][..], &[1, 3, 6], &[6, 3], &[2, 6, 3]] {
        let values = vec![0.0; shape.iter().product()];
        assert!(matches!(wrong(BoxLayout::YoloV8, shape, &values), Err(DecideError::Shape { .. })), "{shape:?}");
    }
    for class in [2.0, -1.0, 0.5, 1.0e9] {
        let refused = wrong(BoxLayout::Nms, &[1, 1, 6], &[0.0, 0.0, 4.0, 4.0, 0.9, class]).unwrap_err();
        assert!(matches!(refused, DecideError::Class { labels: 2, .. }), "{refused}");
        // Rows that are no box may be padded with anything.
        assert!(wrong(BoxLayout::Nms, &[1, 1, 6], &[0.0, 0.0, 4.0, 4.0, 0.0, class]).is_ok());
    }
    let infinite = [4.0, 4.0, 2.0, 2.0, f32::MAX, f32::MAX, 0.0];
    let refused = wrong(BoxLayout::YoloV5, &[1, 1, 7], &infinite).unwrap_err();
    assert_eq!(refused, DecideError::ScoreNotFinite { label: "scratch".into() });
    let rows = ROWS_MAX + 1;
    let refused = wrong(BoxLayout::Nms, &[1, rows, 6], &vec![0.0; 6 * rows]).unwrap_err();
    assert!(refused.to_string().contains("at most 524288 rows"), "{refused}");
}

#[test]
fn the_most_boxes_are_kept_of_each_label_by_itself() {
    // Twenty scratches must not push out the one dent that decides.
    let mut rows: Vec<[f32; 6]> =
        (0..20).map(|at| [(at % 8) as f32 + 0.5, (at / 8) as f32, 0.5, 0.5, 0.9, 0.0]).collect();
    rows.push([4.0, 6.0, 2.0, 2.0, 0.0, 0.61]);
    let judged = judged(detection(BoxLayout::YoloV8), &rows);
    assert_eq!((judged.scores[0].boxes, judged.scores[1].boxes), (Some(10), Some(1)));
    assert!(judged.reasons.contains(&Reason::Reject("dent".into())));
}

proptest! {
    #[test]
    fn the_fast_walk_over_labels_finds_what_a_plain_one_finds(
        rows in prop::collection::vec((1.0_f32..7.0, 1.0_f32..7.0, 1.0_f32..4.0, 1.0_f32..4.0, 0_u8..8, 0_u8..8), 0..200),
    ) {
        let rows: Vec<[f32; 6]> =
            rows.into_iter().map(|(x, y, w, h, a, b)| [x, y, w, h, f32::from(a) / 16.0, f32::from(b) / 16.0]).collect();
        let found = judged(Detection { boxes_max: 300, iou_max: Some(1.0), ..detection(BoxLayout::YoloV8) }, &rows);
        let mut expected = [0, 0];
        for [.., a, b] in &rows {
            if a.max(*b) >= 0.1 {
                expected[usize::from(b > a)] += 1;
            }
        }
        prop_assert_eq!([found.scores[0].boxes, found.scores[1].boxes], expected.map(Some));
        let every = Detection { box_labels: BoxLabels::All, boxes_max: 300, iou_max: Some(1.0), ..detection(BoxLayout::YoloV8) };
        let found = judged(every, &rows);
        let expected = [4, 5].map(|label| rows.iter().filter(|row| row[label] >= 0.1).count() as u32);
        prop_assert_eq!([found.scores[0].boxes, found.scores[1].boxes], expected.map(Some));
    }

    #[test]
    fn no_row_panics_and_every_box_lies_on_the_frame(
        values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 6..60),
        frame in (1_u32..5000, 1_u32..5000),
        letterbox: bool,
    ) {
        for layout in LAYOUTS {
            let columns = if layout == BoxLayout::YoloV5 { 7 } else { 6 };
            let rows = values.len() / columns;
            let shape = if layout == BoxLayout::YoloV8 { [1, columns, rows] } else { [1, rows, columns] };
            let mut recipe = detector(detection(layout));
            recipe.input.fit = if letterbox { Fit::Letterbox { pad: 0 } } else { Fit::Stretch };
            let outputs = outputs(&shape, &values[..rows * columns]);
            if let Ok(judged) = Decider::default().decide(&recipe, None, &outputs, &sharp(), frame) {
                for found in judged.areas.iter().flat_map(|area| &area.boxes) {
                    let Bounds { x_px, y_px, width_px, height_px } = found.bounds;
                    prop_assert!(width_px > 0 && x_px + width_px <= frame.0);
                    prop_assert!(height_px > 0 && y_px + height_px <= frame.1);
                }
            }
        }
    }
}
