//! From a frame to the tensor a model was trained on.
//!
//! A model meets at inference what it met in training, so each resize method is the named library's own arithmetic, to
//! the bit where that library works in integers: a difference between training and serving is a defect.

mod cut;
mod opencv;
mod pair;
mod pillow;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::pair::Golden;
pub use self::pair::Prepared;

use super::{
    frame::{Frame, Pixels, luma_of},
    mask::Mask,
    recipe::{Colour, Fit, Input, Pair, Recipe, Resize},
};
use crate::types::Bounds;

/// Why a frame cannot become a tensor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PrepareError {
    #[error("the frame gives the model {found} px and the recipe does not resize; it takes exactly {wanted} px")]
    Size { found: String, wanted: String },
}

/// Where a view of a frame lies in the model's input, in pixels of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub left_px: u32,
    pub top_px: u32,
    pub width_px: u32,
    pub height_px: u32,
}

impl Placement {
    /// `stretch` fills the input. `letterbox` scales both sides by the smaller of the two ratios, rounds each to even
    /// at .5, and centres; an odd pixel of padding goes right or below. That is Ultralytics' `LetterBox`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lengths of at most 4096 px")]
    pub fn of(input: &Input, view_width_px: u32, view_height_px: u32) -> Self {
        let (width_px, height_px) = (input.width_px, input.height_px);
        match input.fit {
            Fit::Stretch => Self { left_px: 0, top_px: 0, width_px, height_px },
            Fit::Letterbox { .. } => {
                let (view_width, view_height) = (f64::from(view_width_px), f64::from(view_height_px));
                let ratio = (f64::from(height_px) / view_height).min(f64::from(width_px) / view_width);
                let side = |view: f64, most: u32| ((view * ratio).round_ties_even() as u32).clamp(1, most);
                let (inner_width, inner_height) = (side(view_width, width_px), side(view_height, height_px));
                let offset = |outer: u32, inner: u32| (f64::from(outer - inner) / 2.0 - 0.1).round_ties_even() as u32;
                Self {
                    left_px: offset(width_px, inner_width),
                    top_px: offset(height_px, inner_height),
                    width_px: inner_width,
                    height_px: inner_height,
                }
            }
        }
    }
}

/// Prepares frames for one recipe, reusing its buffers. One per thread.
pub struct Preprocessor {
    input: Input,
    /// The pixels that count, and the level, of 255, that the model sees in place of the others.
    fill: Option<(Arc<Mask>, u8)>,
    golden: Option<Golden>,
    /// Tensor value of every 8-bit level, per channel of the tensor.
    tables: Vec<[f32; 256]>,
    plan: Option<Plan>,
    window: Samples,
    luma: Vec<u8>,
    resized: Samples,
    scratch: Samples,
    tensor: Vec<f32>,
    stacked: Vec<f32>,
}

/// Buffers for 8- and 16-bit samples; a frame uses one of the two.
#[derive(Default)]
struct Samples {
    bytes: Vec<u8>,
    words: Vec<u16>,
}

/// What depends on the view's size and the frame's depth only: kept while they stay the same.
struct Plan {
    source: (u32, u32),
    is_deep: bool,
    placement: Placement,
    resampler: Resampler,
}

enum Resampler {
    Copy,
    Nearest(pillow::Nearest),
    Convolution(pillow::Convolution),
    Linear(opencv::Linear),
}

impl Preprocessor {
    #[must_use]
    pub fn new(recipe: &Recipe) -> Self {
        Self::with_input(recipe.input.clone())
    }

    /// The same, with the recipe's `fill` in place of what `mask` leaves out.
    #[must_use]
    pub fn filled(self, recipe: &Recipe, mask: Option<Arc<Mask>>) -> Self {
        let level = recipe.region.as_ref().and_then(|region| region.fill);
        Self { fill: mask.zip(level), ..self }
    }

    fn with_input(input: Input) -> Self {
        let tables = (0..input.channels())
            .map(|channel| {
                let mut table = [0.0; 256];
                for (level, value) in (0_u8..=255).zip(&mut table) {
                    *value = normalised(f32::from(level), 255.0, &input, channel);
                }
                table
            })
            .collect();
        let tensor = vec![0.0; input.channels() * input.width_px as usize * input.height_px as usize];
        Self {
            input,
            fill: None,
            golden: None,
            tables,
            plan: None,
            window: Samples::default(),
            luma: Vec::new(),
            resized: Samples::default(),
            scratch: Samples::default(),
            tensor,
            stacked: Vec::new(),
        }
    }

