//! What kinds of output cost beside inference: boxes of a large detection head, and looking at a frame in tiles.
//!
//! `cargo bench --bench kinds -- --rounds 300`.
//!
//! Boxes: from a YOLO head of 8,400 rows and 80 labels to the boxes kept, against the inference of a small model. The output is
//! made up: clusters of rows around some objects, as a head gives them, and low scores everywhere else. Tiles: one frame in tiles
//! against as many frames of a tile's size. What is compared takes turns within one run, so ratios hold on a busy machine too.

mod measure;

use std::time::{Duration, Instant};

use lineproof::{
    adapters::ort::OrtRuntime,
    core::{
        decide::Decider,
        frame::{Frame, FrameFormat, Pixels},
        outputs::Outputs,
        preprocess::Preprocessor,
        quality::QualityReport,
        recipe::{
            Activation, BoxLabels, BoxLayout, Detection, LabelPolicy, Merge, Output, OutputKind, Recipe, Role, Tiling,
        },
    },
    ports::inference::{InferenceSession, ModelRuntime as _, ModelSpec, SessionOptions},
    types::{Blake3Digest, Score},
};
use measure::{percentile, result};
use serde_json::json;

const ROWS: usize = 8_400;
const LABELS: usize = 80;
const SMALL_MODEL: &str = "models/steel-surface-type/1.0.0";
const MAP_MODEL: &str = "models/machined-surface/1.1.0";
/// A frame of five megapixels.
const FRAME_PX: (u32, u32) = (2560, 1920);

fn main() {
    let rounds = measure::argument("--rounds", 300) as usize;
    boxes(rounds);
    tiles(rounds / 10);
}

fn boxes(rounds: usize) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join(SMALL_MODEL).join("recipe.toml")).expect("the shipped recipe");
    let shipped = Recipe::parse(&text).expect("a good recipe");
    let model = std::fs::read(root.join(SMALL_MODEL).join("model.onnx")).expect("the shipped model");
    let spec = ModelSpec {
        digest: Blake3Digest::of(&model),
        bytes: model.into(),
        input: "input".into(),
        template: None,
        shape: [1, 1, 128, 128],
        outputs: vec!["logits".into()],
    };
    let runtime = OrtRuntime::load(None).expect("ONNX Runtime");
    let mut session = runtime.load(&spec, &SessionOptions::default()).expect("the shipped model");
    let input = vec![0.1; 128 * 128];
    let mut said = Outputs::default();

    println!("{ROWS} rows, {LABELS} labels, one thread; inference: {SMALL_MODEL}, 128x128");
    println!("layout, labels of a row, objects: boxes kept; decide p50, p99; inference p50; decide / inference");
    for (layout, box_labels, objects) in [
        (BoxLayout::YoloV8, BoxLabels::Best, 0),
        (BoxLayout::YoloV8, BoxLabels::Best, 20),
        (BoxLayout::YoloV8, BoxLabels::All, 20),
        (BoxLayout::YoloV5, BoxLabels::Best, 20),
        (BoxLayout::YoloV8, BoxLabels::Best, 300),
        (BoxLayout::YoloV8, BoxLabels::Best, ROWS),
    ] {
        let recipe = detector(&shipped, layout, box_labels);
        let head = head(layout, objects);
        let mut decider = Decider::default();
        let quality = QualityReport { focus: Score::ZERO, mean: Score::ZERO, saturated: Score::ZERO };
        let (mut decided, mut inferred, mut kept) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds + 10 {
            let started = Instant::now();
            session.run(&input, [1, 1, 128, 128], &mut said).expect("an inference");
            let inference = started.elapsed();
            let started = Instant::now();
            let judged = decider.decide(&recipe, None, &head, &quality, (1920, 1200));
            let decision = started.elapsed();
            kept = judged.expect("a decision").areas.iter().map(|area| area.boxes.len()).sum();
            if round >= 10 {
                decided.push(decision);
                inferred.push(inference);
            }
        }
        report(layout, box_labels, objects, kept, &decided, &inferred);
    }
}

fn report(
    layout: BoxLayout,
    box_labels: BoxLabels,
    objects: usize,
    kept: usize,
    decided: &[Duration],
    inferred: &[Duration],
) {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let (p50, p99, inference) =
        (us(percentile(decided, 0.5)), us(percentile(decided, 0.99)), us(percentile(inferred, 0.5)));
    let ratio = p50 / inference;
    println!("{layout:?}, {box_labels:?}, {objects}: {kept}; {p50:.0}, {p99:.0} us; {inference:.0} us; {ratio:.3}");
    let said = json!({
        "layout": format!("{layout:?}"), "labels": format!("{box_labels:?}"), "objects": objects, "kept": kept,
        "decide_us_p50": p50, "decide_us_p99": p99, "inference_us_p50": inference,
    });
    result("boxes", said);
}

