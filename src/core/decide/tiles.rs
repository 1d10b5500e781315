//! What the model said of several tiles of one frame, put together: scores into the highest, boxes into one set, maps into
//! one map.

use super::{
    Bounds, DecideError, DefectArea, DetectedBox, Read, Scratch, anomaly_score, boxes, class_scores, finite,
    maps::{self, Map, MapRule},
    mosaic::Mosaic,
    read_boxes,
    values::{pointwise, smallest_reaching},
};
use crate::{
    core::{
        mask::Mask,
        outputs::{Outputs, TensorView},
        recipe::{Activation, Merge, Method, OutputKind, Recipe, Tiling},
    },
    types::Score,
};

/// What is kept from tile to tile.
#[derive(Default)]
pub(super) struct Tiles {
    /// Per label, the highest score so far.
    highest: Vec<Read>,
    /// Per label, the boxes that stayed in their tiles.
    boxes: Vec<Vec<TileBox>>,
    mosaic: Mosaic,
    scores: Vec<f32>,
    /// The largest score of some tile is below the recipe's least.
    pub is_unsure: bool,
}

/// A box that stayed in its tile.
#[derive(Clone, Copy)]
struct TileBox {
    tile: usize,
    found: DetectedBox,
}

/// The frame and what of it is looked at.
pub(super) struct Ground<'a> {
    pub recipe: &'a Recipe,
    pub method: Method,
    pub mask: Option<&'a Mask>,
    /// What the tiles cover.
    pub window: Bounds,
}

impl Ground<'_> {
    fn tiling(&self) -> Tiling {
        self.recipe.tiling.expect("only [tiling] makes tiles")
    }

    /// Whether the mosaic holds scores, not values before the activation: the mean is one of scores, and softmax needs all labels
    /// of one place.
    fn lays_scores(&self) -> bool {
        self.recipe.output.activation == Activation::Softmax || self.tiling().merge == Some(Merge::Mean)
    }
}

impl Tiles {
    pub(super) fn begin(&mut self) {
        self.highest.clear();
        self.boxes.clear();
        self.is_unsure = false;
    }

    /// Takes the outputs for the tile `at` in the order of tiles, which shows `view`.
    pub(super) fn add(
        &mut self,
        ground: &Ground<'_>,
        outputs: &Outputs,
        (at, view): (usize, Bounds),
        scratch: &mut Scratch,
    ) -> Result<(), DecideError> {
        let Ground { recipe, method, mask, .. } = *ground;
        let tensor = finite(outputs, &recipe.output.tensor)?;
        match &recipe.output.kind {
            OutputKind::Classification => {
                let scores = class_scores(&tensor, &recipe.output, method)?;
                let is_high = |score: &f32| Score::new(*score).is_ok_and(|score| score >= recipe.policy.top_score_min);
                self.is_unsure |= !scores.iter().any(is_high);
                take_highest(&mut self.highest, &scores, view);
                Ok(())
            }
            OutputKind::Anomaly { score_tensor, pixel_threshold } => {
                take_highest(&mut self.highest, &[anomaly_score(outputs, score_tensor, &recipe.output, method)?], view);
                if pixel_threshold.is_some() { self.lay(ground, &tensor, (at, view)) } else { Ok(()) }
            }
            OutputKind::Segmentation { .. } => self.lay(ground, &tensor, (at, view)),
            OutputKind::Detection(detection) => {
                let read = read_boxes(&tensor, detection, recipe, method, view, mask, scratch)?;
                self.boxes.resize_with(read.len(), Vec::new);
                for (boxes, read) in self.boxes.iter_mut().zip(read) {
                    boxes.extend(read.area.boxes.into_iter().map(|found| TileBox { tile: at, found }));
                }
                Ok(())
            }
        }
    }

    /// Lays the maps of one tile into the mosaic.
    fn lay(
        &mut self,
        ground: &Ground<'_>,
        tensor: &TensorView<'_>,
        (at, view): (usize, Bounds),
    ) -> Result<(), DecideError> {
        let Ground { recipe, method, window, .. } = *ground;
        let labels = recipe.output.labels.len();
        let mut maps = Map::all(tensor, labels)?;
        let map_px = (maps[0].width, maps[0].height);
        let tiling = ground.tiling();
        let merge = tiling.merge.expect("a recipe with maps and tiles says how they merge");
        if recipe.output.activation == Activation::Softmax {
            maps::softmax_over_labels(method, tensor, labels, &mut self.scores);
        } else if merge == Merge::Mean {
            let to_score = pointwise(method, &recipe.output);
            self.scores.clear();
            self.scores.extend(tensor.values.iter().map(|value| to_score(*value)));
        }
        if ground.lays_scores() {
            maps = Map::split(&self.scores, map_px.0, map_px.1);
        }
        let geometry = super::Geometry::of_map(&recipe.input, map_px, view);
        if at == 0 {
            self.mosaic.begin(tensor.name, labels, map_px, &geometry, window, merge)?;
        }
        self.mosaic.lay(&maps, &geometry, window, tiling.overlap_px, merge);
        Ok(())
    }

