//! What a recipe may say, and how a wrong one is refused.

use proptest::prelude::*;

use super::*;
use crate::types::Bounds;

const SEGMENTATION: &str = r#"format = 1
name = "machined-surface"
version = "1.0.0"
title = "Machined metal and plastic surfaces"

[model]
file = "model.onnx"
digest = "blake3:0000000000000000000000000000000000000000000000000000000000000001"

[calibration]
file = "machined-surface-1.0.0.toml"
digest = "blake3:0000000000000000000000000000000000000000000000000000000000000002"

[frame]
formats = ["png", "jpeg", "tiff", "bmp", "Mono8", "BayerRG8"]
width_px = { min = 64, max = 4096 }
height_px = { min = 64, max = 4096 }
encoded_bytes_max = 33_554_432

[quality]
mean_min = 0.05
mean_max = 0.95
saturated_share_max = 0.25
focus_min = 0.0001

[input]
tensor = "input"
colour = "gray"
width_px = 256
height_px = 256
resize = "pillow-bilinear"
fit = "stretch"
mean = [0.5]
std = [0.5]

[output]
kind = "segmentation"
tensor = "logits"
activation = "sigmoid"
labels = ["good", "scratch", "dent"]
map_score = "top-k-mean"
top_k = 32
pixel_threshold = 0.5

[policy]
comparator = ">="
review = 0.30
reject = 0.60
top_score_min = 0.0

[policy.class."dent"]
review = 0.25
reject = 0.50

[policy.class."good"]
role = "ok"
"#;

const CALIBRATION: &str = r#"format = 1
name = "steel-surface-type"
version = "1.0.0"
model = "blake3:0000000000000000000000000000000000000000000000000000000000000001"
method = "temperature"
temperature = 1.27
slope = 1.0
intercept = 0.0
fitted_on = "validation split, 204 images"
note = "free text"
"#;

fn score(value: f32) -> Score {
    Score::new(value).unwrap()
}

/// The refusal after replacing `from` by `to` in the valid recipe.
fn refusal(from: &str, to: &str) -> String {
    assert!(SEGMENTATION.contains(from), "{from}");
    Recipe::parse(&SEGMENTATION.replace(from, to)).expect_err(to).to_string()
}

#[test]
fn the_example_of_the_spec_resolves_its_overrides() {
    let recipe = Recipe::parse(SEGMENTATION).unwrap();
    assert_eq!(recipe.reference().as_str(), "machined-surface@1.0.0");
    assert_eq!(recipe.digest, Blake3Digest::of(SEGMENTATION.as_bytes()));
    assert_eq!(recipe.frame.formats[5], FrameFormat::Raw(PixelFormat::BayerRG8));
    assert_eq!(recipe.frame.encoded_bytes_max, 33_554_432);
    assert_eq!(
        recipe.policy.labels.iter().map(|label| label.role).collect::<Vec<_>>(),
        [
            Role::Ok,
            Role::Defect { review: score(0.3), reject: score(0.6) },
            Role::Defect { review: score(0.25), reject: score(0.5) },
        ]
    );
    let OutputKind::Segmentation { map_score: MapScore::TopKMean { k: 32 }, pixel_threshold } = recipe.output.kind
    else {
        panic!("{:?}", recipe.output.kind)
    };
    assert!((pixel_threshold - 0.5).abs() < f32::EPSILON);
}

#[test]
fn the_committed_recipes_of_each_format_are_read() {
    let read = |text: &str| Recipe::parse(text).unwrap();
    let first = read(include_str!("../../../docs/spec/vectors/recipe-1.toml"));
    assert_eq!(first, read(SEGMENTATION));
    let second = read(include_str!("../../../docs/spec/vectors/recipe-2.toml"));
    let region = second.region.unwrap();
    assert_eq!((region.include.len(), region.exclude.len(), region.box_share_min), (2, 1, Some(0.25)));
    assert_eq!(region.around, Bounds { height_px: 1800, width_px: 2200, x_px: 200, y_px: 100 });
    let tiling = second.tiling.unwrap();
    assert_eq!((tiling.width_px, tiling.overlap_px, tiling.merge), (640, 96, None));
    assert_eq!(second.template.unwrap().pair, Pair::Input { tensor: "golden".into() });
    let OutputKind::Detection(detection) = second.output.kind else { panic!("{:?}", second.output.kind) };
    assert_eq!((detection.box_labels, detection.boxes_max), (BoxLabels::All, 50));
}

