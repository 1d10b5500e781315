//! Boxes of detection models: from the three layouts that exporters write to the boxes that count, by label.

use super::{
    Bounds, DecideError, DefectArea, DetectedBox, Read,
    geometry::Geometry,
    nms::{self, Candidate},
    values::{larger, smallest_reaching},
    wrong_shape,
};
use crate::{
    core::{
        mask::Mask,
        outputs::TensorView,
        recipe::{BoxLabels, BoxLayout, Detection},
    },
    types::Score,
};

/// Most rows of boxes in an output: a YOLO head on 4096x4096 px has 344,064.
const ROWS_MAX: usize = 1 << 19;
/// Most boxes of one label that suppression looks at, those with the highest scores: Ultralytics' `max_nms`.
const CONSIDERED_MAX: usize = 30_000;
/// Rows looked at together, so that their best scores stay in the L1 cache.
const ROWS_PER_BLOCK: usize = 1024;
/// Rows of one label looked at together, few enough that a high score makes few be looked at again.
const ROWS_PER_GLANCE: usize = 64;

/// Kept from frame to frame.
#[derive(Default)]
pub(super) struct Buffers {
    candidates: Vec<Candidate>,
    kept: Vec<Candidate>,
}

/// Where boxes lie on the frame, and which of them count.
pub(super) struct Place<'m> {
    pub geometry: Geometry,
    /// The pixels that count, and the share of a box's pixels that must; without it every box counts.
    pub inside: Option<(&'m Mask, f32)>,
}

impl Place<'_> {
    fn bounds(&self, corners: [f32; 4]) -> Bounds {
        let [left, top, right, bottom] = corners.map(f64::from);
        self.geometry.bounds((left, top), (right, bottom))
    }

    /// Whether a box is large enough, and enough of it lies where defects count.
    #[expect(clippy::cast_precision_loss, reason = "pixels of a frame")]
    fn counts(&self, corners: [f32; 4], side_px_min: u32) -> bool {
        let [left, top, right, bottom] = corners.map(f64::from);
        let (width, height) = self.geometry.size_in_view((left, top), (right, bottom));
        let is_large = width >= f64::from(side_px_min) && height >= f64::from(side_px_min);
        is_large
            && self.inside.is_none_or(|(mask, share_min)| {
                let bounds = self.bounds(corners);
                let pixels = f64::from(bounds.width_px) * f64::from(bounds.height_px);
                mask.count(bounds) as f64 >= f64::from(share_min) * pixels
            })
    }
}

/// One [`Read`] per label: the score is the highest among the label's kept boxes, 0 without a box.
pub(super) fn read(
    tensor: &TensorView<'_>,
    detection: &Detection,
    names: &[String],
    to_score: impl Fn(f32) -> f32 + Copy,
    place: &Place<'_>,
    buffers: &mut Buffers,
) -> Result<Vec<Read>, DecideError> {
    let labels = names.len();
    let Buffers { candidates, kept } = buffers;
    kept.clear();
    let rows = Rows::new(tensor, detection.layout, labels)?;
    // A value is compared with `from` exactly as its score would be with `score_min`.
    if let Some(from) = smallest_reaching(to_score, detection.score_min) {
        let gather = |row: usize, label: usize, value: f32, candidates: &mut Vec<Candidate>| {
            let corners = rows.corners(row);
            if place.counts(corners, detection.side_px_min) {
                let (label, position) = (narrow(label), u32::try_from(row).expect("at most ROWS_MAX"));
                candidates.push(Candidate { label, score: to_score(value), position, corners });
            }
        };
        let most = detection.boxes_max as usize;
        let iou_max = detection.iou_max.filter(|_| detection.layout != BoxLayout::Nms);
        let mut keep = |candidates: &mut Vec<Candidate>| {
            nms::sort(candidates);
            nms::suppress(candidates, iou_max, CONSIDERED_MAX, most, kept);
            candidates.clear();
        };
        candidates.clear();
        match (detection.layout, detection.box_labels) {
            (BoxLayout::Nms, _) => {
                for row in 0..rows.len {
                    let value = rows.value(row, 4);
                    if value >= from {
                        gather(row, rows.class(row)?, value, candidates);
                    }
                }
                keep(candidates);
            }
            (_, BoxLabels::Best) => {
                rows.best(from, |row, label, value| gather(row, label, value, candidates));
                keep(candidates);
            }
            // Label by label, so that no more than one label's candidates are held.
            (_, BoxLabels::All) => {
                for label in 0..labels {
                    rows.reaching(label, from, |row, value| gather(row, label, value, candidates));
                    keep(candidates);
                }
            }
        }
    }
    by_label(kept, names, place)
}

fn narrow(label: usize) -> u16 {
    u16::try_from(label).expect("a recipe has few labels")
}

/// The kept boxes, which lie label by label, as what is said of each label.
fn by_label(kept: &[Candidate], names: &[String], place: &Place<'_>) -> Result<Vec<Read>, DecideError> {
    let read = |(label, name): (usize, &String)| {
        let of_label = kept.iter().filter(|kept| kept.label == narrow(label));
        let boxes = of_label.map(|kept| on_frame(kept, name, place)).collect::<Result<Vec<_>, _>>()?;
        Ok(read_of(boxes))
    };
    names.iter().enumerate().map(read).collect()
}

/// What the kept boxes of one label, highest score first, say of it.
pub(super) fn read_of(boxes: Vec<DetectedBox>) -> Read {
    let best = boxes.first();
    Read {
        score: best.map_or(0.0, |best| best.score.get()),
        at: best.map(|best| best.bounds),
        boxes: Some(u32::try_from(boxes.len()).expect("at most `boxes_max`")),
        area: DefectArea { area_px: None, bounds: best.map(|best| best.bounds), boxes },
    }
}

