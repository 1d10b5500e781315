//! From what a model said to a verdict. Pure: the same outputs, recipe and quality give the same decision.
//!
//! The arithmetic is that of `models/common/score.py`: calibration and activation in 32-bit floats per value, then a
//! map becomes one score per label, sums in 64-bit floats. No verdict is never OK: outputs that are missing, of another
//! shape or not finite are an error.

mod boxes;
mod geometry;
mod maps;
mod mosaic;
mod nms;
mod tiles;
mod values;

use std::{fmt, sync::Arc};

use self::{
    geometry::Geometry,
    maps::{Counted, Map, MapRule},
    tiles::{Ground, Tiles},
    values::{activate, calibrated, pointwise, smallest_reaching},
};
use super::{
    mask::Mask,
    outputs::{Outputs, TensorView},
    quality::{QualityBound, QualityReport},
    recipe::{Activation, Calibration, Detection, Method, Output, OutputKind, Policy, Recipe, Role},
    views::Views,
};
pub use crate::types::Bounds;
use crate::types::{Score, Verdict};

/// Why a model's outputs give no verdict. Every one is an inference fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecideError {
    #[error("the model gave no output {tensor:?}; the recipe reads it")]
    Missing { tensor: String },
    #[error("output {tensor:?} has shape {found:?}; the recipe says {expected}")]
    Shape { tensor: String, found: Vec<usize>, expected: String },
    #[error("output {tensor:?} holds a value that is not finite; no verdict is given")]
    NotFinite { tensor: String },
    #[error("the score of label {label} is not finite; no verdict is given")]
    ScoreNotFinite { label: String },
    #[error(
        "the region is so small that no value of output {tensor:?} has its centre in it; take a finer map or a larger region"
    )]
    NothingCounts { tensor: String },
    #[error(
        "output {tensor:?} has maps of {}x{} for a tile, which makes {labels} of {width}x{height} for the frame; \
         take a model with coarser maps, larger tiles or a smaller region", .tile.0, .tile.1
    )]
    Mosaic { tensor: String, width: usize, height: usize, labels: usize, tile: (usize, usize) },
    #[error("a box in output {tensor:?} is of class {class}; the recipe has {labels} labels, counted from 0")]
    Class { tensor: String, class: String, labels: usize },
}

/// What the recipe says of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub verdict: Verdict,
    /// The decision score: the largest among the defect labels.
    pub score: Score,
    /// Position in `scores` of the largest score of all; the first one of equals.
    pub top: usize,
    /// One per label of the recipe, in its order.
    pub scores: Vec<LabelScore>,
    /// Why the verdict is what it is; empty for a plain OK.
    pub reasons: Vec<Reason>,
    /// One per label, in the same order.
    pub areas: Vec<DefectArea>,
}

/// A label's score with the thresholds it was compared with; labels that are no defect have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelScore {
    pub label: String,
    pub score: Score,
    pub review: Option<Score>,
    pub reject: Option<Score>,
    /// What gave the score: the box of a detection, where one was kept; the tile of a classification or an anomaly that was
    /// looked at in tiles.
    pub at: Option<Bounds>,
    /// Boxes kept; detection only.
    pub boxes: Option<u32>,
}

/// A reason code of a decision entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A quality bound failed: `quality:<key of the recipe>`.
    Quality(QualityBound),
    /// `reject:<label>`.
    Reject(String),
    /// `review:<label>`.
    Review(String),
    /// The top score of a classification is too low: `top_score_min`.
    TopScoreMin,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quality(bound) => write!(f, "quality:{bound}"),
            Self::Reject(label) => write!(f, "reject:{label}"),
            Self::Review(label) => write!(f, "review:{label}"),
            Self::TopScoreMin => f.write_str("top_score_min"),
        }
    }
}

