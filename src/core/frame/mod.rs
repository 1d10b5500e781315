//! Frames: from the bytes a camera sent to pixels in one of three plain layouts, under the recipe's limits.
//!
//! Decoding is strict, because a frame that was damaged on the way must not be inspected: a container is known by its first
//! bytes, must be complete to its last, and of a kind whose pixels mean one thing only. Refused are alpha
//! (some pixels would not be there), CMYK, more than one page or animation, and 16-bit colour. EXIF orientation and
//! colour profiles are ignored, as Pillow's `Image.open` ignores them: the pixels are those the file stores.

mod digest;
mod encoded;
mod raw;

#[cfg(test)]
mod tests;

use std::fmt;

pub use raw::RawLayout;

pub use crate::core::recipe::{FRAME_PIXELS_MAX, FrameFormat, FrameRules};
use crate::types::{Blake3Digest, PixelFormat};

/// Why bytes are no frame. Nothing of the pixels is in the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("the frame has {bytes} bytes; the recipe allows 1 to {max}")]
    Length { bytes: usize, max: u64 },
    #[error("the recipe takes no {format} frames; it takes {allowed}")]
    FormatNotAllowed { format: FrameFormat, allowed: String },
    #[error("the bytes are no PNG, JPEG, TIFF or BMP image; raw pixels need their pixel format, width and height")]
    UnknownEncoding,
    #[error("the frame has {width_px}x{height_px} px; the recipe takes {allowed}")]
    Size { width_px: u32, height_px: u32, allowed: String },
    #[error("a row of {width_px} px of {format} takes {row_bytes} bytes; the stride says {stride_bytes}")]
    Stride { format: PixelFormat, width_px: u32, row_bytes: u64, stride_bytes: u32 },
    #[error("the raw frame has {bytes} bytes; its layout takes {least} to {most}")]
    RawLength { bytes: usize, least: u64, most: u64 },
    #[error("pixel {index} of the {format} frame is {value}; {full_scale} is the most that format can say")]
    AboveFullScale { format: PixelFormat, index: usize, value: u16, full_scale: u16 },
    #[error("the {format} image is incomplete: {what}; send the whole file")]
    Incomplete { format: FrameFormat, what: &'static str },
    #[error("the {format} image holds {what}; send 8-bit gray, 16-bit gray or 8-bit colour without alpha, one page")]
    Unsupported { format: FrameFormat, what: &'static str },
    #[error("the {format} image is damaged: {reason}")]
    Damaged { format: FrameFormat, reason: String },
}

/// A decoded frame. The pixels borrow from the bytes that came in where their layout is already tight, otherwise from
/// the [`Scratch`] given to [`decode`].
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// How it came in.
    pub format: FrameFormat,
    pub width_px: u32,
    pub height_px: u32,
    pub pixels: Pixels<'a>,
}

/// Row-major pixels without padding between rows.
#[derive(Clone, Copy)]
pub enum Pixels<'a> {
    Gray8(&'a [u8]),
    /// Values from 0 to `full_scale`, which is 1023, 4095 or 65535.
    Gray16 {
        data: &'a [u16],
        full_scale: u16,
    },
    /// Red, green, blue.
    Rgb8(&'a [u8]),
}

/// Buffers that decoding reuses from frame to frame, so that a warm loop allocates nothing of its own.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    words: Vec<u16>,
    rows: Vec<u8>,
}

impl fmt::Debug for Pixels<'_> {
    /// Says the layout only: pixels never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gray8(data) => write!(f, "Gray8({} px)", data.len()),
            Self::Gray16 { data, full_scale } => write!(f, "Gray16({} px to {full_scale})", data.len()),
            Self::Rgb8(data) => write!(f, "Rgb8({} px)", data.len() / 3),
        }
    }
}

