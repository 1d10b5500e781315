//! Tiles give what the whole frame gives, and a defect on a border is neither lost nor found twice.

use proptest::prelude::*;

use super::{
    super::{
        Decider, Judged,
        tests::{bounds, defect, outputs, reasons, recipe, score, segmenter, sharp, within},
    },
    *,
};
use crate::{
    core::recipe::{BoxLabels, BoxLayout, Detection, MapScore},
    types::Verdict,
};

const TILES: Tiling = Tiling { width_px: 16, height_px: 16, overlap_px: 4, merge: Some(Merge::Max) };

fn tiled(recipe: Recipe, tiling: Tiling) -> Recipe {
    Recipe { tiling: Some(tiling), ..recipe }
}

/// Judges a frame whose every view gives the outputs that `said` makes of it.
fn run_tiles(
    decider: &mut Decider,
    recipe: &Recipe,
    frame_px: (u32, u32),
    said: impl Fn(Bounds) -> Outputs,
) -> Result<Judged, DecideError> {
    for view in decider.begin(recipe, frame_px) {
        decider.add(recipe, None, &said(view))?;
    }
    decider.judge(recipe, &sharp())
}

/// A map of one value per pixel, cut out of the whole frame's, for two labels.
fn cut(whole: &[f32], frame_px: (u32, u32), view: Bounds) -> Outputs {
    let (width, plane) = (frame_px.0 as usize, (frame_px.0 * frame_px.1) as usize);
    let row = |label: usize, y: u32| {
        &whole[label * plane + y as usize * width + view.x_px as usize..][..view.width_px as usize]
    };
    let rows = (0..2).flat_map(|label| (view.y_px..view.bottom_px()).flat_map(move |y| row(label, y)));
    let values: Vec<f32> = rows.copied().collect();
    outputs(&[1, 2, view.height_px as usize, view.width_px as usize], &values)
}

/// A segmentation whose input is as large as a tile, so that a map's value is a pixel.
fn pixelwise(map_score: MapScore, activation: Activation, tile_px: (u32, u32)) -> Recipe {
    let mut recipe = segmenter(map_score);
    recipe.output.activation = activation;
    (recipe.input.width_px, recipe.input.height_px) = tile_px;
    recipe
}

#[test]
fn tiles_cover_a_side_overlap_at_least_as_asked_and_end_with_it() {
    assert_eq!(Tiling::along(40, 16, 4), (vec![0, 12, 24], 16));
    assert_eq!(Tiling::along(41, 16, 4), (vec![0, 12, 24, 25], 16));
    assert_eq!(Tiling::along(17, 16, 0), (vec![0, 1], 16));
    assert_eq!(Tiling::along(16, 16, 4), (vec![0], 16));
    assert_eq!(Tiling::along(9, 16, 4), (vec![0], 9));
}

#[test]
fn one_tile_that_covers_the_frame_decides_as_no_tiling_does() {
    let frame_px = (16, 12);
    let map: Vec<f32> = (0..2 * 16 * 12).map(|at| ((at * 37 % 101) as f32) / 8.0 - 9.0).collect();
    for map_score in [MapScore::Max, MapScore::TopKMean { k: 7 }, MapScore::AreaShare] {
        for activation in [Activation::Sigmoid, Activation::Softmax] {
            for merge in [Merge::Max, Merge::Mean] {
                let plain = pixelwise(map_score, activation, frame_px);
                let tiled = tiled(plain.clone(), Tiling { merge: Some(merge), ..TILES });
                let [plain, tiled] = [plain, tiled].map(|recipe| {
                    run_tiles(&mut Decider::default(), &recipe, frame_px, |view| cut(&map, frame_px, view)).unwrap()
                });
                assert_eq!(plain, tiled);
            }
        }
    }
}

#[test]
fn a_defect_that_a_border_cuts_is_measured_whole_and_once() {
    // Six pixels long, over the border between the first two tiles and within none of the overlap's ends.
    let frame_px = (40, 16);
    let mut map = vec![-9.0_f32; 2 * 640];
    map[8 * 40 + 10..8 * 40 + 18].fill(3.0);
    for map_score in [MapScore::Max, MapScore::TopKMean { k: 8 }, MapScore::AreaShare] {
        let whole = pixelwise(map_score, Activation::Sigmoid, frame_px);
        let whole = run_tiles(&mut Decider::default(), &whole, frame_px, |view| cut(&map, frame_px, view)).unwrap();
        assert_eq!(whole.areas[0].bounds, Some(bounds(10, 8, 8, 1)));
        let tiles = tiled(pixelwise(map_score, Activation::Sigmoid, (16, 16)), TILES);
        let tiles = run_tiles(&mut Decider::default(), &tiles, frame_px, |view| cut(&map, frame_px, view)).unwrap();
        assert_eq!(tiles, whole, "{map_score:?}");
    }
}

