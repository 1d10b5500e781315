//! Models written byte by byte, each exactly as bad as a test needs.

/// The few pieces of ONNX's protobuf that these models are made of.
pub mod onnx {
    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 127 {
            bytes.push((value & 127) as u8 | 128);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub fn int(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    pub fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    /// ValueInfoProto; a dimension of 0 is open. Types: 1 float32, 7 int64, 9 bool.
    pub fn value(name: &str, kind: u64, dims: &[u64]) -> Vec<u8> {
        let dim = |d: &u64| bytes(1, if *d == 0 { bytes(2, "N") } else { int(1, *d) });
        let shape = dims.iter().flat_map(dim).collect::<Vec<_>>();
        [bytes(1, name), bytes(2, bytes(1, [int(1, kind), bytes(2, shape)].concat()))].concat()
    }

    /// NodeProto in a GraphProto.
    pub fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut node = Vec::new();
        inputs.iter().for_each(|name| node.extend(bytes(1, name)));
        outputs.iter().for_each(|name| node.extend(bytes(2, name)));
        node.extend(bytes(4, operator));
        attributes.iter().for_each(|attribute| node.extend(bytes(5, attribute)));
        bytes(1, node)
    }

    /// TensorProto.
    pub fn tensor(name: &str, kind: u64, dims: &[u64], raw: &[u8]) -> Vec<u8> {
        let dims = dims.iter().flat_map(|dim| int(1, *dim)).collect::<Vec<_>>();
        [dims, int(2, kind), bytes(8, name), bytes(9, raw)].concat()
    }

    /// An initializer of int64.
    pub fn ints(name: &str, values: &[i64]) -> Vec<u8> {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes(5, tensor(name, 7, &[values.len() as u64], &raw))
    }

    /// An initializer of int64 that is one number.
    pub fn number(name: &str, value: i64) -> Vec<u8> {
        bytes(5, tensor(name, 7, &[], &value.to_le_bytes()))
    }

    /// AttributeProto of one integer.
    pub fn int_attribute(name: &str, value: u64) -> Vec<u8> {
        [bytes(1, name), int(3, value), int(20, 2)].concat()
    }

    /// AttributeProto of a graph.
    pub fn graph_attribute(name: &str, graph: &[u8]) -> Vec<u8> {
        [bytes(1, name), bytes(6, graph), int(20, 5)].concat()
    }

    /// ModelProto of operator set 17.
    pub fn model(graph: &[Vec<u8>]) -> Vec<u8> {
        let graph = [graph.concat(), bytes(2, "g")].concat();
        [int(1, 8), bytes(7, graph), bytes(8, int(2, 17))].concat()
    }
}

use onnx::{bytes, graph_attribute, int, int_attribute, ints, model, node, number, tensor, value};

/// Side of the picture that every model here takes.
pub const SIDE: u64 = 32;

/// A model that must be refused.
pub struct Hostile {
    /// What it does.
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// The rule it breaks.
    pub kind: &'static str,
    /// Part of the reason.
    pub says: &'static str,
}

/// A graph of one picture in and one out, with `parts`.
fn pictured(parts: &[Vec<u8>]) -> Vec<u8> {
    let shape = [1, 1, SIDE, SIDE];
    let ends = [bytes(11, value("input", 1, &shape)), bytes(12, value("output", 1, &shape))];
    model(&[parts, &ends].concat())
}

/// The picture as it came.
fn passed_on() -> Vec<u8> {
    node("Identity", &["input"], &["output"], &[])
}

/// A model that does no harm: the picture, twice as bright.
pub fn harmless() -> Vec<u8> {
    pictured(&[node("Add", &["input", "input"], &["output"], &[])])
}

/// The picture plus what `parts` make, `bomb`, brought down to one number.
fn with_bomb(parts: &[Vec<u8>]) -> Vec<u8> {
    let down = node("ReduceMax", &["bomb"], &["one"], &[int_attribute("keepdims", 0)]);
    pictured(&[parts, &[down, node("Add", &["input", "one"], &["output"], &[])]].concat())
}

/// A model that nothing is wrong with but what it takes: `count` products of matrices of `side` by `side`, made of the
/// picture, so that they are computed for every frame.
pub fn laborious(side: i64, count: usize) -> Vec<u8> {
    let shape = ints("shape", &[side, side]);
    let mut parts = vec![
        shape,
        node("ReduceMax", &["input"], &["brightest"], &[int_attribute("keepdims", 0)]),
        node("Expand", &["brightest", "shape"], &["m0"], &[]),
    ];
    for number in 0..count {
        let (from, to) = (format!("m{number}"), format!("m{}", number + 1));
        parts.push(node("MatMul", &[&from, "m0"], &[&to], &[]));
    }
    let last = format!("m{count}");
    parts.push(node("Identity", &[&last], &["bomb"], &[]));
    with_bomb(&parts)
}

/// A model that holds `count` tensors of `side` by `side` float32 at once.
pub fn spacious(side: i64, count: usize) -> Vec<u8> {
    let names: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
    let mut parts = vec![
        ints("shape", &[side, side]),
        node("ReduceMax", &["input"], &["brightest"], &[int_attribute("keepdims", 0)]),
        node("Expand", &["brightest", "shape"], &["m0"], &[]),
    ];
    for pair in names.windows(2) {
        parts.push(node("Sin", &[&pair[0]], &[&pair[1]], &[]));
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    parts.push(node("Sum", &all, &["bomb"], &[]));
    with_bomb(&parts)
}

/// Constants of float32 `name` [rows, columns], made of nothing.
fn zeros(name: &str, rows: i64, columns: i64) -> Vec<u8> {
    let shape = format!("{name}_shape");
    [ints(&shape, &[rows, columns]), node("ConstantOfShape", &[&shape], &[name], &[])].concat()
}

/// `If` in `If` in `If`: each branch of depth 0 gives the picture.
fn nested(depth: usize) -> Vec<u8> {
    let name = format!("out{depth}");
    let inner = format!("out{}", depth.wrapping_sub(1));
    if depth == 0 {
        node("Identity", &["input"], &[&name], &[])
    } else {
        let branch = [nested(depth - 1), bytes(12, bytes(1, &inner))].concat();
        node(
            "If",
            &["yes"],
            &[&name],
            &[graph_attribute("then_branch", &branch), graph_attribute("else_branch", &branch)],
        )
    }
}

/// Loops 2^62 times over a value, which never ends.
fn endless() -> Vec<u8> {
    let body = [
        node("Identity", &["go"], &["go_on"], &[]),
        node("Add", &["carried", "carried"], &["next"], &[]),
        bytes(11, value("i", 7, &[])),
        bytes(11, value("go", 9, &[])),
        bytes(11, value("carried", 1, &[1, 1, SIDE, SIDE])),
        bytes(12, value("go_on", 9, &[])),
        bytes(12, value("next", 1, &[1, 1, SIDE, SIDE])),
    ];
    pictured(&[
        number("times", 1 << 62),
        bytes(5, tensor("always", 9, &[], &[1])),
        node("Loop", &["times", "always", "input"], &["output"], &[graph_attribute("body", &body.concat())]),
    ])
}

/// The picture plus weights that `location` names.
fn external(location: &str) -> Vec<u8> {
    let pair = |key: &str, value: &str| bytes(13, [bytes(1, key), bytes(2, value)].concat());
    let weights = [
        [1, 1, SIDE, SIDE].map(|dim| int(1, dim)).concat(),
        int(2, 1),
        bytes(8, "weights"),
        pair("location", location),
        pair("length", "4096"),
        int(14, 1),
    ];
    pictured(&[bytes(5, weights.concat()), node("Add", &["input", "weights"], &["output"], &[])])
}

/// As many doublings of a constant as it takes to fill every memory.
fn doublings() -> Vec<u8> {
    let mut parts = vec![zeros("d0", 1, 1024)];
    for number in 0..40 {
        let (from, to) = (format!("d{number}"), format!("d{}", number + 1));
        parts.push(node("Concat", &[&from, &from], &[&to], &[int_attribute("axis", 0)]));
    }
    parts.push(node("Identity", &["d40"], &["bomb"], &[]));
    with_bomb(&parts)
}

/// The picture stretched to a size that its own brightness says.
fn by_brightness() -> Vec<u8> {
    with_bomb(&[
        node("ReduceMax", &["input"], &["brightness"], &[int_attribute("keepdims", 0)]),
        node("Cast", &["brightness"], &["count"], &[int_attribute("to", 7)]),
        ints("axis", &[0]),
        node("Unsqueeze", &["count", "axis"], &["counts"], &[]),
        node("ConstantOfShape", &["counts"], &["bomb"], &[]),
    ])
}

/// Every model that must be refused.
pub fn hostile() -> Vec<Hostile> {
    let bad = |name, bytes: Vec<u8>, kind, says| Hostile { name, bytes, kind, says };
    let scales = [1.0_f32, 1.0, 1e5, 1e5].map(f32::to_le_bytes).concat();
    let of_one = |operator: &str| pictured(&[node(operator, &["input"], &["output"], &[])]);
    let function = [bytes(1, "f"), bytes(10, "mine")].concat();
    let with_more = |field: u64, more: &[u8]| [harmless(), bytes(field, more)].concat();
    vec![
        bad("folds a constant of 4 GB", with_bomb(&[zeros("bomb", 16_384, 65_536)]), "folding", "one may have"),
        bad("doubles a constant forty times", doublings(), "folding", "Concat"),
        bad(
            "multiplies constants for minutes",
            with_bomb(&[zeros("a", 8192, 8192), node("MatMul", &["a", "a"], &["bomb"], &[])]),
            "folding",
            "multiplications to load",
        ),
        bad(
            "stretches a row and a column",
            with_bomb(&[zeros("a", 1, 100_000), zeros("b", 100_000, 1), node("Add", &["a", "b"], &["bomb"], &[])]),
            "folding",
            "Add",
        ),
        bad(
            "counts to a million million",
            with_bomb(&[
                number("from", 0),
                number("to", 1_000_000_000_000),
                number("step", 1),
                node("Range", &["from", "to", "step"], &["count"], &[]),
                node("Cast", &["count"], &["bomb"], &[int_attribute("to", 1)]),
            ]),
            "folding",
            "Range",
        ),
        bad(
            "tiles the picture",
            with_bomb(&[ints("times", &[1, 1, 40_000, 40_000]), node("Tile", &["input", "times"], &["bomb"], &[])]),
            "shape",
            "Tile",
        ),
        bad(
            "pads the picture",
            with_bomb(&[
                ints("pads", &[0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20]),
                node("Pad", &["input", "pads"], &["bomb"], &[]),
            ]),
            "shape",
            "Pad",
        ),
        bad(
            "enlarges the picture",
            with_bomb(&[
                bytes(5, tensor("scales", 1, &[4], &scales)),
                node("Resize", &["input", "", "scales"], &["bomb"], &[]),
            ]),
            "shape",
            "Resize",
        ),
        bad("asks the picture how large", by_brightness(), "unbounded", "computed from the picture"),
        bad("never ends", endless(), "operator", "it may run for ever"),
        bad("throws dice", of_one("RandomNormalLike"), "operator", "another score every time"),
        bad("has an operator of its own", of_one("Backdoor"), "operator", "not on the list"),
        bad(
            "has an operator of somebody's",
            pictured(&[bytes(
                1,
                [bytes(1, "input"), bytes(2, "output"), bytes(4, "Run"), bytes(7, "evil.example")].concat(),
            )]),
            "domain",
            "only ONNX's own",
        ),
        bad(
            "declares a huge shape",
            {
                let huge = bytes(13, value("inner", 1, &[1 << 20, 1 << 20]));
                pictured(&[passed_on(), huge])
            },
            "shape",
            "declares the shape",
        ),
        bad("climbs out of its folder", external("../../../etc/hostname"), "external-data", "lies in another file"),
        bad("names memory as its weights", external("*/_ORT_MEM_ADDR_/*"), "external-data", "lies in another file"),
        bad("is cut in the middle", harmless()[..60].to_vec(), "not-onnx", "ends in the middle"),
        bad("is an archive", b"PK\x03\x04 this is no model".to_vec(), "not-onnx", "which ONNX does not know"),
        bad("says its graph twice", with_more(7, &[]), "not-onnx", "stands twice"),
        bad("has a field nobody knows", with_more(99, b"?"), "not-onnx", "which ONNX does not know"),
        bad(
            "nests graphs",
            {
                let yes = bytes(5, tensor("yes", 9, &[], &[1]));
                pictured(&[yes, nested(6), node("Identity", &["out6"], &["output"], &[])])
            },
            "size",
            "nested deeper",
        ),
        bad(
            "has a giant name",
            {
                let giant = "a".repeat(2 << 20);
                pictured(&[node("Identity", &["input"], &[&giant], &[]), node("Identity", &[&giant], &["output"], &[])])
            },
            "size",
            "bytes; at most 1024",
        ),
        bad(
            "repeats an empty node",
            {
                let nodes = bytes(1, []).repeat(3_000_000);
                pictured(&[nodes])
            },
            "size",
            "more than 20000 nodes",
        ),
        bad(
            "makes a value twice",
            pictured(&[passed_on(), node("Relu", &["input"], &["output"], &[])]),
            "structure",
            "made twice",
        ),
        bad(
            "goes in a circle",
            pictured(&[
                node("Add", &["input", "b"], &["a"], &[]),
                node("Add", &["input", "a"], &["b"], &[]),
                node("Identity", &["a"], &["output"], &[]),
            ]),
            "structure",
            "the graph is cyclic or cut",
        ),
        bad("calls functions of its own", with_more(25, &function), "structure", "inline them"),
        bad("trains", with_more(20, &[]), "structure", "training"),
        bad(
            "holds more than it declares",
            pictured(&[bytes(5, tensor("w", 1, &[2], &[0; 400])), passed_on()]),
            "tensor",
            "declares 2 values of 4 bytes and holds 400 bytes",
        ),
        bad(
            "declares more than it holds",
            pictured(&[bytes(5, tensor("w", 1, &[1 << 28], &[0; 4])), passed_on()]),
            "tensor",
            "and holds 4 bytes",
        ),
        bad(
            "has more values than can be counted",
            pictured(&[bytes(5, tensor("w", 1, &[1 << 40, 1 << 40], &[])), passed_on()]),
            "tensor",
            "can be counted",
        ),
        bad(
            "has texts for weights",
            pictured(&[bytes(5, tensor("w", 8, &[0], &[])), passed_on()]),
            "tensor",
            "data type 8",
        ),
        bad("has a sparse constant", pictured(&[bytes(15, int(3, 1 << 40)), passed_on()]), "tensor", "sparse"),
        bad(
            "is of an old operator set",
            {
                let graph =
                    [passed_on(), bytes(11, value("input", 1, &[1, 1, 2, 2])), bytes(12, value("output", 1, &[1]))];
                [int(1, 8), bytes(7, graph.concat()), bytes(8, int(2, 9))].concat()
            },
            "version",
            "11 to 21",
        ),
    ]
}
