//! Models from strangers: the service starts, serves what is good and names what is not; nobody dies of one.

use std::path::{Path, PathBuf};

use lineproof::{
    adapters::{
        ort,
        trial::{ProcessTrial, TrialLimits},
    },
    core::model,
    edge::pb,
    ports::{
        inference::{InferenceError, ModelSpec, ModelTrial as _, SessionOptions},
        recipes::RECIPES_MAX,
    },
    types::Blake3Digest,
};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{Plant, block_on, lineproof, part, request, simulated_png, text};

#[path = "../../src/core/model/sample.rs"]
mod sample;

use sample::{SIDE, hostile};

/// A recipe for a model that takes and gives a picture of [`SIDE`].
fn write_recipe(data: &Path, name: &str, model: &[u8]) -> PathBuf {
    let folder = data.join("models").join(name).join("1.0.0");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.onnx"), model).unwrap();
    let digest = Blake3Digest::of(model);
    let recipe = format!(
        r#"
        format = 1
        name = "{name}"
        version = "1.0.0"
        title = "From a stranger"
        [model]
        file = "model.onnx"
        digest = "{digest}"
        [frame]
        formats = ["png"]
        width_px = {{ min = 16, max = 4096 }}
        height_px = {{ min = 16, max = 4096 }}
        encoded_bytes_max = 33554432
        [input]
        tensor = "input"
        colour = "gray"
        width_px = {SIDE}
        height_px = {SIDE}
        resize = "pillow-bilinear"
        fit = "stretch"
        mean = [0.5]
        std = [0.5]
        [output]
        kind = "segmentation"
        tensor = "output"
        activation = "sigmoid"
        labels = ["flaw"]
        map_score = "max"
        pixel_threshold = 0.5
        [policy]
        comparator = ">="
        review = 0.3
        reject = 0.6
        "#
    );
    let path = folder.join("recipe.toml");
    std::fs::write(&path, recipe).unwrap();
    path
}

#[test]
fn a_service_with_hostile_models_in_its_folder_names_each_and_serves_the_others() {
    let plant = Plant::new();
    // Beside the embedded recipe and a harmless one, as many as a service takes.
    let hostile: Vec<_> = hostile().into_iter().take(RECIPES_MAX - 2).collect();
    for (number, model) in hostile.iter().enumerate() {
        write_recipe(&plant.data(), &format!("hostile-{number}"), &model.bytes);
    }
    write_recipe(&plant.data(), "harmless", &sample::harmless());
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for (number, model) in hostile.iter().enumerate() {
            let recipe = format!("hostile-{number}@1.0.0");
            let asked = pb::InspectRequest { recipe: recipe.clone(), ..part(number as u64 + 1) };
            let status = client.inspect(asked).await.expect_err(model.name);
            assert_eq!(status.code(), Code::FailedPrecondition, "{}: {status}", model.name);
            assert!(status.message().contains(&recipe), "{}: {status}", model.name);
            assert!(status.message().contains(model.says), "{}: {status}", model.name);
        }
        for (name, expected) in [("hostile-0", ServingStatus::NotServing), ("harmless", ServingStatus::Serving)] {
            assert_eq!(service.health(&format!("recipe/{name}@1.0.0")).await, expected, "{name}");
        }
        let answer = client.inspect(part(100)).await.unwrap().into_inner();
        assert_eq!(answer.recipe, "machined-surface@1.1.0");
        let harmless = pb::InspectRequest { recipe: "harmless@1.0.0".into(), ..request(101, simulated_png(101)) };
        assert_ne!(client.inspect(harmless).await.unwrap().into_inner().verdict(), pb::Verdict::Undefined);
    });
    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for model in &hostile {
        // The log is JSON, in which quotes are escaped.
        assert!(ended.log.contains(&model.says.replace('"', "\\\"")), "{}: {}", model.name, ended.log);
    }
}