#[test]
fn a_letterboxed_tile_leaves_its_padding_out() {
    // Tiles of 16x8 in an input of 8x8: rows 2 to 5 of the input, and of the map, show the tile; the padding is all defect.
    let mut recipe = tiled(segmenter(MapScore::Max), Tiling { height_px: 8, ..TILES });
    recipe.input.fit = crate::core::recipe::Fit::Letterbox { pad: 0 };
    let mut map = vec![9.0; 2 * 64];
    [16..48, 80..112].into_iter().for_each(|rows| map[rows].fill(-9.0));
    let judged = run_tiles(&mut Decider::default(), &recipe, (40, 8), |_| outputs(&[1, 2, 8, 8], &map)).unwrap();
    assert_eq!(judged.verdict, Verdict::Ok);
}

#[test]
fn where_tiles_overlap_the_mean_leans_to_the_tile_that_sees_more_around_it() {
    let recipe = pixelwise(MapScore::Max, Activation::None, (16, 16));
    let recipe = tiled(recipe, Tiling { merge: Some(Merge::Mean), ..TILES });
    // The first tile says 0, the second 1, at every pixel; they share columns 12 to 15.
    let said = |view: Bounds| outputs(&[1, 2, 16, 16], &[(view.x_px / 12) as f32; 512]);
    let ground = Ground { recipe: &recipe, method: Method::Identity, mask: None, window: Bounds::whole((28, 16)) };
    let mut tiles = Tiles::default();
    for (at, view) in [bounds(0, 0, 16, 16), bounds(12, 0, 16, 16)].into_iter().enumerate() {
        tiles.add(&ground, &said(view), (at, view), &mut Scratch::default()).unwrap();
    }
    let maps = tiles.mosaic.finish();
    let middle: Vec<f32> = maps[0].values[8 * 28 + 11..8 * 28 + 17].to_vec();
    // Weights rise from a tile's border by a quarter per pixel: 1/8, 3/8, 5/8, 7/8 against the same from the other side.
    assert_eq!(middle, [0.0, 0.125, 0.375, 0.625, 0.875, 1.0]);
}

#[test]
fn the_highest_score_of_a_tile_decides_and_the_tile_is_named() {
    let labels = vec![defect("dent", 0.3, 0.6), defect("pit", 0.3, 0.6)];
    let mut recipe =
        tiled(recipe(OutputKind::Classification, Activation::None, labels), Tiling { merge: None, ..TILES });
    let said = |view: Bounds| {
        let scores = match view.x_px {
            0 => [0.1, 0.7],
            12 => [0.4, 0.7],
            _ => [0.0, 0.2],
        };
        outputs(&[1, 2], &scores)
    };
    let judged = run_tiles(&mut Decider::default(), &recipe, (40, 16), said).unwrap();
    assert_eq!((judged.verdict, reasons(&judged)), (Verdict::NotOk, vec!["review:dent".into(), "reject:pit".into()]));
    let at = |label: usize| (judged.scores[label].score, judged.scores[label].at, judged.areas[label].bounds);
    assert_eq!(at(0), (score(0.4), Some(bounds(12, 0, 16, 16)), Some(bounds(12, 0, 16, 16))));
    assert_eq!(at(1), (score(0.7), Some(bounds(0, 0, 16, 16)), Some(bounds(0, 0, 16, 16))));
    // One unsure tile is enough for a person to look.
    recipe.policy.top_score_min = score(0.3);
    let judged = run_tiles(&mut Decider::default(), &recipe, (40, 16), said).unwrap();
    assert_eq!((judged.verdict, reasons(&judged).last().unwrap().as_str()), (Verdict::NotDecidable, "top_score_min"));
}

#[test]
fn a_score_that_is_not_finite_in_any_tile_gives_no_verdict() {
    let labels = vec![defect("dent", 0.3, 0.6)];
    let recipe = tiled(recipe(OutputKind::Classification, Activation::None, labels), Tiling { merge: None, ..TILES });
    for wrong in [0, 12, 24] {
        let said = |view: Bounds| outputs(&[1, 1], &[if view.x_px == wrong { f32::NAN } else { 0.1 }]);
        assert!(run_tiles(&mut Decider::default(), &recipe, (40, 16), said).is_err());
    }
}

