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
    /// Of two boxes of one label whose intersection over union is above it, the one with the lower score goes. `None`:
    /// the graph has done that already.
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
pub(super) fn detection(section: &mut Section<'_>, activation: Activation) -> Result<Detection, RecipeError> {
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
    let (box_labels, iou_max) = if layout == BoxLayout::Nms {
        if let Some(value) = box_labels.or(iou_max) {
            return Err(value.problem("has no meaning for layout = \"nms\", whose graph has chosen the boxes"));
        }
        (BoxLabels::Best, None)
    } else {
        let missing = |key| section.problem(key, "is missing; a layout without suppression needs it".to_owned());
        let words = [("best", BoxLabels::Best), ("all", BoxLabels::All)];
        let box_labels = box_labels.ok_or_else(|| missing("box_labels"))?.word(&words)?;
        let iou_max = iou_max.ok_or_else(|| missing("iou_max"))?;
        (box_labels, Some(iou_max.number(0.0..=1.0)?))
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
