//! The rules from scores to a verdict, one story each.

use proptest::prelude::*;

use super::{
    maps::score_of_map,
    values::{activate, calibrated, sigmoid, smallest_reaching},
    *,
};
use crate::core::recipe::{
    Colour, Comparator, Fit, FrameRules, Input, LabelPolicy, MapScore, Output, QualityBounds, Region, Resize, Shape,
    SideRange,
};
use crate::types::Blake3Digest;

pub(super) fn score(value: f32) -> Score {
    Score::new(value).unwrap()
}

pub(super) fn defect(label: &str, review: f32, reject: f32) -> LabelPolicy {
    LabelPolicy { label: label.into(), role: Role::Defect { review: score(review), reject: score(reject) } }
}

/// A recipe for `labels`, 8x8 input.
pub(super) fn recipe(kind: OutputKind, activation: Activation, labels: Vec<LabelPolicy>) -> Recipe {
    let side = SideRange { min: 1, max: 4096 };
    Recipe {
        digest: Blake3Digest::of(b"recipe"),
        name: "test".into(),
        version: "1.0.0".into(),
        title: "Test".into(),
        model: crate::core::recipe::FileRef { file: "model.onnx".into(), digest: Blake3Digest::of(b"model") },
        calibration: None,
        frame: FrameRules { formats: Vec::new(), width_px: side, height_px: side, encoded_bytes_max: 1 },
        quality: QualityBounds { focus_min: Some(score(0.1)), ..QualityBounds::default() },
        region: None,
        tiling: None,
        template: None,
        input: Input {
            tensor: "input".into(),
            colour: Colour::Gray,
            width_px: 8,
            height_px: 8,
            resize: Resize::PillowBilinear,
            fit: Fit::Stretch,
            mean: vec![0.0],
            std: vec![1.0],
        },
        output: Output {
            kind,
            tensor: "out".into(),
            activation,
            labels: labels.iter().map(|label| label.label.clone()).collect(),
        },
        policy: Policy { comparator: Comparator::AtOrAbove, top_score_min: Score::ZERO, labels },
    }
}

fn classifier(labels: Vec<LabelPolicy>) -> Recipe {
    recipe(OutputKind::Classification, Activation::None, labels)
}

pub(super) fn segmenter(map_score: MapScore) -> Recipe {
    let kind = OutputKind::Segmentation { map_score, pixel_threshold: 0.5 };
    recipe(kind, Activation::Sigmoid, vec![defect("scratch", 0.3, 0.6), defect("dent", 0.3, 0.6)])
}

const SHARP: QualityReport = QualityReport { focus: Score::ZERO, mean: Score::ZERO, saturated: Score::ZERO };

pub(super) fn sharp() -> QualityReport {
    QualityReport { focus: score(1.0), ..SHARP }
}

pub(super) fn outputs(shape: &[usize], values: &[f32]) -> Outputs {
    let mut outputs = Outputs::default();
    outputs.push("out", shape.iter().copied(), values);
    outputs
}

pub(super) fn run(recipe: &Recipe, outputs: &Outputs) -> Result<Judged, DecideError> {
    Decider::default().decide(recipe, None, outputs, &sharp(), (80, 40))
}

fn verdict(recipe: &Recipe, scores: &[f32]) -> Verdict {
    run(recipe, &outputs(&[1, scores.len()], scores)).unwrap().verdict
}

pub(super) fn reasons(judged: &Judged) -> Vec<String> {
    judged.reasons.iter().map(ToString::to_string).collect()
}

fn area(area_px: u64, bounds: Option<Bounds>) -> DefectArea {
    DefectArea { area_px: Some(area_px), bounds, boxes: Vec::new() }
}

#[test]
fn the_comparator_decides_at_the_threshold_itself() {
    let mut recipe = classifier(vec![defect("dent", 0.3, 0.6)]);
    assert_eq!(verdict(&recipe, &[0.299_999_98]), Verdict::Ok);
    assert_eq!(verdict(&recipe, &[0.3]), Verdict::NotDecidable);
    assert_eq!(verdict(&recipe, &[0.6]), Verdict::NotOk);
    recipe.policy.comparator = Comparator::Above;
    assert_eq!(verdict(&recipe, &[0.3]), Verdict::Ok);
    assert_eq!(verdict(&recipe, &[0.6]), Verdict::NotDecidable);
    assert_eq!(verdict(&recipe, &[0.600_000_1]), Verdict::NotOk);
}