#[test]
#[should_panic(expected = "every view is looked at")]
fn a_frame_is_not_judged_before_every_tile_is_seen() {
    let recipe = tiled(segmenter(MapScore::Max), TILES);
    let mut decider = Decider::default();
    decider.begin(&recipe, (40, 16));
    decider.add(&recipe, None, &outputs(&[1, 2, 4, 4], &[-9.0; 32])).unwrap();
    let _ = decider.judge(&recipe, &sharp());
}

#[test]
fn an_anomaly_in_tiles_has_the_highest_score_and_one_area() {
    let kind = OutputKind::Anomaly { score_tensor: "score".into(), pixel_threshold: Some(0.5) };
    let labels = vec![defect("anomaly", 0.3, 0.6)];
    let recipe = tiled(recipe(kind, Activation::None, labels), TILES);
    // An 8x8 map per tile of 16x16: two pixels a value. Both tiles see the column of values that they share.
    let said = |view: Bounds| {
        let mut map = [0.1; 64];
        let column = if view.x_px == 0 { 7 } else { 1 };
        (0..8).for_each(|y| map[y * 8 + column] = 0.9);
        let mut said = outputs(&[1, 1, 8, 8], &map);
        said.push("score", [1], &[if view.x_px == 0 { 0.2 } else { 0.5 }]);
        said
    };
    let judged = run_tiles(&mut Decider::default(), &recipe, (28, 16), said).unwrap();
    assert_eq!((judged.score, judged.scores[0].at), (score(0.5), Some(bounds(12, 0, 16, 16))));
    assert_eq!((judged.areas[0].area_px, judged.areas[0].bounds), (Some(32), Some(bounds(14, 0, 2, 16))));
}

fn detector(layout: BoxLayout) -> Recipe {
    let detection = Detection {
        layout,
        box_labels: BoxLabels::Best,
        score_min: 0.1,
        iou_max: Some(0.4),
        boxes_max: 3,
        side_px_min: 1,
    };
    let mut recipe = recipe(OutputKind::Detection(detection), Activation::None, vec![defect("scratch", 0.3, 0.6)]);
    (recipe.input.width_px, recipe.input.height_px) = (16, 16);
    tiled(recipe, Tiling { merge: None, ..TILES })
}

/// What a perfect detector says of a tile: every box, cut at the tile's borders.
fn seen(boxes: &[(Bounds, f32)], view: Bounds) -> Outputs {
    let cut = |(found, score): &(Bounds, f32)| {
        let (left, right) = (found.x_px.max(view.x_px), found.right_px().min(view.right_px()));
        let (top, bottom) = (found.y_px.max(view.y_px), found.bottom_px().min(view.bottom_px()));
        let place = |at: u32, start: u32| (at - start) as f32;
        (left < right && top < bottom).then(|| {
            let share = f64::from((right - left) * (bottom - top)) / f64::from(found.width_px * found.height_px);
            let corners =
                [place(left, view.x_px), place(top, view.y_px), place(right, view.x_px), place(bottom, view.y_px)];
            [corners[0], corners[1], corners[2], corners[3], score * share as f32, 0.0]
        })
    };
    let rows: Vec<f32> = boxes.iter().filter_map(cut).flatten().collect();
    outputs(&[1, rows.len() / 6, 6], &rows)
}

#[test]
fn a_box_that_a_border_cuts_is_found_whole_and_once() {
    let recipe = detector(BoxLayout::Nms);
    // One over the first border, whole in neither its cut part nor alone; one in the middle of a tile; one in a corner.
    let boxes = [(bounds(12, 4, 6, 4), 0.9), (bounds(19, 9, 3, 3), 0.5), (bounds(38, 14, 2, 2), 0.4)];
    let judged = run_tiles(&mut Decider::default(), &recipe, (40, 16), |view| seen(&boxes, view)).unwrap();
    let found: Vec<_> = judged.areas[0].boxes.iter().map(|found| (found.bounds, found.score)).collect();
    assert_eq!(found, boxes.map(|(bounds, value)| (bounds, score(value))));
    assert_eq!(
        (judged.verdict, judged.scores[0].at, judged.scores[0].boxes),
        (Verdict::NotOk, Some(boxes[0].0), Some(3))
    );
    // No more than the most, over all tiles.
    let many: Vec<_> = (0..4).map(|at| (bounds(at * 10, 0, 2, 2), 0.5)).collect();
    let judged = run_tiles(&mut Decider::default(), &recipe, (40, 16), |view| seen(&many, view)).unwrap();
    assert_eq!(judged.scores[0].boxes, Some(3));
}

