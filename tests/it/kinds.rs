//! What a recipe can ask of a model: each kind of output, from the camera's folder to the entry and its verifiers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lineproof::{edge::pb, types::Blake3Digest};

use crate::{
    evidence,
    harness::{Plant, Service, block_on, encode, lineproof, request, text},
    onnx,
};

/// A plant whose product is inspected with one recipe of the test's own.
fn plant_with(model: &[u8], rules: &str) -> Plant {
    let plant = Plant::new();
    let folder = plant.data().join("models/test-kind/1.0.0");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.onnx"), model).unwrap();
    let recipe = format!(
        r#"format = 2
name = "test-kind"
version = "1.0.0"
title = "A small model with a plain rule"

[model]
file = "model.onnx"
digest = "{}"
{rules}"#,
        Blake3Digest::of(model)
    );
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    plant.edit_config("machined-surface@1.1.0", "test-kind@1.0.0");
    plant
}

/// A dark frame with bright rectangles: left, top, width, height, level.
fn frame((width, height): (u32, u32), bright: &[(u32, u32, u32, u32, u8)]) -> Vec<u8> {
    let mut gray = vec![16; (width * height) as usize];
    for (left, top, across, down, level) in bright {
        for y in *top..top + down {
            gray[(y * width + left) as usize..][..*across as usize].fill(*level);
        }
    }
    encode(&gray, width, height, image::ImageFormat::Png)
}

fn inspect(service: &Service, number: u64, image: Vec<u8>) -> pb::InspectResponse {
    block_on(async { service.inspection().await.inspect(request(number, image)).await.unwrap().into_inner() })
}

/// Decides every kept frame again, and expects the same to the bit, places included.
fn decided_again(plant: &Plant) {
    let output = plant.run(&["replay", "--since", "1h"]);
    let said = text(&output);
    assert!(output.status.success() && said.contains(" bit-exact, 0 within 1e-5, none differs"), "{said}");
    assert!(!said.contains("not replayable"), "{said}");
}

