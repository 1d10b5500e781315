//! What is let in and what is not, on models written for it and on the shipped ones.

use std::path::Path;

use super::{
    sample::{Hostile, SIDE, harmless, hostile, onnx},
    *,
};

fn shipped() -> Vec<(String, Vec<u8>)> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let of = ["ball-screw-pitting/1.0.0", "machined-surface/1.1.0", "steel-surface-type/1.0.0"];
    of.map(|name| (name.to_owned(), std::fs::read(models.join(name).join("model.onnx")).unwrap())).to_vec()
}

#[test]
fn every_hostile_model_is_refused_with_its_reason() {
    let image = Some([1, 1, SIDE as usize, SIDE as usize]);
    assert!(hostile().len() >= 12);
    for Hostile { name, bytes, kind, says } in hostile() {
        let refusal = check(&bytes, image).expect_err(name);
        assert_eq!(refusal.kind.as_str(), kind, "{name}: {refusal}");
        assert!(refusal.reason.contains(says), "{name}: {refusal}");
        assert!(refusal.reason.len() < 1000, "{name}");
    }
    check(&harmless(), image).unwrap();
}

#[test]
fn every_shipped_model_is_let_in_and_described() {
    for (name, bytes) in shipped() {
        let facts = check(&bytes, None).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((facts.bytes, facts.opset, facts.inputs.len()), (bytes.len(), 17, 1), "{name}");
        assert!(facts.producer.starts_with("pytorch 2."), "{name}: {}", facts.producer);
        assert!(facts.operators["Conv"] > 10 && facts.parameters > 100_000, "{name}: {facts:?}");
        // The weights are most of the file.
        assert!(facts.parameters * 4 <= bytes.len() as u64 && facts.parameters * 5 > bytes.len() as u64, "{name}");
        assert!((100_000_000..1_000_000_000).contains(&facts.multiplications), "{name}: {facts:?}");
    }
}

#[test]
fn flipped_and_cut_models_are_judged_without_a_panic() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let (mut let_in, mut refused) = (0, 0);
    for (_, original) in shipped() {
        for _ in 0..400 {
            let mut bytes = original.clone();
            for _ in 0..=next(3) {
                // Weights are most of a file and say nothing; names and shapes lie at its ends.
                let at = if next(2) == 0 { next(bytes.len()) } else { bytes.len() - 1 - next(bytes.len().min(6000)) };
                bytes[at] ^= 1 << next(8);
            }
            if next(8) == 0 {
                bytes.truncate(next(bytes.len()));
            }
            if check(&bytes, None).is_ok() { let_in += 1 } else { refused += 1 }
        }
    }
    assert!(let_in > 100 && refused > 100, "{let_in} let in, {refused} refused");
}

/// Operators from picture to output, given their inner shapes for the whole of a picture.
fn largest(nodes: &[Vec<u8>]) -> Result<u64, ModelRefusal> {
    let ends =
        [onnx::bytes(11, onnx::value("input", 1, &[0, 3, 0, 0])), onnx::bytes(12, onnx::value("output", 1, &[]))];
    check(&onnx::model(&[nodes, &ends].concat()), Some([1, 3, 100, 60])).map(|facts| facts.largest_tensor.0)
}

fn weights(name: &str, dims: &[u64]) -> Vec<u8> {
    let values = dims.iter().product::<u64>() as usize;
    onnx::bytes(5, onnx::tensor(name, 1, dims, &vec![0; values * 4]))
}

fn ints_attribute(name: &str, values: &[u64]) -> Vec<u8> {
    let ints = values.iter().flat_map(|value| onnx::int(8, *value)).collect::<Vec<_>>();
    [onnx::bytes(1, name), ints, onnx::int(20, 7)].concat()
}

#[test]
fn sizes_are_what_the_operators_specification_says() {
    // A convolution with padding, stride and dilation: (100 + 2 - 5) / 2 + 1 = 49, (60 + 2 - 5) / 2 + 1 = 29.
    let conv = onnx::node(
        "Conv",
        &["input", "w"],
        &["output"],
        &[
            ints_attribute("pads", &[1, 1, 1, 1]),
            ints_attribute("strides", &[2, 2]),
            ints_attribute("dilations", &[2, 2]),
        ],
    );
    assert_eq!(largest(&[weights("w", &[8, 3, 3, 3]), conv]).unwrap(), 8 * 49 * 29 * 4);
    // (100 - 1) * 4 + 3 = 399, (60 - 1) * 4 + 3 = 239: more than its windows side by side, 4 * 9 * 100 * 60.
    let up = onnx::node("ConvTranspose", &["input", "w"], &["output"], &[ints_attribute("strides", &[4, 4])]);
    assert_eq!(largest(&[weights("w", &[3, 4, 3, 3]), up]).unwrap(), 4 * 399 * 239 * 4);
    // A size that the graph computes for itself: twice its own height, and its width.
    let own_size = [
        onnx::node("Shape", &["input"], &["shape"], &[]),
        onnx::ints("two", &[2]),
        onnx::ints("three", &[3]),
        onnx::ints("four", &[4]),
        onnx::ints("zero", &[0]),
        onnx::node("Gather", &["shape", "two"], &["height"], &[]),
        onnx::node("Mul", &["height", "two"], &["twice"], &[]),
        onnx::node("Slice", &["shape", "three", "four"], &["width"], &[]),
        onnx::node("Slice", &["shape", "zero", "two"], &["front"], &[]),
        onnx::node("Concat", &["front", "twice", "width"], &["sizes"], &[onnx::int_attribute("axis", 0)]),
        onnx::node("Resize", &["input", "", "", "sizes"], &["output"], &[]),
    ];
    assert_eq!(largest(&own_size).unwrap(), 3 * 200 * 60 * 4);
    // At most as many boxes as may be chosen.
    let found = [
        onnx::node("NonZero", &["input"], &["where"], &[]),
        onnx::node("Cast", &["where"], &["output"], &[onnx::int_attribute("to", 1)]),
    ];
    assert_eq!(largest(&found).unwrap(), 4 * (3 * 100 * 60) * 8);
}

