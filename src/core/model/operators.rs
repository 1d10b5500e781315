//! The operators that are let in: those with which vision models are exported, each with the rule for the size of what
//! it makes.

use super::{
    ModelRefusal, RefusalKind, is_own_domain,
    messages::{AttributeValue, Graph, Node},
    quoted,
};

/// How large what an operator makes can be; `bounds/rules.rs` computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As the first input.
    Same,
    /// As all inputs broadcast together.
    Broadcast,
    AffineGrid,
    ArgReduce,
    Cast,
    CenterCropPad,
    Col2Im,
    Compress,
    Concat,
    Constant,
    ConstantOfShape,
    Conv,
    ConvTranspose,
    DepthToSpace,
    DynamicQuantizeLinear,
    Einsum,
    Expand,
    Flatten,
    Gather,
    GatherElements,
    GatherNd,
    Gemm,
    GlobalPool,
    GridSample,
    If,
    MatMul,
    MaxUnpool,
    NonMaxSuppression,
    NonZero,
    Normalization,
    OneHot,
    Pad,
    Pool,
    QLinearConv,
    QLinearMatMul,
    Range,
    Reduce,
    Reshape,
    Resize,
    RoiAlign,
    Shape,
    Size,
    Slice,
    SpaceToDepth,
    Split,
    Squeeze,
    Tile,
    TopK,
    Transpose,
    Unique,
    Unsqueeze,
}

use Rule as R;

/// Sorted by name.
const OPERATORS: &[(&str, Rule)] = &[
    ("Abs", R::Same),
    ("Acos", R::Same),
    ("Acosh", R::Same),
    ("Add", R::Broadcast),
    ("AffineGrid", R::AffineGrid),
    ("And", R::Broadcast),
    ("ArgMax", R::ArgReduce),
    ("ArgMin", R::ArgReduce),
    ("Asin", R::Same),
    ("Asinh", R::Same),
    ("Atan", R::Same),
    ("Atanh", R::Same),
    ("AveragePool", R::Pool),
    ("BatchNormalization", R::Normalization),
    ("BitShift", R::Broadcast),
    ("BitwiseAnd", R::Broadcast),
    ("BitwiseNot", R::Same),
    ("BitwiseOr", R::Broadcast),
    ("BitwiseXor", R::Broadcast),
    ("Cast", R::Cast),
    ("CastLike", R::Cast),
    ("Ceil", R::Same),
    ("Celu", R::Same),
    ("CenterCropPad", R::CenterCropPad),
    ("Clip", R::Same),
    ("Col2Im", R::Col2Im),
    ("Compress", R::Compress),
    ("Concat", R::Concat),
    ("Constant", R::Constant),
    ("ConstantOfShape", R::ConstantOfShape),
    ("Conv", R::Conv),
    ("ConvInteger", R::Conv),
    ("ConvTranspose", R::ConvTranspose),
    ("Cos", R::Same),
    ("Cosh", R::Same),
    ("CumSum", R::Same),
    ("DepthToSpace", R::DepthToSpace),
    ("DequantizeLinear", R::Cast),
    ("Div", R::Broadcast),
    ("Dropout", R::Normalization),
    ("DynamicQuantizeLinear", R::DynamicQuantizeLinear),
    ("Einsum", R::Einsum),
    ("Elu", R::Same),
    ("Equal", R::Broadcast),
    ("Erf", R::Same),
    ("Exp", R::Same),
    ("Expand", R::Expand),
    ("EyeLike", R::Same),
    ("Flatten", R::Flatten),
    ("Floor", R::Same),
    ("Gather", R::Gather),
    ("GatherElements", R::GatherElements),
    ("GatherND", R::GatherNd),
    ("Gelu", R::Same),
    ("Gemm", R::Gemm),
    ("GlobalAveragePool", R::GlobalPool),
    ("GlobalLpPool", R::GlobalPool),
    ("GlobalMaxPool", R::GlobalPool),
    ("Greater", R::Broadcast),
    ("GreaterOrEqual", R::Broadcast),
    ("GridSample", R::GridSample),
    ("GroupNormalization", R::Normalization),
    ("HardSigmoid", R::Same),
    ("HardSwish", R::Same),
    ("Hardmax", R::Same),
    ("Identity", R::Same),
    ("If", R::If),
    ("InstanceNormalization", R::Normalization),
    ("IsInf", R::Same),
    ("IsNaN", R::Same),
    ("LRN", R::Same),
    ("LayerNormalization", R::Normalization),
    ("LeakyRelu", R::Same),
    ("Less", R::Broadcast),
    ("LessOrEqual", R::Broadcast),
    ("Log", R::Same),
    ("LogSoftmax", R::Same),
    ("LpNormalization", R::Same),
    ("LpPool", R::Pool),
    ("MatMul", R::MatMul),
    ("MatMulInteger", R::MatMul),
    ("Max", R::Broadcast),
    ("MaxPool", R::Pool),
    ("MaxUnpool", R::MaxUnpool),
    ("Mean", R::Broadcast),
    ("MeanVarianceNormalization", R::Same),
    ("Min", R::Broadcast),
    ("Mish", R::Same),
    ("Mod", R::Broadcast),
    ("Mul", R::Broadcast),
    ("Neg", R::Same),
    ("NonMaxSuppression", R::NonMaxSuppression),
    ("NonZero", R::NonZero),
    ("Not", R::Same),
    ("OneHot", R::OneHot),
    ("Or", R::Broadcast),
    // By its specification like the first input; ONNX Runtime broadcasts both.
    ("PRelu", R::Broadcast),
    ("Pad", R::Pad),
    ("Pow", R::Broadcast),
    ("QLinearConv", R::QLinearConv),
    ("QLinearMatMul", R::QLinearMatMul),
    ("QuantizeLinear", R::Same),
    ("Range", R::Range),
    ("Reciprocal", R::Same),
    ("ReduceL1", R::Reduce),
    ("ReduceL2", R::Reduce),
    ("ReduceLogSum", R::Reduce),
    ("ReduceLogSumExp", R::Reduce),
    ("ReduceMax", R::Reduce),
    ("ReduceMean", R::Reduce),
    ("ReduceMin", R::Reduce),
    ("ReduceProd", R::Reduce),
    ("ReduceSum", R::Reduce),
    ("ReduceSumSquare", R::Reduce),
    ("Relu", R::Same),
    ("Reshape", R::Reshape),
    ("Resize", R::Resize),
    ("ReverseSequence", R::Same),
    ("RoiAlign", R::RoiAlign),
    ("Round", R::Same),
    ("ScatterElements", R::Same),
    ("ScatterND", R::Same),
    ("Selu", R::Same),
    ("Shape", R::Shape),
    ("Shrink", R::Same),
    ("Sigmoid", R::Same),
    ("Sign", R::Same),
    ("Sin", R::Same),
    ("Sinh", R::Same),
    ("Size", R::Size),
    ("Slice", R::Slice),
    ("Softmax", R::Same),
    ("Softplus", R::Same),
    ("Softsign", R::Same),
    ("SpaceToDepth", R::SpaceToDepth),
    ("Split", R::Split),
    ("Sqrt", R::Same),
    ("Squeeze", R::Squeeze),
    ("Sub", R::Broadcast),
    ("Sum", R::Broadcast),
    ("Tan", R::Same),
    ("Tanh", R::Same),
    ("ThresholdedRelu", R::Same),
    ("Tile", R::Tile),
    ("TopK", R::TopK),
    ("Transpose", R::Transpose),
    ("Trilu", R::Same),
    ("Unique", R::Unique),
    ("Unsqueeze", R::Unsqueeze),
    ("Where", R::Broadcast),
    ("Xor", R::Broadcast),
];

