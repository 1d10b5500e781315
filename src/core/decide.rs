//! From what a model said to a verdict. Pure: the same outputs, recipe and quality give the same decision.
//!
//! The arithmetic is that of `models/common/score.py`: calibration and activation in 32-bit floats per value, then a
//! map becomes one score per label, sums in 64-bit floats. No verdict is never OK: outputs that are missing, of another
//! shape or not finite are an error.

use std::fmt;

use super::{
    outputs::{Outputs, TensorView},
    preprocess::Placement,
    quality::{QualityBound, QualityReport},
    recipe::{Activation, Calibration, Input, MapScore, Method, Output, OutputKind, Policy, Recipe, Role},
};
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
    /// One per label, in the same order, where the output is a map with a pixel threshold; otherwise empty.
    pub areas: Vec<DefectArea>,
}

/// A label's score with the thresholds it was compared with; labels that are no defect have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelScore {
    pub label: String,
    pub score: Score,
    pub review: Option<Score>,
    pub reject: Option<Score>,
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

/// The pixels of a map at or above the pixel threshold, measured on the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefectArea {
    /// Frame pixels, rounded: map pixels times the frame pixels that one of them covers.
    pub area_px: u64,
    /// `None` when the area is zero.
    pub bounds: Option<Bounds>,
}

/// A box in frame pixels, at least 1x1 and within the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub x_px: u32,
    pub y_px: u32,
    pub width_px: u32,
    pub height_px: u32,
}

/// Buffers kept from decision to decision.
#[derive(Default)]
pub struct Scratch {
    values: Vec<f32>,
    probabilities: Vec<f32>,
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
    let read = read_outputs(recipe, method, outputs, frame_px, scratch)?;
    let scores = label_scores(&recipe.policy, &read.scores)?;
    let failed = quality.failed(&recipe.quality);
    Ok(judge(recipe, scores, &failed, read.areas))
}

/// Scores and areas per label.
struct Read {
    scores: Vec<f32>,
    areas: Vec<DefectArea>,
}

fn read_outputs(
    recipe: &Recipe,
    method: Method,
    outputs: &Outputs,
    frame_px: (u32, u32),
    scratch: &mut Scratch,
) -> Result<Read, DecideError> {
    let output = &recipe.output;
    let labels = output.labels.len();
    let tensor = finite(outputs, &output.tensor)?;
    let geometry = |map: &Map<'_>| Geometry::new(&recipe.input, map, frame_px);
    match &output.kind {
        OutputKind::Classification => {
            if *tensor.shape != [1, labels] {
                return Err(wrong_shape(&tensor, format!("[1, {labels}]")));
            }
            let mut scores: Vec<f32> = tensor.values.iter().map(|value| calibrated(method, *value)).collect();
            activate(output.activation, &mut scores);
            Ok(Read { scores, areas: Vec::new() })
        }
        OutputKind::Segmentation { map_score, pixel_threshold } => {
            let maps = Map::all(&tensor, labels)?;
            if output.activation == Activation::Softmax {
                softmax_over_labels(method, &tensor, labels, &mut scratch.probabilities);
                let values = std::mem::take(&mut scratch.probabilities);
                let maps = Map::split(&values, maps[0].width, maps[0].height);
                let read = read_maps(&maps, |value| value, *map_score, *pixel_threshold, geometry, &mut scratch.values);
                scratch.probabilities = values;
                return Ok(read);
            }
            let to_score = pointwise(method, output);
            Ok(read_maps(&maps, to_score, *map_score, *pixel_threshold, geometry, &mut scratch.values))
        }
        OutputKind::Anomaly { score_tensor, pixel_threshold } => {
            let score = finite(outputs, score_tensor)?;
            if *score.shape != [1] && *score.shape != [1, 1] {
                return Err(wrong_shape(&score, "[1] or [1, 1]".into()));
            }
            let to_score = pointwise(method, output);
            let maps = Map::all(&tensor, 1)?;
            let areas = match pixel_threshold {
                Some(threshold) => {
                    let from = smallest_reaching(to_score, *threshold);
                    maps.iter().map(|map| map.area(from, &geometry(map))).collect()
                }
                None => Vec::new(),
            };
            Ok(Read { scores: vec![to_score(score.values[0])], areas })
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

// ---- values ----

fn calibrated(method: Method, value: f32) -> f32 {
    match method {
        Method::Identity => value,
        Method::Temperature(temperature) => value / temperature,
        Method::Platt { slope, intercept } => value * slope + intercept,
    }
}

/// `1 / (1 + exp(-x))`, written with tanh so that nothing overflows.
fn sigmoid(value: f32) -> f32 {
    0.5 * ((0.5 * value).tanh() + 1.0)
}

/// Calibration and activation of one value by itself; both never fall when the value rises.
fn pointwise(method: Method, output: &Output) -> impl Fn(f32) -> f32 + Copy + 'static {
    let is_sigmoid = match output.activation {
        Activation::None => false,
        Activation::Sigmoid => true,
        Activation::Softmax => unreachable!("softmax needs all labels; the recipe allows it for no single value"),
    };
    move |value| {
        let value = calibrated(method, value);
        if is_sigmoid { sigmoid(value) } else { value }
    }
}

fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
        Activation::Softmax => softmax(values),
    }
}

