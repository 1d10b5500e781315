//! What is a frame and what is not.

use std::io::Cursor;

use data_encoding::HEXLOWER;
use image::{ExtendedColorType, ImageEncoder, codecs};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::core::recipe::SideRange;

const ENCODINGS: [FrameFormat; 4] = [FrameFormat::Png, FrameFormat::Jpeg, FrameFormat::Tiff, FrameFormat::Bmp];

/// Takes everything of 1 to 64 px.
fn rules() -> FrameRules {
    let side = SideRange { min: 1, max: 64 };
    let raw = PixelFormat::ALL.into_iter().map(FrameFormat::Raw);
    FrameRules {
        formats: ENCODINGS.into_iter().chain(raw).collect(),
        width_px: side,
        height_px: side,
        encoded_bytes_max: 1 << 20,
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn encoded(format: FrameFormat, width_px: u32, height_px: u32, pixels: &[u8], colour: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let written = match format {
        FrameFormat::Png => codecs::png::PngEncoder::new(&mut bytes).write_image(pixels, width_px, height_px, colour),
        FrameFormat::Jpeg => {
            codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95).write_image(pixels, width_px, height_px, colour)
        }
        FrameFormat::Tiff => {
            codecs::tiff::TiffEncoder::new(&mut bytes).write_image(pixels, width_px, height_px, colour)
        }
        FrameFormat::Bmp => codecs::bmp::BmpEncoder::new(&mut bytes).write_image(pixels, width_px, height_px, colour),
        FrameFormat::Raw(_) => unreachable!("not encoded"),
    };
    written.unwrap();
    bytes.into_inner()
}

fn gray(format: FrameFormat) -> Vec<u8> {
    encoded(format, 7, 5, &noise(35), ExtendedColorType::L8)
}

fn refusal(bytes: &[u8]) -> FrameError {
    decode(bytes, None, &rules(), &mut Scratch::default()).expect_err("this is no frame")
}

fn raw(format: PixelFormat, width_px: u32, height_px: u32, stride_bytes: Option<u32>) -> RawLayout {
    RawLayout { format, width_px, height_px, stride_bytes }
}

#[test]
fn lossless_containers_give_back_the_pixels_they_were_given() {
    let pixels = noise(7 * 5 * 3);
    for format in [FrameFormat::Png, FrameFormat::Tiff, FrameFormat::Bmp] {
        let bytes = encoded(format, 7, 5, &pixels, ExtendedColorType::Rgb8);
        let mut scratch = Scratch::default();
        let frame = decode(&bytes, None, &rules(), &mut scratch).unwrap();
        assert_eq!((frame.format, frame.width_px, frame.height_px), (format, 7, 5));
        assert!(matches!(frame.pixels, Pixels::Rgb8(found) if found == pixels), "{format}");
        assert_eq!((frame.source_format(), frame.pixel_format()), (format.name(), PixelFormat::RGB8));
    }
}

#[test]
fn sixteen_bit_gray_keeps_its_depth() {
    let words: Vec<u16> = (0..35).map(|n| n * 1871).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for format in [FrameFormat::Png, FrameFormat::Tiff] {
        let bytes = encoded(format, 7, 5, &bytes, ExtendedColorType::L16);
        let mut scratch = Scratch::default();
        let frame = decode(&bytes, None, &rules(), &mut scratch).unwrap();
        assert!(matches!(frame.pixels, Pixels::Gray16 { data, full_scale: 65535 } if data == words), "{format}");
        assert_eq!(frame.pixel_format(), PixelFormat::Mono16);
    }
}

#[test]
fn a_gray_jpeg_stays_gray_and_a_colour_one_has_colour() {
    let mut scratch = Scratch::default();
    let bytes = gray(FrameFormat::Jpeg);
    assert!(
        matches!(decode(&bytes, None, &rules(), &mut scratch).unwrap().pixels, Pixels::Gray8(found) if found.len() == 35)
    );
    let bytes = encoded(FrameFormat::Jpeg, 7, 5, &noise(105), ExtendedColorType::Rgb8);
    assert!(
        matches!(decode(&bytes, None, &rules(), &mut scratch).unwrap().pixels, Pixels::Rgb8(found) if found.len() == 105)
    );
}

#[test]
fn every_truncation_of_every_container_is_refused() {
    for format in ENCODINGS {
        let bytes = gray(format);
        for len in 0..bytes.len() {
            // BMP rows are padded to four bytes; the padding of the last row may be missing.
            if format == FrameFormat::Bmp && len + 1 == bytes.len() {
                continue;
            }
            let decoded = decode(&bytes[..len], None, &rules(), &mut Scratch::default()).map(|frame| frame.format);
            assert!(decoded.is_err(), "{format} cut to {len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn zeros_behind_a_jpeg_are_padding_and_anything_else_is_not() {
    let mut bytes = gray(FrameFormat::Jpeg);
    bytes.extend([0; 100]);
    assert!(decode(&bytes, None, &rules(), &mut Scratch::default()).is_ok());
    bytes.push(1);
    assert!(matches!(refusal(&bytes), FrameError::Incomplete { format: FrameFormat::Jpeg, .. }));
}

#[test]
fn alpha_and_deep_colour_are_refused_by_name() {
    let of = |format, colour, bytes_per_pixel: usize| encoded(format, 4, 4, &noise(16 * bytes_per_pixel), colour);
    for (bytes, what) in [
        (of(FrameFormat::Png, ExtendedColorType::Rgba8, 4), "an alpha channel"),
        (of(FrameFormat::Png, ExtendedColorType::La8, 2), "an alpha channel"),
        (of(FrameFormat::Tiff, ExtendedColorType::Rgba8, 4), "an alpha channel"),
        (of(FrameFormat::Bmp, ExtendedColorType::Rgba8, 4), "an alpha channel"),
        (of(FrameFormat::Png, ExtendedColorType::Rgb16, 6), "16-bit colour"),
        (of(FrameFormat::Tiff, ExtendedColorType::Rgb16, 6), "16-bit colour"),
    ] {
        assert!(matches!(refusal(&bytes), FrameError::Unsupported { what: found, .. } if found == what), "{what}");
    }
}

#[test]
fn four_ink_jpegs_are_refused() {
    // A baseline frame header with four components, as CMYK files have.
    let mut bytes = gray(FrameFormat::Jpeg);
    let sof = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let header = [0xff, 0xc0, 0, 20, 8, 0, 5, 0, 7, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0];
    bytes.splice(sof..sof + 13, header);
    assert!(matches!(refusal(&bytes), FrameError::Unsupported { .. } | FrameError::Damaged { .. }));
}

#[test]
fn a_second_tiff_page_is_refused() {
    let mut bytes = gray(FrameFormat::Tiff);
    let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let entries = usize::from(u16::from_le_bytes(bytes[directory..directory + 2].try_into().unwrap()));
    let next = directory + 2 + 12 * entries;
    bytes[next..next + 4].copy_from_slice(&8_u32.to_le_bytes());
    assert!(matches!(refusal(&bytes), FrameError::Unsupported { what: "more than one page", .. }));
}

#[test]
fn sizes_outside_the_recipe_are_refused_from_the_headers() {
    for format in ENCODINGS {
        let bytes = encoded(format, 65, 5, &noise(65 * 5), ExtendedColorType::L8);
        let refusal = refusal(&bytes);
        let is_size = matches!(refusal, FrameError::Size { width_px: 65, height_px: 5, .. });
        // The PNG reader is given the limits and refuses by itself.
        let is_limit = matches!(&refusal, FrameError::Damaged { reason, .. } if reason.contains("64x64"));
        assert!(is_size || is_limit, "{format}: {refusal}");
    }
    // A JPEG that says it is 65500x65500 in a few hundred bytes.
    let mut bomb = gray(FrameFormat::Jpeg);
    let sof = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bomb[sof + 5..sof + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    assert!(matches!(refusal(&bomb), FrameError::Size { width_px: 65500, .. }));
    let empty = raw(PixelFormat::Mono8, 0, 5, None);
    let refused = decode(&[0], Some(&empty), &rules(), &mut Scratch::default()).unwrap_err();
    assert!(matches!(refused, FrameError::Size { width_px: 0, .. }));
}

#[test]
fn formats_and_lengths_the_recipe_does_not_take_are_refused_unread() {
    let mut rules = rules();
    rules.formats = vec![FrameFormat::Png, FrameFormat::Raw(PixelFormat::Mono8)];
    let jpeg = gray(FrameFormat::Jpeg);
    let refused = decode(&jpeg, None, &rules, &mut Scratch::default()).unwrap_err();
    assert_eq!(refused.to_string(), "the recipe takes no jpeg frames; it takes png, Mono8");
    rules.encoded_bytes_max = 10;
    let refused = decode(&jpeg, None, &rules, &mut Scratch::default()).unwrap_err();
    assert!(matches!(refused, FrameError::Length { max: 10, .. }));
    assert_eq!(refusal(b"GIF89a"), FrameError::UnknownEncoding);
    assert!(matches!(refusal(b""), FrameError::Length { bytes: 0, .. }));
}

#[test]
fn raw_lengths_and_strides_must_fit_the_layout() {
    let mut scratch = Scratch::default();
    let mut check = |bytes: usize, layout: RawLayout| {
        decode(&vec![0; bytes], Some(&layout), &rules(), &mut scratch).map(|frame| frame.width_px)
    };
    assert!(check(35, raw(PixelFormat::Mono8, 7, 5, None)).is_ok());
    assert!(check(40, raw(PixelFormat::Mono8, 7, 5, Some(8))).is_ok());
    assert!(check(39, raw(PixelFormat::Mono8, 7, 5, Some(8))).is_ok(), "the last row may end with its pixels");
    let wrong = check(38, raw(PixelFormat::Mono8, 7, 5, Some(8)));
    assert_eq!(wrong, Err(FrameError::RawLength { bytes: 38, least: 39, most: 40 }));
    let wrong = check(35, raw(PixelFormat::Mono8, 7, 5, Some(6)));
    assert!(matches!(wrong, Err(FrameError::Stride { row_bytes: 7, stride_bytes: 6, .. })));
    assert!(matches!(check(35, raw(PixelFormat::Mono8, 7, 5, Some(0))), Err(FrameError::Stride { .. })));
    let wrong = check(35, raw(PixelFormat::Mono8, 7, 5, Some(u32::MAX)));
    assert!(matches!(wrong, Err(FrameError::RawLength { .. })));
}

#[test]
fn tight_raw_gray_is_borrowed_not_copied() {
    let bytes = noise(35);
    let mut scratch = Scratch::default();
    let frame = decode(&bytes, Some(&raw(PixelFormat::Mono8, 7, 5, None)), &rules(), &mut scratch).unwrap();
    assert!(matches!(frame.pixels, Pixels::Gray8(found) if std::ptr::eq(found, bytes.as_slice())));
}

#[test]
fn words_above_the_format_s_full_scale_are_refused() {
    let layout = raw(PixelFormat::Mono10, 2, 1, None);
    let refused = decode(&[0xff, 0x03, 0x00, 0x04], Some(&layout), &rules(), &mut Scratch::default()).unwrap_err();
    assert!(matches!(refused, FrameError::AboveFullScale { index: 1, value: 1024, full_scale: 1023, .. }));
}

#[test]
fn a_demosaiced_flat_colour_is_that_colour_everywhere() {
    for (format, [red, green_red, green_blue, blue]) in [
        (PixelFormat::BayerRG8, [(0, 0), (1, 0), (0, 1), (1, 1)]),
        (PixelFormat::BayerGR8, [(1, 0), (0, 0), (1, 1), (0, 1)]),
        (PixelFormat::BayerGB8, [(0, 1), (1, 1), (0, 0), (1, 0)]),
        (PixelFormat::BayerBG8, [(1, 1), (0, 1), (1, 0), (0, 0)]),
    ] {
        let mut mosaic = vec![0; 7 * 5];
        for y in 0..5 {
            for x in 0..7 {
                let site = (x % 2, y % 2);
                mosaic[y * 7 + x] = match site {
                    _ if site == red => 200,
                    _ if site == blue => 30,
                    _ => {
                        assert!(site == green_red || site == green_blue);
                        100
                    }
                };
            }
        }
        let mut scratch = Scratch::default();
        let frame = decode(&mosaic, Some(&raw(format, 7, 5, None)), &rules(), &mut scratch).unwrap();
        let Pixels::Rgb8(rgb) = frame.pixels else { panic!("{format}") };
        assert!(rgb.chunks(3).all(|pixel| pixel == [200, 100, 30]), "{format}: {rgb:?}");
    }
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    pixel_format: PixelFormat,
    width_px: u32,
    height_px: u32,
    stride_bytes: Option<u32>,
    input: String,
    pixels: String,
    digest: Blake3Digest,
}

/// `docs/spec/vectors/pixels.json`, made by `tests/vectors/make_pixels.py` without any of this code.
#[test]
fn published_vectors_of_the_pixels_digest_hold() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../docs/spec/vectors/pixels.json")).unwrap();
    assert!(vectors.len() >= PixelFormat::ALL.len());
    for vector in vectors {
        let layout = raw(vector.pixel_format, vector.width_px, vector.height_px, vector.stride_bytes);
        let input = HEXLOWER.decode(vector.input.as_bytes()).unwrap();
        let mut scratch = Scratch::default();
        let frame = decode(&input, Some(&layout), &rules(), &mut scratch).unwrap();
        let pixels = match frame.pixels {
            Pixels::Gray8(data) | Pixels::Rgb8(data) => data.to_vec(),
            Pixels::Gray16 { data, .. } => data.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        assert_eq!(HEXLOWER.encode(&pixels), vector.pixels, "{}", vector.name);
        assert_eq!(frame.digest(), vector.digest, "{}", vector.name);
    }
}

#[test]
fn equal_pixels_have_equal_digests_however_they_were_encoded() {
    let pixels = noise(35);
    let mut scratch = Scratch::default();
    let expected =
        decode(&pixels, Some(&raw(PixelFormat::Mono8, 7, 5, None)), &rules(), &mut scratch).unwrap().digest();
    for format in [FrameFormat::Png, FrameFormat::Tiff] {
        let bytes = gray(format);
        assert_eq!(decode(&bytes, None, &rules(), &mut scratch).unwrap().digest(), expected);
    }
    let turned = decode(&pixels, Some(&raw(PixelFormat::Mono8, 5, 7, None)), &rules(), &mut scratch).unwrap().digest();
    assert_ne!(turned, expected);
}

proptest! {
    #[test]
    fn no_mutation_of_a_valid_image_panics(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut bytes = gray(ENCODINGS[which]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = decode(&bytes, None, &rules(), &mut Scratch::default());
    }

    #[test]
    fn no_bytes_and_no_layout_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        format in prop::sample::select(PixelFormat::ALL.to_vec()),
        width_px in 0_u32..20,
        height_px in 0_u32..20,
        stride_bytes in prop::option::of(0_u32..80),
    ) {
        let _ = decode(&bytes, None, &rules(), &mut Scratch::default());
        let layout = raw(format, width_px, height_px, stride_bytes);
        let exact = layout.row_bytes() as usize * height_px as usize;
        let mut scratch = Scratch::default();
        let _ = decode(&bytes, Some(&layout), &rules(), &mut scratch);
        let fitting = RawLayout { stride_bytes: None, ..layout };
        if let Ok(frame) = decode(&noise(exact.max(1)), Some(&fitting), &rules(), &mut scratch) {
            prop_assert_eq!((frame.width_px, frame.height_px), (width_px, height_px));
        }
    }
}
