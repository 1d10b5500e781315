//! Maps: one score and one area per label.

use super::{
    DecideError, DefectArea, Read,
    geometry::Geometry,
    values::{calibrated, smallest_reaching, softmax},
    wrong_shape,
};
use crate::core::{
    outputs::TensorView,
    recipe::{MapScore, Method},
};

/// One label's map.
pub(super) struct Map<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: &'a [f32],
}

impl<'a> Map<'a> {
    /// The maps of `[1, labels, h, w]`, for one label also of `[1, h, w]`.
    pub(super) fn all(tensor: &TensorView<'a>, labels: usize) -> Result<Vec<Self>, DecideError> {
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

    pub(super) fn split(values: &'a [f32], width: usize, height: usize) -> Vec<Self> {
        values.chunks_exact(width * height).map(|values| Self { width, height, values }).collect()
    }

    /// The area of the values at or above `from`, and its box.
    #[expect(clippy::cast_precision_loss, reason = "sides of maps")]
    pub(super) fn area(&self, from: Option<f32>, geometry: &Geometry) -> DefectArea {
        let nothing = DefectArea { area_px: Some(0), ..DefectArea::default() };
        let Some(from) = from else { return nothing };
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
            return nothing;
        }
        let place = |(x, y): (usize, usize)| (x as f64, y as f64);
        let bounds = geometry.bounds(place((left, top)), place((right, bottom)));
        DefectArea { area_px: Some(geometry.area(count)), bounds: Some(bounds), boxes: Vec::new() }
    }
}

pub(super) fn read_maps(
    maps: &[Map<'_>],
    to_score: impl Fn(f32) -> f32 + Copy,
    map_score: MapScore,
    pixel_threshold: f32,
    geometry: impl Fn(&Map<'_>) -> Geometry,
    buffer: &mut Vec<f32>,
) -> Vec<Read> {
    let from = smallest_reaching(to_score, pixel_threshold);
    let mut read = |map: &Map<'_>| Read {
        area: map.area(from, &geometry(map)),
        ..Read::score(score_of_map(map.values, to_score, map_score, from, buffer))
    };
    maps.iter().map(&mut read).collect()
}

/// One score from a map of values before `to_score`, which never falls: so the largest values are the largest scores,
/// and only those need computing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "scores are 32-bit; maps have < 2^53 values"
)]
pub(super) fn score_of_map(
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

/// Softmax of every pixel over its labels, in the layout of the tensor.
pub(super) fn softmax_over_labels(method: Method, tensor: &TensorView<'_>, labels: usize, out: &mut Vec<f32>) {
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