#[test]
fn numbers_that_would_wrap_round_are_not_believed() {
    // 2^32 * 2^32 is 0 in int64, and would choose the harmless branch here but the other one there.
    let wrapped = [
        onnx::ints("large", &[1 << 32]),
        onnx::ints("few", &[10]),
        onnx::node("Mul", &["large", "large"], &["wrapped"], &[]),
        onnx::node("Min", &["wrapped", "few"], &["count"], &[]),
        onnx::node("Expand", &["input", "count"], &["output"], &[]),
    ];
    assert_eq!(largest(&wrapped).unwrap_err().kind, RefusalKind::Unbounded);
}

#[test]
fn what_an_operator_needs_beside_its_output_counts() {
    // 1000 x 1000 windows of 500 x 500 put side by side, for a picture that is small before and after.
    let kernel = |name: &str, side: i64| {
        let shape = format!("{name}_shape");
        [onnx::ints(&shape, &[3, 1, side, side]), onnx::node("ConstantOfShape", &[&shape], &[name], &[])].concat()
    };
    let pads = ints_attribute("pads", &[250, 250, 250, 250]);
    let unfolds = [kernel("w", 500), onnx::node("ConvTranspose", &["input", "w"], &["output"], &[pads])];
    assert_eq!(largest(&unfolds).unwrap_err().kind, RefusalKind::Shape);
    // By its specification as large as the picture; it is stretched to a row by a column.
    let (row, column) = (onnx::ints("row_shape", &[1, 50_000]), onnx::ints("column_shape", &[50_000, 1]));
    let stretched = [
        row,
        column,
        onnx::node("ConstantOfShape", &["row_shape"], &["row"], &[]),
        onnx::node("ConstantOfShape", &["column_shape"], &["column"], &[]),
        onnx::node("PRelu", &["row", "column"], &["output"], &[]),
    ];
    assert_eq!(largest(&stretched).unwrap_err().kind, RefusalKind::Folding);
}

#[test]
fn a_file_of_many_small_things_takes_no_time_that_grows_with_their_square() {
    // As many inputs as there may be, each looked up among as many constants as there may be.
    let input = |number: usize| onnx::bytes(11, onnx::value(&format!("i{number}"), 1, &[1]));
    let constant = |number: usize| onnx::bytes(5, onnx::tensor(&format!("c{number}"), 1, &[1], &[0; 4]));
    let mut parts: Vec<Vec<u8>> = (0..VALUE_INFOS_MAX - 1).map(input).collect();
    parts.extend((0..TENSORS_MAX).map(constant));
    parts.push(onnx::node("Identity", &["i0"], &["output"], &[]));
    parts.push(onnx::bytes(12, onnx::value("output", 1, &[1])));
    assert_eq!(check(&onnx::model(&parts), None).unwrap().inputs.len(), VALUE_INFOS_MAX - 1);
    // And one node with as many attributes as it likes.
    let attributes: Vec<Vec<u8>> = (0..1000).map(|number| onnx::int_attribute(&format!("a{number}"), 1)).collect();
    let refusal = largest(&[onnx::node("Relu", &["input"], &["output"], &attributes)]).unwrap_err();
    assert_eq!(refusal.reason, "it has more than 64 attributes of one node");
}

#[test]
fn both_branches_count() {
    let branch = |name: &str, body: Vec<u8>| {
        onnx::graph_attribute(name, &[body, onnx::bytes(12, onnx::bytes(1, "made"))].concat())
    };
    let double = onnx::node("Concat", &["input", "input"], &["made"], &[onnx::int_attribute("axis", 1)]);
    let same = onnx::node("Identity", &["input"], &["made"], &[]);
    let chosen = [
        onnx::bytes(5, onnx::tensor("yes", 9, &[], &[1])),
        onnx::node("If", &["yes"], &["output"], &[branch("then_branch", same), branch("else_branch", double)]),
    ];
    assert_eq!(largest(&chosen).unwrap(), 6 * 100 * 60 * 4);
}
