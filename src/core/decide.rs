//! From what a model said to a verdict. Pure: the same outputs, recipe and quality give the same decision.
//!
//! The arithmetic is that of `models/common/score.py`: calibration and activation in 32-bit floats per value, then a
//! map becomes one score per label, sums in 64-bit floats. No verdict is never OK: outputs that are missing, of another
//! shape or not finite are an error.

mod boxes;
mod geometry;
mod maps;
mod nms;
mod values;

use std::fmt;

use self::{
    geometry::Geometry,
    maps::Map,
    values::{activate, calibrated, pointwise, smallest_reaching},
};
use super::{
    outputs::{Outputs, TensorView},
    quality::{QualityBound, QualityReport},
    recipe::{Activation, Calibration, Method, OutputKind, Policy, Recipe, Role},
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
    /// The box that gave the score; detection only, and only where a box was kept.
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
    /// Maps: the box around that area. Detection: the box with the highest score. `None` where there is neither.
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

/// Buffers kept from decision to decision.
#[derive(Default)]
pub struct Scratch {
    values: Vec<f32>,
    probabilities: Vec<f32>,
    boxes: boxes::Buffers,
}

/// Decides one frame from the outputs of a batch of one.
///
/// # Errors
/// [`DecideError`] when the outputs give no verdict.
pub fn decide(
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    outputs: &Outputs,
    quality: &QualityReport,
    frame_px: (u32, u32),
    scratch: &mut Scratch,
) -> Result<Judged, DecideError> {
    let method = calibration.map_or(Method::Identity, |calibration| calibration.method);
    let read = read_outputs(recipe, method, outputs, Bounds::whole(frame_px), scratch)?;
    let failed = quality.failed(&recipe.quality);
    judge(recipe, read, &failed)
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
    scratch: &mut Scratch,
) -> Result<Vec<Read>, DecideError> {
    let output = &recipe.output;
    let labels = output.labels.len();
    let tensor = finite(outputs, &output.tensor)?;
    let geometry = |map: &Map<'_>| Geometry::of_map(&recipe.input, (map.width, map.height), view);
    match &output.kind {
        OutputKind::Classification => {
            if *tensor.shape != [1, labels] {
                return Err(wrong_shape(&tensor, format!("[1, {labels}]")));
            }
            let mut scores: Vec<f32> = tensor.values.iter().map(|value| calibrated(method, *value)).collect();
            activate(output.activation, &mut scores);
            Ok(scores.into_iter().map(Read::score).collect())
        }
        OutputKind::Segmentation { map_score, pixel_threshold } => {
            let maps = Map::all(&tensor, labels)?;
            if output.activation == Activation::Softmax {
                maps::softmax_over_labels(method, &tensor, labels, &mut scratch.probabilities);
                let values = std::mem::take(&mut scratch.probabilities);
                let maps = Map::split(&values, maps[0].width, maps[0].height);
                let buffer = &mut scratch.values;
                let read = maps::read_maps(&maps, |value| value, *map_score, *pixel_threshold, geometry, buffer);
                scratch.probabilities = values;
                return Ok(read);
            }
            let to_score = pointwise(method, output);
            Ok(maps::read_maps(&maps, to_score, *map_score, *pixel_threshold, geometry, &mut scratch.values))
        }
        OutputKind::Anomaly { score_tensor, pixel_threshold } => {
            let score = finite(outputs, score_tensor)?;
            if *score.shape != [1] && *score.shape != [1, 1] {
                return Err(wrong_shape(&score, "[1] or [1, 1]".into()));
            }
            let to_score = pointwise(method, output);
            let map = &Map::all(&tensor, 1)?[0];
            let area = match pixel_threshold {
                Some(threshold) => map.area(smallest_reaching(to_score, *threshold), &geometry(map)),
                None => DefectArea::default(),
            };
            Ok(vec![Read { area, ..Read::score(to_score(score.values[0])) }])
        }
        OutputKind::Detection(detection) => {
            let geometry = Geometry::of_input(&recipe.input, view);
            boxes::read(&tensor, detection, &output.labels, pointwise(method, output), &geometry, &mut scratch.boxes)
        }
    }
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
fn judge(recipe: &Recipe, read: Vec<Read>, failed: &[QualityBound]) -> Result<Judged, DecideError> {
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
    let is_unsure = recipe.output.kind == OutputKind::Classification && scores[top].score < policy.top_score_min;
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
