//! Tensors equal those that training made.

use serde::Deserialize;

use super::*;
use crate::core::recipe::{FrameFormat, Region, Shape};

#[derive(Deserialize)]
struct Vector {
    method: String,
    kind: String,
    source: (u32, u32),
    target: (u32, u32),
    result: String,
}

/// As `tests/vectors/make_resize.py` makes it.
fn noise(count: usize, limit: u64) -> Vec<u16> {
    let value = |n: u64| {
        if n % 8 == 5 {
            return if (n / 8).is_multiple_of(2) { 0 } else { (limit - 1) as u16 };
        }
        (((n * 2_654_435_761 % (1 << 32)) * limit) >> 32) as u16
    };
    (0..count as u64).map(value).collect()
}

fn input(method: &str, colour: Colour, (width_px, height_px): (u32, u32)) -> Input {
    let resize = match method {
        "pillow-nearest" => Resize::PillowNearest,
        "pillow-bilinear" => Resize::PillowBilinear,
        "pillow-bicubic" => Resize::PillowBicubic,
        "pillow-lanczos" => Resize::PillowLanczos,
        "opencv-linear" => Resize::OpencvLinear,
        _ => Resize::None,
    };
    let channels = colour.channels();
    Input {
        tensor: "input".into(),
        colour,
        width_px,
        height_px,
        resize,
        fit: Fit::Stretch,
        mean: vec![0.0; channels],
        std: vec![1.0; channels],
    }
}

fn gray(width_px: u32, height_px: u32, data: &[u8]) -> Frame<'_> {
    Frame { format: FrameFormat::Png, width_px, height_px, pixels: Pixels::Gray8(data) }
}

/// The levels a tensor was made from, in the layout of the source image.
fn levels(tensor: &[f32], channels: usize, full_scale: f32) -> Vec<u16> {
    let plane = tensor.len() / channels;
    let level = |at: usize| (tensor[at % channels * plane + at / channels] * full_scale).round() as u16;
    (0..tensor.len()).map(level).collect()
}

