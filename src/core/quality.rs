//! Image quality on the luma of the whole frame: exposure, saturation and focus, in one pass over every pixel.
//!
//! The values stand in every decision entry, whether or not the recipe bounds them. Sums are integers, so they are
//! exact and do not depend on the order of the rows.

use std::fmt;

use multiversion::multiversion;

use super::{
    frame::{Frame, Pixels, luma_of},
    recipe::QualityBounds,
};
use crate::types::Score;

/// Luma at or above this share of full scale counts as saturated.
const SATURATED_FROM: f64 = 0.995;
/// Squared Laplacians of 8-bit luma summed in 32 bits before they move to 64: 2048 * (4 * 255)^2 = 2.13e9 < 2^32.
const SQUARES_PER_U32: usize = 2048;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QualityReport {
    /// Variance of the 4-neighbour Laplacian of luma scaled to 0..1, over all pixels with four neighbours; zero for a
    /// frame that has none.
    pub focus: Score,
    /// Mean luma, 0..1.
    pub mean: Score,
    /// Share of pixels at or above 0.995 of full scale, 0..1.
    pub saturated: Score,
}

/// A bound of the recipe's `[quality]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QualityBound {
    MeanMin,
    MeanMax,
    SaturatedShareMax,
    FocusMin,
}

impl fmt::Display for QualityBound {
    /// The key in the recipe.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MeanMin => "mean_min",
            Self::MeanMax => "mean_max",
            Self::SaturatedShareMax => "saturated_share_max",
            Self::FocusMin => "focus_min",
        })
    }
}

impl QualityReport {
    /// The bounds this frame fails, in the order of the recipe.
    #[must_use]
    pub fn failed(&self, bounds: &QualityBounds) -> Vec<QualityBound> {
        let below = |value: Score, bound: Option<Score>| bound.is_some_and(|bound| value < bound);
        let above = |value: Score, bound: Option<Score>| bound.is_some_and(|bound| value > bound);
        [
            (below(self.mean, bounds.mean_min), QualityBound::MeanMin),
            (above(self.mean, bounds.mean_max), QualityBound::MeanMax),
            (above(self.saturated, bounds.saturated_share_max), QualityBound::SaturatedShareMax),
            (below(self.focus, bounds.focus_min), QualityBound::FocusMin),
        ]
        .into_iter()
        .filter_map(|(is_failed, bound)| is_failed.then_some(bound))
        .collect()
    }
}

/// Measures a frame. Allocates three rows of luma for a colour frame, nothing for a gray one.
#[must_use]
pub fn measure(frame: &Frame<'_>) -> QualityReport {
    let width = frame.width_px as usize;
    let full_scale = frame.full_scale();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lies between 0 and full_scale")]
    let saturated_from = (f64::from(full_scale) * SATURATED_FROM).ceil() as u16;
    let mut sums = Sums::default();
    match frame.pixels {
        Pixels::Gray8(data) => add_gray_8(&mut sums, data, width, saturated_from),
        Pixels::Gray16 { data, .. } => {
            for row in data.chunks_exact(width) {
                sums.add_levels_16(row, saturated_from);
            }
            for ((above, row), below) in three_rows(data, width) {
                sums.add_laplacian_16(above, row, below);
            }
        }
        Pixels::Rgb8(data) => {
            let mut rows = [vec![0; width], vec![0; width], vec![0; width]];
            for (y, rgb) in data.chunks_exact(3 * width).enumerate() {
                rows.rotate_left(1);
                let [above, row, below] = &mut rows;
                luma_of(rgb, below);
                sums.add_levels_8(below, saturated_from);
                if y >= 2 {
                    sums.add_laplacian_8(above, row, below);
                }
            }
        }
    }
    sums.report(frame)
}

