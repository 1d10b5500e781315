//! Encoded images: PNG, TIFF and BMP through `image`, JPEG through `zune-jpeg` in its strict mode.

use std::io::Cursor;

use image::{ColorType, ExtendedColorType, ImageDecoder, ImageError, Limits, codecs};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{Frame, FrameError, FrameFormat, FrameRules, Pixels, Scratch, check_size};

/// What decoders may allocate beside the pixels themselves: rows, tables and metadata.
const OVERHEAD_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes per pixel that a decoder may hold at once: two copies of 16-bit gray or one of RGB8, rounded up.
const BYTES_PER_PIXEL_MAX: u64 = 8;
/// Most scans of a progressive JPEG; each one walks over the whole image, and encoders write about ten.
const JPEG_SCANS_MAX: usize = 64;
/// The last chunk of every PNG.
const PNG_END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

/// The container by its first bytes.
pub(super) fn sniff(bytes: &[u8]) -> Option<FrameFormat> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(FrameFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(FrameFormat::Jpeg),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(FrameFormat::Tiff),
        [b'B', b'M', ..] => Some(FrameFormat::Bmp),
        _ => None,
    }
}

pub(super) fn decode<'a>(
    bytes: &[u8],
    format: FrameFormat,
    rules: &FrameRules,
    scratch: &'a mut Scratch,
) -> Result<Frame<'a>, FrameError> {
    match format {
        FrameFormat::Jpeg => jpeg(bytes, rules, scratch),
        FrameFormat::Png => {
            if !bytes.ends_with(&PNG_END) {
                return Err(FrameError::Incomplete { format, what: "it does not end with an IEND chunk" });
            }
            let decoder = codecs::png::PngDecoder::with_limits(Cursor::new(bytes), limits(rules));
            let decoder = decoder.map_err(|error| refused(format, &error, rules))?;
            if decoder.is_apng().map_err(|error| refused(format, &error, rules))? {
                return Err(FrameError::Unsupported { format, what: "an animation" });
            }
            pixels(decoder, format, rules, scratch)
        }
        FrameFormat::Tiff => {
            one_page(bytes)?;
            let decoder = codecs::tiff::TiffDecoder::new(Cursor::new(bytes));
            pixels(decoder.map_err(|error| refused(format, &error, rules))?, format, rules, scratch)
        }
        FrameFormat::Bmp => {
            let decoder = codecs::bmp::BmpDecoder::new(Cursor::new(bytes));
            pixels(decoder.map_err(|error| refused(format, &error, rules))?, format, rules, scratch)
        }
        FrameFormat::Raw(format) => unreachable!("{format} has no container"),
    }
}

fn limits(rules: &FrameRules) -> Limits {
    let pixels = u64::from(rules.width_px.max) * u64::from(rules.height_px.max);
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(rules.width_px.max);
    limits.max_image_height = Some(rules.height_px.max);
    limits.max_alloc = Some(pixels * BYTES_PER_PIXEL_MAX + OVERHEAD_BYTES);
    limits
}

/// Decodes what `image` reads, once its headers say that it is within the rules.
fn pixels<'a>(
    mut decoder: impl ImageDecoder,
    format: FrameFormat,
    rules: &FrameRules,
    scratch: &'a mut Scratch,
) -> Result<Frame<'a>, FrameError> {
    let (width_px, height_px) = decoder.dimensions();
    check_size(width_px, height_px, rules)?;
    let unsupported = |what| Err(FrameError::Unsupported { format, what });
    if matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return unsupported("CMYK colour");
    }
    let colour = decoder.color_type();
    let bytes_per_pixel = match colour {
        ColorType::L8 => 1,
        ColorType::L16 => 2,
        ColorType::Rgb8 => 3,
        ColorType::La8 | ColorType::La16 | ColorType::Rgba8 | ColorType::Rgba16 | ColorType::Rgba32F => {
            return unsupported("an alpha channel");
        }
        ColorType::Rgb16 => return unsupported("16-bit colour"),
        _ => return unsupported("pixels of another kind"),
    };
    let damaged = |error: &ImageError| refused(format, error, rules);
    decoder.set_limits(limits(rules)).map_err(|error| damaged(&error))?;
    let Scratch { bytes, words, .. } = scratch;
    bytes.resize(width_px as usize * height_px as usize * bytes_per_pixel, 0);
    decoder.read_image(bytes).map_err(|error| damaged(&error))?;
    let pixels = match colour {
        ColorType::L8 => Pixels::Gray8(bytes),
        ColorType::Rgb8 => Pixels::Rgb8(bytes),
        _ => {
            words.clear();
            words.extend(bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])));
            Pixels::Gray16 { data: words, full_scale: 65535 }
        }
    };
    Ok(Frame { format, width_px, height_px, pixels })
}