#[test]
fn resizing_equals_pillow_and_opencv_to_the_bit() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../tests/vectors/resize.json")).unwrap();
    assert!(vectors.len() > 100);
    let mut wrong = Vec::new();
    for vector in vectors {
        let expected = data_encoding::HEXLOWER.decode(vector.result.as_bytes()).unwrap();
        let (width_px, height_px) = vector.source;
        let count = (width_px * height_px) as usize;
        let (is_rgb, is_deep) = (vector.kind == "rgb8", vector.kind == "gray16");
        let colour = if is_rgb { Colour::Rgb } else { Colour::Gray };
        let words = noise(if is_rgb { 3 * count } else { count }, if is_deep { 65536 } else { 256 });
        let bytes: Vec<u8> = words.iter().map(|word| *word as u8).collect();
        let (pixels, full_scale) = match vector.kind.as_str() {
            "gray8" => (Pixels::Gray8(&bytes), 255.0),
            "rgb8" => (Pixels::Rgb8(&bytes), 255.0),
            _ => (Pixels::Gray16 { data: &words, full_scale: 65535 }, 65535.0),
        };
        let expected: Vec<u16> = if is_deep {
            expected.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
        } else {
            expected.into_iter().map(u16::from).collect()
        };
        let mut preprocessor = Preprocessor::with_input(input(&vector.method, colour, vector.target));
        let frame = Frame { format: FrameFormat::Png, width_px, height_px, pixels };
        let found = levels(preprocessor.prepare(&frame).unwrap(), colour.channels(), full_scale);
        assert_eq!(found.len(), expected.len());
        let differing = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        let largest = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        // OpenCV resizes 16-bit images in floats that it fuses or not: one of 65535, seldom.
        let is_float = is_deep && vector.method == "opencv-linear";
        if differing > 0 && !(is_float && largest == Some(1) && differing * 20 < expected.len()) {
            let Vector { method, kind, source, target, .. } = vector;
            wrong.push(format!(
                "{method} {kind} {source:?} -> {target:?}: {differing} of {} differ, by at most {largest:?}",
                expected.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn normalisation_is_numpy_s_float32_arithmetic_in_its_order() {
    // numpy: (np.float32(pixel) / np.float32(255) - np.float32(mean)) / np.float32(std)
    let mut input = input("none", Colour::Rgb, (1, 1));
    input.mean = vec![0.485, 0.456, 0.406];
    input.std = vec![0.229, 0.224, 0.225];
    let mut preprocessor = Preprocessor::with_input(input);
    let pixels = Pixels::Rgb8(&[1, 127, 254]);
    let tensor = preprocessor.prepare(&Frame { format: FrameFormat::Png, width_px: 1, height_px: 1, pixels }).unwrap();
    let expected = [0xc006_732b_u32, 0x3e40_2de4, 0x4027_d834];
    assert_eq!(tensor.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected);
}

#[test]
fn channels_come_in_the_order_the_recipe_says() {
    let pixels = Pixels::Rgb8(&[10, 20, 30, 40, 50, 60]);
    let frame = Frame { format: FrameFormat::Png, width_px: 2, height_px: 1, pixels };
    let tensor = |colour| {
        let mut preprocessor = Preprocessor::with_input(input("none", colour, (2, 1)));
        levels(preprocessor.prepare(&frame).unwrap(), 1, 255.0)
    };
    assert_eq!(tensor(Colour::Rgb), [10, 40, 20, 50, 30, 60]);
    assert_eq!(tensor(Colour::Bgr), [30, 60, 20, 50, 10, 40]);
    // Pillow: Image.fromarray(np.uint8([[[10, 20, 30], [40, 50, 60]]])).convert("L")
    assert_eq!(tensor(Colour::Gray), [18, 48]);
}

#[test]
fn a_gray_frame_fills_all_channels_of_a_colour_model() {
    let mut preprocessor = Preprocessor::with_input(input("none", Colour::Bgr, (2, 1)));
    let tensor = preprocessor.prepare(&gray(2, 1, &[7, 9])).unwrap();
    assert_eq!(levels(tensor, 1, 255.0), [7, 9, 7, 9, 7, 9]);
}

#[test]
fn a_letterbox_keeps_the_aspect_ratio_and_pads_the_rest() {
    let mut input = input("pillow-bilinear", Colour::Gray, (8, 8));
    input.fit = Fit::Letterbox { pad: 114 };
    assert_eq!(Placement::of(&input, 80, 40), Placement { left_px: 0, top_px: 2, width_px: 8, height_px: 4 });
    // Three rows of padding: one above, two below, as Ultralytics rounds it.
    assert_eq!(Placement::of(&input, 80, 50), Placement { left_px: 0, top_px: 1, width_px: 8, height_px: 5 });
    assert_eq!(Placement::of(&input, 1000, 1), Placement { left_px: 0, top_px: 3, width_px: 8, height_px: 1 });
    let mut preprocessor = Preprocessor::with_input(input);
    let words = vec![1023; 80 * 40];
    for pixels in [Pixels::Gray8(&[255; 80 * 40]), Pixels::Gray16 { data: &words, full_scale: 1023 }] {
        let frame = Frame { format: FrameFormat::Png, width_px: 80, height_px: 40, pixels };
        let levels = levels(preprocessor.prepare(&frame).unwrap(), 1, 255.0);
        assert!(levels[..16].iter().chain(&levels[48..]).all(|level| *level == 114), "{levels:?}");
        assert!(levels[16..48].iter().all(|level| *level == 255), "{levels:?}");
    }
}

#[test]
fn without_resizing_another_size_is_refused() {
    let mut preprocessor = Preprocessor::with_input(input("none", Colour::Gray, (2, 2)));
    let refused = preprocessor.prepare(&gray(2, 1, &[0, 0])).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the frame gives the model 2x1 px and the recipe does not resize; it takes exactly 2x2 px"
    );
}

#[test]
fn a_view_is_resized_as_if_it_were_a_frame_of_its_own() {
    let (width, height) = (24, 18);
    let words = noise(3 * 24 * 18, 256);
    let bytes: Vec<u8> = words.iter().map(|word| *word as u8).collect();
    let deep = noise(24 * 18, 65536);
    let view = Bounds { height_px: 9, width_px: 11, x_px: 5, y_px: 6 };
    let cut = |channels: usize| {
        let row = |y: usize| channels * (y * 24 + 5)..channels * (y * 24 + 16);
        (6..15).flat_map(row).collect::<Vec<_>>()
    };
    let rgb: Vec<u8> = cut(3).iter().map(|at| bytes[*at]).collect();
    let gray: Vec<u8> = cut(1).iter().map(|at| bytes[*at]).collect();
    let deep_cut: Vec<u16> = cut(1).iter().map(|at| deep[*at]).collect();
    let cases = [
        (Pixels::Rgb8(&bytes), Pixels::Rgb8(&rgb)),
        (Pixels::Gray8(&bytes[..24 * 18]), Pixels::Gray8(&gray)),
        (Pixels::Gray16 { data: &deep, full_scale: 65535 }, Pixels::Gray16 { data: &deep_cut, full_scale: 65535 }),
    ];
    for (whole, part) in cases {
        let whole = Frame { format: FrameFormat::Png, width_px: width, height_px: height, pixels: whole };
        let part = Frame { format: FrameFormat::Png, width_px: 11, height_px: 9, pixels: part };
        let mut preprocessor = Preprocessor::with_input(input("pillow-bicubic", Colour::Gray, (7, 5)));
        let expected = preprocessor.prepare(&part).unwrap().to_vec();
        assert_eq!(preprocessor.prepare_view(&whole, view).unwrap().tensor, expected);
    }
}

#[test]
fn what_does_not_count_is_painted_over_before_the_model_sees_it() {
    let region = Region {
        include: vec![Shape::Rectangle(Bounds { height_px: 2, width_px: 2, x_px: 1, y_px: 1 })],
        exclude: vec![Shape::Rectangle(Bounds { height_px: 1, width_px: 1, x_px: 2, y_px: 2 })],
        around: Bounds { height_px: 2, width_px: 2, x_px: 1, y_px: 1 },
        crop: false,
        fill: Some(9),
        box_share_min: None,
    };
    let mask = Arc::new(Mask::new(&region, (4, 4)).unwrap());
    let filled = |(width, height): (u32, u32)| Preprocessor {
        fill: Some((Arc::clone(&mask), 9)),
        ..Preprocessor::with_input(input("none", Colour::Gray, (width, height)))
    };
    let frame = gray(4, 4, &[100; 16]);
    let whole = levels(filled((4, 4)).prepare(&frame).unwrap(), 1, 255.0);
    assert_eq!(whole, [9, 9, 9, 9, 9, 100, 100, 9, 9, 100, 9, 9, 9, 9, 9, 9]);
    let view = Bounds { height_px: 3, width_px: 2, x_px: 2, y_px: 1 };
    assert_eq!(levels(filled((2, 3)).prepare_view(&frame, view).unwrap().tensor, 1, 255.0), [100, 9, 9, 9, 9, 9]);
    // The same shade in 10 bits: 9 of 255 is 36 of 1023.
    let words = [800; 16];
    let pixels = Pixels::Gray16 { data: &words, full_scale: 1023 };
    let deep = Frame { format: FrameFormat::Png, width_px: 4, height_px: 4, pixels };
    assert_eq!(levels(filled((4, 4)).prepare(&deep).unwrap(), 1, 1023.0)[4..7], [36, 800, 800]);
}

#[test]
fn frame_and_template_are_prepared_alike_and_put_together_in_three_ways() {
    let template = gray(4, 2, &[0, 10, 20, 30, 40, 50, 60, 70]);
    let frame = gray(4, 2, &[10, 10, 25, 30, 40, 51, 60, 90]);
    let views = [Bounds::whole((4, 2)), Bounds { height_px: 2, width_px: 2, x_px: 2, y_px: 0 }];
    let compared = |pair: Pair| {
        Preprocessor::with_input(input("pillow-nearest", Colour::Gray, (2, 2)))
            .compared_with(pair, &template, &views)
            .unwrap()
    };
    let shades = |values: &[f32]| values.iter().map(|value| (value * 255.0).round() as i32).collect::<Vec<_>>();
    let mut stack = compared(Pair::Stack);
    assert_eq!(stack.shape(), [1, 2, 2, 2]);
    assert_eq!(shades(stack.prepare_view(&frame, views[1]).unwrap().tensor), [25, 30, 60, 90, 20, 30, 60, 70]);
    let mut difference = compared(Pair::Difference);
    assert_eq!((difference.shape(), difference.has_second_input()), ([1, 1, 2, 2], false));
    assert_eq!(shades(difference.prepare_view(&frame, views[1]).unwrap().tensor), [5, 0, 0, 20]);
    let mut input = compared(Pair::Input { tensor: "golden".into() });
    let prepared = input.prepare_view(&frame, views[0]).unwrap();
    assert_eq!(shades(prepared.tensor), [10, 30, 51, 90]);
    assert_eq!(shades(prepared.template.unwrap()), [10, 30, 50, 70]);
    assert!(input.has_second_input());
}

#[test]
fn frames_may_change_their_size_from_one_to_the_next() {
    let mut preprocessor = Preprocessor::with_input(input("pillow-lanczos", Colour::Gray, (8, 8)));
    for side in [16_u32, 5, 8, 16] {
        let pixels = vec![200; (side * side) as usize];
        let levels = levels(preprocessor.prepare(&gray(side, side, &pixels)).unwrap(), 1, 255.0);
        assert!(levels.iter().all(|level| *level == 200), "{side}: {levels:?}");
    }
}
