//! Maps: one score and one area per label.

use super::{
    DecideError, DefectArea, Read,
    geometry::Geometry,
    values::{calibrated, smallest_reaching, softmax},
    wrong_shape,
};
use crate::{
    core::{
        mask::Mask,
        outputs::TensorView,
        recipe::{MapScore, Method},
    },
    types::Bounds,
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

    /// The same with negative infinity for what does not count, written to `buffer`.
    pub(super) fn masked<'b>(&'b self, counted: Option<&Counted>, buffer: &'b mut Vec<f32>) -> Map<'b> {
        let Some(counted) = counted else { return Map { values: self.values, ..*self } };
        buffer.clear();
        let value = |(value, counts): (&f32, &bool)| if *counts { *value } else { f32::NEG_INFINITY };
        buffer.extend(self.values.iter().zip(&counted.is_counted).map(value));
        Map { values: buffer, ..*self }
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

/// How a recipe reads a map.
#[derive(Clone, Copy)]
pub(super) struct MapRule {
    pub map_score: MapScore,
    pub pixel_threshold: f32,
}

/// Which values of a map count: those whose centre lies on a pixel that counts. Kept while map and view stay the same.
#[derive(Default)]
pub(super) struct Counted {
    is_counted: Vec<bool>,
    count: usize,
    /// What it was made for: the map's size and the view.
    made_for: Option<((usize, usize), Bounds)>,
}

impl Counted {
    /// `None` where all values count: without a mask.
    pub(super) fn of(
        &mut self,
        mask: Option<&Mask>,
        tensor: &str,
        map: &Map<'_>,
        geometry: &Geometry,
    ) -> Result<Option<&Self>, DecideError> {
        let Some(mask) = mask else { return Ok(None) };
        let wanted = Some(((map.width, map.height), geometry.view()));
        if self.made_for != wanted {
            let columns: Vec<Option<u32>> = (0..map.width).map(|x| geometry.column_of(x)).collect();
            self.is_counted.clear();
            for row in (0..map.height).map(|y| geometry.row_of(y)) {
                let counts = |column: &Option<u32>| column.zip(row).is_some_and(|(x, y)| mask.contains(x, y));
                self.is_counted.extend(columns.iter().map(counts));
            }
            self.count = self.is_counted.iter().filter(|counts| **counts).count();
            self.made_for = wanted;
        }
        if self.count == 0 {
            return Err(DecideError::NothingCounts { tensor: tensor.to_owned() });
        }
        Ok(Some(self))
    }
}

/// One [`Read`] per label.
pub(super) fn read(
    maps: &[Map<'_>],
    to_score: impl Fn(f32) -> f32 + Copy,
    rule: MapRule,
    geometry: &Geometry,
    counted: Option<&Counted>,
    buffer: &mut Vec<f32>,
) -> Vec<Read> {
    let from = smallest_reaching(to_score, rule.pixel_threshold);
    let mut masked = Vec::new();
    let mut read = |map: &Map<'_>| {
        let map = map.masked(counted, &mut masked);
        let count = counted.map_or(map.values.len(), |counted| counted.count);
        let score = score_of_map(map.values, count, to_score, rule.map_score, from, buffer);
        Read { area: map.area(from, geometry), ..Read::score(score) }
    };
    maps.iter().map(&mut read).collect()
}

/// One score from a map of values before `to_score`, which never falls: so the largest values are the largest scores,
/// and only those need computing. `count` of the values count; the others are negative infinity.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "scores are 32-bit; maps have < 2^53 values"
)]
pub(super) fn score_of_map(
    values: &[f32],
    count: usize,
    to_score: impl Fn(f32) -> f32,
    map_score: MapScore,
    from: Option<f32>,
    buffer: &mut Vec<f32>,
) -> f32 {
    match map_score {
        MapScore::Max => to_score(values.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        MapScore::AreaShare => {
            let reached = from.map_or(0, |from| values.iter().filter(|value| **value >= from).count());
            (reached as f64 / count as f64) as f32
        }
        MapScore::TopKMean { k } => {
            let k = (k as usize).min(count);
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