fn refused(format: FrameFormat, error: &ImageError, rules: &FrameRules) -> FrameError {
    match error {
        ImageError::Unsupported(_) => FrameError::Unsupported { format, what: "pixels of another kind" },
        ImageError::Limits(_) => FrameError::Damaged {
            format,
            reason: format!(
                "it needs more than the {}x{} px the recipe takes",
                rules.width_px.max, rules.height_px.max
            ),
        },
        other => FrameError::Damaged { format, reason: shortened(&other.to_string()) },
    }
}

/// Decoders quote what they found; a message stays short and on one line whatever that was.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// A classic TIFF whose first directory is its last.
fn one_page(bytes: &[u8]) -> Result<(), FrameError> {
    let format = FrameFormat::Tiff;
    let little = bytes[0] == b'I';
    let incomplete = || FrameError::Incomplete { format, what: "its directory lies beyond its end" };
    let at = |offset: usize, len: usize| bytes.get(offset..offset.checked_add(len)?);
    let word = |offset: usize| {
        at(offset, 2).map(|b| if little { u16::from_le_bytes([b[0], b[1]]) } else { u16::from_be_bytes([b[0], b[1]]) })
    };
    let long = |offset: usize| {
        let b: [u8; 4] = at(offset, 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) } as usize)
    };
    let directory = long(4).ok_or_else(incomplete)?;
    let entries = usize::from(word(directory).ok_or_else(incomplete)?);
    // Two bytes of count, twelve per entry, then where the next directory is.
    match long(directory + 2 + 12 * entries).ok_or_else(incomplete)? {
        0 => Ok(()),
        _ => Err(FrameError::Unsupported { format, what: "more than one page" }),
    }
}

fn jpeg<'a>(bytes: &[u8], rules: &FrameRules, scratch: &'a mut Scratch) -> Result<Frame<'a>, FrameError> {
    let format = FrameFormat::Jpeg;
    // Cameras pad their transfers with zeros; anything else after the end of the image is refused.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if !bytes[..end].ends_with(&[0xff, 0xd9]) {
        return Err(FrameError::Incomplete { format, what: "it does not end with an EOI marker" });
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_max_scans(JPEG_SCANS_MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes[..end]), options);
    let damaged =
        |error: &dyn std::fmt::Debug| FrameError::Damaged { format, reason: shortened(&format!("{error:?}")) };
    decoder.decode_headers().map_err(|error| damaged(&error))?;
    let (width, height) = decoder.dimensions().expect("the headers are decoded");
    let side = |side: usize| u32::try_from(side).expect("a JPEG's side has 16 bits");
    let (width_px, height_px) = (side(width), side(height));
    check_size(width_px, height_px, rules)?;
    let is_gray = match decoder.input_colorspace().expect("the headers are decoded") {
        ColorSpace::Luma => true,
        ColorSpace::YCbCr | ColorSpace::RGB => false,
        _ => return Err(FrameError::Unsupported { format, what: "CMYK, YCCK or another colour space" }),
    };
    let colour = if is_gray { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(colour));
    scratch.bytes.resize(width * height * if is_gray { 1 } else { 3 }, 0);
    decoder.decode_into(&mut scratch.bytes).map_err(|error| damaged(&error))?;
    let pixels = if is_gray { Pixels::Gray8(&scratch.bytes) } else { Pixels::Rgb8(&scratch.bytes) };
    Ok(Frame { format, width_px, height_px, pixels })
}