/// Softmax with the largest value taken off first, so that no exponential overflows.
#[expect(clippy::cast_possible_truncation, reason = "a share of one")]
fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    values.iter_mut().for_each(|value| *value = (f64::from(*value) / sum) as f32);
}

/// Softmax of every pixel over its labels, in the layout of the tensor.
fn softmax_over_labels(method: Method, tensor: &TensorView<'_>, labels: usize, out: &mut Vec<f32>) {
    out.clear();
    out.extend(tensor.values.iter().map(|value| calibrated(method, *value)));
    let pixels = out.len() / labels;
    let mut column = vec![0.0; labels];
    for pixel in 0..pixels {
        for (label, value) in column.iter_mut().enumerate() {
            *value = out[label * pixels + pixel];
        }
        softmax(&mut column);
        for (label, value) in column.iter().enumerate() {
            out[label * pixels + pixel] = *value;
        }
    }
}

// ---- maps ----

/// One label's map.
struct Map<'a> {
    width: usize,
    height: usize,
    values: &'a [f32],
}

impl<'a> Map<'a> {
    /// The maps of `[1, labels, h, w]`, for one label also of `[1, h, w]`.
    fn all(tensor: &TensorView<'a>, labels: usize) -> Result<Vec<Self>, DecideError> {
        match *tensor.shape {
            [1, channels, height, width] if channels == labels && height > 0 && width > 0 => {
                Ok(Self::split(tensor.values, width, height))
            }
            [1, height, width] if labels == 1 && height > 0 && width > 0 => {
                Ok(Self::split(tensor.values, width, height))
            }
            _ => Err(wrong_shape(tensor, format!("[1, {labels}, h, w]"))),
        }
    }

    fn split(values: &'a [f32], width: usize, height: usize) -> Vec<Self> {
        values.chunks_exact(width * height).map(|values| Self { width, height, values }).collect()
    }

    /// The area of the values at or above `from`, and its box.
    fn area(&self, from: Option<f32>, geometry: &Geometry) -> DefectArea {
        let Some(from) = from else { return DefectArea::default() };
        let mut count = 0;
        let (mut left, mut right, mut top, mut bottom) = (self.width, 0, self.height, 0);
        for (y, row) in self.values.chunks_exact(self.width).enumerate() {
            let reached = row.iter().map(|value| usize::from(*value >= from)).sum::<usize>();
            if reached == 0 {
                continue;
            }
            count += reached;
            (top, bottom) = (top.min(y), y + 1);
            let reaches = |value: &f32| *value >= from;
            left = left.min(row.iter().position(reaches).expect("the row has one"));
            right = right.max(row.iter().rposition(reaches).expect("the row has one") + 1);
        }
        if count == 0 {
            return DefectArea::default();
        }
        DefectArea { area_px: geometry.area(count), bounds: Some(geometry.bounds((left, top), (right, bottom))) }
    }
}