#[test]
fn the_worst_label_wins_and_every_reached_threshold_is_named() {
    let recipe = classifier(vec![defect("dent", 0.3, 0.6), defect("pit", 0.3, 0.6), defect("stain", 0.1, 0.2)]);
    let judged = run(&recipe, &outputs(&[1, 3], &[0.4, 0.7, 0.0])).unwrap();
    assert_eq!(judged.verdict, Verdict::NotOk);
    assert_eq!(reasons(&judged), ["review:dent", "reject:pit"]);
    assert_eq!((judged.score, judged.top), (score(0.7), 1));
    assert_eq!(judged.scores[2].reject, Some(score(0.2)));
}

#[test]
fn several_labels_of_one_frame_each_have_their_own_thresholds() {
    let labels = vec![defect("dent", 0.3, 0.6), defect("pit", 0.1, 0.2), defect("stain", 0.9, 0.95)];
    let sigmoid = recipe(OutputKind::Classification, Activation::Sigmoid, labels);
    // Scores of 0.88, 0.12 and 0.88: three labels, three outcomes.
    let judged = run(&sigmoid, &outputs(&[1, 3], &[2.0, -2.0, 2.0])).unwrap();
    assert_eq!(reasons(&judged), ["reject:dent", "review:pit"]);
    assert_eq!(judged.verdict, Verdict::NotOk);
    // No label rises or falls with another: the last one is as before.
    let alone = run(&sigmoid, &outputs(&[1, 3], &[-9.0, -9.0, 2.0])).unwrap();
    assert_eq!((alone.verdict, alone.scores[2].score), (Verdict::Ok, judged.scores[2].score));
}

#[test]
fn a_label_that_is_no_defect_is_never_compared_and_not_the_decision_score() {
    let recipe = classifier(vec![LabelPolicy { label: "good".into(), role: Role::Ok }, defect("dent", 0.3, 0.6)]);
    let judged = run(&recipe, &outputs(&[1, 2], &[0.9, 0.1])).unwrap();
    assert_eq!((judged.verdict, judged.score, judged.top), (Verdict::Ok, score(0.1), 0));
    assert_eq!((judged.scores[0].review, judged.scores[0].reject), (None, None));
    assert!(judged.reasons.is_empty());
}

#[test]
fn an_unsure_classification_goes_to_a_person_even_when_it_would_reject() {
    let mut recipe = classifier(vec![defect("dent", 0.3, 0.6), defect("pit", 0.3, 0.6)]);
    recipe.policy.top_score_min = score(0.8);
    for scores in [[0.0, 0.1], [0.0, 0.7]] {
        let judged = run(&recipe, &outputs(&[1, 2], &scores)).unwrap();
        assert_eq!(judged.verdict, Verdict::NotDecidable);
        assert_eq!(reasons(&judged).last().unwrap(), "top_score_min");
    }
    assert_eq!(verdict(&recipe, &[0.0, 0.8]), Verdict::NotOk);
}

#[test]
fn a_failed_quality_bound_sends_any_frame_to_a_person() {
    let recipe = classifier(vec![defect("dent", 0.3, 0.6)]);
    for value in [0.0, 0.9] {
        let outputs = outputs(&[1, 1], &[value]);
        let judged = Decider::default().decide(&recipe, None, &outputs, &SHARP, (8, 8)).unwrap();
        assert_eq!(judged.verdict, Verdict::NotDecidable);
        assert_eq!(reasons(&judged)[0], "quality:focus_min");
    }
}

#[test]
fn outputs_that_are_not_finite_give_no_verdict() {
    let recipe = classifier(vec![defect("dent", 0.3, 0.6), defect("pit", 0.3, 0.6)]);
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = run(&recipe, &outputs(&[1, 2], &[0.0, wrong])).unwrap_err();
        assert_eq!(error, DecideError::NotFinite { tensor: "out".into() });
        let mut map = vec![-9.0; 2 * 16];
        map[20] = wrong;
        assert!(run(&segmenter(MapScore::Max), &outputs(&[1, 2, 4, 4], &map)).is_err());
    }
    let overflow = crate::core::recipe::Calibration {
        digest: Blake3Digest::of(b"c"),
        name: "c".into(),
        version: "1.0.0".into(),
        model: Blake3Digest::of(b"model"),
        method: Method::Platt { slope: 1.0e6, intercept: 0.0 },
        fitted_on: "nothing".into(),
        note: String::new(),
    };
    let huge = outputs(&[1, 2], &[0.0, f32::MAX]);
    let judged = Decider::default().decide(&recipe, Some(&overflow), &huge, &sharp(), (8, 8));
    assert_eq!(judged, Err(DecideError::ScoreNotFinite { label: "pit".into() }));
}