impl Frame<'_> {
    /// The PFNC format of the decoded pixels, which a decision entry records: Mono8, Mono10, Mono12, Mono16 or RGB8.
    /// A Bayer frame is recorded by its demosaiced pixels, RGB8.
    #[must_use]
    pub fn pixel_format(&self) -> PixelFormat {
        match self.pixels {
            Pixels::Gray8(_) => PixelFormat::Mono8,
            Pixels::Gray16 { full_scale: 1023, .. } => PixelFormat::Mono10,
            Pixels::Gray16 { full_scale: 4095, .. } => PixelFormat::Mono12,
            Pixels::Gray16 { .. } => PixelFormat::Mono16,
            Pixels::Rgb8(_) => PixelFormat::RGB8,
        }
    }

    /// The value that means 1.0.
    #[must_use]
    pub fn full_scale(&self) -> u16 {
        match self.pixels {
            Pixels::Gray8(_) | Pixels::Rgb8(_) => 255,
            Pixels::Gray16 { full_scale, .. } => full_scale,
        }
    }

    /// How it came in: `png`, `jpeg`, `tiff`, `bmp` or a PFNC name.
    #[must_use]
    pub fn source_format(&self) -> &'static str {
        self.format.name()
    }

    /// BLAKE3 of the canonical pixels, `docs/spec/pixels.md`, on the calling thread.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        digest::pixels(self)
    }
}

impl<'a> Frame<'a> {
    /// The frame in gray: itself if it is gray, otherwise its Rec. 601 luma
    /// `(19595 R + 38470 G + 7471 B + 32768) >> 16`, which is Pillow's `convert("L")`, written to `buffer`.
    #[must_use]
    pub fn luma(&self, buffer: &'a mut Vec<u8>) -> Frame<'a> {
        let Pixels::Rgb8(data) = self.pixels else { return *self };
        buffer.resize(data.len() / 3, 0);
        luma_of(data, buffer);
        Frame { pixels: Pixels::Gray8(buffer), ..*self }
    }
}

/// Luma of every RGB triple of `rgb`, into `luma`.
pub(crate) fn luma_of(rgb: &[u8], luma: &mut [u8]) {
    for (pixel, gray) in rgb.chunks_exact(3).zip(luma) {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        #[expect(clippy::cast_possible_truncation, reason = "the weights sum to 65536, so the result is at most 255")]
        {
            *gray = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16) as u8;
        }
    }
}

/// Decodes one frame: raw pixels where a layout is given, otherwise an image whose container its first bytes tell.
/// Length, format and size are checked from the headers before a pixel is decoded.
///
/// # Errors
/// [`FrameError`] whenever the bytes are not exactly one complete frame within `rules`.
pub fn decode<'a>(
    bytes: &'a [u8],
    raw: Option<&RawLayout>,
    rules: &FrameRules,
    scratch: &'a mut Scratch,
) -> Result<Frame<'a>, FrameError> {
    if bytes.is_empty() || bytes.len() as u64 > rules.encoded_bytes_max {
        return Err(FrameError::Length { bytes: bytes.len(), max: rules.encoded_bytes_max });
    }
    match raw {
        Some(layout) => {
            check_format(FrameFormat::Raw(layout.format), rules)?;
            check_size(layout.width_px, layout.height_px, rules)?;
            raw::unpack(bytes, layout, scratch)
        }
        None => {
            let format = encoded::sniff(bytes).ok_or(FrameError::UnknownEncoding)?;
            check_format(format, rules)?;
            encoded::decode(bytes, format, rules, scratch)
        }
    }
}

fn check_format(format: FrameFormat, rules: &FrameRules) -> Result<(), FrameError> {
    if rules.formats.contains(&format) {
        return Ok(());
    }
    let allowed: Vec<&str> = rules.formats.iter().map(|format| format.name()).collect();
    Err(FrameError::FormatNotAllowed { format, allowed: allowed.join(", ") })
}

fn check_size(width_px: u32, height_px: u32, rules: &FrameRules) -> Result<(), FrameError> {
    let (width, height) = (rules.width_px, rules.height_px);
    let pixels = u64::from(width_px) * u64::from(height_px);
    // A parsed recipe keeps within the pixel limit by itself; rules made by hand are held to it here.
    if width.contains(width_px) && height.contains(height_px) && (1..=FRAME_PIXELS_MAX).contains(&pixels) {
        return Ok(());
    }
    let allowed = format!("{}..{} by {}..{}", width.min, width.max, height.min, height.max);
    Err(FrameError::Size { width_px, height_px, allowed })
}