#[test]
fn model_check_says_what_is_in_a_file_and_whether_it_would_be_loaded() {
    let plant = Plant::new();
    let check = |arguments: &[&str]| {
        let output = lineproof().args(["model", "check"]).args(arguments).output().unwrap();
        (output.status.code(), text(&output))
    };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for name in ["ball-screw-pitting/1.0.0", "machined-surface/1.1.0", "steel-surface-type/1.0.0"] {
        let model = shipped.join(name).join("model.onnx");
        let recipe = shipped.join(name).join("recipe.toml");
        for arguments in
            [vec![model.to_str().unwrap()], vec![model.to_str().unwrap(), "--recipe", recipe.to_str().unwrap()]]
        {
            let (code, said) = check(&arguments);
            assert_eq!(code, Some(0), "{said}");
            for fact in [
                "input       input float32 [?, 1,",
                "operator set 17",
                "pytorch 2.",
                "Conv ",
                "this service would load it",
            ] {
                assert!(said.contains(fact), "{fact}: {said}");
            }
        }
    }

    for model in hostile() {
        let path = plant.folder().join("hostile.onnx");
        std::fs::write(&path, &model.bytes).unwrap();
        let (code, said) = check(&[path.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{}: {said}", model.name);
        assert!(said.contains("would NOT load it") && said.contains(model.says), "{}: {said}", model.name);
        let (code, said) = check(&["--json", path.to_str().unwrap()]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, said["rule"].as_str()), (Some(1), Some(model.kind)), "{}: {said}", model.name);
        assert_eq!(said["would_load"], false);
    }

    let recipe = write_recipe(&plant.data(), "harmless", &sample::harmless());
    let recipe = recipe.to_str().unwrap();
    let model = plant.data().join("models/harmless/1.0.0/model.onnx");
    let (code, said) = check(&["--json", "--recipe", recipe, model.to_str().unwrap()]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, said["would_load"].as_bool()), (Some(0), Some(true)), "{said}");
    assert_eq!(said["facts"]["inputs"][0]["shape"], serde_json::json!([1, 1, SIDE, SIDE]));
    // A recipe that names another file, or another output.
    let other = shipped.join("steel-surface-type/1.0.0/model.onnx");
    let (code, said) = check(&["--recipe", recipe, other.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("release a new recipe version"), "{said}");
    let text = std::fs::read_to_string(recipe).unwrap().replace(r#"tensor = "output""#, r#"tensor = "logits""#);
    std::fs::write(recipe, text).unwrap();
    let (code, said) = check(&["--recipe", recipe, model.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains(r#"no output "logits""#), "{said}");
    // No check could be made.
    assert_eq!(check(&["/nowhere/model.onnx"]).0, Some(2));
    assert_eq!(check(&["--recipe", "/nowhere/recipe.toml", model.to_str().unwrap()]).0, Some(2));
}

fn trial(limits: TrialLimits) -> ProcessTrial {
    let library = ort::find_library(None).expect("`make onnxruntime` has fetched the library");
    ProcessTrial::with_program(lineproof().get_program().into(), library, limits)
}

fn spec(bytes: Vec<u8>, shape: [usize; 4], output: &str) -> ModelSpec {
    let outputs = vec![output.to_owned()];
    ModelSpec {
        digest: Blake3Digest::of(&bytes),
        bytes: bytes.into(),
        input: "input".into(),
        template: None,
        shape,
        outputs,
    }
}

#[test]
fn a_model_that_takes_too_much_dies_alone() {
    let shape = [1, 1, SIDE as usize, SIDE as usize];
    let try_out = |limits: TrialLimits, bytes: Vec<u8>| {
        let error = trial(limits).try_out(&spec(bytes, shape, "output"), &SessionOptions::default());
        match error {
            Err(InferenceError::Trial { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let default = TrialLimits::default();
    // Some hundred thousand million multiplications, which no processor does in a second.
    let laborious = || sample::laborious(4096, 20);
    let reason = try_out(TrialLimits { cpu_seconds: 1, ..default }, laborious());
    assert_eq!(reason, "it took more than 1 s of processor time to load and run once");
    let reason = try_out(TrialLimits { wall: std::time::Duration::from_millis(700), ..default }, laborious());
    assert_eq!(reason, "it was not loaded and run once within 700ms");
    // Twenty times 64 MiB where one GiB is there in all.
    let reason = try_out(TrialLimits { address_space_bytes: 3 << 29, ..default }, sample::spacious(4096, 30));
    assert!(reason.contains("alloc") || reason.contains("signal 6"), "{reason}");
    // A program that is none of ours.
    let library = ort::find_library(None).unwrap();
    let stranger = ProcessTrial::with_program("/bin/true".into(), library, default);
    let error = stranger.try_out(&spec(sample::harmless(), shape, "output"), &SessionOptions::default()).unwrap_err();
    assert!(error.to_string().contains("ended without an answer"), "{error}");
    trial(default).try_out(&spec(sample::harmless(), shape, "output"), &SessionOptions::default()).unwrap();
}

#[test]
fn whatever_is_flipped_in_a_model_its_trial_returns() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let models = [("ball-screw-pitting/1.0.0", [1, 1, 208, 256]), ("steel-surface-type/1.0.0", [1, 1, 128, 128])];
    let (mut not_let_in, mut failed, mut passed) = (0, 0, 0);
    for (name, shape) in models {
        let original = std::fs::read(shipped.join(name).join("model.onnx")).unwrap();
        for _ in 0..150 {
            let mut bytes = original.clone();
            for _ in 0..=next(2) {
                // The nodes stand first, then the weights, which say nothing.
                let at = if next(4) == 0 { next(bytes.len()) } else { next(8000) };
                bytes[at] ^= 1 << next(8);
            }
            if model::check(&bytes, Some(shape)).is_err() {
                not_let_in += 1;
                continue;
            }
            match trial(TrialLimits::default()).try_out(&spec(bytes, shape, "logits"), &SessionOptions::default()) {
                Ok(_) => passed += 1,
                Err(InferenceError::Trial { .. }) => failed += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(not_let_in > 20 && failed > 5 && passed > 20, "{not_let_in} not let in, {failed} failed, {passed} passed");
}

#[test]
fn the_model_runtime_reports_to_nobody() {
    let plant = Plant::new();
    let home = tempfile::tempdir().unwrap();
    let mut command = lineproof();
    command.arg("serve").arg("--data").arg(plant.data());
    // As a user's session has it, and with the switch as somebody may have left it.
    command.env("HOME", home.path()).env("ORT_DISABLE_TELEMETRY", "0").env_remove("CI");
    let service = crate::harness::Service::spawn(&mut command).unwrap_or_else(|ended| panic!("{}", ended.log));
    block_on(async { drop(service.inspection().await.inspect(part(1)).await.unwrap()) });
    assert_eq!(service.stop().code, Some(0));
    // The library's own record of events, which it would send, is written there.
    let written: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert!(written.is_empty(), "{written:?}");
}