/// Where on the frame a label was found: what a line shows to its operator. It is not part of the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefectArea {
    /// Maps with a pixel threshold: the frame pixels at or above it, rounded: map pixels times the frame pixels that one of
    /// them covers.
    pub area_px: Option<u64>,
    /// Maps: the box around that area. Detection: the box with the highest score. Classification in tiles: the tile with the
    /// highest score. `None` where there is neither.
    pub bounds: Option<Bounds>,
    /// Detection: the boxes kept, highest score first.
    pub boxes: Vec<DetectedBox>,
}

/// A box of a detection model that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectedBox {
    pub bounds: Bounds,
    pub score: Score,
}

/// Decides frames of one recipe: [`Self::begin`], [`Self::add`] for every view, [`Self::judge`]. One per thread; what it allocates
/// it keeps for the next frame.
#[derive(Default)]
pub struct Decider {
    /// The pixels that count; all without one.
    mask: Option<Arc<Mask>>,
    /// The views of frames of this size, which seldom changes.
    frame_px: Option<(u32, u32)>,
    views: Views,
    /// How many views' outputs were added.
    added: usize,
    method: Option<Method>,
    /// One per label, from the only view.
    read: Vec<Read>,
    tiles: Tiles,
    scratch: Scratch,
}

/// Buffers kept from decision to decision.
#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    probabilities: Vec<f32>,
    counted: Counted,
    boxes: boxes::Buffers,
}

impl Decider {
    #[must_use]
    pub fn new(mask: Option<Arc<Mask>>) -> Self {
        Self { mask, ..Self::default() }
    }

    /// Decides one frame that the model saw whole, from the outputs of a batch of one.
    ///
    /// # Errors
    /// [`DecideError`] when the outputs give no verdict.
    pub fn decide(
        &mut self,
        recipe: &Recipe,
        calibration: Option<&Calibration>,
        outputs: &Outputs,
        quality: &QualityReport,
        frame_px: (u32, u32),
    ) -> Result<Judged, DecideError> {
        self.begin(recipe, frame_px);
        self.add(recipe, calibration, outputs)?;
        self.judge(recipe, quality)
    }

    /// Forgets the frame before; the views of this one, whose outputs are to be added in this order.
    pub fn begin(&mut self, recipe: &Recipe, frame_px: (u32, u32)) -> Vec<Bounds> {
        if self.frame_px != Some(frame_px) {
            self.views = Views::of(recipe, frame_px, self.mask.as_deref());
            self.frame_px = Some(frame_px);
        }
        self.added = 0;
        self.read.clear();
        self.tiles.begin();
        self.views.views.clone()
    }

    /// Takes what the model said of the next view.
    ///
    /// # Errors
    /// [`DecideError`] when the outputs give no verdict.
    pub fn add(
        &mut self,
        recipe: &Recipe,
        calibration: Option<&Calibration>,
        outputs: &Outputs,
    ) -> Result<(), DecideError> {
        let method = calibration.map_or(Method::Identity, |calibration| calibration.method);
        let view = self.views.views[self.added];
        let Self { mask, views, tiles, scratch, .. } = self;
        let mask = mask.as_deref();
        if views.is_tiled {
            let ground = Ground { recipe, method, mask, window: views.window.expect("begun") };
            tiles.add(&ground, outputs, (self.added, view), scratch)?;
        } else {
            self.read = read_outputs(recipe, method, outputs, view, mask, scratch)?;
        }
        self.method = Some(method);
        self.added += 1;
        Ok(())
    }

    /// The decision on all views.
    ///
    /// # Errors
    /// [`DecideError`] when the outputs give no verdict.
    ///
    /// # Panics
    /// If a view is missing: what was not looked at is never OK.
    pub fn judge(&mut self, recipe: &Recipe, quality: &QualityReport) -> Result<Judged, DecideError> {
        let Self { mask, views, tiles, scratch, .. } = self;
        assert!(
            self.added > 0 && self.added == views.views.len(),
            "every view is looked at before the frame is judged"
        );
        let failed = quality.failed(&recipe.quality);
        if !views.is_tiled {
            return judge(recipe, std::mem::take(&mut self.read), &failed, false);
        }
        let (method, window) = (self.method.expect("added"), views.window.expect("begun"));
        let ground = Ground { recipe, method, mask: mask.as_deref(), window };
        let read = tiles.finish(&ground, scratch)?;
        judge(recipe, read, &failed, tiles.is_unsure)
    }
}