/// Each row while it is in the nearest cache. With AVX2 where the processor has it, which halves the time; all sums are
/// integers, so the result is the same.
#[multiversion(targets("x86_64+avx+avx2"))]
fn add_gray_8(sums: &mut Sums, data: &[u8], width: usize, saturated_from: u16) {
    let mut rows: [&[u8]; 2] = [&[]; 2];
    for below in data.chunks_exact(width) {
        sums.add_levels_8(below, saturated_from);
        let [above, row] = rows;
        if !above.is_empty() {
            sums.add_laplacian_8(above, row, below);
        }
        rows = [row, below];
    }
}

type Three<'a, T> = ((&'a [T], &'a [T]), &'a [T]);

/// Every row that has one above and one below, with those.
fn three_rows<T>(data: &[T], width: usize) -> impl Iterator<Item = Three<'_, T>> {
    let from = move |row: usize| data.get(row * width..).unwrap_or_default().chunks_exact(width);
    from(0).zip(from(1)).zip(from(2))
}

#[derive(Default)]
struct Sums {
    luma: u64,
    saturated: u64,
    laplacian: i64,
    /// At most 2^26 pixels times (4 * 65535)^2: 4.7e18, within 64 bits.
    squares: u64,
}

impl Sums {
    #[inline(always)]
    fn add_levels_8(&mut self, row: &[u8], saturated_from: u16) {
        let saturated_from = u8::try_from(saturated_from).expect("8-bit luma has a full scale of 255");
        // A row has at most 16384 pixels, so both sums fit into 32 bits.
        let (mut luma, mut saturated) = (0_u32, 0_u32);
        for value in row {
            luma += u32::from(*value);
            saturated += u32::from(*value >= saturated_from);
        }
        self.luma += u64::from(luma);
        self.saturated += u64::from(saturated);
    }

    fn add_levels_16(&mut self, row: &[u16], saturated_from: u16) {
        let (mut luma, mut saturated) = (0_u32, 0_u32);
        for value in row {
            luma += u32::from(*value);
            saturated += u32::from(*value >= saturated_from);
        }
        self.luma += u64::from(luma);
        self.saturated += u64::from(saturated);
    }

    #[inline(always)]
    fn add_laplacian_8(&mut self, above: &[u8], row: &[u8], below: &[u8]) {
        let Some(inner) = row.len().checked_sub(2) else { return };
        let (above, below) = (&above[1..=inner], &below[1..=inner]);
        let (left, middle, right) = (&row[..inner], &row[1..=inner], &row[2..]);
        for start in (0..inner).step_by(SQUARES_PER_U32) {
            let range = start..inner.min(start + SQUARES_PER_U32);
            let (mut sum, mut squares) = (0_i32, 0_u32);
            let vertical = above[range.clone()].iter().zip(&below[range.clone()]);
            let horizontal = left[range.clone()].iter().zip(&right[range.clone()]);
            for ((middle, (a, b)), (l, r)) in middle[range].iter().zip(vertical).zip(horizontal) {
                let around = i16::from(*a) + i16::from(*b) + i16::from(*l) + i16::from(*r);
                let laplacian = i32::from(around - 4 * i16::from(*middle));
                sum += laplacian;
                squares += (laplacian * laplacian).cast_unsigned();
            }
            self.laplacian += i64::from(sum);
            self.squares += u64::from(squares);
        }
    }