fn place(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Option<pb::Box> {
    Some(pb::Box { x_px, y_px, width_px, height_px })
}

/// A passport and an export of everything, which every verifier must accept.
fn prove(plant: &Plant, serial: &str) {
    let output = plant.run(&["passport", serial, "--out", "part.tlog-proof"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = plant.run(&["export", "--line", "line-1", "--out", "report.zip"]);
    assert!(output.status.success(), "{}", text(&output));
    for name in ["part.tlog-proof", "report.zip", "data"] {
        let path = plant.folder().join(name);
        let output = evidence::verify(&path, &plant.vkey());
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
        by_python(&path, &plant.vkey());
    }
}

/// The same by the verifier that shares no line with ours.
fn by_python(evidence: &Path, key: &Path) {
    let Some(python) = std::env::var_os("LINEPROOF_PYTHON").filter(|path| !path.is_empty()) else {
        return crate::harness::skipped("no LINEPROOF_PYTHON: clients/verify-py did not check this evidence");
    };
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/verify-py/lineproof_verify.py");
    let output = std::process::Command::new(python).arg(script).arg(evidence).arg(key).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}: {}", evidence.display(), text(&output));
}

const FRAME_128X64: &str = r#"
[frame]
formats = ["png"]
width_px = { min = 128, max = 128 }
height_px = { min = 64, max = 64 }
encoded_bytes_max = 1048576
"#;

const INPUT_64: &str = r#"
[input]
tensor = "images"
colour = "gray"
width_px = 64
height_px = 64
resize = "opencv-linear"
fit = "letterbox"
pad = 0
mean = [0.0]
std = [1.0]
"#;

const POLICY: &str = r#"
[policy]
comparator = ">="
review = 0.3
reject = 0.6
"#;

/// Finds bright spots: the mean of every 8x8 cell of the 64x64 input is the score of a box of 16x16 around it, in the
/// layout of Ultralytics' heads, [1, 4 + 1, 64].
fn spot_detector() -> Vec<u8> {
    let cells = || (0..64).map(|cell| ((cell % 8 * 8 + 4) as f32, (cell / 8 * 8 + 4) as f32));
    let boxes: Vec<f32> = cells().map(|(x, _)| x).chain(cells().map(|(_, y)| y)).chain([16.0; 128]).collect();
    let eight = [8, 8];
    onnx::model(&[
        onnx::node(
            "AveragePool",
            &["images"],
            "cells",
            &[onnx::attributes("kernel_shape", &eight), onnx::attributes("strides", &eight)],
        ),
        onnx::node("Reshape", &["cells", "flat"], "scores", &[]),
        onnx::node("Concat", &["boxes", "scores"], "output0", &[onnx::attribute("axis", 1)]),
        onnx::whole("flat", &[1, 1, 64]),
        onnx::floats("boxes", &[1, 4, 64], &boxes),
        onnx::input("images", &[1, 1, 64, 64]),
        onnx::output("output0", &[1, 5, 64]),
    ])
}

const LEFT_HALF: &str = r#"
[region]
include = [{ x = 0, y = 0, width = 64, height = 64 }]
exclude = [{ polygon = [[0, 0], [32, 0], [0, 32]] }]
crop = false
box_share_min = 0.6
"#;

#[test]
fn a_spot_outside_the_region_is_no_defect() {
    let rules = [FRAME_128X64, LEFT_HALF, INPUT_64, SPOTS, POLICY].concat();
    let plant = plant_with(&spot_detector(), &rules);
    let service = plant.serve();
    let spot = |number, x, y| inspect(&service, number, frame((128, 64), &[(x, y, 16, 16, 255)]));
    assert_eq!(spot(1, 80, 16).verdict(), pb::Verdict::Ok);
    assert_eq!(spot(2, 0, 0).verdict(), pb::Verdict::Ok);
    let inside = spot(3, 32, 32);
    assert_eq!((inside.verdict(), inside.labels[0].r#box), (pb::Verdict::NotOk, place(24, 24, 32, 32)));
    drop(service);

    // A region of which nothing is left serves nothing, and says why.
    let recipe = plant.data().join("models/test-kind/1.0.0/recipe.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    let all = "exclude = [{ x = 0, y = 0, width = 128, height = 64 }]";
    fs::write(&recipe, text.replace("exclude = [{ polygon = [[0, 0], [32, 0], [0, 32]] }]", all)).unwrap();
    let service = plant.serve();
    let refused = block_on(async { service.inspection().await.inspect(request(4, frame((128, 64), &[]))).await });
    let refused = refused.unwrap_err();
    assert!(refused.message().contains("[region] leaves no pixel"), "{refused}");
}

/// The largest difference between frame and template as the score of one label, for each way in which they are paired.
fn comparer(pair: &str) -> Vec<u8> {
    let input = |channels: u64| onnx::input("images", &[1, channels, 64, 64]);
    let difference = match pair {
        "input" => vec![
            onnx::node("Sub", &["images", "golden"], "difference", &[]),
            input(1),
            onnx::input("golden", &[1, 1, 64, 64]),
        ],
        // One channel less the other.
        "stack" => vec![
            onnx::node("Conv", &["images", "kernel"], "difference", &[]),
            onnx::floats("kernel", &[1, 2, 1, 1], &[1.0, -1.0]),
            input(2),
        ],
        _ => vec![onnx::node("Identity", &["images"], "difference", &[]), input(1)],
    };
    let scores = [
        onnx::node("Abs", &["difference"], "size", &[]),
        onnx::node("GlobalMaxPool", &["size"], "largest", &[]),
        onnx::node("Reshape", &["largest", "flat"], "scores", &[]),
        onnx::whole("flat", &[1, 1]),
        onnx::output("scores", &[1, 1]),
    ];
    onnx::model(&[difference, scores.to_vec()].concat())
}

#[test]
fn a_part_is_compared_with_its_golden_template_in_each_of_three_ways() {
    let size = (128, 64);
    let golden = frame(size, &[(20, 20, 30, 20, 200)]);
    let output =
        "\n[output]\nkind = \"classification\"\ntensor = \"scores\"\nactivation = \"none\"\nlabels = [\"different\"]\n";
    for (pair, tensor) in [("input", "tensor = \"golden\""), ("stack", ""), ("difference", "")] {
        let digest = Blake3Digest::of(&golden);
        let template =
            format!("\n[template]\nfile = \"golden.png\"\ndigest = \"{digest}\"\npair = \"{pair}\"\n{tensor}\n");
        let plant = plant_with(&comparer(pair), &[FRAME_128X64, &template, INPUT_64, output, POLICY].concat());
        let path = plant.data().join("models/test-kind/1.0.0/golden.png");
        fs::write(&path, &golden).unwrap();
        let service = plant.serve();
        let same = inspect(&service, 1, golden.clone());
        assert_eq!((same.verdict(), same.score), (pb::Verdict::Ok, 0.0), "{pair}");
        // Part of the bright field is missing.
        let other = inspect(&service, 2, frame(size, &[(20, 20, 30, 10, 200)]));
        assert_eq!(other.verdict(), pb::Verdict::NotOk, "{pair}");
        assert!((other.score - 184.0 / 255.0).abs() < 1e-5, "{pair}: {}", other.score);
        assert_eq!(service.stop().code, Some(0));
        if pair == "input" {
            prove(&plant, "SN-00002");
        }
        decided_again(&plant);
        // Another image under the template's name serves nothing, and neither does one of another size.
        fs::write(&path, frame(size, &[])).unwrap();
        refuses(&plant, "the recipe names blake3:");
        let small = frame((64, 64), &[]);
        fs::write(&path, &small).unwrap();
        let recipe = plant.data().join("models/test-kind/1.0.0/recipe.toml");
        let text = fs::read_to_string(&recipe).unwrap();
        fs::write(&recipe, text.replace(&digest.to_string(), &Blake3Digest::of(&small).to_string())).unwrap();
        refuses(&plant, "64x64 px; the recipe takes 128..128 by 64..64");
    }
}

/// The plant serves, but not this recipe, and says why.
fn refuses(plant: &Plant, why: &str) {
    let service = plant.serve();
    let refused = block_on(async { service.inspection().await.inspect(request(9, frame((128, 64), &[]))).await });
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(why), "{refused}");
}

/// Tiles of 64x64 that begin at 0, 36 and 64.
const TILES: &str = "\n[tiling]\nwidth_px = 64\nheight_px = 64\noverlap_px = 28\n";

#[test]
fn a_spot_on_the_border_of_tiles_is_found_once_where_it_is_whole() {
    let rules = [FRAME_128X64, TILES, INPUT_64, SPOTS, POLICY].concat();
    let plant = plant_with(&spot_detector(), &rules);
    let service = plant.serve();
    // Half of the spot in the first and in the last tile, all of it in one cell of the second.
    let found = inspect(&service, 1, frame((128, 64), &[(60, 16, 8, 8, 255)]));
    let boxes: Vec<_> = found.labels[0].boxes.iter().map(|found| (found.r#box, found.score)).collect();
    assert_eq!((found.verdict(), boxes), (pb::Verdict::NotOk, vec![(place(56, 12, 16, 16), 1.0)]));
    drop(service);
    // Without overlap each half alone is a doubt.
    let recipe = plant.data().join("models/test-kind/1.0.0/recipe.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("overlap_px = 28", "overlap_px = 0")).unwrap();
    let service = plant.serve();
    let found = inspect(&service, 2, frame((128, 64), &[(60, 16, 8, 8, 255)]));
    assert_eq!((found.verdict(), found.labels[0].boxes.len()), (pb::Verdict::NotDecidable, 2));
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn the_tile_that_decides_stands_in_the_entry() {
    let output =
        "\n[output]\nkind = \"classification\"\ntensor = \"scores\"\nactivation = \"none\"\nlabels = [\"bright\"]\n";
    let plant = plant_with(&brightness(), &[FRAME_128X64, TILES, INPUT_64, output, POLICY].concat());
    let service = plant.serve();
    let found = inspect(&service, 1, frame((128, 64), &[(100, 0, 28, 64, 255)]));
    assert_eq!((found.verdict(), found.labels[0].r#box), (pb::Verdict::NotDecidable, place(64, 0, 64, 64)));
    assert_eq!(service.stop().code, Some(0));
    decided_again(&plant);
    let entry = &evidence::entries(&plant.data(), "decision")[0];
    assert!(entry.contains(r#"{"at":{"height":64,"width":64,"x":64,"y":0},"label":"bright","#), "{entry}");
    prove(&plant, "SN-00001");
}

/// The mean of all it sees, as the score of one label: [1, 1].
fn brightness() -> Vec<u8> {
    onnx::model(&[
        onnx::node("GlobalAveragePool", &["images"], "mean", &[]),
        onnx::node("Reshape", &["mean", "flat"], "scores", &[]),
        onnx::whole("flat", &[1, 1]),
        onnx::input("images", &[1, 1, 64, 64]),
        onnx::output("scores", &[1, 1]),
    ])
}

#[test]
fn a_classifier_sees_the_region_only_and_none_of_what_is_left_out_of_it() {
    let region = r#"
[region]
include = [{ x = 64, y = 0, width = 64, height = 64 }]
exclude = [{ x = 96, y = 0, width = 32, height = 64 }]
crop = true
fill = 0
"#;
    let output =
        "\n[output]\nkind = \"classification\"\ntensor = \"scores\"\nactivation = \"none\"\nlabels = [\"bright\"]\n";
    let plant = plant_with(&brightness(), &[FRAME_128X64, region, INPUT_64, output, POLICY].concat());
    let service = plant.serve();
    let all = [(0, 0, 128, 64, 255)];
    // Bright where nothing counts, and a crop of 64x64 that is half painted over.
    let outside = inspect(&service, 1, frame((128, 64), &[(0, 0, 64, 64, 255), (96, 0, 32, 64, 255)]));
    assert!((outside.score - 16.0 / 255.0 / 2.0).abs() < 1e-5, "{}", outside.score);
    let inside = inspect(&service, 2, frame((128, 64), &all));
    assert!((inside.score - 0.5).abs() < 1e-5, "{}", inside.score);
}

const SPOTS: &str = r#"
[output]
kind = "detection"
tensor = "output0"
layout = "yolo-v8"
activation = "none"
labels = ["spot"]
box_labels = "best"
box_score_min = 0.25
iou_max = 0.3
boxes_max = 20
box_side_px_min = 4
"#;

#[test]
fn boxes_reach_the_line_the_entry_and_every_verifier() {
    let plant = plant_with(&spot_detector(), &[FRAME_128X64, INPUT_64, SPOTS, POLICY].concat());
    let service = plant.serve();
    // The 128x64 frame lies in rows 16 to 47 of the input: a spot of 16x16 px covers one cell, here (4, 3), and the other
    // one (6, 2), which its neighbour would share.
    let size = (128, 64);
    let clean = inspect(&service, 1, frame(size, &[]));
    assert_eq!((clean.verdict(), clean.score), (pb::Verdict::Ok, 0.0));
    assert!(clean.labels[0].boxes.is_empty() && clean.labels[0].r#box.is_none());

    let image = frame(size, &[(64, 16, 16, 16, 255), (96, 0, 16, 16, 102)]);
    let found = inspect(&service, 2, image.clone());
    assert_eq!((found.verdict(), found.reasons.as_slice()), (pb::Verdict::NotOk, &["reject:spot".to_owned()][..]));
    let label = &found.labels[0];
    assert_eq!(label.r#box, place(56, 8, 32, 32));
    let boxes: Vec<_> = label.boxes.iter().map(|found| (found.r#box, (found.score * 255.0).round())).collect();
    assert_eq!(boxes, [(place(56, 8, 32, 32), 255.0), (place(88, 0, 32, 24), 102.0)]);

    let doubt = inspect(&service, 3, frame(size, &[(96, 0, 16, 16, 102)]));
    assert_eq!(
        (doubt.verdict(), doubt.reasons.as_slice()),
        (pb::Verdict::NotDecidable, &["review:spot".to_owned()][..])
    );

    // The frame sent again gets what the entry kept: the box that decided.
    let again = inspect(&service, 2, image);
    assert!(again.duplicate && again.labels[0].boxes.is_empty());
    assert_eq!(again.labels[0].r#box, place(56, 8, 32, 32));

    // And a folder through the line PC, and the history behind it.
    let folder = plant.folder().join("frames");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("SN-A.png"), frame(size, &[(64, 16, 16, 16, 255)])).unwrap();
    fs::write(folder.join("SN-B.png"), frame(size, &[])).unwrap();
    let mut camera = lineproof();
    camera.arg("camera").arg(&folder).args(["--product", "demo-part", "--server"]);
    camera.arg(format!("http://{}", service.address)).current_dir(plant.folder());
    let output = camera.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    block_on(crate::inspection::wait_until_indexed(&service, 5));
    let output = plant.run(&["history", "--verdict", "NOT_OK"]);
    let shown = text(&output);
    assert_eq!(shown.matches("reject:spot").count(), 2, "{shown}");

    assert_eq!(service.stop().code, Some(0));
    decided_again(&plant);
    let entries = evidence::entries(&plant.data(), "decision");
    let said = |at: usize| {
        let value: serde_json::Value = serde_json::from_str(&entries[at]).unwrap();
        (value["v"].as_u64().unwrap(), value["scores"]["labels"][0].clone())
    };
    let (version, label) = said(0);
    assert_eq!((version, label["boxes"].as_u64(), label.get("at")), (3, Some(0), None));
    let (version, label) = said(1);
    let at = serde_json::json!({"height": 32, "width": 32, "x": 56, "y": 8});
    assert_eq!((version, label["boxes"].as_u64(), &label["at"]), (3, Some(2), &at));
    prove(&plant, "SN-00002");
}