fn on_frame(candidate: &Candidate, label: &str, place: &Place<'_>) -> Result<DetectedBox, DecideError> {
    let not_finite = |_| DecideError::ScoreNotFinite { label: label.to_owned() };
    let score = Score::new(candidate.score).map_err(not_finite)?;
    Ok(DetectedBox { bounds: place.bounds(candidate.corners), score })
}

/// The rows of one output, whatever its layout.
struct Rows<'a> {
    layout: BoxLayout,
    tensor: &'a TensorView<'a>,
    len: usize,
    labels: usize,
    /// Values from one row to the next, and from one column to the next.
    row_step: usize,
    column_step: usize,
}

impl<'a> Rows<'a> {
    fn new(tensor: &'a TensorView<'a>, layout: BoxLayout, labels: usize) -> Result<Self, DecideError> {
        let (len, columns, row_step, column_step) = match (layout, tensor.shape) {
            (BoxLayout::YoloV8, [1, columns, rows]) if *columns == 4 + labels => (*rows, *columns, 1, *rows),
            (BoxLayout::YoloV5, [1, rows, columns]) if *columns == 5 + labels => (*rows, *columns, *columns, 1),
            (BoxLayout::Nms, [1, rows, columns @ 6]) => (*rows, *columns, *columns, 1),
            _ => {
                let expected = match layout {
                    BoxLayout::YoloV8 => format!("[1, {}, rows]", 4 + labels),
                    BoxLayout::YoloV5 => format!("[1, rows, {}]", 5 + labels),
                    BoxLayout::Nms => "[1, rows, 6]".to_owned(),
                };
                return Err(wrong_shape(tensor, expected));
            }
        };
        if len > ROWS_MAX {
            return Err(wrong_shape(tensor, format!("at most {ROWS_MAX} rows of {columns}")));
        }
        Ok(Self { layout, tensor, len, labels, row_step, column_step })
    }

    fn value(&self, row: usize, column: usize) -> f32 {
        self.tensor.values[row * self.row_step + column * self.column_step]
    }

    /// What the model says of one label in one row.
    fn label_value(&self, row: usize, label: usize) -> f32 {
        match self.layout {
            BoxLayout::YoloV8 => self.value(row, 4 + label),
            BoxLayout::YoloV5 => self.value(row, 4) * self.value(row, 5 + label),
            BoxLayout::Nms => unreachable!("a row of this layout has one label"),
        }
    }

    /// Left, top, right, bottom, computed as Ultralytics' `xywh2xyxy` does where centre and size are given.
    fn corners(&self, row: usize) -> [f32; 4] {
        let [a, b, c, d] = [0, 1, 2, 3].map(|column| self.value(row, column));
        match self.layout {
            BoxLayout::Nms => [a, b, c, d],
            BoxLayout::YoloV8 | BoxLayout::YoloV5 => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        }
    }

    /// The label that a row names by itself.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a small whole number")]
    fn class(&self, row: usize) -> Result<usize, DecideError> {
        let class = self.value(row, 5);
        if class >= 0.0 && class < self.labels as f32 && class.fract() == 0.0 {
            return Ok(class as usize);
        }
        let (tensor, class) = (self.tensor.name.to_owned(), class.to_string());
        Err(DecideError::Class { tensor, class, labels: self.labels })
    }

    /// Calls `found` with row and value of every row in which the value of `label` reaches `from`.
    fn reaching(&self, label: usize, from: f32, mut found: impl FnMut(usize, f32)) {
        if self.layout == BoxLayout::YoloV5 {
            for row in 0..self.len {
                let value = self.label_value(row, label);
                if value >= from {
                    found(row, value);
                }
            }
            return;
        }
        // Nearly all values are low, and a block of low ones is passed over at a glance: a fold looks without branching.
        let values = &self.tensor.values[(4 + label) * self.len..][..self.len];
        for (block, values) in values.chunks(ROWS_PER_GLANCE).enumerate() {
            if values.iter().fold(false, |any, value| any | (*value >= from)) {
                let start = block * ROWS_PER_GLANCE;
                values
                    .iter()
                    .enumerate()
                    .filter(|(_, value)| **value >= from)
                    .for_each(|(at, value)| found(start + at, *value));
            }
        }
    }

    /// Calls `found` with row, label and value of every row whose largest label value reaches `from`; of equal labels the
    /// first.
    fn best(&self, from: f32, mut found: impl FnMut(usize, usize, f32)) {
        let mut report = |row: usize, largest: f32| {
            if largest >= from {
                let label = (0..self.labels).find(|label| self.label_value(row, *label) == largest);
                found(row, label.expect("one of them is the largest"), largest);
            }
        };
        if self.layout == BoxLayout::YoloV5 {
            for row in 0..self.len {
                let largest =
                    (0..self.labels).map(|label| self.label_value(row, label)).fold(f32::NEG_INFINITY, larger);
                report(row, largest);
            }
            return;
        }
        // The values of one label lie side by side: walk along them, and look for the label of the few rows that count.
        let mut largest = [0.0; ROWS_PER_BLOCK];
        for start in (0..self.len).step_by(ROWS_PER_BLOCK) {
            let largest = &mut largest[..ROWS_PER_BLOCK.min(self.len - start)];
            largest.fill(f32::NEG_INFINITY);
            for label in 0..self.labels {
                let values = &self.tensor.values[(4 + label) * self.len + start..][..largest.len()];
                largest.iter_mut().zip(values).for_each(|(largest, value)| *largest = larger(*largest, *value));
            }
            largest.iter().enumerate().for_each(|(at, largest)| report(start + at, *largest));
        }
    }
}

#[cfg(test)]
mod tests;