#[test]
fn a_missing_output_or_another_shape_gives_no_verdict() {
    let recipe = classifier(vec![defect("dent", 0.3, 0.6), defect("pit", 0.3, 0.6)]);
    assert!(matches!(run(&recipe, &Outputs::default()), Err(DecideError::Missing { .. })));
    for shape in [&[2, 1][..], &[1, 3], &[2], &[1, 2, 1]] {
        let values = vec![0.0; shape.iter().product()];
        assert!(matches!(run(&recipe, &outputs(shape, &values)), Err(DecideError::Shape { .. })), "{shape:?}");
    }
    let maps = segmenter(MapScore::Max);
    for shape in [&[1, 3, 4, 4][..], &[2, 2, 4, 4], &[1, 4, 4], &[1, 2, 0, 4]] {
        let values = vec![0.0; shape.iter().product()];
        assert!(matches!(run(&maps, &outputs(shape, &values)), Err(DecideError::Shape { .. })), "{shape:?}");
    }
}

#[test]
fn a_map_becomes_a_score_in_each_of_three_ways() {
    let mut map = vec![-20.0_f32; 2 * 16];
    map[..4].copy_from_slice(&[0.0, 2.0, 1.0, -1.0]);
    let by = |map_score| run(&segmenter(map_score), &outputs(&[1, 2, 4, 4], &map)).unwrap().scores[0].score.get();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let close = |found: f32, expected: f64| assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
    close(by(MapScore::Max), sigmoid(2.0));
    close(by(MapScore::TopKMean { k: 3 }), (sigmoid(2.0) + sigmoid(1.0) + sigmoid(0.0)) / 3.0);
    // Sigmoid of zero is 0.5, which is at the pixel threshold and counts.
    close(by(MapScore::AreaShare), 3.0 / 16.0);
    // More than there are pixels means all of them.
    let all: f64 = map[..16].iter().map(|x| sigmoid(f64::from(*x))).sum::<f64>() / 16.0;
    close(by(MapScore::TopKMean { k: 1000 }), all);
}

#[test]
fn areas_and_boxes_are_in_frame_pixels() {
    let mut map = vec![-9.0_f32; 2 * 16];
    // Columns 1 and 2 of row 2 of a 4x4 map, on a frame of 80x40: one map pixel is 20x10 frame pixels.
    map[9] = 9.0;
    map[10] = 9.0;
    let judged = run(&segmenter(MapScore::Max), &outputs(&[1, 2, 4, 4], &map)).unwrap();
    let bounds = Bounds { x_px: 20, y_px: 20, width_px: 40, height_px: 10 };
    assert_eq!(judged.areas, [area(400, Some(bounds)), area(0, None)]);
}

#[test]
fn boxes_behind_a_letterbox_stay_within_the_frame() {
    let mut recipe = segmenter(MapScore::Max);
    recipe.input.fit = Fit::Letterbox { pad: 114 };
    // The 80x40 frame lies in rows 2 to 5 of the 8x8 input; the whole map is defect.
    let judged = run(&recipe, &outputs(&[1, 2, 8, 8], &[9.0; 128])).unwrap();
    let bounds = Bounds { x_px: 0, y_px: 0, width_px: 80, height_px: 40 };
    assert_eq!(judged.areas[0], area(3200, Some(bounds)));
}

#[test]
fn an_anomaly_model_is_judged_by_its_score_and_shows_its_map() {
    let kind = OutputKind::Anomaly { score_tensor: "score".into(), pixel_threshold: Some(0.5) };
    let recipe = recipe(kind, Activation::None, vec![defect("anomaly", 0.3, 0.6)]);
    for (map_shape, score_shape) in [(&[1, 1, 2, 2][..], &[1][..]), (&[1, 2, 2], &[1, 1])] {
        let mut outputs = outputs(map_shape, &[0.1, 0.9, 0.1, 0.1]);
        outputs.push("score", score_shape.iter().copied(), &[0.4]);
        let judged = run(&recipe, &outputs).unwrap();
        assert_eq!((judged.verdict, judged.score), (Verdict::NotDecidable, score(0.4)));
        assert_eq!(judged.areas[0].bounds, Some(Bounds { x_px: 40, y_px: 0, width_px: 40, height_px: 20 }));
    }
}

