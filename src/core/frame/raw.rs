//! Raw camera pixels in PFNC layouts, with stride.
//!
//! Every row starts at a whole byte, `stride_bytes` after the row before. In the packed formats (Mono10p, Mono12p) the
//! bits of a row follow each other from the least significant bit of its first byte. The unpacked 10- and 12-bit
//! formats hold one little-endian 16-bit word per pixel with zeros above.

use super::{Frame, FrameError, FrameFormat, Pixels, Scratch};
use crate::types::PixelFormat;

/// Where the pixels of a raw frame lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLayout {
    pub format: PixelFormat,
    pub width_px: u32,
    pub height_px: u32,
    /// Bytes from one row's start to the next; `None` means rows without padding.
    pub stride_bytes: Option<u32>,
}

impl RawLayout {
    /// Bytes that the pixels of one row take.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        (u64::from(self.width_px) * u64::from(self.format.bits_per_pixel())).div_ceil(8)
    }

    /// Row bytes and stride as checked against the frame's length.
    fn check(&self, bytes: &[u8]) -> Result<(usize, usize), FrameError> {
        let row_bytes = self.row_bytes();
        let stride = self.stride_bytes.map_or(row_bytes, u64::from);
        if stride < row_bytes {
            let Self { format, width_px, .. } = *self;
            let stride_bytes = self.stride_bytes.unwrap_or_default();
            return Err(FrameError::Stride { format, width_px, row_bytes, stride_bytes });
        }
        // Drivers disagree on whether the last row has its padding.
        let most = stride * u64::from(self.height_px);
        let least = most - (stride - row_bytes);
        if !(least..=most).contains(&(bytes.len() as u64)) {
            return Err(FrameError::RawLength { bytes: bytes.len(), least, most });
        }
        let narrow = |bytes: u64| usize::try_from(bytes).expect("a row fits into the frame, which is in memory");
        Ok((narrow(row_bytes), narrow(stride)))
    }
}

/// Unpacks a frame whose size was checked and is at least 1x1.
pub(super) fn unpack<'a>(
    bytes: &'a [u8],
    layout: &RawLayout,
    scratch: &'a mut Scratch,
) -> Result<Frame<'a>, FrameError> {
    let (row_bytes, stride) = layout.check(bytes)?;
    let rows = bytes.chunks(stride).map(|row| &row[..row_bytes]);
    let pixels = layout.width_px as usize * layout.height_px as usize;
    let width = layout.width_px as usize;
    let pixels = match layout.format {
        PixelFormat::Mono8 => Pixels::Gray8(tight(bytes, row_bytes, stride, &mut scratch.bytes)),
        PixelFormat::RGB8 => Pixels::Rgb8(tight(bytes, row_bytes, stride, &mut scratch.bytes)),
        PixelFormat::BGR8 => {
            scratch.bytes.resize(pixels * 3, 0);
            for (row, out) in rows.zip(scratch.bytes.chunks_exact_mut(row_bytes)) {
                for (bgr, rgb) in row.chunks_exact(3).zip(out.chunks_exact_mut(3)) {
                    rgb.copy_from_slice(&[bgr[2], bgr[1], bgr[0]]);
                }
            }
            Pixels::Rgb8(&scratch.bytes)
        }
        PixelFormat::Mono10 => words(rows, width, pixels, layout.format, 1023, &mut scratch.words, unpack_words)?,
        PixelFormat::Mono12 => words(rows, width, pixels, layout.format, 4095, &mut scratch.words, unpack_words)?,
        PixelFormat::Mono16 => words(rows, width, pixels, layout.format, 65535, &mut scratch.words, unpack_words)?,
        PixelFormat::Mono10p => words(rows, width, pixels, layout.format, 1023, &mut scratch.words, unpack_10p)?,
        PixelFormat::Mono12p => words(rows, width, pixels, layout.format, 4095, &mut scratch.words, unpack_12p)?,
        PixelFormat::BayerRG8 | PixelFormat::BayerGR8 | PixelFormat::BayerGB8 | PixelFormat::BayerBG8 => {
            demosaic(bytes, layout, stride, scratch);
            Pixels::Rgb8(&scratch.bytes)
        }
    };
    let format = FrameFormat::Raw(layout.format);
    Ok(Frame { format, width_px: layout.width_px, height_px: layout.height_px, pixels })
}

/// The rows without padding: `bytes` itself where there is none.
fn tight<'a>(bytes: &'a [u8], row_bytes: usize, stride: usize, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if row_bytes == stride {
        return bytes;
    }
    buffer.clear();
    for row in bytes.chunks(stride) {
        buffer.extend_from_slice(&row[..row_bytes]);
    }
    buffer
}