#[test]
fn refusals_name_line_column_and_key() {
    let cases = [
        (
            "mean = [0.5]",
            "mean = [0.5, 0.5]",
            "line 33, column 8: `input.mean` has 2 values, the colour has 1 channels",
        ),
        ("std = [0.5]", "std = [0]", "line 34, column 8: `input.std[0]` is 0; 0.000001 to 1000000 is allowed"),
        ("reject = 0.60", "reject = 0.20", "line 48, column 10: `policy.reject` puts reject, 0.2, below review, 0.3"),
        (
            "reject = 0.60",
            "reject = nan",
            "line 48, column 10: `policy.reject` is nan; -1000000000 to 1000000000 is allowed",
        ),
        ("top_k = 32", "top_k = 0", "line 42, column 9: `output.top_k` is 0; 1 to 65536 is allowed"),
        ("top_k = 32", "", "line 36, column 1: `output.top_k` is missing; map_score = \"top-k-mean\" needs it"),
        ("format = 1", "format = 3", "line 1, column 10: `format` is 3; 1 to 2 is allowed"),
        (
            "comparator = \">=\"",
            "comparator = \"<\"",
            "line 46, column 14: `policy.comparator` is \"<\"; use one of >=, >",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(refusal(from, to), expected);
    }
    assert!(refusal("top_k", "topk").contains("`output.top_k` is missing"));
    assert!(
        refusal("[quality]", "[quality]\nblur_min = 1").contains("line 21, column 1: `quality.blur_min` is not known")
    );
    assert!(
        refusal("file = \"model.onnx\"", "file = \"../model.onnx\"").contains("`model.file` is a file name without")
    );
    assert!(refusal("\"BayerRG8\"", "\"YUV422\"").contains("`frame.formats[5]` \"YUV422\" is no frame format"));
    assert!(refusal("class.\"dent\"", "class.\"dents\"").contains("`policy.class.dents` is no label"));
    assert!(refusal("role = \"ok\"", "role = \"ok\"\nreview = 0.1").contains("no meaning"));
    assert!(refusal("top_score_min = 0.0", "top_score_min = 0.5").contains("only for classification"));
    assert!(refusal("fit = \"stretch\"", "fit = \"letterbox\"").contains("`input.pad` is missing"));
    assert!(refusal("max = 4096", "max = 16384").contains("pixels"));
    assert!(refusal("version = \"1.0.0\"", "version = \"1.0\"").contains("`version` is no semantic version"));
    assert!(refusal("name = \"machined-surface\"", "name = \"Machined\"").contains("`name` may hold only"));
    assert!(refusal("tensor = \"logits\"", "tensor = 5").contains("`output.tensor` is integer; a text is expected"));
    assert!(refusal("[frame]", "[frame").starts_with("line 14, column 7: not TOML"));
}

#[test]
fn a_recipe_without_defect_labels_would_pass_everything_and_is_refused() {
    let text = SEGMENTATION.replace("\"good\", \"scratch\", \"dent\"", "\"good\"");
    let text = text.replace("[policy.class.\"dent\"]\nreview = 0.25\nreject = 0.50\n", "");
    assert!(Recipe::parse(&text).unwrap_err().to_string().contains("leaves no label that is a defect"));
}

#[test]
fn keys_of_another_kind_are_refused() {
    let classification = SEGMENTATION.replace("\"segmentation\"", "\"classification\"");
    assert!(Recipe::parse(&classification).unwrap_err().to_string().contains("only for segmentation"));
    let anomaly = SEGMENTATION.replace("\"segmentation\"", "\"anomaly\"");
    assert!(Recipe::parse(&anomaly).unwrap_err().to_string().contains("an anomaly model has exactly one"));
}

const DETECTION: &str = r#"kind = "detection"
tensor = "output0"
layout = "yolo-v8"
activation = "none"
labels = ["good", "scratch", "dent"]
box_labels = "best"
box_score_min = 0.10
iou_max = 0.45
boxes_max = 100
box_side_px_min = 4
"#;

/// The recipe above as format 2 with another `[output]`.
fn with_output(output: &str) -> String {
    let start = SEGMENTATION.find("[output]\n").unwrap() + "[output]\n".len();
    let end = SEGMENTATION.find("[policy]").unwrap();
    format!("{}{output}\n{}", &SEGMENTATION[..start], &SEGMENTATION[end..]).replace("format = 1", "format = 2")
}

#[test]
fn format_2_reads_what_format_1_says_and_detection() {
    let first = Recipe::parse(SEGMENTATION).unwrap();
    let second = Recipe::parse(&SEGMENTATION.replace("format = 1", "format = 2")).unwrap();
    assert_eq!(Recipe { digest: first.digest, ..second }, first);
    let recipe = Recipe::parse(&with_output(DETECTION)).unwrap();
    let OutputKind::Detection(detection) = recipe.output.kind else { panic!("{:?}", recipe.output.kind) };
    let expected = Detection {
        layout: BoxLayout::YoloV8,
        box_labels: BoxLabels::Best,
        score_min: 0.1,
        iou_max: Some(0.45),
        boxes_max: 100,
        side_px_min: 4,
    };
    assert_eq!(detection, expected);
    let in_format_1 = Recipe::parse(&with_output(DETECTION).replace("format = 2", "format = 1")).unwrap_err();
    assert!(in_format_1.to_string().contains("use one of classification, segmentation, anomaly"), "{in_format_1}");
}

#[test]
fn a_detection_that_would_lose_boxes_or_mean_nothing_is_refused() {
    let refused = |from: &str, to: &str| {
        assert!(DETECTION.contains(from), "{from}");
        Recipe::parse(&with_output(&DETECTION.replace(from, to))).expect_err(to).to_string()
    };
    let dropped = refused("box_score_min = 0.10", "box_score_min = 0.26");
    assert!(dropped.contains("label dent is reviewed from 0.25 on"), "{dropped}");
    assert!(refused("\"yolo-v8\"", "\"yolo-v7\"").contains("use one of yolo-v8, yolo-v5, nms"));
    assert!(refused("\"yolo-v8\"", "\"nms\"").contains("`output.box_labels` has no meaning"));
    assert!(refused("box_labels = \"best\"\n", "").contains("`output.box_labels` is missing"));
    assert!(refused("iou_max = 0.45\n", "").contains("`output.iou_max` is missing"));
    assert!(refused("iou_max = 0.45", "iou_max = 1.1").contains("0 to 1 is allowed"));
    assert!(refused("boxes_max = 100", "boxes_max = 301").contains("1 to 300 is allowed"));
    assert!(refused("box_side_px_min = 4", "box_side_px_min = 0").contains("1 to 4096 is allowed"));
    assert!(refused("\"none\"", "\"softmax\"").contains("is softmax"));
    assert!(refused("tensor", "pixel_threshold = 0.5\ntensor").contains("`output.pixel_threshold` is not known here"));
    let of_v5 = DETECTION.replace("yolo-v8", "yolo-v5");
    assert!(Recipe::parse(&with_output(&of_v5)).is_ok());
    assert!(Recipe::parse(&with_output(&of_v5.replace("\"none\"", "\"sigmoid\""))).is_err());
    let baked = DETECTION.replace("yolo-v8", "nms").replace("box_labels = \"best\"\n", "");
    assert!(Recipe::parse(&with_output(&baked.replace("iou_max = 0.45\n", ""))).is_ok());
    let many: Vec<String> = (0..17).map(|label| format!("\"l{label}\"")).collect();
    let many = format!("labels = [{}]", many.join(", "));
    assert!(refused("labels = [\"good\", \"scratch\", \"dent\"]", &many).contains("boxes have at most 16"));
}

const REGION: &str = r#"[region]
include = [{ x = 10, y = 20, width = 100, height = 50 }, { polygon = [[5, 5], [60, 5], [30, 300]] }]
exclude = [{ x = 40, y = 30, width = 10, height = 10 }]
crop = true
fill = 114
"#;

/// The recipe above as format 2 for frames of 640x480, with this `[region]`.
fn with_region(region: &str) -> String {
    let text = SEGMENTATION.replace("format = 1", "format = 2").replace("[input]", &format!("{region}\n[input]"));
    text.replace("width_px = { min = 64, max = 4096 }", "width_px = { min = 640, max = 640 }")
        .replace("height_px = { min = 64, max = 4096 }", "height_px = { min = 480, max = 480 }")
}

#[test]
fn a_region_is_read_with_the_rectangle_around_it() {
    let region = Recipe::parse(&with_region(REGION)).unwrap().region.unwrap();
    assert_eq!(region.around, Bounds { height_px: 295, width_px: 105, x_px: 5, y_px: 5 });
    assert_eq!(region.include[1], Shape::Polygon(vec![(5, 5), (60, 5), (30, 300)]));
    assert_eq!((region.exclude.len(), region.crop, region.fill, region.box_share_min), (1, true, Some(114), None));
    assert!(!region.is_rectangle());
    let plain = "[region]\ninclude = [{ x = 0, y = 0, width = 640, height = 480 }]\ncrop = false";
    assert!(Recipe::parse(&with_region(plain)).unwrap().region.unwrap().is_rectangle());
    let in_format_1 = Recipe::parse(&with_region(REGION).replace("format = 2", "format = 1")).unwrap_err();
    assert!(in_format_1.to_string().contains("`region` is not known here"), "{in_format_1}");
}

#[test]
fn a_region_that_would_lie_elsewhere_or_leave_a_score_untouched_is_refused() {
    let refused = |from: &str, to: &str| {
        let text = with_region(REGION);
        assert!(text.contains(from), "{from}");
        Recipe::parse(&text.replace(from, to)).expect_err(to).to_string()
    };
    assert!(refused("min = 640", "min = 639").contains("pixels of a frame of one size"));
    assert!(refused("x = 10, y = 20, width = 100", "x = 10, y = 20, width = 631").contains("1 to 630 is allowed"));
    assert!(refused("[30, 300]", "[30, 481]").contains("0 to 480 is allowed"));
    assert!(refused(", [30, 300]", "").contains("has 2 corners"));
    assert!(refused("[30, 300]", "[30, 5]").contains("without any area"));
    assert!(refused("[30, 300]", "[30]").contains("write [x, y]"));
    assert!(refused("x = 40, y", "z = 40, y").contains("`region.exclude[0].x` is missing"));
    assert!(refused("crop = true", "crop = 1").contains("true or false is expected"));
    assert!(refused("fill = 114", "fill = 256").contains("0 to 255 is allowed"));
    assert!(refused("fill = 114", "box_share_min = 0.5").contains("only for detection"));
    let corners: Vec<String> = (0..257).map(|corner| format!("[{corner}, {}]", corner % 2)).collect();
    assert!(refused("[[5, 5], [60, 5], [30, 300]]", &format!("[{}]", corners.join(", "))).contains("1 to 256"));
    // What the model sees of the frame makes the score of a classification, so it must be cut or painted over.
    let classification = |region: &str| {
        let output = "kind = \"classification\"\ntensor = \"logits\"\nactivation = \"sigmoid\"\nlabels = [\"good\", \"scratch\", \"dent\"]\n";
        let start = with_region(region);
        let (head, tail) = (start.split("[output]").next().unwrap(), start.split("[policy]").nth(1).unwrap());
        Recipe::parse(&format!("{head}[output]\n{output}\n[policy]{tail}")).map_err(|error| error.to_string())
    };
    assert!(classification(REGION).is_ok());
    assert!(classification(&REGION.replace("crop = true", "crop = false")).unwrap_err().contains("needs crop = true"));
    assert!(classification(&REGION.replace("fill = 114", "")).unwrap_err().contains("needs fill"));
    // And a box on the border must count or not.
    let detection = with_output(DETECTION).replace("[input]", &format!("{REGION}\n[input]"));
    let detection = detection.replace("min = 64, max = 4096", "min = 512, max = 512");
    assert!(Recipe::parse(&detection).unwrap_err().to_string().contains("needs box_share_min"));
    assert!(Recipe::parse(&detection.replace("fill = 114", "box_share_min = 0.5")).is_ok());
}

const TILING: &str = r#"[tiling]
width_px = 640
height_px = 480
overlap_px = 64
merge = "max"
"#;

/// The recipe above as format 2 with this `[tiling]`.
fn with_tiling(tiling: &str) -> String {
    SEGMENTATION.replace("format = 1", "format = 2").replace("[input]", &format!("{tiling}\n[input]"))
}

#[test]
fn tiles_are_bounded_and_say_how_what_they_show_becomes_one() {
    let tiling = Recipe::parse(&with_tiling(TILING)).unwrap().tiling.unwrap();
    assert_eq!(tiling, Tiling { width_px: 640, height_px: 480, overlap_px: 64, merge: Some(Merge::Max) });
    assert!(Recipe::parse(&with_tiling(TILING).replace("format = 2", "format = 1")).is_err());
    let refused = |from: &str, to: &str| {
        assert!(TILING.contains(from), "{from}");
        Recipe::parse(&with_tiling(&TILING.replace(from, to))).expect_err(to).to_string()
    };
    assert!(refused("overlap_px = 64", "overlap_px = 480").contains("0 to 479 is allowed"));
    assert!(refused("width_px = 640", "width_px = 15").contains("16 to 16384 is allowed"));
    // Along 4096 px: 64 tiles of 128 with an overlap of 64 less the last, and 10 of 480.
    let many = refused("width_px = 640", "width_px = 128");
    assert!(many.contains("cuts 4096x4096 px into 630 tiles; at most 256"), "{many}");
    assert!(refused("merge = \"max\"", "").contains("needs merge"));
    assert!(refused("\"max\"", "\"mode\"").contains("use one of max, mean"));
    let detection = |tiling: &str, output: &str| {
        let text = with_output(output).replace("[input]", &format!("{tiling}\n[input]"));
        Recipe::parse(&text).map_err(|error| error.to_string())
    };
    assert!(detection(TILING, DETECTION).unwrap_err().contains("has merge"));
    let plain = TILING.replace("merge = \"max\"", "");
    assert!(detection(&plain, DETECTION).is_ok());
    // A graph that suppresses knows nothing of the tile beside.
    let baked = DETECTION.replace("yolo-v8", "nms").replace("box_labels = \"best\"\n", "");
    assert!(detection(&plain, &baked).is_ok());
    assert!(
        detection(&plain, &baked.replace("iou_max = 0.45\n", "")).unwrap_err().contains("`output.iou_max` is missing")
    );
    assert!(detection("", &baked).unwrap_err().contains("`output.iou_max` has no meaning"));
}

#[test]
fn of_several_labels_none_need_be_high_so_no_least_score_is_asked_for() {
    let output = "kind = \"classification\"\ntensor = \"logits\"\nactivation = \"sigmoid\"\nlabels = [\"good\", \"scratch\", \"dent\"]\n";
    let text = with_output(output).replace("top_score_min = 0.0", "top_score_min = 0.5");
    assert!(Recipe::parse(&text).is_ok(), "a label with role ok is high for a good part");
    let no_ok = text.replace("[policy.class.\"good\"]\nrole = \"ok\"\n", "");
    let refused = Recipe::parse(&no_ok).unwrap_err().to_string();
    assert!(refused.contains("`policy.top_score_min` with activation = \"sigmoid\""), "{refused}");
    assert!(Recipe::parse(&no_ok.replace("sigmoid", "softmax")).is_ok());
    // Format 1 took it, and goes on to.
    assert!(Recipe::parse(&no_ok.replace("format = 2", "format = 1")).is_ok());
}

const TEMPLATE: &str = r#"[template]
file = "golden.png"
digest = "blake3:0000000000000000000000000000000000000000000000000000000000000003"
pair = "input"
tensor = "template"
"#;

#[test]
fn a_template_is_a_file_of_the_recipe_and_bound_to_one_size() {
    let template = Recipe::parse(&with_region(TEMPLATE)).unwrap().template.unwrap();
    assert_eq!((template.file.file.as_str(), template.pair), ("golden.png", Pair::Input { tensor: "template".into() }));
    let parse = |text: &str| Recipe::parse(&with_region(text)).map_err(|error| error.to_string());
    let others = TEMPLATE.replace("tensor = \"template\"", "");
    for (word, pair) in [("stack", Pair::Stack), ("difference", Pair::Difference)] {
        assert_eq!(parse(&others.replace("input", word)).unwrap().template.unwrap().pair, pair);
    }
    let refused = |from: &str, to: &str| parse(&TEMPLATE.replace(from, to)).expect_err(to);
    assert!(refused("tensor = \"template\"", "").contains("`template.tensor` is missing"));
    assert!(refused("pair = \"input\"", "pair = \"stack\"").contains("only with pair = \"input\""));
    assert!(refused("tensor = \"template\"", "tensor = \"input\"").contains("the frame's own input"));
    assert!(refused("golden.png", "../golden.png").contains("a file name without a path"));
    assert!(parse(TEMPLATE).is_ok());
    let several = with_region(TEMPLATE).replace("min = 480", "min = 479");
    assert!(Recipe::parse(&several).unwrap_err().to_string().contains("compared pixel by pixel"));
    assert!(Recipe::parse(&with_region(TEMPLATE).replace("format = 2", "format = 1")).is_err());
    // 256 tiles of an input of 512x512.
    let tiles = format!("{TEMPLATE}\n[tiling]\nwidth_px = 40\nheight_px = 30\noverlap_px = 0\nmerge = \"max\"\n");
    let text = with_region(&tiles).replace("width_px = 256\nheight_px = 256", "width_px = 512\nheight_px = 512");
    let many = Recipe::parse(&text).unwrap_err().to_string();
    assert!(many.contains("67108864 values in 256 tiles"), "{many}");
}

#[test]
fn a_calibration_belongs_to_one_model_and_one_recipe() {
    let calibration = Calibration::parse(CALIBRATION).unwrap();
    assert_eq!(calibration.method, Method::Temperature(1.27));
    let mut recipe = Recipe::parse(SEGMENTATION).unwrap();
    assert!(matches!(recipe.accept_calibration(Some(&calibration)), Err(RecipeError::OtherCalibration { .. })));
    assert!(matches!(recipe.accept_calibration(None), Err(RecipeError::OtherCalibration { .. })));
    recipe.calibration.as_mut().unwrap().digest = calibration.digest;
    assert_eq!(recipe.accept_calibration(Some(&calibration)), Ok(()));
    recipe.model.digest = Blake3Digest::of(b"another model");
    assert!(matches!(recipe.accept_calibration(Some(&calibration)), Err(RecipeError::OtherModel { .. })));
}

#[test]
fn a_calibration_that_would_turn_scores_around_is_refused() {
    let refused = |from: &str, to: &str| Calibration::parse(&CALIBRATION.replace(from, to)).unwrap_err().to_string();
    assert!(refused("temperature = 1.27", "temperature = 0.0").starts_with("line 6, column 15: `temperature` is 0.0"));
    assert!(refused("temperature = 1.27", "temperature = inf").contains("`temperature` is inf"));
    assert!(refused("slope = 1.0", "slope = -1.0").contains("`slope` is -1.0"));
    assert!(refused("temperature = 1.27", "").contains("`temperature` is missing"));
    assert!(refused("note", "notes").contains("`notes` is not known"));
    let platt = CALIBRATION.replace("\"temperature\"", "\"platt\"");
    assert_eq!(Calibration::parse(&platt).unwrap().method, Method::Platt { slope: 1.0, intercept: 0.0 });
}

#[test]
fn a_file_too_long_is_refused_unread() {
    let text = format!("{SEGMENTATION}#{}", " ".repeat(TEXT_BYTES_MAX));
    assert!(matches!(Recipe::parse(&text), Err(RecipeError::TooLong { .. })));
}

#[test]
fn shipped_recipes_and_calibrations_are_accepted() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for name in std::fs::read_dir(root.join("models")).unwrap() {
        for version in std::fs::read_dir(name.unwrap().path()).into_iter().flatten() {
            let folder = version.unwrap().path();
            let Ok(text) = std::fs::read_to_string(folder.join("recipe.toml")) else { continue };
            let recipe = Recipe::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let calibration = recipe.calibration.as_ref().map(|named| {
                let text = std::fs::read_to_string(root.join("calibration").join(&named.file)).unwrap();
                Calibration::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", named.file))
            });
            recipe.accept_calibration(calibration.as_ref()).unwrap();
            seen += 1;
        }
    }
    assert!(seen > 0, "the repository ships recipes");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Recipe::parse(&text);
        let _ = Calibration::parse(&text);
    }

    #[test]
    fn no_mutation_of_a_valid_recipe_panics(at in 0..SEGMENTATION.len(), cut in 0..20_usize, put in "\\PC{0,8}") {
        let mut text = SEGMENTATION.to_owned();
        text.replace_range(at..(at + cut).min(SEGMENTATION.len()), &put);
        let _ = Recipe::parse(&text);
    }
}