/// What the outputs say of one label.
#[derive(Clone, Debug, Default)]
struct Read {
    score: f32,
    area: DefectArea,
    at: Option<Bounds>,
    boxes: Option<u32>,
}

impl Read {
    fn score(score: f32) -> Self {
        Self { score, ..Self::default() }
    }
}

/// One [`Read`] per label, from the outputs for `view` of the frame.
fn read_outputs(
    recipe: &Recipe,
    method: Method,
    outputs: &Outputs,
    view: Bounds,
    mask: Option<&Mask>,
    scratch: &mut Scratch,
) -> Result<Vec<Read>, DecideError> {
    let output = &recipe.output;
    let labels = output.labels.len();
    let tensor = finite(outputs, &output.tensor)?;
    let geometry = |map: &Map<'_>| Geometry::of_map(&recipe.input, (map.width, map.height), view);
    match &output.kind {
        OutputKind::Classification => Ok(class_scores(&tensor, output, method)?.into_iter().map(Read::score).collect()),
        OutputKind::Segmentation { map_score, pixel_threshold } => {
            let maps = Map::all(&tensor, labels)?;
            let rule = MapRule { map_score: *map_score, pixel_threshold: *pixel_threshold };
            let geometry = geometry(&maps[0]);
            let Scratch { values, probabilities, counted, .. } = scratch;
            let counted = counted.of(mask, tensor.name, &maps[0], &geometry)?;
            if output.activation == Activation::Softmax {
                maps::softmax_over_labels(method, &tensor, labels, probabilities);
                let maps = Map::split(probabilities, maps[0].width, maps[0].height);
                return Ok(maps::read(&maps, |value| value, rule, &geometry, counted, values));
            }
            Ok(maps::read(&maps, pointwise(method, output), rule, &geometry, counted, values))
        }
        OutputKind::Anomaly { score_tensor, pixel_threshold } => {
            let score = anomaly_score(outputs, score_tensor, output, method)?;
            let map = &Map::all(&tensor, 1)?[0];
            let area = match pixel_threshold {
                Some(threshold) => {
                    let geometry = geometry(map);
                    let Scratch { values, counted, .. } = scratch;
                    let counted = counted.of(mask, tensor.name, map, &geometry)?;
                    let from = smallest_reaching(pointwise(method, output), *threshold);
                    map.masked(counted, values).area(from, &geometry)
                }
                None => DefectArea::default(),
            };
            Ok(vec![Read { area, ..Read::score(score) }])
        }
        OutputKind::Detection(detection) => read_boxes(&tensor, detection, recipe, method, view, mask, scratch),
    }
}

/// One score per label of a classification.
fn class_scores(tensor: &TensorView<'_>, output: &Output, method: Method) -> Result<Vec<f32>, DecideError> {
    let labels = output.labels.len();
    if *tensor.shape != [1, labels] {
        return Err(wrong_shape(tensor, format!("[1, {labels}]")));
    }
    let mut scores: Vec<f32> = tensor.values.iter().map(|value| calibrated(method, *value)).collect();
    activate(output.activation, &mut scores);
    Ok(scores)
}

/// The score that an anomaly model gives beside its map.
fn anomaly_score(outputs: &Outputs, name: &str, output: &Output, method: Method) -> Result<f32, DecideError> {
    let score = finite(outputs, name)?;
    if *score.shape != [1] && *score.shape != [1, 1] {
        return Err(wrong_shape(&score, "[1] or [1, 1]".into()));
    }
    Ok(pointwise(method, output)(score.values[0]))
}