#[test]
fn tiles_of_which_nothing_counts_are_not_looked_at() {
    let mut recipe = detector(BoxLayout::Nms);
    let mut decider = within(&mut recipe, &[bounds(26, 0, 54, 40)], &[]);
    let views = decider.begin(&recipe, (80, 40));
    assert!(!views.is_empty() && views.iter().all(|view| view.right_px() > 26), "{views:?}");
    let boxes = [(bounds(20, 4, 5, 4), 0.9), (bounds(40, 4, 4, 4), 0.4)];
    let judged = run_tiles(&mut decider, &recipe, (80, 40), |view| seen(&boxes, view)).unwrap();
    assert_eq!((judged.verdict, judged.scores[0].at), (Verdict::NotDecidable, Some(boxes[1].0)));
}

#[test]
fn a_map_of_tiles_counts_in_the_region_only() {
    let mut recipe = tiled(pixelwise(MapScore::Max, Activation::Sigmoid, (16, 16)), TILES);
    let mut decider = within(&mut recipe, &[bounds(40, 0, 40, 40)], &[bounds(60, 0, 1, 40)]);
    let mut map = vec![-9.0_f32; 2 * 3200];
    map[5 * 80 + 10] = 9.0;
    map[5 * 80 + 60] = 9.0;
    map[5 * 80 + 61] = 2.0;
    for merge in [Merge::Max, Merge::Mean] {
        recipe.tiling = Some(Tiling { merge: Some(merge), ..TILES });
        let judged = run_tiles(&mut decider, &recipe, (80, 40), |view| cut(&map, (80, 40), view)).unwrap();
        assert_eq!((judged.areas[0].area_px, judged.areas[0].bounds), (Some(1), Some(bounds(61, 5, 1, 1))));
        assert!((judged.scores[0].score.get() - 0.880_797).abs() < 1e-5);
    }
}

#[test]
fn maps_too_fine_to_be_put_together_are_refused() {
    let recipe = tiled(pixelwise(MapScore::Max, Activation::Sigmoid, (16, 16)), TILES);
    let mut decider = Decider::default();
    decider.begin(&recipe, (4096, 64));
    let fine = outputs(&[1, 2, 256, 256], &vec![0.0; 2 * 256 * 256]);
    let refused = decider.add(&recipe, None, &fine).unwrap_err();
    assert!(matches!(refused, DecideError::Mosaic { width: 65_536, height: 1024, labels: 2, .. }), "{refused}");
}

proptest! {
    #[test]
    fn any_pixelwise_model_gives_the_same_in_tiles_as_at_once(
        width in 16_u32..60, height in 16_u32..40, overlap_px in 0_u32..8,
        spots in prop::collection::vec((0.0_f32..1.0, 0.0_f32..1.0, -3.0_f32..9.0, 0_usize..2), 0..30),
        softmax: bool, mean: bool,
    ) {
        let frame_px = (width, height);
        let mut map = vec![-5.0_f32; 2 * (width * height) as usize];
        for (x, y, value, label) in spots {
            let (x, y) = ((x * width as f32) as u32, (y * height as f32) as u32);
            map[label * (width * height) as usize + (y * width + x) as usize] = value;
        }
        let activation = if softmax { Activation::Softmax } else { Activation::Sigmoid };
        let map_score = MapScore::TopKMean { k: 5 };
        let whole = pixelwise(map_score, activation, frame_px);
        let whole = run_tiles(&mut Decider::default(), &whole, frame_px, |view| cut(&map, frame_px, view)).unwrap();
        let merge = if mean { Merge::Mean } else { Merge::Max };
        let recipe = tiled(pixelwise(map_score, activation, (16, 16)), Tiling { overlap_px, merge: Some(merge), ..TILES });
        let tiles = run_tiles(&mut Decider::default(), &recipe, frame_px, |view| cut(&map, frame_px, view)).unwrap();
        if mean {
            // A mean of equal values is that value but for rounding.
            prop_assert!((tiles.score.get() - whole.score.get()).abs() < 1e-5);
        } else {
            prop_assert_eq!(tiles, whole);
        }
    }

    #[test]
    fn every_box_small_enough_for_the_overlap_is_found_whole_by_some_tile(
        boxes in prop::collection::vec((0_u32..76, 0_u32..36, 1_u32..=4, 1_u32..=4, 0.2_f32..0.9), 1..4),
    ) {
        let recipe = detector(BoxLayout::Nms);
        let boxes: Vec<_> = boxes.into_iter().map(|(x, y, w, h, score)| (bounds(x, y, w, h), score)).collect();
        let judged = run_tiles(&mut Decider::default(), &recipe, (80, 40), |view| seen(&boxes, view)).unwrap();
        let highest = boxes.iter().map(|(_, score)| *score).fold(0.0, f32::max);
        prop_assert_eq!(judged.score, score(highest));
    }
}