    /// The same, comparing every frame with `template`, which is prepared for these views as frames are.
    ///
    /// # Errors
    /// As [`Self::prepare_view`].
    pub fn compared_with(mut self, pair: Pair, template: &Frame<'_>, views: &[Bounds]) -> Result<Self, PrepareError> {
        let prepared = views.iter().map(|view| Ok((*view, self.prepare_view(template, *view)?.tensor.to_vec())));
        let views = prepared.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { golden: Some(Golden { pair, views }), ..self })
    }

    /// Shape of the tensor: `[1, C, height_px, width_px]`, twice as many channels with a stacked template.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.input.shape(self.golden.as_ref().map(|golden| &golden.pair))
    }

    /// Whether the model has a second input, for the template.
    #[must_use]
    pub fn has_second_input(&self) -> bool {
        self.golden.as_ref().is_some_and(|golden| matches!(golden.pair, Pair::Input { .. }))
    }

    /// The tensor of a whole frame, as [`Self::prepare_view`] makes it.
    ///
    /// # Errors
    /// As [`Self::prepare_view`].
    pub fn prepare(&mut self, frame: &Frame<'_>) -> Result<&[f32], PrepareError> {
        Ok(self.prepare_view(frame, Bounds::whole((frame.width_px, frame.height_px)))?.tensor)
    }

    /// What the model gets of `view`, a part of the frame: a tensor of [`Self::shape`], until the next call. Nothing outside the view has any
    /// part in it.
    ///
    /// A gray frame for a colour model is repeated in all three channels.
    ///
    /// # Errors
    /// [`PrepareError::Size`] when the recipe does not resize and the view has another size.
    pub fn prepare_view(&mut self, frame: &Frame<'_>, view: Bounds) -> Result<Prepared<'_>, PrepareError> {
        self.plan_for(frame, view)?;
        let plan = self.plan.as_ref().expect("just planned");
        let Self { input, fill, tables, window, luma, resized, scratch, tensor, .. } = self;
        let is_whole = view == Bounds::whole((frame.width_px, frame.height_px));
        let cut;
        let frame = if is_whole && fill.is_none() {
            frame
        } else {
            cut = cut::cut(frame, view, fill.as_ref().map(|(mask, level)| (mask.as_ref(), *level)), window);
            &cut
        };
        let (width, height) = (frame.width_px as usize, frame.height_px as usize);
        let target = Target::new(input, plan.placement);
        match frame.pixels {
            Pixels::Rgb8(data) if input.colour == Colour::Gray => {
                luma.resize(width * height, 0);
                luma_of(data, luma);
                let samples = plan.resampler.run_8::<1>(luma, &mut resized.bytes, &mut scratch.bytes);
                target.fill_8::<1>(samples, tables, tensor);
            }
            Pixels::Rgb8(data) => {
                let samples = plan.resampler.run_8::<3>(data, &mut resized.bytes, &mut scratch.bytes);
                target.fill_8::<3>(samples, tables, tensor);
            }
            Pixels::Gray8(data) => {
                let samples = plan.resampler.run_8::<1>(data, &mut resized.bytes, &mut scratch.bytes);
                target.fill_8::<1>(samples, tables, tensor);
            }
            Pixels::Gray16 { data, full_scale } => {
                let samples = plan.resampler.run_16(data, full_scale, &mut resized.words, &mut scratch.words);
                target.fill_16(samples, full_scale, tensor);
            }
        }
        let Self { golden, tensor, stacked, .. } = self;
        Ok(match golden {
            Some(golden) => golden.put(view, tensor, stacked),
            None => Prepared { tensor, template: None },
        })
    }

    fn plan_for(&mut self, frame: &Frame<'_>, view: Bounds) -> Result<(), PrepareError> {
        let source = view.size();
        let is_deep = matches!(frame.pixels, Pixels::Gray16 { .. });
        if self.plan.as_ref().is_some_and(|plan| plan.source == source && plan.is_deep == is_deep) {
            return Ok(());
        }
        let input = &self.input;
        let placement = Placement::of(input, view.width_px, view.height_px);
        let target = (placement.width_px, placement.height_px);
        let convolution = |filter| Resampler::Convolution(pillow::Convolution::new(source, target, filter));
        let resampler = match input.resize {
            _ if source == target => Resampler::Copy,
            Resize::None => {
                let text = |(width_px, height_px)| format!("{width_px}x{height_px}");
                return Err(PrepareError::Size { found: text(source), wanted: text(target) });
            }
            Resize::PillowNearest => Resampler::Nearest(pillow::Nearest::new(source, target, is_deep)),
            Resize::PillowBilinear => convolution(pillow::Filter::Bilinear),
            Resize::PillowBicubic => convolution(pillow::Filter::Bicubic),
            Resize::PillowLanczos => convolution(pillow::Filter::Lanczos),
            Resize::OpencvLinear => Resampler::Linear(opencv::Linear::new(source, target)),
        };
        self.plan = Some(Plan { source, is_deep, placement, resampler });
        Ok(())
    }
}