/// The boxes in `view`.
fn read_boxes(
    tensor: &TensorView<'_>,
    detection: &Detection,
    recipe: &Recipe,
    method: Method,
    view: Bounds,
    mask: Option<&Mask>,
    scratch: &mut Scratch,
) -> Result<Vec<Read>, DecideError> {
    let share_min = recipe.region.as_ref().and_then(|region| region.box_share_min);
    let place = boxes::Place { geometry: Geometry::of_input(&recipe.input, view), inside: mask.zip(share_min) };
    let to_score = pointwise(method, &recipe.output);
    boxes::read(tensor, detection, &recipe.output.labels, to_score, &place, &mut scratch.boxes)
}

/// The output of this name, all of it finite.
fn finite<'o>(outputs: &'o Outputs, name: &str) -> Result<TensorView<'o>, DecideError> {
    let tensor = outputs.get(name).ok_or_else(|| DecideError::Missing { tensor: name.to_owned() })?;
    // A fold instead of `all` looks at every value without branching, which is several times faster on maps.
    let is_finite = tensor.values.iter().fold(true, |all, value| all & value.is_finite());
    if is_finite { Ok(tensor) } else { Err(DecideError::NotFinite { tensor: name.to_owned() }) }
}

fn wrong_shape(tensor: &TensorView<'_>, expected: String) -> DecideError {
    DecideError::Shape { tensor: tensor.name.to_owned(), found: tensor.shape.to_vec(), expected }
}

// ---- the verdict ----

fn label_scores(policy: &Policy, read: &[Read]) -> Result<Vec<LabelScore>, DecideError> {
    let labelled = policy.labels.iter().zip(read).map(|(policy, read)| {
        let label = policy.label.clone();
        let Ok(score) = Score::new(read.score) else { return Err(DecideError::ScoreNotFinite { label }) };
        let (review, reject) = match policy.role {
            Role::Defect { review, reject } => (Some(review), Some(reject)),
            Role::Ok => (None, None),
        };
        Ok(LabelScore { label, score, review, reject, at: read.at, boxes: read.boxes })
    });
    labelled.collect()
}

/// The rules of `docs/spec/recipe.md`, "From scores to a verdict".
fn judge(
    recipe: &Recipe,
    read: Vec<Read>,
    failed: &[QualityBound],
    has_unsure_tile: bool,
) -> Result<Judged, DecideError> {
    let policy = &recipe.policy;
    let scores = label_scores(policy, &read)?;
    let mut reasons: Vec<Reason> = failed.iter().copied().map(Reason::Quality).collect();
    let mut verdict = Verdict::Ok;
    let mut decision_score: Option<Score> = None;
    for score in &scores {
        let (Some(review), Some(reject)) = (score.review, score.reject) else { continue };
        decision_score = decision_score.max(Some(score.score));
        if policy.comparator.reaches(score.score, reject) {
            verdict = verdict.max(Verdict::NotOk);
            reasons.push(Reason::Reject(score.label.clone()));
        } else if policy.comparator.reaches(score.score, review) {
            verdict = verdict.max(Verdict::NotDecidable);
            reasons.push(Reason::Review(score.label.clone()));
        }
    }
    let top = (0..scores.len()).rev().max_by_key(|at| scores[*at].score).expect("a recipe has labels");
    let is_classification = recipe.output.kind == OutputKind::Classification;
    let is_unsure = has_unsure_tile || is_classification && scores[top].score < policy.top_score_min;
    if is_unsure {
        reasons.push(Reason::TopScoreMin);
    }
    if is_unsure || !failed.is_empty() {
        verdict = Verdict::NotDecidable;
    }
    let score = decision_score.expect("a recipe has a defect label");
    let areas = read.into_iter().map(|read| read.area).collect();
    Ok(Judged { verdict, score, top, scores, reasons, areas })
}

#[cfg(test)]
mod tests;
