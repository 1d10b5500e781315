//! Grey pixels to image files.

use std::io::Cursor;

use image::{
    ExtendedColorType, ImageEncoder as _,
    codecs::{bmp::BmpEncoder, jpeg::JpegEncoder, png::PngEncoder},
};

use super::ImageFormat;

/// Good enough that the codec hides no defect, as inspection cameras are set.
const JPEG_QUALITY: u8 = 92;

impl ImageFormat {
    /// The usual ending of such a file's name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Bmp => "bmp",
        }
    }

    /// Encodes 8-bit grey pixels.
    ///
    /// # Panics
    /// When `pixels` is not `width_px * height_px` long, or a side is too long for the format.
    #[must_use]
    pub fn encode_grey(self, pixels: &[u8], width_px: u32, height_px: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(pixels.len() / 2 + 4_096);
        let grey = ExtendedColorType::L8;
        match self {
            Self::Png => PngEncoder::new(&mut bytes).write_image(pixels, width_px, height_px, grey),
            Self::Jpeg => {
                JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).write_image(pixels, width_px, height_px, grey)
            }
            Self::Bmp => BmpEncoder::new(&mut Cursor::new(&mut bytes)).write_image(pixels, width_px, height_px, grey),
        }
        .expect("writing to memory fails only for pixels that do not fit the size");
        bytes
    }
}