fn words<'a, 'r>(
    rows: impl Iterator<Item = &'r [u8]>,
    width: usize,
    pixels: usize,
    format: PixelFormat,
    full_scale: u16,
    buffer: &'a mut Vec<u16>,
    unpack_row: fn(&[u8], &mut [u16]),
) -> Result<Pixels<'a>, FrameError> {
    buffer.resize(pixels, 0);
    for (row, out) in rows.zip(buffer.chunks_exact_mut(width)) {
        unpack_row(row, out);
    }
    if buffer.iter().fold(0, |bits, value| bits | value) > full_scale {
        let index = buffer.iter().position(|value| *value > full_scale).expect("full scales are all ones in binary");
        return Err(FrameError::AboveFullScale { format, index, value: buffer[index], full_scale });
    }
    Ok(Pixels::Gray16 { data: buffer, full_scale })
}

fn unpack_words(row: &[u8], out: &mut [u16]) {
    for (pair, value) in row.chunks_exact(2).zip(out) {
        *value = u16::from_le_bytes([pair[0], pair[1]]);
    }
}

/// Four pixels in five bytes.
fn unpack_10p(row: &[u8], out: &mut [u16]) {
    for (group, values) in row.chunks(5).zip(out.chunks_mut(4)) {
        let mut bytes = [0; 8];
        bytes[..group.len()].copy_from_slice(group);
        let bits = u64::from_le_bytes(bytes);
        for (place, value) in values.iter_mut().enumerate() {
            *value = ((bits >> (10 * place)) & 0x3ff) as u16;
        }
    }
}

/// Two pixels in three bytes.
fn unpack_12p(row: &[u8], out: &mut [u16]) {
    for (group, values) in row.chunks(3).zip(out.chunks_mut(2)) {
        let mut bytes = [0; 4];
        bytes[..group.len()].copy_from_slice(group);
        let bits = u32::from_le_bytes(bytes);
        for (place, value) in values.iter_mut().enumerate() {
            *value = ((bits >> (12 * place)) & 0xfff) as u16;
        }
    }
}

/// Bilinear demosaicing to RGB8 in `scratch.bytes`.
///
/// A site keeps its own colour. A missing colour is the rounded mean of the sites of that colour among the eight
/// neighbours: two of them, `(a + b + 1) >> 1`, or four, `(a + b + c + d + 2) >> 2`. Beyond the border the mosaic is
/// mirrored about its outermost row and column (-1 is 1, n is n - 2), which keeps the colours in their places; a frame
/// one pixel wide or high repeats that pixel.
fn demosaic(bytes: &[u8], layout: &RawLayout, stride: usize, scratch: &mut Scratch) {
    let (width, height) = (layout.width_px as usize, layout.height_px as usize);
    // Parity of the row and of the column that red sites have.
    let (red_row, red_column) = match layout.format {
        PixelFormat::BayerRG8 => (0, 0),
        PixelFormat::BayerGR8 => (0, 1),
        PixelFormat::BayerGB8 => (1, 0),
        PixelFormat::BayerBG8 => (1, 1),
        other => unreachable!("{other} is no Bayer format"),
    };
    let Scratch { bytes: out, rows, .. } = scratch;
    out.resize(3 * width * height, 0);
    let padded = width + 2;
    rows.resize(3 * padded, 0);
    for (y, out_row) in out.chunks_exact_mut(3 * width).enumerate() {
        let neighbours = [mirrored(y, -1, height), y, mirrored(y, 1, height)];
        for (target, source) in rows.chunks_exact_mut(padded).zip(neighbours) {
            let source = &bytes[source * stride..][..width];
            target[1..=width].copy_from_slice(source);
            target[0] = source[mirrored(0, -1, width)];
            target[width + 1] = source[mirrored(width - 1, 1, width)];
        }
        let (above, rest) = rows.split_at(padded);
        let (row, below) = rest.split_at(padded);
        let is_red_row = y % 2 == red_row;
        // In a red row red sites alternate with green ones, in a blue row blue sites do.
        let (own, other) = if is_red_row { (0, 2) } else { (2, 0) };
        let own_column = if is_red_row { red_column } else { 1 - red_column };
        let windows = above.windows(3).zip(row.windows(3)).zip(below.windows(3));
        for (x, (((up, mid), down), rgb)) in windows.zip(out_row.chunks_exact_mut(3)).enumerate() {
            if x % 2 == own_column {
                rgb[own] = mid[1];
                rgb[1] = mean4(up[1], down[1], mid[0], mid[2]);
                rgb[other] = mean4(up[0], up[2], down[0], down[2]);
            } else {
                rgb[1] = mid[1];
                rgb[own] = mean2(mid[0], mid[2]);
                rgb[other] = mean2(up[1], down[1]);
            }
        }
    }
}

fn mirrored(at: usize, step: isize, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    match at.checked_add_signed(step) {
        None => 1,
        Some(next) if next == len => len - 2,
        Some(next) => next,
    }
}

fn mean2(a: u8, b: u8) -> u8 {
    u16::midpoint(u16::from(a) + 1, u16::from(b)) as u8
}

fn mean4(a: u8, b: u8, c: u8, d: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) >> 2) as u8
}