fn read_maps(
    maps: &[Map<'_>],
    to_score: impl Fn(f32) -> f32 + Copy,
    map_score: MapScore,
    pixel_threshold: f32,
    geometry: impl Fn(&Map<'_>) -> Geometry,
    buffer: &mut Vec<f32>,
) -> Read {
    let from = smallest_reaching(to_score, pixel_threshold);
    let scores = maps.iter().map(|map| score_of_map(map.values, to_score, map_score, from, buffer)).collect();
    let areas = maps.iter().map(|map| map.area(from, &geometry(map))).collect();
    Read { scores, areas }
}

/// One score from a map of values before `to_score`, which never falls: so the largest values are the largest scores,
/// and only those need computing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "scores are 32-bit; maps have < 2^53 values"
)]
fn score_of_map(
    values: &[f32],
    to_score: impl Fn(f32) -> f32,
    map_score: MapScore,
    from: Option<f32>,
    buffer: &mut Vec<f32>,
) -> f32 {
    match map_score {
        MapScore::Max => to_score(values.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        MapScore::AreaShare => {
            let reached = from.map_or(0, |from| values.iter().filter(|value| **value >= from).count());
            (reached as f64 / values.len() as f64) as f32
        }
        MapScore::TopKMean { k } => {
            let k = (k as usize).min(values.len());
            buffer.clear();
            buffer.extend_from_slice(values);
            if k < buffer.len() {
                buffer.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            }
            let sum: f64 = buffer[..k].iter().map(|value| f64::from(to_score(*value))).sum();
            (sum / k as f64) as f32
        }
    }
}

/// The smallest finite value whose score reaches `threshold`, found by halving the ordered floats, so that comparing a
/// value with it is exactly comparing the value's score with the threshold. `None` when no value reaches it.
fn smallest_reaching(to_score: impl Fn(f32) -> f32, threshold: f32) -> Option<f32> {
    let reaches = |key: u32| to_score(from_ordered(key)) >= threshold;
    let (mut below, mut reached) = (ordered(f32::MIN), ordered(f32::MAX));
    if !reaches(reached) {
        return None;
    }
    if reaches(below) {
        return Some(f32::MIN);
    }
    while reached - below > 1 {
        let middle = below + (reached - below) / 2;
        if reaches(middle) { reached = middle } else { below = middle }
    }
    Some(from_ordered(reached))
}

/// Bits whose unsigned order is the numeric order.
fn ordered(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

fn from_ordered(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

/// From places in a map to places in the frame.
struct Geometry {
    /// Input pixels per map pixel.
    scale: (f64, f64),
    placement: Placement,
    frame_px: (u32, u32),
}

impl Geometry {
    #[expect(clippy::cast_precision_loss, reason = "sides of maps")]
    fn new(input: &Input, map: &Map<'_>, frame_px: (u32, u32)) -> Self {
        Self {
            scale: (f64::from(input.width_px) / map.width as f64, f64::from(input.height_px) / map.height as f64),
            placement: Placement::of(input, frame_px.0, frame_px.1),
            frame_px,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the frame's pixels"
    )]
    fn area(&self, map_px: usize) -> u64 {
        let frame = f64::from(self.frame_px.0) * f64::from(self.frame_px.1);
        let placed = f64::from(self.placement.width_px) * f64::from(self.placement.height_px);
        let area = map_px as f64 * self.scale.0 * self.scale.1 * frame / placed;
        // A map also covers the padding of a letterbox, which is no part of the frame.
        (area.round() as u64).clamp(1, u64::from(self.frame_px.0) * u64::from(self.frame_px.1))
    }

    fn bounds(&self, (left, top): (usize, usize), (right, bottom): (usize, usize)) -> Bounds {
        let Placement { left_px, top_px, width_px, height_px } = self.placement;
        let (x_px, x_end) = side((left, right), self.scale.0, (left_px, width_px), self.frame_px.0);
        let (y_px, y_end) = side((top, bottom), self.scale.1, (top_px, height_px), self.frame_px.1);
        Bounds { x_px, y_px, width_px: x_end - x_px, height_px: y_end - y_px }
    }
}

/// One side of a box: outwards to whole frame pixels, at least one of them.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the frame"
)]
fn side((start, end): (usize, usize), scale: f64, (offset, placed): (u32, u32), frame: u32) -> (u32, u32) {
    let on_frame = |place: usize| (place as f64 * scale - f64::from(offset)) * f64::from(frame) / f64::from(placed);
    let start = on_frame(start).floor().clamp(0.0, f64::from(frame - 1)) as u32;
    let end = on_frame(end).ceil().clamp(f64::from(start + 1), f64::from(frame)) as u32;
    (start, end)
}

// ---- the verdict ----

fn label_scores(policy: &Policy, scores: &[f32]) -> Result<Vec<LabelScore>, DecideError> {
    let labelled = policy.labels.iter().zip(scores).map(|(policy, score)| {
        let label = policy.label.clone();
        let Ok(score) = Score::new(*score) else { return Err(DecideError::ScoreNotFinite { label }) };
        Ok(match policy.role {
            Role::Defect { review, reject } => LabelScore { label, score, review: Some(review), reject: Some(reject) },
            Role::Ok => LabelScore { label, score, review: None, reject: None },
        })
    });
    labelled.collect()
}

/// The rules of `docs/spec/recipe.md`, "From scores to a verdict".
fn judge(recipe: &Recipe, scores: Vec<LabelScore>, failed: &[QualityBound], areas: Vec<DefectArea>) -> Judged {
    let policy = &recipe.policy;
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
    Judged { verdict, score, top, scores, reasons, areas }
}

#[cfg(test)]
mod tests;