/// The shipped recipe with 80 labels of boxes: more than a recipe file may name, as many as COCO has.
fn detector(shipped: &Recipe, layout: BoxLayout, box_labels: BoxLabels) -> Recipe {
    let labels: Vec<String> = (0..LABELS).map(|label| format!("label-{label}")).collect();
    let threshold = |value: f32| Score::new(value).expect("finite");
    let role = Role::Defect { review: threshold(0.3), reject: threshold(0.6) };
    let mut recipe = shipped.clone();
    recipe.input.width_px = 640;
    recipe.input.height_px = 640;
    recipe.policy.top_score_min = Score::ZERO;
    recipe.policy.labels = labels.iter().map(|label| LabelPolicy { label: label.clone(), role }).collect();
    let detection =
        Detection { layout, box_labels, score_min: 0.25, iou_max: Some(0.45), boxes_max: 100, side_px_min: 4 };
    recipe.output = Output {
        kind: OutputKind::Detection(detection),
        tensor: "output0".into(),
        activation: Activation::None,
        labels,
    };
    recipe
}

/// A head that sees `objects`, each with some twenty rows around it.
fn head(layout: BoxLayout, objects: usize) -> Outputs {
    let mut state = 1_u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    let mut rows = vec![[0.0_f32; 4 + LABELS]; ROWS];
    for row in &mut rows {
        row[..4].copy_from_slice(&[noise() * 640.0, noise() * 640.0, 20.0, 20.0]);
        row[4..].iter_mut().for_each(|score| *score = noise() * 0.01);
    }
    let each = if objects == ROWS { 1 } else { 20 };
    for object in 0..objects {
        let (x, y, label) = (noise() * 600.0, noise() * 600.0, 4 + object % LABELS);
        for _ in 0..each {
            let row = &mut rows[((noise() * ROWS as f32) as usize).min(ROWS - 1)];
            row[..4].copy_from_slice(&[
                x + noise() * 6.0,
                y + noise() * 6.0,
                40.0 + noise() * 8.0,
                30.0 + noise() * 8.0,
            ]);
            row[label] = 0.3 + noise() * 0.6;
        }
    }
    let mut outputs = Outputs::default();
    match layout {
        BoxLayout::YoloV8 => {
            let values: Vec<f32> = (0..4 + LABELS).flat_map(|at| rows.iter().map(move |row| row[at])).collect();
            outputs.push("output0", [1, 4 + LABELS, ROWS], &values);
        }
        _ => {
            let row = |row: &[f32; 4 + LABELS]| [&row[..4], &[1.0], &row[4..]].concat();
            outputs.push("output0", [1, ROWS, 5 + LABELS], &rows.iter().flat_map(row).collect::<Vec<_>>());
        }
    }
    outputs
}

/// Where the time of one frame goes, in microseconds.
#[derive(Clone, Copy, Default)]
struct Spent {
    prepare: f64,
    infer: f64,
    decide: f64,
}