#[test]
fn softmax_over_labels_sums_to_one_in_every_pixel() {
    let kind = OutputKind::Segmentation { map_score: MapScore::Max, pixel_threshold: 0.5 };
    let recipe = recipe(kind, Activation::Softmax, vec![defect("a", 0.3, 0.6), defect("b", 0.3, 0.6)]);
    let judged = run(&recipe, &outputs(&[1, 2, 1, 2], &[1000.0, 0.0, 0.0, 1.0])).unwrap();
    assert_eq!(judged.scores[0].score, score(1.0));
    let expected = 1.0 / (1.0 + (-1.0_f32).exp());
    assert!((judged.scores[1].score.get() - expected).abs() < 1e-6);
}

/// The decider of a recipe that counts only these rectangles of a frame of 80x40.
pub(super) fn within(recipe: &mut Recipe, include: &[Bounds], exclude: &[Bounds]) -> Decider {
    let shapes = |bounds: &[Bounds]| bounds.iter().copied().map(Shape::Rectangle).collect();
    let region = Region {
        include: shapes(include),
        exclude: shapes(exclude),
        around: include[0],
        crop: false,
        fill: None,
        box_share_min: Some(0.5),
    };
    let mask = Mask::new(&region, (80, 40));
    recipe.region = Some(region);
    Decider::new(Some(Arc::new(mask.unwrap())))
}