/// Operators of ONNX that are refused for a reason of their own.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["Loop", "Scan", "SequenceMap"],
        "it may run for ever, and how long it runs cannot be told from the file; export the model without it",
    ),
    (
        &["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"],
        "it gives another score every time, and a decision could never be repeated; export the model for inference",
    ),
];

/// The rule of an operator.
pub(super) fn rule(operator: &str) -> Option<Rule> {
    OPERATORS.binary_search_by_key(&operator, |row| row.0).ok().map(|at| OPERATORS[at].1)
}

/// Every operator of the graph and of the graphs in it must be on the list.
pub(super) fn check(graph: &Graph<'_>) -> Result<(), ModelRefusal> {
    for node in &graph.nodes {
        check_node(node)?;
        for attribute in &node.attributes {
            if let AttributeValue::Graph(inner) = &attribute.value {
                if node.operator != "If" {
                    let reason = format!("{} has a graph within, which only If may have", node.called());
                    return Err(ModelRefusal::new(RefusalKind::Structure, reason));
                }
                check(inner)?;
            }
        }
    }
    Ok(())
}

fn check_node(node: &Node<'_>) -> Result<(), ModelRefusal> {
    if !is_own_domain(node.domain) {
        let (called, domain) = (node.called(), quoted(node.domain));
        let reason = format!("{called} is an operator of {domain}; only ONNX's own are let in, export it with those");
        return Err(ModelRefusal::new(RefusalKind::Domain, reason));
    }
    if rule(node.operator).is_some() {
        return Ok(());
    }
    let known = REFUSED.iter().find(|(names, _)| names.contains(&node.operator));
    let why = known.map_or("it is not on the list in docs/spec/model.md", |(_, why)| why);
    Err(ModelRefusal::new(RefusalKind::Operator, format!("operator {} is not let in: {why}", quoted(node.operator))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_no_refused_operator_is_on_it() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(REFUSED.iter().flat_map(|(names, _)| *names).all(|name| rule(name).is_none()));
    }

    #[test]
    fn the_specification_lists_exactly_these_operators() {
        let spec = include_str!("../../../docs/spec/model.md");
        let (_, after) = spec.split_once("<!-- operators -->").expect("the list's beginning");
        let (list, _) = after.split_once("<!-- end -->").expect("the list's end");
        let listed: Vec<&str> =
            list.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let names: Vec<&str> = OPERATORS.iter().map(|row| row.0).collect();
        assert_eq!(listed, names);
    }
}
