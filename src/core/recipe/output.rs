//! What a recipe says of the model's output: which tensors are read, and how they become scores.

use super::{
    LABEL_BYTES_MAX, LABELS_MAX, PLACED_LABELS_MAX, RecipeError, TENSOR_NAME_BYTES_MAX, THRESHOLD_MAX, TOP_K_MAX,
    detection::{self, Detection},
    reader::{Placed, Section},
};

/// How the model's output becomes scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub kind: OutputKind,
    pub tensor: String,
    pub activation: Activation,
    /// One per channel or class, in order; the same labels in the same order as [`Policy::labels`].
    pub labels: Vec<String>,
}

impl Output {
    /// The model outputs that are read.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        let score = match &self.kind {
            OutputKind::Anomaly { score_tensor, .. } => Some(score_tensor.as_str()),
            OutputKind::Classification | OutputKind::Segmentation { .. } | OutputKind::Detection(_) => None,
        };
        std::iter::once(self.tensor.as_str()).chain(score)
    }
}

/// What the output tensor holds.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputKind {
    /// `[N, L]`.
    Classification,
    /// `[N, L, h, w]`.
    Segmentation {
        map_score: MapScore,
        /// A pixel at or above it is defect area.
        pixel_threshold: f32,
    },
    /// A map `[N, 1, h, w]` or `[N, h, w]` and a score `[N]` or `[N, 1]`.
    Anomaly {
        score_tensor: String,
        /// A pixel at or above it is defect area; without it no area is reported.
        pixel_threshold: Option<f32>,
    },
    /// Boxes; format 2.
    Detection(Detection),
}

/// How a map becomes one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapScore {
    Max,
    /// Mean of the k largest values, of all values if there are fewer.
    TopKMean {
        k: u32,
    },
    /// Share of the pixels at or above the pixel threshold.
    AreaShare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Sigmoid,
    /// Over labels.
    Softmax,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Classification,
    Segmentation,
    Anomaly,
    Detection,
}

const KINDS: [(&str, Kind); 4] = [
    ("classification", Kind::Classification),
    ("segmentation", Kind::Segmentation),
    ("anomaly", Kind::Anomaly),
    ("detection", Kind::Detection),
];

pub(super) fn output(mut section: Section<'_>, format: u64, has_tiles: bool) -> Result<Output, RecipeError> {
    let kind = section.required("kind")?.word(if format == 1 { &KINDS[..3] } else { &KINDS })?;
    let tensor = section.required("tensor")?.text(TENSOR_NAME_BYTES_MAX)?;
    let activation_value = section.required("activation")?;
    let activation = activation_value.word(&[
        ("none", Activation::None),
        ("sigmoid", Activation::Sigmoid),
        ("softmax", Activation::Softmax),
    ])?;
    let labels_value = section.required("labels")?;
    let labels = labels(&labels_value)?;
    if kind == Kind::Anomaly && labels.len() != 1 {
        return Err(labels_value.problem(format!("has {} labels, an anomaly model has exactly one", labels.len())));
    }
    if activation == Activation::Softmax && labels.len() < 2 {
        return Err(activation_value.problem("is softmax over one label, which is always 1"));
    }
    let kind = if kind == Kind::Detection {
        if activation == Activation::Softmax {
            return Err(activation_value.problem("is softmax, which no layout of boxes needs; use none or sigmoid"));
        }
        if labels.len() > PLACED_LABELS_MAX {
            return Err(
                labels_value.problem(format!("has {} labels; boxes have at most {PLACED_LABELS_MAX}", labels.len()))
            );
        }
        OutputKind::Detection(detection::detection(&mut section, activation, has_tiles)?)
    } else {
        output_kind(&mut section, kind)?
    };
    section.finish()?;
    Ok(Output { kind, tensor, activation, labels })
}

fn labels(value: &Placed<'_>) -> Result<Vec<String>, RecipeError> {
    let mut labels: Vec<String> = Vec::new();
    for item in value.array(LABELS_MAX)? {
        let label = item.text(LABEL_BYTES_MAX)?;
        // Labels stand in reason codes and CSV files.
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return Err(item.problem("may hold only letters, digits, '.', '_' and '-'"));
        }
        if labels.contains(&label) {
            return Err(item.problem(format!("names {label} a second time")));
        }
        labels.push(label);
    }
    Ok(labels)
}

fn output_kind(section: &mut Section<'_>, kind: Kind) -> Result<OutputKind, RecipeError> {
    let score_tensor = section.optional("score_tensor");
    let map_score = section.optional("map_score");
    let top_k = section.optional("top_k");
    let threshold = section.optional("pixel_threshold");
    let needs = |key: &'static str, who: &str| section.problem(key, format!("is missing; {who} needs it"));
    let only = |value: &Option<Placed<'_>>, who: &str| match value {
        Some(value) => Err(value.problem(format!("has a meaning only for {who}"))),
        None => Ok(()),
    };
    if kind != Kind::Anomaly {
        only(&score_tensor, "anomaly models")?;
    }
    if kind != Kind::Segmentation {
        only(&map_score, "segmentation models")?;
        only(&top_k, "segmentation models")?;
    }
    let threshold_of = |value: Placed<'_>| value.number(-THRESHOLD_MAX..=THRESHOLD_MAX);
    match kind {
        Kind::Classification => {
            only(&threshold, "segmentation and anomaly models")?;
            Ok(OutputKind::Classification)
        }
        Kind::Segmentation => {
            let top_k = top_k.map(|value| value.integer_u32(1..=TOP_K_MAX)).transpose()?;
            let map_score = map_score.ok_or_else(|| needs("map_score", "segmentation"))?;
            let map_score = match map_score.word(&[("max", 0), ("top-k-mean", 1), ("area-share", 2)])? {
                0 => MapScore::Max,
                1 => MapScore::TopKMean { k: top_k.ok_or_else(|| needs("top_k", "map_score = \"top-k-mean\""))? },
                _ => MapScore::AreaShare,
            };
            let pixel_threshold = threshold_of(threshold.ok_or_else(|| needs("pixel_threshold", "segmentation"))?)?;
            Ok(OutputKind::Segmentation { map_score, pixel_threshold })
        }
        Kind::Anomaly => {
            let score_tensor = score_tensor.ok_or_else(|| needs("score_tensor", "an anomaly model"))?;
            Ok(OutputKind::Anomaly {
                score_tensor: score_tensor.text(TENSOR_NAME_BYTES_MAX)?,
                pixel_threshold: threshold.map(threshold_of).transpose()?,
            })
        }
        Kind::Detection => unreachable!("boxes have keys of their own"),
    }
}
