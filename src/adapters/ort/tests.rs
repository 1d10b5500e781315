//! The real library on models written byte by byte, so that each is exactly as bad as its test needs.

use super::*;
use crate::core::model::sample::onnx;

fn runtime() -> OrtRuntime {
    OrtRuntime::load(None).expect("`make onnxruntime` has fetched the library")
}

fn spec(bytes: Vec<u8>) -> ModelSpec {
    ModelSpec {
        digest: Blake3Digest::of(&bytes),
        bytes: bytes.into(),
        input: "input".into(),
        template: None,
        shape: [1, 1, 2, 2],
        outputs: vec!["output".into()],
    }
}

/// output = input + input, any batch.
fn doubler() -> Vec<u8> {
    onnx::model(&[
        onnx::node("Add", &["input", "input"], &["output"], &[]),
        onnx::bytes(11, onnx::value("input", 1, &[0, 1, 2, 2])),
        onnx::bytes(12, onnx::value("output", 1, &[0, 1, 2, 2])),
    ])
}

/// Loops 2^62 times over output = output + output, which never ends.
fn endless() -> Vec<u8> {
    let scalar = |kind: u64, name: &str, data: Vec<u8>| {
        onnx::bytes(5, [onnx::int(2, kind), onnx::bytes(8, name), onnx::bytes(9, data)].concat())
    };
    let body = [
        onnx::node("Identity", &["go"], &["go_on"], &[]),
        onnx::node("Add", &["carried", "carried"], &["next"], &[]),
        onnx::bytes(2, "body"),
        onnx::bytes(11, onnx::value("i", 7, &[])),
        onnx::bytes(11, onnx::value("go", 9, &[])),
        onnx::bytes(11, onnx::value("carried", 1, &[1, 1, 2, 2])),
        onnx::bytes(12, onnx::value("go_on", 9, &[])),
        onnx::bytes(12, onnx::value("next", 1, &[1, 1, 2, 2])),
    ]
    .concat();
    let attribute = [onnx::bytes(1, "body"), onnx::bytes(6, body), onnx::int(20, 5)].concat();
    onnx::model(&[
        onnx::node("Loop", &["times", "always", "input"], &["output"], &[attribute]),
        scalar(7, "times", (1_i64 << 62).to_le_bytes().to_vec()),
        scalar(9, "always", vec![1]),
        onnx::bytes(11, onnx::value("input", 1, &[1, 1, 2, 2])),
        onnx::bytes(12, onnx::value("output", 1, &[1, 1, 2, 2])),
    ])
}

fn load_error(spec: &ModelSpec) -> String {
    let loaded = runtime().load(spec, &SessionOptions::default());
    loaded.err().expect("the model is refused").to_string()
}

/// What the library says of a model that was not looked at before.
fn open_error(spec: &ModelSpec) -> String {
    let opened = runtime().open(spec, &SessionOptions::default());
    opened.err().expect("the model is refused").to_string()
}

#[test]
fn a_session_runs_any_batch_the_graph_allows_and_says_what_ran() {
    let mut session = runtime().load(&spec(doubler()), &SessionOptions::default()).unwrap();
    let mut outputs = Outputs::default();
    session.run(&[1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2], &mut outputs).unwrap();
    let output = outputs.get("output").unwrap();
    assert_eq!((output.shape, output.values), (&[1, 1, 2, 2][..], &[2.0, 4.0, 6.0, 8.0][..]));
    assert_eq!(session.runtime().batch, 1);

    session.run(&[0.5; 12], [3, 1, 2, 2], &mut outputs).unwrap();
    assert_eq!(outputs.get("output").unwrap().values, [1.0; 12]);
    let record = session.runtime();
    assert_eq!((record.batch, record.provider.as_str(), record.optimisation.as_str()), (3, "cpu", "all"));
    assert_eq!(record.threads, 1);
    assert!(record.version.starts_with("1."), "{record:?}");
    assert!(!record.cpu.is_empty());
}