impl Resampler {
    fn run_8<'a, const C: usize>(&self, source: &'a [u8], out: &'a mut Vec<u8>, scratch: &mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Copy => return source,
            Self::Nearest(nearest) => nearest.run::<u8, C>(source, out),
            Self::Convolution(convolution) => convolution.run_8::<C>(source, out, scratch),
            Self::Linear(linear) => linear.run_8::<C>(source, out),
        }
        out
    }

    fn run_16<'a>(
        &self,
        source: &'a [u16],
        full_scale: u16,
        out: &'a mut Vec<u16>,
        scratch: &mut Vec<u16>,
    ) -> &'a [u16] {
        match self {
            Self::Copy => return source,
            Self::Nearest(nearest) => nearest.run::<u16, 1>(source, out),
            Self::Convolution(convolution) => convolution.run_16(source, full_scale, out, scratch),
            Self::Linear(linear) => linear.run_16(source, out),
        }
        out
    }
}

/// `(pixel / full_scale - mean) / std` in 32-bit floats, in this order, as numpy computes it.
fn normalised(value: f32, full_scale: f32, input: &Input, channel: usize) -> f32 {
    (value / full_scale - input.mean[channel]) / input.std[channel]
}

/// The tensor and the place in it that the view fills.
struct Target<'i> {
    input: &'i Input,
    placement: Placement,
}

impl<'i> Target<'i> {
    fn new(input: &'i Input, placement: Placement) -> Self {
        Self { input, placement }
    }

    /// Every row of the view's place in one plane of the tensor.
    fn rows<'t>(&self, plane: &'t mut [f32]) -> impl Iterator<Item = &'t mut [f32]> {
        let Placement { left_px, top_px, width_px, height_px } = self.placement;
        let left = left_px as usize;
        plane
            .chunks_exact_mut(self.input.width_px as usize)
            .skip(top_px as usize)
            .take(height_px as usize)
            .map(move |row| &mut row[left..left + width_px as usize])
    }

    fn plane_len(&self) -> usize {
        self.input.width_px as usize * self.input.height_px as usize
    }

    /// The level of the padding, `None` without a letterbox.
    fn pad(&self) -> Option<u8> {
        match self.input.fit {
            Fit::Stretch => None,
            Fit::Letterbox { pad } => Some(pad),
        }
    }

    fn fill_8<const C: usize>(&self, samples: &[u8], tables: &[[f32; 256]], tensor: &mut [f32]) {
        for (channel, plane) in tensor.chunks_exact_mut(self.plane_len()).enumerate() {
            let table = &tables[channel];
            if let Some(pad) = self.pad() {
                plane.fill(table[usize::from(pad)]);
            }
            let source_channel = match self.input.colour {
                _ if C == 1 => 0,
                Colour::Bgr => 2 - channel,
                Colour::Gray | Colour::Rgb => channel,
            };
            let source_rows = samples.chunks_exact(C * self.placement.width_px as usize);
            for (row, source) in self.rows(plane).zip(source_rows) {
                for (value, pixel) in row.iter_mut().zip(source.chunks_exact(C)) {
                    *value = table[usize::from(pixel[source_channel])];
                }
            }
        }
    }

    fn fill_16(&self, samples: &[u16], full_scale: u16, tensor: &mut [f32]) {
        let full_scale = f32::from(full_scale);
        for (channel, plane) in tensor.chunks_exact_mut(self.plane_len()).enumerate() {
            if let Some(pad) = self.pad() {
                // The same shade as in 8 bits.
                plane.fill(normalised(f32::from(pad), 255.0, self.input, channel));
            }
            let (mean, std) = (self.input.mean[channel], self.input.std[channel]);
            let source_rows = samples.chunks_exact(self.placement.width_px as usize);
            for (row, source) in self.rows(plane).zip(source_rows) {
                for (value, pixel) in row.iter_mut().zip(source) {
                    *value = (f32::from(*pixel) / full_scale - mean) / std;
                }
            }
        }
    }
}