pub(super) fn bounds(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Bounds {
    Bounds { height_px, width_px, x_px, y_px }
}

#[test]
fn only_what_lies_in_the_region_counts_in_a_map() {
    // A 4x4 map on a frame of 80x40: one value is 20x10 px, with its centre at 10, 5 and so on. Defects in two corners.
    let mut map = vec![-9.0_f32; 2 * 16];
    map[0] = 9.0;
    map[15] = 2.0;
    let by = |map_score, include: &[Bounds], exclude: &[Bounds]| {
        let mut recipe = segmenter(map_score);
        let mut decider = within(&mut recipe, include, exclude);
        decider.decide(&recipe, None, &outputs(&[1, 2, 4, 4], &map), &sharp(), (80, 40)).unwrap()
    };
    let right = [bounds(40, 0, 40, 40)];
    let judged = by(MapScore::Max, &right, &[]);
    assert!((judged.scores[0].score.get() - sigmoid(2.0)).abs() < 1e-6);
    assert_eq!(judged.areas[0], area(200, Some(bounds(60, 30, 20, 10))));
    // Of eight values that count one is a defect.
    assert_eq!(by(MapScore::AreaShare, &right, &[]).scores[0].score, score(0.125));
    // More than count means all that count, not those outside.
    let mean = by(MapScore::TopKMean { k: 16 }, &right, &[]).scores[0].score.get();
    assert!((mean - (sigmoid(2.0) + 7.0 * sigmoid(-9.0)) / 8.0).abs() < 1e-6);
    let without = by(MapScore::Max, &right, &[bounds(70, 35, 1, 1)]);
    assert_eq!((without.verdict, &without.areas[0]), (Verdict::Ok, &area(0, None)));
    // The centre of a value decides, and a region between the centres has no score.
    let mut recipe = segmenter(MapScore::Max);
    let mut decider = within(&mut recipe, &[bounds(11, 0, 18, 40)], &[]);
    let refused = decider.decide(&recipe, None, &outputs(&[1, 2, 4, 4], &map), &sharp(), (80, 40)).unwrap_err();
    assert_eq!(refused, DecideError::NothingCounts { tensor: "out".into() });
}

#[test]
fn the_padding_of_a_letterbox_never_counts_where_there_is_a_region() {
    let mut recipe = segmenter(MapScore::AreaShare);
    recipe.input.fit = Fit::Letterbox { pad: 114 };
    // The frame lies in rows 2 to 5 of the 8x8 input, and of the map; only the padding is a defect.
    let mut map = vec![9.0; 2 * 64];
    [16..48, 80..112].into_iter().for_each(|rows| map[rows].fill(-9.0));
    let mut decider = within(&mut recipe, &[bounds(0, 0, 80, 40)], &[]);
    let judged = decider.decide(&recipe, None, &outputs(&[1, 2, 8, 8], &map), &sharp(), (80, 40)).unwrap();
    assert_eq!((judged.verdict, judged.score), (Verdict::Ok, score(0.0)));
}

#[test]
fn the_area_of_an_anomaly_is_that_in_the_region() {
    let kind = OutputKind::Anomaly { score_tensor: "score".into(), pixel_threshold: Some(0.5) };
    let mut recipe = recipe(kind, Activation::None, vec![defect("anomaly", 0.3, 0.6)]);
    let mut decider = within(&mut recipe, &[bounds(0, 0, 40, 40)], &[]);
    let mut outputs = outputs(&[1, 1, 2, 2], &[0.1, 0.9, 0.9, 0.1]);
    outputs.push("score", [1], &[0.4]);
    let judged = decider.decide(&recipe, None, &outputs, &sharp(), (80, 40)).unwrap();
    assert_eq!((judged.score, &judged.areas[0]), (score(0.4), &area(800, Some(bounds(0, 20, 40, 20)))));
}

#[test]
fn calibration_comes_before_the_activation() {
    let temperature = Method::Temperature(2.0);
    let mut logits = [2.0, 4.0].map(|logit| calibrated(temperature, logit));
    activate(Activation::Softmax, &mut logits);
    assert!((logits[1] - 0.731_058_6).abs() < 1e-6);
    let platt = Method::Platt { slope: 2.0, intercept: -1.0 };
    assert!((calibrated(platt, 0.5) - 0.0).abs() < f32::EPSILON);
}

proptest! {
    #[test]
    fn a_higher_score_never_makes_a_better_verdict(
        mut scores in prop::collection::vec(0.0_f32..1.0, 3),
        at in 0..3_usize,
        rise in 0.0_f32..1.0,
        strict: bool,
    ) {
        let mut recipe = classifier(vec![defect("a", 0.3, 0.6), defect("b", 0.1, 0.9), defect("c", 0.5, 0.5)]);
        recipe.policy.comparator = if strict { Comparator::Above } else { Comparator::AtOrAbove };
        let before = verdict(&recipe, &scores);
        scores[at] += rise;
        prop_assert!(verdict(&recipe, &scores) >= before);
    }

    #[test]
    fn the_shortcuts_on_maps_agree_with_the_definition(
        values in prop::collection::vec(-12.0_f32..12.0, 48),
        k in 1_u32..64,
        threshold in 0.01_f32..0.99,
    ) {
        let temperature = Method::Temperature(1.7);
        let to_score = |value: f32| sigmoid(calibrated(temperature, value));
        let mut scored: Vec<f32> = values.iter().map(|value| to_score(*value)).collect();
        let from = smallest_reaching(to_score, threshold);
        let reached = scored.iter().filter(|value| **value >= threshold).count();
        prop_assert_eq!(values.iter().filter(|value| Some(**value) >= from).count(), reached);
        scored.sort_by(|a, b| b.total_cmp(a));
        let k_here = (k as usize).min(48);
        let expected = scored[..k_here].iter().map(|value| f64::from(*value)).sum::<f64>() / k_here as f64;
        let found = score_of_map(&values, values.len(), to_score, MapScore::TopKMean { k }, from, &mut Vec::new());
        prop_assert!((f64::from(found) - expected).abs() < 1e-7);
    }

    #[test]
    fn no_output_panics(
        shape in prop::collection::vec(0_usize..5, 0..5),
        value: f32,
        frame in (1_u32..5000, 1_u32..5000),
    ) {
        let values = vec![value; shape.iter().product()];
        let outputs = outputs(&shape, &values);
        for recipe in [classifier(vec![defect("a", 0.3, 0.6)]), segmenter(MapScore::TopKMean { k: 3 })] {
            if let Ok(judged) = Decider::default().decide(&recipe, None, &outputs, &sharp(), frame) {
                for area in judged.areas {
                    prop_assert!(area.bounds.is_none_or(|b| b.x_px + b.width_px <= frame.0 && b.y_px + b.height_px <= frame.1));
                }
            }
        }
    }
}