#[test]
fn a_wrong_input_is_refused_and_leaves_the_session_usable() {
    let mut session = runtime().load(&spec(doubler()), &SessionOptions::default()).unwrap();
    let mut outputs = Outputs::default();
    let short = session.run(&[1.0; 3], [1, 1, 2, 2], &mut outputs).unwrap_err();
    assert_eq!(short.to_string(), "an input of shape [1, 1, 2, 2] has 4 values, not 3");
    let shape = session.run(&[1.0; 6], [1, 1, 2, 3], &mut outputs).unwrap_err();
    assert!(matches!(shape, InferenceError::Run { .. }), "{shape}");
    assert_eq!(outputs.iter().count(), 0);
    session.run(&[1.0; 4], [1, 1, 2, 2], &mut outputs).unwrap();
}

#[test]
fn a_model_with_another_digest_is_not_loaded() {
    let mut spec = spec(doubler());
    spec.digest = Blake3Digest::of(b"the approved model");
    assert!(load_error(&spec).contains("the recipe names blake3:"));
}

#[test]
fn a_graph_that_is_not_what_the_recipe_says_is_refused_with_what_it_has() {
    let changed = |change: fn(&mut ModelSpec)| {
        let mut spec = spec(doubler());
        change(&mut spec);
        load_error(&spec)
    };
    assert!(changed(|spec| spec.input = "image".into()).contains(r#"no input "image"; its input is "input""#));
    assert!(
        changed(|spec| spec.outputs = vec!["logits".into()]).contains(r#"no output "logits"; its outputs are output"#)
    );
    assert!(
        changed(|spec| spec.shape = [1, 3, 2, 2]).contains("[-1, 1, 2, 2] in the graph, [1, 3, 2, 2] in the recipe")
    );

    let two_inputs = onnx::model(&[
        onnx::node("Add", &["input", "other"], &["output"], &[]),
        onnx::bytes(11, onnx::value("input", 1, &[1, 1, 2, 2])),
        onnx::bytes(11, onnx::value("other", 1, &[1, 1, 2, 2])),
        onnx::bytes(12, onnx::value("output", 1, &[1, 1, 2, 2])),
    ]);
    assert!(load_error(&spec(two_inputs)).contains("the graph takes 2: input, other"));

    let integers = onnx::model(&[
        onnx::node("Add", &["input", "input"], &["output"], &[]),
        onnx::bytes(11, onnx::value("input", 7, &[1, 1, 2, 2])),
        onnx::bytes(12, onnx::value("output", 7, &[1, 1, 2, 2])),
    ]);
    assert!(load_error(&spec(integers)).contains("not float32"));
}

#[test]
fn a_model_that_compares_gets_both_images_by_name() {
    // output = input - golden, and the graph names the template first.
    let compares = onnx::model(&[
        onnx::node("Sub", &["input", "golden"], &["output"], &[]),
        onnx::bytes(11, onnx::value("golden", 1, &[1, 1, 2, 2])),
        onnx::bytes(11, onnx::value("input", 1, &[1, 1, 2, 2])),
        onnx::bytes(12, onnx::value("output", 1, &[1, 1, 2, 2])),
    ]);
    assert!(load_error(&spec(compares.clone())).contains("one image tensor is fed, the graph takes 2: golden, input"));
    let of = |template: &str, bytes| ModelSpec { template: Some(template.into()), ..spec(bytes) };
    assert!(load_error(&of("golden", doubler())).contains("frame and template are fed, the graph takes 1: input"));
    assert!(load_error(&of("gold", compares.clone())).contains(r#"no input "gold"; its inputs are "golden, input""#));
    let mut session = runtime().load(&of("golden", compares), &SessionOptions::default()).unwrap();
    let mut outputs = Outputs::default();
    session.run_pair(&[5.0; 4], Some(&[1.0, 2.0, 3.0, 4.0]), [1, 1, 2, 2], &mut outputs).unwrap();
    assert_eq!(outputs.get("output").unwrap().values, [4.0, 3.0, 2.0, 1.0]);
    assert!(matches!(
        session.run_pair(&[5.0; 4], Some(&[1.0]), [1, 1, 2, 2], &mut outputs),
        Err(InferenceError::Input { found: 1, .. })
    ));
    // Without the template nothing runs.
    assert!(session.run(&[5.0; 4], [1, 1, 2, 2], &mut outputs).is_err());
}

#[test]
fn bytes_that_are_no_model_are_refused_before_the_library_and_by_it() {
    for bytes in [Vec::new(), b"not a model".to_vec(), doubler()[..40].to_vec()] {
        let spec = spec(bytes);
        assert!(load_error(&spec).contains("is not let in"));
        assert!(open_error(&spec).contains("does not load"));
    }
}

#[test]
fn a_model_that_may_run_for_ever_is_not_loaded() {
    assert!(load_error(&spec(endless())).contains(r#"operator "Loop" is not let in"#));
}

#[test]
fn weights_outside_the_digested_bytes_are_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights.bin");
    std::fs::write(&weights, [0_u8; 16]).unwrap();
    for location in [weights.to_str().unwrap(), "weights.bin", "../../etc/hostname"] {
        let pair = |key: &str, value: &str| onnx::bytes(13, [onnx::bytes(1, key), onnx::bytes(2, value)].concat());
        let tensor = [
            [1, 1, 2, 2].map(|dim| onnx::int(1, dim)).concat(),
            onnx::int(2, 1),
            onnx::bytes(8, "weights"),
            pair("location", location),
            pair("length", "16"),
            onnx::int(14, 1),
        ];
        let model = onnx::model(&[
            onnx::node("Add", &["input", "weights"], &["output"], &[]),
            onnx::bytes(5, tensor.concat()),
            onnx::bytes(11, onnx::value("input", 1, &[1, 1, 2, 2])),
            onnx::bytes(12, onnx::value("output", 1, &[1, 1, 2, 2])),
        ]);
        let spec = spec(model);
        assert!(load_error(&spec).contains("lies in another file"), "{location}");
        // Nor would the library find them.
        let error = open_error(&spec);
        assert!(error.contains("does not load"), "{location}: {error}");
    }
}

#[test]
fn an_endless_model_is_broken_off_and_the_session_goes_on() {
    let options = SessionOptions { run_limit: Duration::from_millis(50), ..SessionOptions::default() };
    let mut session = runtime().open(&spec(endless()), &options).unwrap();
    let mut outputs = Outputs::default();
    for _ in 0..2 {
        let error = session.run(&[1.0; 4], [1, 1, 2, 2], &mut outputs).unwrap_err();
        assert!(matches!(error, InferenceError::RunLimit { .. }), "{error}");
    }
}

#[test]
fn a_missing_or_foreign_library_says_what_to_do() {
    let missing = locate_named(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err().to_string();
    assert!(missing.contains("make onnxruntime"), "{missing}");
    let foreign = OrtRuntime::start(std::env::current_exe().unwrap()).err().unwrap().to_string();
    assert!(foreign.contains("cannot be used as ONNX Runtime"), "{foreign}");
}

#[test]
fn scores_are_the_same_bits_in_every_session() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/steel-surface-type/1.0.0");
    let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
    let spec = ModelSpec {
        digest: Blake3Digest::of(&bytes),
        bytes: bytes.into(),
        input: "input".into(),
        template: None,
        shape: [1, 1, 128, 128],
        outputs: vec!["logits".into()],
    };
    let input: Vec<f32> = (0..128 * 128).map(|i| ((i * 37) % 255) as f32 / 127.5 - 1.0).collect();
    let mut seen: Option<Vec<u32>> = None;
    for _ in 0..2 {
        let mut session = runtime().load(&spec, &SessionOptions::default()).unwrap();
        let mut outputs = Outputs::default();
        for _ in 0..3 {
            session.run(&input, [1, 1, 128, 128], &mut outputs).unwrap();
            let bits: Vec<u32> = outputs.get("logits").unwrap().values.iter().map(|v| v.to_bits()).collect();
            assert_eq!(*seen.get_or_insert_with(|| bits.clone()), bits);
        }
    }
}