fn tiles(rounds: usize) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(MAP_MODEL);
    let text = std::fs::read_to_string(root.join("recipe.toml")).expect("the shipped recipe");
    let plain = Recipe::parse(&text).expect("a good recipe");
    let model = std::fs::read(root.join("model.onnx")).expect("the shipped model");
    let spec = ModelSpec {
        digest: Blake3Digest::of(&model),
        bytes: model.into(),
        input: plain.input.tensor.clone(),
        template: None,
        shape: plain.input.shape(None),
        outputs: plain.output.tensor_names().map(str::to_owned).collect(),
    };
    let runtime = OrtRuntime::load(None).expect("ONNX Runtime");
    let mut session = runtime.load(&spec, &SessionOptions::default()).expect("the shipped model");
    let (width, height) = FRAME_PX;
    let pixels: Vec<u8> = (0..width * height).map(|at| (at * 37 % 251) as u8).collect();
    println!("\n{width}x{height} grey in tiles, one thread; {MAP_MODEL}; microseconds, p50 of {rounds}");
    println!(
        "tile, overlap, merge: tiles; tiled prepare + infer + decide; frames of a tile's size the same; tiled / those"
    );
    for (side, overlap_px, merge) in
        [(512, 0, Merge::Max), (512, 64, Merge::Max), (512, 64, Merge::Mean), (320, 64, Merge::Max)]
    {
        let tiling = Tiling { width_px: side, height_px: side, overlap_px, merge: Some(merge) };
        let tiled = Recipe { tiling: Some(tiling), ..plain.clone() };
        let small = pixels[..(side * side) as usize].to_vec();
        let whole = frame_of(FRAME_PX, &pixels);
        let small = frame_of((side, side), &small);
        let (mut as_tiles, mut as_frames) = (Vec::new(), Vec::new());
        let mut look = Look::new(&tiled);
        let mut glance = Look::new(&plain);
        let mut count = 0;
        for round in 0..rounds + 2 {
            let tiles = look.at(&tiled, &whole, session.as_mut());
            count = look.views;
            let frames: Vec<Spent> = (0..count).map(|_| glance.at(&plain, &small, session.as_mut())).collect();
            if round >= 2 {
                as_tiles.push(tiles);
                as_frames.push(frames.into_iter().fold(Spent::default(), add));
            }
        }
        report_tiles(side, overlap_px, merge, count, &as_tiles, &as_frames);
    }
}

fn frame_of((width_px, height_px): (u32, u32), pixels: &[u8]) -> Frame<'_> {
    Frame { format: FrameFormat::Png, width_px, height_px, pixels: Pixels::Gray8(pixels) }
}

fn add(a: Spent, b: Spent) -> Spent {
    Spent { prepare: a.prepare + b.prepare, infer: a.infer + b.infer, decide: a.decide + b.decide }
}

/// What a worker keeps for one recipe.
struct Look {
    preprocessor: Preprocessor,
    decider: Decider,
    outputs: Outputs,
    views: usize,
}

impl Look {
    fn new(recipe: &Recipe) -> Self {
        let (preprocessor, decider) = (Preprocessor::new(recipe), Decider::default());
        Self { preprocessor, decider, outputs: Outputs::default(), views: 0 }
    }

    fn at(&mut self, recipe: &Recipe, frame: &Frame<'_>, session: &mut dyn InferenceSession) -> Spent {
        let quality = QualityReport { focus: Score::ZERO, mean: Score::ZERO, saturated: Score::ZERO };
        let mut spent = Spent::default();
        let mut last = Instant::now();
        let mut lap = |spent: &mut f64| {
            let now = Instant::now();
            *spent += now.duration_since(std::mem::replace(&mut last, now)).as_secs_f64() * 1e6;
        };
        let views = self.decider.begin(recipe, (frame.width_px, frame.height_px));
        self.views = views.len();
        for view in views {
            let shape = self.preprocessor.shape();
            let tensor = self.preprocessor.prepare_view(frame, view).expect("a tensor").tensor;
            lap(&mut spent.prepare);
            session.run(tensor, shape, &mut self.outputs).expect("an inference");
            lap(&mut spent.infer);
            self.decider.add(recipe, None, &self.outputs).expect("maps");
            lap(&mut spent.decide);
        }
        self.decider.judge(recipe, &quality).expect("a decision");
        lap(&mut spent.decide);
        spent
    }
}

fn report_tiles(side: u32, overlap_px: u32, merge: Merge, count: usize, tiles: &[Spent], frames: &[Spent]) {
    let p50 = |spent: &[Spent], of: fn(&Spent) -> f64| measure::median(&spent.iter().map(of).collect::<Vec<_>>());
    let parts = |spent: &[Spent]| [p50(spent, |s| s.prepare), p50(spent, |s| s.infer), p50(spent, |s| s.decide)];
    let total = |spent: &[Spent]| p50(spent, |s| s.prepare + s.infer + s.decide);
    let ratio = total(tiles) / total(frames);
    let line = |[prepare, infer, decide]: [f64; 3]| format!("{prepare:.0} + {infer:.0} + {decide:.0}");
    let (tiled, framed) = (line(parts(tiles)), line(parts(frames)));
    println!("{side}, {overlap_px}, {merge:?}: {count}; {tiled}; {framed}; {ratio:.3}");
    let said = json!({
        "tile_px": side, "overlap_px": overlap_px, "merge": format!("{merge:?}"), "tiles": count,
        "tiled_us": parts(tiles), "frames_us": parts(frames), "ratio": ratio,
    });
    result("tiles", said);
}