    /// One [`Read`] per label when every tile is added.
    pub(super) fn finish(&mut self, ground: &Ground<'_>, scratch: &mut Scratch) -> Result<Vec<Read>, DecideError> {
        let output = &ground.recipe.output;
        match &output.kind {
            OutputKind::Classification => Ok(std::mem::take(&mut self.highest)),
            OutputKind::Anomaly { pixel_threshold, .. } => {
                let mut read = std::mem::take(&mut self.highest);
                if let Some(threshold) = pixel_threshold {
                    read[0].area = self.area(ground, *threshold, scratch)?;
                }
                Ok(read)
            }
            OutputKind::Segmentation { map_score, pixel_threshold } => {
                let rule = MapRule { map_score: *map_score, pixel_threshold: *pixel_threshold };
                let geometry = self.mosaic.geometry(ground.window);
                let maps = self.mosaic.finish();
                let Scratch { values, counted, .. } = scratch;
                let counted = counted.of(ground.mask, &output.tensor, &maps[0], &geometry)?;
                if ground.lays_scores() {
                    return Ok(maps::read(&maps, |score| score, rule, &geometry, counted, values));
                }
                Ok(maps::read(&maps, pointwise(ground.method, output), rule, &geometry, counted, values))
            }
            OutputKind::Detection(detection) => {
                let limit = detection.iou_max.expect("a recipe with boxes and tiles says when boxes are the same");
                let most = detection.boxes_max as usize;
                let across = |boxes: Vec<TileBox>| boxes::read_of(suppress_across(boxes, limit, most));
                Ok(std::mem::take(&mut self.boxes).into_iter().map(across).collect())
            }
        }
    }

    /// The area of an anomaly.
    fn area(&mut self, ground: &Ground<'_>, threshold: f32, scratch: &mut Scratch) -> Result<DefectArea, DecideError> {
        let output = &ground.recipe.output;
        let geometry = self.mosaic.geometry(ground.window);
        let from = if ground.lays_scores() {
            Some(threshold)
        } else {
            smallest_reaching(pointwise(ground.method, output), threshold)
        };
        let map = &self.mosaic.finish()[0];
        let Scratch { values, counted, .. } = scratch;
        let counted = counted.of(ground.mask, &output.tensor, map, &geometry)?;
        Ok(map.masked(counted, values).area(from, &geometry))
    }
}

/// Takes the higher score of each label, of equal ones the first tile's, and says of which tile it is.
fn take_highest(highest: &mut Vec<Read>, scores: &[f32], tile: Bounds) {
    let of_tile = |score: f32| Read {
        at: Some(tile),
        area: DefectArea { bounds: Some(tile), ..DefectArea::default() },
        ..Read::score(score)
    };
    if highest.is_empty() {
        highest.extend(scores.iter().map(|score| of_tile(*score)));
    }
    for (highest, score) in highest.iter_mut().zip(scores) {
        // A score that is not finite is taken and stays: it gives no verdict.
        if highest.score.is_finite() && (!score.is_finite() || *score > highest.score) {
            *highest = of_tile(*score);
        }
    }
}

/// Of boxes of one label from several tiles, those that stay, highest score first.
///
/// A defect on a tile's border is found whole in one tile and cut in its neighbour, and a cut box has little of the *union* in common
/// with the whole one. So what two boxes of different tiles have in common is held against the smaller of them. Boxes
/// of one tile were suppressed there.
fn suppress_across(mut boxes: Vec<TileBox>, limit: f32, most: usize) -> Vec<DetectedBox> {
    // Stable: of equal scores the first tile, and in it the first box.
    boxes.sort_by_key(|found| std::cmp::Reverse(found.found.score));
    let mut kept: Vec<TileBox> = Vec::new();
    for candidate in boxes {
        if kept.len() == most {
            break;
        }
        let is_same = |kept: &TileBox| {
            kept.tile != candidate.tile
                && share_of_smaller(kept.found.bounds, candidate.found.bounds) > f64::from(limit)
        };
        if !kept.iter().any(is_same) {
            kept.push(candidate);
        }
    }
    kept.into_iter().map(|kept| kept.found).collect()
}

/// What two boxes have in common, as a share of the smaller one.
fn share_of_smaller(a: Bounds, b: Bounds) -> f64 {
    let common = |a: (u32, u32), b: (u32, u32)| f64::from(a.1.min(b.1).saturating_sub(a.0.max(b.0)));
    let width = common((a.x_px, a.right_px()), (b.x_px, b.right_px()));
    let height = common((a.y_px, a.bottom_px()), (b.y_px, b.bottom_px()));
    let area = |bounds: Bounds| f64::from(bounds.width_px) * f64::from(bounds.height_px);
    width * height / area(a).min(area(b))
}

#[cfg(test)]
mod tests;
