//! Cuts a view out of a frame, and paints over what does not count.

use super::Samples;
use crate::{
    core::{
        frame::{Frame, Pixels},
        mask::Mask,
    },
    types::Bounds,
};

/// `view` of `frame` as a frame of its own. Pixels that `fill`'s mask leaves out get its level, of 255.
pub(super) fn cut<'w>(
    frame: &Frame<'_>,
    view: Bounds,
    fill: Option<(&Mask, u8)>,
    window: &'w mut Samples,
) -> Frame<'w> {
    let Samples { bytes, words } = window;
    let width = frame.width_px as usize;
    let pixels = match frame.pixels {
        Pixels::Gray8(data) => {
            cut_rows::<u8, 1>(data, width, view, fill, bytes);
            Pixels::Gray8(bytes)
        }
        Pixels::Rgb8(data) => {
            cut_rows::<u8, 3>(data, width, view, fill, bytes);
            Pixels::Rgb8(bytes)
        }
        Pixels::Gray16 { data, full_scale } => {
            // The same shade as in 8 bits, to the nearest level.
            let shade = |level: u8| (u32::from(level) * u32::from(full_scale) + 127) / 255;
            let fill = fill.map(|(mask, level)| (mask, u16::try_from(shade(level)).expect("at most the full scale")));
            cut_rows::<u16, 1>(data, width, view, fill, words);
            Pixels::Gray16 { data: words, full_scale }
        }
    };
    Frame { format: frame.format, width_px: view.width_px, height_px: view.height_px, pixels }
}

fn cut_rows<T: Copy, const C: usize>(
    data: &[T],
    width: usize,
    view: Bounds,
    fill: Option<(&Mask, T)>,
    out: &mut Vec<T>,
) {
    out.clear();
    let (left, across) = (view.x_px as usize, view.width_px as usize);
    for y in view.y_px..view.bottom_px() {
        let start = out.len();
        out.extend_from_slice(&data[C * (y as usize * width + left)..][..C * across]);
        let Some((mask, level)) = fill else { continue };
        let row = &mut out[start..];
        let mut from = 0;
        let place = |x: u32| x.clamp(view.x_px, view.right_px()) as usize - left;
        for (first, end) in mask.row(y) {
            row[C * from..C * place(*first)].fill(level);
            from = place(*end);
        }
        row[C * from..].fill(level);
    }
}
