//! What a recipe says of a detection model: how its output lies, and which boxes count.

use super::{
    Activation, LabelPolicy, RecipeError, Role,
    reader::{Placed, Section},
};

/// Most boxes kept of one label: Ultralytics' `max_det`, there for all labels together.
pub const BOXES_MAX: u32 = 300;
/// Largest `box_side_px_min`.
const SIDE_PX_MAX: u32 = 4096;

/// How boxes become scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    pub layout: BoxLayout,
    pub box_labels: BoxLabels,
    /// A box with a lower score is no box, 0 to 1.
    pub score_min: f32,
    /// Of two boxes of one label whose intersection over union is above it, the one with the lower score goes; boxes of
    /// different tiles by their intersection over the smaller one. `None`: the graph has suppressed, and there are no tiles.
    pub iou_max: Option<f32>,
    /// Boxes kept of each label.
    pub boxes_max: u32,
    /// A box with a shorter side on the frame, in frame pixels, is no box.
    pub side_px_min: u32,
}

/// How the output tensor lies; coordinates are pixels of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxLayout {
    /// `[1, 4 + L, rows]`: centre, size, a score per label.
    YoloV8,
    /// `[1, rows, 5 + L]`: centre, size, objectness, a share of it per label.
    YoloV5,
    /// `[1, rows, 6]`: left, top, right, bottom, score, number of the label; suppressed already.
    Nms,
}

/// Which labels one row of a raw layout can give a box of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxLabels {
    /// The one with the highest score.
    Best,
    /// Each whose score is high enough.
    All,
}

/// Reads the keys of `[output]` that only detection has.
pub(super) fn detection(
    section: &mut Section<'_>,
    activation: Activation,
    has_tiles: bool,
) -> Result<Detection, RecipeError> {
    let layout_value = section.required("layout")?;
    let layout = layout_value.word(&[
        ("yolo-v8", BoxLayout::YoloV8),
        ("yolo-v5", BoxLayout::YoloV5),
        ("nms", BoxLayout::Nms),
    ])?;
    if layout == BoxLayout::YoloV5 && activation != Activation::None {
        return Err(layout_value.problem("is yolo-v5, whose scores are products of shares; its activation is none"));
    }
    let box_labels = section.optional("box_labels");
    let iou_max = section.optional("iou_max");
    let missing = |key, who: &str| section.problem(key, format!("is missing; {who} needs it"));
    let is_raw = layout != BoxLayout::Nms;
    let box_labels = match box_labels {
        Some(value) if !is_raw => {
            return Err(value.problem("has no meaning for layout = \"nms\", whose graph has chosen the boxes"));
        }
        Some(value) => value.word(&[("best", BoxLabels::Best), ("all", BoxLabels::All)])?,
        None if is_raw => return Err(missing("box_labels", "a layout without suppression")),
        None => BoxLabels::Best,
    };
    let iou_max = match iou_max {
        Some(value) if !is_raw && !has_tiles => {
            return Err(value.problem("has no meaning for layout = \"nms\" without [tiling]: the graph has suppressed"));
        }
        Some(value) => Some(value.number(0.0..=1.0)?),
        None if is_raw => return Err(missing("iou_max", "a layout without suppression")),
        None if has_tiles => return Err(missing("iou_max", "[tiling], for boxes of neighbours,")),
        None => None,
    };
    Ok(Detection {
        layout,
        box_labels,
        score_min: section.required("box_score_min")?.number(0.0..=1.0)?,
        iou_max,
        boxes_max: section.required("boxes_max")?.integer_u32(1..=BOXES_MAX)?,
        side_px_min: section.required("box_side_px_min")?.integer_u32(1..=SIDE_PX_MAX)?,
    })
}

/// A box that a threshold asks for must not have been dropped before.
pub(super) fn check_policy(at: &Placed<'_>, detection: &Detection, labels: &[LabelPolicy]) -> Result<(), RecipeError> {
    for policy in labels {
        if let Role::Defect { review, .. } = policy.role
            && review.get() < detection.score_min
        {
            return Err(at.problem(format!(
                "and review: label {} is reviewed from {} on, but output.box_score_min drops boxes below {}; lower that",
                policy.label,
                review.get(),
                detection.score_min
            )));
        }
    }
    Ok(())
}