    fn add_laplacian_16(&mut self, above: &[u16], row: &[u16], below: &[u16]) {
        for x in 1..row.len().saturating_sub(1) {
            let [a, b, l, r, middle] = [above[x], below[x], row[x - 1], row[x + 1], row[x]].map(i64::from);
            let laplacian = a + b + l + r - 4 * middle;
            self.laplacian += laplacian;
            self.squares += (laplacian * laplacian).cast_unsigned();
        }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "recorded as 32-bit scores")]
    fn report(&self, frame: &Frame<'_>) -> QualityReport {
        let full_scale = f64::from(frame.full_scale());
        let pixels = f64::from(frame.width_px) * f64::from(frame.height_px);
        let inner = u128::from(frame.width_px.saturating_sub(2)) * u128::from(frame.height_px.saturating_sub(2));
        let focus = if inner == 0 {
            0.0
        } else {
            // n * sum of squares - square of sum is exact in 128 bits; no cancellation of near-equal floats.
            let spread = inner * u128::from(self.squares) - u128::from(self.laplacian.unsigned_abs()).pow(2);
            spread as f64 / (inner as f64 * full_scale).powi(2)
        };
        let score = |value: f64| Score::new(value as f32).expect("sums of pixels over their number are finite");
        QualityReport {
            focus: score(focus),
            mean: score(self.luma as f64 / (pixels * full_scale)),
            saturated: score(self.saturated as f64 / pixels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::recipe::FrameFormat;

    fn gray(width_px: u32, height_px: u32, data: &[u8]) -> QualityReport {
        measure(&Frame { format: FrameFormat::Png, width_px, height_px, pixels: Pixels::Gray8(data) })
    }

    fn close(score: Score, expected: f64) {
        assert!((f64::from(score.get()) - expected).abs() < 1e-6 * expected.abs().max(1.0), "{score} for {expected}");
    }

    /// Straight from the definition, in floats.
    fn by_definition(width: usize, height: usize, luma: &[f64]) -> (f64, f64, f64) {
        let count = luma.len() as f64;
        let mean = luma.iter().sum::<f64>() / count;
        let saturated = luma.iter().filter(|value| **value >= 0.995).count() as f64 / count;
        let at = |x: usize, y: usize| luma[y * width + x];
        let laplacians: Vec<f64> = (1..height - 1)
            .flat_map(|y| (1..width - 1).map(move |x| (x, y)))
            .map(|(x, y)| at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) - 4.0 * at(x, y))
            .collect();
        let middle = laplacians.iter().sum::<f64>() / laplacians.len() as f64;
        let focus = laplacians.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / laplacians.len() as f64;
        (mean, saturated, focus)
    }

    #[test]
    fn values_follow_the_definition_for_gray_colour_and_deep_frames() {
        let noise: Vec<u8> = (0..3 * 37 * 23_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let gray_pixels = &noise[..37 * 23];
        let mut luma = vec![0; 37 * 23];
        luma_of(&noise, &mut luma);
        let deep: Vec<u16> = noise[..37 * 23].iter().map(|value| u16::from(*value) * 16 + 15).collect();
        let cases = [
            (Pixels::Gray8(gray_pixels), gray_pixels.iter().map(|v| f64::from(*v) / 255.0).collect::<Vec<_>>()),
            (Pixels::Rgb8(&noise), luma.iter().map(|v| f64::from(*v) / 255.0).collect()),
            (Pixels::Gray16 { data: &deep, full_scale: 4095 }, deep.iter().map(|v| f64::from(*v) / 4095.0).collect()),
        ];
        for (pixels, luma) in cases {
            let report = measure(&Frame { format: FrameFormat::Png, width_px: 37, height_px: 23, pixels });
            let (mean, saturated, focus) = by_definition(37, 23, &luma);
            close(report.mean, mean);
            close(report.saturated, saturated);
            close(report.focus, focus);
        }
    }

    #[test]
    fn a_flat_frame_has_no_focus_and_a_tiny_one_has_none_either() {
        assert_eq!(gray(8, 8, &[128; 64]).focus, Score::ZERO);
        assert_eq!(gray(1, 1, &[255]).focus, Score::ZERO);
        close(gray(1, 1, &[255]).saturated, 1.0);
        close(gray(2, 1, &[253, 254]).saturated, 0.5);
    }

    #[test]
    fn a_bound_itself_still_passes() {
        let score = |value| Some(Score::new(value).unwrap());
        let report = gray(2, 1, &[0, 255]);
        let exact = QualityBounds { mean_min: score(0.5), mean_max: score(0.5), ..QualityBounds::default() };
        assert_eq!(report.failed(&exact), []);
        let tight = QualityBounds {
            mean_min: score(0.6),
            mean_max: score(0.4),
            saturated_share_max: score(0.4),
            focus_min: score(0.1),
        };
        assert_eq!(
            report.failed(&tight).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["mean_min", "mean_max", "saturated_share_max", "focus_min"]
        );
    }
}
